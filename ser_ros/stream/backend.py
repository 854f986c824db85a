"""A bundle's network as a stream needs it: frames and windows in, log-probabilities out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from ser_ros import SerError, TransientError
from ser_ros.audio import SAMPLE_RATE
from ser_ros.audio.vad import detect_speech
from ser_ros.bundle_info import BundleInfo, Geometry
from ser_ros.stream.types import Chunk, Estimate, Requests, Score, Window


class DeviceError(SerError):
    """A device that does not run the model."""


class DeviceFullError(DeviceError, TransientError):
    """A device that has no memory for the model now."""


class Backend(ABC):
    """Computes a bundle's frames and log-probabilities, for any number of voices.

    Not safe to share between threads.
    """

    name: str
    """torch or onnx."""
    info: BundleInfo
    path: Path
    digest: str
    """SHA-256 of the bundle's file."""
    geometry: Geometry
    mean: np.ndarray
    """(n_features, 1) of the training set, by which the features of unknown voices are standardised."""
    device: str = 'cpu'
    """cpu or cuda:N, on which windows are scored."""
    device_bytes: Optional[int] = None
    """Memory in use on a GPU; None on a CPU."""

    @abstractmethod
    def to(self, device: str) -> None:
        """Continue on another device, see `select_device`, and run it once.

        DeviceError if the device does not run the model, DeviceFullError if it has no memory for it now.
        """

    @abstractmethod
    def spectrum(self, frames: np.ndarray) -> np.ndarray:
        """Float32 (n, frame_length) samples of n frames → (n_rows, n), see `Frontend.spectrum`."""

    @abstractmethod
    def score(self, windows: Sequence[Window]) -> list[Optional[Score]]:
        """The score of each window, in one batch; None where there is no memory for it.

        Of no windows no score.
        """

    def run(self, requests: Sequence[Requests]) -> list[list[Estimate]]:
        """Answer the requests of several voices until none has any; return their estimates.

        `requests` come from `Voice.push` and `Voice.flush`, at most one a voice. Chunks are answered
        first, all together, so that as many windows as possible are one batch; the result equals
        that of one voice at a time, but for rounding.
        """
        estimates: list[list[Estimate]] = [[] for _ in requests]
        chunks: dict[int, Chunk] = {}
        windows: dict[int, Window] = {}
        answers: dict[int, Any] = dict.fromkeys(range(len(requests)))
        while answers:
            for index, answer in answers.items():
                try:
                    asked = requests[index].send(answer)
                except StopIteration as end:
                    estimates[index] = end.value
                    continue
                (chunks if isinstance(asked, Chunk) else windows)[index] = asked
            if chunks:
                pairs = [(chunk.vad, chunk.samples) for chunk in chunks.values()]
                answers = dict(zip(chunks, detect_speech(pairs)))
                chunks = {}
            else:
                answers = dict(zip(windows, self.score(list(windows.values()))))
                windows = {}
        return estimates

    def warm_up(self) -> None:
        """Run the longest window once: a first call may take seconds."""
        geometry = self.geometry
        n_frames = geometry.n_frames(round(self.info.window * SAMPLE_RATE))
        self.spectrum(np.zeros((1, geometry.frame_length), np.float32))
        self.score([Window(np.zeros((geometry.n_rows, n_frames), np.float32), 0, None)])

    def stack(self, windows: Sequence[Window]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Spectra, padded to the longest, their lengths and means: the inputs of `Programs.score`."""
        lengths = np.array([window.spectrum.shape[1] for window in windows])
        spectra = np.zeros((len(windows), self.geometry.n_rows, lengths.max()), np.float32)
        for row, window in zip(spectra, windows):
            row[:, : window.spectrum.shape[1]] = window.spectrum
        means = [self.mean if window.mean is None else window.mean for window in windows]
        return spectra, lengths, np.stack(means)
