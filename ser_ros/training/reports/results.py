"""The stored result of each finished fold, and the summary of several."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ser_ros import SerError
from ser_ros.files import write_atomically
from ser_ros.settings import from_dict
from ser_ros.training.evaluation.metrics import pool_subsets
from ser_ros.training.recipe import Recipe, flat_settings
from ser_ros.training.reports.formatting import (
    calibration_errors,
    markdown_table,
    mean_deviation,
    percent,
    speakers,
    with_interval,
)

REFITTED = 'refitted on training and validation speakers'
"""Part of every protocol of a model whose recipe sets `refit`."""


@dataclass(frozen=True)
class FoldResult:
    """Training and test of one fold with one seed; small enough to be committed."""

    recipe: dict[str, Any]
    """All of its settings, including the fold and the seed."""
    n_folds: int
    """Number of folds of the protocol."""
    protocol: str
    is_speaker_independent: bool
    class_names: list[str]
    parameters: int
    trainable_parameters: int
    epochs: int
    """Number of epochs that were run."""
    seconds_per_epoch: float
    """The median."""
    milliseconds_per_window: float
    """Front-end and model on one CPU thread, for a window, or for a clip if it reads whole clips."""
    source_rate: int
    """Lowest sampling rate of the test files, in Hz."""
    machine: dict[str, Any]
    versions: dict[str, str]
    temperature: float
    threshold: float
    validation: dict[str, Any]
    test: dict[str, Any]
    """Metrics, see `metrics.compute_metrics`."""
    predictions: dict[str, Any]
    """Of the test set: `to_columns` of what `clip_result.to_records` returns."""
    date: str
    split_digest: str = ''
    """See `splits.Split.digest`; '' in results of a release that did not store it."""

    @property
    def name(self) -> str:
        """Name of the recipe."""
        return self.recipe['name']

    @property
    def fold(self) -> int:
        """The fold, from 1."""
        return self.recipe['split']['fold']

    @property
    def seed(self) -> int:
        """Seed of all random draws."""
        return self.recipe['seed']


def to_columns(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Records of clips column by column, a third of the size.

    Probabilities lose the names of their classes; a value that all clips share is stored once.
    """
    columns: dict[str, Any] = {key: [record[key] for record in records] for key in records[0]}
    columns['probabilities'] = [p and list(p.values()) for p in columns['probabilities']]
    for key, values in columns.items():
        if key not in ('probabilities', 'decisions') and len(set(values)) == 1:
            columns[key] = values[0]
    return columns


def from_columns(columns: dict[str, Any], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """The records that `to_columns` received."""
    n = len(columns['probabilities'])
    lists = [v if isinstance(v, list) else [v] * n for v in columns.values()]
    records = [dict(zip(columns, values)) for values in zip(*lists)]
    for record in records:
        if values := record['probabilities']:
            record['probabilities'] = dict(zip(class_names, values))
    return records


def write_fold(path: Path, result: FoldResult) -> None:
    """Write one result as compact JSON; metrics have four decimals."""
    values = asdict(result)
    for subset in ('validation', 'test'):
        values[subset] = rounded(values[subset])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(values, separators=(',', ':')) + '\n')


