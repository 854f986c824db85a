"""Training clips in memory, and the windows that are cut from them as the stream cuts them."""

import functools
import hashlib
import importlib.metadata
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
import soxr
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchaudio.functional import phase_vocoder
from tqdm import tqdm

from ser_ros.audio import SAMPLE_RATE, vad
from ser_ros.audio.formats import encode_s16le
from ser_ros.audio.sources import SourceError
from ser_ros.audio.vad import CHUNK, Segment, SileroVad, speech_span
from ser_ros.files import printable
from ser_ros.training.data.cache import Cache, cache_key
from ser_ros.training.data.corpora import Clip
from ser_ros.training.data.nonspeech import generate
from ser_ros.training.recipe import AugmentationConfig, DataConfig

NO_CLASS = -1
"""Label of a sound without a voice."""


@dataclass(frozen=True)
class Utterance:
    """A clip in memory: float32 (n,) samples, where it has speech, in samples, and its class."""

    samples: np.ndarray
    speech: Segment
    label: int
    sample_rate: int = SAMPLE_RATE
    corpus: int = 0
    """Index of its corpus in the recipe."""
    voice: str = ''
    """Its speaker, see `corpora.Clip.voice`."""


Item = tuple[Tensor, int, int]
"""(samples (n,), label, index of the corpus)."""


def load_utterances(
    clips: Sequence[Clip],
    class_names: Sequence[str],
    sample_rate: int = SAMPLE_RATE,
    cache: Optional[Path] = None,
    corpora: Sequence[str] = (),
) -> list[Utterance]:
    """Decode clips and detect their speech; a clip with too little of it counts as all speech.

    `corpora`: all corpora of the recipe, () if there is one.
    Sound is rounded to 16 bits, as in a message to the robot, whether it comes from the folder
    `cache` or not. SerError for a file without sound, and for a cache that cannot be written.
    """
    standardise = _Standardise(sample_rate)
    settings = standardise.settings()
    store = cache and Cache(cache / 'audio')
    utterances = []
    for clip in tqdm(clips, desc='reading', unit='clip', leave=False, disable=None):
        make = functools.partial(standardise, clip)
        sound = store.get(cache_key(content_of(clip), settings), make) if store else make()
        samples = sound['samples'].astype(np.float32) / 2.0**15
        speech = Segment(*map(int, sound['speech'])) if len(sound['speech']) else None
        if speech is None or speech.end - speech.start < sample_rate // 2:
            speech = Segment(0, len(samples))
        label = class_names.index(clip.emotion)
        corpus = corpora.index(clip.corpus) if corpora else 0
        utterances.append(Utterance(samples, speech, label, sample_rate, corpus, clip.voice))
    return utterances


def content_of(clip: Clip) -> bytes:
    """What the sound of a clip depends on; SourceError if its file cannot be read.

    The bytes of the file, or for a part of it their hash, start, end and how it is read.
    """
    reading = clip.reading.settings()
    try:
        if clip.start or clip.end is not None or reading:
            parts = (_hash_file(clip.path), clip.start, clip.end, *sorted(reading.items()))
            return ' '.join(map(str, parts)).encode()
        return clip.path.read_bytes()
    except OSError as error:
        raise SourceError(f'sound file {printable(clip.path)}: {error.strerror}') from error


@functools.lru_cache
def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class _Standardise:
    """A clip as mono int16 `samples` (n,), and start and end of `speech`, if there is any."""

    VERSION = 1
    """Raise it with every change of the result: results are stored on disk."""

    def __init__(self, sample_rate: int):
        self.sample_rate = sample_rate
        self._vad = SileroVad()

    def settings(self) -> dict[str, object]:
        """Everything but the file that the result depends on."""
        return {
            'version': self.VERSION,
            'sample_rate': self.sample_rate,
            'soxr': soxr.__version__,
            'silero_vad': importlib.metadata.version('silero-vad'),
            'vad': vad.VERSION,
        }

    def __call__(self, clip: Clip) -> dict[str, np.ndarray]:
        samples = clip.read(self.sample_rate)
        speech = speech_span(
            self._vad, samples if self.sample_rate == SAMPLE_RATE else clip.read()
        )
        ends = () if speech is None else (speech.start, speech.end)
        scaled = [min(round(end * self.sample_rate / SAMPLE_RATE), len(samples)) for end in ends]
        return {
            'samples': np.frombuffer(encode_s16le(samples), '<i2'),
            'speech': np.array(scaled, np.int64),
        }


