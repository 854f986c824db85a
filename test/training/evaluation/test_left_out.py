"""What is chosen on corpora that were left out, and the metrics of others."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ser_ros import SerError
from ser_ros.training.data.corpora import Clip
from ser_ros.training.evaluation.left_out import (
    MIN_COVERAGE,
    NEUTRAL_ERROR,
    POSITIONS,
    Choices,
    CorpusScores,
    choose,
    evaluate_left_out,
)
from ser_ros.training.evaluation.voice_streams import N_UTTERANCES, draw_streams

CLASSES = ('neutral', 'happy', 'sad', 'angry', 'fearful')
EMOTIONS = CLASSES[:4]


def corpus(sharpness=2.0, right=2.0, offset=0.0, name='A', seed=1, n_speakers=6):
    """Scores of a model that is right to a degree; each voice has an `offset` of its own.

    The scores are `sharpness` times log-probabilities that are calibrated without an offset.
    """
    rng = np.random.default_rng(seed)
    clips = [
        Clip(Path(f'{speaker}{emotion}{i}'), emotion, f's{speaker}', name)
        for speaker in range(n_speakers)
        for emotion in EMOTIONS
        for i in range(8)
    ]
    labels = np.array([CLASSES.index(clip.emotion) for clip in clips])
    # Gaussian evidence: the log-odds of a class are its evidence times `right`.
    evidence = rng.standard_normal((len(clips), len(CLASSES)))
    evidence[np.arange(len(clips)), labels] += right
    offsets = {f'{name}:s{s}': offset * rng.standard_normal(5) for s in range(n_speakers)}
    scores = right * evidence + [offsets[clip.voice] for clip in clips]
    scores *= sharpness
    streams = draw_streams(clips)
    known = np.array([scores[list(stream.clips)] for stream in streams])
    return CorpusScores(CLASSES, 4.0, clips, scores, streams, known)


def test_the_temperature_undoes_the_sharpness():
    sharp, flat = (choose([corpus(s, offset=0.3)], 0.7).temperature for s in (4.0, 1.0))
    assert sharp / flat == pytest.approx(4.0, rel=0.1)


def test_more_neutral_utterances_are_expected_where_they_are_taken_for_others():
    good, bad = (choose([corpus(right=right)], 0.7) for right in (3.0, 0.8))
    assert good.neutral_share < bad.neutral_share
    metrics = evaluate_left_out(corpus(right=0.8), bad)
    assert metrics['streams']['mostly neutral']['adapted']['neutral_error'] <= NEUTRAL_ERROR + 0.01


@pytest.mark.parametrize(('right', 'target'), [(1.4, 0.7), (1.8, 0.8), (2.6, 0.9)])
def test_the_threshold_is_the_least_at_which_decisions_are_right_often_enough(right, target):
    one = corpus(right=right)
    choices = choose([one], target)
    accuracy, coverage = _decisions(one, choices)
    assert accuracy == pytest.approx(target, abs=0.03)
    lower = dataclasses.replace(choices, threshold=choices.threshold - 0.1)
    more = _decisions(one, lower)
    assert more[0] < target
    assert more[1] > coverage > 0.05


def test_a_threshold_that_would_silence_the_model_is_not_chosen():
    one = corpus(right=0.4)
    choices = choose([one], 0.95)
    accuracy, coverage = _decisions(one, choices)
    assert accuracy < 0.95
    assert coverage == pytest.approx(MIN_COVERAGE, abs=0.03)


def _decisions(one, choices):
    """Accuracy when decided, and coverage, over streams of both kinds."""
    streams = evaluate_left_out(one, choices)['streams']
    found = [streams[kind]['adapted'] for kind in ('balanced', 'mostly neutral')]
    coverage = [values['coverage'] for values in found]
    right = [values['expression_accuracy_when_decided'] for values in found]
    return np.average(right, weights=coverage), np.mean(coverage)


def test_corpora_count_alike_whatever_their_size():
    small, large = corpus(1.0, name='A', n_speakers=3), corpus(4.0, name='B', n_speakers=12)
    first = choose([small, large], 0.7)
    again = choose([large, small, corpus(1.0, name='C', n_speakers=3)], 0.7)
    assert choose([small], 0.7).temperature < first.temperature
    assert again.temperature < first.temperature < choose([large], 0.7).temperature


def test_without_corpora_nothing_can_be_chosen():
    with pytest.raises(SerError, match='need a corpus that was left out'):
        choose([], 0.7)


def test_adaptation_takes_out_the_offset_of_a_voice():
    metrics = evaluate_left_out(corpus(offset=3.0, n_speakers=12), Choices(2.0, 0.0, 0.2))
    balanced = metrics['streams']['balanced']
    before, after = (balanced[name]['unweighted_accuracy'] for name in ('unadapted', 'adapted'))
    assert after > before + 0.1
    curve = metrics['curves']['balanced']['unweighted_accuracy']
    assert len(curve) == len(POSITIONS) - 1 == len(metrics['curves']['earlier_utterances'])
    assert curve[-1] > curve[0] + 0.1
    assert balanced['speakers'] == 12
    assert balanced['adapted']['clips'] == 12 * 2 * (N_UTTERANCES - 10)


def test_accuracy_is_among_the_expressions_that_the_corpus_has():
    one = corpus(right=3.0)
    scores = one.cold.copy()
    scores[:, CLASSES.index('fearful')] += 100
    metrics = evaluate_left_out(dataclasses.replace(one, cold=scores), Choices(1.0, 0.5, 0.2))
    assert metrics['expressions'] == list(EMOTIONS)
    assert metrics['cold']['unweighted_accuracy'] > 0.8
    # A robot decides among all classes, and would be wrong.
    assert metrics['cold']['expression_accuracy_when_decided'] == 0.0


def test_right_emotions_are_those_other_than_neutral():
    one = corpus(right=3.0)
    scores = np.zeros_like(one.cold)
    scores[:, CLASSES.index('neutral')] = 5.0
    is_sad = np.array([clip.emotion == 'sad' for clip in one.clips])
    scores[is_sad, CLASSES.index('sad')] = 9.0
    scores[np.flatnonzero(is_sad)[:3], CLASSES.index('angry')] = 15.0
    cold = evaluate_left_out(dataclasses.replace(one, cold=scores), Choices(1.0, 0.5, 0.2))['cold']
    n_sad = int(is_sad.sum())
    assert cold['emotion_accuracy_when_decided'] == pytest.approx((n_sad - 3) / n_sad)
    neutral = evaluate_left_out(
        dataclasses.replace(one, cold=np.where(scores == 5.0, 20.0, scores)),
        Choices(1.0, 0.5, 0.2),
    )
    assert neutral['cold']['emotion_accuracy_when_decided'] is None


def test_a_clip_without_speech_counts_as_wrong():
    one = corpus(right=5.0)
    cold, known = one.cold.copy(), one.known.copy()
    cold[::4], known[:, ::4] = np.nan, np.nan
    deaf = dataclasses.replace(one, cold=cold, known=known)
    choices = choose([deaf], 0.7)
    metrics = evaluate_left_out(deaf, choices)
    assert metrics['cold']['no_speech'] == len(one.clips) // 4
    assert metrics['cold']['accuracy'] == pytest.approx(0.75, abs=0.02)