def rounded(value: Any) -> Any:
    """Plain values with all numbers rounded to four decimals."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def read_fold(path: Path) -> FoldResult:
    """One result; SerError if the file does not hold one."""
    try:
        result = from_dict(FoldResult, json.loads(path.read_text()))
        # A recipe of another release may lack keys, or have others.
        from_dict(Recipe, result.recipe)
    except (OSError, UnicodeDecodeError, ValueError, SerError) as error:
        raise SerError(
            f'{path} is not a result of cross-validate ({error}); remove it and run the fold again'
        ) from error
    return result


def read_folds(folder: Path) -> list[FoldResult]:
    """All results below a folder, in the order of their paths; SerError if it does not exist."""
    if not folder.is_dir():
        raise SerError(
            f'{folder} is not a folder; name the one with the results of cross-validate'
        )
    return [read_fold(path) for path in sorted(folder.rglob('fold*_seed*.json'))]


@dataclass(frozen=True)
class Summary:
    """Runs of one recipe, on several folds or with several seeds."""

    runs: tuple[FoldResult, ...]

    @property
    def seeds(self) -> list[int]:
        """Seeds of all runs, sorted."""
        return sorted({run.seed for run in self.runs})

    @property
    def folds(self) -> list[int]:
        """Folds of all runs, sorted."""
        return sorted({run.fold for run in self.runs})

    @property
    def is_refitted(self) -> bool:
        """Whether the tested models were also trained on the validation speakers."""
        return bool(self.runs[0].recipe.get('refit'))

    @property
    def is_speaker_independent(self) -> bool:
        """Whether no run tested a speaker that it was trained on."""
        return all(run.is_speaker_independent for run in self.runs)

    @property
    def coverage(self) -> str:
        """Which folds and seeds the runs cover, in words."""
        seeds = f'seed{"s" * (len(self.seeds) > 1)} {", ".join(map(str, self.seeds))}'
        n = (
            f', {len(self.runs)} runs'
            if len(self.runs) < len(self.folds) * len(self.seeds)
            else ''
        )
        return f'{len(self.folds)} of {self.runs[0].n_folds} folds, {seeds}{n}'

    @cached_property
    def pooled(self) -> dict[str, Any]:
        """The test sets of all runs as one subset, see `metrics.pool_subsets`.

        A clip counts once for each seed; the bootstrap draws speakers, so that this does not make
        the interval narrower.
        """
        subsets = []
        for run in self.runs:
            records = from_columns(run.predictions, run.class_names)
            if len(self.seeds) > 1:
                records = [{**r, 'name': f'{r["name"]} (seed {run.seed})'} for r in records]
            subsets.append(
                {'class_names': run.class_names, 'metrics': run.test, 'predictions': records}
            )
        independent = (
            'speaker-independent' if self.is_speaker_independent else 'NOT speaker-independent'
        )
        refitted = f', {REFITTED}' if self.is_refitted else ''
        return pool_subsets(subsets, f'{independent}: test sets pooled, {self.coverage}{refitted}')

    @property
    def accuracies(self) -> list[float]:
        """Unweighted accuracy of each run."""
        return [run.test['unweighted_accuracy'] for run in self.runs]


def summarise(results: Sequence[FoldResult]) -> list[Summary]:
    """A summary of the results whose recipes differ only in fold and seed, by name of the recipe."""

    def setting(result: FoldResult) -> tuple[str, str]:
        settings = flat_settings(from_dict(Recipe, result.recipe))
        return result.name, json.dumps(settings, sort_keys=True)

    ordered = sorted(results, key=lambda result: (setting(result), result.fold, result.seed))
    return [Summary(tuple(group)) for _, group in itertools.groupby(ordered, setting)]


def fold_table(summary: Summary) -> list[str]:
    """Lines of a table: each run, then all of them pooled, then mean and standard deviation."""
    rows = [
        [
            run.fold,
            run.seed,
            speakers(run.validation) if run.validation else '',
            speakers(run.test),
            percent(run.test['unweighted_accuracy']),
            percent(run.test['accuracy']),
            calibration_errors(run.test),
        ]
        for run in summary.runs
    ]
    pooled = summary.pooled['metrics']
    accuracy, errors = percent(pooled['accuracy']), calibration_errors(pooled)
    rows.append(['pooled', '', '', '', with_interval(pooled), accuracy, errors])
    rows.append(['mean ± std', '', '', '', mean_deviation(summary.accuracies), '', ''])
    header = ['fold', 'seed', 'validation speakers', 'test speakers', 'unweighted accuracy']
    return markdown_table([*header, 'accuracy', 'ECE of clips / windows'], rows)
