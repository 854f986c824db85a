"""The research's `parallel_cnn_attention_lstm`."""

import torch

from ser_ros.models import build_model


def test_parameters_are_those_of_the_research():
    model = build_model('parallel_cnn_attention_lstm', 128, 8)
    assert sum(parameter.numel() for parameter in model.parameters()) == 263_593


@torch.inference_mode()
def test_the_research_shape(features):
    model = build_model('parallel_cnn_attention_lstm', 128, 8).eval()
    sizes = {}
    model.attention.register_forward_hook(
        lambda _, args, out: sizes.update(steps=args[0].shape, weights=out[1].shape)
    )
    model.classifier.register_forward_pre_hook(lambda _, args: sizes.update(all=args[0].shape))
    assert model(features(1, 128, 563)).shape == (1, 8)
    assert sizes == {'steps': (1, 140, 256), 'weights': (1, 140), 'all': (1, 512)}


def test_hyperparameters_reach_the_model():
    model = build_model('parallel_cnn_attention_lstm', 64, 8, conv_dropout=0.15, lstm_dropout=0.25)
    rates = {layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)}
    assert rates == {0.15, 0.25}
