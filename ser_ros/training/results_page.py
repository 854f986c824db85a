"""docs/RESULTS.md: what cross-validation kept, in tables, and how to read and repeat it."""

import json
import statistics
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ser_ros import SerError
from ser_ros.models import MODELS
from ser_ros.models.transfer import TransferModel
from ser_ros.paths import shipped_recipes
from ser_ros.settings import build
from ser_ros.training.recipe import Recipe, SplitConfig, load_recipe
from ser_ros.training.report import decimal, markdown_table, percent, with_interval
from ser_ros.training.results import (
    REFITTED,
    FoldResult,
    Summary,
    calibration,
    differences,
    flat_settings,
    fold_table,
    mean_deviation,
    read_folds,
    summarise,
)
from ser_ros.training.splits import FOLDS

DEFAULT = 'parallel_fusion'
"""The recipe that is told of at length."""

INTRODUCTION = """\
# Results

Every system on the same protocol: RAVDESS speech, eight classes, six speaker-independent folds.
`make results` makes this page from the small JSON files in [`results/`](results), which
`cross-validate` leaves of each fold that is finished, and which tell of trials; no number in its
tables is typed by hand, but for the published ones.
"""

SYSTEMS = """\
## All systems

Each system has a modern recipe, on the robot's front-end, and one in the setting of the research
that it comes from (`research/…`), with that research's mistakes mended: labels, splits, seeds and
stored settings. Modern recipes are heard as a stream, as on the robot; those on the research's
front-end classify whole clips.

- **UA pooled**: unweighted accuracy, the mean of the classes' recalls, over the test clips of all
  folds that were run, with the 95 % bootstrap interval over speakers. Chance is 12.5%.
- **UA mean ± std**: the same figure of each run, and its standard deviation.
- **ECE**: expected calibration error in 15 bins, of whole clips / of the stream's windows, pooled.
- **epochs**: that were run, where fewer than the recipe's with those. **s / epoch**: the median.
- **ms / window**: front-end and model for 3 s of sound (the research's front-end: a clip of
  3.5 s), the median of 30, on one thread of the machine's processor, without a GPU.
- **what was run**: every setting in which the runs differ from the shipped recipe of that name.
"""

RANDOM = """\
## The same models, their speakers known

A random split puts the same actors, saying the same two sentences, on both sides. What it measures
is an easier task that no robot has, and most high figures for RAVDESS are of that kind.
"""

SEARCH = """\
## What was tried on validation

Each with one seed, on 60 clips of each validation speaker named, by the mean of all their windows
after the last epoch, and, since utterances are decided so, by the longest windows alone; a few
points are chance. What a trial does not name was as in `modern_base`, with
gradients clipped at 5 and the architecture's default sizes. What is not written as `key=value` was
a change of the code, no key of a recipe. The trials ran on a prototype of the training loop and of
`parallel_fusion`, whose convolutions had no biases: a few hundred parameters fewer. Test actors of
the fold took no part.
"""

PROTOCOL = """\
## Protocol

- **Folds**: EmoBox's for RAVDESS (Ma et al., 2024); every actor is tested in one of them, and
  training never hears the actors whom its fold tests.
- **Validation**: by $validation of the actors who are not tested, equally many women and men, evenly
  spaced in their sorted list; the table of the default's folds names them. They choose the epoch,
  the temperature and the threshold.
- **Refit**: where a row says "$refitted",
  the model that was tested was trained once more, on all who are not tested, to the last epoch;
  temperature and threshold are those that were found before.
- **The test part**: `cross-validate` hears it when the training of its fold is over, and writes down
  what that comes to; a fold that has its file is not run again. Nothing in a run is chosen by it.
$leak- One recording that RAVDESS published twice is used once. A clip in which no speech is heard counts
  as wrong.
- Two sentences by actors are not how people speak to a robot: expect less of every system there.
"""

