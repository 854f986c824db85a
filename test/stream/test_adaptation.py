"""A voice becomes known while it speaks, and is forgotten on request."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.emotions import Emotion
from ser_ros.stream.adaptation import (
    BASELINE_UTTERANCES,
    Adaptation,
    Baseline,
    prior_shift,
)
from ser_ros.stream.listener import Listener
from ser_ros.stream.recognizer import Recognizer
from ser_ros.stream.torch_backend import TorchBackend
from ser_ros.stream.types import StreamConfig

CLASSES = ('neutral', 'happy', 'sad', 'angry')
MEAN = np.zeros((4, 1), np.float32)
"""Of the features in training: four bands."""
START = 1_700_000_000 * SECOND


def clip_mean(value):
    """Mean features, all equal."""
    return np.full((4, 1), value, np.float32)


# --- What is learned


def test_nothing_is_known_of_a_new_voice():
    adaptation = Adaptation()
    assert adaptation.features_mean(MEAN, 24.0) is None
    assert (adaptation.shift(4, 24.0) == 0).all()
    assert adaptation.n_utterances == 0


def test_means_have_the_weight_of_their_number():
    adaptation = Adaptation()
    varied = np.array([2.0, -2.0, 0.0, 0.0])
    for value, variation in ((1.0, varied), (2.0, -varied), (6.0, 0.0)):
        adaptation.learn(clip_mean(value), np.log([0.4, 0.3, 0.2, 0.1]) + variation)
    mean = adaptation.features_mean(MEAN, memory=6.0)
    np.testing.assert_allclose(mean, np.full((4, 1), 3.0 * 3 / 9), rtol=1e-6)
    centred = np.log([0.4, 0.3, 0.2, 0.1]) - np.log([0.4, 0.3, 0.2, 0.1]).mean()
    np.testing.assert_allclose(adaptation.shift(4, memory=6.0), -centred * 3 / 9)


def test_late_utterances_count_as_early_ones():
    adaptation = Adaptation()
    for n in range(40_000):
        adaptation.learn(clip_mean(-50.0 if n < 20_000 else -50.001), np.zeros(4))
    mean = adaptation.features_mean(MEAN, memory=0.0)
    np.testing.assert_allclose(mean, -50.0005, atol=1e-5)


@given(arrays(np.float64, 4, elements=st.floats(-20, 0)), st.integers(1, 200), st.floats(0.1, 100))
def test_answers_that_do_not_vary_are_kept(scores, n, memory):
    """The adverse case: a voice of one emotion alone."""
    adaptation = Adaptation()
    for _ in range(n):
        adaptation.learn(clip_mean(0.0), scores)
    np.testing.assert_allclose(adaptation.shift(4, memory), 0.0, atol=1e-9)


@given(
    arrays(np.int64, 4, elements=st.integers(-500, 500)),
    arrays(np.int64, (20, 4), elements=st.integers(-500, 500)),
)
def test_the_more_answers_vary_the_more_of_their_mean_is_taken_out(mean, variations):
    mean = (mean - mean.mean()) / 100
    variations = (variations - variations.mean(axis=0)) / 100
    taken = []
    for size in (0.0, 0.1, 0.5, 1.0):
        adaptation = Adaptation()
        for variation in size * variations:
            adaptation.learn(clip_mean(0.0), mean + variation)
        shift = -adaptation.shift(4, 20.0)
        # Of the mean's direction, and at most all of it, by the number of utterances.
        share = shift @ mean / (mean @ mean) if mean.any() else 0.0
        np.testing.assert_allclose(shift, share * mean, atol=1e-9)
        assert -1e-9 <= share <= 0.5 + 1e-9
        taken.append(share)
    assert (np.diff(taken) >= -1e-9).all()


@pytest.fixture
def baseline():
    return Baseline(clip_mean(2.0), np.array([0.3, 0.1, -0.1, -0.3]))


def test_a_baseline_counts_as_utterances_heard_before(baseline):
    adaptation = Adaptation(baseline)
    n = BASELINE_UTTERANCES
    assert adaptation.n_utterances == 0
    mean = adaptation.features_mean(MEAN, memory=6.0)
    np.testing.assert_allclose(mean, np.full((4, 1), 2.0 * n / (n + 6)), rtol=1e-6)
    np.testing.assert_allclose(adaptation.shift(4, 6.0), -baseline.score * n / (n + 6))
    adaptation.learn(clip_mean(3.0), 5.0 - 2 * baseline.score)
    assert adaptation.n_utterances == 1
    mean = adaptation.features_mean(MEAN, memory=6.0)
    np.testing.assert_allclose(mean, np.full((4, 1), (2.0 * n + 3.0) / (n + 7)), rtol=1e-6)
    # Of one answer nobody knows how much the next will vary.
    np.testing.assert_allclose(adaptation.shift(4, 6.0), -baseline.score * n / (n + 7))


def test_a_voice_is_forgotten_but_for_its_baseline(baseline):
    adaptation = Adaptation(baseline)
    before = adaptation.shift(4, 24.0)
    adaptation.learn(clip_mean(3.0), np.arange(4.0))
    assert not np.allclose(adaptation.shift(4, 24.0), before)
    adaptation.forget()
    np.testing.assert_array_equal(adaptation.shift(4, 24.0), before)
    adaptation.start_from(None)
    assert adaptation.features_mean(MEAN, 24.0) is None
    assert (adaptation.shift(4, 24.0) == 0).all()


def test_forgotten_is_as_new():
    adaptation = Adaptation()
    adaptation.learn(clip_mean(3.0), np.arange(4.0))
    adaptation.forget()
    assert adaptation.features_mean(MEAN, 24.0) is None
    assert (adaptation.shift(4, 24.0) == 0).all()


def posterior(names, *arguments):
    """Of a model that finds all classes equally probable."""
    shifted = np.exp(prior_shift(names, *arguments))
    return dict(zip(names, shifted / shifted.sum()))


@given(st.floats(0.01, 0.99), st.floats(0.01, 100.0))
def test_the_shift_is_bayes_rule(share, ratio):
    found = posterior(('neutral', 'calm', 'sad', 'fearful', 'disgust'), share, ratio)
    assert found['neutral'] + found['calm'] == pytest.approx(share)
    assert found['neutral'] == pytest.approx(found['calm'])
    assert found['fearful'] == pytest.approx(ratio * found['sad'])
    assert found['disgust'] == pytest.approx(found['fearful'])


@pytest.mark.parametrize('names', [('happy', 'sad'), ('neutral', 'calm')])
def test_without_neutral_or_anything_else_no_share_is_expected(names):
    assert posterior(names, 0.7, 0.5) == dict.fromkeys(names, 0.5)


def test_a_class_of_ones_own_is_not_rare():
    own = {'startled': Emotion('surprised', 0.0, 1.0)}
    found = prior_shift(('happy', 'startled', 'surprised'), 0.5, 0.25, own)
    np.testing.assert_allclose(np.exp(found), (1.0, 1.0, 0.25))


# --- In a stream


def finals_of(recognizer, samples, times=1, block=4_000):
    """The final estimates of a sound that is received several times."""
    found = []
    for _ in range(times):
        estimates = []
        for i in range(0, len(samples), block):
            stamp = START + i * SECOND // SAMPLE_RATE
            estimates += recognizer.push(samples[i : i + block], stamp)
        found += [e for e in estimates + recognizer.flush() if e.is_final]
    return found


@pytest.fixture(scope='module')
def once(by_voice, utterance):
    """The first decision about an unknown voice."""
    return finals_of(Recognizer(by_voice, 'cpu'), utterance)[0]


def equal(first, second):
    return np.array_equal(first.probabilities, second.probabilities)


def test_an_unknown_voice_is_only_expected_to_be_neutral(by_voice, once):
    names = by_voice.info.class_names
    expected = np.log(once.unadapted) + prior_shift(names, 0.3, 1.0)
    expected = np.exp(expected) / np.exp(expected).sum()
    np.testing.assert_allclose(once.probabilities, expected, rtol=1e-6)
    assert once.n_utterances == 0


def test_later_utterances_are_compared_with_the_earlier_ones(by_voice, utterance, once):
    estimates = finals_of(Recognizer(by_voice, 'cpu'), utterance, times=4)
    assert [e.n_utterances for e in estimates] == [0, 1, 2, 3]
    assert equal(estimates[0], once)
    # An unknown voice would still be answered as the first time.
    assert all(np.array_equal(e.unadapted, once.unadapted) for e in estimates)
    # The features are others, and the mean answer is taken out of the later ones.
    assert abs(estimates[3].probabilities - once.probabilities).max() > 1e-3
    assert estimates[3].confidence < once.confidence


def test_a_model_that_is_not_by_voice_compares_its_answers_alone(by_answers, speech):
    off = finals_of(Recognizer(by_answers, 'cpu', StreamConfig(adaptation='off')), speech)
    estimates = finals_of(Recognizer(by_answers, 'cpu'), speech)
    assert len(estimates) == len(off) > 3
    names, known = by_answers.info.class_names, Adaptation()
    for n_earlier, (estimate, own) in enumerate(zip(estimates, off)):
        assert estimate.n_utterances == n_earlier
        np.testing.assert_allclose(estimate.unadapted, own.probabilities, rtol=1e-6)
        score, shift = np.log(own.probabilities), known.shift(len(names), 2.0)
        assert n_earlier < 2 or abs(shift).max() > 1e-3
        expected = np.exp(score + shift + prior_shift(names, 0.3, 1.0))
        np.testing.assert_allclose(estimate.probabilities, expected / expected.sum(), rtol=1e-5)
        known.learn(MEAN, score)


def test_adaptation_does_not_depend_on_how_sound_is_cut(by_voice, utterance):
    blocks = (777, 16_000)
    first, second = (
        finals_of(Recognizer(by_voice, 'cpu'), utterance, 3, block=block) for block in blocks
    )
    assert all(map(equal, first, second))


def test_a_reset_forgets_the_voice_and_a_gap_does_not(by_voice, utterance, once):
    recognizer = Recognizer(by_voice, 'cpu')
    finals_of(recognizer, utterance, times=2)
    recognizer.push(utterance[:8_000], START)
    recognizer.push(utterance[:8_000], START + 60 * SECOND)
    assert recognizer.counters.gaps == 1
    assert recognizer.voice.adaptation.n_utterances == 2
    recognizer.reset()
    assert equal(finals_of(recognizer, utterance)[0], once)


def test_switched_off_it_gives_the_models_own_answer(by_voice, utterance, once):
    recognizer = Recognizer(by_voice, 'cpu', StreamConfig(adaptation='off'))
    for estimate in finals_of(recognizer, utterance, times=2):
        np.testing.assert_allclose(estimate.probabilities, once.unadapted, rtol=1e-6)
        assert estimate.n_utterances == 0
    assert recognizer.voice.adaptation.n_utterances == 0


@pytest.mark.parametrize('settings', [{'neutral_share': 0.3}, {'rare_ratio': 1.0}])
def test_switched_off_it_expects_the_shares_that_are_set(by_voice, utterance, once, settings):
    """A share that is not set beside it is the bundle's."""
    recognizer = Recognizer(by_voice, 'cpu', StreamConfig(adaptation='off', **settings))
    for estimate in finals_of(recognizer, utterance, times=2):
        assert equal(estimate, once)
        np.testing.assert_allclose(estimate.unadapted, once.unadapted, rtol=1e-6)
    recognizer.configure(StreamConfig(adaptation='off'))
    (estimate,) = finals_of(recognizer, utterance)
    np.testing.assert_allclose(estimate.probabilities, once.unadapted, rtol=1e-6)


