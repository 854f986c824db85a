"""The registry of architectures; one in each file.

Every model maps standardised features (batch, n_features, frames) and their true lengths in
frames (batch,) to logits (batch, n_classes). A clip's logits do not depend on its padding, except
through batch normalisation in training, whose statistics are those of whole batches. Without
lengths every clip is as long as the batch. `min_frames` is the least length; a shorter clip is a
ValueError.
"""

import difflib
import inspect
from typing import Any

from torch import nn

from ser_ros import SerError
from ser_ros.models.cnn_lstm import CnnLstm
from ser_ros.models.ensemble import Ensemble
from ser_ros.models.functionals import Functionals
from ser_ros.models.parallel_cnn_attention_lstm import ParallelCnnAttentionLstm
from ser_ros.models.parallel_cnn_transformer import ParallelCnnTransformer
from ser_ros.models.parallel_fusion import ParallelFusion
from ser_ros.models.parallel_pitch_cnn import ParallelPitchCnn
from ser_ros.models.stacked_cnn_attention_lstm import StackedCnnAttentionLstm
from ser_ros.models.stacked_cnn_lstm import StackedCnnLstm
from ser_ros.models.vgg import Vgg
from ser_ros.models.vggish import Vggish

MODELS = {
    'parallel_cnn_transformer': ParallelCnnTransformer,
    'parallel_cnn_attention_lstm': ParallelCnnAttentionLstm,
    'stacked_cnn_lstm': StackedCnnLstm,
    'stacked_cnn_attention_lstm': StackedCnnAttentionLstm,
    'cnn_lstm': CnnLstm,
    'vgg': Vgg,
    'vggish': Vggish,
    'parallel_fusion': ParallelFusion,
    'parallel_pitch_cnn': ParallelPitchCnn,
    'functionals': Functionals,
    'ensemble': Ensemble,
}


def count_parameters(model: nn.Module) -> int:
    """The number of parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters())


def model_class(architecture: str) -> type[nn.Module]:
    """The class of an architecture; SerError for an unknown one."""
    if architecture not in MODELS:
        raise SerError(f'unknown architecture {architecture!r}; known: {", ".join(MODELS)}')
    return MODELS[architecture]


def default_hyperparameters(architecture: str) -> dict[str, Any]:
    """Hyperparameter of `build_model` → default; SerError for an unknown architecture."""
    parameters = list(inspect.signature(model_class(architecture)).parameters.values())
    return {parameter.name: parameter.default for parameter in parameters[2:]}


def build_model(
    architecture: str, n_features: int, n_classes: int, /, **hyperparameters: Any
) -> nn.Module:
    """Build an untrained model; SerError for an unknown architecture or hyperparameter."""
    cls, known = model_class(architecture), default_hyperparameters(architecture)
    for name in hyperparameters:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, cutoff=0.0)
            raise SerError(
                f'{architecture} has no hyperparameter {name!r}; did you mean {near[0]!r}?'
            )
    try:
        return cls(n_features, n_classes, **hyperparameters)
    except (TypeError, ValueError) as error:
        raise SerError(f'{architecture} cannot use these hyperparameters: {error}') from error
