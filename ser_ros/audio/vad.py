"""Voice activity: silero-vad's probability for each 32 ms chunk, and utterances cut by it."""

import functools
import importlib.metadata
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np
import onnxruntime

from ser_ros.audio import SAMPLE_RATE

VERSION = 2  # raise it when detected speech changes: stored results of training depend on it

CHUNK = 512
"""Samples at 16 kHz of one decision: the only size silero-vad accepts."""

PEAK = 0.25
MAX_GAIN = 40.0
PEAK_DECAY = 0.99
"""Before silero-vad the sound is scaled to a peak of `PEAK` of full scale, by `MAX_GAIN` at most; the
peak decays by `PEAK_DECAY` a chunk (3 s). So a voice is detected alike near and far: in 300 RAVDESS
clips at -20, 0 and +20 dB speech is always detected, while without the scaling silero-vad misses 6
of 150 at -20 dB. Silence, noise and mains hum stay below its threshold either way."""

OCTAVE_MARGIN = 0.2
"""Subtracted from the probability an octave lower, where music resembles a voice more, too."""

LOUD = 1.5
MIN_BACKGROUND, BACKGROUND_RISE = 1e-4, 1.02
"""A scream is louder than the background: only chunks whose root mean square is above `LOUD` times
that of the background are processed an octave lower. The background is the lowest level so far, from
`MIN_BACKGROUND` of full scale on, and rises by `BACKGROUND_RISE` a chunk (5.4 dB a second)."""


class SileroVad:
    """silero-vad (MIT) at two pitches, each with a state that it keeps from chunk to chunk.

    silero-vad misses high shouts and screams: in 19 of 640 RAVDESS clips of happiness, anger, fear
    and surprise it finds less than 0.3 s of voice, in ten none. Read at half their rate, the same
    samples are an octave lower: there it finds more than 0.3 s in 12 of the 19 clips, and some
    voice in 17. Generated music then counts as voice in 52 of 100 clips, instead of 40.

    An octave lower costs twice as much, so it is left out for chunks that are voice without it, and
    for those that are no louder than the background: in a silent room two thirds less work.
    """

    def __init__(self):
        self._as_is = _Pitch(SAMPLE_RATE, n_context=64)
        self._octave_lower = _Pitch(SAMPLE_RATE // 2, n_context=32)
        self.reset()

    def __call__(self, chunk: np.ndarray) -> float:
        """Probability of speech in the next float32 (CHUNK,) samples at 16 kHz."""
        return detect_speech([(self, chunk)])[0]

    def _scale(self, chunk: np.ndarray) -> np.ndarray:
        self._peak = max(float(np.abs(chunk).max()), self._peak * PEAK_DECAY)
        return chunk * np.float32(PEAK / max(self._peak, PEAK / MAX_GAIN))

    def _is_loud(self, chunk: np.ndarray) -> bool:
        """Whether the next chunk is louder than the background."""
        level = math.sqrt(chunk @ chunk / len(chunk))
        self._background = min(max(level, MIN_BACKGROUND), self._background * BACKGROUND_RISE)
        return level > LOUD * self._background

    def reset(self) -> None:
        """Start a new stream."""
        self._as_is.reset()
        self._octave_lower.reset()
        self._peak = 0.0
        self._background = MIN_BACKGROUND


def detect_speech(chunks: Sequence[tuple[SileroVad, np.ndarray]]) -> list[float]:
    """The probabilities of speech in the next chunk of several streams, in one batch.

    They equal those of one stream at a time, but for rounding.
    """
    scaled = np.stack([vad._scale(chunk) for vad, chunk in chunks])
    probabilities = _run([vad._as_is for vad, _ in chunks], scaled)
    loud = np.array([vad._is_loud(chunk) for vad, chunk in chunks])
    # Above that, no probability an octave lower is higher.
    unsure = np.flatnonzero(loud & (probabilities < 1 - OCTAVE_MARGIN))
    if len(unsure):
        pitches = [chunks[i][0]._octave_lower for i in unsure]
        lower = sum(_run(pitches, half) for half in np.split(scaled[unsure], 2, axis=1)) / 2
        probabilities[unsure] = np.maximum(probabilities[unsure], lower - OCTAVE_MARGIN)
    return probabilities.tolist()


class _Pitch:
    """silero-vad at one sample rate: each chunk is preceded by the end of the last one."""

    def __init__(self, sample_rate: int, n_context: int):
        self.sample_rate = np.array(sample_rate)
        self._n_context = n_context
        self.reset()

    def reset(self) -> None:
        self.state = np.zeros((2, 1, 128), np.float32)
        self.context = np.zeros((1, self._n_context), np.float32)


def _run(pitches: Sequence[_Pitch], samples: np.ndarray) -> np.ndarray:
    """The next samples (n, n_samples) of n streams at one pitch → (n,) probabilities."""
    contexts = np.concatenate([pitch.context for pitch in pitches])
    inputs = {
        'input': np.concatenate((contexts, samples), axis=1),
        'state': np.concatenate([pitch.state for pitch in pitches], axis=1),
        'sr': pitches[0].sample_rate,
    }
    probabilities, states = _load_network().run(None, inputs)
    n_context = contexts.shape[1]
    for i, pitch in enumerate(pitches):
        pitch.state = states[:, i : i + 1]
        pitch.context = samples[i : i + 1, -n_context:]
    return probabilities[:, 0]


@functools.cache
def _load_network() -> onnxruntime.InferenceSession:
    """silero-vad's network, one for all voices: their states are its inputs and outputs."""
    # Found without an import, which would load torchaudio and set torch's threads to one.
    package = importlib.metadata.distribution('silero-vad')
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        str(package.locate_file('silero_vad/data/silero_vad.onnx')),
        options,
        providers=['CPUExecutionProvider'],
    )