def test_switched_on_after_the_last_window_it_learns_the_utterance(by_voice, utterance):
    # So short a hop that a window ends where the speech does.
    config = StreamConfig(adaptation='off', hop=0.032, first_estimate=0.512)
    recognizer = Recognizer(by_voice, 'cpu', config)
    recognizer.push(utterance[:32_000], START)
    recognizer.configure(dataclasses.replace(config, adaptation='voice'))
    (final,) = recognizer.flush()
    assert final.is_final
    assert recognizer.voice.adaptation.n_utterances == 1


def test_a_bundle_that_was_not_trained_for_it_does_not_adapt(bundle, utterance):
    first, second = finals_of(Recognizer(bundle, 'cpu'), utterance, times=2)
    assert equal(first, second)
    assert np.array_equal(first.probabilities, first.unadapted)


def test_settings_replace_those_of_the_bundle(by_voice, utterance, once):
    config = StreamConfig(neutral_share=0.9, adaptation_memory=1e6)
    recognizer = Recognizer(by_voice, 'cpu', config)
    first, second = finals_of(recognizer, utterance, times=2)
    neutral = by_voice.info.class_names.index('neutral')
    assert first.probabilities[neutral] > once.probabilities[neutral]
    np.testing.assert_allclose(first.probabilities, second.probabilities, rtol=1e-3)
    recognizer.configure(StreamConfig())
    recognizer.voice.adaptation.forget()
    assert equal(finals_of(recognizer, utterance)[0], once)