class WholeClips(Dataset):
    """Each utterance and its noisy copies in full length, as an `Item`.

    Indexed by (epoch, index), or (epoch, index, place in the epoch) where items are drawn with
    replacement. Each item has its own random generators, seeded by the recipe's seed, these numbers
    and the purpose. So the draws depend neither on the order nor on the number of
    workers, and a resumed run draws the same as an uninterrupted one.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        data: DataConfig,
        augmentation: AugmentationConfig,
        seed: int,
    ):
        self.utterances = utterances
        self.data = data
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.utterances) * (1 + self.data.noisy_copies)

    def _utterance(self, index: int) -> Utterance:
        return self.utterances[index % len(self.utterances)]

    def label(self, index: int) -> int:
        """The class of an item, unless a sound without a voice replaces it."""
        return self._utterance(index).label

    def corpus(self, index: int) -> int:
        """The index of an item's corpus."""
        return self._utterance(index).corpus

    def voice(self, index: int) -> str:
        """The speaker of an item."""
        return self._utterance(index).voice

    def __getitem__(self, item: tuple[int, ...]) -> Item:
        _, index, *_ = item
        utterance, config = self._utterance(index), self.augmentation
        rate = utterance.sample_rate

        def draws(purpose: str) -> np.random.Generator:
            return np.random.default_rng((self.seed, *item, _PURPOSES.index(purpose)))

        samples = self._cut(utterance, draws('cut'))
        if self.data.nonspeech:
            rng = draws('nonspeech')
            if rng.random() < self.data.nonspeech:
                sound = torch.from_numpy(generate(rng, len(samples), rate))
                return sound, NO_CLASS, utterance.corpus
        if config.speed != (1.0, 1.0):
            factor = draws('speed').uniform(*config.speed)
            samples = soxr.resample(samples, factor * rate, rate, quality='QQ')
            samples = samples[: self._longest(rate)]
        if config.pitch_probability:
            rng = draws('pitch')
            if rng.random() < config.pitch_probability:
                samples = shift_pitch(samples, rng.uniform(*config.pitch_semitones), rate)
        if index >= len(self.utterances):
            samples = _with_white_noise(samples, config.noise_snr_db, draws('noise'))
        if config.silence_probability:
            rng = draws('silence')
            if rng.random() < config.silence_probability:
                samples = _with_silence(samples, rng.uniform(*config.silence) * rate, rng)
        return torch.from_numpy(samples), utterance.label, utterance.corpus

    def _cut(self, utterance: Utterance, rng: np.random.Generator) -> np.ndarray:
        return utterance.samples

    def _longest(self, sample_rate: int) -> Optional[int]:
        """The most samples that an item may have, even if it is slowed down; None for any."""
        return None


_PURPOSES = ('cut', 'nonspeech', 'speed', 'pitch', 'noise', 'silence')


class TrainingWindows(WholeClips):
    """One random window of each utterance and of each of its noisy copies."""

    def _cut(self, utterance: Utterance, rng: np.random.Generator) -> np.ndarray:
        config, speech, n = self.augmentation, utterance.speech, len(utterance.samples)
        jitter = config.edge_jitter * utterance.sample_rate
        start = speech.start + round(rng.uniform(-2 * jitter, jitter))
        end = speech.end + round(rng.uniform(-jitter, 2 * jitter))
        shortest, longest = (round(seconds * utterance.sample_rate) for seconds in config.crop)
        shortest = min(shortest, n)
        start = max(0, min(start, n - shortest))
        end = min(n, max(end, start + shortest))
        length = min(longest, end - start)
        if rng.random() >= config.whole_probability:
            length = round(rng.uniform(shortest, length))
        if rng.random() >= config.onset_probability:
            start = round(rng.uniform(start, end - length))
        return utterance.samples[start : start + length]

    def _longest(self, sample_rate: int) -> Optional[int]:
        return round(self.augmentation.crop[1] * sample_rate)


