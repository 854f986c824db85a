"""Corpora left out in turn: what a model is worth to people whom no training corpus resembles.

For each corpus one model is trained on all others. What is chosen after training (temperature,
threshold, expected share of neutral utterances) is chosen on models that were trained on neither
this corpus nor the one that they are tested on. So nothing is chosen on a corpus that is evaluated.
A bundle of too few corpora to leave one out is calibrated on corpora that are new to it.
"""

import dataclasses
import datetime
import functools
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
import safetensors.numpy
import torch
from filelock import FileLock
from safetensors import SafetensorError

from ser_ros import SerError
from ser_ros.bundle import Bundle, load_bundle
from ser_ros.files import make_folder, write_atomically
from ser_ros.models import count_parameters
from ser_ros.settings import from_dict
from ser_ros.stream.torch_backend import check_can_stream, select_device
from ser_ros.training.adjustment import adjust_corpora
from ser_ros.training.attempts import Attempts
from ser_ros.training.data.corpora import SHARED, Clip, Corpus, CorpusPath
from ser_ros.training.data.splits import Split, split_corpora
from ser_ros.training.evaluation.left_out import (
    Choices,
    CorpusScores,
    choose,
    evaluate_left_out,
)
from ser_ros.training.evaluation.selection import select
from ser_ros.training.evaluation.voice_streams import (
    cold_scores,
    draw_streams,
    draw_streams_to_choose_by,
    find_utterances,
    known_scores,
)
from ser_ros.training.learning.fit import Compute
from ser_ros.training.recipe import Recipe, differences, shared_recipe
from ser_ros.training.reports.left_out import (
    NEW_TO_BUNDLE,
    LeftOutResult,
    LeftOutSummary,
    write_summary,
)
from ser_ros.training.reports.run_report import machine, milliseconds_per_window, versions
from ser_ros.training.run import bundle_path, check_run, load_corpora, train_split


@dataclass(frozen=True)
class LeftOutValidation:
    """The outcome for all corpora and seeds."""

    summaries: list[LeftOutSummary]
    """Of each seed whose runs are all finished."""
    attempts: Attempts


def leave_out_corpora(
    recipe: Recipe,
    corpora: Sequence[CorpusPath],
    names: Sequence[str],
    out: Path,
    seeds: Optional[Sequence[int]] = None,
    results: Optional[Path] = None,
    compute: Optional[Compute] = None,
    explicit: Optional[Collection[str]] = None,
    neighbours: Optional[int] = None,
) -> LeftOutValidation:
    """Leave out each of the named corpora in turn, and pairs of them, with each seed.

    `neighbours`: how many names on each side in the list, a circle, a corpus makes pairs with; the
    choices for it are made on those. None: on all others. The result of a seed is written as
    left_out_seedN.json to `results` (default: `out`). `explicit`: settings that stay as they are,
    see `adjustment`; None: all. A finished run is not repeated, an interrupted one continues, one
    that another process works on is skipped, and one that fails does not stop the others. SerError
    for fewer than three names, an unknown one, a recording in two corpora, a run of another recipe or
    on other clips in `out`, one without streams to choose by, no neighbours, a
    recipe that starts from other weights or has a teacher, and one whose model does not run on a
    stream.
    """
    compute, results = compute or Compute(), results or out
    for key, bundle in {
        'pretrained': recipe.pretrained,
        'distillation.teacher': recipe.distillation.teacher,
    }.items():
        if bundle:
            raise SerError(
                f'{key} is {bundle!r}: its weights may know the corpora that are left out; leave '
                f'{key} empty'
            )
    names = list(dict.fromkeys(names))
    if len(names) < 3:
        raise SerError(
            'name three or more corpora to leave out: choices for one are made on others'
        )
    if neighbours is not None and neighbours < 1:
        raise SerError(f'neighbours is {neighbours}, not 1 or more: choices are made on others')
    loaded = load_corpora(corpora, recipe.data.labels)
    if shared := [p for corpus in loaded for p in corpus.problems if p.reason == SHARED]:
        raise SerError(
            f'{len(shared)} recordings are in two corpora, such as {shared[0].path} ({shared[0].detail}): '
            'a corpus that is left out would be known; remove them from one of the two'
        )
    if explicit is not None:
        recipe = adjust_corpora(recipe, loaded, explicit)
    singles = [(name,) for name in names]
    lefts = [*singles, *_pairs(names, neighbours)]
    seeds = seeds or (recipe.seed,)
    splits = {left: split_corpora(_without(recipe, left), loaded) for left in lefts}
    for (name,) in singles:
        draw_streams_to_choose_by(name, _clips(splits[name,], name))
    for folder in (out, results):
        make_folder(folder)
    attempts, summaries = Attempts(), []
    runs = {
        (left, seed): dataclasses.replace(_without(recipe, left), seed=seed)
        for seed in seeds
        for left in lefts
    }
    for (left, seed), run_recipe in runs.items():
        # A finished run, too, must be one of this recipe on these clips.
        check_run(out / _name(left, seed), run_recipe, splits[left])
    for seed in seeds:
        for left in lefts:
            name, run_recipe = _name(left, seed), runs[left, seed]
            run = functools.partial(_run_once, name, run_recipe, splits[left], out, compute)
            attempts.attempt(name, run)
        if summary := _summarise(recipe, seed, names, splits, out, compute):
            write_summary(results / f'left_out_seed{seed}.json', summary)
            summaries.append(summary)
    return LeftOutValidation(summaries, attempts)