def test_rare_expressions_are_expected_less_often(by_voice, utterance, once):
    config = StreamConfig(rare_ratio=0.25)
    (first,) = finals_of(Recognizer(by_voice, 'cpu', config), utterance)
    names = by_voice.info.class_names
    is_rare = np.isin(names, ('fearful', 'disgust', 'surprised'))
    change = first.probabilities / once.probabilities
    assert change[is_rare].max() < change[~is_rare].min()


def test_another_bundle_forgets_the_voice_and_its_baseline(by_voice, utterance, once):
    baseline = Baseline(np.zeros((by_voice.frontend.n_features, 1)), np.arange(8.0) - 3.5)
    recognizer = Recognizer(by_voice, 'cpu', adaptation=Adaptation(baseline))
    assert not equal(finals_of(recognizer, utterance)[0], once)
    recognizer.replace_bundle(by_voice)
    assert equal(finals_of(recognizer, utterance)[0], once)
    listener = Listener(TorchBackend(by_voice, 'cpu'), StreamConfig())
    stream = listener.add(None, None, None, Adaptation(baseline))
    listener.replace_backend(TorchBackend(by_voice, 'cpu'))
    assert (stream.adaptation.shift(8, 1.0) == 0).all()


def test_the_open_utterance_of_an_enrolled_voice_keeps_its_baseline(by_voice, utterance):
    baseline = Baseline(np.zeros((by_voice.frontend.n_features, 1)), np.arange(8.0) - 3.5)
    backend = TorchBackend(by_voice, 'cpu')

    def decide(replaces):
        listener = Listener(backend, StreamConfig())
        enrolled = listener.add(None, None, None, Adaptation(baseline))
        other = listener.add(None, None, None)
        half = len(utterance) // 2
        finals = []
        for stream in (enrolled, other):
            backend.run([stream.voice.push(utterance[:half], START)])
            assert stream.voice.has_open_utterance
        if replaces:
            listener.replace_backend(backend, enrolled, baseline)
        for stream in (enrolled, other):
            rest = stream.voice.push(utterance[half:], START + half * SECOND // SAMPLE_RATE)
            (estimates,) = backend.run([rest])
            finals += [e for e in estimates if e.is_final and not e.is_window]
        return finals

    kept, replaced = decide(replaces=False), decide(replaces=True)
    assert len(kept) == len(replaced) == 2
    for before, after in zip(kept, replaced):
        # Windows before the replacement are forgotten, so that the decision comes from fewer.
        np.testing.assert_allclose(
            np.log(before.probabilities / before.unadapted) @ (np.eye(8) - 1 / 8),
            np.log(after.probabilities / after.unadapted) @ (np.eye(8) - 1 / 8),
            atol=1e-4,
        )


def test_an_utterance_too_short_to_be_classified_teaches_nothing(by_voice, utterance):
    recognizer = Recognizer(by_voice, 'cpu', StreamConfig(min_utterance=0.99, first_estimate=1.0))
    short = np.concatenate((utterance[: SAMPLE_RATE // 2 + 8_000], np.zeros(16_000, np.float32)))
    finals_of(recognizer, short)
    assert recognizer.counters.short_utterances == 1
    assert recognizer.voice.adaptation.n_utterances == 0


# --- Of several voices


@pytest.mark.parametrize(('mode', 'known'), [('voice', [1, 1]), ('room', [2, 2]), ('off', [0, 0])])
def test_each_voice_is_known_by_itself_or_all_together(by_voice, utterance, mode, known):
    listener = Listener(TorchBackend(by_voice, 'cpu'), StreamConfig(adaptation=mode))
    streams = [listener.add(None, None, None) for _ in range(2)]
    for stream in streams:
        for requests in (stream.voice.push(utterance, START), stream.voice.flush()):
            listener.backend.run([requests])
    assert [stream.voice.adaptation.n_utterances for stream in streams] == known


def test_voices_in_other_rooms_are_known_by_themselves(by_voice, utterance):
    listener = Listener(TorchBackend(by_voice, 'cpu'), StreamConfig(adaptation='room'))
    streams = [listener.add(None, None, None, room=room) for room in (None, None, Adaptation())]
    for requests in (streams[0].voice.push(utterance, START), streams[0].voice.flush()):
        listener.backend.run([requests])
    known = [stream.voice.adaptation.n_utterances for stream in streams]
    assert known == [1, 1, 0]


def test_a_voice_that_comes_back_is_known(by_voice, utterance):
    listener = Listener(TorchBackend(by_voice, 'cpu'), StreamConfig())
    known = Adaptation()
    known.learn(np.zeros((by_voice.frontend.n_features, 1)), np.zeros(8))
    assert listener.add(None, None, None, known).voice.adaptation is known


def test_changing_the_mode_keeps_what_each_knows(by_voice, utterance):
    listener = Listener(TorchBackend(by_voice, 'cpu'), StreamConfig())
    stream = listener.add(None, None, None)
    for requests in (stream.voice.push(utterance, START), stream.voice.flush()):
        listener.backend.run([requests])
    listener.configure(dataclasses.replace(StreamConfig(), adaptation='room'))
    assert stream.voice.adaptation.n_utterances == 0
    listener.configure(StreamConfig())
    assert stream.voice.adaptation.n_utterances == 1


class SilentQueue:
    """A queue in which no sound waits."""

    def clear(self, seconds):
        pass


def test_a_listener_forgets_its_voices_only_on_request(by_voice):
    for mode in ('voice', 'room'):
        listener = Listener(TorchBackend(by_voice, 'cpu'), StreamConfig(adaptation=mode))
        room = Adaptation()
        stream = listener.add(SilentQueue(), None, lambda is_speaking: None, room=room)
        stream.voice.adaptation.learn(np.zeros((64, 1)), np.zeros(8))
        listener.reset()
        assert stream.voice.adaptation.n_utterances == 1
        listener.reset(voices=True)
        assert stream.voice.adaptation.n_utterances == 0
