"""Predictions for sound files, one at a time: what `predict` does in each of its processes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

from ser_ros import SerError
from ser_ros.commands.sounds import SoundReader
from ser_ros.files import printable

if TYPE_CHECKING:
    import numpy as np

    from ser_ros.audio.reading import Reading
    from ser_ros.bundle import Bundle
    from ser_ros.bundle_info import BundleInfo
    from ser_ros.stream.adaptation import Baseline
    from ser_ros.stream.recognizer import Recognizer
    from ser_ros.stream.types import Estimate, StreamConfig


@dataclass
class FilePrediction:
    """What is printed of one file."""

    lines: list[str] = field(default_factory=list)
    """JSON, for stdout."""
    notes: list[tuple[str, str]] = field(default_factory=list)
    """Key and line for stderr, see `sounds.Notes`."""
    failed: bool = False
    """Whether the file could not be processed."""


@dataclass(frozen=True)
class FilePredictor:
    """Settings of `predict`; called, it loads the bundle: a `workers.Load`."""

    bundle: str
    """Name or path."""
    backend: str
    device: str
    reading: 'Reading'
    config: 'StreamConfig'
    enrolment: Optional['Baseline'] = None
    is_whole: bool = False
    """Whether only the line of each file is printed."""
    is_one_voice: bool = False
    """Whether all files are of one voice."""
    digest: str = ''
    """Expected of the bundle's file; '' for any."""

    def __call__(self) -> 'LoadedPredictor':
        """Load the bundle. SerError if that is impossible, or its file is another."""
        from ser_ros.bundle_info import check_digest, load_info

        can_stream = load_info(self.bundle).can_stream
        loaded = LoadedPredictor(self, self._load_stream() if can_stream else self._load_whole())
        if self.digest:
            check_digest(loaded.path, loaded.digest, self.digest)
        return loaded

    def _load_stream(self) -> 'Recognizer':
        from ser_ros.backends import load_backend
        from ser_ros.stream.adaptation import Adaptation
        from ser_ros.stream.recognizer import Recognizer

        backend = load_backend(self.bundle, self.backend, self.device)
        return Recognizer(backend, config=self.config, adaptation=Adaptation(self.enrolment))

    def _load_whole(self) -> 'Bundle':
        """A bundle that classifies whole clips, which torch alone can."""
        import torch

        from ser_ros.bundle import load_bundle
        from ser_ros.stream.torch_backend import select_device

        torch.set_num_threads(1)  # a clip is too little work for several
        bundle = load_bundle(self.bundle)
        bundle.model.to(select_device(self.device))
        return bundle


