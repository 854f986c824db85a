"""Models, front-ends and class weights before the first step."""

import dataclasses

import numpy as np
import pytest
import torch

from ser_ros import SerError
from ser_ros.audio.vad import Segment
from ser_ros.features import build_frontend
from ser_ros.training.data.dataset import Utterance, WholeClips
from ser_ros.training.learning.fit import Compute
from ser_ros.training.learning.train import (
    class_weights,
    corpus_classes,
    draw_weights,
    make_task,
    prepare_fit,
)
from ser_ros.training.recipe import (
    AugmentationConfig,
    DataConfig,
    Recipe,
    VoiceConfig,
    load_recipe,
)


def test_whole_clips_are_standardised_with_their_noisy_copies():
    """In bands above those of the recordings there is nothing but noise."""
    recipe = load_recipe('research/parallel_cnn_transformer')
    rng = np.random.default_rng(1)
    noise = rng.standard_normal(4 * 48_000)
    low = np.cumsum(noise - noise.mean()).astype(np.float32)
    low *= 0.1 / np.abs(low).max()
    training = [Utterance(low, Segment(0, len(low)), n, 48_000) for n in range(2)]
    task = make_task(recipe, ('happy', 'sad'), training)
    items = WholeClips(training, recipe.data, recipe.augmentation, recipe.seed)
    features = torch.stack([task.frontend(items[0, n][0]) for n in range(len(items))])
    assert features.abs().max() < 5


def test_corpora_count_alike_in_the_statistics_if_they_do_in_the_training():
    rng = np.random.default_rng(1)

    def clips(n, level, corpus):
        sounds = [level * rng.standard_normal(16_000).astype(np.float32) for _ in range(n)]
        return [Utterance(x, Segment(0, len(x)), 0, 16_000, corpus) for x in sounds]

    training = [*clips(9, 1e-3, 0), *clips(1, 1e-1, 1)]

    def mean(*clips, **data):
        recipe = Recipe(data=DataConfig(corpora=('A', 'B'), **data))
        return make_task(recipe, ('happy', 'sad'), clips).frontend.mean

    quiet, loud = mean(*training[:9]), mean(*training[9:])
    torch.testing.assert_close(mean(*training), 0.9 * quiet + 0.1 * loud)
    alike = mean(*training, balance_corpora=True)
    torch.testing.assert_close(alike, 0.5 * quiet + 0.5 * loud)


def test_copies_are_for_windows_of_a_stream():
    recipe = load_recipe('research/cnn_lstm')
    recipe = dataclasses.replace(
        recipe,
        data=dataclasses.replace(recipe.data, noisy_copies=0),
        voice=VoiceConfig(copies=1),
    )
    clip = Utterance(np.ones(4 * 48_000, np.float32), Segment(0, 4 * 48_000), 0, 48_000)
    with pytest.raises(SerError, match='research reads whole clips: set voice.copies to 0'):
        prepare_fit(recipe, ('happy', 'sad'), [clip, clip], [], Compute())


def test_class_weights_are_inverse_to_the_shares():
    segment = Segment(0, 1)
    utterances = [Utterance(None, segment, label) for label in [0, 0, 0, 1]]
    weights = class_weights(utterances, 2)
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 2.0]))


def items_of(data, groups):
    """Items with the (corpus, label) of each group, as many as its number."""
    utterances = [
        Utterance(np.zeros(16, np.float32), Segment(0, 16), label, corpus=corpus)
        for (corpus, label), n in groups.items()
        for _ in range(n)
    ]
    return WholeClips(utterances, data, AugmentationConfig(), 1)


GROUPS = {(0, 0): 6, (0, 1): 2, (1, 0): 3, (2, 1): 1}
"""(corpus, label) → number of clips."""


def shares_drawn(data):
    """The share of each group in what is drawn."""
    weights = draw_weights(data, items_of(data, GROUPS))
    groups = [group for group, n in GROUPS.items() for _ in range(n)] * (1 + data.noisy_copies)
    total = weights.sum()
    return {
        group: float(sum(w for w, g in zip(weights, groups) if g == group) / total)
        for group in GROUPS
    }


@pytest.mark.parametrize('noisy_copies', [0, 1])
def test_corpora_are_drawn_by_their_weights(noisy_copies):
    data = DataConfig(
        ('A', 'B', 'C'), balance_corpora=True, corpus_weights={'B': 2.0}, noisy_copies=noisy_copies
    )
    expected = {(0, 0): 0.25 * 6 / 8, (0, 1): 0.25 * 2 / 8, (1, 0): 0.5, (2, 1): 0.25}
    assert shares_drawn(data) == pytest.approx(expected)


def test_the_classes_of_each_corpus_are_drawn_evenly():
    data = DataConfig(
        ('A', 'B', 'C'), balance_corpora=True, corpus_weights={'B': 2.0}, balance_classes=True
    )
    expected = {(0, 0): 0.125, (0, 1): 0.125, (1, 0): 0.5, (2, 1): 0.25}
    assert shares_drawn(data) == pytest.approx(expected)


def test_without_balanced_corpora_classes_are_balanced_over_all_corpora():
    expected = {(0, 0): 0.5 * 6 / 9, (0, 1): 0.5 * 2 / 3, (1, 0): 0.5 * 3 / 9, (2, 1): 0.5 / 3}
    data = DataConfig(('A', 'B', 'C'), balance_classes=True)
    assert shares_drawn(data) == pytest.approx(expected)
    assert draw_weights(DataConfig(('A', 'B', 'C')), items_of(DataConfig(), GROUPS)) is None


def test_classes_of_each_corpus():
    data = DataConfig(('A', 'B', 'C'), mask_absent_classes=True)
    found = corpus_classes(data, items_of(data, GROUPS).utterances, 3)
    assert found.tolist() == [[True, True, False], [True, False, False], [False, True, False]]
    assert corpus_classes(DataConfig(), [], 3) is None


def test_the_front_end_is_fitted_to_speech_at_the_mean_gain(speech):
    augmentation = AugmentationConfig(gain_db=(-30.0, -10.0))
    recipe = Recipe(augmentation=augmentation)
    utterances = [
        Utterance(speech, Segment(16_000, 32_000), 0),
        Utterance(speech, Segment(40_000, 48_000), 1),
    ]
    fitted = make_task(recipe, ('happy', 'sad'), utterances).frontend
    frontend = build_frontend(recipe.frontend)
    sounds = [
        torch.from_numpy(speech[s.start : s.end]) * 0.1 for s in (u.speech for u in utterances)
    ]
    frames = torch.cat([frontend.spectrum(sound) for sound in sounds], dim=1)
    torch.testing.assert_close(fitted.mean[:, 0], frames.mean(dim=1))
    torch.testing.assert_close(fitted.std[:, 0], frames.std(dim=1))
