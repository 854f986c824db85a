"""Predictions of a bundle for clips: streamed as on the robot, or for each clip as a whole."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Optional

import numpy as np
import torch
from tqdm import tqdm

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.formats import PcmFormat, encode_s16le
from ser_ros.audio.sources import read_audio
from ser_ros.bundle import Bundle, BundleError
from ser_ros.emotions import ExpressionMap
from ser_ros.stream.engine import select_device
from ser_ros.stream.recognizer import Recognizer
from ser_ros.stream.types import MIN_PROBABILITY, Estimate
from ser_ros.stream.voice import can_stream
from ser_ros.training.data.corpora import Clip
from ser_ros.training.evaluation.clip_result import ClipResult

MESSAGE = PcmFormat('S16LE', 1, SAMPLE_RATE)
"""Format in which a clip is encoded and decoded, as in a message to the robot."""


def predict_clips(
    bundle: Bundle, clips: Sequence[Clip], device: str = 'auto', gain_db: float = 0.0
) -> list[ClipResult]:
    """Stream the clips, or classify each as a whole if the bundle cannot stream."""
    if can_stream(bundle):
        return stream_clips(Recognizer(bundle, device), clips, gain_db)
    return classify_clips(bundle, clips, device, gain_db)


def describe_method(bundle: Bundle) -> str:
    """How `predict_clips` processes the clips of this bundle; the end of a protocol."""
    if can_stream(bundle):
        return 'each clip streamed as on the robot, between half a second of silence'
    return 'each clip classified as a whole'


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread: a window is too little work for several."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


@one_thread()
def stream_clips(
    recognizer: Recognizer, clips: Sequence[Clip], gain_db: float = 0.0
) -> list[ClipResult]:
    """Stream each clip, between half a second of silence, through the recogniser."""
    gain = np.float32(10 ** (gain_db / 20))
    results = []
    for clip in tqdm(clips, desc='streaming', unit='clip', leave=False):
        estimates = stream_sound(recognizer, read_audio(clip.path) * gain)
        windows = [e for e in estimates if e.is_window]
        finals = [e for e in estimates if e.is_final]
        results.append(
            ClipResult(
                clip,
                _scores(windows, recognizer.bundle),
                [e.expression for e in finals],
                lengths=[e.n_samples for e in windows],
                utterances=_scores(finals, recognizer.bundle),
            )
        )
    return results


def _scores(estimates: Sequence[Estimate], bundle: Bundle) -> np.ndarray:
    """(n, n_classes) log-probabilities, even if there is no estimate."""
    scores = np.array([estimate.log_probabilities for estimate in estimates])
    return scores.reshape(-1, len(bundle.info.class_names))


def stream_sound(recognizer: Recognizer, sound: np.ndarray) -> list[Estimate]:
    """Stream float32 (n,) samples at 16 kHz as on the robot, between half a second of silence."""
    silence = np.zeros(8_000, np.float32)
    samples = MESSAGE.decode(encode_s16le(np.concatenate((silence, sound, silence))))[:, 0]
    recognizer.reset()
    return recognizer.push(samples, SECOND) + recognizer.flush()


def classify_clips(
    bundle: Bundle, clips: Sequence[Clip], device: str = 'auto', gain_db: float = 0.0
) -> list[ClipResult]:
    """Classify each clip as a whole; it has one decision.

    A clip that is too short, or silent in the part that the front-end reads, has no speech.
    """
    bundle.model.to(select_device(device))
    gain = 10 ** (gain_db / 20)
    expressions = ExpressionMap(bundle.info.class_names)
    results = []
    for clip in tqdm(clips, desc='classifying', unit='clip', leave=False):
        samples = read_audio(clip.path, bundle.frontend.sample_rate) * np.float32(gain)
        try:
            scores = bundle.classify(torch.from_numpy(samples)).double().numpy()[None]
            scores = np.maximum(scores, np.log(MIN_PROBABILITY))
        except BundleError:
            scores = np.zeros((0, len(bundle.info.class_names)))
        decisions = [decide(bundle, row, expressions)[0] for row in scores]
        results.append(ClipResult(clip, scores, decisions, is_whole=True, utterances=scores))
    return results


def decide(
    bundle: Bundle, score: np.ndarray, expressions: ExpressionMap
) -> tuple[Optional[str], float]:
    """The expression of (n_classes,) log-probabilities, None below the threshold, and its confidence."""
    return expressions.decide(np.exp(score), bundle.info.threshold)
