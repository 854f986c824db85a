"""The newest spectrum frames of a stream, each computed once."""

import numpy as np
import torch

from ser_ros.audio.vad import CHUNK
from ser_ros.features import Frontend


class FrameBuffer:
    """Computes frames as chunks come in; its memory is allocated once."""

    def __init__(self, frontend: Frontend, n_samples: int):
        """`n_samples`: how far back a window may begin."""
        self._frontend = frontend
        self._hop = frontend.hop_length
        self._keep = n_samples // self._hop + 2
        # Twice the frames kept, so that moving them to the front is rare and windows are slices.
        self._frames = torch.zeros(frontend.n_rows, 2 * self._keep)
        self._samples = torch.zeros(frontend.frame_length + CHUNK)
        self.reset(0)

    def reset(self, origin: int) -> None:
        """Start with the sample of this index of the stream."""
        self._origin = origin
        self._n_samples = 0  # held in _samples
        self._n_frames = 0  # held in _frames
        self._first = 0  # index, from the origin, of the first frame held

    @torch.inference_mode()
    def push(self, chunk: np.ndarray) -> None:
        """Compute the frames that (CHUNK,) samples complete."""
        self._samples[self._n_samples : self._n_samples + CHUNK] = torch.from_numpy(chunk)
        self._n_samples += CHUNK
        n_new = self._frontend.n_frames(self._n_samples)
        if not n_new:
            return
        if self._n_frames + n_new > self._frames.shape[1]:
            drop = self._n_frames - self._keep
            self._frames[:, : self._keep] = self._frames[:, drop : self._n_frames].clone()
            self._first += drop
            self._n_frames = self._keep
        frames = self._frontend.spectrum(self._samples[: self._n_samples])
        self._frames[:, self._n_frames : self._n_frames + n_new] = frames
        self._n_frames += n_new
        rest = self._samples[n_new * self._hop : self._n_samples].clone()
        self._samples[: len(rest)] = rest
        self._n_samples = len(rest)

    def window(self, start: int, end: int) -> torch.Tensor:
        """(n_rows, frames) that lie whole between two sample indices of the stream."""
        first = -(-(start - self._origin) // self._hop) - self._first
        last = self._frontend.n_frames(end - self._origin) - self._first
        return self._frames[:, max(0, first) : last]
