"""Cross-validation: each fold and seed of a recipe is trained and then tested once.

Several processes may share the folds.
"""

import dataclasses
import datetime
import functools
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from filelock import FileLock

from ser_ros import SerError
from ser_ros.audio.sound_file import SoundFile
from ser_ros.bundle import load_bundle
from ser_ros.files import make_folder, write_atomically
from ser_ros.models import count_parameters
from ser_ros.settings import from_dict
from ser_ros.training.adjustment import adjust_recipe
from ser_ros.training.attempts import Attempts
from ser_ros.training.data.corpora import Clip, CorpusPath
from ser_ros.training.data.splits import QUICK, Split, count_folds, split_corpora
from ser_ros.training.evaluation.clip_result import from_records
from ser_ros.training.evaluation.prediction import predict_clips
from ser_ros.training.learning.fit import Compute
from ser_ros.training.learning.pretrained import load_sources, run_digest
from ser_ros.training.recipe import Recipe, SplitConfig, differences, shared_recipe
from ser_ros.training.reports.html import write_report
from ser_ros.training.reports.results import (
    FoldResult,
    Summary,
    fold_table,
    from_columns,
    read_fold,
    to_columns,
    write_fold,
)
from ser_ros.training.reports.run_report import (
    machine,
    milliseconds_per_window,
    seconds_per_epoch,
    trainable_parameters,
    versions,
    write_run_report,
)
from ser_ros.training.run import Run, load_corpora, train_split


@dataclass(frozen=True)
class CrossValidation:
    """The outcome of all requested folds and seeds."""

    summary: Optional[Summary]
    """Of the finished runs; None if there are none."""
    attempts: Attempts
    results: Path
    """Folder of the result files."""


def cross_validate(
    recipe: Recipe,
    corpora: Sequence[CorpusPath],
    out: Path,
    folds: Sequence[int] = (),
    seeds: Optional[Sequence[int]] = None,
    results: Optional[Path] = None,
    compute: Optional[Compute] = None,
    explicit: Optional[Collection[str]] = None,
) -> CrossValidation:
    """Train each fold (default: all) with each seed (default: the recipe's), below `out`.

    The model is evaluated on the test set once, after training, and the result is written as
    foldN_seedN.json to the recipe's folder in `results` (default: to `out`). `explicit`: settings
    that stay as they are, see `adjustment`; None: all. A finished run is not repeated, an interrupted
    one continues, one that another process works on is skipped, and one that fails does not stop
    the others. SerError for a missing corpus, a fold that does not exist, folders that cannot be
    made, and existing results of another recipe or of a corpus that has changed since.
    """
    compute = compute or Compute()
    loaded = load_corpora(corpora, recipe.data.labels)
    if explicit is not None:
        recipe = adjust_recipe(recipe, loaded, explicit, folds)
    results = results_folder(results, recipe) if results else out
    clips = [clip for corpus in loaded for clip in corpus.clips]
    n_folds = count_folds(recipe, clips)
    if unknown := [fold for fold in folds if not 1 <= fold <= n_folds]:
        raise SerError(f'there is no fold {unknown[0]}: the folds are 1 to {n_folds}')
    runs = {
        f'fold{fold}_seed{seed}': dataclasses.replace(recipe, seed=seed, split=_fold(recipe, fold))
        for seed, fold in itertools.product(
            seeds or (recipe.seed,), folds or range(1, n_folds + 1)
        )
    }
    splits, attempts = {}, Attempts()
    for name, run_recipe in runs.items():
        try:
            splits[name] = split_corpora(run_recipe, loaded)
        except SerError as error:
            attempts.failures[name] = str(error)
    if splits:  # the others take hours
        attempts.print_failures()
    for name, split in splits.items():
        _finished(results / f'{name}.json', runs[name], split)
    for folder in (out, results):
        make_folder(folder)
    for name, split in splits.items():
        run = functools.partial(_run_once, name, runs[name], split, out, results, n_folds, compute)
        attempts.attempt(name, run)
    finished = [
        _finished(results / f'{name}.json', runs[name], split) for name, split in splits.items()
    ]
    finished = [result for result in finished if result]
    summary = (
        Summary(tuple(sorted(finished, key=lambda r: (r.fold, r.seed)))) if finished else None
    )
    if summary:
        _write_summary(summary, clips, out)
    return CrossValidation(summary, attempts, results)


def _fold(recipe: Recipe, fold: int) -> SplitConfig:
    return dataclasses.replace(recipe.split, fold=fold)


