"""VGG16 on spectrograms."""

import sys

import pytest
import torch
import torchvision

from ser_ros import SerError
from ser_ros.models import build_model
from ser_ros.models.transfer import published_parameters


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(1)
    return build_model('vgg', 64, 4, chunk_frames=64, chunk_stride=32).eval()


def test_parameters_are_those_of_the_research():
    with torch.device('meta'):
        model = build_model('vgg', 128, 8)
    assert published_parameters(model) == 14_714_688
    assert sum(parameter.numel() for parameter in model.head.parameters()) == 4_328_200
    assert sum(parameter.numel() for parameter in model.parameters()) == 14_714_688 + 4_328_200


def test_published_layers_are_those_of_torchvision():
    with torch.device('meta'):
        ours = build_model('vgg', 128, 8).features.state_dict()
        theirs = torchvision.models.vgg16().features.state_dict()
    assert {name: weight.shape for name, weight in ours.items()} == {
        name: weight.shape for name, weight in theirs.items()
    }


def test_the_address_is_torchvisions(model):
    weights = torchvision.models.VGG16_Weights.IMAGENET1K_V1
    assert weights.url == model.PUBLISHED.url


@torch.inference_mode()
def test_an_image_has_three_equal_channels(model, features):
    chunk = features(1, 128, 128)
    picture = torch.stack((chunk[0], chunk[0], chunk[0]))
    expected = model.features(picture[None]).flatten(1)
    assert expected.shape == (1, 8192)
    torch.testing.assert_close(model.embed(chunk), expected)


@torch.inference_mode()
def test_a_clips_score_is_the_mean_log_probability_of_its_chunks(model, features):
    model.level_invariant = False  # the level that is taken out is the whole clip's
    x = features(1, 64, 100)
    chunks = [model(x[..., start : start + 64]) for start in (0, 100 - 64)]
    torch.testing.assert_close(chunks[0].exp().sum(), torch.tensor(1.0))
    torch.testing.assert_close(model(x), (chunks[0] + chunks[1]) / 2)


@torch.inference_mode()
def test_an_untrained_model_reacts_to_its_input(model, features):
    """Without suitable initial weights the output of a deep stack without batch norm is constant."""
    embeddings = model.embed(features(8, 64, 64))
    assert 0.1 < embeddings.std(dim=0).mean() < 10


def test_it_trains_in_bfloat16(features):
    model = build_model('vgg', 32, 4, chunk_frames=32, chunk_stride=16)
    with torch.autocast('cpu', torch.bfloat16):
        logits = model(features(2, 32, 64), torch.tensor([64, 20]))
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert all(p.grad.isfinite().all() and (p.grad != 0).any() for p in model.parameters())


def test_a_missing_torchvision_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torchvision.models.vgg', None)
    with pytest.raises(SerError, match=r'^vgg needs a torchvision .*pip install .*train'):
        build_model('vgg', 64, 8)