@dataclass
class Segment:
    """Speech between two sample indices; `end` grows with each voiced chunk while it is open."""

    start: int
    end: int


class Segmenter:
    """Cuts utterances out of a sequence of speech probabilities.

    Speech opens at a chunk of `threshold` or more and stays voiced down to `threshold - 0.15`
    (silero-vad's own hysteresis); `end_silence` samples without voice close it.
    """

    def __init__(self, threshold: float, end_silence: int):
        self.threshold = threshold
        self.end_silence = end_silence
        self.reset()

    def reset(self) -> None:
        """Start a new stream."""
        self.segment: Optional[Segment] = None
        self.voiced = False
        """Whether the last chunk was voice."""
        self._position = 0
        self._last_voice: Optional[int] = None

    @property
    def is_speaking(self) -> bool:
        """Whether there was voice less than `end_silence` ago; `cut` does not change it."""
        return self.end is not None and self._position < self.end

    @property
    def end(self) -> Optional[int]:
        """Sample index at which nobody speaks any more if no voice follows; None before the first."""
        return None if self._last_voice is None else self._last_voice + self.end_silence

    def push(self, probability: float) -> Optional[Segment]:
        """Process the next chunk's probability; return the segment that it closes, if it closes one."""
        self.voiced = probability >= self.threshold - (0.15 if self.is_speaking else 0.0)
        start = self._position
        self._position += CHUNK
        if self.voiced:
            self._last_voice = self._position
            if self.segment is None:
                self.segment = Segment(start, start)
            self.segment.end = self._position
        elif self.segment is not None and not self.is_speaking:
            return self.cut()
        return None

    def cut(self) -> Optional[Segment]:
        """Close the open segment and return it; the next voiced chunk opens another."""
        closed, self.segment = self.segment, None
        return closed


def speech_span(vad: SileroVad, samples: np.ndarray, threshold: float = 0.5) -> Optional[Segment]:
    """From the first to the last voice in float32 (n,) samples at 16 kHz; None without any."""
    vad.reset()
    segmenter = Segmenter(threshold, end_silence=len(samples))
    for start in range(0, len(samples) - CHUNK + 1, CHUNK):
        segmenter.push(vad(samples[start : start + CHUNK]))
    return segmenter.cut()
