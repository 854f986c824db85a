"""The registry of architectures; one a file.

Every model maps a standardised spectrogram (batch, n_mels, frames) and its true lengths in frames
(batch,) to logits (batch, n_classes); a clip's logits do not depend on what it is padded with.
"""

from typing import Any

from torch import nn

from ser_ros import SerError
from ser_ros.models.parallel_cnn_transformer import ParallelCnnTransformer

MODELS = {'parallel_cnn_transformer': ParallelCnnTransformer}


def build_model(
    architecture: str, n_mels: int, n_classes: int, /, **hyperparameters: Any
) -> nn.Module:
    """Build an untrained model; SerError for an unknown architecture or hyperparameter."""
    if architecture not in MODELS:
        raise SerError(f'unknown architecture {architecture!r}; known: {", ".join(MODELS)}')
    try:
        return MODELS[architecture](n_mels, n_classes, **hyperparameters)
    except (TypeError, ValueError) as error:
        raise SerError(f'{architecture} does not take these hyperparameters: {error}') from error
