"""The fusion that the research announced."""

import pytest
import torch

from ser_ros import SerError
from ser_ros.models import build_model


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_it_has_less_than_a_million_parameters():
    assert size(build_model('parallel_fusion', 64, 8)) == 969_619


@torch.inference_mode()
def test_three_paths_are_pooled_by_attention_over_the_same_steps(features):
    model = build_model('parallel_fusion', 64, 8, width=32, lstm_width=24).eval()
    seen = {}
    for name in ('attention', 'encoder_attention', 'lstm_attention'):
        model.get_submodule(name).register_forward_hook(
            lambda _, args, out, name=name: seen.update({name: (args[0].shape, out[1])})
        )
    assert model(features(2, 64, 160), torch.tensor([160, 80])).shape == (2, 8)
    assert [tuple(shape) for shape, _ in seen.values()] == [(2, 40, 32), (2, 40, 32), (2, 40, 48)]
    for _, weights in seen.values():
        assert (weights[1, 20:] == 0).all()
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))


def test_branches_have_their_kernels():
    model = build_model('parallel_fusion', 64, 8)
    kernels = [branch.blocks[0].conv.kernel_size for branch in model.branches]
    assert kernels == [(3, 3), (5, 5)]


@pytest.mark.parametrize(
    'without',
    [{'channels_3x3': ()}, {'channels_5x5': ()}, {'encoder_layers': 0}, {'lstm_width': 0}],
)
@torch.inference_mode()
def test_a_part_can_be_left_out(features, without):
    model = build_model('parallel_fusion', 64, 8, **without).eval()
    assert size(model) < size(build_model('parallel_fusion', 64, 8))
    assert model(features(2, 64, 98)).shape == (2, 8)


@pytest.mark.parametrize(
    ('hyperparameters', 'problem'),
    [
        ({'channels_3x3': (), 'channels_5x5': ()}, 'both empty'),
        ({'channels_3x3': (16, 32)}, '2 conv blocks have 4 pools'),
        ({'width': 66}, 'width of 66 .* 4 heads'),
    ],
)
def test_sizes_that_do_not_fit_are_named(hyperparameters, problem):
    with pytest.raises(SerError, match=problem):
        build_model('parallel_fusion', 64, 8, **hyperparameters)


def test_hyperparameters_reach_the_model():
    model = build_model(
        'parallel_fusion',
        64,
        8,
        conv_dropout=0.15,
        encoder_dropout=0.25,
        classifier_dropout=0.35,
        encoder_layers=3,
        feedforward=100,
        heads=2,
    )
    kinds = (torch.nn.Dropout, torch.nn.Dropout2d)
    rates = {layer.p for layer in model.modules() if isinstance(layer, kinds)}
    assert rates == {0.15, 0.25, 0.35}
    assert [layer.linear1.out_features for layer in model.encoder.layers] == [100] * 3
    assert model.encoder.layers[0].self_attn.num_heads == 2
