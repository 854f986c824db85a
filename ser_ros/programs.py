"""The ONNX programs inside a bundle: what a stream needs of it, for machines without torch."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Optional

import numpy as np

from ser_ros import SerError
from ser_ros.bundle_info import PROGRAMS, BundleError, Geometry
from ser_ros.settings import from_dict

PREFIX = 'program.'
"""Of the names of their tensors, which hold the bytes of each."""


@dataclass(frozen=True)
class Programs:
    """Two ONNX programs; float32 but for `lengths`, which are int64.

    Of every bundle that runs on a stream, and only of those.
    """

    spectrum: bytes
    """power (n, n_fft // 2 + 1) of n frames → spectrum (n_rows, n)."""
    score: bytes
    """spectrum (n, n_rows, frames), lengths (n,) in frames, mean (n, n_features, 1) to standardise by,
    temperature () → log_probabilities (n, n_classes), unadapted (n, n_classes), clip_mean
    (n, n_features, 1), see `stream.types.Score`."""
    geometry: Geometry
    weights: str
    """SHA-256 of the weights that they were made from, see `hash_weights`."""

    def metadata(self) -> dict[str, str]:
        """For the metadata of a bundle's file."""
        stated = _Stated(asdict(self.geometry), self.weights, self._sha256())
        return {PROGRAMS: json.dumps(asdict(stated))}

    def tensors(self) -> dict[str, np.ndarray]:
        """For a bundle's file."""
        return {
            PREFIX + name: np.frombuffer(program, np.uint8)
            for name, program in (('spectrum', self.spectrum), ('score', self.score))
        }

    def _sha256(self) -> str:
        return hashlib.sha256(self.spectrum + self.score).hexdigest()


@dataclass(frozen=True)
class _Stated:
    geometry: dict[str, Any]
    weights: str
    sha256: str


def pop_programs(
    metadata: Mapping[str, str], tensors: dict[str, np.ndarray]
) -> Optional[Programs]:
    """The programs of a bundle's file, whose tensors are removed from `tensors`; None without any.

    BundleError if they are damaged, or were made from other weights than the rest of `tensors`.
    """
    found = remove_programs(tensors)
    if PROGRAMS not in metadata and not found:
        return None
    try:
        stated = from_dict(_Stated, json.loads(metadata[PROGRAMS]))
        programs = Programs(
            found.pop(PREFIX + 'spectrum').tobytes(),
            found.pop(PREFIX + 'score').tobytes(),
            from_dict(Geometry, stated.geometry),
            stated.weights,
        )
    except (KeyError, ValueError, SerError) as error:
        raise BundleError(f'its ONNX programs are damaged ({error}); export them again') from error
    if found or programs._sha256() != stated.sha256:
        raise BundleError('its ONNX programs are damaged; export them again')
    if hash_weights(tensors) != programs.weights:
        raise BundleError(
            'its ONNX programs were made from other weights than it has; export them again'
        )
    return programs


def remove_programs(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Remove what holds programs from the tensors of a bundle's file; return it."""
    return {name: tensors.pop(name) for name in list(tensors) if name.startswith(PREFIX)}


def hash_weights(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f'{name} {tensor.dtype} {tensor.shape}'.encode())
        digest.update(np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()
