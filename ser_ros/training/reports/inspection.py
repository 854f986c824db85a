"""Predictions of a bundle for one recording over time, with voice activity and attention."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np
import torch
from torch import Tensor, nn

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.vad import CHUNK, Segmenter, SileroVad
from ser_ros.bundle import Bundle
from ser_ros.emotions import ExpressionMap
from ser_ros.frontend_config import ResearchConfig
from ser_ros.models.blocks import AttentionPool
from ser_ros.stream.recognizer import Recognizer
from ser_ros.stream.types import Estimate, StreamConfig
from ser_ros.training.evaluation.prediction import decide, one_thread

RESOLUTION = 0.01
"""Seconds between two instants of the attention curves."""


Timeline = tuple[np.ndarray, list[tuple[float, str]]]
"""Probabilities (n, n_classes), and time in seconds and text of each decision."""


@dataclass(frozen=True)
class Inspection:
    """What `plots.overview` draws below the sound; all times in seconds."""

    attention: dict[str, tuple[np.ndarray, np.ndarray]]
    """Layer → instants (m,) and weights (m,), 1 for even weights, NaN outside of windows."""
    spans: np.ndarray
    """(n, 2): the time over which a row of probabilities is drawn."""
    timelines: dict[str, Timeline]
    """By title. If the bundle adapts, without and with adaptation."""
    class_names: tuple[str, ...]


@one_thread()
def inspect(bundle: Bundle, samples: np.ndarray) -> Inspection:
    """Process float32 (n,) samples, at the front-end's rate, on the CPU.

    They are streamed, and a curve of attention is the mean of all windows at each instant; or
    classified as a whole if the bundle cannot stream. BundleError for sound that cannot be
    classified as a whole.
    """
    with _watched(bundle.model) as watched:
        process = _stream if bundle.info.can_stream else _classify
        return process(bundle, samples, watched)


_Weights = dict[str, list[np.ndarray]]
"""Layer → (n,) weights of each call of a model."""


@contextlib.contextmanager
def _watched(model: nn.Module) -> Iterator[_Weights]:
    watched, hooks = {}, []
    for name, layer in model.named_modules():
        if isinstance(layer, AttentionPool):
            calls = watched.setdefault(name, [])
            hooks.append(layer.register_forward_hook(_keep_weights(calls)))
    try:
        yield watched
    finally:
        for hook in hooks:
            hook.remove()


def _keep_weights(calls: list[np.ndarray]):
    def hook(_: nn.Module, __: tuple, output: tuple[Tensor, Tensor]) -> None:
        calls.append(output[1][0].numpy(force=True))

    return hook


def _stream(bundle: Bundle, samples: np.ndarray, watched: _Weights) -> Inspection:
    config = StreamConfig()
    estimates = _estimates(bundle, samples, config)
    windows = [estimate for estimate in estimates if estimate.is_window]
    ends = np.array([estimate.stamp_ns / SECOND for estimate in windows])
    lengths = [estimate.n_samples / SAMPLE_RATE for estimate in windows]
    extents = np.stack((ends - lengths, ends), axis=1) if windows else np.zeros((0, 2))
    # A window is drawn over its new part, the first one of an utterance over one hop as well.
    spans = np.stack((ends - config.hop, ends), axis=1)
    spans[1:, 0] = np.maximum(spans[1:, 0], ends[:-1])
    attention = _attention(watched, extents, len(samples) / SAMPLE_RATE)
    timelines = {'': _timeline(bundle, estimates)}
    if bundle.info.adaptation.adapts:
        off = StreamConfig.by_itself(bundle.info.adaptation)
        timelines = {
            'without adaptation': _timeline(bundle, _estimates(bundle, samples, off)),
            'with adaptation to the earlier utterances': timelines[''],
        }
    return Inspection(attention, spans, timelines, bundle.info.class_names)


def _estimates(bundle: Bundle, samples: np.ndarray, config: StreamConfig) -> list[Estimate]:
    recognizer = Recognizer(bundle, 'cpu', config)
    return recognizer.push(samples, 0) + recognizer.flush()


def _timeline(bundle: Bundle, estimates: Sequence[Estimate]) -> Timeline:
    probabilities = np.array([e.probabilities for e in estimates if e.is_window])
    return (
        probabilities.reshape(-1, len(bundle.info.class_names)),
        [
            (e.stamp_ns / SECOND, _decision(e.expression, e.confidence))
            for e in estimates
            if e.is_final
        ],
    )


def _decision(expression: Optional[str], confidence: float) -> str:
    return f'{expression} {confidence:.2f}' if expression else f'uncertain ({confidence:.2f})'


def _classify(bundle: Bundle, samples: np.ndarray, watched: _Weights) -> Inspection:
    score = bundle.classify(torch.from_numpy(samples)).double().numpy()
    config, seconds = bundle.frontend.config, len(samples) / bundle.frontend.sample_rate
    start, end = 0.0, seconds
    if isinstance(config, ResearchConfig):
        start, end = config.offset, config.offset + config.duration
    decision = decide(bundle, score, ExpressionMap(bundle.info.class_names, bundle.info.classes))
    return Inspection(
        _attention(watched, np.array([[start, end]]), seconds),
        np.array([[start, min(end, seconds)]]),
        {'': (np.exp(score)[None], [(min(end, seconds), _decision(*decision))])},
        bundle.info.class_names,
    )


def voice_activity(samples: np.ndarray) -> list[tuple[float, float]]:
    """Start and end in seconds of each utterance in float32 (n,) samples at 16 kHz.

    As the recogniser cuts them, except that long utterances are not cut.
    """
    config, vad = StreamConfig(), SileroVad()
    segmenter = Segmenter(config.vad_threshold, round(config.end_silence * SAMPLE_RATE))
    segments = [
        segmenter.push(vad(samples[start : start + CHUNK]))
        for start in range(0, len(samples) - CHUNK + 1, CHUNK)
    ]
    segments.append(segmenter.cut())
    return [(s.start / SAMPLE_RATE, s.end / SAMPLE_RATE) for s in segments if s is not None]


def _attention(
    watched: _Weights, spans: np.ndarray, seconds: float
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean weights of all calls at each instant; those of a call cover its span (n, 2) evenly."""
    instants = np.arange(0, seconds, RESOLUTION)
    curves = {}
    for name, calls in watched.items():
        total, count = np.zeros(len(instants)), np.zeros(len(instants))
        for weights, (start, end) in zip(calls, spans):
            inside = (instants >= start) & (instants < end)
            step = ((instants[inside] - start) / (end - start) * len(weights)).astype(int)
            total[inside] += weights[step] * len(weights)
            count[inside] += 1
        curves[name or 'attention'] = (
            instants,
            np.divide(total, count, out=np.full(len(instants), np.nan), where=count > 0),
        )
    return curves
