"""Recognition while a voice becomes known: its utterances in random order, as a robot receives them."""

import functools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
import torch
from scipy.special import log_softmax
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio import vad as voice_activity
from ser_ros.audio.vad import CHUNK
from ser_ros.bundle import Bundle
from ser_ros.emotions import Emotion, ExpressionMap
from ser_ros.stream.adaptation import Adaptation
from ser_ros.stream.torch_backend import TorchBackend
from ser_ros.stream.types import Score, StreamConfig, Window
from ser_ros.stream.voice import Voice
from ser_ros.training.data.cache import Cache, cache_key
from ser_ros.training.data.corpora import Clip
from ser_ros.training.data.dataset import content_of
from ser_ros.training.evaluation.clip_result import ClipResult
from ser_ros.training.evaluation.prediction import received

BASIC = ('neutral', 'happy', 'sad', 'angry')
"""Expressions that most corpora have; calm counts as neutral."""

N_UTTERANCES = 40
"""Utterances of a stream."""

N_KNOWN = 10
"""Utterances of a voice before the first one that counts."""

N_SPEAKERS = 24
"""The most speakers of a corpus."""

N_DRAWS = 2
"""Streams of each kind and speaker with several emotions."""

VERSION = 5
"""Raise it when `stream.voice` cuts or classifies utterances otherwise: stored ones depend on it."""

BATCH_SIZE = 256
"""Windows that are classified at a time."""

NEUTRAL_SHARE = 0.7
"""Share of neutral utterances in streams of the kind `mostly neutral`."""


@dataclass(frozen=True)
class VoiceStream:
    """Utterances of one speaker, in the order in which they are received."""

    kind: str
    """balanced, mostly neutral, `only EXPRESSION`, or all classes."""
    voice: str
    clips: tuple[int, ...]
    """Indices of the clips; a clip is repeated only after all others of its expression, or of all."""


def expression_of(clip: Clip) -> str:
    """The ROS4HRI expression of a clip's class."""
    return clip.expression


