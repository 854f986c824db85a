"""One voice as a stream: samples in, requests and estimates out. No ROS, no model here."""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Optional

import numpy as np

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.stream import StampTracker
from ser_ros.audio.vad import CHUNK, Segment, Segmenter, SileroVad
from ser_ros.emotions import ExpressionMap, margin
from ser_ros.stream.adaptation import Adaptation, prior_shift
from ser_ros.stream.backend import Backend
from ser_ros.stream.frame_buffer import FrameBuffer
from ser_ros.stream.types import (
    Chunk,
    Estimate,
    Requests,
    Score,
    StreamConfig,
    StreamCounters,
    Window,
)


@dataclass
class _Utterance:
    """Everything known of the open utterance."""

    segment: Segment
    next_end: int
    """Sample index from which on the next window is due; it ends with the chunk that reaches it."""
    n_utterances: int
    """Earlier utterances that `mean` and `shift` come from."""
    mean: Optional[np.ndarray]
    """(n_features, 1) to standardise features by; None: the training set's."""
    shift: np.ndarray
    """(n_classes,) to add to log-probabilities."""
    scores: list[np.ndarray] = field(default_factory=list)
    """(n_classes,) log-probabilities of each window, before the shift."""
    unadapted: list[np.ndarray] = field(default_factory=list)
    """(n_classes,) those of an unknown voice."""
    clip_means: list[np.ndarray] = field(default_factory=list)
    """(n_features, 1) mean features of each window."""
    lengths: list[int] = field(default_factory=list)
    """Of these windows, in samples."""
    last_end: Optional[int] = None
    """Sample index at which the last of them ended."""
    smoothed: Optional[np.ndarray] = None
    """(n_classes,) log-probabilities of the running decision."""
    leader: Optional[int] = None
    """Index of the expression that the running decision names."""


