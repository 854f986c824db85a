"""Write encoders/smart_turn_convolutions.safetensors from the ONNX file of Smart Turn 3.2.

    pip download --no-deps pipecat-ai==1.14.0
    unzip -j pipecat_ai-1.14.0-*.whl '*/smart-turn-v3.2-cpu.onnx'
    python tools/import_encoder.py smart-turn-v3.2-cpu.onnx encoders/smart_turn_convolutions.safetensors

Nothing is rounded: its weights are integers of 8 bits with a scale for each channel.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from safetensors.numpy import save_file


def convolutions(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The tensors of `ser_ros.speech_encoder.SpeechConvolutions`."""
    stored = {
        tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer
    }
    tensors = {}
    for name, source in (('first', 'conv1'), ('second', 'conv2')):
        prefix = f'inner.encoder.{source}.'
        if stored[f'{prefix}weight_zero_point'].any():
            raise SystemExit(f'{source}: the integers of its weights are not symmetric')
        bias = stored[f'{prefix}bias_quantized'] * stored[f'{prefix}bias_quantized_scale']
        tensors |= {
            f'{name}_weight': stored[f'{prefix}weight_quantized'],
            f'{name}_scale': stored[f'{prefix}weight_scale'],
            f'{name}_bias': bias.astype(np.float32),
        }
    return tensors


if __name__ == '__main__':
    save_file(convolutions(onnx.load(Path(sys.argv[1]))), sys.argv[2])