def _pairs(names: Sequence[str], neighbours: Optional[int]) -> list[tuple[str, str]]:
    """The pairs of neighbours in the circle, or all."""
    n = len(names)
    return [
        (names[i], names[j])
        for i, j in itertools.combinations(range(n), 2)
        if neighbours is None or min(j - i, n - (j - i)) <= neighbours
    ]


def _name(left: tuple[str, ...], seed: int) -> str:
    """The name of a run, and of its folder."""
    return f'without_{"+".join(left)}_seed{seed}'


def _without(recipe: Recipe, left: tuple[str, ...]) -> Recipe:
    """The recipe without these corpora."""
    split = dataclasses.replace(recipe.split, protocol='corpora', left_out=left, n_validation=0)
    return dataclasses.replace(recipe, split=split, refit=False)


def _run_once(name: str, recipe: Recipe, split: Split, out: Path, compute: Compute) -> None:
    """Train a run and score its corpora, unless it is finished; Timeout if another process is."""
    # The lock ends with its process, even one that is killed; the file may stay.
    with FileLock(out / f'{name}.lock', timeout=0):
        path = out / name / 'scores.safetensors'
        if _read_scores(path) is not None:
            return
        print(f'{name}: {recipe.name}', flush=True)
        run = train_split(recipe, split, out / name, compute)
        bundle = load_bundle(run.bundle)
        check_can_stream(bundle)
        scores = {}
        for corpus in recipe.split.left_out:
            clips = _clips(split, corpus)
            utterances = find_utterances(bundle, clips, compute.cache)
            device = select_device(compute.device)
            scores[f'{corpus}/cold'] = cold_scores(bundle, utterances, device)
            scores[f'{corpus}/known'] = known_scores(
                bundle, utterances, draw_streams(clips), device
            )
        write_atomically(path, safetensors.numpy.save(scores))


def _clips(split: Split, corpus: str) -> list[Clip]:
    return [clip for clip in split.test if clip.corpus == corpus]


def _read_scores(path: Path) -> Optional[dict[str, np.ndarray]]:
    """The scores of a finished run; None if there are none, or the file is damaged."""
    try:
        return safetensors.numpy.load(path.read_bytes())
    except (OSError, SafetensorError):
        return None


def _summarise(
    recipe: Recipe,
    seed: int,
    names: Sequence[str],
    splits: dict[tuple[str, ...], Split],
    out: Path,
    compute: Compute,
) -> Optional[LeftOutSummary]:
    """The metrics of all corpora, with choices made on others; None while a run is missing."""
    scores: dict[tuple[str, ...], dict[str, CorpusScores]] = {}
    for left, split in splits.items():
        found = _read_scores(out / _name(left, seed) / 'scores.safetensors')
        if found is None:
            return None
        scores[left] = {
            name: CorpusScores(
                split.class_names,
                recipe.voice.memory,
                clips := _clips(split, name),
                found[f'{name}/cold'],
                draw_streams(clips),
                found[f'{name}/known'],
                split.classes,
            )
            for name in left
        }
    metrics = []
    for name in names:
        pairs = [left for left in scores if len(left) == 2 and name in left]
        others = {other: scores[left][other] for left in pairs for other in left if other != name}
        choices = choose(list(others.values()), recipe.target_accuracy)
        values = evaluate_left_out(scores[name,][name], choices)
        protocol = splits[name,].protocol
        metrics.append(LeftOutResult(name, protocol, tuple(others), choices, values))
    bundle = load_bundle(bundle_path(out / _name((names[0],), seed), recipe))
    choices = choose([scores[name,][name] for name in names], recipe.target_accuracy)
    return _summary(dataclasses.replace(recipe, seed=seed), bundle, metrics, choices, compute)


