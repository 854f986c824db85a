"""What a CUDA device adds: batches by size, CUDA graphs, voices, training. Nothing where there is none."""

from collections.abc import Callable
from typing import Any

import numpy as np
from decision import one_line
from measure import Row, Settings, has_gpu, wall_seconds
from streams import voices_of
from trainings import training

from ser_ros.backends import load_backend
from ser_ros.stream.types import StreamConfig

DEVICE = 'cuda'
SIZES = (1, 16, 64, 256, 1024, 4096)
"""Windows in a batch."""
VOICES = (64, 256, 1024)
STREAM = 'the stream of {} voices'


def gpu(settings: Settings) -> list[Row]:
    """On a CUDA device: the model in batches, launched singly and as one graph; the stream; training.

    Of the model as many voices as it has windows for, one each hop, with the windows on the device. The
    stream has all else, too: voice activity, frames and what is kept of each voice, by one thread of
    the CPU.
    """
    if not has_gpu():
        return []
    backend, rounds = load_backend(settings.bundle, 'torch', DEVICE), max(3, settings.rounds // 5)
    rows = [
        row
        for size in SIZES
        for row in (
            _model_row(f'model, {size} windows', lambda n=size: _eager(backend, n), size, rounds),
            _model_row(
                f'CUDA graph, {size} windows', lambda n=size: _graph(backend, n), size, rounds
            ),
        )
    ]
    for row in voices_of(backend, VOICES, 2, _synchronised):  # a call of the last takes seconds
        n = row.what.partition(' ')[0]
        rows.append(Row(STREAM.format(n), row.unit, row.values))
    return [*rows, *training(settings, DEVICE)]


def _model_row(what: str, make: Callable[[], Callable[[], Any]], size: int, rounds: int) -> Row:
    """Voices in real time, of each of which a window is due in each hop."""
    try:
        run = make()
        for _ in range(3):
            run()
        values = [size * StreamConfig().hop / _synchronised(run) for _ in range(rounds)]
    except RuntimeError as error:  # no memory for the batch, or a model that cannot be captured
        return Row(what, 'voices', note=one_line(error))
    return Row(what, 'voices', values)


def _synchronised(function: Callable[[], Any]) -> float:
    """Seconds until the device has done all that a call launches."""
    import torch

    def run() -> None:
        function()
        torch.cuda.synchronize()

    torch.cuda.synchronize()
    return wall_seconds(run)


def _windows(backend: Any, size: int) -> Any:
    """(size, n_features, frames) of the longest window, on the device."""
    import torch

    frontend = backend.bundle.frontend
    n_frames = frontend.n_frames(round(backend.info.window * frontend.sample_rate))
    rng = np.random.default_rng(0)
    windows = rng.standard_normal((size, frontend.n_features, n_frames), np.float32)
    return torch.from_numpy(windows).to(DEVICE)


def _eager(backend: Any, size: int) -> Callable[[], Any]:
    import torch

    model, windows = backend.bundle.model, _windows(backend, size)

    @torch.inference_mode()
    def run() -> Any:
        return model(windows)

    return run


def _graph(backend: Any, size: int) -> Callable[[], Any]:
    """The same kernels, captured once and replayed as one launch."""
    import torch

    run = _eager(backend, size)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # capture needs warm kernels, away from the default stream
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay
