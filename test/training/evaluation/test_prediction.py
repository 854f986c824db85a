"""Predictions for real clips, streamed and as a whole."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile

from ser_ros.audio import SAMPLE_RATE
from ser_ros.audio.reading import Reading
from ser_ros.audio.sources import read_audio
from ser_ros.bundle import load_bundle
from ser_ros.emotions import EMOTIONS, ExpressionMap
from ser_ros.frontend_config import LogMelConfig, ResearchConfig
from ser_ros.stream.recognizer import Recognizer
from ser_ros.stream.torch_backend import TorchBackend
from ser_ros.training.data.corpora import Clip
from ser_ros.training.evaluation.clip_result import from_records, to_records
from ser_ros.training.evaluation.metrics import compute_metrics, subset_results
from ser_ros.training.evaluation.prediction import (
    classify_clips,
    decide,
    describe_method,
    predict_clips,
    stream_clips,
    stream_sound,
)


@pytest.fixture(scope='module')
def clips(tiny_corpus):
    """Three of them."""
    paths = sorted(tiny_corpus.rglob('*.wav'))[:3]
    return [Clip(path, 'happy', f'{number:02}', 'RAVDESS') for number, path in enumerate(paths)]


def test_clips_are_streamed_as_on_the_robot(bundle, clips):
    results = stream_clips(TorchBackend(bundle, 'cpu'), clips)
    assert [r.clip for r in results] == clips
    for result in results:
        assert result.windows.shape == (len(result.windows), len(EMOTIONS))
        assert len(result.windows) >= 1
        assert not result.is_whole
        np.testing.assert_allclose(np.exp(result.windows).sum(axis=1), 1, rtol=1e-5)
        assert len(result.decisions) >= 1
    # No state is carried from one clip to the next.
    (alone,) = stream_clips(TorchBackend(bundle, 'cpu'), clips[2:])
    np.testing.assert_allclose(alone.windows, results[2].windows, atol=1e-5)
    for one, other in zip(predict_clips(bundle, clips, 'cpu'), results):
        np.testing.assert_array_equal(one.windows, other.windows)
    assert 'streamed' in describe_method(bundle)


def test_inaudible_clips_have_no_speech(bundle, clips):
    results = predict_clips(bundle, clips[:2], 'cpu', gain_db=-120)
    assert [len(result.windows) for result in results] == [0, 0]
    assert [result.decisions for result in results] == [[], []]


def test_sound_is_degraded_with_its_silence_by_draws_of_the_clip_alone(bundle, clips):
    received = []

    def degrade(samples, rng):
        received.append((samples, rng.integers(2**32)))
        return np.zeros_like(samples)

    known = [dataclasses.replace(clips[0], digest=digest) for digest in ('a1', 'b2')]
    assert [r.decisions for r in stream_clips(TorchBackend(bundle, 'cpu'), known, degrade)] == [
        [],
        [],
    ]
    stream_clips(TorchBackend(bundle, 'cpu'), known[::-1], degrade)
    sound = read_audio(clips[0].path)
    for samples, _ in received:
        np.testing.assert_array_equal(samples, np.pad(sound, 8_000))
    first, second, *again = [draw for _, draw in received]
    assert first != second
    assert again == [second, first]


@pytest.mark.parametrize('frontend', [LogMelConfig(), ResearchConfig()])
def test_extreme_certainty_has_finite_metrics(write_bundle, clips, tmp_path, frontend):
    path = tmp_path / 'certain.safetensors'
    bundle = load_bundle(write_bundle(path, frontend=frontend, temperature=1e-5))
    names = bundle.info.class_names
    (predicted,) = predict_clips(bundle, clips[:1], 'cpu')
    clip = predicted.clip
    results = [
        dataclasses.replace(predicted, clip=dataclasses.replace(clip, emotion=name))
        for name in names
    ]
    for same in (results, from_records(to_records(results, names))):
        assert min(np.exp(r.windows).min() for r in same) < 1e-100
        text = json.dumps(subset_results(same, names, 'certain'), allow_nan=False)
        assert json.loads(text)['metrics']['negative_log_likelihood'] > 100


@pytest.mark.parametrize('frontend', [ResearchConfig(), LogMelConfig(sample_rate=24_000)])
def test_clips_are_classified_whole_where_there_is_no_stream(
    write_bundle, clips, tmp_path, frontend
):
    path = write_bundle(tmp_path / 'whole.safetensors', frontend=frontend, threshold=0.0)
    bundle = load_bundle(path)
    results = predict_clips(bundle, clips, 'cpu')
    assert 'whole' in describe_method(bundle)
    for result in results:
        assert result.is_whole
        assert result.windows.shape == (1, len(EMOTIONS))
        assert result.decisions == [
            decide(bundle, result.score, ExpressionMap(bundle.info.class_names))[0]
        ]
    metrics = compute_metrics(results, bundle.info.class_names)
    assert metrics['utterances'] == 3
    assert metrics['coverage'] == 1
    assert metrics['window_reliability'] is None
    assert [r['n_windows'] for r in to_records(results, bundle.info.class_names)] == [0, 0, 0]
    # A clip that is too quiet to classify counts as one without speech.
    quiet = classify_clips(bundle, clips, 'cpu', gain_db=-400.0)
    assert [result.has_speech for result in quiet] == [False, False, False]
    assert compute_metrics(quiet, bundle.info.class_names)['no_speech'] == 3


def test_nothing_is_decided_below_the_threshold(bundle):
    expressions = Recognizer(bundle, 'cpu').voice.expressions
    scores = np.log([0.3, 0.3, 0.05, 0.05, 0.1, 0.1, 0.05, 0.05])
    expression, confidence = decide(bundle, scores, expressions)
    assert (expression, confidence) == ('neutral', pytest.approx(0.6))
    leading = np.log([0.1, 0.07, 0.43, 0.2, 0.05, 0.05, 0.05, 0.05])
    assert decide(bundle, leading, expressions) == (None, pytest.approx(0.43))  # by 0.23
    even = np.log(np.full(8, 1 / 8))
    assert decide(bundle, even, expressions) == (None, pytest.approx(0.25))


def test_a_clip_is_predicted_as_of_an_unknown_voice(by_voice, speech_path):
    """Neither by earlier clips nor by an expected share of neutral utterances."""
    clip = Clip(speech_path, 'happy', 'anna', 'mine')
    first, again = predict_clips(by_voice, [clip, clip], 'cpu')
    np.testing.assert_allclose(first.utterances, again.utterances, atol=1e-5)
    unknown = Recognizer(by_voice, 'cpu')
    estimates = stream_sound(unknown, read_audio(speech_path))
    final = next(estimate for estimate in estimates if estimate.is_final)
    np.testing.assert_allclose(np.exp(first.utterances[0]), final.unadapted, rtol=1e-5)
    assert abs(final.unadapted - final.probabilities).max() > 1e-3


def test_a_clip_is_streamed_and_classified_by_its_channel(bundle, speech, tmp_path):
    path = tmp_path / 'two.wav'
    frames = np.stack([np.zeros_like(speech), speech], axis=1)[: 4 * SAMPLE_RATE]
    soundfile.write(path, frames, SAMPLE_RATE)
    clips = [Clip(path, 'happy', 'anna', 'mine', reading=Reading(channel=n)) for n in (0, 1)]
    for results in (
        stream_clips(TorchBackend(bundle, 'cpu'), clips),
        classify_clips(bundle, clips),
    ):
        assert [result.has_speech for result in results] == [False, True]
