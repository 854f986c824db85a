"""The registry of architectures; one in each file.

Every model maps standardised features (batch, n_features, frames) and their true lengths in
frames (batch,) to logits (batch, n_classes). A clip's logits do not depend on its padding, except
through batch normalisation in training, whose statistics are those of whole batches. Without
lengths every clip is as long as the batch. `min_frames` is the least length; a shorter clip is a
ValueError.
"""

import difflib
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ser_ros import SerError
from ser_ros.models.cnn_lstm import CnnLstm
from ser_ros.models.parallel_cnn_attention_lstm import ParallelCnnAttentionLstm
from ser_ros.models.parallel_cnn_transformer import ParallelCnnTransformer
from ser_ros.models.parallel_fusion import ParallelFusion
from ser_ros.models.perceptron import Perceptron
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
    'perceptron': Perceptron,
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
        if not _is_like(hyperparameters[name], known[name]):
            raise SerError(
                f'{architecture} cannot use the hyperparameter {name}={hyperparameters[name]!r}: '
                f'it must be like {known[name]!r}'
            )
    try:
        return cls(n_features, n_classes, **hyperparameters)
    # The constructors of torch raise what they like: an AssertionError, a ZeroDivisionError, ...
    except (TypeError, ValueError, ArithmeticError, LookupError, AssertionError) as error:
        raise SerError(f'{architecture} cannot use these hyperparameters: {error}') from error


def _is_like(value: Any, example: Any) -> bool:
    """Whether a value has the type of another; of lists, each item that of the first item."""
    if isinstance(example, Mapping):
        return isinstance(value, Mapping) and example.keys() <= value.keys()
    if isinstance(example, Sequence) and not isinstance(example, str):
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        return is_list and all(_is_like(item, example[0]) for item in value)
    if isinstance(example, float):
        return type(value) in (int, float) and -math.inf < value < math.inf
    return type(value) is type(example)
