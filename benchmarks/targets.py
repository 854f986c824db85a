"""What the metrics should be, and which of them are."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import decision
import gpu
import processes
import profiles
import streams
import trainings
from measure import Row, Settings

Results = Mapping[str, Sequence[Row]]
"""Name of a part → its rows."""


@dataclass(frozen=True)
class Target:
    """One metric: `at_least` is the limit, `aim` is better; a smaller `aim` means that less is better."""

    metric: str
    part: str
    row: str
    unit: str
    at_least: float
    aim: float
    is_ratio: bool = False
    """Whether the row's ratio counts, not its median."""
    profile: Optional[Callable[[Settings], str]] = None
    """What bounds the metric, measured if it is missed."""

    def find(self, results: Results) -> Optional[Row]:
        """Its row; None if it was not measured."""
        rows = (row for row in results.get(self.part, ()) if row.what == self.row)
        return next(rows, None)

    def measured(self, results: Results) -> Optional[float]:
        """The metric; None if it was not measured."""
        row = self.find(results)
        value = row and (row.ratio if self.is_ratio else row.median)
        return None if value is None or math.isnan(value) else value

    def reaches(self, value: float, limit: float) -> bool:
        """Whether the value is as good as a limit."""
        return value <= limit if self.aim < self.at_least else value >= limit

    def verdict(self, value: Optional[float]) -> str:
        """In one or two words."""
        if value is None:
            return 'not measured'
        if self.reaches(value, self.aim):
            return 'aim met'
        return 'met' if self.reaches(value, self.at_least) else '**missed**'


CORE = '% of a core'
TARGETS = (
    Target(
        'one decision, against the original pipeline on the same window',
        *('decision', decision.STREAM, '×', 20, 40),
        is_ratio=True,
        profile=profiles.of_decision,
    ),
    Target(
        'emotion node at 4 Hz while somebody speaks',
        *('nodes', f'{processes.EMOTION}, speaking, onnx', CORE, 3, 1.5),
    ),
    Target(
        'emotion node while nobody speaks',
        *('nodes', f'{processes.EMOTION}, silent, onnx', CORE, 1, 0.5),
    ),
    Target(
        'capture node at 16 kHz, from a file',
        *('nodes', f'{processes.CAPTURE}, speaking, onnx', CORE, 2, 1),
    ),
    Target(
        'capture node at 16 kHz, from a microphone',
        *('nodes', f'{processes.CAPTURE}, microphone, onnx', CORE, 2, 1),
    ),
    Target(
        'resident memory of the emotion node',
        *('nodes', f'memory of {processes.EMOTION}, speaking, onnx', 'MB', 200, 120),
    ),
    Target(
        'start of the emotion node until it listens',
        *('nodes', 'start until listening, onnx', 's', 1.5, 0.8),
        profile=profiles.of_start,
    ),
    Target(
        'end of a window until its message is received, p95',
        *('nodes', 'window end until received, p95, speaking, onnx', 'ms', 25, 10),
    ),
    Target(
        'voices in real time on two cores',
        *('voices', streams.TWO_CORES, 'voices', 60, 150),
        profile=profiles.of_voices,
    ),
    Target(
        'environment without torch on disk',
        *('environment', 'environment without torch', 'MB', 400, 250),
    ),
    Target(
        'epoch over one fold, against the original recipe',
        *('training', f'epoch, {trainings.RECIPE}', '×', 10, 20),
        is_ratio=True,
    ),
    Target(
        'voices in real time at 4 Hz on one H100 or H200',
        *('gpu', gpu.STREAM.format(gpu.VOICES[-1]), 'voices', 2_000, 10_000),
        profile=profiles.of_voices,
    ),
)


def compare(results: Results, settings: Settings) -> list[dict[str, Any]]:
    """Each target with what was measured; for what is missed with what bounds it."""
    return [
        {
            'metric': target.metric,
            'unit': target.unit,
            'measured': (value := target.measured(results)),
            'at_least': target.at_least,
            'aim': target.aim,
            'verdict': (verdict := target.verdict(value)),
            'bound': _bound(target, results, settings) if 'missed' in verdict else '',
        }
        for target in TARGETS
    ]


def _bound(target: Target, results: Results, settings: Settings) -> str:
    row = target.find(results)
    parts = [row.note, target.profile(settings) if target.profile else '']
    if target.part == 'nodes' and target.row.startswith(processes.EMOTION):
        state = target.row.split(', ')[1]
        alone = next(_shares_without_ros(results, state), None)
        parts.append(f'the stream without ROS takes {alone:.2g} {CORE}' if alone else '')
    return '; '.join(filter(None, parts))


def _shares_without_ros(results: Results, state: str) -> Iterator[float]:
    return (row.median for row in results.get('stream', ()) if row.what == f'{state}, onnx')
