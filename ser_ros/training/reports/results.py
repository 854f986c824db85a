"""What is kept of each finished fold, and what several of them come to."""

import itertools
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Optional

from ser_ros import SerError
from ser_ros.files import write_atomically
from ser_ros.models import default_hyperparameters
from ser_ros.settings import from_dict
from ser_ros.training.evaluation.metrics import pool
from ser_ros.training.recipe import Recipe
from ser_ros.training.reports.html import decimal, markdown_table, percent, with_interval

REFITTED = 'refitted on training and validation speakers'
"""What every protocol says of a model whose recipe asks for `refit`."""


@dataclass(frozen=True)
class FoldResult:
    """One fold with one seed: how it was trained, and how it did; small enough to be committed."""

    recipe: dict[str, Any]
    """All of its settings, among them the fold and the seed."""
    n_folds: int
    """That the protocol has."""
    protocol: str
    is_speaker_independent: bool
    class_names: list[str]
    parameters: int
    trainable_parameters: int
    epochs: int
    """That were run."""
    seconds_per_epoch: float
    """The median."""
    milliseconds_per_window: float
    """Front-end and model on one thread of the processor: a window, or a clip where it takes those."""
    source_rate: int
    """Lowest sampling rate of the files heard, in Hz."""
    machine: dict[str, Any]
    versions: dict[str, str]
    temperature: float
    threshold: float
    validation: dict[str, Any]
    test: dict[str, Any]
    """Figures, see `evaluation.measure`."""
    predictions: dict[str, Any]
    """Of the test part: `columns_of` what `evaluation.predictions` returns."""
    date: str
    split_digest: str = ''
    """See `splits.Split.digest`; '' in results of a release that did not keep it."""

    @property
    def name(self) -> str:
        """Of the recipe."""
        return self.recipe['name']

    @property
    def fold(self) -> int:
        """From 1."""
        return self.recipe['split']['fold']

    @property
    def seed(self) -> int:
        """Of everything that is drawn."""
        return self.recipe['seed']


def columns_of(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Records of clips column by column, a third of the size.

    Probabilities are without the classes' names; a text that all clips have stands for all.
    """
    columns: dict[str, Any] = {key: [record[key] for record in records] for key in records[0]}
    columns['probabilities'] = [p and list(p.values()) for p in columns['probabilities']]
    for key, values in columns.items():
        if isinstance(values[0], str) and len(set(values)) == 1:
            columns[key] = values[0]
    return columns


def records_of(columns: dict[str, Any], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """The records that `columns_of` was given."""
    n = len(columns['probabilities'])
    lists = [v if isinstance(v, list) else [v] * n for v in columns.values()]
    records = [dict(zip(columns, values)) for values in zip(*lists)]
    for record in records:
        if values := record['probabilities']:
            record['probabilities'] = dict(zip(class_names, values))
    return records


def plain_recipe(recipe: Recipe) -> dict[str, Any]:
    """A recipe's settings as JSON gives them back; hyperparameters with the defaults of today."""
    defaults = default_hyperparameters(recipe.architecture)
    values = {**asdict(recipe), 'hyperparameters': {**defaults, **recipe.hyperparameters}}
    return json.loads(json.dumps(values))


def write_fold(path: Path, result: FoldResult) -> None:
    """Write one result as compact JSON; figures have four decimals."""
    values = asdict(result)
    for part in ('validation', 'test'):
        values[part] = _rounded(values[part])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(values, separators=(',', ':')) + '\n')


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def read_fold(path: Path) -> FoldResult:
    """One result; SerError where the file is none."""
    try:
        result = from_dict(FoldResult, json.loads(path.read_text()))
        # A recipe of another release may lack keys, or have others.
        from_dict(Recipe, result.recipe)
    except (OSError, UnicodeDecodeError, ValueError, SerError) as error:
        raise SerError(
            f'{path} is no result of cross-validate ({error}); remove it, and run the fold again'
        ) from error
    return result


def read_folds(folder: Path) -> list[FoldResult]:
    """All results below a folder, in the order of their paths; SerError where there is none such."""
    if not folder.is_dir():
        raise SerError(f'{folder} is no folder; name the one with results of cross-validate')
    return [read_fold(path) for path in sorted(folder.rglob('fold*_seed*.json'))]


