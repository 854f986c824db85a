"""One decision about three seconds of sound, made in several ways."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measure import SPEECH, Row, Settings, is_installed, one_thread, take_turns

from ser_ros.audio import SAMPLE_RATE
from ser_ros.audio.sources import read_audio
from ser_ros.backends import load_backend
from ser_ros.stream.backend import Backend
from ser_ros.stream.types import StreamConfig, Window

WINDOW = 3 * SAMPLE_RATE
WARM_UP = 10
"""Calls before the measurement: torch compiles some models anew in the first eight."""
ORIGINAL = 'original pipeline'
STREAM = 'stream, onnx'
"""What a robot runs on a CPU."""


def decision(settings: Settings) -> list[Row]:
    """One decision about three seconds, a hop of 0.25 s after the last one, by one thread.

    "Stream" computes the frames of the hop and the model, "whole window" all frames and the model.
    The original pipeline is librosa's mel spectrogram of the window at 48 kHz and the research's
    parallel CNN and transformer.
    """
    sound = read_audio(SPEECH)[:WINDOW]
    alternatives, notes = {}, {}
    if is_installed('librosa') and is_installed('torch'):
        alternatives[ORIGINAL] = original(sound)
    for name, backend in _backends(settings.bundle):
        if isinstance(backend, Exception):
            notes[name] = one_line(backend)
            continue
        ways = {f'stream, {name}': stream(backend, sound)}
        if name in ('onnx', 'torch'):
            ways[f'whole window, {name}'] = whole(backend, sound)
        for way, decide in ways.items():
            try:
                for _ in range(WARM_UP):
                    decide()
            except Exception as error:  # whatever a compiler or a quantised program lacks here
                notes[name] = one_line(error)
            else:
                alternatives[way] = decide
    with one_thread():
        values = take_turns(alternatives, settings.rounds)
    return [
        *rows_of(values),
        *(Row(f'stream, {name}', 'ms', note=note) for name, note in notes.items()),
    ]


def rows_of(values: dict[str, list[float]]) -> list[Row]:
    """Rows with how many times as fast each is as the original pipeline, where that was measured."""
    medians = {name: float(np.median(found)) for name, found in values.items()}
    original = medians.get(ORIGINAL)
    return [
        Row(name, 'ms', found, original and original / medians[name])
        for name, found in values.items()
    ]


def ratio_to_original(bundle: str = '', rounds: int = 9) -> float:
    """How many times as fast the stream decides as the original pipeline, in one run."""
    sound = read_audio(SPEECH)[:WINDOW]
    backend = load_backend(bundle, 'onnx')
    alternatives = {ORIGINAL: original(sound), STREAM: stream(backend, sound)}
    with one_thread():
        values = take_turns(alternatives, rounds)
    return float(np.median(values[ORIGINAL]) / np.median(values[STREAM]))


def one_line(error: Exception) -> str:
    """Why something has no values, for the note of its row."""
    lines = str(error).strip().splitlines()
    return f'does not run here: {type(error).__name__}: {lines[0] if lines else ""}'[:160]


# --- The ways ------------------------------------------------------------------------------------


def original(sound: np.ndarray) -> Callable[[], Any]:
    """The research's own way, from the same window: nothing is kept from the last decision."""
    import librosa
    import torch

    from ser_ros.models import build_model
    from ser_ros.training.recipe import load_recipe

    torch.set_num_threads(1)
    recipe = load_recipe('research/parallel_cnn_transformer')
    config = recipe.frontend
    model = build_model(recipe.architecture, config.n_mels, 8, **recipe.hyperparameters).eval()

    @torch.inference_mode()
    def decide() -> Any:
        mel = librosa.feature.melspectrogram(
            y=librosa.resample(sound, orig_sr=SAMPLE_RATE, target_sr=config.sample_rate),
            sr=config.sample_rate,
            n_fft=config.n_fft,
            win_length=config.win_length,
            hop_length=config.hop_length,
            n_mels=config.n_mels,
            window='hamming',
            fmax=config.sample_rate / 2,
        )
        decibels = librosa.power_to_db(mel, ref=np.max).astype(np.float32)
        return model(torch.from_numpy(decibels)[None]).softmax(dim=-1)

    return decide


