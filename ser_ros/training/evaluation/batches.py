"""The clips of an evaluation, predicted batch by batch: what its workers do, and what resumes it."""

import functools
import hashlib
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
from tqdm import tqdm

from ser_ros import SerError, __version__
from ser_ros.bundle import Bundle, load_bundle
from ser_ros.bundle_info import check_digest
from ser_ros.stream.torch_backend import TorchBackend, select_device
from ser_ros.training.data.corpora import Clip
from ser_ros.training.evaluation.clip_result import ClipResult
from ser_ros.training.evaluation.prediction import (
    Degrade,
    amplify,
    batches,
    classify_clip,
    one_thread,
    stream_batch,
)
from ser_ros.workers import Lost, Workers, in_order

Predict = Callable[[Sequence[Clip], str], list[ClipResult]]
"""Clips and the name of a condition, '' for none → the result of each clip."""


@dataclass(frozen=True)
class Batch:
    """Clips that are predicted together, see `prediction.batches`."""

    clips: Sequence[Clip]
    condition: str = ''


@dataclass(frozen=True)
class BatchPredictor:
    """Settings of an evaluation; called, it loads the bundle: a `workers.Load`."""

    bundle: Union[str, Path]
    """Name or path."""
    digest: str
    """Of the bundle's file."""
    device: str
    gain_db: float = 0.0
    degrades: Mapping[str, Degrade] = field(default_factory=dict)
    """Condition → what it does."""

    def __call__(self) -> Callable[[Batch], list[ClipResult]]:
        """Load the bundle. SerError if that is impossible, or its file is another."""
        bundle = load_bundle(self.bundle)
        check_digest(bundle.path, bundle.digest, self.digest)
        return self.work(bundle)

    def work(self, bundle: Bundle) -> Callable[[Batch], list[ClipResult]]:
        """What predicts a batch with this bundle."""
        if bundle.info.can_stream:
            return functools.partial(self._stream, TorchBackend(bundle, self.device))
        bundle.model.to(select_device(self.device))
        return functools.partial(self._classify, bundle)

    def _stream(self, backend: TorchBackend, batch: Batch) -> list[ClipResult]:
        degrade = functools.partial(amplify, gain_db=self.gain_db) if self.gain_db else None
        if batch.condition:
            degrade = self.degrades[batch.condition]
        return stream_batch(backend, batch.clips, degrade)

    def _classify(self, bundle: Bundle, batch: Batch) -> list[ClipResult]:
        with one_thread():
            return [classify_clip(bundle, clip, self.gain_db) for clip in batch.clips]

    def settings(self) -> dict[str, Any]:
        """All that results depend on besides their clips, for a journal."""
        return {
            'ser_ros': __version__,
            'bundle': self.digest,
            'device': self.device,
            'gain_db': self.gain_db,
            'conditions': hashlib.sha256(pickle.dumps(dict(self.degrades))).hexdigest(),
        }


def predict_with(workers: Workers) -> Predict:
    """Predict by workers of a `BatchPredictor`, which raises SerError for a batch that is lost."""

    def predict(clips: Sequence[Clip], condition: str) -> list[ClipResult]:
        tasks = [Batch(batch, condition) for batch in batches(clips)]
        results = []
        with tqdm(
            total=len(clips), desc='predicting', unit='clip', leave=False, disable=None
        ) as bar:
            for task, found in zip(tasks, in_order(workers, tasks)):
                if isinstance(found, Lost):
                    names = ', '.join(clip.name for clip in task.clips)
                    raise SerError(f'one of these ended two workers ({found.reason}): {names}')
                results += found
                bar.update(len(found))
        return results

    return predict


def key(batch: Batch) -> list[Any]:
    """A batch in a journal."""
    return [batch.condition, *([clip.name, clip.digest] for clip in batch.clips)]


def encode(results: Sequence[ClipResult]) -> list[dict[str, Any]]:
    """The results of a batch as plain values, without the clips, nothing rounded."""
    return [
        {
            'windows': _rows(result.windows),
            'decisions': result.decisions,
            'is_whole': result.is_whole,
            'lengths': None if result.lengths is None else list(result.lengths),
            'utterances': _rows(result.utterances),
        }
        for result in results
    ]


def decode(batch: Batch, values: Sequence[Mapping[str, Any]]) -> list[ClipResult]:
    """The results that `encode` was given."""
    return [
        ClipResult(
            clip,
            _array(own['windows']),
            own['decisions'],
            own['is_whole'],
            own['lengths'],
            _array(own['utterances']),
        )
        for clip, own in zip(batch.clips, values)
    ]


def _rows(array: Optional[np.ndarray]) -> Optional[dict[str, Any]]:
    if array is None:
        return None
    return {'shape': array.shape, 'type': array.dtype.name, 'values': array.ravel().tolist()}


def _array(rows: Optional[Mapping[str, Any]]) -> Optional[np.ndarray]:
    return rows and np.array(rows['values'], rows['type']).reshape(rows['shape'])