def draw_streams(clips: Sequence[Clip]) -> list[VoiceStream]:
    """Streams of each speaker who has clips of all basic expressions of the corpus, at least eight.

    The draws depend on names alone. Of each speaker: two balanced streams and, if the corpus has
    neutral and other clips, two mostly neutral ones, and for each expression one that has no other.
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
        several = ['balanced']
        if 'neutral' in present and len(present) > 1:
            several.append('mostly neutral')
        for kind in (*several, *(f'only {name}' for name in present)):
            for draw in range(1 if kind.startswith('only') else N_DRAWS):
                rng = np.random.default_rng(zlib.crc32(f'{voice} {kind} {draw}'.encode()))
                wanted = _expressions(kind, present, rng)
                streams.append(VoiceStream(kind, voice, _pick(wanted, by_voice[voice], rng)))
    return streams


def draw_streams_to_choose_by(name: str, clips: Sequence[Clip]) -> list[VoiceStream]:
    """`draw_streams` of both kinds with several emotions, of the corpus `name`; else SerError."""
    streams = draw_streams(clips)
    if not any(stream.kind == 'mostly neutral' for stream in streams):
        raise SerError(
            f'{name}: nothing can be chosen on it: no speaker has eight clips, some of them neutral, '
            f'of all expressions that it has of {", ".join(BASIC)}'
        )
    return streams


def draw_streams_of_all_classes(clips: Sequence[Clip]) -> list[VoiceStream]:
    """`N_DRAWS` streams of each speaker with more than `N_KNOWN` clips, of whatever class.

    The draws depend on names alone.
    """
    by_voice: dict[str, list[int]] = {}
    for index, clip in enumerate(clips):
        by_voice.setdefault(clip.voice, []).append(index)
    kind, streams = 'all classes', []
    for voice, found in by_voice.items():
        if len(found) > N_KNOWN:
            for draw in range(N_DRAWS):
                rng = np.random.default_rng(zlib.crc32(f'{voice} {kind} {draw}'.encode()))
                picked = _pick([kind] * N_UTTERANCES, {kind: found}, rng)
                streams.append(VoiceStream(kind, voice, picked))
    return streams


def repeated_share(streams: Sequence[VoiceStream]) -> float:
    """The share of the utterances after the first `N_KNOWN` whose clip came before in the stream."""
    is_repeated = [
        index in stream.clips[:position]
        for stream in streams
        for position, index in enumerate(stream.clips)
        if position >= N_KNOWN
    ]
    return sum(is_repeated) / len(is_repeated)


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

    features: list[torch.Tensor]
    """(n_features, frames) each, not standardised."""
    n_samples: int
    """Length of each at 16 kHz."""


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
        'version': VERSION,
        'frontend': repr(bundle.frontend.config),
        'least': bundle.min_samples,
        'window': bundle.info.window,
        'stream': repr(config),
        'vad': voice_activity.VERSION,
    }
    found = []
    for clip in tqdm(clips, desc='finding utterances', unit='clip', leave=False, disable=None):
        make = functools.partial(_windows, bundle, config, clip)
        arrays = store.get(cache_key(content_of(clip), settings), make) if store else make()
        features = torch.from_numpy(arrays['features']).split(arrays['frames'].tolist(), dim=1)
        windows: dict[int, list[torch.Tensor]] = {}
        for window, index in zip(features, arrays['utterance'].tolist()):
            windows.setdefault(index, []).append(window)
        lengths = arrays['n_samples'].tolist()
        found.append([Utterance(own, lengths[index]) for index, own in windows.items()])
    return found


class _Recorder(TorchBackend):
    """Keeps the features of the windows of each utterance, and knows nothing of them."""

    def __init__(self, bundle: Bundle):
        super().__init__(bundle, 'cpu')
        n_classes = len(self.info.class_names)
        unknown = np.log(np.full(n_classes, 1 / n_classes))
        features = np.zeros((self.geometry.n_features, 1), np.float32)
        self._unknown = Score(unknown, unknown, features)
        self.utterances: list[list[tuple[int, torch.Tensor]]] = [[]]
        """Length in samples and features of each window."""

    def score(self, windows: Sequence[Window]) -> list[Score]:
        for window in windows:
            # The spectrum is a part of a buffer that the next window may change.
            features = self.bundle.frontend.features(torch.from_numpy(window.spectrum.copy()))
            self.utterances[-1].append((window.n_samples, features))
        return [self._unknown] * len(windows)


def _windows(bundle: Bundle, config: StreamConfig, clip: Clip) -> dict[str, np.ndarray]:
    """The windows of a clip, side by side: their features, frames, and index of the utterance.

    `n_samples`: of the windows of each utterance.
    """
    recorder, samples = _Recorder(bundle), received(clip.read())
    voice = Voice(recorder, config)
    for requests in (
        *(
            voice.push(samples[start : start + CHUNK], SECOND + start * SECOND // SAMPLE_RATE)
            for start in range(0, len(samples), CHUNK)
        ),
        voice.flush(),
    ):
        if any(estimate.is_final for estimate in recorder.run([requests])[0]):
            recorder.utterances.append([])
    features, index, lengths = [torch.zeros(bundle.frontend.n_features, 0)], [], []
    for i, utterance in enumerate(recorder.utterances):
        longest = max((n_samples for n_samples, _ in utterance), default=0)
        lengths.append(longest)
        kept = [own for n_samples, own in utterance if n_samples == longest]
        features += kept
        index += [i] * len(kept)
    return {
        'features': torch.cat(features, dim=1).numpy(),
        'frames': np.array([x.shape[1] for x in features[1:]], np.int64),
        'utterance': np.array(index, np.int64),
        'n_samples': np.array(lengths, np.int64),
    }


Scores = np.ndarray
"""(..., n_classes) log-probabilities, up to a constant; not a number without detected speech."""


@torch.inference_mode()
def cold_scores(
    bundle: Bundle, utterances: Sequence[Sequence[Utterance]], device: torch.device
) -> Scores:
    """The utterances of n clips → (n, n_classes) scores, of voices of which nothing is known."""
    bundle.model.to(device)
    frontend = bundle.frontend
    features = [[frontend.standardise(x) for x in _longest(found)] for found in utterances]
    return _pool(bundle, features, device)


@torch.inference_mode()
def known_scores(
    bundle: Bundle,
    utterances: Sequence[Sequence[Utterance]],
    streams: Sequence[VoiceStream],
    device: torch.device,
) -> Scores:
    """The utterances of all clips → (n_streams, N_UTTERANCES, n_classes) scores.

    Features of a model by voice are standardised by the earlier utterances of the stream; see `adapt`
    for the answers.
    A clip counts as one utterance.
    """
    bundle.model.to(device)
    frontend, memory = bundle.frontend, bundle.info.adaptation.memory
    nothing = np.zeros(len(bundle.info.class_names))
    known, scores = [Adaptation() for _ in streams], []
    means: list[Optional[np.ndarray]] = [None] * len(streams)
    for step in tqdm(
        range(N_UTTERANCES), desc='replaying', unit='utterance', leave=False, disable=None
    ):
        clips = [_longest(utterances[stream.clips[step]]) for stream in streams]
        if bundle.info.adaptation.by_voice:
            means = [voice.features_mean(frontend.mean.cpu().numpy(), memory) for voice in known]
        features = [
            [
                frontend.standardise(x, None if mean is None else torch.from_numpy(mean))
                for x in clip
            ]
            for clip, mean in zip(clips, means)
        ]
        scores.append(_pool(bundle, features, device))
        for voice, clip in zip(known, clips):
            if clip:
                own = np.mean([frontend.clip_mean(x).numpy() for x in clip], axis=0)
                voice.learn(own, nothing)
    return np.stack(scores, axis=1)


def _longest(utterances: Sequence[Utterance]) -> list[torch.Tensor]:
    """The features of a clip's longest windows."""
    longest = max((utterance.n_samples for utterance in utterances), default=0)
    return [x for u in utterances if u.n_samples == longest for x in u.features]


