"""Recognition while a voice becomes known: its utterances in random order, as a robot hears them."""

import functools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio import vad as voice_activity
from ser_ros.audio.formats import encode_s16le
from ser_ros.audio.sources import read_audio
from ser_ros.audio.vad import CHUNK
from ser_ros.bundle import Bundle
from ser_ros.emotions import EMOTIONS
from ser_ros.stream.adaptation import Adaptation, neutral_shift
from ser_ros.stream.types import StreamConfig
from ser_ros.stream.voice import Voice, pool_windows
from ser_ros.training.data.cache import Cache, cache_key
from ser_ros.training.data.corpora import Clip
from ser_ros.training.evaluation.prediction import MESSAGE

BASIC = ('neutral', 'happy', 'sad', 'angry')
"""Expressions that most corpora have; calm counts as neutral."""

N_UTTERANCES = 40
"""Utterances of a stream."""

N_KNOWN = 10
"""Utterances of a voice that are heard before the first one that counts."""

N_SPEAKERS = 24
"""The most speakers of a corpus."""

N_DRAWS = 2
"""Streams of each kind and speaker with several emotions."""

NEUTRAL_SHARE = 0.7
"""Share of neutral utterances in streams of the kind `mostly neutral`."""


@dataclass(frozen=True)
class VoiceStream:
    """Utterances of one speaker, in the order in which they are heard."""

    kind: str
    """balanced, mostly neutral, or `only EXPRESSION`."""
    voice: str
    clips: tuple[int, ...]
    """Indices of the clips; a clip is repeated only after all others of its expression."""


def expression_of(clip: Clip) -> str:
    """The ROS4HRI expression of a clip's class."""
    return EMOTIONS[clip.emotion].expression


def draw_streams(clips: Sequence[Clip]) -> list[VoiceStream]:
    """Streams of each speaker who has clips of all basic expressions of the corpus, at least eight.

    The draws depend on names alone. Of each speaker: two balanced streams and two mostly neutral
    ones, and for each expression one in which nothing else is heard.
    """
    by_voice: dict[str, dict[str, list[int]]] = {}
    for index, clip in enumerate(clips):
        if (expression := expression_of(clip)) in BASIC:
            by_voice.setdefault(clip.voice, {}).setdefault(expression, []).append(index)
    present = [name for name in BASIC if any(name in found for found in by_voice.values())]
    usable = [
        voice
        for voice, found in by_voice.items()
        if len(found) == len(present) and sum(map(len, found.values())) >= 8
    ]
    usable = sorted(usable, key=lambda voice: zlib.crc32(voice.encode()))[:N_SPEAKERS]
    streams = []
    for voice in usable:
        for kind in ('balanced', 'mostly neutral', *(f'only {name}' for name in present)):
            for draw in range(1 if kind.startswith('only') else N_DRAWS):
                rng = np.random.default_rng(zlib.crc32(f'{voice} {kind} {draw}'.encode()))
                wanted = _expressions(kind, present, rng)
                streams.append(VoiceStream(kind, voice, _pick(wanted, by_voice[voice], rng)))
    return streams


def _expressions(kind: str, present: Sequence[str], rng: np.random.Generator) -> list[str]:
    """The expression of each utterance of a stream."""
    if kind.startswith('only'):
        return [kind.removeprefix('only ')] * N_UTTERANCES
    if kind == 'balanced':
        return rng.permutation(np.resize(present, N_UTTERANCES)).tolist()
    n_neutral = round(NEUTRAL_SHARE * N_UTTERANCES)
    others = np.resize([name for name in present if name != 'neutral'], N_UTTERANCES - n_neutral)
    return rng.permutation(['neutral'] * n_neutral + others.tolist()).tolist()


def _pick(
    wanted: Sequence[str], clips: Mapping[str, Sequence[int]], rng: np.random.Generator
) -> tuple[int, ...]:
    left: dict[str, list[int]] = {name: [] for name in clips}
    picked = []
    for name in wanted:
        if not left[name]:
            left[name] = rng.permutation(clips[name]).tolist()
        picked.append(left[name].pop())
    return tuple(picked)


@dataclass(frozen=True)
class Utterance:
    """The longest windows of an utterance, by which it is decided (see `voice.pool_windows`)."""

    spectra: list[torch.Tensor]
    """(n_rows, frames) each."""


