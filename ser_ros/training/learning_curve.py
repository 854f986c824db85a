"""How much a few clips of one's own are worth: a bundle fine-tuned on them, tested on other speakers."""

import dataclasses
import datetime
import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ser_ros import SerError
from ser_ros.bundle import Bundle, load_bundle
from ser_ros.files import make_folder, write_atomically
from ser_ros.settings import from_dict
from ser_ros.stream.torch_backend import check_can_stream, select_device
from ser_ros.training.data.corpora import Clip, Corpus, CorpusPath, merge_labels
from ser_ros.training.data.splits import Split
from ser_ros.training.evaluation.left_out import Choices, CorpusScores, evaluate_left_out
from ser_ros.training.evaluation.selection import check_unknown
from ser_ros.training.evaluation.voice_streams import (
    cold_scores,
    draw_streams,
    find_utterances,
    known_scores,
)
from ser_ros.training.finetuning import STEPS, finetuning_labels, finetuning_recipe
from ser_ros.training.learning.fit import Compute
from ser_ros.training.recipe import Recipe, SplitConfig
from ser_ros.training.reports.learning_curve import (
    AS_IT_IS,
    FINE_TUNED,
    SCRATCH,
    CurvePoint,
    LearningCurve,
)
from ser_ros.training.reports.run_report import machine, versions
from ser_ros.training.run import load_corpora, train_split

TESTED = 20
"""The most test clips of each speaker and class."""


def compute_learning_curve(
    path: str,
    corpus: CorpusPath,
    counts: Sequence[int],
    n_speakers: int,
    seeds: Sequence[int],
    out: Path,
    compute: Compute,
) -> LearningCurve:
    """Fine-tune the bundle on `counts` clips of each class, and train as many steps from scratch.

    For each seed the clips are drawn from `n_speakers` speakers, as evenly as there are clips, the
    smaller sets being parts of the larger ones; all others are the test speakers. Finished runs in
    the folder `out` are not repeated. SerError if the bundle does not adapt to voices or knows the corpus,
    or if the corpus has too few speakers or clips.
    """
    bundle = load_bundle(path)
    check_can_stream(bundle)
    if not bundle.info.adaptation.adapts:
        raise SerError(f'bundle {path}: it does not adapt to voices; learning curves are of such')
    (own,) = load_corpora([corpus], finetuning_labels(bundle.info, ()))
    trained_on = [
        name
        for name, subsets in bundle.info.corpora.items()
        if subsets.get('train') or subsets.get('validation')
    ]
    if own.name in trained_on:
        raise SerError(
            f'bundle {path} was trained on {own.name}: name a corpus that it does not know'
        )
    check_unknown(bundle.info, own)
    own = _common(own, bundle)
    divided = {seed: divide(own.clips, n_speakers, max(counts), seed) for seed in seeds}
    _claim(out, bundle, own, n_speakers)
    points, n_tested = [], []
    for seed, (train, test) in divided.items():
        n_tested.append(len(test))
        point = functools.partial(
            _point, own, test=test, bundle=bundle, seed=seed, compute=compute
        )
        make = functools.partial(point, AS_IT_IS, (), 0, out=out)
        points.append(_stored(out / f'as_it_is_seed{seed}.json', make))
        longest = max(map(len, train))
        for n in dict.fromkeys(min(n, longest) for n in counts):
            clips = [clip for members in train for clip in members[:n]]
            for method in (FINE_TUNED, SCRATCH):
                name = f'{method.replace(" ", "_")}_{n}_seed{seed}'
                print(f'{name}: {len(clips)} clips', flush=True)
                make = functools.partial(point, method, clips, n, out=out / name)
                points.append(_stored(out / f'{name}.json', make))
    return LearningCurve(
        bundle=bundle.path.stem,
        trained_on=tuple(trained_on),
        corpus=own.name,
        classes=tuple(sorted({clip.emotion for clip in own.clips})),
        n_speakers=n_speakers,
        n_tested=round(np.mean(n_tested)),
        steps=STEPS,
        points=tuple(points),
        machine=machine(compute.device),
        versions=versions(),
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    )


def _common(corpus: Corpus, bundle: Bundle) -> Corpus:
    """The clips of classes that the bundle has; their labels merged as in its training."""
    merge = bundle.info.recipe.get('data', {}).get('merge', {})
    clips = [c for c in merge_labels(corpus.clips, merge) if c.emotion in bundle.info.class_names]
    return dataclasses.replace(corpus, clips=clips)


