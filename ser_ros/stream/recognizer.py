"""From sound to estimates: voices and the model that judges their windows. No ROS here."""

import logging
from collections.abc import Sequence
from typing import Optional, Union

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE
from ser_ros.bundle import Bundle
from ser_ros.stream.voice import Counters, Estimate, Judged, RecognizerConfig, Voice

logger = logging.getLogger(__name__)


def select_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` → a device that is there; SerError if it is not.

    `auto` takes the first GPU, else the CPU with one warning.
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
            'use auto or cpu'
        )
    return device


def is_streamed(bundle: Bundle) -> bool:
    """Whether a `Recognizer` takes it; others are for whole clips alone."""
    return bundle.frontend.is_streaming and bundle.frontend.sample_rate == SAMPLE_RATE


class Recognizer:
    """Hears one voice, and others beside it: see `make_voice`, `push_together`.

    Not safe to share between threads. Raises BundleError for a bundle that does not run on 16 kHz
    frame by frame.
    """

    def __init__(
        self, bundle: Bundle, device: str = 'auto', config: Optional[RecognizerConfig] = None
    ):
        self.bundle = bundle
        self.config = config or RecognizerConfig()
        self.voice = self.make_voice()
        self.to(device)

    def adopt(self, bundle: Bundle) -> None:
        """Go on with another bundle on the same device, see `Voice.adopt`.

        Its one voice adopts it; others are to be told.
        """
        self.voice.adopt(bundle)
        self.bundle = bundle
        self.to(self.device)

    def configure(self, config: RecognizerConfig) -> None:
        """Go on with other settings, see `Voice.configure`; other voices are to be told."""
        self.config = config
        self.voice.configure(config)

    def make_voice(self) -> Voice:
        """Another voice, whose windows this model will judge."""
        return Voice(self.bundle, self.config)

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

    @property
    def counters(self) -> Counters:
        """Of its one voice."""
        return self.voice.counters

    @property
    def is_speaking(self) -> bool:
        """Whether its one voice speaks."""
        return self.voice.is_speaking

    def push(self, samples: np.ndarray, stamp_ns: int) -> list[Estimate]:
        """Take float32 (n,) samples at 16 kHz and the stamp of the first, in nanoseconds.

        Where the stamp deviates from the last block's end by more than `gap_tolerance`, the stream
        starts anew: an open utterance closes without a decision. Raises ValueError for another
        shape or type, or samples that are not finite.
        """
        return self._run([self.voice.push(samples, stamp_ns)])[0]

    def push_together(
        self, blocks: Sequence[tuple[Voice, np.ndarray, int]]
    ) -> list[list[Estimate]]:
        """`push` for several voices, each once; windows that are due together are one batch.

        The figures are those of one voice at a time, but for rounding.
        """
        return self._run([voice.push(samples, stamp_ns) for voice, samples, stamp_ns in blocks])

    def flush(self) -> list[Estimate]:
        """End the stream: decide an open utterance, and take any stamp next."""
        return self._run([self.voice.flush()])[0]

    def reset(self) -> None:
        """Forget the stream without a decision, and take any stamp next."""
        self.voice.reset()

    def _run(self, voices: Sequence[Judged]) -> list[list[Estimate]]:
        """Let all go on until none asks for a window to be judged."""
        estimates: list[list[Estimate]] = [[] for _ in voices]
        scores: dict[int, Optional[np.ndarray]] = dict.fromkeys(range(len(voices)))
        while scores:
            windows = {}
            for index, score in scores.items():
                try:
                    windows[index] = voices[index].send(score)
                except StopIteration as end:
                    estimates[index] = end.value
            scores = dict(zip(windows, self._judge(list(windows.values()))))
        return estimates

    def _judge(self, windows: Sequence[torch.Tensor]) -> list[Optional[np.ndarray]]:
        """(n_features, frames) each → (n_classes,) each; None where there is no memory for it."""
        if not windows:
            return []
        lengths = None
        if len(windows) > 1:
            lengths = torch.tensor([window.shape[1] for window in windows], device=self.device)
        features = pad_sequence([window.T for window in windows], batch_first=True).mT
        try:
            scores = self.bundle.log_probabilities(features.to(self.device), lengths)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            if len(windows) > 1:
                return [score for window in windows for score in self._judge([window])]
            return [None]
        return list(scores.double().numpy())