class LoadedPredictor:
    """Predicts files with a loaded bundle."""

    def __init__(self, settings: FilePredictor, model: Union['Recognizer', 'Bundle']):
        """`model`: a bundle classifies whole clips."""
        from ser_ros.stream.recognizer import Recognizer

        self._settings = settings
        self._recognizer = model if isinstance(model, Recognizer) else None
        self._bundle = None if self._recognizer else model
        self._notes: list[tuple[str, str]] = []
        self._reader = SoundReader(settings.reading, lambda *note: self._notes.append(note))
        if self._recognizer:
            backend = model.backend
            self.path, self.digest = backend.path, backend.digest
            self.backend, self.device = backend.name, backend.device
        else:
            self.path, self.digest = model.path, model.digest
            self.backend, self.device = 'torch', str(next(model.model.parameters()).device)

    def enrol(self, path: Path) -> 'Baseline':
        """Read an enrolment and use it from the next file on, see `load_enrolment`."""
        from ser_ros.stream.enrolment import load_enrolment

        if self._recognizer is None:
            raise SerError(
                f'bundle {self.path}: it does not adapt to voices, so that it needs no enrolment'
            )
        baseline = load_enrolment(path, self._recognizer.backend).baseline
        self._recognizer.voice.adaptation.start_from(baseline)
        return baseline

    def __call__(self, file: str) -> FilePrediction:
        """Predict one file. Whatever is wrong with it is in the result."""
        self._notes = []
        name = printable(file)
        n_short = self._n_short
        try:
            lines = self._stream(file) if self._recognizer else self._classify(file)
        except SerError as error:
            return FilePrediction([], [*self._notes, ('', str(error))], failed=True)
        except Exception as error:  # whatever is wrong with one file, the others are predicted
            if self._recognizer:
                self._recognizer.voice.reset()
            note = f'{name}: {" ".join(str(error).split())}'
            return FilePrediction([], [*self._notes, ('', note)], failed=True)
        if not lines:
            self._notes.append(('', f'{name}: {self._silence(n_short)}'))
        shown = lines[-1:] if self._settings.is_whole else lines
        return FilePrediction([json.dumps({'file': name, **line}) for line in shown], self._notes)

    @property
    def _n_short(self) -> int:
        """Utterances so far that were too short."""
        return self._recognizer.counters.short_utterances if self._recognizer else 0

    def _silence(self, n_short: int) -> str:
        """Why a file has no decision; `n_short`: `_n_short` before it."""
        if self._n_short == n_short:
            return 'no speech was detected'
        return f'no speech of at least {self._recognizer.config.min_utterance} s was detected'

    def _stream(self, file: str) -> list[dict[str, Any]]:
        """The lines of one streamed file; none without detected speech."""
        import numpy as np

        from ser_ros.audio import SAMPLE_RATE, SECOND
        from ser_ros.stream.types import MIN_PROBABILITY
        from ser_ros.stream.voice import pool_windows

        recognizer = self._recognizer
        if not self._settings.is_one_voice:
            recognizer.reset()
        estimates, n_samples = [], 0
        for samples in self._reader.blocks(file):
            estimates += recognizer.push(samples, n_samples * SECOND // SAMPLE_RATE)
            n_samples += len(samples)
        estimates += recognizer.flush()
        if not estimates:
            return []
        windows = [e for e in estimates if e.is_window]
        lengths = [e.n_samples for e in windows]
        score = pool_windows([e.log_probabilities for e in windows], lengths)
        unadapted = np.log(np.maximum([e.unadapted for e in windows], MIN_PROBABILITY))
        clip = _whole(
            recognizer.info,
            SAMPLE_RATE,
            n_samples,
            score,
            pool_windows(unadapted, lengths),
            estimates[0].n_utterances,
        )
        names = recognizer.info.class_names
        lines = [_line('utterance' if e.is_final else 'window', e, names) for e in estimates]
        return [*lines, _line('clip', clip, names)]

    def _classify(self, file: str) -> list[dict[str, Any]]:
        """The line of one file that is classified as a whole."""
        import torch

        from ser_ros.bundle_info import BundleError

        bundle = self._bundle
        rate = bundle.frontend.sample_rate
        samples = self._reader.read(file, rate)
        try:
            score = bundle.classify(torch.from_numpy(samples)).double().numpy()
        except BundleError as error:
            raise SerError(f'{printable(file)}: {error}') from error
        return [
            _line(
                'clip',
                _whole(bundle.info, rate, len(samples), score, score),
                bundle.info.class_names,
            )
        ]


def _whole(
    info: 'BundleInfo',
    rate: int,
    n_samples: int,
    score: 'np.ndarray',
    unadapted: 'np.ndarray',
    n_utterances: int = 0,
) -> 'Estimate':
    """The estimate of a whole clip, of `n_samples` at `rate` Hz.

    `score`, `unadapted`: (n_classes,) log-probabilities up to a constant. `n_utterances`: of the
    voice, before the clip.
    """
    from ser_ros.audio import SECOND
    from ser_ros.emotions import ExpressionMap
    from ser_ros.stream.types import Estimate
    from ser_ros.stream.voice import softmax

    probabilities = softmax(score)
    expressions = ExpressionMap(info.class_names, info.classes)
    expression, confidence = expressions.decide(probabilities, info.threshold)
    valence, arousal = expressions.valence_arousal(probabilities)
    return Estimate(
        stamp_ns=n_samples * SECOND // rate,
        probabilities=probabilities,
        expression=expression,
        confidence=confidence,
        valence=valence,
        arousal=arousal,
        is_final=True,
        is_window=False,
        n_samples=n_samples,
        unadapted=softmax(unadapted),
        n_utterances=n_utterances,
    )


def _line(kind: str, estimate: 'Estimate', class_names: Sequence[str]) -> dict[str, Any]:
    from ser_ros.audio import SECOND

    def by_class(probabilities: 'np.ndarray') -> dict[str, float]:
        return {name: round(float(p), 4) for name, p in zip(class_names, probabilities)}

    return {
        'time': round(estimate.stamp_ns / SECOND, 3),
        'kind': kind,
        'expression': estimate.expression,
        'confidence': round(float(estimate.confidence), 4),
        'valence': round(float(estimate.valence), 4),
        'arousal': round(float(estimate.arousal), 4),
        'probabilities': by_class(estimate.probabilities),
        'smoothed': by_class(
            estimate.probabilities if estimate.smoothed is None else estimate.smoothed
        ),
        'unadapted': by_class(estimate.unadapted),
        'utterances': estimate.n_utterances,
    }
