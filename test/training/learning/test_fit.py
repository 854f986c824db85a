"""Devices and processes of a training."""

import pytest
import torch

from ser_ros import SerError
from ser_ros.training.learning.fit import Compute


@pytest.mark.parametrize('values', [{'devices': 0}, {'nodes': 0}, {'workers': -1}])
def test_an_invalid_number_of_devices_nodes_or_workers(values):
    with pytest.raises(SerError, match=f'{next(iter(values))} is .*, not . or more'):
        Compute('cpu', **values)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_more_gpus_than_there_are():
    n = torch.cuda.device_count()
    for device in ('cuda', 'auto'):
        with pytest.raises(SerError, match=f'devices is {n + 1}, .* there are {n}'):
            Compute(device, devices=n + 1)
