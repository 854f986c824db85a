"""The research's `stacked_cnn_attention_lstm`."""

import torch

from ser_ros.models import build_model


def test_parameters_are_those_of_the_research():
    model = build_model('stacked_cnn_attention_lstm', 128, 8)
    assert sum(parameter.numel() for parameter in model.parameters()) == 582_761


@torch.inference_mode()
def test_the_research_shape(features):
    model = build_model('stacked_cnn_attention_lstm', 128, 8).eval()
    sizes = {}
    model.cnn.register_forward_pre_hook(lambda _, args: sizes.update(chunks=args[0].shape))
    model.cnn.blocks[-1].register_forward_hook(
        lambda _, args, out: sizes.update(maps=out[0].shape)
    )
    model.attention.register_forward_pre_hook(lambda _, args: sizes.update(steps=args[0].shape))
    assert model(features(1, 128, 563)).shape == (1, 8)
    assert sizes == {'chunks': (7, 128, 128), 'maps': (7, 64, 4, 4), 'steps': (1, 7, 128)}


@torch.inference_mode()
def test_a_smaller_chunk_leaves_as_many_values(features):
    model = build_model('stacked_cnn_attention_lstm', 64, 8, chunk_frames=64, chunk_stride=32)
    model.eval()
    widths = []
    model.lstm.register_forward_pre_hook(lambda _, args: widths.append(args[0].shape))
    model(features(1, 64, 298))
    assert widths == [(1, 8, 1024)]


def test_padding_is_not_in_the_statistics(features):
    """Empty chunks of shorter clips would change the statistics of the batch norm."""
    models = []
    for n_more in (0, 300):
        torch.manual_seed(1)
        model = build_model('stacked_cnn_attention_lstm', 64, 8).train()
        x = torch.nn.functional.pad(features(2, 64, 200), (0, n_more))
        model(x, torch.tensor([200, 200]))
        models.append(model)
    alone, padded = (model.cnn.blocks[0].norm.running_mean for model in models)
    torch.testing.assert_close(alone, padded)


def test_hyperparameters_reach_the_model():
    model = build_model('stacked_cnn_attention_lstm', 64, 8, conv_dropout=0.15, lstm_dropout=0.25)
    rates = {layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)}
    assert rates == {0.15, 0.25}
