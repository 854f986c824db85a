"""What the tests of models share."""

import pytest
import torch


@pytest.fixture(scope='session')
def features():
    """A function that draws standardised features (batch, n_features, frames)."""

    def draw(batch, n_features, n_frames, seed=1):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, n_features, n_frames, generator=generator)

    return draw


@pytest.fixture(scope='session')
def trained_norms():
    """A function: batch norms as after training; a mean of zero could hide errors."""

    def train(module):
        generator = torch.Generator().manual_seed(2)
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_(generator=generator)
                layer.running_var.uniform_(0.5, 2, generator=generator)
                layer.bias.data.normal_(generator=generator)
        return module.eval()

    return train
