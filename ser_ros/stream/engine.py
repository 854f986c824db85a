"""The model: it classifies the windows of any number of voices, those due together in one batch."""

import logging
from collections.abc import Sequence
from typing import Optional, Union

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE
from ser_ros.bundle import Bundle
from ser_ros.stream.types import Estimate, Window, WindowRequests
from ser_ros.stream.voice import check_can_stream

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


class Engine:
    """A bundle's model on a device.

    Not safe to share between threads. Raises BundleError for a bundle that does not run on a
    16 kHz stream.
    """

    def __init__(self, bundle: Bundle, device: Union[str, torch.device] = 'auto'):
        check_can_stream(bundle)
        self.bundle = bundle
        self.to(device)

    def replace_bundle(self, bundle: Bundle) -> None:
        """Continue with another bundle on the same device; its voices are replaced by their owner.

        Raises BundleError as above.
        """
        check_can_stream(bundle)
        self.bundle = bundle
        self.to(self.device)

    def to(self, device: Union[str, torch.device]) -> None:
        """Move the model to a device (see `select_device`)."""
        self.device = select_device(str(device))
        self.bundle.model.to(self.device)

    def warm_up(self) -> None:
        """Run the longest window once: a GPU's first call takes seconds."""
        frontend = self.bundle.frontend
        n_frames = frontend.n_frames(round(self.bundle.info.window * SAMPLE_RATE))
        features = torch.zeros(1, frontend.n_features, n_frames, device=self.device)
        self.bundle.log_probabilities(features)

    def run(self, requests: Sequence[WindowRequests]) -> list[list[Estimate]]:
        """Answer the window requests of several voices until none has any; return their estimates.

        `requests` come from `Voice.push` and `Voice.flush`, at most one a voice. Windows that are
        due together are one batch; the result equals that of one voice at a time, but for rounding.
        """
        estimates: list[list[Estimate]] = [[] for _ in requests]
        scores: dict[int, Optional[np.ndarray]] = dict.fromkeys(range(len(requests)))
        while scores:
            windows = {}
            for index, score in scores.items():
                try:
                    windows[index] = requests[index].send(score)
                except StopIteration as end:
                    estimates[index] = end.value
            scores = dict(zip(windows, self._classify(list(windows.values()))))
        return estimates

    def _classify(self, windows: Sequence[Window]) -> list[Optional[np.ndarray]]:
        """Log-probabilities (n_classes,) of each; None where there is no memory for it."""
        if not windows:
            return []
        standardise, lengths = self.bundle.frontend.standardise, None
        standardised = [standardise(window.features, window.mean) for window in windows]
        if len(windows) > 1:
            lengths = torch.tensor([x.shape[1] for x in standardised], device=self.device)
        features = pad_sequence([x.T for x in standardised], batch_first=True).mT
        try:
            scores = self.bundle.log_probabilities(features.to(self.device), lengths)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            if len(windows) > 1:
                return [score for window in windows for score in self._classify([window])]
            return [None]
        return list(scores.double().numpy())
