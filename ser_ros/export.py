"""A bundle as programs: of whole clips for other runtimes, and of frames and windows for its own stream."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export._patches import register_lstm_while_loop_decomposition

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE
from ser_ros.audio.sources import read_audio
from ser_ros.bundle import Bundle, weights_of
from ser_ros.programs import Programs, hash_weights
from ser_ros.shipped import shipped_file
from ser_ros.stream.backend import Backend
from ser_ros.stream.onnx_backend import OnnxBackend
from ser_ros.stream.torch_backend import TorchBackend
from ser_ros.stream.types import Window

SUFFIXES = {'onnx': '.onnx', 'torch': '.pt2'}
METADATA = 'ser_ros.json'
"""Name of the extra file of a torch.export program; ONNX has the same under its own keys."""
TOLERANCE = 1e-3
"""Largest difference of a log-probability from the model's: a thousandth of the probability.

With pooled front-ends float32 arithmetic in another order differs by a tenth of it.
"""


def export_bundle(
    bundle: Bundle, out: Path, formats: Sequence[str] = tuple(SUFFIXES)
) -> dict[Path, float]:
    """Write `out`.onnx and `out`.pt2; return how far each is from the model (log-probabilities).

    Their input is float32 (batch, samples) at the front-end's rate, with at least
    `min_samples` samples; their output (batch, n_classes). Nothing is written unless all
    formats agree with the model within TOLERANCE for several lengths of sound. SerError if they do
    not, or if the files cannot be written.
    """
    with _quiet():
        exported = _export(bundle)
        made = {format_: _MAKERS[format_](exported, _metadata(bundle)) for format_ in formats}
    differences = {}
    for format_, data in made.items():
        path = out.with_name(out.name + SUFFIXES[format_])
        differences[path] = _difference(bundle, _RUNNERS[format_](data))
        if not differences[path] <= TOLERANCE:
            raise SerError(
                f'{path} is not written: it differs by {differences[path]:.2g} from the '
                f'log-probabilities of bundle {bundle.path}, which is not within {TOLERANCE:g}'
            )
    _write(dict(zip(differences, made.values())))
    return differences


def min_samples(bundle: Bundle) -> int:
    """The least that a program takes: two frames at least, since torch.export takes a size of 1 as fixed."""
    frontend = bundle.frontend
    return max(bundle.min_samples, frontend.frame_length + frontend.hop_length)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # It logs an error about the loop of an LSTM, without consequences.
    logging.getLogger('torch._dynamo').setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # The exporters use functions that torch has deprecated.
        warnings.simplefilter('ignore')
        # Otherwise an LSTM is unrolled for the length of the example.
        with register_lstm_while_loop_decomposition():
            yield


def make_programs(bundle: Bundle) -> Programs:
    """The programs by which a stream needs no torch, of a bundle that runs on one.

    SerError if they disagree with the model by more than TOLERANCE, for windows of several lengths,
    alone and in a batch; BundleError for a bundle that does not run on a stream.
    """
    torch_backend = TorchBackend(bundle, 'cpu')
    frontend, geometry = bundle.frontend, torch_backend.geometry
    longest = frontend.n_frames(round(bundle.info.window * frontend.sample_rate))
    batch, frames = Dim('batch', min=1), Dim('frames', min=geometry.min_frames)
    power = torch.zeros(5, geometry.n_fft // 2 + 1)
    # Sizes that differ from all other dimensions, so that none is confused with them.
    window = (
        torch.zeros(3, geometry.n_rows, longest + 5),
        torch.tensor([longest + 5, longest, longest - 1]),
        torch.zeros(3, geometry.n_features, 1),
        torch.ones(()),
    )
    with _quiet():
        spectrum = _exported(_Spectrum(bundle), (power,), ({0: batch},))
        dimensions = ({0: batch, 2: frames}, {0: batch}, {0: batch}, {})
        score = _exported(_Score(bundle), window, dimensions)
        programs = Programs(
            _to_onnx(spectrum, ['power'], ['spectrum'], {}),
            _to_onnx(
                score,
                ['spectrum', 'lengths', 'mean', 'temperature'],
                ['log_probabilities', 'unadapted', 'clip_mean'],
                {},
            ),
            geometry,
            hash_weights(weights_of(frontend, bundle.model)),
        )
    voice = torch_backend.mean + frontend.std.numpy()
    onnx = OnnxBackend(bundle.info, programs, torch_backend.mean, bundle.path, bundle.digest)
    if not (difference := _largest_difference(torch_backend, onnx, longest, voice)) <= TOLERANCE:
        raise SerError(
            f'the ONNX programs of bundle {bundle.path} differ by {difference:.2g} from its '
            f'log-probabilities, which is not within {TOLERANCE:g}'
        )
    return programs


def _largest_difference(one: Backend, other: Backend, longest: int, mean: np.ndarray) -> float:
    """The largest of log-probabilities, for windows of up to `longest` frames.

    `mean`: (n_features, 1) of a voice.

    Infinite where frames or mean features differ.
    """
    geometry = one.geometry
    sound = _voice((longest + 1) * geometry.hop_length + geometry.frame_length, SAMPLE_RATE)
    frames = np.lib.stride_tricks.sliding_window_view(sound, geometry.frame_length)
    frames = frames[:: geometry.hop_length].astype(np.float32)
    spectrum = one.spectrum(frames)
    pairs, differences = [(spectrum, other.spectrum(frames))], []
    lengths = (longest, longest // 2, longest - 1, geometry.min_frames)
    means = (None, mean) if one.info.adaptation.by_voice else (None,)
    windows = [Window(spectrum[:, :n], 0, own) for n in lengths for own in means]
    for batch in (windows, *([window] for window in windows)):
        for mine, others in zip(one.score(batch), other.score(batch)):
            for name in ('log_probabilities', 'unadapted'):
                differences.append(np.abs(getattr(mine, name) - getattr(others, name)).max())
            pairs.append((mine.clip_mean, others.clip_mean))
    is_alike = all(np.allclose(*pair, rtol=1e-4, atol=1e-3) for pair in pairs)
    return float(max(differences)) if is_alike else float('inf')


class _Spectrum(nn.Module):
    def __init__(self, bundle: Bundle):
        super().__init__()
        self.frontend = bundle.frontend

    def forward(self, power: Tensor) -> Tensor:
        return self.frontend.rows(power.T)


class _Score(nn.Module):
    def __init__(self, bundle: Bundle):
        super().__init__()
        self.frontend = bundle.frontend
        self.model = bundle.model
        self.is_by_voice = bundle.info.adaptation.by_voice

    def forward(
        self, spectrum: Tensor, lengths: Tensor, mean: Tensor, temperature: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        features = self.frontend.features(spectrum, lengths)
        steps = self.frontend.n_steps(lengths)

        def classify(mean: Optional[Tensor]) -> Tensor:
            logits = self.model(self.frontend.standardise(features, mean), steps)
            return (logits / temperature).log_softmax(dim=-1)

        scores = classify(mean)
        # A stream gives no mean to a model that is not by voice.
        unadapted = classify(None) if self.is_by_voice else scores.clone()
        return scores, unadapted, self.frontend.clip_mean(features, steps)


class _Program(nn.Module):
    def __init__(self, bundle: Bundle):
        super().__init__()
        self.frontend = bundle.frontend
        self.model = bundle.model
        self.temperature = bundle.info.temperature

    def forward(self, waveform: Tensor) -> Tensor:
        features = self.frontend(waveform)
        return (self.model(features) / self.temperature).log_softmax(dim=-1)


def _export(bundle: Bundle) -> ExportedProgram:
    shape = {0: Dim('batch', min=1), 1: Dim('samples', min=min_samples(bundle))}
    # Length and batch size differ from all other dimensions, so that none is confused with them.
    example = torch.zeros(3, min_samples(bundle) + 3 * bundle.frontend.sample_rate + 77)
    return _exported(_Program(bundle), (example,), (shape,))


def _exported(
    module: nn.Module, example: tuple[Tensor, ...], dimensions: tuple[dict[int, Any], ...]
) -> ExportedProgram:
    """`dimensions`: those of each input that may have other sizes."""
    exported = torch.export.export(
        module.eval(),
        example,
        dynamic_shapes=dimensions,
        prefer_deferred_runtime_asserts_over_guards=True,
    )
    # Some assertions are guesses from the example about the memory layout, which fail for a batch
    # of one. Whether the program is right for other lengths is tested by running it.
    for node in list(exported.graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            exported.graph.erase_node(node)
    exported.graph.eliminate_dead_code()
    exported.graph_module.recompile()
    # Otherwise the program names source files of this machine.
    for module in exported.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop('stack_trace', None)
    return exported


def _metadata(bundle: Bundle) -> dict[str, Any]:
    info = bundle.info
    return {
        'class_names': info.class_names,
        **({'classes': {n: asdict(e) for n, e in info.classes.items()}} if info.classes else {}),
        'sample_rate': bundle.frontend.sample_rate,
        'min_samples': min_samples(bundle),
        'window': info.window,
        'threshold': info.threshold,
        'architecture': info.architecture,
        'corpora': list(info.corpora),
        'license': info.license,
    }


def _make_onnx(exported: ExportedProgram, metadata: dict[str, Any]) -> bytes:
    return _to_onnx(exported, ['waveform'], ['log_probabilities'], metadata)


def _to_onnx(
    exported: ExportedProgram,
    inputs: Sequence[str],
    outputs: Sequence[str],
    metadata: dict[str, Any],
) -> bytes:
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass  # a .pt2 needs no ONNX

    program = torch.onnx.export(
        exported, input_names=inputs, output_names=outputs, dynamo=True, verbose=False
    )
    # What the exporter notes of each operation for debugging: file names, half a megabyte.
    ClearMetadataAndDocStringPass()(program.model)
    for key, value in metadata.items():
        text = value if isinstance(value, str) else json.dumps(value)
        program.model.metadata_props[key] = text
    return program.model_proto.SerializeToString()


def _make_torch(exported: ExportedProgram, metadata: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.export.save(exported, file, extra_files={METADATA: json.dumps(metadata)})
    return file.getvalue()


def _run_onnx(data: bytes) -> Callable[[Tensor], Tensor]:
    session = onnxruntime.InferenceSession(data, providers=['CPUExecutionProvider'])
    return lambda waveform: torch.from_numpy(session.run(None, {'waveform': waveform.numpy()})[0])


def _run_torch(data: bytes) -> Callable[[Tensor], Tensor]:
    return torch.export.load(io.BytesIO(data)).module()


_MAKERS = {'onnx': _make_onnx, 'torch': _make_torch}
_RUNNERS = {'onnx': _run_onnx, 'torch': _run_torch}


@torch.inference_mode()
def _difference(bundle: Bundle, program: Callable[[Tensor], Tensor]) -> float:
    """The largest difference of a log-probability from the bundle's own."""
    differences = [
        (program(waveform) - bundle.log_probabilities(bundle.frontend(waveform))).abs().max()
        for waveform in _sounds(min_samples(bundle), bundle.frontend.sample_rate)
    ]
    return torch.stack(differences).max().item()


