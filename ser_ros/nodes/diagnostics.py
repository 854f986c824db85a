"""What a node reports of itself, as plain values; nothing here imports rclpy."""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHOOSE_CHANNEL = 'choose one with the parameter channel'
"""What to do about channels that should not be averaged."""

BEYOND_FULL_SCALE = (
    'float samples are beyond full scale and clipped: have them scaled to -1 to 1, or set '
    'full_scale to the value that is full scale (32768 for 16-bit integers)'
)
"""What float sound in another unit means, and what to do."""


class Level(bytes, enum.Enum):
    """The levels of diagnostic_msgs/DiagnosticStatus."""

    OK = b'\0'
    WARN = b'\1'
    ERROR = b'\2'
    STALE = b'\3'


@dataclass(frozen=True)
class Report:
    """The state of a node."""

    level: Level
    message: str
    """A sentence for a person."""
    values: dict[str, Any] = field(default_factory=dict)
    parts: Mapping[str, 'Report'] = field(default_factory=dict)
    """Reports of parts of the node by their names, which are published, too."""


def combine(namespaces: Mapping[str, Report], values: dict[str, Any]) -> Report:
    """The report of a node that serves several namespaces: the worst, and how many have a problem.

    STALE only if all of them are.
    """
    levels = {name: report.level for name, report in namespaces.items()}
    if set(levels.values()) != {Level.STALE}:
        levels = {n: Level.WARN if lvl == Level.STALE else lvl for n, lvl in levels.items()}
    level = max(levels.values())
    worst = [f'{n}: {namespaces[n].message}' for n in levels if levels[n] == level]
    if len(messages := {report.message for report in namespaces.values()}) == 1:
        (message,) = messages
    elif level == Level.OK:
        message = ', '.join(worst)
    else:
        message = worst[0]
        if more := len(worst) - 1:
            message += f' (and {more} more of {len(levels)} namespaces)'
    return Report(level, message, values, namespaces)


def counter_values(counters: Any) -> dict[str, float]:
    """A dataclass of counters → name with spaces → value."""
    return {name.replace('_', ' '): round(n, 3) for name, n in vars(counters).items()}


def sum_counters(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The sum of each counter."""
    total: dict[str, float] = {}
    for row in rows:
        for name, value in row.items():
            total[name] = total.get(name, 0) + value
    return total


def resident_megabytes() -> float:
    """Resident memory of the process, in 2^20 bytes."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith('VmRSS:'):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0
