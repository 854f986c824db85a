"""Predictions of a bundle for clips: streamed as on the robot, or for each clip as a whole."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Optional

import numpy as np
import torch
from tqdm import tqdm

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.formats import PcmFormat, encode_s16le
from ser_ros.bundle import Bundle
from ser_ros.bundle_info import BundleError, BundleInfo
from ser_ros.emotions import ExpressionMap
from ser_ros.stream.backend import Backend
from ser_ros.stream.recognizer import Recognizer
from ser_ros.stream.torch_backend import TorchBackend, select_device
from ser_ros.stream.types import MIN_PROBABILITY, Estimate, StreamConfig
from ser_ros.stream.voice import Voice
from ser_ros.training.data.corpora import Clip
from ser_ros.training.evaluation.clip_result import ClipResult

MESSAGE = PcmFormat('S16LE', 1, SAMPLE_RATE)
"""Format in which a clip is encoded and decoded, as in a message to the robot."""

BATCH_SIZE = 16
"""Clips that are streamed at a time."""

COLD = StreamConfig(adaptation='off')
"""Every clip is of an unknown voice, and no class more expected."""

SILENCE = SAMPLE_RATE // 2
"""Samples of silence before and after each sound."""

Degrade = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""What happens to float32 (n,) samples at 16 kHz before the robot receives them."""


def predict_clips(
    bundle: Bundle, clips: Sequence[Clip], device: str = 'auto', gain_db: float = 0.0
) -> list[ClipResult]:
    """Stream the clips, or classify each as a whole if the bundle cannot stream."""
    if bundle.info.can_stream:
        degrade = functools.partial(amplify, gain_db=gain_db) if gain_db else None
        return stream_clips(TorchBackend(bundle, device), clips, degrade)
    return classify_clips(bundle, clips, device, gain_db)


def describe_method(bundle: Bundle) -> str:
    """How `predict_clips` processes the clips of this bundle; the end of a protocol."""
    if bundle.info.can_stream:
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


def amplify(samples: np.ndarray, rng: np.random.Generator, gain_db: float) -> np.ndarray:
    """A `Degrade` that draws nothing; what exceeds full scale is clipped by the format."""
    return samples * np.float32(10 ** (gain_db / 20))


def stream_clips(
    backend: Backend, clips: Sequence[Clip], degrade: Optional[Degrade] = None
) -> list[ClipResult]:
    """Stream each clip, between half a second of silence, as that of a voice of its own.

    `BATCH_SIZE` clips at a time, by which a clip's probabilities depend on the clips beside it by
    about 1e-6. What `degrade` draws depends on the clip alone: it is the same under every condition.
    """
    results = []
    with tqdm(total=len(clips), desc='streaming', unit='clip', leave=False, disable=None) as bar:
        for batch in batches(clips):
            results += stream_batch(backend, batch, degrade)
            bar.update(len(batch))
    return results


def batches(clips: Sequence[Clip]) -> list[Sequence[Clip]]:
    """The clips, `BATCH_SIZE` at a time."""
    return [clips[first : first + BATCH_SIZE] for first in range(0, len(clips), BATCH_SIZE)]


@one_thread()
def stream_batch(
    backend: Backend, clips: Sequence[Clip], degrade: Optional[Degrade] = None
) -> list[ClipResult]:
    """One of the `batches` of `stream_clips`."""
    sounds = [received(clip.read(), degrade, int(clip.fingerprint or '0', 16)) for clip in clips]
    return list(map(functools.partial(_result, backend), clips, stream(backend, sounds)))


def _result(backend: Backend, clip: Clip, estimates: Sequence[Estimate]) -> ClipResult:
    windows = [e for e in estimates if e.is_window]
    finals = [e for e in estimates if e.is_final]
    return ClipResult(
        clip,
        _scores(windows, backend.info),
        [e.expression for e in finals],
        lengths=[e.n_samples for e in windows],
        utterances=_scores(finals, backend.info),
    )


def stream(backend: Backend, sounds: Sequence[np.ndarray]) -> list[list[Estimate]]:
    """The estimates of float32 (n,) sounds at 16 kHz, each of an unknown voice, in one batch."""
    voices = [Voice(backend, COLD) for _ in sounds]
    during = backend.run([voice.push(sound, SECOND) for voice, sound in zip(voices, sounds)])
    ends = backend.run([voice.flush() for voice in voices])
    return [estimates + last for estimates, last in zip(during, ends)]


def _scores(estimates: Sequence[Estimate], info: BundleInfo) -> np.ndarray:
    """(n, n_classes) log-probabilities, even if there is no estimate."""
    scores = np.array([estimate.log_probabilities for estimate in estimates])
    return scores.reshape(-1, len(info.class_names))


def received(sound: np.ndarray, degrade: Optional[Degrade] = None, seed: int = 0) -> np.ndarray:
    """A sound as the robot receives it: between half a second of silence, in 16 bits.

    `degrade`, with a generator of this seed, is applied to the sound with its silence: there noise
    continues and a room resounds.
    """
    samples = np.pad(sound, SILENCE)
    if degrade:
        samples = degrade(samples, np.random.default_rng(seed))
    return MESSAGE.decode(encode_s16le(samples))[:, 0]


def stream_sound(
    recognizer: Recognizer,
    sound: np.ndarray,
    degrade: Optional[Degrade] = None,
    seed: int = 0,
) -> list[Estimate]:
    """Stream float32 (n,) samples at 16 kHz as on the robot, between half a second of silence.

    `degrade`, `seed`: see `received`. What the recogniser knows of the voice stays: `flush` ends
    the stream alone.
    """
    samples = received(sound, degrade, seed)
    return recognizer.push(samples, SECOND) + recognizer.flush()


def classify_clips(
    bundle: Bundle, clips: Sequence[Clip], device: str = 'auto', gain_db: float = 0.0
) -> list[ClipResult]:
    """Classify each clip as a whole; it has one decision.

    A clip that is too short, or silent in the part that the front-end reads, has no speech.
    """
    bundle.model.to(select_device(device))
    results = []
    for clip in tqdm(clips, desc='classifying', unit='clip', leave=False, disable=None):
        results.append(classify_clip(bundle, clip, gain_db))
    return results


def classify_clip(bundle: Bundle, clip: Clip, gain_db: float = 0.0) -> ClipResult:
    """One of the clips of `classify_clips`, on the device where the model is."""
    gain = 10 ** (gain_db / 20)
    samples = clip.read(bundle.frontend.sample_rate) * np.float32(gain)
    try:
        scores = bundle.classify(torch.from_numpy(samples)).double().numpy()[None]
        scores = np.maximum(scores, np.log(MIN_PROBABILITY))
    except BundleError:
        scores = np.zeros((0, len(bundle.info.class_names)))
    expressions = ExpressionMap(bundle.info.class_names, bundle.info.classes)
    decisions = [decide(bundle, row, expressions)[0] for row in scores]
    return ClipResult(clip, scores, decisions, is_whole=True, utterances=scores)


def decide(
    bundle: Bundle, score: np.ndarray, expressions: ExpressionMap
) -> tuple[Optional[str], float]:
    """The expression of (n_classes,) log-probabilities, None if uncertain, and its confidence."""
    return expressions.decide(np.exp(score), bundle.info.threshold)
