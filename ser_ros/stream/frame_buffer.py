"""The newest samples of a stream, and the frames of windows that end in them."""

import numpy as np

from ser_ros.stream.backend import Backend


class FrameBuffer:
    """Computes each frame once, and only frames of windows; its memory is allocated once.

    Of both samples and frames it holds up to twice what is kept, so that moving them to the front is
    rare and windows are slices.
    """

    def __init__(self, backend: Backend, n_samples: int):
        """`n_samples`: how far back a window may begin."""
        self._backend = backend
        self._geometry = backend.geometry
        self._keep = n_samples + self._geometry.frame_length
        self._samples = np.zeros(2 * self._keep, np.float32)
        self._keep_frames = n_samples // self._geometry.hop_length + 2
        self._frames = np.zeros((self._geometry.n_rows, 2 * self._keep_frames), np.float32)
        self.reset(0)

    def reset(self, origin: int) -> None:
        """Start with the sample of this index of the stream, and the first frame there."""
        self._origin = origin
        self._first_sample = self._end = 0  # from the origin: of those in _samples
        self._first = self._n_frames = (
            0  # index of the first frame in _frames, and how many there are
        )

    @property
    def oldest(self) -> int:
        """Index in the stream of the oldest sample that is held."""
        return self._origin + self._first_sample

    @property
    def samples(self) -> np.ndarray:
        """(n,) samples that are held."""
        return self._samples[: self._end - self._first_sample]

    def push(self, samples: np.ndarray) -> None:
        """Add (n,) samples, at most those that are kept."""
        n, n_new = self._end - self._first_sample, len(samples)
        if n + n_new > len(self._samples):
            self._samples[: self._keep] = self._samples[n - self._keep : n]
            self._first_sample += n - self._keep
            n = self._keep
        self._samples[n : n + n_new] = samples
        self._end += n_new

    def window(self, start: int, end: int) -> np.ndarray:
        """(n_rows, frames) that lie whole between two sample indices of the stream.

        Valid until the next call.
        """
        hop = self._geometry.hop_length
        first = max(0, -(-(start - self._origin) // hop), -(-self._first_sample // hop))
        last = self._geometry.n_frames(end - self._origin)
        if not self._first <= first <= self._first + self._n_frames:
            self._first, self._n_frames = first, 0
        self._compute(last)
        return self._frames[:, first - self._first : last - self._first]

    def _compute(self, last: int) -> None:
        """Compute the frames that are missing before that of this index."""
        next_frame = self._first + self._n_frames
        if (n_new := last - next_frame) <= 0:
            return
        if self._n_frames + n_new > self._frames.shape[1]:
            drop = self._n_frames + n_new - self._keep_frames
            kept = self._n_frames - drop
            self._frames[:, :kept] = self._frames[:, drop : self._n_frames].copy()
            self._first, self._n_frames = self._first + drop, kept
        hop, length = self._geometry.hop_length, self._geometry.frame_length
        begin = next_frame * hop - self._first_sample
        part = self._samples[begin : begin + (n_new - 1) * hop + length]
        frames = np.lib.stride_tricks.sliding_window_view(part, length)[::hop]
        self._frames[:, self._n_frames : self._n_frames + n_new] = self._backend.spectrum(frames)
        self._n_frames += n_new