def stream(backend: Backend, sound: np.ndarray) -> Callable[[], Any]:
    """The frames of the last hop, and the model on the window."""
    frames, spectrum = _frames(backend, sound)
    n_new = round(StreamConfig().hop * SAMPLE_RATE / backend.geometry.hop_length)

    def decide() -> Any:
        spectrum[:, -n_new:] = backend.spectrum(frames[-n_new:])
        return backend.score([Window(spectrum, len(sound), None)])

    return decide


def whole(backend: Backend, sound: np.ndarray) -> Callable[[], Any]:
    """All frames, and the model on the window."""
    frames, _ = _frames(backend, sound)
    return lambda: backend.score([Window(backend.spectrum(frames), len(sound), None)])


def _frames(backend: Backend, sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, frame_length) samples of all frames, and their spectrum (n_rows, n)."""
    geometry = backend.geometry
    frames = np.lib.stride_tricks.sliding_window_view(sound, geometry.frame_length)
    frames = frames[:: geometry.hop_length]
    return frames, backend.spectrum(frames)


# --- What runs the model -------------------------------------------------------------------------


def _backends(bundle: str) -> Iterator[tuple[str, Any]]:
    """Those that run here with their names; an exception instead of one that does not."""
    yield 'onnx', load_backend(bundle, 'onnx')
    if not is_installed('torch'):
        return
    yield 'torch', load_backend(bundle, 'torch', 'cpu')
    yield 'torch compiled', _compiled(bundle)
    if is_installed('onnx'):
        for name in ('dynamic', 'static'):
            try:
                yield f'int8 {name}', quantised(bundle, name)
            except Exception as error:  # whatever onnxruntime cannot quantise
                yield f'int8 {name}', error


def _compiled(bundle: str) -> Backend:
    """Compiled in its first call, which takes most of a minute."""
    import logging

    backend = load_backend(bundle, 'torch', 'cpu')
    logging.getLogger('torch').setLevel(logging.ERROR)
    backend.bundle.model.compile(dynamic=False)
    return backend


def quantised(bundle: str, method: str) -> Backend:
    """The bundle's ONNX program of the model in 8 bits: for its speed, not for its decisions.

    `method`: dynamic, or static, which needs windows to measure activations on.
    """
    import dataclasses

    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from ser_ros.bundle import load_bundle
    from ser_ros.stream.onnx_backend import OnnxBackend

    loaded = load_bundle(bundle)
    programs, mean = loaded.programs, loaded.frontend.mean.numpy()
    with tempfile.TemporaryDirectory() as folder:
        source, prepared, made = (Path(folder, name) for name in ('source', 'prepared', 'made'))
        source.write_bytes(programs.score)
        # Symbolic shape inference needs sympy's and does not know all operators.
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        if method == 'dynamic':  # of convolutions onnxruntime has unsigned weights only
            quantize_dynamic(prepared, made, weight_type=QuantType.QUInt8)
        else:
            quantize_static(
                prepared,
                made,
                _Calibration(load_backend(bundle, 'onnx')),
                op_types_to_quantize=['Conv', 'Gemm', 'MatMul'],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        programs = dataclasses.replace(programs, score=made.read_bytes())
    return OnnxBackend(loaded.info, programs, mean, loaded.path, loaded.digest)


class _Calibration:
    """A few windows of speech, as onnxruntime reads them."""

    def __init__(self, backend: Backend):
        speech = read_audio(SPEECH)
        starts = range(0, len(speech) - WINDOW, WINDOW)
        self._inputs = iter([inputs(backend, speech[s : s + WINDOW]) for s in starts])

    def get_next(self) -> Any:
        """The next window; None after the last."""
        return next(self._inputs, None)


def window(backend: Backend, sound: np.ndarray) -> Window:
    """All of the sound, as the model receives it."""
    return Window(_frames(backend, sound)[1], len(sound), None)


def inputs(backend: Backend, sound: np.ndarray) -> dict[str, np.ndarray]:
    """The inputs of the bundle's program of the model."""
    values = (
        *backend.stack([window(backend, sound)]),
        np.array(backend.info.temperature, np.float32),
    )
    return dict(zip(('spectrum', 'lengths', 'mean', 'temperature'), values))