def divide(
    clips: Sequence[Clip], n_speakers: int, n_clips: int, seed: int
) -> tuple[list[list[Clip]], list[Clip]]:
    """Up to `n_clips` training clips of each class, and the test clips; SerError if impossible.

    The first clips of a class are of as many speakers as possible.
    """
    rng = np.random.default_rng(seed)
    voices = rng.permutation(sorted({clip.voice for clip in clips})).tolist()
    if len(voices) <= n_speakers:
        raise SerError(
            f'the corpus has {len(voices)} speakers: with {n_speakers} to train on none is left to '
            'test; set fewer with --speakers'
        )
    pools: dict[tuple[str, str], list[Clip]] = {}
    for index in rng.permutation(len(clips)):
        pools.setdefault((clips[index].emotion, clips[index].voice), []).append(clips[index])
    classes = sorted({clip.emotion for clip in clips})
    train = []
    for emotion in classes:
        own = [pools.get((emotion, voice), []) for voice in voices[:n_speakers]]
        turns = [pool[i] for i in range(max(map(len, own))) for pool in own if i < len(pool)]
        if not turns:
            raise SerError(
                f'the training speakers have no clips of {emotion}: set more --speakers'
            )
        train.append(turns[:n_clips])
    test = [
        clip
        for voice in voices[n_speakers:]
        for emotion in classes
        for clip in pools.get((emotion, voice), [])[:TESTED]
    ]
    return train, test


def _claim(out: Path, bundle: Bundle, corpus: Corpus, n_speakers: int) -> None:
    """Write what the points in a folder are of; SerError if it holds others."""
    clips = sorted((clip.voice, clip.emotion, clip.digest) for clip in corpus.clips)
    text = json.dumps([bundle.digest, n_speakers, clips])
    digest, path = hashlib.sha256(text.encode()).hexdigest(), out / 'curve.sha256'
    make_folder(out)
    if path.is_file() and path.read_text() != digest:
        raise SerError(
            f'{out} holds a learning curve of another bundle, corpus or number of speakers; choose '
            'another --out, or remove it'
        )
    write_atomically(path, digest)


def _stored(path: Path, make: Callable[[], CurvePoint]) -> CurvePoint:
    """The point in a file, or else a new one, which is then stored."""
    try:
        return from_dict(CurvePoint, json.loads(path.read_text()))
    except (OSError, ValueError, SerError):
        point = make()
        write_atomically(path, json.dumps(dataclasses.asdict(point)))
        return point


def _point(
    corpus: Corpus,
    method: str,
    clips: Sequence[Clip],
    n_clips: int,
    *,
    test: Sequence[Clip],
    bundle: Bundle,
    seed: int,
    compute: Compute,
    out: Path,
) -> CurvePoint:
    """One model and its accuracies on the `test` clips."""
    tested = bundle
    if method != AS_IT_IS:
        recipe = _recipe(dataclasses.replace(corpus, clips=list(clips)), bundle, method, seed)
        split = Split(list(clips), [], list(test), f'{n_clips} clips of each class')
        tested = load_bundle(train_split(recipe, split, out, compute).bundle)
    utterances = find_utterances(tested, test, compute.cache)
    streams, device = draw_streams(test), select_device(compute.device)
    scores = CorpusScores(
        tested.info.class_names,
        tested.info.adaptation.memory,
        test,
        cold_scores(tested, utterances, device),
        streams,
        known_scores(tested, utterances, streams, device),
        tested.info.classes,
    )
    adaptation = bundle.info.adaptation
    metrics = evaluate_left_out(
        scores, Choices(1.0, 0.0, adaptation.neutral_share, adaptation.rare_ratio)
    )
    balanced = metrics['streams'].get('balanced', {}).get('adapted', {})
    return CurvePoint(
        method,
        n_clips,
        seed,
        metrics['cold']['unweighted_accuracy'],
        balanced.get('unweighted_accuracy'),
    )


def _recipe(corpus: Corpus, bundle: Bundle, method: str, seed: int) -> Recipe:
    """The recipe of `train --from`, but without a refit: there are no clips to calibrate with.

    From scratch it has the learning rate of the bundle's own recipe.
    """
    recipe = finetuning_recipe(str(bundle.path), [corpus])
    split = SplitConfig(protocol='corpora', left_out=('other speakers',), n_validation=0)
    recipe = dataclasses.replace(recipe, split=split, refit=False, seed=seed)
    if method == FINE_TUNED:
        return recipe
    rate = bundle.info.recipe['optimization']['learning_rate']
    optimization = dataclasses.replace(recipe.optimization, learning_rate=rate)
    return dataclasses.replace(recipe, pretrained='', optimization=optimization)
