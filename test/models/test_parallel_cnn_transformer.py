"""The research's `parallel_cnn_transformer`."""

import pytest
import torch

from ser_ros.models import build_model
from ser_ros.models.blocks import ConvStack


def test_parameters_are_those_of_the_research():
    model = build_model('parallel_cnn_transformer', 128, 8)
    assert sum(parameter.numel() for parameter in model.parameters()) == 395_176


@torch.inference_mode()
def test_the_research_shape(features):
    model = build_model('parallel_cnn_transformer', 128, 8).eval()
    sizes = {}
    model.encoder.register_forward_pre_hook(lambda _, args: sizes.update(steps=args[0].shape))
    model.classifier.register_forward_pre_hook(lambda _, args: sizes.update(all=args[0].shape))
    assert model(features(1, 128, 563)).shape == (1, 8)
    assert sizes == {'steps': (1, 140, 64), 'all': (1, 256 + 64)}


def test_four_columns_of_the_research_shape_are_not_changed(features):
    model = build_model('parallel_cnn_transformer', 128, 8).eval()
    clip = features(1, 128, 563), torch.tensor([563])
    maps, lengths = ConvStack.forward(model.cnn, *clip)
    assert maps.shape == (1, 64, 1, 4)
    assert lengths.tolist() == [4]
    assert torch.equal(model.cnn(*clip), maps.flatten(1))


@pytest.mark.parametrize('n_mels', [128, 64])
def test_mels_are_projected_to_the_width_of_the_encoder(n_mels):
    model = build_model('parallel_cnn_transformer', n_mels, 8)
    layers = [tuple(p.shape) for p in model.project.parameters()]
    assert layers == ([] if n_mels == 128 else [(64, 32), (64,)])


def test_hyperparameters_reach_the_model():
    model = build_model('parallel_cnn_transformer', 64, 8, conv_dropout=0.15, encoder_dropout=0.25)
    rates = {layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)}
    assert rates == {0.15, 0.25}
