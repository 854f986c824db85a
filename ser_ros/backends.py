"""The choice of a backend."""

import ctypes
import importlib.util
import logging
import re
from pathlib import Path
from typing import Union

from ser_ros import SerError
from ser_ros.stream.backend import Backend

logger = logging.getLogger(__name__)

BACKENDS = ('auto', 'torch', 'onnx')


def load_backend(
    name: Union[str, Path] = '',
    backend: str = 'auto',
    device: str = 'auto',
    num_threads: int = 1,
) -> Backend:
    """A bundle (see `find_bundle`) on a backend, not warmed up.

    `auto` is torch on a GPU and onnx on a CPU, if the bundle has ONNX programs. `device`: auto, cpu,
    cuda or cuda:N. `num_threads`: of the CPU, in torch those of the process; a window is too little
    work for several. BundleError for a bundle that cannot be used on a stream; SerError for a device
    that is not there, and for a backend that is not installed.
    """
    if backend not in BACKENDS:
        raise SerError(f'backend {backend!r} is not one of {", ".join(BACKENDS)}')
    if not re.fullmatch('auto|cpu|cuda(:[0-9]+)?', device):
        raise SerError(f'device {device!r} is not one of auto, cpu, cuda, cuda:N')
    if backend == 'onnx' and device not in ('auto', 'cpu'):
        raise SerError(f'device {device!r}: the backend onnx runs on the CPU; use backend torch')
    if backend == 'torch' or device.startswith('cuda'):
        return _load_torch(name, device, num_threads)
    if backend == 'auto' and device == 'auto' and _has_torch() and has_gpu():
        return _load_torch(name, device, num_threads)
    from ser_ros.stream.onnx_backend import NoProgramsError, load_onnx

    try:
        return load_onnx(name, num_threads)
    except NoProgramsError as error:
        if not _has_torch():
            raise
        if backend == 'auto':
            return _load_torch(name, 'cpu', num_threads)
        logger.warning('%s; until then they are made at each start, which takes a minute', error)
    from ser_ros.bundle import load_bundle
    from ser_ros.export import make_programs
    from ser_ros.stream.onnx_backend import OnnxBackend

    bundle = load_bundle(name)
    mean, programs = bundle.frontend.mean.numpy(), make_programs(bundle)
    return OnnxBackend(bundle.info, programs, mean, bundle.path, bundle.digest, num_threads)


def _load_torch(name: Union[str, Path], device: str, num_threads: int) -> Backend:
    if not _has_torch():
        raise SerError(
            'torch is not installed: use backend onnx on the CPU, or install torch '
            '(docs/installation.md)'
        )
    import torch

    from ser_ros.bundle import load_bundle
    from ser_ros.stream.torch_backend import TorchBackend

    torch.set_num_threads(num_threads)
    return TorchBackend(load_bundle(name), device)


def _has_torch() -> bool:
    return importlib.util.find_spec('torch') is not None


def has_gpu() -> bool:
    """Whether NVIDIA's driver finds a GPU: asked without torch, whose import takes seconds."""
    try:
        driver = ctypes.CDLL('libcuda.so.1')
    except OSError:
        return False
    count = ctypes.c_int()
    return (
        driver.cuInit(0) == 0
        and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
        and count.value > 0
    )