def find_utterances(
    bundle: Bundle, clips: Sequence[Clip], cache: Optional[Path] = None
) -> list[list[Utterance]]:
    """The utterances of each clip, as the stream finds them; none without detected speech.

    They depend on the bundle's front-end and the length of its window alone, so that they can be
    stored in the folder `cache` and used for other weights.
    """
    store = cache and Cache(cache / 'utterances')
    config = StreamConfig(adaptation='off')
    settings = {
        'version': 1,
        'frontend': repr(bundle.frontend.config),
        'least': bundle.min_samples,
        'window': bundle.info.window,
        'stream': repr(config),
        'vad': voice_activity.VERSION,
    }
    found = []
    for clip in tqdm(clips, desc='finding utterances', unit='clip', leave=False):
        make = functools.partial(_windows, bundle, config, clip)
        arrays = store.get(cache_key(clip.path.read_bytes(), settings), make) if store else make()
        spectra = torch.from_numpy(arrays['spectra']).split(arrays['frames'].tolist(), dim=1)
        utterances: dict[int, list[torch.Tensor]] = {}
        for spectrum, index in zip(spectra, arrays['utterance'].tolist()):
            utterances.setdefault(index, []).append(spectrum)
        found.append([Utterance(windows) for windows in utterances.values()])
    return found


def _windows(bundle: Bundle, config: StreamConfig, clip: Clip) -> dict[str, np.ndarray]:
    """The windows of a clip, side by side: their spectra, frames, and index of the utterance."""
    voice, silence = Voice(bundle, config), np.zeros(SAMPLE_RATE // 2, np.float32)
    sound = np.concatenate((silence, read_audio(clip.path), silence))
    samples = MESSAGE.decode(encode_s16le(sound))[:, 0]
    unknown = np.log(np.full(len(bundle.info.class_names), 1 / len(bundle.info.class_names)))
    windows: list[list[torch.Tensor]] = [[]]
    for requests in (
        *(
            voice.push(samples[start : start + CHUNK], SECOND + start * SECOND // SAMPLE_RATE)
            for start in range(0, len(samples), CHUNK)
        ),
        voice.flush(),
    ):
        estimates, score = [], None
        try:
            while True:
                windows[-1].append(requests.send(score).spectrum.clone())
                score = unknown
        except StopIteration as end:
            estimates = end.value
        if any(estimate.is_final for estimate in estimates):
            windows.append([])
    spectra, index = [torch.zeros(bundle.frontend.n_rows, 0)], []
    for i, utterance in enumerate(windows):
        longest = max((window.shape[1] for window in utterance), default=0)
        kept = [window for window in utterance if window.shape[1] == longest]
        spectra += kept
        index += [i] * len(kept)
    return {
        'spectra': torch.cat(spectra, dim=1).numpy(),
        'frames': np.array([spectrum.shape[1] for spectrum in spectra[1:]], np.int64),
        'utterance': np.array(index, np.int64),
    }


@torch.inference_mode()
def replay(
    bundle: Bundle,
    utterances: Sequence[Sequence[Utterance]],
    streams: Sequence[Sequence[int]],
    device: torch.device,
    adaptation: str = 'voice',
) -> np.ndarray:
    """Streams of n clips, `utterances` of each clip → (n_streams, n, n_classes) log-probabilities.

    Not a number for a clip without detected speech. With `adaptation` voice each stream is one
    voice that becomes known; with off nothing is learned.
    """
    n_classes, info = len(bundle.info.class_names), bundle.info.adaptation
    bias = neutral_shift(bundle.info.class_names, info.neutral_share)
    is_on = adaptation != 'off'
    bundle.model.to(device)
    known = [Adaptation() for _ in streams]
    result = np.full((len(streams), len(streams[0]), n_classes), np.nan)
    for step in tqdm(range(len(streams[0])), desc='replaying', unit='utterance', leave=False):
        heard = [utterances[clips[step]] for clips in streams]
        features = [
            bundle.frontend.standardise(
                spectrum,
                mean=voice.features_mean(bundle.frontend, info.memory) if is_on else None,
            )
            for voice, found in zip(known, heard)
            for utterance in found
            for spectrum in utterance.spectra
        ]
        scores = iter(_classify(bundle, features, device))
        for row, (voice, found) in enumerate(zip(known, heard)):
            shift = voice.shift(n_classes, info.memory) + bias if is_on else np.zeros(n_classes)
            windows, lengths, learned = [], [], []
            for utterance in found:
                own = [next(scores) for _ in utterance.spectra]
                windows += own
                lengths += [spectrum.shape[1] for spectrum in utterance.spectra]
                means = [bundle.frontend.clip_mean(spectrum) for spectrum in utterance.spectra]
                learned.append((torch.stack(means).nanmean(dim=0), np.mean(own, axis=0)))
            if windows:
                score = torch.from_numpy(pool_windows(windows, lengths) + shift)
                result[row, step] = score.log_softmax(dim=0).numpy()
            for lesson in learned:
                voice.learn(*lesson)
    return result


def _classify(
    bundle: Bundle, features: Sequence[torch.Tensor], device: torch.device
) -> list[np.ndarray]:
    """(n_features, frames) each → (n_classes,) log-probabilities each."""
    scores = []
    for start in range(0, len(features), 256):
        batch = features[start : start + 256]
        lengths = torch.tensor([x.shape[1] for x in batch], device=device)
        padded = pad_sequence([x.T for x in batch], batch_first=True).mT.to(device)
        scores += list(bundle.log_probabilities(padded, lengths).double().numpy())
    return scores
