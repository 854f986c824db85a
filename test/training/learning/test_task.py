"""The learning task: targets, losses, schedules and validation."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from ser_ros.features import build_frontend
from ser_ros.models import build_model
from ser_ros.models.blocks import frame_mask
from ser_ros.training.data.dataset import NO_CLASS
from ser_ros.training.learning.task import (
    EmotionTask,
    clip_losses,
    learning_rate_schedule,
    soft_targets,
)
from ser_ros.training.recipe import AugmentationConfig, OptimizationConfig, Recipe, VoiceConfig

NAMES = ['happy', 'sad', 'angry', 'calm']
ONE_BIT = 2.0**-15
PLAIN = AugmentationConfig(
    gain_db=(0.0, 0.0), noise_probability=0.0, mel_masks=0, time_masks=0, mixup_alpha=0.0
)


def noise(batch, n, seed=1):
    return 0.1 * torch.randn(batch, n, generator=torch.Generator().manual_seed(seed))


def make_task(augmentation, corpus_classes=None, **optimization):
    torch.manual_seed(1)
    recipe = Recipe(
        augmentation=augmentation,
        hyperparameters={'conv_dropout': 0.0, 'encoder_dropout': 0.0},
        optimization=dataclasses.replace(Recipe().optimization, **optimization),
    )
    frontend = build_frontend(
        recipe.frontend, mean=torch.full((64, 1), -50.0), std=torch.full((64, 1), 16.0)
    )
    model = build_model(
        recipe.architecture, frontend.n_features, len(NAMES), **recipe.hyperparameters
    )
    return EmotionTask(recipe, frontend, model, len(NAMES), corpus_classes=corpus_classes)


def batch():
    lengths = torch.tensor([32_000, 24_000, 20_000, 16_000])
    samples = (noise(4, 32_000) / ONE_BIT).round() * ONE_BIT
    for row, length in zip(samples, lengths):
        row[length:] = 0
    return samples, lengths, torch.tensor([0, 1, 2, 3]), torch.zeros(4, dtype=torch.long)


def test_without_augmentation_the_loss_is_cross_entropy():
    task = make_task(PLAIN, label_smoothing=0.1)
    samples, lengths, labels, corpora = batch()
    loss = task.losses((samples, lengths, labels, corpora)).mean()
    logits = task(samples, lengths)
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)


def test_a_clip_is_predicted_without_its_padding():
    task = make_task(PLAIN).eval()
    samples, lengths, *_ = batch()
    logits = task(samples, lengths)
    for row, clip, length in zip(logits, samples, lengths):
        alone = task(clip[None, :length], length[None])[0]
        torch.testing.assert_close(row, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('alpha', [0.0, 0.2, 1.0])
def test_a_training_step_is_finite_and_teaches(alpha):
    augmentation = dataclasses.replace(AugmentationConfig(), mixup_alpha=alpha)
    task = make_task(augmentation)
    loss = task.losses(batch()).mean()
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
    samples, lengths, labels, corpora = batch()
    losses = torch.nn.functional.cross_entropy(
        task.model.classifier.bias.expand(4, 4), labels, reduction='none'
    )
    for seed in range(5):
        torch.manual_seed(seed)
        # Every clip is once a first and once an other: the shares add up to the plain mean.
        torch.testing.assert_close(
            task.losses((samples, lengths, labels, corpora)).mean(), losses.mean()
        )


def test_mixup_mixes_the_sounds():
    samples, lengths, labels, corpora = batch()
    losses = set()
    for seed in range(6):
        task = make_task(dataclasses.replace(PLAIN, mixup_alpha=1.0))
        torch.manual_seed(seed)
        losses.add(round(task.losses((samples, lengths, labels, corpora)).mean().item(), 5))
    assert len(losses) > 1


def test_validation_uses_the_mean_of_an_utterances_windows():
    task = make_task(PLAIN).eval()
    samples, lengths, _, _ = batch()
    scores = task(samples, lengths).log_softmax(dim=1)
    scores = torch.stack([scores[:3].mean(dim=0), scores[3]])
    labels = scores.argmax(dim=1)
    task.validation_step((samples, lengths, labels, [3, 1]))
    assert task.accuracy.compute() == 1
    loss = -scores.max(dim=1).values.mean()
    torch.testing.assert_close(task.validation_loss.compute(), loss)
    task.accuracy.reset()
    task.validation_step((samples, lengths, (labels + 1) % 4, [3, 1]))
    assert task.accuracy.compute() == 0


def test_one_validation_loss_that_is_no_number_is_not_left_out():
    task = make_task(PLAIN).eval()
    for scale in (1.0, torch.nan):
        samples = scale * noise(1, 32_000)
        task.validation_step((samples, torch.tensor([32_000]), torch.tensor([1]), [1]))
    assert task.validation_loss.compute().isnan()


def test_a_label_that_is_no_class_has_equal_targets():
    targets = soft_targets(torch.tensor([2, -1]), 4)
    assert targets.tolist() == [[0.0, 0.0, 1.0, 0.0], [0.25] * 4]


def loss_of(logits, label, weights=None, known=(True,) * 4, **config):
    weights = torch.ones(4) if weights is None else weights
    targets = soft_targets(torch.tensor([label]), 4)
    config = OptimizationConfig(**{'label_smoothing': 0.0, **config})
    known = torch.tensor([known])
    return clip_losses(torch.tensor([logits]), targets, known, weights, config).item()


@pytest.mark.parametrize('loss', ['cross_entropy', 'focal'])
def test_a_class_that_is_not_known_does_not_enter_the_loss(loss):
    known = (True, True, False, True)
    settings = {'label_smoothing': 0.1, 'loss': loss}
    losses = {
        loss_of([1.0, 2.0, logit, 0.5], 1, known=known, **settings) for logit in (-9.0, 0.0, 9.0)
    }
    assert len(losses) == 1
    expected = torch.nn.functional.cross_entropy(
        torch.tensor([[1.0, 2.0, 0.5]]), torch.tensor([1]), label_smoothing=0.1
    )
    if loss == 'cross_entropy':
        assert losses.pop() == pytest.approx(expected.item())


def test_absent_classes_of_a_corpus_have_no_gradient():
    """But those that another corpus of the batch has, and those of sounds without a voice."""
    known = torch.tensor([[True, True, False, False], [True, True, True, False]])
    task = make_task(PLAIN, corpus_classes=known, label_smoothing=0.1)
    samples, lengths, _, _ = batch()
    corpora = torch.tensor([0, 0, 1, 1])

    def gradients(labels):
        task.zero_grad()
        task.losses((samples, lengths, torch.tensor(labels), corpora)).mean().backward()
        return task.model.classifier.bias.grad != 0

    assert gradients([0, 1, 0, 1]).tolist() == [True, True, True, False]
    assert gradients([0, NO_CLASS, 0, 1]).all()


@pytest.mark.parametrize('label', [0, 1])
def test_mixed_clips_know_the_classes_of_both_corpora(label):
    known = torch.tensor([[True, True, False, False], [False, False, True, True]])
    task = make_task(dataclasses.replace(PLAIN, mixup_alpha=1.0), corpus_classes=known)
    samples, lengths, _, _ = batch()
    labels, corpora = torch.tensor([label, 2, label, 3]), torch.tensor([0, 1, 0, 1])
    assert task.losses((samples, lengths, labels, corpora)).isfinite().all()


def test_class_weights_multiply_a_clips_loss():
    logits = [1.0, -0.5, 0.3, 0.0]
    weights = torch.tensor([1.0, 3.0, 1.0, 1.0])
    assert loss_of(logits, 1, weights) == pytest.approx(3 * loss_of(logits, 1))
    assert loss_of(logits, 2, weights) == pytest.approx(loss_of(logits, 2))


def test_the_focal_loss_is_that_of_its_paper():
    logits = [1.0, -0.5, 0.3, 0.0]
    p = torch.tensor(logits).softmax(dim=0)[1].item()
    expected = -((1 - p) ** 2) * torch.tensor(p).log().item()
    assert loss_of(logits, 1, loss='focal', focal_gamma=2.0) == pytest.approx(expected, rel=1e-5)
    assert loss_of(logits, 1, loss='focal', focal_gamma=0.0) == pytest.approx(loss_of(logits, 1))


def rates(**config):
    """The learning rate of each of 100 steps, ten an epoch."""
    config = OptimizationConfig(epochs=10, learning_rate=0.1, **config)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], config.learning_rate)
    schedule = learning_rate_schedule(optimizer, config, 100)
    seen = []
    for _ in range(100):
        seen.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        schedule.step()
    return seen


def test_cosine_falls_from_its_peak_behind_the_warm_up_to_nothing():
    seen = rates(schedule='cosine', warmup_epochs=2.0)
    assert seen[:20] == sorted(seen[:20])
    assert seen[20] == max(seen) == pytest.approx(0.1)
    assert seen[20:] == sorted(seen[20:], reverse=True)
    assert seen[60] == pytest.approx(0.05)
    assert seen[-1] < 1e-4


def test_step_falls_every_so_many_epochs():
    seen = rates(schedule='step', step_epochs=4, step_factor=0.1)
    assert seen[39] == pytest.approx(0.1)
    assert seen[40] == pytest.approx(0.01)
    assert seen[80] == pytest.approx(0.001)


def test_constant_stays_and_one_cycle_rises_and_falls():
    assert set(rates(schedule='constant')) == {0.1}
    seen = rates(schedule='one_cycle')
    assert max(seen) == pytest.approx(0.1)
    assert seen[0] < 0.01
    assert seen[-1] < 1e-5


@pytest.mark.parametrize(('optimizer', 'kind'), [('adamw', 'AdamW'), ('sgd', 'SGD')])
def test_frozen_weights_are_left_to_themselves(optimizer, kind):
    task = make_task(PLAIN, optimizer=optimizer, schedule='constant', momentum=0.8)
    task.model.classifier.requires_grad_(False)
    task.trainer = SimpleNamespace(estimated_stepping_batches=10)
    made = task.configure_optimizers()['optimizer']
    assert type(made).__name__ == kind
    frozen = set(map(id, task.model.classifier.parameters()))
    assert not frozen & {id(p) for group in made.param_groups for p in group['params']}
    assert optimizer == 'adamw' or made.param_groups[0]['momentum'] == 0.8


# --- Features by voice


def voice_task(**voice):
    torch.manual_seed(1)
    recipe = Recipe(
        architecture='perceptron',
        augmentation=PLAIN,
        voice=VoiceConfig(**{'copies': 1, 'unknown_probability': 0.0, **voice}),
    )
    frontend = build_frontend(recipe.frontend)
    model = build_model('perceptron', frontend.n_features, len(NAMES))
    return EmotionTask(recipe, frontend, model, len(NAMES))


def test_a_voice_is_known_from_some_utterances_or_from_none():
    means = torch.randn(200, 64, 1)
    means[0] = torch.nan  # no clip with speech
    known = voice_task(memory=10.0, history=(10, 10))._known(means)
    torch.testing.assert_close(known[1:], means[1:] / 2)
    assert not known[0].any()
    unknown = voice_task(memory=10.0, unknown_probability=1.0)._known(means)
    assert not unknown.any()
    some = voice_task(memory=10.0, history=(1, 60), unknown_probability=0.5)._known(means)
    weights = (some / means)[1:, 0, 0]
    assert 60 < (weights == 0).sum() < 140
    assert weights.max() < 60 / 70 + 1e-4
    assert len(weights.round(decimals=4).unique()) > 30


def test_the_loss_is_that_of_features_by_the_known_mean():
    task = voice_task(memory=10.0, history=(10, 10)).eval()
    x, frames, means = (
        torch.randn(4, 64, 40),
        torch.tensor([40, 30, 20, 10]),
        torch.randn(4, 64, 1),
    )
    labels, corpora = torch.tensor([0, 1, 2, 3]), torch.zeros(4, dtype=torch.long)
    losses = task.losses((x, frames, labels, corpora, means))
    x = task.frontend.standardise(x, means / 2) * frame_mask(frames, 40)[:, None]
    expected = clip_losses(
        task.model(x, frames),
        soft_targets(labels, len(NAMES)),
        torch.ones(4, len(NAMES), dtype=torch.bool),
        torch.ones(len(NAMES)),
        task.recipe.optimization,
    )
    assert losses.shape == (4,)
    torch.testing.assert_close(losses, expected)
