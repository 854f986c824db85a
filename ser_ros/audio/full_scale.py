"""Float sound: what counts as full scale, and how many samples are beyond it."""

from typing import Optional

import numpy as np

SLACK = 2.0**-14
"""Beyond full scale by which sound still counts as within: integers divided by 32767 instead of
32768, for example."""

UNSCALED = 2.0
"""Magnitude from which on float samples are not too loud, but in another unit."""

INTEGER_RANGES = (2**15, 2**23, 2**31)
"""Full scale of integers that were stored as floats without scaling."""


class FullScale:
    """Scales the float samples of a stream, and counts those that will be clipped or replaced."""

    def __init__(self, value: float = 1.0):
        """`value`: of samples that are full scale."""
        self.value = value
        self.samples = 0
        self.beyond = 0
        """Samples beyond full scale, infinite ones among them."""
        self.not_numbers = 0
        """Samples that are NaN."""
        self.peak = 0.0
        """Largest finite magnitude, of full scale."""

    def scale(self, samples: np.ndarray) -> np.ndarray:
        """Float samples of any shape → scaled, not clipped yet."""
        if self.value != 1.0:
            samples = samples / np.float32(self.value)
        loudness = np.abs(samples)
        self.samples += samples.size
        self.beyond += int(np.count_nonzero(loudness > 1.0 + SLACK))
        self.not_numbers += int(np.count_nonzero(np.isnan(loudness)))
        finite = loudness[np.isfinite(loudness)]
        self.peak = max(self.peak, float(finite.max(initial=0.0)))
        return samples

    @property
    def is_unscaled(self) -> bool:
        """Whether the samples are so large that clipping destroys them."""
        return self.peak > UNSCALED

    @property
    def problem(self) -> Optional[str]:
        """What is wrong with the samples so far; None where nothing is."""
        if self.beyond:
            largest = self.peak * self.value
            hint = next((n for n in INTEGER_RANGES if largest <= n), None)
            like = (
                f', like integers with a full scale of {hint}' if self.is_unscaled and hint else ''
            )
            return (
                f'{self.beyond} of its {self.samples} samples are beyond full scale and clipped '
                f'(the largest is {largest:.5g}{like})'
            )
        if self.not_numbers:
            return f'{self.not_numbers} of its samples are not numbers: zero is used for them'
        return None
