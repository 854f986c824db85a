"""What a model is trained on: augmentation, mixup, losses."""

import dataclasses

import pytest
import torch

from ser_ros.training.recipe import AugmentationConfig, Recipe
from ser_ros.training.task import Augment, EmotionTask

NAMES = ['happy', 'sad', 'angry', 'calm']
ONE_BIT = 2.0**-15
PLAIN = AugmentationConfig(
    gain_db=(0.0, 0.0), noise_probability=0.0, mel_masks=0, time_masks=0, mixup_alpha=0.0
)


def noise(batch, n, seed=1):
    return 0.1 * torch.randn(batch, n, generator=torch.Generator().manual_seed(seed))


def make_task(augmentation, **optimization):
    torch.manual_seed(1)
    recipe = Recipe(
        augmentation=augmentation,
        hyperparameters={'conv_dropout': 0.0, 'encoder_dropout': 0.0},
        optimization=dataclasses.replace(Recipe().optimization, **optimization),
    )
    n_mels = recipe.frontend.n_mels
    return EmotionTask(recipe, NAMES, torch.full((n_mels,), -50.0), torch.full((n_mels,), 16.0))


def batch():
    lengths = torch.tensor([32_000, 24_000, 20_000, 16_000])
    samples = (noise(4, 32_000) / ONE_BIT).round() * ONE_BIT
    for row, length in zip(samples, lengths):
        row[length:] = 0
    return samples, lengths, torch.tensor([0, 1, 2, 3])


# Lightning says that a step which no trainer runs logs nothing.
pytestmark = pytest.mark.filterwarnings('ignore:.*trainer.*')


def test_augmentation_off_changes_nothing():
    augment = Augment(PLAIN)
    samples = noise(3, 5_000)
    torch.testing.assert_close(augment.waveform(samples), samples, atol=ONE_BIT, rtol=0)
    x = torch.randn(3, 64, 90)
    torch.testing.assert_close(augment.spectrogram(x), x)


@pytest.mark.parametrize('gain_db', [-20.0, 6.0])
def test_gain(gain_db):
    augment = Augment(dataclasses.replace(PLAIN, gain_db=(gain_db, gain_db)))
    samples = noise(3, 5_000)
    expected = (samples * 10 ** (gain_db / 20)).clamp(-1, 1)
    torch.testing.assert_close(augment.waveform(samples), expected, atol=ONE_BIT, rtol=0)


def test_a_quiet_voice_is_as_coarse_as_in_a_message():
    augment = Augment(dataclasses.replace(PLAIN, gain_db=(-60.0, -60.0)))
    steps = augment.waveform(noise(3, 5_000)) / ONE_BIT
    assert (steps == steps.round()).all()
    assert 0 < len(steps.unique()) < 40


def test_loud_samples_are_clipped_as_a_microphone_does():
    augment = Augment(dataclasses.replace(PLAIN, gain_db=(40.0, 40.0)))
    out = augment.waveform(noise(2, 1_000))
    assert out.abs().max() == 1


@pytest.mark.parametrize('snr_db', [10.0, 30.0])
def test_noise_is_relative_to_each_clip(snr_db):
    torch.manual_seed(1)
    config = dataclasses.replace(PLAIN, noise_probability=1.0, noise_snr_db=(snr_db, snr_db))
    samples = noise(2, 50_000) * torch.tensor([[1.0], [0.1]])
    added = Augment(config).waveform(samples) - samples
    ratio = 20 * (samples.std(dim=1) / added.std(dim=1)).log10()
    torch.testing.assert_close(ratio, torch.full((2,), snr_db), atol=0.2, rtol=0)