def _pool(
    bundle: Bundle, features: Sequence[Sequence[torch.Tensor]], device: torch.device
) -> Scores:
    """The features of each clip's windows → (n_clips, n_classes) scores, the windows' mean."""
    windows = [x for clip in features for x in clip]
    rows: list[np.ndarray] = []
    for start in range(0, len(windows), BATCH_SIZE):
        batch = windows[start : start + BATCH_SIZE]
        lengths = torch.tensor([x.shape[1] for x in batch], device=device)
        padded = pad_sequence([x.T for x in batch], batch_first=True).mT.to(device)
        rows += list(bundle.log_probabilities(padded, lengths).double().numpy())
    scores, left = np.full((len(features), len(bundle.info.class_names)), np.nan), iter(rows)
    for row, clip in zip(scores, features):
        if clip:
            row[:] = np.mean([next(left) for _ in clip], axis=0)
    return scores


def decide_clips(
    clips: Sequence[Clip],
    scores: Scores,
    class_names: Sequence[str],
    own: Mapping[str, Emotion],
    threshold: float,
) -> list[ClipResult]:
    """The results of clips with (n_clips, n_classes) scores; `own`: see `ExpressionMap`."""
    expressions = ExpressionMap(class_names, own)
    results = []
    for clip, row in zip(clips, scores):
        has_speech = np.isfinite(row).all()
        windows = log_softmax(row)[None] if has_speech else np.zeros((0, len(class_names)))
        decisions = [expressions.decide(np.exp(w), threshold)[0] for w in windows]
        results.append(ClipResult(clip, windows, decisions, is_whole=True, utterances=windows))
    return results


def adapt(scores: Scores, memory: float) -> Scores:
    """(n_streams, n, n_classes) `known_scores` → the same, less the mean of the earlier ones.

    As `Voice` does it, but for the expected share of neutral utterances.
    """
    nothing, adapted = np.zeros((1, 1)), np.empty_like(scores)
    for stream, out in zip(scores, adapted):
        voice = Adaptation()
        for score, row in zip(stream, out):
            row[:] = score + voice.shift(len(score), memory)
            if np.isfinite(score).all():
                voice.learn(nothing, score)
    return adapted