class Voice:
    """State of one voice: voice activity, the open utterance, the running decision.

    It detects no speech and classifies no window itself: `push` and `flush` are generators
    (`Requests`) that ask for it, so that the chunks and windows of several voices can be one batch.
    The estimates depend on samples and stamps alone, not on how the samples are cut into pushes.
    """

    def __init__(
        self, backend: Backend, config: StreamConfig, adaptation: Optional[Adaptation] = None
    ):
        """`adaptation`: what is known of the voice; it may be that of several voices."""
        self._backend = backend
        self.adaptation = adaptation or Adaptation()
        self.counters = StreamCounters()
        self.skips_windows = False
        """Whether running estimates are left out: an utterance then has its last window only."""
        self._vad = SileroVad()
        self._segmenter = Segmenter(config.vad_threshold, 0)
        self._tracker = StampTracker(SAMPLE_RATE, config.gap_tolerance)
        self._chunk = np.zeros(CHUNK, np.float32)
        self._utterance: Optional[_Utterance] = None
        self._position = 0
        """Samples processed, in whole chunks."""
        self._n_pending = 0
        """Samples in the chunk that is being filled."""
        self._frames = FrameBuffer(backend, 0)
        self.configure(config)
        self.reset()

    def configure(self, config: StreamConfig) -> None:
        """Continue with other settings; the open utterance is kept."""
        self.config = config
        self._segmenter.threshold = config.vad_threshold
        self._segmenter.end_silence = _samples(config.end_silence)
        self._tracker.tolerance = config.gap_tolerance
        self._gain = np.float32(10 ** (config.gain_db / 20))
        self._update_limits()
        if (utterance := self._utterance) is not None:
            due = utterance.segment.start + self._first_estimate
            if utterance.last_end is not None:
                due = utterance.last_end + _samples(config.hop)
            utterance.next_end = max(due, self._position)

    def replace_backend(self, backend: Backend) -> None:
        """Continue with another bundle or backend; the open utterance is kept, its estimates are forgotten.

        If the windows are longer now, the utterance counts from the oldest sound that is kept.
        What is known of the voice must be forgotten before: another model has other features and
        errors.
        """
        self._backend = backend
        self._update_limits()
        if (utterance := self._utterance) is not None:
            due = utterance.segment.start + self._first_estimate
            self._utterance = self._open(utterance.segment, max(due, utterance.next_end))

    def _expected_shares(self) -> np.ndarray:
        """(n_classes,) to add to log-probabilities; without adaptation only for shares that are set."""
        info, config = self._backend.info, self.config
        neutral_share, rare_ratio = config.neutral_share, config.rare_ratio
        if not self.adapts and neutral_share is None and rare_ratio is None:
            return np.zeros(len(info.class_names))
        return prior_shift(
            info.class_names,
            info.adaptation.neutral_share if neutral_share is None else neutral_share,
            info.adaptation.rare_ratio if rare_ratio is None else rare_ratio,
            info.classes,
        )

    def _update_limits(self) -> None:
        """Compute what follows from bundle and settings together."""
        info, config = self._backend.info, self.config
        self.expressions = ExpressionMap(info.class_names, info.classes)
        self._threshold = info.threshold if config.threshold is None else config.threshold
        self._memory = info.adaptation.memory
        if config.adaptation_memory is not None:
            self._memory = config.adaptation_memory
        self._shares_shift = self._expected_shares()
        self._window, least = _samples(info.window), self._backend.geometry.min_window
        # Voice is detected in whole chunks: rounded up, a call of 0.3 s would never be long enough.
        self._min_utterance = max(_samples(config.min_utterance) // CHUNK * CHUNK, least)
        self._first_estimate = max(_samples(config.first_estimate), least)
        silence = _samples(config.end_silence)
        if self._utterance is not None:  # a pause in it may be longer than a new end_silence
            silence = max(silence, self._position - self._utterance.segment.end)
        n_kept = silence + _samples(config.hop) + CHUNK + self._window
        held = self._frames.samples[-n_kept:]
        self._frames = FrameBuffer(self._backend, n_kept)
        self._frames.reset(self._position - len(held))
        self._frames.push(held)
        if self._utterance is not None:  # of longer windows, only what is kept can be read
            segment = self._utterance.segment
            segment.start = max(segment.start, self._frames.oldest)

    @property
    def is_speaking(self) -> bool:
        """Whether somebody speaks; cutting a long utterance does not change it."""
        return self._segmenter.is_speaking

    @property
    def samples_until_due(self) -> float:
        """How many more samples until a window, or the end of speech, is due; inf while nobody speaks.

        Speech that begins may be reported before.
        """
        due = []
        if self._segmenter.is_speaking:
            due.append(self._segmenter.end)
        if (utterance := self._utterance) is not None:
            due.append(utterance.next_end)
            due.append(utterance.segment.start + _samples(self.config.max_utterance))
        if not due:
            return math.inf
        n_chunks = max(1, math.ceil((min(due) - self._position) / CHUNK))
        return n_chunks * CHUNK - self._n_pending

    @property
    def has_open_utterance(self) -> bool:
        """Whether an utterance has begun that is not decided yet."""
        return self._utterance is not None

    def push(self, samples: np.ndarray, stamp_ns: int) -> Requests:
        """Process float32 (n,) samples at 16 kHz; `stamp_ns` is the time of the first.

        Where the stamp deviates from the last block's end by more than `gap_tolerance`, the stream
        restarts: an open utterance is decided from what was received of it. Raises ValueError for
        another shape or type, or samples that are not finite.
        """
        samples = np.asarray(samples)
        if samples.ndim != 1 or samples.dtype != np.float32 or not np.isfinite(samples).all():
            raise ValueError('samples must be a float32 (n,) array of finite numbers')
        if self._gain != 1:
            samples = np.clip(self._gain * samples, -1.0, 1.0)
        estimates = []
        if self._tracker.advance(stamp_ns, len(samples)):
            self.counters.gaps += 1
            estimates = yield from self.interrupt()
        self._anchor_ns = stamp_ns - (self._position + self._n_pending) * SECOND // SAMPLE_RATE
        self.counters.samples += len(samples)
        while len(samples):
            n = min(CHUNK - self._n_pending, len(samples))
            self._chunk[self._n_pending : self._n_pending + n] = samples[:n]
            self._n_pending += n
            samples = samples[n:]
            if self._n_pending == CHUNK:
                estimates += yield from self._process(self._chunk)
                self._n_pending = 0
        return estimates

    def interrupt(self) -> Requests:
        """Decide an open utterance, and start anew; the next stamp is compared with the last."""
        estimates = (yield from self._close()) if self._segmenter.cut() else []
        self._restart()
        return estimates

    def flush(self) -> Requests:
        """End the stream: decide an open utterance, and accept any stamp next."""
        estimates = yield from self.interrupt()
        self._tracker.reset()
        return estimates

    def reset(self) -> None:
        """Forget the stream without a decision, and accept any stamp next.

        What is known of the voice stays: see `Adaptation.forget`.
        """
        self._tracker.reset()
        self._restart()

    def _restart(self) -> None:
        if self._utterance is not None:
            self.counters.broken_utterances += 1
        self._utterance = None
        self._segmenter.reset()
        self._vad.reset()
        self._frames.reset(0)
        self._position = self._n_pending = 0

    def _process(self, chunk: np.ndarray) -> Requests:
        self._position += CHUNK
        self._frames.push(chunk)
        probability = yield Chunk(self._vad, chunk)
        if self._segmenter.push(probability):
            return (yield from self._close())
        segment = self._segmenter.segment
        if segment is None:
            return []
        if self._utterance is None:
            due = max(segment.start + self._first_estimate, self._position)
            self._utterance = self._open(segment, due)
        utterance, estimates = self._utterance, []
        if utterance.next_end <= self._position:
            # The window ends with the chunk, not before it: so it waits for no further sound.
            if self._segmenter.voiced and self.skips_windows:
                self.counters.skipped_windows += 1
            elif self._segmenter.voiced:
                estimates += yield from self._running(self._position)
            hop = _samples(self.config.hop)
            utterance.next_end += (1 + (self._position - utterance.next_end) // hop) * hop
        if segment.end - segment.start >= _samples(self.config.max_utterance):
            self._segmenter.cut()
            estimates += yield from self._close()
        return estimates

    @property
    def adapts(self) -> bool:
        """Whether bundle and settings let the voice be known."""
        return self._backend.info.adaptation.adapts and self.config.adaptation != 'off'

    def _open(self, segment: Segment, next_end: int) -> _Utterance:
        """An utterance, with what is known of the voice as it begins."""
        info, known = self._backend.info, self.adaptation
        if not self.adapts:
            return _Utterance(segment, next_end, 0, None, self._shares_shift)
        by_voice = info.adaptation.by_voice
        mean = known.features_mean(self._backend.mean, self._memory) if by_voice else None
        shift = known.shift(len(info.class_names), self._memory) + self._shares_shift
        return _Utterance(segment, next_end, known.n_utterances, mean, shift)

    def _close(self) -> Requests:
        """Classify the last window of the utterance, and decide the utterance."""
        utterance = self._utterance
        segment = utterance.segment
        length = segment.end - segment.start
        estimates = []
        if length < self._min_utterance:
            self.counters.short_utterances += 1
        elif length < self._first_estimate:
            yield from self._classify(segment.end)
            estimates = self._final(is_window=True)
        else:
            if utterance.last_end is None or utterance.last_end < segment.end:
                estimates = yield from self._running(segment.end, is_closing=True)
            estimates = estimates + self._final(is_window=False)
        if self.adapts and utterance.scores:
            longest = max(utterance.lengths)
            means = [m for m, n in zip(utterance.clip_means, utterance.lengths) if n == longest]
            self.adaptation.learn(
                np.mean(means, axis=0),
                pool_windows(utterance.scores, utterance.lengths),
            )
        self._utterance = None
        return estimates

    def _running(self, end: int, is_closing: bool = False) -> Requests:
        """The estimate of the window up to `end`; none where the window was skipped."""
        utterance = self._utterance
        last_end = utterance.last_end
        if not (yield from self._classify(end)):
            return []
        score = utterance.scores[-1] + utterance.shift
        if last_end is None:
            utterance.smoothed = score
        else:
            keep = math.exp(-(end - last_end) / _samples(self.config.smoothing))
            utterance.smoothed = keep * utterance.smoothed + (1 - keep) * score
        probabilities = softmax(utterance.smoothed)
        expressions = self.expressions.sum_classes(probabilities)
        leader = int(expressions.argmax())
        if (
            utterance.leader is None
            or expressions[leader] > expressions[utterance.leader] + self.config.lead
        ):
            utterance.leader = leader
        return [
            self._estimate(
                end=end,
                probabilities=softmax(score),
                unadapted=np.exp(utterance.unadapted[-1]),
                smoothed=probabilities,
                leader=utterance.leader,
                n_samples=utterance.lengths[-1],
                is_final=False,
                is_window=True,
                is_closing=is_closing,
            )
        ]

    def _final(self, is_window: bool) -> list[Estimate]:
        """The decision of the utterance: see `pool_windows`."""
        utterance = self._utterance
        if not utterance.scores:
            return []
        self.counters.utterances += 1
        score = pool_windows(utterance.scores, utterance.lengths)
        probabilities = softmax(score + utterance.shift)
        return [
            self._estimate(
                end=utterance.segment.end,
                probabilities=probabilities,
                unadapted=softmax(pool_windows(utterance.unadapted, utterance.lengths)),
                smoothed=probabilities,
                leader=int(self.expressions.sum_classes(probabilities).argmax()),
                n_samples=max(utterance.lengths),
                is_final=True,
                is_window=is_window,
                is_closing=True,
            )
        ]

    def _estimate(
        self,
        *,
        end: int,
        probabilities: np.ndarray,
        unadapted: np.ndarray,
        smoothed: np.ndarray,
        leader: int,
        n_samples: int,
        is_final: bool,
        is_window: bool,
        is_closing: bool,
    ) -> Estimate:
        """`is_closing`: whether it comes because the utterance ends."""
        expressions = self.expressions.sum_classes(smoothed)
        valence, arousal = self.expressions.valence_arousal(smoothed)
        is_certain = margin(expressions, leader) >= self._threshold
        return Estimate(
            stamp_ns=self._anchor_ns + end * SECOND // SAMPLE_RATE,
            probabilities=probabilities,
            expression=self.expressions.expressions[leader] if is_certain else None,
            confidence=float(expressions[leader]),
            valence=valence,
            arousal=arousal,
            is_final=is_final,
            is_window=is_window,
            n_samples=n_samples,
            unadapted=unadapted,
            n_utterances=self._utterance.n_utterances,
            smoothed=smoothed,
            silence_ns=is_closing * (self._position - end) * SECOND // SAMPLE_RATE,
        )

    def _classify(self, end: int) -> Generator[Window, Optional[Score], bool]:
        """Request the score of the window up to `end` and keep it.

        False where the window was skipped.
        """
        utterance = self._utterance
        onset = utterance.segment.start - _samples(self.config.preroll)
        start = max(self._frames.oldest, onset, end - self._window)
        score = yield Window(self._frames.window(start, end), end - start, utterance.mean)
        if score is None:
            self.counters.skipped_windows += 1
            return False
        self.counters.windows += 1
        utterance.last_end = end
        utterance.scores.append(score.log_probabilities)
        utterance.unadapted.append(score.unadapted)
        if self._backend.info.adaptation.adapts:  # also while switched off: it may be switched on
            utterance.clip_means.append(score.clip_mean)
        utterance.lengths.append(end - start)
        return True


def pool_windows(scores: Sequence[np.ndarray], lengths: Sequence[int]) -> np.ndarray:
    """(n, n_classes) log-probabilities, (n,) lengths → (n_classes,), the longest windows' mean.

    The windows of an utterance grow until they have the model's full length, so that the first
    ones contain less of it than the last. On four validation actors of RAVDESS the longest are
    right for 66 % of the clips (unweighted) and all together for 62 % (`parallel_fusion`; 65 % and
    61 % with `parallel_cnn_transformer`).
    """
    longest = np.equal(lengths, max(lengths))
    return np.asarray(scores)[longest].mean(axis=0)


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)


def softmax(scores: np.ndarray) -> np.ndarray:
    """(n_classes,) log-probabilities up to a constant → probabilities."""
    exponentials = np.exp(scores - scores.max())
    return exponentials / exponentials.sum()