def test_noise_comes_as_often_as_it_shall():
    torch.manual_seed(1)
    samples = noise(400, 200)
    changed = Augment(dataclasses.replace(PLAIN, noise_probability=0.3)).waveform(samples)
    share = ((changed - samples).abs() > 2 * ONE_BIT).any(dim=1).float().mean()
    assert share == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize(
    ('axis', 'width', 'config'),
    [
        (1, 16, dataclasses.replace(PLAIN, mel_masks=2, mel_mask_width=8)),
        (2, 40, dataclasses.replace(PLAIN, time_masks=2, time_mask_width=20)),
    ],
    ids=['mels', 'frames'],
)
def test_masks_are_whole_bands_of_their_width_at_most(axis, width, config):
    torch.manual_seed(1)
    out = Augment(config).spectrogram(torch.ones(200, 64, 90))
    other = 3 - axis
    assert (out.amin(dim=other) == out.amax(dim=other)).all()
    masked = (out.amin(dim=other) == 0).sum(dim=1)
    assert masked.max() <= width
    # Two masks, each half as wide as it may be on average, that seldom meet.
    assert 0.35 * width < masked.float().mean() < 0.5 * width


def test_masks_fit_a_clip_shorter_than_they_are():
    torch.manual_seed(1)
    config = dataclasses.replace(PLAIN, time_masks=3, time_mask_width=50)
    out = Augment(config).spectrogram(torch.ones(50, 64, 10))
    assert out.shape == (50, 64, 10)
    assert set(out.unique().tolist()) <= {0.0, 1.0}


def test_without_augmentation_the_loss_is_cross_entropy():
    task = make_task(PLAIN, label_smoothing=0.1)
    samples, lengths, labels = batch()
    loss = task.training_step((samples, lengths, labels))
    logits = task(samples, lengths)
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)


def test_a_clip_is_judged_without_its_padding():
    task = make_task(PLAIN).eval()
    samples, lengths, _ = batch()
    logits = task(samples, lengths)
    for row, clip, length in zip(logits, samples, lengths):
        alone = task(clip[None, :length], length[None])[0]
        torch.testing.assert_close(row, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('alpha', [0.0, 0.2, 1.0])
def test_a_training_step_is_finite_and_teaches(alpha):
    augmentation = dataclasses.replace(AugmentationConfig(), mixup_alpha=alpha)
    task = make_task(augmentation)
    loss = task.training_step(batch())
    assert loss.ndim == 0
    assert loss.isfinite()
    loss.backward()
    gradients = [p.grad for p in task.model.parameters()]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert sum(gradient.abs().sum() for gradient in gradients) > 0


def test_mixup_gives_both_labels_their_share():
    """With a model that ignores its input, the loss of a mixture is that of its labels alone."""
    task = make_task(dataclasses.replace(PLAIN, mixup_alpha=1.0), label_smoothing=0.0)
    with torch.no_grad():
        task.model.classifier.weight.zero_()
        task.model.classifier.bias.copy_(torch.tensor([2.0, 0.0, 0.0, 0.0]))
    samples, lengths, labels = batch()
    losses = torch.nn.functional.cross_entropy(
        task.model.classifier.bias.expand(4, 4), labels, reduction='none'
    )
    for seed in range(5):
        torch.manual_seed(seed)
        # Every clip is once a first and once an other: the shares add up to the plain mean.
        torch.testing.assert_close(task.training_step((samples, lengths, labels)), losses.mean())


def test_mixup_mixes_the_sounds():
    samples, lengths, labels = batch()
    losses = set()
    for seed in range(6):
        task = make_task(dataclasses.replace(PLAIN, mixup_alpha=1.0))
        torch.manual_seed(seed)
        losses.add(round(task.training_step((samples, lengths, labels)).item(), 5))
    assert len(losses) > 1


def test_validation_judges_an_utterance_by_the_mean_of_its_windows():
    task = make_task(PLAIN).eval()
    samples, lengths, _ = batch()
    label = int(task(samples, lengths).log_softmax(dim=1).mean(dim=0).argmax())
    task.validation_step((samples, lengths, torch.full((4,), label)))
    assert task.accuracy.compute() == 1
    task.accuracy.reset()
    task.validation_step((samples, lengths, torch.full((4,), (label + 1) % 4)))
    assert task.accuracy.compute() == 0


def test_statistics_travel_with_the_task():
    task = make_task(PLAIN)
    assert (task.frontend.mean == -50).all()
    assert (task.frontend.std == 16).all()
    assert {'frontend.mean', 'frontend.std'} <= set(task.state_dict())