def _sounds(least: int, rate: int) -> Iterator[Tensor]:
    """(batch, samples) in several lengths, in batches of one sound up to all of them."""
    longest = least + 5 * rate
    sounds = [_voice(longest, rate), 0.1 * _voice(longest, rate)[::-1]]
    example = shipped_file('examples/speech.flac')
    if example.is_file():
        sounds.append(np.resize(read_audio(example, rate), longest))
    batch = np.stack(sounds).astype(np.float32)
    for more in (0, 1, rate // 3, rate, 2 * rate + 123, 3 * rate, 5 * rate):
        part = torch.from_numpy(batch[:, -(least + more) :])
        yield from (part[:size] for size in range(1, len(part) + 1))


def _voice(n: int, rate: int) -> np.ndarray:
    """(n,) harmonics of a gliding pitch in syllables, and noise: similar to speech."""
    time = np.arange(n) / rate
    phase = 2 * np.pi * np.cumsum(140 + 40 * np.sin(2 * np.pi * 0.7 * time)) / rate
    harmonics = sum(np.sin(k * phase) / k for k in range(1, 25))
    syllables = np.sin(2 * np.pi * 3 * time).clip(0)
    breath = np.random.default_rng(1).standard_normal(n)
    return 0.1 * harmonics * syllables + 0.003 * breath


def _write(files: dict[Path, bytes]) -> None:
    """Write all files, or none."""
    parts = {}
    try:
        for path in files:
            if path.is_dir():
                raise IsADirectoryError(f'{path} is a folder')
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            parts[path] = path.with_name(path.name + '.part')
            parts[path].write_bytes(data)
        for path, part in parts.items():
            part.replace(path)
    except OSError as error:
        for part in parts.values():
            part.unlink(missing_ok=True)
        raise SerError(f'{", ".join(map(str, files))} cannot be written: {error}') from error
