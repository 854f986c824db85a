"""One voice as a stream: samples in, windows to be judged, estimates out. No ROS, no model here."""

import math
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Optional

import numpy as np
import torch

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.stream import StampTracker
from ser_ros.audio.vad import CHUNK, Segment, Segmenter, SileroVad
from ser_ros.bundle import Bundle, BundleError
from ser_ros.emotions import ExpressionMap
from ser_ros.features import Frontend

LEAST_PROBABILITY = 1e-300
"""What a smaller probability is taken for where its logarithm is, since 0 has none."""


def _setting(default: Optional[float], description: str, low: float, high: float) -> Any:
    """A number between `low` and `high`; the nodes' parameters are made from these."""
    return field(default=default, metadata={'description': description, 'limits': (low, high)})


@dataclass(frozen=True)
class RecognizerConfig:
    """How the stream is cut and decided; SerError for a setting beyond its limits.

    A model that takes more than `min_utterance` or `first_estimate` is given what it takes.
    """

    hop: float = _setting(0.25, 'Seconds between two windows.', 0.01, 10.0)
    first_estimate: float = _setting(1.0, 'Seconds of speech before the first.', 0.2, 60.0)
    min_utterance: float = _setting(0.5, 'Seconds below which speech is dropped.', 0.2, 60.0)
    max_utterance: float = _setting(10.0, 'Seconds at which speech is cut.', 1.0, 3600.0)
    end_silence: float = _setting(0.5, 'Seconds without voice that end it.', 0.1, 10.0)
    preroll: float = _setting(
        0.1, 'Seconds heard before voice is noticed, which is late on soft onsets.', 0.0, 0.5
    )
    vad_threshold: float = _setting(0.5, 'Probability at which it is voice.', 0.2, 1.0)
    smoothing: float = _setting(1.0, 'Time constant of the running decision, s.', 0.01, 60.0)
    lead: float = _setting(0.1, 'Probability by which a new decision must lead.', 0.0, 1.0)
    threshold: Optional[float] = _setting(
        None, "Least confidence of an expression; by default the bundle's.", 0.0, 1.0
    )
    gain_db: float = _setting(0.0, 'Decibels by which sound is made louder.', -60.0, 60.0)
    gap_tolerance: float = _setting(0.1, 'Seconds by which stamps may deviate.', 0.001, 10.0)

    def __post_init__(self):
        for setting in fields(self):
            value, (low, high) = getattr(self, setting.name), setting.metadata['limits']
            if value is not None and not low <= value <= high:
                raise SerError(f'{setting.name} is {value}, not between {low} and {high}')
        if not self.min_utterance <= self.first_estimate <= self.max_utterance:
            raise SerError(
                'min_utterance, first_estimate and max_utterance must rise in this order'
            )


@dataclass(frozen=True)
class Estimate:
    """What was heard up to `stamp_ns`."""

    stamp_ns: int
    """End of the window heard, in the time of the stamps pushed."""
    probabilities: np.ndarray
    """(n_classes,), calibrated: of the window alone; in a final estimate, of the utterance."""
    expression: Optional[str]
    """The decided ROS4HRI expression; None where it is too uncertain."""
    confidence: float
    """Probability of the decided expression, smoothed over the utterance, given or withheld."""
    valence: float
    arousal: float
    """Expectations in [-1, 1] under the smoothed probabilities."""
    is_final: bool
    """Whether this is the one decision for a finished utterance."""
    is_window: bool
    """Whether `probabilities` are one window's; of final estimates only a short utterance's."""
    n_samples: int
    """Length of the window at 16 kHz; in a final estimate, of the utterance's longest."""

    @property
    def log_probabilities(self) -> np.ndarray:
        """(n_classes,) logarithms of `probabilities`, all finite: see `LEAST_PROBABILITY`."""
        return np.log(np.maximum(self.probabilities, LEAST_PROBABILITY))


@dataclass
class Counters:
    """What happened to the samples so far."""

    samples: int = 0
    windows: int = 0
    utterances: int = 0
    short_utterances: int = 0
    """Too short to be judged."""
    broken_utterances: int = 0
    """Closed without a decision by a gap or a reset."""
    gaps: int = 0
    """Where the stamps broke off and the stream began anew."""
    skipped_windows: int = 0
    """For which the GPU had no memory."""