@dataclass(frozen=True)
class Summary:
    """Runs of one recipe, on several folds or with several seeds."""

    runs: tuple[FoldResult, ...]

    @property
    def seeds(self) -> list[int]:
        """Of all runs, sorted."""
        return sorted({run.seed for run in self.runs})

    @property
    def folds(self) -> list[int]:
        """Of all runs, sorted."""
        return sorted({run.fold for run in self.runs})

    @property
    def is_refitted(self) -> bool:
        """Whether the models tested were trained on the validation speakers, too."""
        return bool(self.runs[0].recipe.get('refit'))

    @property
    def is_speaker_independent(self) -> bool:
        """Whether no run has tested a speaker it was trained on."""
        return all(run.is_speaker_independent for run in self.runs)

    @property
    def coverage(self) -> str:
        """Which folds and seeds there are, in words."""
        seeds = f'seed{"s" * (len(self.seeds) > 1)} {", ".join(map(str, self.seeds))}'
        n = (
            f', {len(self.runs)} runs'
            if len(self.runs) < len(self.folds) * len(self.seeds)
            else ''
        )
        return f'{len(self.folds)} of {self.runs[0].n_folds} folds, {seeds}{n}'

    @cached_property
    def pooled(self) -> dict[str, Any]:
        """The test parts of all runs as one part, see `evaluation.pool`.

        A clip counts once for each seed; draws of the bootstrap are of speakers, so that this does
        not make the interval narrower.
        """
        parts = []
        for run in self.runs:
            records = records_of(run.predictions, run.class_names)
            if len(self.seeds) > 1:
                records = [{**r, 'name': f'{r["name"]} (seed {run.seed})'} for r in records]
            parts.append(
                {'class_names': run.class_names, 'figures': run.test, 'predictions': records}
            )
        independent = 'speaker-independent' if self.is_speaker_independent else 'random'
        refitted = f', {REFITTED}' if self.is_refitted else ''
        return pool(parts, f'{independent}: test parts pooled, {self.coverage}{refitted}')

    @property
    def accuracies(self) -> list[float]:
        """Unweighted accuracy of each run."""
        return [run.test['unweighted_accuracy'] for run in self.runs]

    @property
    def deviation(self) -> Optional[float]:
        """Of the runs' unweighted accuracies (n - 1); None where there is one run."""
        return statistics.stdev(self.accuracies) if len(self.runs) > 1 else None


def summarise(results: Sequence[FoldResult]) -> list[Summary]:
    """Results with the same recipe but for fold and seed taken together, by name of the recipe."""

    def setting(result: FoldResult) -> tuple[str, str]:
        settings = flat_settings(from_dict(Recipe, result.recipe))
        return result.name, json.dumps(settings, sort_keys=True)

    ordered = sorted(results, key=lambda result: (setting(result), result.fold, result.seed))
    return [Summary(tuple(group)) for _, group in itertools.groupby(ordered, setting)]


OF_A_RUN = ('name', 'seed', 'split.fold')
"""Settings by which the runs of one summary may differ."""


def flat_settings(recipe: Recipe, ignored: Sequence[str] = OF_A_RUN) -> dict[str, Any]:
    """`key.key` → value of all settings that are not ignored."""
    settings = dict(_flatten(plain_recipe(recipe)))
    return {key: value for key, value in settings.items() if key not in ignored}


def _flatten(values: dict[str, Any], prefix: str = ''):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f'{prefix}{key}.')
        else:
            yield prefix + key, value


def differences(recipe: Recipe, other: Recipe, ignored: Sequence[str] = OF_A_RUN) -> list[str]:
    """`key=value` of each setting of `recipe` that is another one in `other`."""
    mine, theirs = flat_settings(recipe, ignored), flat_settings(other, ignored)
    changed = [
        f'{key}={value if value and isinstance(value, str) else json.dumps(value)}'
        for key, value in mine.items()
        if key not in theirs or theirs[key] != value
    ]
    return changed + [f'no {key}' for key in theirs if key not in mine]


# --- Tables ----------------------------------------------------------------------------------


def mean_deviation(summary: Summary) -> str:
    """Mean ± standard deviation of the runs."""
    mean = percent(statistics.mean(summary.accuracies))
    return mean if summary.deviation is None else f'{mean} ± {100 * summary.deviation:.1f}'


def calibration(figures: dict[str, Any], key: str = 'calibration_error') -> str:
    """Expected calibration error of clips and of windows; a dash where there is none."""
    return ' / '.join(decimal(figures[name]) for name in (key, f'window_{key}'))


def fold_table(summary: Summary) -> list[str]:
    """Lines of a table: each run, and what all come to."""
    rows = [
        [
            run.fold,
            run.seed,
            speakers(run.validation),
            speakers(run.test),
            percent(run.test['unweighted_accuracy']),
            percent(run.test['accuracy']),
            calibration(run.test),
        ]
        for run in summary.runs
    ]
    figures = summary.pooled['figures']
    accuracy = percent(figures['accuracy'])
    rows.append(['pooled', '', '', '', with_interval(figures), accuracy, calibration(figures)])
    rows.append(['mean ± std', '', '', '', mean_deviation(summary), '', ''])
    header = ['fold', 'seed', 'validation speakers', 'test speakers', 'unweighted accuracy']
    return markdown_table([*header, 'accuracy', 'ECE of clips / windows'], rows)


def speakers(figures: dict[str, Any]) -> str:
    """Who was measured; how many, where they are many; the corpus only where there are several."""
    voices = [voice.split(':', 1) for voice in figures['speakers']]
    if len(voices) > 8:
        return f'{len(voices)} speakers'
    if len({corpus for corpus, _ in voices}) == 1:
        return ' '.join(speaker for _, speaker in voices)
    return ' '.join(':'.join(voice) for voice in voices)
