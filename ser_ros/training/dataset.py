"""Clips as the stream would hear them: windows of the spoken part, cut anew each time."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import soxr
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ser_ros.audio import SAMPLE_RATE
from ser_ros.audio.sources import read_audio
from ser_ros.audio.vad import Segment, SileroVad, speech_span
from ser_ros.training.corpora import Clip
from ser_ros.training.recipe import AugmentationConfig


@dataclass(frozen=True)
class Utterance:
    """A clip in memory: float32 (n,) samples at 16 kHz, its spoken part, its class."""

    samples: np.ndarray
    speech: Segment
    label: int


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: a chunk or a window is too little work to share."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


@one_thread()
def load_utterances(clips: Sequence[Clip], class_names: Sequence[str]) -> list[Utterance]:
    """Decode clips and find where each speaks; one with too little of it counts as a whole."""
    vad = SileroVad()
    utterances = []
    for clip in tqdm(clips, desc='reading', unit='clip', leave=False):
        samples = read_audio(clip.path)
        speech = speech_span(vad, samples)
        if speech is None or speech.end - speech.start < SAMPLE_RATE // 2:
            speech = Segment(0, len(samples))
        utterances.append(Utterance(samples, speech, class_names.index(clip.emotion)))
    return utterances


class TrainingWindows(Dataset):
    """One random window of each utterance: (float32 (n,), label)."""

    def __init__(self, utterances: Sequence[Utterance], config: AugmentationConfig):
        self.utterances = utterances
        self.config = config

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        utterance = self.utterances[index]
        samples = self._window(utterance)
        speed = _uniform(self.config.speed)
        samples = soxr.resample(samples, speed * SAMPLE_RATE, SAMPLE_RATE, quality='QQ')
        limit = round(self.config.crop[1] * SAMPLE_RATE)
        return torch.from_numpy(samples[:limit]), utterance.label

    def _window(self, utterance: Utterance) -> np.ndarray:
        jitter = self.config.edge_jitter
        start = utterance.speech.start + round(_uniform((-2 * jitter, jitter)) * SAMPLE_RATE)
        end = utterance.speech.end + round(_uniform((-jitter, 2 * jitter)) * SAMPLE_RATE)
        shortest, longest = (round(seconds * SAMPLE_RATE) for seconds in self.config.crop)
        shortest = min(shortest, len(utterance.samples))
        start = max(0, min(start, len(utterance.samples) - shortest))
        end = min(len(utterance.samples), max(end, start + shortest))
        length = round(_uniform((shortest, min(longest, end - start))))
        if _uniform((0, 1)) >= self.config.onset_probability:
            start = round(_uniform((start, end - length)))
        return utterance.samples[start : start + length]


def _uniform(bounds: tuple[float, float]) -> float:
    """Drawn from torch's generator, which the trainer seeds in every worker."""
    low, high = bounds
    return low + (high - low) * torch.rand(()).item()


def pad(batch: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Collate to (batch, longest) samples, true lengths (batch,), labels (batch,)."""
    windows, labels = zip(*batch)
    lengths = torch.tensor([len(window) for window in windows])
    padded = torch.nn.utils.rnn.pad_sequence(windows, batch_first=True)
    return padded, lengths, torch.tensor(labels)


def stream_windows(
    utterance: Utterance, window: float, hop: float, first: float
) -> list[np.ndarray]:
    """The windows that a stream computes of an utterance: every `hop` seconds, and the last."""
    start, end = utterance.speech.start, utterance.speech.end
    ends = range(start + round(first * SAMPLE_RATE), end, round(hop * SAMPLE_RATE))
    longest = round(window * SAMPLE_RATE)
    return [utterance.samples[max(start, e - longest) : e] for e in (*ends, end)]
