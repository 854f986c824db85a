"""The stored results of corpora that were left out, and their tables."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from ser_ros import SerError
from ser_ros.files import write_atomically
from ser_ros.settings import from_dict
from ser_ros.training.evaluation.left_out import SEVERAL, Choices
from ser_ros.training.recipe import Recipe
from ser_ros.training.reports.formatting import (
    decimal,
    mean_deviation,
    percent,
    with_interval,
)
from ser_ros.training.reports.results import rounded


@dataclass(frozen=True)
class LeftOutTrial:
    """A setting that was tried on left-out corpora, before the recipe was chosen."""

    name: str
    what: str
    """How it differs from `base`, in words."""
    runs: list[dict[str, Any]]
    """`corpus`, `seed`, and for each of `TRIAL_CONDITIONS` the unweighted accuracy among the basic
    expressions, or None."""


TRIALS = 'left_out_trials'
"""Name of the folder of trials."""

TRIAL_CONDITIONS = {
    'unknown': 'unknown voice',
    'unknown, noise 10 dB': 'in noise, 10 dB',
    'known by all clips': 'known by all its clips',
    'balanced stream': 'known, balanced',
    'mostly neutral stream': 'known, mostly neutral',
}
"""Condition of a trial → its column."""

PATTERN = 'left_out_seed*.json'
"""Names of result files."""


NEW_TO_BUNDLE = 'new to the bundle'
"""Protocol of a corpus that one model, trained on others, was calibrated and tested on."""


@dataclass(frozen=True)
class LeftOutResult:
    """One corpus that was left out."""

    corpus: str
    protocol: str
    chosen_on: tuple[str, ...]
    """The corpora that the choices were made on, with models that were trained without them and
    without this one."""
    choices: Choices
    metrics: dict[str, Any]
    """See `evaluation.left_out.evaluate_left_out`."""


@dataclass(frozen=True)
class LeftOutSummary:
    """All corpora, each left out once or new to one bundle; small enough to be committed."""

    recipe: dict[str, Any]
    parameters: int
    milliseconds_per_window: float
    """Front-end and model on one CPU thread."""
    results: tuple[LeftOutResult, ...]
    choices: Choices
    """Those for a model that is trained on all corpora, made on all that were left out."""
    machine: dict[str, Any]
    versions: dict[str, str]
    date: str

    @property
    def name(self) -> str:
        """Name of the recipe."""
        return self.recipe['name']

    @property
    def seed(self) -> int:
        """Seed of all random draws."""
        return self.recipe['seed']


def write_summary(path: Path, summary: LeftOutSummary) -> None:
    """Write one result as compact JSON; metrics have four decimals, choices all."""
    values = asdict(summary)
    for result in values['results']:
        result['metrics'] = rounded(result['metrics'])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(values, separators=(',', ':')) + '\n')


def read_summary(path: Path) -> LeftOutSummary:
    """One result; SerError if the file does not hold one."""
    try:
        summary = from_dict(LeftOutSummary, json.loads(path.read_text()))
        from_dict(Recipe, summary.recipe)
    except (OSError, UnicodeDecodeError, ValueError, SerError) as error:
        raise SerError(
            f'{path} is not a result of cross-validate --leave-out-corpus ({error})'
        ) from error
    return summary


def read_summaries(folder: Path) -> list[LeftOutSummary]:
    """All results below a folder, in the order of their paths."""
    return [read_summary(path) for path in sorted(folder.rglob(PATTERN))]


HEADER = (
    'corpus left out', 'speakers', 'expressions', 'UA [95 %], unknown voice',
    'UA [95 %], known voice', 'mostly neutral: accuracy', 'mostly neutral: neutral taken for an emotion',
    'expressions decided', 'right when decided', 'emotions among them right', 'ECE', 'one emotion only',
)  # fmt: skip


def rows(seeds: Sequence[Sequence[LeftOutResult]]) -> list[tuple[str, ...]]:
    """A row of each corpus, and the mean of all; of several seeds the mean ± standard deviation.

    "Known" is from the eleventh utterance of a voice on. In brackets: the same utterances without
    adaptation.
    """
    by_name = [{result.corpus: result.metrics for result in results} for results in seeds]
    lines = []
    for name, first in by_name[0].items():
        found = [[metrics[name]] for metrics in by_name if name in metrics]
        facts = str(first['speakers']), str(len(first['expressions']))
        lines.append((name, *facts, *_cells(found)))
    return [*lines, ('**mean**', '', '', *_cells([list(metrics.values()) for metrics in by_name]))]


def _cells(seeds: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """The cells of the corpora of each seed."""
    found = [metrics for corpora in seeds for metrics in corpora]
    before, after = (
        _accuracy(seeds, lambda m, when=when: m['streams']['balanced'][when])
        for when in ('unadapted', 'adapted')
    )
    return [
        _accuracy(seeds, lambda m: m['cold']),
        f'{after} ({before})',
        _both(found, 'mostly neutral', 'accuracy'),
        _both(found, 'mostly neutral', 'neutral_error'),
        _several(found, 'coverage'),
        _several(found, 'expression_accuracy_when_decided'),
        _several(found, 'emotion_accuracy_when_decided'),
        _several(found, 'calibration_error', write=decimal),
        f'{_alone(found, "adapted")} ({_alone(found, "unadapted")})',
    ]


def _accuracy(
    seeds: Sequence[Sequence[Mapping[str, Any]]],
    select: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> str:
    """Unweighted accuracy, with its interval over speakers or the deviation between seeds."""
    found = [[select(metrics) for metrics in corpora] for corpora in seeds]
    if len(found) == len(found[0]) == 1:
        return with_interval(found[0][0])
    return mean_deviation(
        [statistics.mean(m['unweighted_accuracy'] for m in corpora) for corpora in found]
    )


def _both(found: Sequence[Mapping[str, Any]], kind: str, name: str) -> str:
    """The mean after adaptation, and in brackets before."""
    before, after = (_text(found, when, kind, name) for when in ('unadapted', 'adapted'))
    return f'{after} ({before})'


def _several(
    found: Sequence[Mapping[str, Any]], name: str, when: str = 'adapted', write: Any = percent
) -> str:
    """The means of balanced and of mostly neutral streams."""
    return ' · '.join(_text(found, when, kind, name, write) for kind in SEVERAL)


def _text(
    found: Sequence[Mapping[str, Any]], when: str, kind: str, name: str, write: Any = percent
) -> str:
    return write(_mean(m['streams'][kind][when][name] for m in found))


def _alone(found: Sequence[Mapping[str, Any]], when: str) -> str:
    """The mean accuracy for voices that have one emotion only, which is not neutral."""
    kinds = [k for k in found[0]['streams'] if k.startswith('only') and k != 'only neutral']
    return percent(
        _mean(m['streams'][k][when]['accuracy'] for m in found for k in kinds if k in m['streams'])
    )


def _mean(values: Any) -> Optional[float]:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


EFFECT_HEADER = (
    'with', 'balanced: UA', 'mostly neutral: accuracy', 'neutral taken for an emotion', 'expressions decided',
    'right when decided', 'emotions among them right', 'ECE', 'one emotion only',
)  # fmt: skip

EFFECTS = {
    'neither': 'unadapted',
    'the expected shares alone': 'expected_shares',
    'the expected shares and adaptation': 'adapted',
}


def effect_rows(summaries: Sequence[LeftOutSummary]) -> list[tuple[str, ...]]:
    """What adaptation and the expected shares do from the eleventh utterance on: means over corpora."""
    found = [result.metrics for summary in summaries for result in summary.results]
    return [
        (
            label,
            _text(found, when, 'balanced', 'unweighted_accuracy'),
            _text(found, when, 'mostly neutral', 'accuracy'),
            _text(found, when, 'mostly neutral', 'neutral_error'),
            _several(found, 'coverage', when),
            _several(found, 'expression_accuracy_when_decided', when),
            _several(found, 'emotion_accuracy_when_decided', when),
            _several(found, 'calibration_error', when, decimal),
            _alone(found, when),
        )
        for label, when in EFFECTS.items()
    ]


def repeated(summaries: Sequence[LeftOutSummary]) -> str:
    """How many counted utterances of each corpus are repeated: balanced · mostly neutral."""
    found = {r.corpus: r.metrics['streams'] for s in summaries for r in s.results}
    return ', '.join(
        f'{name} {" · ".join(percent(streams[kind]["repeated"]) for kind in SEVERAL)}'
        for name, streams in found.items()
    )


CURVE_HEADER = (
    'earlier utterances',
    'balanced: UA',
    'mostly neutral: accuracy',
    'neutral taken for an emotion',
    'expressions decided',
    'right when decided',
)


def curve_rows(summaries: Sequence[LeftOutSummary]) -> list[tuple[str, ...]]:
    """Rows of the curve over utterances, means over corpora and seeds."""
    found = [r.metrics['curves'] for s in summaries for r in s.results]
    starts = found[0]['earlier_utterances']
    ends = [*(start - 1 for start in starts[1:]), None]
    return [
        (
            str(start) if start == end else f'{start}–{end}' if end else f'{start} and more',
            percent(_mean(c['balanced']['unweighted_accuracy'][i] for c in found)),
            percent(_mean(c['mostly neutral']['accuracy'][i] for c in found)),
            percent(_mean(c['mostly neutral']['neutral_error'][i] for c in found)),
            *(
                ' · '.join(percent(_mean(c[kind][name][i] for c in found)) for kind in SEVERAL)
                for name in ('coverage', 'expression_accuracy_when_decided')
            ),
        )
        for i, (start, end) in enumerate(zip(starts, ends))
    ]


@dataclass(frozen=True)
class Requirement:
    """What was required of the shipped model before it was trained: a mean over corpora."""

    what: str
    kind: str
    """Of streams; '' for unknown voices."""
    name: str
    limit: float
    is_most: bool = False
    """Whether the limit is the most that is allowed, not the least."""


REQUIREMENTS = (
    Requirement('UA, unknown voice', '', 'unweighted_accuracy', 0.50),
    Requirement('UA, known voice, balanced', 'balanced', 'unweighted_accuracy', 0.60),
    Requirement('accuracy, mostly neutral', 'mostly neutral', 'accuracy', 0.65),
    Requirement('neutral taken for an emotion, mostly neutral', 'mostly neutral', 'neutral_error', 0.25, True),
    Requirement('expressions decided, balanced', 'balanced', 'coverage', 0.35),
    Requirement('expressions decided, mostly neutral', 'mostly neutral', 'coverage', 0.35),
    Requirement('right when decided, balanced', 'balanced', 'expression_accuracy_when_decided', 0.65),
    Requirement('right when decided, mostly neutral', 'mostly neutral', 'expression_accuracy_when_decided', 0.65),
    Requirement('calibration error, balanced', 'balanced', 'calibration_error', 0.10, True),
    Requirement('calibration error, mostly neutral', 'mostly neutral', 'calibration_error', 0.10, True),
)  # fmt: skip

REQUIREMENT_HEADER = ('what', 'required', 'measured', 'result')


def requirement_rows(summaries: Sequence[LeftOutSummary]) -> list[tuple[str, ...]]:
    """Each requirement, the mean over corpora and seeds, and whether it is met."""
    found = [result.metrics for summary in summaries for result in summary.results]
    lines = []
    for required in REQUIREMENTS:
        measured = statistics.mean(
            (m['streams'][required.kind]['adapted'] if required.kind else m['cold'])[required.name]
            for m in found
        )
        is_met = measured <= required.limit if required.is_most else measured >= required.limit
        write = decimal if required.name == 'calibration_error' else percent
        bound = 'at most' if required.is_most else 'at least'
        verdict = 'met' if is_met else '**missed**'
        lines.append((required.what, f'{bound} {write(required.limit)}', write(measured), verdict))
    return lines


FALSE_EMOTIONS = {'spoken_orders': 20.0, 'household': 1.0}
"""Sound in which no emotion is meant → the most decided emotions an hour that were required."""


def false_emotion_rows(rows: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Each of these requirements, as `requirement_rows`; `rows`: see `false_expressions`."""
    lines = []
    for sound, limit in FALSE_EMOTIONS.items():
        measured, verdict = 'not measured', '–'
        if row := rows.get(sound):
            rate, (low, high) = row['emotions_per_hour'], row['emotions_per_hour_interval']
            measured = f'{rate:.1f} [{low:.1f}, {high:.1f}]'
            verdict = '**missed**' if rate > limit else 'met'
            if rate <= limit < high:
                verdict = 'met, but too few minutes to be sure'
        lines.append((f'emotions in an hour of {sound}', f'at most {limit:g}', measured, verdict))
    return lines


