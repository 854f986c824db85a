"""What every part of the benchmark shares: rows of measured values, clocks, sounds, the bundle."""

import contextlib
import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from ser_ros.audio import SAMPLE_RATE
from ser_ros.audio.sources import read_audio
from ser_ros.bundle_info import find_bundle
from ser_ros.stream.onnx_backend import NoProgramsError, load_onnx

ROOT = Path(__file__).resolve().parents[1]
SPEECH = ROOT / 'examples' / 'speech.flac'
TURN = 0.05
"""Seconds that a turn takes at least: the first call finds the caches full of the others' data."""


def is_installed(package: str) -> bool:
    """Whether a package can be imported; it is not imported."""
    return importlib.util.find_spec(package) is not None


def has_gpu() -> bool:
    """Whether torch finds a CUDA device."""
    if not is_installed('torch'):
        return False
    import torch

    return torch.cuda.is_available()


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often."""

    bundle: str = ''
    """Name or path, see `find_bundle`; it has ONNX programs, see `with_programs`."""
    rounds: int = 30


@dataclass(frozen=True)
class Row:
    """One measured metric; without values it could not be measured, and the note says why."""

    what: str
    unit: str
    values: Sequence[float] = ()
    ratio: Optional[float] = None
    """How many times as good as the first row of its part."""
    note: str = ''

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Lower quartile, median, upper quartile; NaN without values."""
        if not len(self.values):
            return (float('nan'),) * 3
        return tuple(np.quantile(self.values, (0.25, 0.5, 0.75)).tolist())

    @property
    def median(self) -> float:
        """NaN without values."""
        return self.quartiles[1]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Limit the libraries that are loaded to one thread: others that wait would count, too."""
    if not is_installed('threadpoolctl'):  # it comes with librosa
        yield
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


def cpu_seconds(function: Callable[[], Any]) -> float:
    """Processor time of one call, in all threads of this process."""
    start = time.process_time()
    function()
    return time.process_time() - start


def wall_seconds(function: Callable[[], Any]) -> float:
    """Time that passes in one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def take_turns(
    alternatives: Mapping[str, Callable[[], Any]],
    rounds: int,
    seconds: Callable[[Callable[[], Any]], float] = cpu_seconds,
) -> dict[str, list[float]]:
    """Milliseconds of a call of each alternative, one alternative after another in each round.

    So whatever else the machine does slows all of them. A turn has as many calls as take `TURN`,
    and the mean of them counts.
    """
    calls = {}
    for name, function in alternatives.items():
        function()
        calls[name] = 1 + int(TURN / max(seconds(function), 1e-6))
    values: dict[str, list[float]] = {name: [] for name in alternatives}
    for _ in range(rounds):
        for name, function in alternatives.items():
            n = calls[name]
            values[name].append(1e3 * seconds(lambda f=function, n=n: _repeat(f, n)) / n)
    return values


def _repeat(function: Callable[[], Any], n: int) -> None:
    for _ in range(n):
        function()


def speaking(seconds: float) -> np.ndarray:
    """Speech without long pauses: float32 (n,) at 16 kHz."""
    speech = read_audio(SPEECH)
    blocks = speech[: len(speech) // 160 * 160].reshape(-1, 160)
    loud = np.abs(blocks).max(axis=1) > 0.01
    return np.resize(blocks[loud], round(seconds * SAMPLE_RATE))


def silent(seconds: float) -> np.ndarray:
    """A quiet room: float32 (n,) at 16 kHz."""
    noise = np.random.default_rng(0).normal(0, 1e-3, round(seconds * SAMPLE_RATE))
    return noise.astype(np.float32)


def with_programs(name: str, folder: Path) -> str:
    """The bundle of this name; a copy of it in `folder` where it has no ONNX programs yet."""
    try:
        load_onnx(name)
    except NoProgramsError:
        if not is_installed('torch'):
            raise
    else:
        return name
    from ser_ros.bundle import load_bundle, save_bundle
    from ser_ros.export import make_programs

    bundle, path = load_bundle(name), folder / find_bundle(name).name
    save_bundle(path, bundle.info, bundle.frontend, bundle.model, make_programs(bundle))
    return str(path)