LEAK = """\
- **One leak remains**: augmentation, model and training settings were chosen by the trials above, on
  speakers $speakers, who are test speakers in folds $folds.
  No weight, epoch or temperature of those folds has seen them, but the choice of settings has. The
  test actors of a trial's own fold took no part in it; those of fold 1 had been heard twice for an
  earlier bundle (see the changelog).
"""

PUBLISHED = """\
## Published figures to compare with

| what | unweighted accuracy on RAVDESS, 8 classes | source |
|---|--:|---|
| chance | 12.5% | |
| temporal CNN on the raw wave, speech and song together (easier) | 68.8% | README of ThomasRigoni7/Audio-emotion-recognition-RAVDESS |
| the same, speakers shared | 81.2% | same |
| small LSTM with self-attention on MFCC, 47 k parameters, five folds of its own | 62.3 ± 1.2% | README of Mak-Sim/ResLSTM-SER |
| wav2vec 2.0 base, 95 M parameters, frozen, the same six folds | 54.3% | EmoBox, Table 4 |
| WavLM base, 95 M | 61.6% | same |
| HuBERT base, 95 M | 65.4% | same |
| HuBERT large, 317 M | 70.0% | same |
| WavLM large, 317 M | 72.0% | same |
| Whisper large v3 | 75.3% | same |
| parallel CNN and transformer, 248 k, random split with noisy copies in the test part | 80.4%, of another, easier task | README of IliaZenkov/transformer-cnn-emotion-recognition |
"""

REPEAT = """\
## How to repeat it

RAVDESS speech (Livingstone & Russo, 2018; doi 10.1371/journal.pone.0196391) in any folder; then

```sh
python -m ser_ros cross-validate parallel_fusion --corpus RAVDESS --out runs/parallel_fusion \\
    --seeds 1-3 --results docs/results
python -m ser_ros cross-validate research/vgg --corpus RAVDESS --out runs/research_vgg \\
    --folds 1 --set optimization.epochs=6 'pretrained=""' freeze=0 --results docs/results
python -m ser_ros cross-validate parallel_fusion --corpus RAVDESS --out runs/random \\
    --set split.protocol=random --results docs/results
make results
```

Any of them can be interrupted and given again; the same command in several terminals shares the
folds among them. The same seed on the same machine gives the same figures to the last digit, on
another one nearly the same. Each run's folder has a report (`report.html`) with pictures and the
hardest clips.
"""


@dataclass(frozen=True)
class Trial:
    """One setting that was tried on validation speakers."""

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
    """Unweighted accuracy and negative log-likelihood by the longest windows alone, if known."""


def render(folder: Path) -> str:
    """The page for the results in a folder; the same for the same files. SerError: see `read_folds`."""
    summaries = [
        summary
        for summary in summarise(read_folds(folder))
        if _is_comparable(build(Recipe, summary.runs[0].recipe))
    ]
    independent = [s for s in summaries if s.is_speaker_independent]
    trials = [_read_trial(path) for path in sorted((folder / 'search').glob('*.json'))]
    sections = [
        INTRODUCTION,
        SYSTEMS,
        *_systems(independent),
        RANDOM,
        _random(summaries),
        f'## The default: `{DEFAULT}`\n',
        *_default(_settings_of(DEFAULT, independent)),
        SEARCH,
        _search(trials),
        _protocol(independent, trials),
        PUBLISHED,
        REPEAT,
    ]
    return '\n'.join(sections)


def _lines(lines: Sequence[str]) -> str:
    return '\n'.join(lines) + '\n'


# --- All systems -----------------------------------------------------------------------------

HEADER = (
    'system',
    'recipe',
    'runs',
    'epochs',
    'UA pooled [95 %]',
    'UA mean ± std',
    'ECE',
    'parameters',
    's / epoch',
    'ms / window',
    'machine',
    'what was run',
)