RAVDESS = {'unknown voice': 0.692, 'known voice': 0.74}
"""The least unweighted accuracy on the six folds of RAVDESS that was required."""


def ravdess_rows(accuracies: Mapping[str, Sequence[float]]) -> list[tuple[str, ...]]:
    """These requirements, as `requirement_rows`; `accuracies`: recipe → those of each voice."""
    return [
        (
            f'UA on RAVDESS, six folds, {voice}: `{name}`',
            f'at least {percent(limit)}',
            percent(measured),
            'met' if round(measured, 3) >= limit else '**missed**',
        )
        for name, measured_ones in accuracies.items()
        for (voice, limit), measured in zip(RAVDESS.items(), measured_ones)
    ]


TRIAL_HEADER = ('trial', 'what', 'runs', *TRIAL_CONDITIONS.values())


def read_trials(folder: Path) -> list[LeftOutTrial]:
    """The trials in a folder of results, `base` first; SerError for a file that is none."""
    trials = []
    for path in sorted((folder / TRIALS).glob('*.json')):
        try:
            trials.append(from_dict(LeftOutTrial, json.loads(path.read_text())))
        except (OSError, ValueError, SerError) as error:
            raise SerError(f'{path} is not a trial on left-out corpora: {error}') from error
    return sorted(trials, key=lambda trial: trial.name != 'base')


def trial_rows(trials: Sequence[LeftOutTrial]) -> list[tuple[str, ...]]:
    """A row of each trial: means over corpora, with the deviation between seeds where there are."""
    return [
        (
            f'`{trial.name}`',
            trial.what,
            _runs(trial),
            *(_mean_of_trial(trial, condition) for condition in TRIAL_CONDITIONS),
        )
        for trial in trials
    ]


def _runs(trial: LeftOutTrial) -> str:
    n_corpora, n_seeds = (len({run[key] for run in trial.runs}) for key in ('corpus', 'seed'))
    return f'{n_corpora} {"corpus" if n_corpora == 1 else "corpora"} × {n_seeds}'


def _mean_of_trial(trial: LeftOutTrial, condition: str) -> str:
    seeds = sorted({run['seed'] for run in trial.runs})
    means = [_mean(r[condition] for r in trial.runs if r['seed'] == seed) for seed in seeds]
    if None in means:
        return '–'
    spread = f' ± {100 * statistics.stdev(means):.1f}' if len(means) > 1 else ''
    return percent(statistics.mean(means)) + spread