Judged = Generator[torch.Tensor, Optional[np.ndarray], list[Estimate]]
"""Yields features (n_features, frames) of a window and is sent its calibrated log-probabilities
(n_classes,), or None where there was no memory to judge it; returns estimates."""


def check_streams(bundle: Bundle) -> None:
    """BundleError for a bundle that does not run on 16 kHz frame by frame."""
    frontend = bundle.frontend
    if frontend.sample_rate != SAMPLE_RATE:
        raise BundleError(
            f'bundle {bundle.path}: made for {frontend.sample_rate} Hz, '
            f'a stream needs one for {SAMPLE_RATE} Hz'
        )
    if not frontend.is_streaming:
        raise BundleError(
            f'bundle {bundle.path}: its front-end {frontend.config.kind} hears whole clips, '
            'a stream needs another one'
        )
    if bundle.info.window < (least := _least(bundle) / SAMPLE_RATE):
        raise BundleError(
            f'bundle {bundle.path}: its window of {bundle.info.window} s is shorter than the '
            f'{least:.3f} s that its model takes'
        )


def _least(bundle: Bundle) -> int:
    """Samples that hold the fewest frames the model takes, wherever in them the frames begin."""
    return bundle.min_samples + bundle.frontend.hop_length - 1


class Voice:
    """What is known of one voice: voice activity, the open utterance, the running decision.

    It judges no window itself: `push` and `flush` are generators (`Judged`) that ask for it, so
    that the windows of several voices can be judged together. Results depend on the samples and
    stamps alone, not on how they are cut into pushes.
    """

    def __init__(self, bundle: Bundle, config: RecognizerConfig):
        """BundleError where `check_streams` raises it."""
        check_streams(bundle)
        self.bundle = bundle
        self.counters = Counters()
        self._vad = SileroVad()
        self._segmenter = Segmenter(config.vad_threshold, 0)
        self._tracker = StampTracker(SAMPLE_RATE, config.gap_tolerance)
        self._chunk = np.zeros(CHUNK, np.float32)
        self._recent: deque[np.ndarray] = deque()
        self._position = 0
        self.configure(config)
        self.reset()

    def configure(self, config: RecognizerConfig) -> None:
        """Go on with other settings, in the middle of an utterance, too."""
        self.config = config
        self._segmenter.threshold = config.vad_threshold
        self._segmenter.end_silence = _samples(config.end_silence)
        self._tracker.tolerance = config.gap_tolerance
        self._gain = np.float32(10 ** (config.gain_db / 20))
        self._apply()
        self._plan()

    def adopt(self, bundle: Bundle) -> None:
        """Go on with another bundle, in the middle of an utterance, too.

        What was heard stays; what the last model made of it is forgotten. BundleError as above.
        """
        check_streams(bundle)
        self.bundle = bundle
        self._apply()
        self._forget_windows()

    def _apply(self) -> None:
        """What comes of bundle and settings together."""
        bundle, config = self.bundle, self.config
        self.expressions = ExpressionMap(bundle.info.class_names)
        self._threshold = bundle.info.threshold if config.threshold is None else config.threshold
        self._window = _samples(bundle.info.window)
        self._min_utterance = max(_samples(config.min_utterance), _least(bundle))
        self._first_estimate = max(_samples(config.first_estimate), _least(bundle))
        n_kept = _samples(config.end_silence + config.hop) + self._window
        self._recent = deque(self._recent, maxlen=n_kept // CHUNK + 1)
        self._frames = _FrameBuffer(bundle.frontend, n_kept)
        self._frames.reset(self._position - len(self._recent) * CHUNK)
        for chunk in self._recent:
            self._frames.push(chunk)

    def _plan(self) -> None:
        """When the open utterance is due next."""
        if (segment := self._segmenter.segment) is not None:
            due = segment.start + self._first_estimate
            if self._scores:
                due = self._last_end + _samples(self.config.hop)
            self._next_end = max(due, self._position)

    @property
    def is_speaking(self) -> bool:
        """Whether somebody speaks; an utterance cut for its length changes nothing in it."""
        return self._segmenter.is_speaking

    def push(self, samples: np.ndarray, stamp_ns: int) -> Judged:
        """Take float32 (n,) samples at 16 kHz and the stamp of the first, in nanoseconds.

        Where the stamp deviates from the last block's end by more than `gap_tolerance`, the stream
        starts anew: an open utterance closes without a decision. Raises ValueError for another
        shape or type, or samples that are not finite.
        """
        samples = np.asarray(samples)
        if samples.ndim != 1 or samples.dtype != np.float32 or not np.isfinite(samples).all():
            raise ValueError('samples must be a float32 (n,) array of finite numbers')
        if self._gain != 1:
            samples = np.clip(self._gain * samples, -1.0, 1.0)
        if self._tracker.advance(stamp_ns, len(samples)):
            self._restart()
            self.counters.gaps += 1
        self._anchor_ns = stamp_ns - (self._position + self._n_pending) * SECOND // SAMPLE_RATE
        self.counters.samples += len(samples)
        estimates = []
        while len(samples):
            n = min(CHUNK - self._n_pending, len(samples))
            self._chunk[self._n_pending : self._n_pending + n] = samples[:n]
            self._n_pending += n
            samples = samples[n:]
            if self._n_pending == CHUNK:
                estimates += yield from self._hear(self._chunk)
                self._n_pending = 0
        return estimates

    def flush(self) -> Judged:
        """End the stream: decide an open utterance, and take any stamp next."""
        segment = self._segmenter.cut()
        estimates = (yield from self._close(segment)) if segment else []
        self.reset()
        return estimates

    def reset(self) -> None:
        """Forget the stream without a decision, and take any stamp next."""
        self._tracker.reset()
        self._restart()

    def _restart(self) -> None:
        if self._segmenter.segment is not None:
            self.counters.broken_utterances += 1
        self._segmenter.reset()
        self._vad.reset()
        self._frames.reset(0)
        self._recent.clear()
        self._position = 0  # samples heard in whole chunks
        self._n_pending = 0  # samples in the chunk being filled
        self._forget_windows()

    def _forget_windows(self) -> None:
        """Of the open utterance."""
        self._scores: list[np.ndarray] = []
        self._lengths: list[int] = []

    def _hear(self, chunk: np.ndarray) -> Judged:
        was_open = self._segmenter.segment is not None
        self._position += CHUNK
        self._recent.append(chunk.copy())
        self._frames.push(chunk)
        closed = self._segmenter.push(self._vad(chunk))
        if closed:
            return (yield from self._close(closed))
        segment = self._segmenter.segment
        if segment is None:
            return []
        if not was_open:
            self._plan()
        estimates = []
        while self._next_end <= self._position:
            if self._segmenter.voiced:
                estimates += yield from self._running(segment, self._next_end)
            self._next_end += _samples(self.config.hop)
        if segment.end - segment.start >= _samples(self.config.max_utterance):
            estimates += yield from self._close(self._segmenter.cut())
        return estimates

    def _close(self, segment: Segment) -> Judged:
        """The last window of an utterance, and its decision."""
        length = segment.end - segment.start
        estimates = []
        if length < self._min_utterance:
            self.counters.short_utterances += 1
        elif length < self._first_estimate:
            yield from self._judge(segment, segment.end)
            estimates = self._final(segment, is_window=True)
        else:
            if not self._scores or self._last_end < segment.end:
                estimates = yield from self._running(segment, segment.end)
            estimates = estimates + self._final(segment, is_window=False)
        self._forget_windows()
        return estimates

    def _running(self, segment: Segment, end: int) -> Judged:
        """The estimate of the window up to `end`; none where it had to be skipped."""
        elapsed = end - self._last_end if self._scores else math.inf
        if not (yield from self._judge(segment, end)):
            return []
        score = self._scores[-1]
        if len(self._scores) == 1:
            self._smoothed, self._decided = score, None
        else:
            keep = math.exp(-elapsed / _samples(self.config.smoothing))
            self._smoothed = keep * self._smoothed + (1 - keep) * score
        probabilities = _softmax(self._smoothed)
        expressions = self.expressions.sum_classes(probabilities)
        leader = int(expressions.argmax())
        if (
            self._decided is None
            or expressions[leader] > expressions[self._decided] + self.config.lead
        ):
            self._decided = leader
        return [self._estimate(end, np.exp(score), probabilities, self._decided, False, True)]

    def _final(self, segment: Segment, is_window: bool) -> list[Estimate]:
        """The utterance's decision: see `pool_windows`."""
        if not self._scores:
            return []
        self.counters.utterances += 1
        probabilities = _softmax(pool_windows(self._scores, self._lengths))
        leader = int(self.expressions.sum_classes(probabilities).argmax())
        return [self._estimate(segment.end, probabilities, probabilities, leader, True, is_window)]

    def _estimate(
        self,
        end: int,
        probabilities: np.ndarray,
        smoothed: np.ndarray,
        decided: int,
        is_final: bool,
        is_window: bool,
    ) -> Estimate:
        confidence = float(self.expressions.sum_classes(smoothed)[decided])
        is_certain = confidence >= self._threshold
        return Estimate(
            self._anchor_ns + end * SECOND // SAMPLE_RATE,
            probabilities,
            self.expressions.expressions[decided] if is_certain else None,
            confidence,
            *self.expressions.valence_arousal(smoothed),
            is_final,
            is_window,
            max(self._lengths) if is_final else self._lengths[-1],
        )

    def _judge(
        self, segment: Segment, end: int
    ) -> Generator[torch.Tensor, Optional[np.ndarray], bool]:
        """Ask for the window's log-probabilities and keep them; False where there are none."""
        start = max(0, segment.start - _samples(self.config.preroll), end - self._window)
        score = yield self.bundle.frontend.standardise(self._frames.window(start, end))
        if score is None:
            self.counters.skipped_windows += 1
            return False
        self.counters.windows += 1
        self._last_end = end
        self._scores.append(score)
        self._lengths.append(end - start)
        return True


def pool_windows(scores: Sequence[np.ndarray], lengths: Sequence[int]) -> np.ndarray:
    """(n, n_classes) log-probabilities, (n,) lengths → (n_classes,), the longest windows' mean.

    The windows of an utterance grow until they are as long as the model hears, so that the first
    ones know less of it than the last. On four validation actors of RAVDESS the longest are right
    for 66 % of the clips (unweighted) and all together for 62 % (`parallel_fusion`; 65 % and 61 %
    with `parallel_cnn_transformer`).
    """
    longest = np.equal(lengths, max(lengths))
    return np.asarray(scores)[longest].mean(axis=0)


class _FrameBuffer:
    """The newest frames of the spectrum; each is computed once, the memory is allocated once."""

    def __init__(self, frontend: Frontend, n_samples: int):
        """`n_samples`: how far back a window may begin."""
        self._frontend = frontend
        self._hop = frontend.hop_length
        self._keep = n_samples // self._hop + 2
        # Twice the frames kept, so that moving them to the front is rare and windows are slices.
        self._frames = torch.zeros(frontend.n_rows, 2 * self._keep)
        self._samples = torch.zeros(frontend.frame_length + CHUNK)

    def reset(self, origin: int) -> None:
        """Begin with the sample of this index of the stream."""
        self._origin = origin
        self._n_samples = 0  # held in _samples
        self._n_frames = 0  # held in _frames
        self._first = 0  # index, from the origin, of the first frame held

    @torch.inference_mode()
    def push(self, chunk: np.ndarray) -> None:
        """Compute the frames that (CHUNK,) samples complete."""
        self._samples[self._n_samples : self._n_samples + CHUNK] = torch.from_numpy(chunk)
        self._n_samples += CHUNK
        n_new = self._frontend.n_frames(self._n_samples)
        if not n_new:
            return
        if self._n_frames + n_new > self._frames.shape[1]:
            drop = self._n_frames - self._keep
            self._frames[:, : self._keep] = self._frames[:, drop : self._n_frames].clone()
            self._first += drop
            self._n_frames = self._keep
        frames = self._frontend.spectrum(self._samples[: self._n_samples])
        self._frames[:, self._n_frames : self._n_frames + n_new] = frames
        self._n_frames += n_new
        rest = self._samples[n_new * self._hop : self._n_samples].clone()
        self._samples[: len(rest)] = rest
        self._n_samples = len(rest)

    def window(self, start: int, end: int) -> torch.Tensor:
        """(n_rows, frames) that lie whole between two sample indices of the stream."""
        first = -(-(start - self._origin) // self._hop) - self._first
        last = self._frontend.n_frames(end - self._origin) - self._first
        return self._frames[:, max(0, first) : last]


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)


def _softmax(scores: np.ndarray) -> np.ndarray:
    exponentials = np.exp(scores - scores.max())
    return exponentials / exponentials.sum()
