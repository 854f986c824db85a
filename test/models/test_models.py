"""What every architecture must fulfil."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_ros import SerError
from ser_ros.models import MODELS, build_model, default_hyperparameters
from ser_ros.models.transfer import TransferModel

SMALL = {
    'stacked_cnn_lstm': {'chunk_frames': 32, 'chunk_stride': 16},
    'stacked_cnn_attention_lstm': {'chunk_frames': 32, 'chunk_stride': 16},
    'vgg': {'chunk_frames': 32, 'chunk_stride': 32},
}
FROM_SCRATCH = [name for name in MODELS if not issubclass(MODELS[name], TransferModel)]
LEVEL_INVARIANT = [n for n in MODELS if 'level_invariant' in default_hyperparameters(n)]
N_FEATURES = 32


@pytest.fixture(scope='module', params=MODELS)
def model(request, trained_norms):
    torch.manual_seed(1)
    small = SMALL.get(request.param, {})
    return trained_norms(build_model(request.param, N_FEATURES, 4, **small))


@settings(max_examples=10)
@given(
    st.lists(st.integers(16, 120), min_size=1, max_size=4),
    st.integers(0, 50),
    st.floats(-50, 50),
)
@torch.inference_mode()
def test_logits_do_not_depend_on_padding(model, features, lengths, n_more, padding):
    clips = [features(1, N_FEATURES, length, seed)[0] for seed, length in enumerate(lengths)]
    batch = torch.full((len(clips), N_FEATURES, max(lengths) + n_more), padding)
    for row, clip in zip(batch, clips):
        row[:, : clip.shape[1]] = clip
    logits = model(batch, torch.tensor(lengths))
    assert logits.shape == (len(clips), 4)
    for row, clip in zip(logits, clips):
        torch.testing.assert_close(row, model(clip[None])[0], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_the_first_and_the_last_frame_count(model, features):
    x = features(1, N_FEATURES, 96)
    for frame in (0, 95):
        changed = x.clone()
        changed[..., frame] += 3
        assert abs(model(x) - model(changed)).max() > 1e-5


@torch.inference_mode()
def test_silence_has_finite_logits(model):
    assert model(torch.full((1, N_FEATURES, 100), -6.0)).isfinite().all()
    assert model(torch.zeros(1, N_FEATURES, 100)).isfinite().all()


@pytest.mark.parametrize('share', [0, 0.1, 0.99])
def test_too_few_frames_are_an_error_with_the_least_number(model, share):
    n_frames, least = int(share * model.min_frames), model.min_frames
    assert least in (1, 4, 16)
    with pytest.raises(ValueError, match=rf'^{n_frames} frames .* {least} '):
        model(torch.zeros(1, N_FEATURES, n_frames))
    with pytest.raises(ValueError, match=rf'^{n_frames} frames .* {least} '):
        model(torch.zeros(2, N_FEATURES, 20), torch.tensor([20, n_frames]))


@pytest.mark.parametrize('name', [name for name in MODELS if name != 'vggish'])
@torch.inference_mode()
def test_any_number_of_features(name, features):
    for n_features in (13, 39, 40, 80):
        model = build_model(name, n_features, 2, **SMALL.get(name, {})).eval()
        assert model(features(2, n_features, 100), torch.tensor([100, 16])).shape == (2, 2)


@pytest.mark.parametrize('name', LEVEL_INVARIANT)
@torch.inference_mode()
def test_a_gain_changes_nothing_unless_the_level_is_kept(name, features):
    x = features(2, N_FEATURES, 120)
    for level_invariant in (True, False):
        torch.manual_seed(1)
        settings = {**SMALL.get(name, {}), 'level_invariant': level_invariant}
        model = build_model(name, N_FEATURES, 4, **settings).eval()
        change = abs(model(x + 1.5) - model(x)).max()
        assert (change < 1e-4) == level_invariant
        assert level_invariant or change > 1e-3


@pytest.mark.parametrize('name', FROM_SCRATCH)
@pytest.mark.parametrize('precision', [torch.float32, torch.bfloat16])
def test_training_reaches_every_parameter(name, features, precision):
    torch.manual_seed(1)
    model = build_model(name, N_FEATURES, 4)
    for layer in model.modules():
        if hasattr(layer, 'p'):
            layer.p = 0.0  # dropout may leave nothing of so small a batch
    with torch.autocast('cpu', torch.bfloat16, enabled=precision == torch.bfloat16):
        logits = model(features(4, N_FEATURES, 300), torch.tensor([300, 240, 180, 60]))
    loss = torch.nn.functional.cross_entropy(logits.float(), torch.tensor([0, 1, 2, 3]))
    loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        # A convolution's bias is taken out again by the batch norm behind it, and a key's bias
        # and a score's by the softmax: these gradients are zero but for rounding.
        if not parameter_name.endswith(
            ('conv.bias', 'in_proj_bias', 'score.bias', 'score.2.bias')
        ):
            assert parameter.grad.abs().max() > 1e-8, parameter_name


def test_unknown_architecture_names_the_known():
    with pytest.raises(SerError, match=f"'resnet'.*{'.*'.join(MODELS)}"):
        build_model('resnet', 64, 8)


@pytest.mark.parametrize('name', MODELS)
def test_wrong_hyperparameter_is_named(name):
    with pytest.raises(SerError, match=rf'^{name} .*depth'):
        build_model(name, 64, 8, depth=3)


def test_an_unknown_hyperparameter_comes_with_the_nearest():
    with pytest.raises(SerError, match=r"'conv_dropuot'; did you mean 'conv_dropout'\?"):
        build_model('parallel_fusion', 64, 8, conv_dropuot=0.1)


def test_impossible_hyperparameter_is_named():
    with pytest.raises(SerError, match=r'7'):
        build_model('parallel_cnn_transformer', 64, 8, conv_dropout=7)


def test_torchvision_waits_for_the_one_that_needs_it():
    code = 'import ser_ros.models, sys; print("torchvision" in sys.modules)'
    out = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True)
    assert out.stdout == 'False\n'
