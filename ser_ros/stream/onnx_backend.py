"""A bundle on onnxruntime, on the CPU, without torch."""

import hashlib
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import onnxruntime
from safetensors import SafetensorError, safe_open

from ser_ros import SerError
from ser_ros.bundle_info import (
    BundleError,
    BundleInfo,
    Geometry,
    describe_foreign,
    find_bundle,
    missing_bundle,
    read_info,
)
from ser_ros.programs import Programs, pop_programs
from ser_ros.stream.backend import Backend, DeviceError
from ser_ros.stream.types import Score, Window


class NoProgramsError(BundleError):
    """A bundle without ONNX programs."""


class OnnxBackend(Backend):
    """The programs of a bundle, on the CPU.

    BundleError for programs that do not run, or not as the bundle says.
    """

    name = 'onnx'

    def __init__(
        self,
        info: BundleInfo,
        programs: Programs,
        mean: np.ndarray,
        path: Path,
        digest: str,
        num_threads: int = 1,
    ):
        """`mean`: (n_features, 1) of the training set."""
        self.info, self.path, self.digest = info, path, digest
        self.geometry = programs.geometry
        self.mean = mean
        self._temperature = np.array(info.temperature, np.float32)
        try:
            self._window = _window(programs.geometry)
            self._spectrum = _session(programs.spectrum, 1)
            self._score = _session(programs.score, num_threads)
            self._check()
        except BundleError:
            raise
        except Exception as error:  # whatever onnxruntime finds wrong
            reason = textwrap.shorten(str(error), 300, placeholder=' ...')
            raise BundleError(
                f'bundle {path}: its ONNX programs do not run ({reason}); export them again'
            ) from error

    def _check(self) -> None:
        geometry, n_classes = self.geometry, len(self.info.class_names)
        n = geometry.min_frames
        spectrum = self.spectrum(np.zeros((n, geometry.frame_length), np.float32))
        score = self.score([Window(spectrum, 0, None)])[0]
        scores = score.log_probabilities, score.unadapted
        found = (spectrum.shape, *(values.shape for values in (*scores, score.clip_mean)))
        expected = ((geometry.n_rows, n), (n_classes,), (n_classes,), (geometry.n_features, 1))
        if found != expected or self.mean.shape != expected[-1]:
            raise BundleError(
                f'bundle {self.path}: its ONNX programs have the shapes {found} and '
                f'{self.mean.shape}, not {expected}; export them again'
            )
        for what in (self.mean, *scores, score.clip_mean):
            if not np.isfinite(what).all():
                raise BundleError(
                    f'bundle {self.path}: its statistics, its temperature or its ONNX programs give '
                    'values that are not finite; it is damaged'
                )

    def to(self, device: str) -> None:
        """See `Backend`."""
        if device not in ('auto', 'cpu'):
            raise DeviceError(f'device {device!r}: the backend onnx runs on the CPU')
        self.warm_up()

    def spectrum(self, frames: np.ndarray) -> np.ndarray:
        """See `Backend`."""
        # NumPy's transform takes a fifth of the time of onnxruntime's.
        transform = np.fft.rfft(frames * self._window, self.geometry.n_fft)
        power = transform.real**2 + transform.imag**2
        return self._spectrum.run(None, {'power': power.astype(np.float32, copy=False)})[0]

    def score(self, windows: Sequence[Window]) -> list[Optional[Score]]:
        """See `Backend`."""
        if not windows:
            return []
        spectra, lengths, means = self.stack(windows)
        inputs = {
            'spectrum': spectra,
            'lengths': lengths,
            'mean': means,
            'temperature': self._temperature,
        }
        scores, unadapted, clip_means = self._score.run(None, inputs)
        return list(map(Score, scores.astype(float), unadapted.astype(float), clip_means))


def _window(geometry: Geometry) -> np.ndarray:
    """(frame_length,): a periodic Hann window in the middle of zeros, as torch's transform has it."""
    hann = np.hanning(geometry.win_length + 1)[:-1].astype(np.float32)
    n_zeros = geometry.frame_length - geometry.win_length
    return np.pad(hann, (n_zeros // 2, n_zeros - n_zeros // 2))


def _session(program: bytes, num_threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
    return onnxruntime.InferenceSession(program, options, providers=['CPUExecutionProvider'])


def load_onnx(name: Union[str, Path] = '', num_threads: int = 1) -> OnnxBackend:
    """The programs of a bundle (see `find_bundle`).

    NoProgramsError if it has none; BundleError describes what else is wrong with it.
    """
    path = find_bundle(name)
    if not path.is_file():
        raise missing_bundle(path)
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with safe_open(path, framework='np') as file:
            metadata: dict[str, Any] = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BundleError(f'bundle {path}: {describe_foreign(path)} ({error})') from error
    try:
        info = read_info(metadata)
        programs = pop_programs(metadata, tensors)
    except (SerError, ValueError) as error:
        reason = textwrap.shorten(str(error), 500, placeholder=' ...')
        raise BundleError(f'bundle {path}: {reason}') from error
    if programs is None:
        raise NoProgramsError(
            f'bundle {path}: it has no ONNX programs; where torch is installed, '
            f'`python -m ser_ros export {path} --inside` adds them'
        )
    mean = tensors.get('frontend.mean', np.zeros(0, np.float32))
    return OnnxBackend(info, programs, mean, path, digest, num_threads)
