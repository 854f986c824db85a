"""The tool that takes the speech encoder's first layers out of their published file."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

TOOL = Path(__file__).parents[2] / 'tools' / 'import_encoder.py'


def write_model(path: Path, zero_point: int = 0) -> dict[str, np.ndarray]:
    """A file with the initializers of two quantised convolutions; returns their values."""
    rng = np.random.default_rng(1)
    values = {}
    for source, n_in in (('conv1', 3), ('conv2', 4)):
        prefix = f'inner.encoder.{source}.'
        values |= {
            f'{prefix}weight_quantized': rng.integers(-127, 128, (4, n_in, 3)).astype(np.int8),
            f'{prefix}weight_scale': rng.random(4, dtype=np.float32),
            f'{prefix}weight_zero_point': np.full(4, zero_point, np.int8),
            f'{prefix}bias_quantized': rng.integers(-1000, 1000, 4).astype(np.int32),
            f'{prefix}bias_quantized_scale': rng.random(4, dtype=np.float32),
        }
    x = helper.make_tensor_value_info('x', TensorProto.FLOAT, [1])
    graph = helper.make_graph(
        [helper.make_node('Identity', ['x'], ['y'])],
        'encoder',
        [x],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    onnx.save(helper.make_model(graph), path)
    return values


def import_encoder(source: Path, target: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, TOOL, source, target], capture_output=True, text=True, check=False
    )


def test_integers_and_scales_are_taken_over_as_they_are(tmp_path):
    values = write_model(tmp_path / 'model.onnx')
    done = import_encoder(tmp_path / 'model.onnx', tmp_path / 'weights.safetensors')
    assert done.returncode == 0, done.stderr
    tensors = load_file(tmp_path / 'weights.safetensors')
    for name, source in (('first', 'conv1'), ('second', 'conv2')):
        prefix = f'inner.encoder.{source}.'
        weight = tensors[f'{name}_weight']
        assert weight.dtype == np.int8
        np.testing.assert_array_equal(weight, values[f'{prefix}weight_quantized'])
        np.testing.assert_array_equal(tensors[f'{name}_scale'], values[f'{prefix}weight_scale'])
        bias = values[f'{prefix}bias_quantized'] * values[f'{prefix}bias_quantized_scale']
        np.testing.assert_allclose(tensors[f'{name}_bias'], bias, rtol=1e-6)
    assert len(tensors) == 6


def test_integers_with_an_offset_are_refused(tmp_path):
    write_model(tmp_path / 'model.onnx', zero_point=3)
    done = import_encoder(tmp_path / 'model.onnx', tmp_path / 'weights.safetensors')
    assert done.returncode == 1
    assert done.stderr == 'conv1: the integers of its weights are not symmetric\n'
    assert not (tmp_path / 'weights.safetensors').exists()
