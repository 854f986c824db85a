"""A bundle on PyTorch, on a CPU or a GPU."""

import logging
from collections.abc import Sequence
from typing import Optional, Union

import numpy as np
import torch

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE
from ser_ros.bundle import Bundle
from ser_ros.bundle_info import BundleError, Geometry
from ser_ros.stream.backend import Backend, DeviceError, DeviceFullError
from ser_ros.stream.types import Score, Window

logger = logging.getLogger(__name__)


def select_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` → an available device; SerError if it is not available.

    `auto` selects the first GPU, else the CPU with one warning.
    """
    if name == 'auto':
        if torch.cuda.is_available():
            return torch.device('cuda', 0)
        logger.warning('no CUDA device: running on the CPU')
        return torch.device('cpu')
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ('cpu', 'cuda'):
        raise SerError(f'device {name!r} is not one of auto, cpu, cuda, cuda:N')
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise SerError(
            f'device {name!r} is not there: {torch.cuda.device_count()} CUDA devices are visible; '
            f'use {", ".join(["auto", "cpu", *_cuda_names()])}'
        )
    return device


def _cuda_names() -> list[str]:
    return [f'cuda:{index}' for index in range(torch.cuda.device_count())]


def check_can_stream(bundle: Bundle) -> None:
    """Raise BundleError, with the reason, for a bundle that does not run on a 16 kHz stream."""
    frontend = bundle.frontend
    if frontend.sample_rate != SAMPLE_RATE:
        raise BundleError(
            f'bundle {bundle.path}: made for {frontend.sample_rate} Hz, '
            f'a stream needs one for {SAMPLE_RATE} Hz'
        )
    if not frontend.is_streaming:
        raise BundleError(
            f'bundle {bundle.path}: its front-end {frontend.config.kind} needs whole clips, '
            'a stream needs another one'
        )
    if bundle.info.window < (shortest := geometry(bundle).min_window / SAMPLE_RATE):
        raise BundleError(
            f'bundle {bundle.path}: its window of {bundle.info.window} s is shorter than the '
            f'{shortest:.3f} s that its model needs'
        )


def geometry(bundle: Bundle) -> Geometry:
    """The sizes of a bundle."""
    frontend = bundle.frontend
    return Geometry(
        frontend.frame_length,
        frontend.stft.win_length,
        frontend.stft.n_fft,
        frontend.hop_length,
        frontend.n_rows,
        frontend.n_features,
        frontend.n_frames(frontend.n_samples(bundle.model.min_frames)),
    )


class TorchBackend(Backend):
    """Frames are computed on the CPU, windows on the device.

    Raises BundleError for a bundle that does not run on a 16 kHz stream.
    """

    name = 'torch'

    def __init__(self, bundle: Bundle, device: Union[str, torch.device] = 'auto'):
        """`device`: see `select_device`."""
        check_can_stream(bundle)
        self.bundle = bundle
        self.info, self.path, self.digest = bundle.info, bundle.path, bundle.digest
        self.geometry = geometry(bundle)
        self.mean = bundle.frontend.mean.numpy()
        self._place(select_device(str(device)))

    def _place(self, device: torch.device) -> None:
        self._device, self.device = device, str(device)
        self.bundle.model.to(device)

    def to(self, device: str) -> None:
        """See `Backend`."""
        chosen = select_device(device)
        try:
            self._place(chosen)
            self.warm_up()
        except RuntimeError as error:  # full, or too old or new for this torch
            is_full = isinstance(error, torch.OutOfMemoryError)
            reason = str(error).splitlines()[0]
            raise (DeviceFullError if is_full else DeviceError)(
                f'device {chosen} does not run the model: {reason}'
            ) from error

    @property
    def device_bytes(self) -> Optional[int]:
        """See `Backend`."""
        return torch.cuda.memory_allocated(self._device) if self._device.type == 'cuda' else None

    @torch.inference_mode()
    def spectrum(self, frames: np.ndarray) -> np.ndarray:
        """See `Backend`."""
        samples = torch.from_numpy(frames.copy())  # a view of all samples, which overlaps
        return self.bundle.frontend.spectrum(samples)[..., 0].T.numpy()

    @torch.inference_mode()
    def score(self, windows: Sequence[Window]) -> list[Optional[Score]]:
        """See `Backend`."""
        if not windows:
            return []
        spectra, lengths, means = map(torch.from_numpy, self.stack(windows))
        frontend = self.bundle.frontend
        features = frontend.features(spectra, lengths)
        steps = frontend.n_steps(lengths)
        chosen_steps = steps.to(self._device) if len(windows) > 1 else None

        def classify(means: Optional[torch.Tensor]) -> np.ndarray:
            x = frontend.standardise(features, means).to(self._device)
            return self.bundle.log_probabilities(x, chosen_steps).double().numpy()

        try:
            unadapted = scores = classify(means)
            if any(window.mean is not None for window in windows):
                unadapted = classify(None)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            if len(windows) > 1:
                return [score for window in windows for score in self.score([window])]
            return [None]
        clip_means = frontend.clip_mean(features, steps).numpy()
        return list(map(Score, scores, unadapted, clip_means))
