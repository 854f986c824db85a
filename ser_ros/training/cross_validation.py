"""Folds and seeds of one recipe, each trained and then tested once; any number of terminals."""

import dataclasses
import datetime
import itertools
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import soundfile
from filelock import FileLock, Timeout

from ser_ros import SerError
from ser_ros.bundle import load_bundle
from ser_ros.files import make_folder, write_atomically
from ser_ros.models import count_parameters
from ser_ros.settings import from_dict
from ser_ros.training.data.corpora import Clip, CorpusPath
from ser_ros.training.data.splits import FOLDS, Split
from ser_ros.training.evaluation.metrics import from_predictions, listen
from ser_ros.training.learning.fit import Compute
from ser_ros.training.learning.train import Run, open_corpora, recipe_split, train_split
from ser_ros.training.recipe import Recipe, SplitConfig
from ser_ros.training.reports.html import write_report
from ser_ros.training.reports.results import (
    FoldResult,
    Summary,
    columns_of,
    differences,
    fold_table,
    plain_recipe,
    read_fold,
    records_of,
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


@dataclass(frozen=True)
class CrossValidation:
    """What came of all folds and seeds that were asked for."""

    summary: Optional[Summary]
    """Of those that are finished; None where none is."""
    failures: dict[str, str]
    """Name of a run → what was wrong."""
    elsewhere: list[str]
    """Runs that another process is at."""


def cross_validate(
    recipe: Recipe,
    corpora: Sequence[CorpusPath],
    out: Path,
    folds: Sequence[int] = (),
    seeds: Optional[Sequence[int]] = None,
    results: Optional[Path] = None,
    compute: Optional[Compute] = None,
) -> CrossValidation:
    """Train each fold (default: all) with each seed (default: the recipe's), below `out`.

    The test part is heard once, when the training is over, and what it came to is written as
    foldN_seedN.json to `results` (default: `out`). What is finished is not run again, what was
    interrupted goes on, what another process is at is left to it, and what fails does not keep
    the others from running. SerError for a corpus that is not there, a fold that is none, folders
    that cannot be made, and results of another recipe or of a corpus that has changed since.
    """
    compute, results = compute or Compute(), results or out
    read = open_corpora(corpora)
    clips = [clip for corpus in read for clip in corpus.clips]
    n_folds = count_folds(recipe, clips)
    if foreign := [fold for fold in folds if not 1 <= fold <= n_folds]:
        raise SerError(f'there is no fold {foreign[0]}: the folds are 1 to {n_folds}')
    runs = {
        f'fold{fold}_seed{seed}': dataclasses.replace(recipe, seed=seed, split=_fold(recipe, fold))
        for seed, fold in itertools.product(
            seeds or (recipe.seed,), folds or range(1, n_folds + 1)
        )
    }
    splits, failures, elsewhere = {}, {}, []
    for name, run_recipe in runs.items():
        try:
            splits[name] = recipe_split(run_recipe, read)
        except SerError as error:
            failures[name] = str(error)
    for name, split in splits.items():
        _finished(results / f'{name}.json', runs[name], split)
    for folder in (out, results):
        make_folder(folder)
    for name, split in splits.items():
        try:
            _run_once(name, runs[name], split, out, results, n_folds, compute)
        except Timeout:
            elsewhere.append(name)
        except SerError as error:
            failures[name] = str(error)
        except Exception as error:  # whatever it is, it must not lose the others
            traceback.print_exc()
            failures[name] = f'{type(error).__name__}: {error}'
    finished = [
        _finished(results / f'{name}.json', runs[name], split) for name, split in splits.items()
    ]
    finished = [result for result in finished if result]
    summary = (
        Summary(tuple(sorted(finished, key=lambda r: (r.fold, r.seed)))) if finished else None
    )
    if summary:
        _write_summary(summary, clips, out)
    return CrossValidation(summary, failures, elsewhere)


def _fold(recipe: Recipe, fold: int) -> SplitConfig:
    return dataclasses.replace(recipe.split, fold=fold)


def count_folds(recipe: Recipe, clips: Sequence[Clip]) -> int:
    """Folds that the recipe's protocol has in each of the corpora; SerError where it has none."""
    if recipe.split.protocol in ('speakers', 'random'):
        return recipe.split.n_folds
    corpora = {clip.corpus for clip in clips}
    if recipe.split.protocol == 'leave_one_speaker_out':
        return min(len({c.speaker for c in clips if c.corpus == name}) for name in corpora)
    if unpublished := sorted(corpora - FOLDS.keys()):
        raise SerError(
            f'{", ".join(unpublished)} has no published folds; set split.protocol to speakers or '
            'leave_one_speaker_out'
        )
    return min(len(FOLDS[name]) for name in corpora)


def results_folder(folder: Path, recipe: Recipe) -> Path:
    """Where in a folder of all recipes' results those of this one belong."""
    suffix = '_random' if recipe.split.protocol == 'random' else ''
    return folder / (recipe.name.replace('/', '_') + suffix)


def _finished(path: Path, recipe: Recipe, split: Split) -> Optional[FoldResult]:
    """The result that is there; SerError where it is another recipe's, or another corpus's."""
    if not path.is_file():
        return None
    result = read_fold(path)
    if changed := differences(from_dict(Recipe, result.recipe), recipe):
        raise SerError(
            f'{path} is the result of another recipe ({", ".join(changed)}); give another folder, '
            'or remove it'
        )
    if result.split_digest not in ('', split.digest):
        raise SerError(
            f'{path} is the result of other clips: the corpus is not what it was; give another '
            'folder, or remove it'
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
    """Train and test one fold, unless it is finished; Timeout where another process is at it."""
    # The lock ends with the process that holds it, however that ends; its file may stay.
    with FileLock(out / f'{name}.lock', timeout=0):
        path = results / f'{name}.json'
        if _finished(path, recipe, split):
            return
        print(f'{name}: {recipe.name}', flush=True)
        run = train_split(recipe, split, out / name, compute)
        write_fold(path, _test(run, recipe, n_folds, compute))


def _test(run: Run, recipe: Recipe, n_folds: int, compute: Compute) -> FoldResult:
    """Hear the test part, and write what stands beside a bundle."""
    bundle = load_bundle(run.bundle)
    # Before it is moved to a GPU.
    milliseconds = milliseconds_per_window(bundle)
    heard = listen(bundle, run.split.test, compute.device)
    parts = write_run_report(run, {'validation': run.validation, 'test': heard}, compute)['parts']
    info = bundle.info
    return FoldResult(
        recipe=plain_recipe(recipe),
        n_folds=n_folds,
        protocol=parts['test']['figures']['protocol'],
        is_speaker_independent=run.split.is_speaker_independent,
        class_names=list(info.class_names),
        parameters=count_parameters(bundle.model),
        trainable_parameters=trainable_parameters(bundle),
        epochs=len(run.history),
        seconds_per_epoch=seconds_per_epoch(run),
        milliseconds_per_window=milliseconds,
        source_rate=min(soundfile.info(clip.path).samplerate for clip in run.split.test),
        machine=machine(compute),
        versions=versions(),
        temperature=info.temperature,
        threshold=info.threshold,
        validation=parts['validation']['figures'],
        test=parts['test']['figures'],
        predictions=columns_of(parts['test']['predictions']),
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        split_digest=run.split.digest,
    )


def _write_summary(summary: Summary, clips: Sequence[Clip], out: Path) -> None:
    """Write the table, and a report of all test parts together."""
    first = summary.runs[0]
    paths = {(clip.voice, clip.name): clip.path for clip in clips}
    # Of one seed: with the others the same clips were heard.
    records = [
        record
        for run in summary.runs
        if run.seed == first.seed
        for record in records_of(run.predictions, run.class_names)
    ]
    heard = [
        dataclasses.replace(result, clip=dataclasses.replace(result.clip, path=path))
        for result in from_predictions(records)
        if (path := paths.get((result.clip.voice, result.clip.name)))
    ]
    page = {
        'title': f'{first.name}: {summary.coverage}',
        'facts': {
            'recipe': first.name,
            'parameters': f'{first.parameters:,}',
            'epochs': sorted({run.epochs for run in summary.runs}),
            'versions': first.versions,
            'settings': first.recipe,
        },
        'parts': {'test parts, pooled': summary.pooled},
        'history': [],
    }
    with FileLock(out / 'report.lock'):
        write_atomically(out / 'table.md', '\n'.join(fold_table(summary)) + '\n')
        write_report(out / 'report.html', page, heard)
