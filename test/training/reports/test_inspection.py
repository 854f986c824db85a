"""The plotted values of a recording are those that the bundle computed."""

import numpy as np
import pytest
import torch

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE
from ser_ros.bundle import load_bundle
from ser_ros.frontend_config import LogMelConfig, ResearchConfig
from ser_ros.models.blocks import AttentionPool
from ser_ros.stream.recognizer import Recognizer
from ser_ros.stream.types import StreamConfig
from ser_ros.training.reports.inspection import inspect, voice_activity
from ser_ros.training.reports.plots import overview


@pytest.fixture(scope='module')
def attentive(write_bundle, tmp_path_factory):
    """A function: front-end → a bundle with attention over time."""
    folder = tmp_path_factory.mktemp('attentive')

    def load(frontend):
        path = write_bundle(
            folder / f'{type(frontend).__name__}{frontend.sample_rate}.safetensors',
            architecture='parallel_cnn_attention_lstm',
            hyperparameters={},
            frontend=frontend,
        )
        return load_bundle(path)

    return load


def test_the_timeline_is_the_streams(bundle, speech):
    found = inspect(bundle, speech)
    recognizer = Recognizer(bundle, 'cpu')
    estimates = recognizer.push(speech, 0) + recognizer.flush()
    windows = [e for e in estimates if e.is_window]
    assert len(windows) > 10
    ((title, (probabilities, decisions)),) = found.timelines.items()
    assert title == ''
    np.testing.assert_array_equal(probabilities, [e.probabilities for e in windows])
    np.testing.assert_allclose(found.spans[:, 1], [e.stamp_ns / 1e9 for e in windows])
    # The spans follow each other and do not overlap.
    assert (found.spans[:, 0] < found.spans[:, 1]).all()
    assert (found.spans[1:, 0] >= found.spans[:-1, 1]).all()
    assert [seconds for seconds, _ in decisions] == [
        e.stamp_ns / 1e9 for e in estimates if e.is_final
    ]
    for (_, words), estimate in zip(decisions, (e for e in estimates if e.is_final)):
        assert (estimate.expression or 'uncertain') in words
        assert f'{estimate.confidence:.2f}' in words


def test_a_bundle_that_adapts_has_a_timeline_before_and_after(by_voice, speech, segments):
    speech = speech[: segments[1].end]
    found = inspect(by_voice, speech)
    # Both expect the bundle's shares of classes, so that the difference is the adaptation alone.
    share = by_voice.info.adaptation.neutral_share
    configs = (StreamConfig(adaptation='off', neutral_share=share), StreamConfig())
    assert len(found.timelines) == len(configs)
    assert 'without' in next(iter(found.timelines))
    for (probabilities, decisions), config in zip(found.timelines.values(), configs):
        recognizer = Recognizer(by_voice, 'cpu', config)
        estimates = recognizer.push(speech, 0) + recognizer.flush()
        expected = [e.probabilities for e in estimates if e.is_window]
        np.testing.assert_array_equal(probabilities, expected)
        assert len(decisions) == sum(e.is_final for e in estimates)
        assert len(found.spans) == len(expected)


def test_voice_activity_is_the_streams(speech, segments):
    expected = [(s.start / SAMPLE_RATE, s.end / SAMPLE_RATE) for s in segments]
    assert voice_activity(speech) == expected


def test_attention_is_where_the_windows_are(attentive, speech):
    found = inspect(attentive(LogMelConfig()), speech)
    ((name, (instants, weights)),) = found.attention.items()
    assert name == 'attention'
    assert instants[-1] == pytest.approx(len(speech) / SAMPLE_RATE, abs=0.02)
    known = np.isfinite(weights)
    assert 0.2 < known.mean() < 1
    # Even attention would be 1 everywhere; each window's mean is.
    assert np.nanmean(weights) == pytest.approx(1, abs=0.05)
    spans = voice_activity(speech)
    for start, end in spans:
        inside = (instants > start) & (instants < end)
        assert known[inside].all()
    assert not known[instants < spans[0][0] - 0.3].any()


def test_what_is_attended_to_is_where_the_sound_is(attentive, utterance, monkeypatch):
    """With a score that only sees the last third of the steps, so is the curve."""

    def late(self, steps, real):
        position = torch.arange(steps.shape[1]) >= 2 * steps.shape[1] / 3
        weights = (position / position.sum()).expand(len(steps), -1)
        return (weights[..., None] * steps).sum(dim=1), weights

    monkeypatch.setattr(AttentionPool, 'forward', late)
    bundle = attentive(ResearchConfig())
    samples = np.repeat(utterance, 3)  # at 48 kHz
    found = inspect(bundle, samples)
    instants, weights = found.attention['attention']
    attended = instants[np.nan_to_num(weights) > 0]
    # The front-end uses 0.5 s to 3.5 s.
    assert attended.min() == pytest.approx(2.5, abs=0.05)
    assert attended.max() == pytest.approx(3.5, abs=0.05)
    assert np.nanmax(weights) == pytest.approx(3, rel=0.05)


def test_a_whole_clip_is_one_stretch(attentive, utterance):
    bundle = attentive(ResearchConfig())
    samples = np.repeat(utterance, 3)
    found = inspect(bundle, samples)
    assert found.spans.tolist() == [[0.5, 3.5]]
    expected = bundle.classify(torch.from_numpy(samples)).exp()
    ((probabilities, decisions),) = found.timelines.values()
    np.testing.assert_allclose(probabilities, expected[None], rtol=1e-5)
    assert len(decisions) == 1
    with pytest.raises(SerError, match='too short'):
        inspect(bundle, samples[:1000])


def test_silence_has_nothing_to_draw(attentive, not_speech):
    found = inspect(attentive(LogMelConfig()), not_speech['silence'])
    ((probabilities, decisions),) = found.timelines.values()
    assert voice_activity(not_speech['silence']) == decisions == []
    assert found.spans.shape == (0, 2)
    assert probabilities.shape == (0, 8)
    _, weights = found.attention['attention']
    assert np.isnan(weights).all()
    overview(not_speech['silence'][:32_000], [], **vars(found))


def test_no_hook_is_left_behind(attentive, utterance):
    bundle = attentive(LogMelConfig())
    inspect(bundle, utterance)
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in bundle.model.modules()
    )


def test_a_model_without_attention(bundle, utterance):
    assert inspect(bundle, utterance).attention == {}
