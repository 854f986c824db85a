"""The stored results of fine-tuning on a few clips, and their table."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from ser_ros import SerError
from ser_ros.files import write_atomically
from ser_ros.settings import from_dict
from ser_ros.training.reports.formatting import percent

FOLDER = 'learning_curves'
"""Name of the folder of results."""

AS_IT_IS, FINE_TUNED, SCRATCH = 'as it is', 'fine-tuned', 'from scratch'


@dataclass(frozen=True)
class CurvePoint:
    """One model on the test speakers: unweighted accuracies among their basic expressions."""

    method: str
    n_clips: int
    """Training clips of each class; 0 for the bundle as it is."""
    seed: int
    unknown: float
    """Each clip as of a voice of which nothing is known."""
    known: Optional[float]
    """From the eleventh utterance of a voice on, in balanced streams; None if the bundle does not
    adapt."""


@dataclass(frozen=True)
class LearningCurve:
    """Models with more and more clips of a corpus, all tested on its other speakers."""

    bundle: str
    trained_on: tuple[str, ...]
    corpus: str
    classes: tuple[str, ...]
    n_speakers: int
    """Speakers that the training clips are of; each seed draws others."""
    n_tested: int
    """Test clips, the mean over the seeds."""
    steps: int
    points: tuple[CurvePoint, ...]
    machine: dict[str, Any]
    versions: dict[str, str]
    date: str


def write_curve(path: Path, curve: LearningCurve) -> None:
    """Write a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(curve), indent=1) + '\n')


def read_curves(folder: Path) -> list[LearningCurve]:
    """The results in a folder of results; SerError for a file that is none."""
    curves = []
    for path in sorted((folder / FOLDER).glob('*.json')):
        try:
            curves.append(from_dict(LearningCurve, json.loads(path.read_text())))
        except (OSError, ValueError, SerError) as error:
            raise SerError(f'{path} is not a result of learning-curve: {error}') from error
    return curves


HEADER = ('model', 'clips a class', 'runs', 'UA, unknown voice', 'UA, known voice')


def curve_table(curve: LearningCurve) -> list[tuple[str, ...]]:
    """A row of each method and number of clips: means over the seeds ± their deviation."""
    keys = dict.fromkeys((point.method, point.n_clips) for point in curve.points)
    rows = []
    for method, n_clips in sorted(keys, key=lambda key: (key[1], key[0] != FINE_TUNED)):
        found = [p for p in curve.points if (p.method, p.n_clips) == (method, n_clips)]
        values = ([p.unknown for p in found], [p.known for p in found if p.known is not None])
        rows.append((method, str(n_clips), str(len(found)), *map(_mean, values)))
    return rows


def _mean(values: Sequence[float]) -> str:
    if not values:
        return '–'
    spread = f' ± {100 * statistics.stdev(values):.1f}' if len(values) > 1 else ''
    return percent(statistics.mean(values)) + spread
