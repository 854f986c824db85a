"""Soft targets from a bundle: its classes, its sound, and what is refused."""

import pytest
import torch

from ser_ros import SerError
from ser_ros.bundle import load_bundle
from ser_ros.bundle_info import BundleError
from ser_ros.frontend_config import LogMelConfig, MfccConfig, ResearchConfig
from ser_ros.training.data.dataset import NO_CLASS
from ser_ros.training.learning.distillation import load_teacher, make_teacher
from ser_ros.training.learning.pretrained import Sources
from ser_ros.training.learning.task import soft_targets
from ser_ros.training.learning.train import make_task
from ser_ros.training.recipe import AugmentationConfig, DistillationConfig, Recipe, VoiceConfig

CLASSES = ('sad', 'happy', 'angry')
"""Fewer than the teacher has, in another order."""
LENGTHS = torch.tensor([32_000, 16_000, 24_000])
SAMPLES = 0.1 * torch.randn(3, 32_000, generator=torch.Generator().manual_seed(1))
SAMPLES *= torch.arange(32_000) < LENGTHS[:, None]
ALL = torch.ones(3, len(CLASSES), dtype=torch.bool)


@pytest.fixture
def recipe(bundle_path):
    return Recipe(
        distillation=DistillationConfig(str(bundle_path), weight=0.75, temperature=3.0),
        augmentation=AugmentationConfig(
            gain_db=(0.0, 0.0), noise_probability=0.0, mel_masks=0, time_masks=0, mixup_alpha=0.0
        ),
    )


@pytest.fixture
def teacher(recipe):
    return make_teacher(recipe, CLASSES, load_teacher(recipe))


@pytest.fixture
def logits(bundle):
    """Of the teacher's classes, clip by clip without padding."""
    columns = [bundle.info.class_names.index(name) for name in CLASSES]
    with torch.inference_mode():
        return torch.cat(
            [
                bundle.model(bundle.frontend(sound[None, :length]))[:, columns]
                for sound, length in zip(SAMPLES, LENGTHS.tolist())
            ]
        )


def test_its_probabilities_are_among_the_models_classes(teacher, logits):
    probabilities = teacher.probabilities(SAMPLES, LENGTHS, ALL)
    torch.testing.assert_close(probabilities, (logits / 3).softmax(dim=1), atol=1e-4, rtol=0)
    assert not probabilities.requires_grad


def test_classes_that_a_corpus_lacks_get_none(teacher, logits):
    known = ALL.clone()
    known[1, 0] = False
    probabilities = teacher.probabilities(SAMPLES, LENGTHS, known)
    expected = torch.cat((torch.zeros(1), (logits[1, 1:] / 3).softmax(dim=0)))
    torch.testing.assert_close(probabilities[1], expected, atol=1e-4, rtol=0)


def test_targets_are_mixed_but_those_of_other_sounds(teacher):
    labels = torch.tensor([2, 0, NO_CLASS])
    targets = soft_targets(labels, len(CLASSES))
    mixed = teacher.soften(targets, labels, SAMPLES, LENGTHS, ALL)
    taught = teacher.probabilities(SAMPLES, LENGTHS, ALL)
    torch.testing.assert_close(mixed[:2], 0.25 * targets[:2] + 0.75 * taught[:2])
    assert torch.equal(mixed[2], targets[2])


def test_the_loss_is_that_of_the_mixed_targets(recipe, teacher, bundle):
    task = make_task(recipe, CLASSES, [], Sources(bundle, load_teacher(recipe))).eval()
    labels = torch.tensor([2, 0, 1])
    losses = task.losses((SAMPLES, LENGTHS, labels, torch.zeros(3, dtype=torch.long)))
    sound = task.augment.waveform(SAMPLES, LENGTHS)
    targets = teacher.soften(soft_targets(labels, 3), labels, sound, LENGTHS, ALL)
    targets = targets * 0.9 + 0.1 / 3  # label smoothing
    expected = -(targets * task(sound, LENGTHS).log_softmax(dim=1)).sum(dim=1)
    torch.testing.assert_close(losses, expected)


def test_its_weights_are_not_those_of_the_task(recipe, bundle):
    alone = make_task(recipe, CLASSES, [], Sources(bundle))
    taught = make_task(recipe, CLASSES, [], Sources(bundle, load_teacher(recipe)))
    assert taught.state_dict().keys() == alone.state_dict().keys()
    taught.train()
    assert not taught.teacher._model.training


def test_no_teacher_by_default():
    assert load_teacher(Recipe()) is None
    assert make_teacher(Recipe(), CLASSES, None) is None


def test_a_shipped_bundle_teaches_by_its_name():
    recipe = Recipe(distillation=DistillationConfig('companion'))
    assert load_teacher(recipe).info == load_bundle('companion').info


def test_a_teacher_may_have_other_features(write_bundle, tmp_path):
    path = write_bundle(tmp_path / 'teacher.safetensors', frontend=MfccConfig())
    assert load_teacher(Recipe(distillation=DistillationConfig(str(path)))).path == path


def test_a_teacher_of_another_sample_rate_is_refused(write_bundle, tmp_path):
    frontend = LogMelConfig(sample_rate=8_000, f_max=3_500)
    path = write_bundle(tmp_path / 'teacher.safetensors', frontend=frontend)
    with pytest.raises(SerError, match=r'is for 8000 Hz, and the recipe for 16000 Hz$'):
        load_teacher(Recipe(distillation=DistillationConfig(str(path))))


def test_a_teacher_of_whole_clips_is_refused(write_bundle, tmp_path):
    frontend = ResearchConfig()
    path = write_bundle(tmp_path / 'teacher.safetensors', frontend=frontend)
    recipe = Recipe(distillation=DistillationConfig(str(path)), frontend=frontend)
    with pytest.raises(SerError, match=r'reads whole clips; it needs windows$'):
        load_teacher(recipe)


def test_a_teacher_that_lacks_a_class_is_refused(recipe):
    with pytest.raises(SerError, match=r'does not know bored, tired: it must know all classes'):
        make_teacher(recipe, ('bored', 'sad', 'tired'), load_teacher(recipe))


def test_a_missing_teacher_is_refused():
    with pytest.raises(BundleError, match=r'nobody\.safetensors: no such file'):
        load_teacher(Recipe(distillation=DistillationConfig('nobody.safetensors')))


@pytest.mark.parametrize(
    ('settings', 'said'),
    [
        ({'weight': 1.5}, 'weight is 1.5, not between 0 and 1'),
        ({'temperature': 0.0}, 'temperature is 0.0, not positive'),
    ],
)
def test_invalid_settings(settings, said):
    with pytest.raises(SerError, match=f'^{said}$'):
        DistillationConfig('companion', **settings)


def test_copies_of_features_have_no_sound_for_a_teacher():
    with pytest.raises(SerError, match=r'^a teacher needs sound.*: set voice\.copies to 0$'):
        Recipe(distillation=DistillationConfig('companion'), voice=VoiceConfig(copies=1))
