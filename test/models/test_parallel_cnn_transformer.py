"""The research's system: its size, its shapes, and that padding means nothing to it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_ros import SerError
from ser_ros.models import MODELS, build_model
from ser_ros.models.parallel_cnn_transformer import MIN_FRAMES, ParallelCnnTransformer


def features(batch, n_mels, n_frames, seed=1):
    return torch.randn(batch, n_mels, n_frames, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(1)
    return build_model('parallel_cnn_transformer', 64, 8).eval()


def test_parameters_are_those_of_the_research():
    model = build_model('parallel_cnn_transformer', 128, 8)
    assert sum(parameter.numel() for parameter in model.parameters()) == 395_176


@torch.inference_mode()
def test_the_research_shape():
    model = build_model('parallel_cnn_transformer', 128, 8).eval()
    assert model(features(1, 128, 563)).shape == (1, 8)


@pytest.mark.parametrize(('n_mels', 'n_classes'), [(64, 8), (40, 2), (80, 5)])
@torch.inference_mode()
def test_other_mels_and_classes(n_mels, n_classes):
    model = build_model('parallel_cnn_transformer', n_mels, n_classes).eval()
    assert model(features(3, n_mels, 298)).shape == (3, n_classes)


@settings(max_examples=40)
@given(
    st.lists(st.integers(MIN_FRAMES, 300), min_size=1, max_size=5),
    st.integers(0, 100),
    st.floats(-50, 50),
)
@torch.inference_mode()
def test_logits_do_not_depend_on_padding(model, lengths, n_more, padding):
    clips = [features(1, 64, length, seed)[0] for seed, length in enumerate(lengths)]
    batch = torch.full((len(clips), 64, max(lengths) + n_more), padding)
    for row, clip in zip(batch, clips):
        row[:, : clip.shape[1]] = clip
    logits = model(batch, torch.tensor(lengths))
    for row, clip in zip(logits, clips):
        torch.testing.assert_close(row, model(clip[None])[0], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_every_true_frame_counts(model):
    x = features(1, 64, 160)
    changed = x.clone()
    changed[..., 159] += 3
    assert not torch.allclose(model(x), model(changed), atol=1e-5)


@torch.inference_mode()
def test_a_gain_changes_nothing_unless_it_shall():
    torch.manual_seed(1)
    invariant = ParallelCnnTransformer(64, 8, level_invariant=True).eval()
    sensitive = ParallelCnnTransformer(64, 8, level_invariant=False).eval()
    x = features(2, 64, 200)
    torch.testing.assert_close(invariant(x + 1.5), invariant(x), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(sensitive(x + 1.5), sensitive(x), atol=1e-2)


@torch.inference_mode()
def test_silence_has_finite_logits(model):
    assert model(torch.full((1, 64, 100), -6.0)).isfinite().all()
    assert model(torch.zeros(1, 64, 100)).isfinite().all()


@pytest.mark.parametrize('n_frames', [0, 1, MIN_FRAMES - 1])
def test_too_few_frames_is_an_error_that_says_how_many(model, n_frames):
    with pytest.raises(ValueError, match=rf'{n_frames} frames .* {MIN_FRAMES}'):
        model(torch.zeros(1, 64, n_frames))


def test_training_reaches_every_parameter():
    torch.manual_seed(1)
    model = build_model('parallel_cnn_transformer', 64, 8, conv_dropout=0.0, encoder_dropout=0.0)
    logits = model(features(4, 64, 120), torch.tensor([120, 90, 60, 30]))
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A convolution's bias is taken out again by the batch norm behind it, and a key's bias
        # by the softmax: both gradients are zero but for rounding.
        if not name.endswith(('conv.bias', 'in_proj_bias')):
            assert parameter.grad.abs().max() > 1e-8, name


def test_hyperparameters_reach_the_model():
    model = build_model('parallel_cnn_transformer', 64, 8, conv_dropout=0.15, encoder_dropout=0.25)
    rates = {layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)}
    assert rates == {0.15, 0.25}


def test_unknown_architecture_names_the_known():
    with pytest.raises(SerError, match=f"'resnet'.*{next(iter(MODELS))}"):
        build_model('resnet', 64, 8)


@pytest.mark.parametrize('hyperparameters', [{'depth': 3}, {'conv_dropout': 7}])
def test_wrong_hyperparameter_is_named(hyperparameters):
    with pytest.raises(SerError, match=r'depth|7'):
        build_model('parallel_cnn_transformer', 64, 8, **hyperparameters)