def _systems(summaries: Sequence[Summary]) -> Iterator[str]:
    """The table of all shipped recipes and all others that were run, and its machines."""
    machines = sorted({_machine(run) for summary in summaries for run in summary.runs})
    letters = dict(zip(machines, string.ascii_uppercase))
    shipped = {name: load_recipe(name) for name in shipped_recipes()}
    shipped = {name: recipe for name, recipe in shipped.items() if _is_comparable(recipe)}
    recipes = {s.runs[0].name: build(Recipe, s.runs[0].recipe) for s in summaries} | shipped
    rows = []
    for name in sorted(recipes, key=lambda name: _rank(recipes[name])):
        found = _settings_of(name, summaries)
        cells = [f'`{recipes[name].architecture}`', f'`{name}`']
        if not found:
            rows.append([*cells, 'not run', *['–'] * (len(HEADER) - 4), ''])
        rows += [[*cells, *_row(summary, letters, shipped.get(name))] for summary in found]
    yield _lines(markdown_table(HEADER, rows))
    if letters:
        yield _lines([f'Machine {letter}: {name}.' for name, letter in letters.items()])


def _settings_of(name: str, summaries: Sequence[Summary]) -> list[Summary]:
    """A recipe's runs: as it is shipped, then in other settings, those with the most runs first."""
    shipped = load_recipe(name) if name in shipped_recipes() else None

    def rank(summary: Summary) -> tuple[bool, int]:
        recipe = build(Recipe, summary.runs[0].recipe)
        return shipped is None or bool(differences(recipe, shipped)), -len(summary.runs)

    return sorted((s for s in summaries if s.runs[0].name == name), key=rank)


def _is_comparable(recipe: Recipe) -> bool:
    """Whether it is about what this page is about: RAVDESS alone, all of its classes."""
    return recipe.data.corpora == ('RAVDESS',) and not recipe.data.merge


def _rank(recipe: Recipe) -> tuple:
    """Systems in the order of `MODELS`; of each the modern recipe, the research's, others."""
    system = [*MODELS, recipe.architecture].index(recipe.architecture)
    return system, recipe.name != recipe.architecture, '/' not in recipe.name, recipe.name


def _row(summary: Summary, letters: Mapping[str, str], shipped: Optional[Recipe]) -> list[str]:
    run = summary.runs[0]
    figures = summary.pooled['figures']
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
        with_interval(figures),
        mean_deviation(summary),
        calibration(figures),
        f'{run.parameters:,}{trained}',
        *(', '.join(f'{value:.1f}' for value in values) for values in medians),
        ', '.join(letters[machine] for machine in machines),
        _notes(summary, shipped),
    ]


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
    """In what the runs are not what the name of the recipe says."""
    run = summary.runs[0]
    recipe = build(Recipe, run.recipe)
    if shipped is None:
        notes = ['no shipped recipe']
    else:
        notes = [f'`{change}`' for change in differences(recipe, shipped)] or ['as shipped']
    if issubclass(MODELS[recipe.architecture], TransferModel) and not recipe.pretrained:
        frozen = f', {recipe.freeze} stages frozen as they were drawn' if recipe.freeze else ''
        notes.append(f'from scratch, without the published weights{frozen}')
    if summary.is_refitted:
        notes.append(REFITTED)
    lowest = min(run.source_rate for run in summary.runs)
    if lowest < recipe.frontend.sample_rate:
        notes.append(
            f'resampled from {lowest / 1000:g} kHz: bands above {lowest / 2000:g} kHz are empty'
        )
    return '; '.join(notes)


# --- Random splits ---------------------------------------------------------------------------


def _random(summaries: Sequence[Summary]) -> str:
    """Each recipe with a random split beside itself on the folds."""

    def key(summary: Summary) -> tuple[str, str]:
        run = summary.runs[0]
        settings = {
            name: value for name, value in run.recipe.items() if name not in ('split', 'seed')
        }
        return run.name, json.dumps(settings, sort_keys=True)

    independent = {key(s): s for s in summaries if s.is_speaker_independent}
    rows = []
    for summary in summaries:
        if summary.is_speaker_independent:
            continue
        figures = summary.pooled['figures']
        row = [f'`{summary.runs[0].name}`', with_interval(figures), summary.coverage]
        if other := independent.get(key(summary)):
            honest = other.pooled['figures']
            gap = figures['unweighted_accuracy'] - honest['unweighted_accuracy']
            row += [with_interval(honest), other.coverage, f'{100 * gap:+.1f} points']
        else:
            row += ['not run', '–', '–']
        rows.append(row)
    if not rows:
        return 'Not run.\n'
    header = ['recipe', 'random split', 'runs', 'speaker-independent', 'runs', 'gap']
    return _lines(markdown_table(header, rows))


