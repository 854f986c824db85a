"""The convolutions of a published speech encoder, and their weights."""

import pytest
import torch

from ser_ros import SerError, speech_encoder
from ser_ros.speech_encoder import SpeechConvolutions, load_speech_convolutions


def reference(module, x):
    """(1, N_MELS, frames) → as torch's own layers compute it, from dequantised weights."""
    for name, stride in (('first', 1), ('second', 2)):
        layer = torch.nn.Conv1d(x.shape[1], 384, 3, stride, padding=1)
        scale = getattr(module, f'{name}_scale')[:, None, None]
        weight = getattr(module, f'{name}_weight').float() * scale
        layer.load_state_dict({'weight': weight, 'bias': getattr(module, f'{name}_bias')})
        x = torch.nn.functional.gelu(layer(x))
    return x


def test_the_convolutions_are_those_of_their_weights():
    module = load_speech_convolutions()
    x = torch.randn(1, 80, 41, generator=torch.Generator().manual_seed(1))
    steps = reference(module, x)
    found = module(x, torch.ones(1, 41, dtype=torch.bool))
    assert found.shape == (1, 2 * SpeechConvolutions.WIDTH)
    mean, deviation = found.chunk(2, dim=1)
    torch.testing.assert_close(mean, steps.mean(dim=-1))
    variance = steps.var(dim=-1, correction=0)
    torch.testing.assert_close(deviation, (variance + 1e-4).sqrt())


def test_the_shipped_weights_are_those_of_a_trained_network():
    state = load_speech_convolutions().state_dict()
    assert set(state) == set(SpeechConvolutions().state_dict())
    assert all(state[f'{name}_weight'].float().std() > 5 for name in ('first', 'second'))
    assert all((state[f'{name}_scale'] > 0).all() for name in ('first', 'second'))


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'first_bias': torch.full((384,), torch.nan)}, 'first_bias .* not finite'),
        ({'second_scale': torch.zeros(3)}, 'no usable second_scale'),
        ({'second_weight': torch.zeros(384, 384, 3)}, 'no usable second_weight'),
        ({'third_weight': torch.zeros(1)}, 'no tensors third_weight'),
    ],
)
def test_weights_of_something_else(change, said):
    weights = load_speech_convolutions().state_dict() | change
    with pytest.raises(SerError, match=said):
        load_speech_convolutions(weights)


def test_weights_too_few():
    with pytest.raises(SerError, match='no usable first_weight'):
        load_speech_convolutions({})


def test_a_file_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(speech_encoder, 'shipped_file', lambda name: tmp_path / name)
    speech_encoder._read_weights.cache_clear()
    with pytest.raises(SerError, match='weights of the speech encoder cannot be read'):
        load_speech_convolutions()
