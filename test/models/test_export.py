"""Every architecture becomes a program for clips of any length."""

import pytest
import torch
from torch.export import Dim, export
from torch.export._patches import register_lstm_while_loop_decomposition

from ser_ros.models import MODELS, build_model

# What torch says of its own programs.
pytestmark = pytest.mark.filterwarnings(
    'ignore:_check_is_size:FutureWarning', 'ignore:The tensor attributes:UserWarning'
)

SMALL = {
    'stacked_cnn_lstm': {'chunk_frames': 32, 'chunk_stride': 16},
    'stacked_cnn_attention_lstm': {'chunk_frames': 32, 'chunk_stride': 16},
    'vgg': {'chunk_frames': 32, 'chunk_stride': 16},
    'parallel_fusion': {
        'channels_3x3': (4, 8),
        'channels_5x5': (4, 8),
        'pools': ((2, 2), (2, 4)),
        'encoder_layers': 1,
    },
}


@pytest.mark.parametrize('name', [name for name in MODELS if name != 'vggish'])
@torch.no_grad()
def test_a_program_gives_the_models_logits_at_any_length(name, features, trained_norms):
    torch.manual_seed(1)
    model = trained_norms(build_model(name, 32, 4, **SMALL.get(name, {})))
    frames = {0: Dim('batch'), 2: Dim('frames', min=model.min_frames)}
    with register_lstm_while_loop_decomposition():
        program = export(
            model,
            (features(2, 32, 100),),
            dynamic_shapes={'x': frames},
            # Of the transformers' masks it cannot prove what holds for any length.
            prefer_deferred_runtime_asserts_over_guards=True,
        ).module()
    for batch, n_frames in ((1, 16), (1, 33), (3, 64), (2, 301)):
        x = features(batch, 32, n_frames)
        torch.testing.assert_close(program(x), model(x), atol=1e-5, rtol=0)
