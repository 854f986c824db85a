"""The research's `stacked_cnn_lstm`."""

import torch

from ser_ros.models import build_model


def test_parameters_are_those_of_the_research():
    model = build_model('stacked_cnn_lstm', 128, 8)
    assert sum(parameter.numel() for parameter in model.parameters()) == 147_816


@torch.inference_mode()
def test_the_research_shape(features):
    model = build_model('stacked_cnn_lstm', 128, 8).eval()
    sizes = {}
    model.cnn.register_forward_pre_hook(lambda _, args: sizes.update(chunks=args[0].shape))
    model.cnn.blocks[-1].register_forward_hook(
        lambda _, args, out: sizes.update(maps=out[0].shape)
    )
    model.lstm.register_forward_pre_hook(lambda _, args: sizes.update(steps=args[0].shape))
    assert model(features(1, 128, 563)).shape == (1, 8)
    assert sizes == {'chunks': (7, 128, 128), 'maps': (7, 128, 1, 1), 'steps': (1, 7, 128)}


@torch.inference_mode()
def test_the_last_chunk_of_each_clip_decides(features):
    torch.manual_seed(1)
    model = build_model('stacked_cnn_lstm', 64, 8, chunk_frames=32, chunk_stride=32).eval()
    steps = []
    model.lstm.register_forward_hook(lambda _, args, out: steps.append(out[0]))
    logits = model(features(2, 64, 96), torch.tensor([96, 32]))
    assert steps[0].shape == (2, 3, 64)
    decisive = torch.stack((steps[0][0, 2], steps[0][1, 0]))
    torch.testing.assert_close(logits, model.classifier(decisive))


def test_hyperparameters_reach_the_model():
    model = build_model('stacked_cnn_lstm', 64, 8, conv_dropout=0.15, lstm_dropout=0.25)
    rates = {layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)}
    assert rates == {0.15, 0.25}
