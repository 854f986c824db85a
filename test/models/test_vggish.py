"""VGGish."""

import pytest
import torch

from ser_ros.models import build_model
from ser_ros.models.transfer import published_parameters


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(1)
    return build_model('vggish', 64, 4).eval()


def test_parameters_are_those_that_were_published(model):
    assert published_parameters(model) == 72_141_184
    assert sum(p.numel() for p in model.head.parameters()) == 128 * 64 + 64 + 64 * 4 + 4


@torch.inference_mode()
def test_values_are_flattened_as_the_published_layers_expect(model, features):
    """Frames by mels, channels last: what VGGish's first release in TensorFlow did."""
    examples = features(2, 64, 96)
    maps = model.features(examples.transpose(1, 2)[:, None])
    assert maps.shape == (2, 512, 6, 4)
    flat = torch.stack(
        [maps[:, :, frame, mel] for frame in range(6) for mel in range(4)], dim=1
    ).flatten(1)
    torch.testing.assert_close(model.embed(examples), model.embeddings(flat))


@torch.inference_mode()
def test_other_numbers_of_features_have_the_same_output_size(model, features):
    for n_features in (13, 40, 128):
        assert model(features(1, n_features, 96)).shape == (1, 4)


@torch.inference_mode()
def test_examples_follow_each_other_and_the_last_ends_with_the_clip(model, features):
    model.level_invariant = False  # the level that is taken out is the whole clip's
    x = features(1, 64, 200)
    examples = [model(x[..., start : start + 96]) for start in (0, 96, 200 - 96)]
    torch.testing.assert_close(model(x), sum(examples) / 3)


@torch.inference_mode()
def test_an_untrained_model_reacts_to_its_input(model, features):
    """Without suitable initial weights the output of a deep stack without batch norm is constant."""
    assert 0.1 < model.embed(features(8, 64, 96)).std(dim=0).mean() < 10


def test_dropout_reaches_the_head_and_the_wide_layers():
    with torch.device('meta'):
        model = build_model('vggish', 64, 8, dropout=0.15, embedding_dropout=0.25)
    assert model.head[2].p == 0.15
    widths = []

    def count(_, inputs, __):
        widths.append(inputs[0].shape[1])

    model.embedding_dropout.register_forward_hook(count)
    model.embed(torch.empty(1, 64, 96, device='meta'))
    assert (model.embedding_dropout.p, widths) == (0.25, [4096, 4096])
