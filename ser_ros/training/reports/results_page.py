"""docs/RESULTS.md: tables of the results of cross-validation and of the shipped bundles."""

import dataclasses
import json
import statistics
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from jinja2 import Environment, StrictUndefined

from ser_ros import SerError
from ser_ros.bundle import Bundle
from ser_ros.bundle_info import DEFAULT_BUNDLE
from ser_ros.models import MODELS
from ser_ros.models.transfer import TransferModel
from ser_ros.settings import from_dict
from ser_ros.shipped import shipped_recipes
from ser_ros.training.data.splits import FOLDS
from ser_ros.training.evaluation.known_voices import accuracies_by_answers
from ser_ros.training.evaluation.voice_streams import N_SPEAKERS, N_UTTERANCES
from ser_ros.training.recipe import (
    Recipe,
    SplitConfig,
    differences,
    flat_settings,
    load_recipe,
)
from ser_ros.training.reports import left_out
from ser_ros.training.reports.card import FALSE_EXPRESSIONS, foreign_metrics, trust
from ser_ros.training.reports.formatting import (
    calibration_errors,
    decimal,
    markdown_table,
    mean_deviation,
    percent,
    with_interval,
)
from ser_ros.training.reports.genders import (
    FOLDS_HEADER,
    LEFT_OUT_HEADER,
    LeftOutGenders,
    fold_rows,
    left_out_rows,
    read_genders,
)
from ser_ros.training.reports.learning_curve import HEADER as LEARNING_HEADER
from ser_ros.training.reports.learning_curve import LearningCurve, curve_table, read_curves
from ser_ros.training.reports.left_out import (
    LeftOutSummary,
    LeftOutTrial,
    read_summaries,
    read_trials,
)
from ser_ros.training.reports.results import (
    REFITTED,
    FoldResult,
    Summary,
    fold_table,
    from_columns,
    read_folds,
    summarise,
)

DEFAULT_RECIPE = 'parallel_fusion'
"""The recipe that the page shows in detail."""

TEMPLATE = Path(__file__).with_name('templates') / 'results.md.jinja'


@dataclass(frozen=True)
class Trial:
    """A setting that was tried on validation speakers."""

    name: str
    settings: dict[str, Any]
    fold: int
    validation_speakers: list[str]
    epochs: int
    parameters: int
    unweighted_accuracy: float
    nll: float
    """Negative log-likelihood."""
    seed: int
    longest: list[float] = field(default_factory=list)
    """Unweighted accuracy and negative log-likelihood of the longest windows alone, if known."""