def _summary(
    recipe: Recipe,
    bundle: Bundle,
    results: Sequence[LeftOutResult],
    choices: Choices,
    compute: Compute,
) -> LeftOutSummary:
    return LeftOutSummary(
        recipe=shared_recipe(recipe),
        parameters=count_parameters(bundle.model),
        milliseconds_per_window=milliseconds_per_window(bundle),
        results=tuple(results),
        choices=choices,
        machine=machine(compute.device),
        versions=versions(),
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    )


def calibrate_bundle(bundle: Bundle, summary: LeftOutSummary) -> Bundle:
    """The bundle with the choices that were made on corpora left out of its recipe.

    Metrics that it had with other choices are dropped. SerError if it was trained by another
    recipe, or does not adapt to voices.
    """
    own, other = (from_dict(Recipe, values) for values in (bundle.info.recipe, summary.recipe))
    changed = [
        change
        for change in differences(own, other)
        if not change.startswith(('split.', 'data.corpora', 'augmentation.noise_folder'))
    ]
    if changed:
        raise SerError(
            f'bundle {bundle.path}: trained by another recipe than the models that the corpora '
            f'were left out of ({", ".join(changed)})'
        )
    names = ', '.join(result.corpus for result in summary.results)
    return _with_choices(
        bundle,
        summary.choices,
        f'models of this recipe without one of {names}, which met it for the first time',
    )


@torch.inference_mode()
def calibrate_on_strangers(
    bundle: Bundle, corpora: Sequence[Corpus], compute: Compute
) -> tuple[Bundle, LeftOutSummary]:
    """The bundle with the choices that suit corpora which it was not trained on.

    Also the metrics of each corpus with the choices that the others made; none of one corpus alone.
    Metrics that the bundle had with other choices are dropped. SerError if it was trained on one of
    the corpora, does not adapt to voices, or a corpus has no streams to choose by.
    """
    if not bundle.info.adaptation.adapts:
        raise SerError(
            f'bundle {bundle.path} does not adapt to voices: its recipe has no voice.copies '
            'and no voice.by_answers'
        )
    check_can_stream(bundle)
    own = [corpus.name for corpus in corpora if _is_trained_on(bundle, corpus.name)]
    if own:
        raise SerError(
            f'bundle {bundle.path}: it was trained on {", ".join(own)}: name corpora that are new to it'
        )
    # Scores of temperature 1, whatever it was before.
    bundle = dataclasses.replace(bundle, info=dataclasses.replace(bundle.info, temperature=1.0))
    device, scores = select_device(compute.device), {}
    for corpus in corpora:
        (selection,) = select(bundle.info, [corpus], 'all')
        streams = draw_streams_to_choose_by(corpus.name, selection.clips)
        utterances = find_utterances(bundle, selection.clips, compute.cache)
        scores[corpus.name] = CorpusScores(
            bundle.info.class_names,
            bundle.info.adaptation.memory,
            selection.clips,
            cold_scores(bundle, utterances, device),
            streams,
            known_scores(bundle, utterances, streams, device),
            bundle.info.classes,
        )
    target = bundle.info.recipe['target_accuracy']
    results = []
    for name, left in scores.items():
        if others := {other: s for other, s in scores.items() if other != name}:
            choices = choose(list(others.values()), target)
            metrics = evaluate_left_out(left, choices)
            results.append(LeftOutResult(name, NEW_TO_BUNDLE, tuple(others), choices, metrics))
    choices = choose(list(scores.values()), target)
    summary = _summary(from_dict(Recipe, bundle.info.recipe), bundle, results, choices, compute)
    calibration = f'{", ".join(scores)}, which are new to it'
    return _with_choices(bundle, choices, calibration, tuple(scores)), summary


def _is_trained_on(bundle: Bundle, name: str) -> bool:
    subsets = bundle.info.corpora.get(name, {})
    return any(speakers for subset, speakers in subsets.items() if subset != 'test')


def _with_choices(
    bundle: Bundle, choices: Choices, calibration: str, calibrated_on: tuple[str, ...] = ()
) -> Bundle:
    adaptation = dataclasses.replace(
        bundle.info.adaptation,
        neutral_share=choices.neutral_share,
        rare_ratio=choices.rare_ratio,
    )
    info = dataclasses.replace(
        bundle.info,
        temperature=choices.temperature,
        threshold=choices.threshold,
        calibration=calibration,
        calibrated_on=calibrated_on,
        adaptation=adaptation,
        metrics={},
    )
    return dataclasses.replace(bundle, info=info)
