"""The baseline."""

import pytest
import torch

from ser_ros.models import build_model


def test_parameters():
    model = build_model('cnn_lstm', 128, 8)
    assert sum(parameter.numel() for parameter in model.parameters()) == 94_376


@pytest.mark.parametrize(
    ('shape', 'n_rows', 'n_columns'), [((128, 563), 1, 35), ((64, 298), 1, 18), ((256, 98), 2, 6)]
)
@torch.inference_mode()
def test_a_column_for_every_sixteen_frames(features, shape, n_rows, n_columns):
    model = build_model('cnn_lstm', shape[0], 8).eval()
    sizes = {}
    model.cnn.register_forward_hook(lambda _, args, out: sizes.update(maps=out[0].shape))
    model.lstm.register_forward_pre_hook(lambda _, args: sizes.update(steps=args[0].shape))
    assert model(features(1, *shape)).shape == (1, 8)
    assert sizes == {'maps': (1, 64, n_rows, n_columns), 'steps': (1, n_columns, 64)}


def test_hyperparameters_reach_the_model():
    model = build_model('cnn_lstm', 64, 8, conv_dropout=0.15, lstm_dropout=0.25)
    rates = {layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)}
    assert rates == {0.15, 0.25}