def render(folder: Path, shipped: Sequence[Bundle]) -> str:
    """The page for the results in a folder and the shipped bundles; the same files, the same page.

    SerError: see `read_folds`.
    """
    summaries = [
        summary
        for summary in summarise(read_folds(folder))
        if _is_comparable(from_dict(Recipe, summary.runs[0].recipe))
    ]
    independent = [s for s in summaries if s.is_speaker_independent]
    default = next(iter(_settings_of(DEFAULT_RECIPE, independent)), None)
    trials = [_read_trial(path) for path in sorted((folder / 'search').glob('*.json'))]
    machines = sorted({_machine(run) for summary in independent for run in summary.runs})
    letters = dict(zip(machines, string.ascii_uppercase))
    environment = Environment(
        trim_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    return environment.from_string(TEMPLATE.read_text(encoding='utf-8')).render(
        systems=_systems(independent, letters),
        machines=[f'Machine {letter}: {name}.' for name, letter in letters.items()],
        random=_random(summaries),
        genders=_genders(independent, read_genders(folder)),
        left_out=_left_out(read_summaries(folder), _other_requirements(independent, shipped)),
        n_utterances=N_UTTERANCES,
        n_speakers=N_SPEAKERS,
        left_out_trials=_left_out_trials(read_trials(folder)),
        learning_curves=[_learning_curve(curve) for curve in read_curves(folder)],
        default_name=DEFAULT_RECIPE,
        default=_default(default) if default else None,
        shipped=[_shipped(bundle, default) for bundle in shipped],
        search=_search(trials),
        n_validation=_n_validation(independent),
        refitted=REFITTED,
        leak=_leak(trials),
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    return '\n'.join(markdown_table(header, rows))


# --- All systems -----------------------------------------------------------------------------

HEADER = (
    'system',
    'recipe',
    'runs',
    'epochs',
    'UA pooled [95 %]',
    'UA mean ± std',
    'UA known voices',
    'ECE',
    'parameters',
    's / epoch',
    'ms / window',
    'machine',
    'what was run',
)


def _systems(summaries: Sequence[Summary], letters: Mapping[str, str]) -> str:
    """The table of all shipped recipes and all others that were run; `letters` name machines."""
    shipped = {name: load_recipe(name) for name in shipped_recipes()}
    recipes = {s.runs[0].name: from_dict(Recipe, s.runs[0].recipe) for s in summaries}
    recipes |= {name: recipe for name, recipe in shipped.items() if _is_comparable(recipe)}
    rows = []
    for name in sorted(recipes, key=lambda name: _rank(recipes[name])):
        found = _settings_of(name, summaries)
        cells = [f'`{recipes[name].architecture}`', f'`{name}`']
        if not found:
            rows.append([*cells, 'not run', *['–'] * (len(HEADER) - 4), ''])
        rows += [[*cells, *_row(summary, letters, shipped.get(name))] for summary in found]
    return _table(HEADER, rows)


def _settings_of(name: str, summaries: Sequence[Summary]) -> list[Summary]:
    """Runs of a recipe: trained with the shipped settings, then with others, most runs first."""
    shipped = load_recipe(name) if name in shipped_recipes() else None

    def rank(summary: Summary) -> tuple[bool, int]:
        recipe = from_dict(Recipe, summary.runs[0].recipe)
        return shipped is None or bool(_changes(recipe, shipped)), -len(summary.runs)

    return sorted((s for s in summaries if s.runs[0].name == name), key=rank)


def _changes(recipe: Recipe, shipped: Recipe) -> list[str]:
    """The differences from the shipped recipe that change the training."""
    if not (recipe.voice.copies or shipped.voice.copies):
        recipe = dataclasses.replace(recipe, voice=shipped.voice)
    return differences(recipe, shipped)


def _is_comparable(recipe: Recipe) -> bool:
    """Whether the recipe belongs on this page: RAVDESS alone, with all of its classes."""
    return recipe.data.corpora == ('RAVDESS',) and not recipe.data.merge


def _rank(recipe: Recipe) -> tuple:
    """Systems in the order of `MODELS`; for each the modern recipe, the research's, others."""
    system = [*MODELS, recipe.architecture].index(recipe.architecture)
    return system, recipe.name != recipe.architecture, '/' not in recipe.name, recipe.name


def _row(summary: Summary, letters: Mapping[str, str], shipped: Optional[Recipe]) -> list[str]:
    run = summary.runs[0]
    metrics = summary.pooled['metrics']
    machines = sorted({_machine(r) for r in summary.runs})
    medians = [
        [
            statistics.median(getattr(r, name) for r in summary.runs if _machine(r) == machine)
            for machine in machines
        ]
        for name in ('seconds_per_epoch', 'milliseconds_per_window')
    ]
    trained = (
        ''
        if run.trainable_parameters == run.parameters
        else (f' ({run.trainable_parameters:,} of them trained)')
    )
    return [
        summary.coverage,
        _epochs(summary),
        with_interval(metrics),
        mean_deviation(summary.accuracies),
        _known_voices(summary, shipped),
        calibration_errors(metrics),
        f'{run.parameters:,}{trained}',
        *(', '.join(f'{value:.1f}' for value in values) for values in medians),
        ', '.join(letters[machine] for machine in machines),
        _notes(summary, shipped),
    ]


def _known_voices(summary: Summary, shipped: Optional[Recipe]) -> str:
    """Mean ± standard deviation of the runs, and in brackets without adaptation."""
    if not (known := _known_accuracies(summary, shipped)):
        return '–'
    adapted, unadapted = map(mean_deviation, zip(*known))
    return f'{adapted} ({unadapted})'


def _known_accuracies(
    summary: Summary, shipped: Optional[Recipe]
) -> Optional[list[tuple[float, float]]]:
    """Of each run with and without adaptation; None where a run has none.

    Computed from the stored predictions where the shipped recipe adapts by answers.
    """
    known = [
        tuple(metrics[when]['unweighted_accuracy'] for when in ('adapted', 'unadapted'))
        for run in summary.runs
        if (metrics := run.test.get('known_voices'))
    ]
    if not known and shipped and shipped.voice.by_answers:
        known = [
            accuracies_by_answers(
                from_columns(run.predictions, run.class_names),
                run.class_names,
                shipped.voice.memory,
            )
            for run in summary.runs
        ]
    return known if known and None not in known else None


def _machine(run: FoldResult) -> str:
    machine = run.machine
    gpu = '' if machine['device'] == 'cpu' else f', {machine["device"]}'
    return f'{machine["processor"]}, {machine["threads"]} threads{gpu}'


def _epochs(summary: Summary) -> str:
    epochs = sorted({run.epochs for run in summary.runs})
    wanted = summary.runs[0].recipe['optimization']['epochs']
    if epochs == [wanted]:
        return str(wanted)
    return f'{"–".join(str(n) for n in dict.fromkeys((epochs[0], epochs[-1])))} of {wanted}'


def _notes(summary: Summary, shipped: Optional[Recipe]) -> str:
    """The differences between the runs and the shipped recipe of that name."""
    run = summary.runs[0]
    recipe = from_dict(Recipe, run.recipe)
    if shipped is None:
        notes = ['not a shipped recipe']
    else:
        notes = [f'`{change}`' for change in _changes(recipe, shipped)] or ['as shipped']
    if issubclass(MODELS[recipe.architecture], TransferModel) and not recipe.pretrained:
        frozen = f', {recipe.freeze} stages frozen at random values' if recipe.freeze else ''
        notes.append(f'from scratch, without the published weights{frozen}')
    if summary.is_refitted:
        notes.append(REFITTED)
    lowest = min(run.source_rate for run in summary.runs)
    if lowest < recipe.frontend.sample_rate:
        notes.append(
            f'resampled from {lowest / 1000:g} kHz: bands above {lowest / 2000:g} kHz are empty'
        )
    return '; '.join(notes)


# --- Corpora left out ------------------------------------------------------------------------


def _other_requirements(
    summaries: Sequence[Summary], shipped: Sequence[Bundle]
) -> list[tuple[str, ...]]:
    """What was required of the default bundle beside the corpora that were left out."""
    accuracies = {}
    for name in (DEFAULT_RECIPE, DEFAULT_BUNDLE):
        summary = next(iter(_settings_of(name, summaries)), None)
        known = summary and _known_accuracies(summary, load_recipe(name))
        if known:
            unknown = summary.pooled['metrics']['unweighted_accuracy']
            accuracies[name] = unknown, statistics.mean(adapted for adapted, _ in known)
    sounds = next((b.info.metrics for b in shipped if b.path.stem == DEFAULT_BUNDLE), {})
    rows = sounds.get(FALSE_EXPRESSIONS, {}).get('rows', {})
    return [*left_out.ravdess_rows(accuracies), *left_out.false_emotion_rows(rows)]


def _left_out(
    summaries: Sequence[LeftOutSummary], requirements: Sequence[tuple[str, ...]] = ()
) -> list[dict[str, str]]:
    """Facts, table and curve of each recipe whose corpora were left out.

    `requirements`: further rows of what was required of the default bundle.
    """
    sections = []
    for name in dict.fromkeys(summary.name for summary in summaries):
        found = [summary for summary in summaries if summary.name == name]
        seeds = ', '.join(str(summary.seed) for summary in found)
        speed = statistics.median(summary.milliseconds_per_window for summary in found)
        results = [result for summary in found for result in summary.results]
        n_others = {len(result.chosen_on) for result in results}
        is_one = all(result.protocol == left_out.NEW_TO_BUNDLE for result in results)
        recipe = found[0].recipe
        left_out_names = recipe['split']['left_out']
        trained = [name for name in recipe['data']['corpora'] if name not in left_out_names]
        one_model = f'one model, trained on {" and ".join(trained)}; ' if is_one else ''
        sections.append(
            {
                'name': name,
                'facts': f'{recipe["architecture"]}, {found[0].parameters:,} parameters, '
                f'{speed:.1f} ms / window, seeds {seeds}; {one_model}'
                'choices for each corpus on '
                f'{" or ".join(map(str, sorted(n_others)))} others',
                'table': _table(left_out.HEADER, left_out.rows([s.results for s in found])),
                'repeated': left_out.repeated(found),
                'effects': _table(left_out.EFFECT_HEADER, left_out.effect_rows(found)),
                'curve': _table(left_out.CURVE_HEADER, left_out.curve_rows(found)),
                'requirements': _table(
                    left_out.REQUIREMENT_HEADER,
                    [*left_out.requirement_rows(found), *requirements],
                )
                if name == DEFAULT_BUNDLE
                else '',
            }
        )
    return sections


def _left_out_trials(trials: Sequence[LeftOutTrial]) -> str:
    return _table(left_out.TRIAL_HEADER, left_out.trial_rows(trials)) if trials else ''


def _learning_curve(curve: LearningCurve) -> dict[str, str]:
    """Facts and table of a bundle that was fine-tuned on a few clips."""
    seeds = len({point.seed for point in curve.points})
    return {
        'facts': f'`{curve.bundle}`, trained on {", ".join(curve.trained_on)}; clips of '
        f'{curve.n_speakers} speakers of {curve.corpus} in {len(curve.classes)} classes, '
        f'{curve.steps} steps; {curve.n_tested} test clips of the others; {seeds} seeds, each with '
        'other speakers',
        'table': _table(LEARNING_HEADER, curve_table(curve)),
    }


# --- Random splits ---------------------------------------------------------------------------


def _random(summaries: Sequence[Summary]) -> str:
    """Each recipe with a random split, compared with the same recipe on the folds."""

    def key(summary: Summary) -> tuple[str, str]:
        run = summary.runs[0]
        settings = flat_settings(from_dict(Recipe, run.recipe)).items()
        kept = {name: value for name, value in settings if not name.startswith('split.')}
        return run.name, json.dumps(kept, sort_keys=True)

    independent = {key(s): s for s in summaries if s.is_speaker_independent}
    rows = []
    for summary in summaries:
        run = summary.runs[0]
        if summary.is_speaker_independent or run.recipe['split']['protocol'] != 'random':
            continue
        metrics = summary.pooled['metrics']
        row = [f'`{run.name}`', with_interval(metrics), summary.coverage]
        if other := independent.get(key(summary)):
            by_speaker = other.pooled['metrics']
            gap = metrics['unweighted_accuracy'] - by_speaker['unweighted_accuracy']
            row += [with_interval(by_speaker), other.coverage, f'{100 * gap:+.1f} points']
        else:
            row += ['not run', '–', '–']
        rows.append(row)
    header = ['recipe', 'random split', 'runs', 'speaker-independent', 'runs', 'gap']
    return _table(header, rows) if rows else ''


def _genders(
    summaries: Sequence[Summary], left_out: Sequence[LeftOutGenders]
) -> Optional[dict[str, str]]:
    """The tables of women and men; None without results of both kinds."""
    rows = fold_rows(summaries)
    if not rows or not left_out:
        return None
    return {
        'folds': _table(FOLDS_HEADER, rows),
        'left_out': _table(LEFT_OUT_HEADER, left_out_rows(left_out)),
    }


# --- The default -----------------------------------------------------------------------------


def _default(summary: Summary) -> dict[str, str]:
    """The default recipe in detail."""
    metrics = summary.pooled['metrics']
    confusion = metrics['confusion']
    others = tuple(run for run in summary.runs if run.fold != 1)
    return {
        'measured': with_interval(metrics),
        'without_fold_1': with_interval(Summary(others).pooled['metrics']) if others else '',
        'ece': decimal(metrics['calibration_error']),
        'coverage': summary.coverage,
        'calibration': calibration_errors(metrics),
        'by_chance': calibration_errors(metrics, 'calibration_error_by_chance'),
        'folds': '\n'.join(fold_table(summary)),
        'classes': _table(
            ['class', 'clips', 'recall', 'precision', 'F1'],
            [
                [name, v['clips'], *(percent(v[key]) for key in ('recall', 'precision', 'f1'))]
                for name, v in metrics['classes'].items()
            ],
        ),
        'confusion': _table(
            ['', *confusion['columns']],
            [
                [f'**{name}**', *counts]
                for name, counts in zip(confusion['columns'], confusion['rows'])
            ],
        ),
        'groups': _table(
            ['clips by gender and intensity', 'clips', 'classes', 'UA [95 %]'],
            [
                [value, v['clips'], v['n_classes'], with_interval(v)]
                for group in ('gender', 'intensity')
                for value, v in metrics['groups'][group].items()
            ],
        ),
    }


# --- The shipped bundles ---------------------------------------------------------------------


def _shipped(bundle: Bundle, default: Optional[Summary]) -> dict[str, str]:
    """The metrics in the bundle, with sounds without a voice compared to the default's runs."""
    info = bundle.info
    test = info.metrics['test']
    evaluated = {f'{name}, test speakers': v for name, v in test['groups']['corpus'].items()}
    evaluated |= {
        name: {**v, 'n_classes': len(v['classes'])} for name, v in foreign_metrics(info).items()
    }
    return {
        'name': bundle.path.stem,
        'architecture': info.architecture,
        'corpora': ', '.join(info.corpora),
        'has_foreign': bool(foreign_metrics(info)),
        'accuracies': _table(
            ['evaluated on', 'clips', 'classes', 'UA [95 %]', 'accuracy'],
            [
                [name, v['clips'], v['n_classes'], with_interval(v), percent(v['accuracy'])]
                for name, v in evaluated.items()
            ],
        ),
        'nonspeech': _nonspeech(bundle.path.stem, test, default),
        'trust': '\n'.join(trust(info)),
    }


def _nonspeech(name: str, metrics: Mapping[str, Any], default: Optional[Summary]) -> str:
    """Rates of the bundle for each sound, and the mean rates of the default's runs."""
    sounds = metrics['nonspeech']['rows']
    evaluated = {name: [sounds]}
    if default:
        tests = [run.test for run in default.runs]
        evaluated[DEFAULT_RECIPE] = [
            test['nonspeech']['rows'] for test in tests if 'nonspeech' in test
        ]

    def share(models: Sequence[Mapping[str, Any]], sound: str, key: str) -> str:
        values = [model[sound][key] for model in models if sound in model]
        return percent(statistics.mean(values) if values and None not in values else None)

    shares = {'too uncertain': 'rejected', 'decided': 'answered'}
    header = ['sound', *(f'`{name}`: {label}' for name in evaluated for label in shares)]
    rows = [
        [sound, *(share(m, sound, key) for m in evaluated.values() for key in shares.values())]
        for sound in sounds
    ]
    return _table(header, rows)


# --- The search ------------------------------------------------------------------------------


def _search(trials: Sequence[Trial]) -> str:
    rows = [
        [
            trial.name,
            trial.settings.get('architecture', DEFAULT_RECIPE),
            '; '.join(
                _setting(*item) for item in trial.settings.items() if item[0] != 'architecture'
            ),
            trial.fold,
            ' '.join(trial.validation_speakers),
            trial.seed,
            trial.epochs,
            f'{trial.parameters:,}',
            percent(trial.unweighted_accuracy),
            decimal(trial.nll),
            *(
                (percent(trial.longest[0]), decimal(trial.longest[1]))
                if trial.longest
                else ('–', '–')
            ),
        ]
        for trial in sorted(trials, key=lambda t: (-t.unweighted_accuracy, t.name))
    ]
    header = ['trial', 'architecture', 'settings', 'fold', 'validation speakers', 'seed', 'epochs']
    header += ['parameters', 'UA', 'NLL', 'UA, longest windows', 'NLL, longest windows']
    return _table(header, rows) if rows else ''


def _setting(key: str, value: Any) -> str:
    is_known = key in flat_settings(Recipe()) or key.startswith('hyperparameters.')
    return f'`{key}={json.dumps(value)}`' if is_known else f'{key}: {value}'


# --- The protocol ----------------------------------------------------------------------------


def _n_validation(summaries: Sequence[Summary]) -> str:
    """How many validation speakers the runs had."""
    subsets = [run.validation for s in summaries for run in s.runs if run.validation]
    counts = sorted({len(subset['speakers']) for subset in subsets})
    return ' or '.join(map(str, counts)) or str(SplitConfig().n_validation)


def _leak(trials: Sequence[Trial]) -> Optional[dict[str, str]]:
    """Speakers that settings were chosen on, and the folds in which they are test speakers."""
    tried = {speaker for trial in trials for speaker in trial.validation_speakers}
    folds = [str(n) for n, fold in enumerate(FOLDS['RAVDESS'], 1) if tried & set(fold)]
    return {'speakers': ', '.join(sorted(tried)), 'folds': ', '.join(folds)} if folds else None


def _read_trial(path: Path) -> Trial:
    try:
        return from_dict(Trial, json.loads(path.read_text()))
    except (OSError, ValueError, SerError) as error:
        raise SerError(f'{path} is not a trial on validation speakers: {error}') from error