def shift_pitch(samples: np.ndarray, semitones: float, sample_rate: int) -> np.ndarray:
    """Float32 (n,) → (n,): a phase vocoder changes the length, resampling restores it."""
    stretch = 2.0 ** (semitones / 12)
    # The power of two within 64 ms: it resolves the periods of a low voice, and syllables.
    n_fft = 1 << round(0.064 * sample_rate).bit_length() - 1
    hop_length = n_fft // 4
    window = torch.hann_window(n_fft)
    spectrum = torch.stft(
        torch.from_numpy(samples),
        n_fft,
        hop_length,
        window=window,
        pad_mode='constant',  # sound may be too short for a reflection
        return_complex=True,
    )
    advance = torch.linspace(0, torch.pi * hop_length, n_fft // 2 + 1)[:, None]
    stretched = torch.istft(
        phase_vocoder(spectrum, 1 / stretch, advance),
        n_fft,
        hop_length,
        window=window,
        length=round(len(samples) * stretch),
    )
    shifted = soxr.resample(stretched.numpy(), stretch * sample_rate, sample_rate, quality='QQ')
    return np.pad(shifted, (0, max(0, len(samples) - len(shifted))))[: len(samples)]


def _with_white_noise(
    samples: np.ndarray, snr_db: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    level = np.sqrt(np.mean(samples**2)) * 10 ** (-rng.uniform(*snr_db) / 20)
    return samples + rng.standard_normal(len(samples), np.float32) * np.float32(level)


def _with_silence(samples: np.ndarray, length: float, rng: np.random.Generator) -> np.ndarray:
    length = min(round(length), len(samples))
    start = rng.integers(len(samples) - length + 1)
    samples = samples.copy()
    samples[start : start + length] = 0
    return samples


Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""(samples (batch, longest), true lengths (batch,), labels (batch,), corpora (batch,))."""


def pad(batch: Sequence[Item]) -> Batch:
    """Collate items, with zeros after the shorter ones."""
    windows, labels, corpora = zip(*batch)
    lengths = torch.tensor([len(window) for window in windows])
    padded = torch.nn.utils.rnn.pad_sequence(windows, batch_first=True)
    return padded, lengths, torch.tensor(labels), torch.tensor(corpora)


def pad_utterances(
    utterances: Sequence[Sequence[Item]],
) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Collate utterances, each of its windows.

    Returns samples (windows, longest), true lengths (windows,), labels (utterances,) and how many
    windows each utterance has.
    """
    samples, lengths, _, _ = pad([window for windows in utterances for window in windows])
    labels = torch.tensor([windows[0][1] for windows in utterances])
    return samples, lengths, labels, [len(windows) for windows in utterances]


def stream_windows(
    utterance: Utterance, window: float, hop: float, first: float
) -> list[np.ndarray]:
    """The windows that a stream processes of an utterance: one every `hop` s, and the last one.

    Each ends with the chunk of voice activity in which it is due.
    """
    start, end = utterance.speech.start, utterance.speech.end
    longest, hop, first, chunk = (
        round(seconds * utterance.sample_rate)
        for seconds in (window, hop, first, CHUNK / SAMPLE_RATE)
    )
    due = range(start + first, end, hop)
    ends = [e for n in due if (e := start + math.ceil((n - start) / chunk) * chunk) < end]
    return [utterance.samples[max(start, e - longest) : e] for e in (*ends, end)]
