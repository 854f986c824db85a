"""Features of augmented copies are those that the training would compute of the same sounds."""

import dataclasses

import numpy as np
import torch

from ser_ros.audio import SAMPLE_RATE
from ser_ros.audio.vad import Segment
from ser_ros.features import build_frontend
from ser_ros.frontend_config import LogMelConfig, SpeechEncoderConfig
from ser_ros.training.data.augmentation import Augment
from ser_ros.training.data.copies import compute_copies, pad_copies
from ser_ros.training.data.dataset import NO_CLASS, TrainingWindows, Utterance
from ser_ros.training.recipe import AugmentationConfig, DataConfig

CROP = (0.3, 1.5)
CONFIG = AugmentationConfig(
    crop=CROP,
    noise_probability=1.0,
    noise_snr_db=(10.0, 10.0),
    whole_probability=0.5,
    onset_probability=0.5,
    gain_db=(-6.0, -6.0),
)


def utterances():
    """Three of one voice and two of another, one of them shorter than a crop."""
    rng = np.random.default_rng(1)
    found = []
    for i, (voice, n) in enumerate((('a', 40_000),) * 3 + (('b', 20_000), ('b', 4_000))):
        samples = 0.1 * (1 + i) * rng.standard_normal(n).astype(np.float32)
        found.append(
            Utterance(samples, Segment(0, n), i % 2, SAMPLE_RATE, int(voice == 'b'), voice)
        )
    return found


def items_of(config=CONFIG, **data):
    return TrainingWindows(utterances(), DataConfig(corpora=('A', 'B'), **data), config, seed=3)


def make(config=CONFIG, n_copies=2, **data):
    frontend = build_frontend(LogMelConfig())
    augment = Augment(config, SAMPLE_RATE)
    return compute_copies(
        items_of(config, **data), frontend, augment, n_copies, least=4, clean_probability=0.3
    )


def features_of(samples):
    frontend = build_frontend(LogMelConfig())
    return frontend.features(frontend.spectrum(torch.from_numpy(samples)))


def test_the_first_copy_is_the_clip_as_it_is():
    whole = make(dataclasses.replace(CONFIG, whole_probability=1.0), n_copies=0)
    for index, utterance in enumerate(utterances()):
        x, label, corpus, _ = whole[0, index]
        longest = round(CROP[1] * SAMPLE_RATE)
        assert (label, corpus) == (utterance.label, utterance.corpus)
        if len(utterance.samples) <= longest:
            torch.testing.assert_close(x, features_of(utterance.samples), atol=0.06, rtol=0)
        else:
            assert x.shape[-1] == build_frontend(LogMelConfig()).n_frames(longest)


def test_the_others_are_augmented_and_differ():
    plain = dataclasses.replace(CONFIG, gain_db=(0.0, 0.0))
    copies = make(plain)
    clean, first, second = copies.features[:, 0, 3].astype(np.float32)
    assert not np.array_equal(first, second)
    config = dataclasses.replace(plain, noise_snr_db=(-20.0, -20.0), speed=(1.3, 1.3))
    noisy = make(config).features[1, 0, 3].astype(np.float32)
    n = min(copies.steps[:, 0, 3])
    assert np.abs(first[:, :n] - clean[:, :n]).mean() < np.abs(noisy[:, :n] - clean[:, :n]).mean()


def test_crops_are_drawn_from_all_copies():
    copies = make()
    drawn = [copies[0, 0, place][0] for place in range(300)]
    sizes = np.array([x.shape[-1] for x in drawn])
    frontend = build_frontend(LogMelConfig())
    assert sizes.min() >= frontend.n_frames(round(CROP[0] * SAMPLE_RATE))
    assert sizes.max() == copies.steps[:, 0, 0].max()
    assert 0.4 < (sizes == sizes.max()).mean() < 0.65
    parts = [copies.features[c, 0, 0, 0, : copies.steps[c, 0, 0]] for c in range(3)]
    found = [
        [np.array_equal(x[0].numpy().astype(np.float16), part[: x.shape[-1]]) for part in parts]
        for x in drawn
    ]
    assert np.all(np.sum(found, axis=0) > 40)  # of each copy, from the beginning


def test_the_mean_of_a_voice_is_that_over_its_copies():
    copies = make()
    rows = range(3)
    frontend = build_frontend(LogMelConfig())
    means = [
        frontend.clip_mean(
            torch.from_numpy(copies.features[c, 0, i, :, : copies.steps[c, 0, i]]).float()
        )
        for c in range(3)
        for i in rows
    ]
    expected = torch.stack(means).mean(dim=0)
    for i in rows:
        mean = copies[0, i][3]
        torch.testing.assert_close(mean, expected, atol=0.02, rtol=0)
    assert not torch.equal(copies[0, 3][3], copies[0, 0][3])


def test_sounds_without_a_voice_have_no_class_and_count_for_no_voice():
    copies = make(n_copies=20, nonspeech=0.5)
    assert (copies.labels[0] != NO_CLASS).all()
    share = (copies.labels[1:] == NO_CLASS).mean()
    assert 0.3 < share < 0.7
    labels = {copies[0, 1, place][1] for place in range(60)}
    assert labels == {NO_CLASS, utterances()[1].label}
    nothing = make(n_copies=3, nonspeech=1.0)
    torch.testing.assert_close(nothing[0, 0][3], make(n_copies=0)[0, 0][3], atol=1e-5, rtol=0)


def test_the_same_seed_is_the_same_training_and_leaves_the_generator_alone():
    torch.manual_seed(5)
    first = make()
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), drawn)
    np.testing.assert_array_equal(first.features, make().features)
    assert torch.equal(first[1, 2, 7][0], make()[1, 2, 7][0])


def test_a_batch_is_padded_with_zeros():
    copies = make()
    items = [copies[0, i] for i in range(5)]
    features, frames, labels, corpora, means = pad_copies(items)
    assert features.shape == (5, 64, frames.max())
    assert means.shape == (5, 64, 1)
    assert labels.tolist() == [item[1] for item in items]
    assert corpora.tolist() == [0, 0, 0, 1, 1]
    for row, (x, *_), n in zip(features, items, frames):
        torch.testing.assert_close(row[:, :n], x)
        assert not row[:, n:].any()


def test_features_that_are_pooled_over_time_are_cropped_before():
    frontend = build_frontend(SpeechEncoderConfig())
    augment = Augment(CONFIG, SAMPLE_RATE)
    copies = compute_copies(
        items_of(), frontend, augment, n_copies=1, least=1, clean_probability=0.5
    )
    assert copies.features.shape == (2, 3, 5, frontend.n_features, 1)
    assert (copies.steps == 1).all()
    whole = frontend.features(frontend.spectrum(torch.from_numpy(utterances()[3].samples)))
    torch.testing.assert_close(
        torch.from_numpy(copies.features[0, 0, 3]).float(), whole, atol=2e-3, rtol=0
    )
    variants = copies.features[:, :, 3, :, 0].reshape(6, -1)
    assert len(np.unique(variants, axis=0)) == 6
    drawn = [copies[0, 3, place][0][:, 0].numpy().astype(np.float16) for place in range(200)]
    counts = [sum(np.array_equal(x, own) for x in drawn) for own in variants]
    assert sum(counts) == 200
    assert min(counts) > 10