def results_folder(folder: Path, recipe: Recipe) -> Path:
    """The folder for the results of this recipe, in a folder for those of all recipes."""
    suffix = '_random' if recipe.split.protocol == 'random' else ''
    return folder / (recipe.name.replace('/', '_') + suffix)


def _finished(path: Path, recipe: Recipe, split: Split) -> Optional[FoldResult]:
    """The existing result; SerError if it belongs to another recipe or to other clips."""
    if not path.is_file():
        return None
    result = read_fold(path)
    stored, own = (from_dict(Recipe, r) for r in (result.recipe, shared_recipe(recipe)))
    if changed := differences(stored, own):
        raise SerError(
            f'{path} is the result of another recipe ({", ".join(changed)}); choose another '
            'folder, or remove it'
        )
    if result.split_digest not in ('', run_digest(split, load_sources(recipe))):
        raise SerError(
            f'{path} is the result on other clips or from other weights: the corpus has changed '
            'since, or the bundle; choose another folder, or remove it'
        )
    return result


def _run_once(
    name: str,
    recipe: Recipe,
    split: Split,
    out: Path,
    results: Path,
    n_folds: int,
    compute: Compute,
) -> None:
    """Train and test one fold, unless it is finished; Timeout if another process works on it."""
    # The lock ends with its process, even one that is killed; the file may stay.
    with FileLock(out / f'{name}.lock', timeout=0):
        path = results / f'{name}.json'
        if _finished(path, recipe, split):
            return
        print(f'{name}: {recipe.name}', flush=True)
        run = train_split(recipe, split, out / name, compute)
        write_fold(path, _test(run, recipe, n_folds, compute))


def _test(run: Run, recipe: Recipe, n_folds: int, compute: Compute) -> FoldResult:
    """Evaluate on the test set, and write the card and the report beside the bundle."""
    bundle = load_bundle(run.bundle)
    # Measured before the bundle is moved to a GPU.
    milliseconds = milliseconds_per_window(bundle)
    results = {
        'validation': run.validation,
        'test': predict_clips(bundle, run.split.test, compute.device),
    }
    subsets = write_run_report(
        run.bundle, run.split.protocol, run.history, results, compute.device
    )
    info = bundle.info
    return FoldResult(
        recipe=shared_recipe(recipe),
        n_folds=n_folds,
        protocol=subsets['test']['metrics']['protocol'],
        is_speaker_independent=run.split.is_speaker_independent,
        class_names=list(info.class_names),
        parameters=count_parameters(bundle.model),
        trainable_parameters=trainable_parameters(bundle),
        epochs=len(run.history),
        seconds_per_epoch=seconds_per_epoch(run.history),
        milliseconds_per_window=milliseconds,
        source_rate=min(map(_rate, run.split.test)),
        machine=machine(compute.device),
        versions=versions(),
        temperature=info.temperature,
        threshold=info.threshold,
        validation=subsets['validation']['metrics'] if run.validation else {},
        test=subsets['test']['metrics'],
        predictions=to_columns(subsets['test']['predictions']),
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        split_digest=run_digest(run.split, load_sources(recipe)),
    )


def _rate(clip: Clip) -> int:
    with SoundFile(clip.path) as file:
        return file.sample_rate


def _write_summary(summary: Summary, clips: Sequence[Clip], out: Path) -> None:
    """Write the table, and a report of all test sets together."""
    first = summary.runs[0]
    # Results of 0.1.0 have the names of files alone.
    own = {(clip.voice, clip.path.stem): clip for clip in clips}
    own |= {(clip.voice, clip.name): clip for clip in clips}
    # One seed is enough for the hardest clips: the others tested the same clips.
    records = [
        record
        for run in summary.runs
        if run.seed == first.seed
        for record in from_columns(run.predictions, run.class_names)
    ]
    results = [
        dataclasses.replace(result, clip=dataclasses.replace(clip, emotion=result.clip.emotion))
        for result in from_records(records)
        if (clip := own.get((result.clip.voice, result.clip.name)))
    ]
    page = {
        'title': f'{QUICK}: ' * first.recipe.get('quick', False)
        + f'{first.name}: {summary.coverage}',
        'facts': {
            'recipe': first.name,
            'parameters': f'{first.parameters:,}',
            'epochs': sorted({run.epochs for run in summary.runs}),
            'versions': first.versions,
            'settings': first.recipe,
        },
        'subsets': {'test sets, pooled': summary.pooled},
        'history': [],
    }
    with FileLock(out / 'report.lock'):
        write_atomically(out / 'table.md', '\n'.join(fold_table(summary)) + '\n')
        write_report(out / 'report.html', page, results)
