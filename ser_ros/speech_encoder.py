"""The first layers of a published speech encoder: convolutions over a mel spectrogram."""

from functools import cache
from typing import Optional

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ser_ros import SerError
from ser_ros.shipped import shipped_file

WEIGHTS = 'encoders/smart_turn_convolutions.safetensors'
LICENSE = 'BSD-2-Clause AND MIT'
"""Of the weights, SPDX: Smart Turn's, and Whisper's from which it was trained."""


class SpeechConvolutions(nn.Module):
    """The two convolutions in front of the transformer of Whisper tiny (Radford et al., 2022).

    With the weights of Smart Turn 3.2, which was trained to find the end of a turn by how people
    speak, in 23 languages. They are stored as its authors publish them, as integers of 8 bits with
    a scale for each output channel, and are not trained here.
    """

    N_MELS = 80
    WIDTH = 384
    """Output channels."""

    def __init__(self):
        """All weights are 0."""
        super().__init__()
        for name, n_in in (('first', self.N_MELS), ('second', self.WIDTH)):
            self.register_buffer(
                f'{name}_weight', torch.zeros(self.WIDTH, n_in, 3, dtype=torch.int8)
            )
            self.register_buffer(f'{name}_scale', torch.zeros(self.WIDTH))
            self.register_buffer(f'{name}_bias', torch.zeros(self.WIDTH))

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """(batch, N_MELS, frames), true frames (batch, frames) → (batch, 2 · WIDTH).

        The mean of each channel over the true frames, and its deviation.
        """
        real = real[:, None].to(x.dtype)
        # For both convolutions what follows a clip is zero, as their padding.
        x = self._convolve('first', x * real) * real
        x = self._convolve('second', x, stride=2)
        real = real[..., ::2]
        count = real.sum(dim=-1).clamp(min=1.0)
        mean = (x * real).sum(dim=-1) / count
        centred = (x - mean[..., None]) * real
        variance = (centred * centred).sum(dim=-1) / count
        return torch.cat((mean, (variance + 1e-4).sqrt()), dim=-1)

    def _convolve(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight, scale, bias = (
            getattr(self, f'{name}_{part}') for part in ('weight', 'scale', 'bias')
        )
        weight = weight.to(x.dtype) * scale[:, None, None]
        return nn.functional.gelu(nn.functional.conv1d(x, weight, bias, stride=stride, padding=1))


@cache
def _read_weights() -> dict[str, Tensor]:
    path = shipped_file(WEIGHTS)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise SerError(
            f'{path}: the weights of the speech encoder cannot be read ({error})'
        ) from error


def load_speech_convolutions(weights: Optional[dict[str, Tensor]] = None) -> SpeechConvolutions:
    """The convolutions with `weights`, by default the shipped ones.

    SerError for weights that are not those of this network.
    """
    module = SpeechConvolutions()
    weights = _read_weights() if weights is None else weights
    expected = module.state_dict()
    if foreign := sorted(weights.keys() - expected.keys()):
        raise SerError(f'the speech encoder has no tensors {", ".join(foreign)}')
    for name, tensor in expected.items():
        found = weights.get(name)
        if found is None or (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            raise SerError(f'the speech encoder has no usable {name}')
        if not found.isfinite().all():
            raise SerError(f'{name} of the speech encoder is not finite')
    module.load_state_dict(weights)
    return module.eval()