# --- The default -----------------------------------------------------------------------------


def _default(summaries: Sequence[Summary]) -> Iterator[str]:
    """The default recipe at length, in the first of these settings."""
    if not summaries:
        yield 'Not run.\n'
        return
    summary = summaries[0]
    figures = summary.pooled['figures']
    yield (
        'Asked for beforehand: at least 58% unweighted accuracy pooled over the six folds, 63% the\n'
        'goal, and an ECE of whole clips of at most 0.05. Measured: '
        f'{with_interval(figures)}, ECE {decimal(figures["calibration_error"])} ({summary.coverage}).\n'
    )
    chance = calibration(figures, 'calibration_error_by_chance')
    yield (
        f'ECE of clips / windows pooled: {calibration(figures)}; a perfectly calibrated model would '
        f'show\n{chance} at this many, if each were independent of the others.\n'
    )
    yield _lines(fold_table(summary))
    yield _lines(
        markdown_table(
            ['class', 'clips', 'recall', 'precision', 'F1'],
            [
                [name, f['clips'], *(percent(f[key]) for key in ('recall', 'precision', 'f1'))]
                for name, f in figures['classes'].items()
            ],
        )
    )
    yield 'Clips by true class (rows) and by what was recognised:\n'
    confusion = figures['confusion']
    names = confusion['columns'][:-1]
    rows = [[f'**{name}**', *counts] for name, counts in zip(names, confusion['rows'])]
    yield _lines(markdown_table(['', *confusion['columns']], rows))
    rows = [
        [value, f['clips'], percent(f['unweighted_accuracy'])]
        for group in ('gender', 'intensity')
        for value, f in figures['groups'][group].items()
    ]
    yield _lines(markdown_table(['clips by gender and intensity', 'clips', 'UA'], rows))


# --- The search ------------------------------------------------------------------------------


def _search(trials: Sequence[Trial]) -> str:
    if not trials:
        return 'Nothing yet.\n'
    rows = [
        [
            trial.name,
            trial.settings.get('architecture', DEFAULT),
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
    header += ['parameters', 'UA', 'negative log-likelihood', 'UA of the longest', 'the same loss']
    return _lines(markdown_table(header, rows))


def _setting(key: str, value: Any) -> str:
    is_known = key in flat_settings(Recipe()) or key.startswith('hyperparameters.')
    return f'`{key}={json.dumps(value)}`' if is_known else f'{key}: {value}'


# --- The protocol ----------------------------------------------------------------------------


def _protocol(summaries: Sequence[Summary], trials: Sequence[Trial]) -> str:
    """In words, by what the runs and the trials say of themselves."""
    counts = sorted({len(run.validation['speakers']) for s in summaries for run in s.runs})
    chosen = ' or '.join(map(str, counts)) or str(SplitConfig().n_validation)
    tried = {speaker for trial in trials for speaker in trial.validation_speakers}
    folds = [str(n) for n, fold in enumerate(FOLDS['RAVDESS'], 1) if tried & set(fold)]
    leak = string.Template(LEAK).substitute(
        speakers=', '.join(sorted(tried)), folds=', '.join(folds)
    )
    return string.Template(PROTOCOL).substitute(
        validation=chosen,
        refitted=REFITTED,
        leak=leak if folds else '',
    )


def _read_trial(path: Path) -> Trial:
    try:
        return build(Trial, json.loads(path.read_text()))
    except (OSError, ValueError, SerError) as error:
        raise SerError(f'{path} tells of no trial on validation: {error}') from error
