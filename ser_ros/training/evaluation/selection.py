"""The clips that a bundle may be evaluated on, and the evaluation."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ser_ros import SerError
from ser_ros.bundle import Bundle
from ser_ros.bundle_info import ON_VALIDATION, BundleInfo
from ser_ros.training.data.corpora import Clip, Corpus, merge_labels
from ser_ros.training.evaluation.batches import BatchPredictor, Predict, predict_with
from ser_ros.training.evaluation.clip_result import ClipResult
from ser_ros.training.evaluation.conditions import Conditions, evaluate_conditions
from ser_ros.training.evaluation.metrics import compute_metrics, subset_results
from ser_ros.training.evaluation.prediction import describe_method
from ser_ros.training.evaluation.rejection import evaluate_nonspeech, nonspeech_metrics
from ser_ros.workers import ThisProcess


@dataclass(frozen=True)
class Selection:
    """Clips, and how they were selected."""

    name: str
    """Name of the subset."""
    clips: list[Clip]
    protocol: str
    class_names: list[str]
    """Classes that the prediction is restricted to."""
    missing: list[str]
    """Voices that the bundle names for the subset but that have no clips here."""
    notes: list[str]
    """What was left out."""


def select(info: BundleInfo, corpora: Sequence[Corpus], subset: str) -> list[Selection]:
    """One subset of the bundle's own corpora, and every other corpus as a subset of its own.

    `subset`: validation, test, or all for all speakers. Labels are merged as in training. SerError
    if no clips are left, if the model was trained on speakers of the subset, or if another corpus
    contains recordings that the model was trained on.
    """
    own = [corpus for corpus in corpora if corpus.name in info.corpora]
    others = [corpus for corpus in corpora if corpus.name not in info.corpora]
    selections = [_select_own(info, own, subset)] if own else []
    return selections + [_select_other(info, corpus) for corpus in others]


def default_subset(info: BundleInfo, corpora: Sequence[Corpus]) -> str:
    """Test if the bundle names test speakers of any of the corpora, else validation."""
    has_test = any(info.corpora.get(corpus.name, {}).get('test') for corpus in corpora)
    return 'test' if has_test else 'validation'


def _select_own(info: BundleInfo, corpora: Sequence[Corpus], subset: str) -> Selection:
    voices = {
        name: {
            f'{corpus}:{speaker}'
            for corpus, subsets in info.corpora.items()
            for speaker in subsets.get(name, ())
        }
        for name in ('train', subset)
    }
    clips, notes = [], []
    for corpus in corpora:
        usable, more = _usable(info, corpus)
        clips += [clip for clip in usable if subset == 'all' or clip.voice in voices[subset]]
        notes += more
    present = {clip.voice for clip in clips}
    # Of several corpora those count that have such clips.
    found = {clip.corpus for clip in clips} or {corpus.name for corpus in corpora}
    names = ' and '.join(corpus.name for corpus in corpora if corpus.name in found)
    if subset != 'all' and not voices[subset]:
        raise SerError(
            f'the bundle names no {subset} speakers of {names}; --subset names other speakers'
        )
    if not present:
        wanted = f'the {subset} speakers {", ".join(sorted(voices[subset]))}'
        if subset == 'all':
            wanted = f'the classes of the bundle, {", ".join(info.class_names)}'
        raise SerError(f'{names}: there are no clips of {wanted}')
    trained = present & voices['train']
    missing = sorted(voices[subset] - present)
    n = f'{len(present)} of the {len(voices[subset])} ' if missing else ''
    protocol = f'speaker-independent: {n}{subset} speakers of {names}'
    if subset == 'validation' and info.calibration == ON_VALIDATION:
        protocol += ', which the bundle was calibrated on'
    if subset == 'all':
        protocol = f'all {len(present)} speakers of {names}, {len(trained)} of them trained on'
        protocol = f'{"NOT " if trained else ""}speaker-independent: {protocol}'
    elif trained:
        raise SerError(
            f'the bundle was also trained on {subset} speakers ({", ".join(sorted(trained))}): '
            'it cannot be evaluated on them; --subset names other speakers'
        )
    known = [clip for clip in clips if clip.fingerprint in info.recordings]
    if subset == 'test' and known:
        raise SerError(
            f'the bundle, or one that it was made from, was trained or calibrated on {len(known)} of '
            f'these {len(clips)} recordings, such as {known[0].name} of {names}, by another '
            "speaker's name: it cannot be evaluated on them"
        )
    return Selection(subset, clips, protocol, list(info.class_names), missing, notes)


def check_unknown(info: BundleInfo, corpus: Corpus) -> None:
    """SerError if the bundle was trained or calibrated on recordings of a corpus it does not name."""
    if known := {clip.fingerprint for clip in corpus.clips} & set(info.recordings):
        raise SerError(
            f'{corpus.name}: the bundle was trained or calibrated on {len(known)} of its '
            f'{len(corpus.clips)} recordings: it cannot be evaluated on them as another corpus'
        )


def _select_other(info: BundleInfo, corpus: Corpus) -> Selection:
    clips, notes = _usable(info, corpus)
    check_unknown(info, corpus)
    present = {clip.emotion for clip in clips}
    common = [name for name in info.class_names if name in present]
    if len(common) < 2:
        raise SerError(
            f'{corpus.name} has the classes {", ".join(sorted({c.emotion for c in corpus.clips}))}; '
            f'the bundle knows {len(common)} of them, but an evaluation needs two or more'
        )
    protocol = (
        f'other corpus: all speakers of {corpus.name}, which the bundle does not name; predictions '
        f'restricted to the {len(common)} common classes ({", ".join(common)})'
    )
    if corpus.name in info.calibrated_on:
        protocol += '; its temperature and threshold were chosen on them'
    return Selection(f'{corpus.name} (other corpus)', clips, protocol, common, [], notes)


def _usable(info: BundleInfo, corpus: Corpus) -> tuple[list[Clip], list[str]]:
    """Clips of classes that the bundle has, and notes about all others."""
    clips = merge_labels(corpus.clips, info.recipe.get('data', {}).get('merge', {}))
    unknown = Counter(clip.emotion for clip in clips if clip.emotion not in info.class_names)
    notes = [
        f'{corpus.name}: {n} clips of {emotion} left out, no class of the bundle'
        for emotion, n in sorted(unknown.items())
    ]
    if corpus.left_out:
        notes.append(corpus.left_out)
    return [clip for clip in clips if clip.emotion in info.class_names], notes


def evaluate(
    bundle: Bundle,
    selections: Sequence[Selection],
    device: str = 'auto',
    gain_db: float = 0.0,
    conditions: Optional[Conditions] = None,
    predict: Optional[Predict] = None,
) -> tuple[dict[str, dict[str, Any]], list[ClipResult]]:
    """Name → subset, see `metrics.subset_results`, and the clip results of the last subset.

    If the predictions are restricted to some of the bundle's classes, `unrestricted_accuracy` is
    the unweighted accuracy among all of them. `nonspeech`: see `rejection.nonspeech_metrics`;
    `conditions`: see `conditions.evaluate_conditions`. `predict`: predicts the clips, with `gain_db`
    and under these conditions; by default in this process.
    """
    names = bundle.info.class_names
    if predict is None:
        degrades = conditions.degrades if conditions else {}
        own = BatchPredictor(bundle.path, bundle.digest, device, gain_db, degrades)
        predict = predict_with(ThisProcess(own.work(bundle)))
    sounds = evaluate_nonspeech(bundle, device)
    loudness = f', {gain_db:+g} dB' if gain_db else ''
    subsets, restricted = {}, []
    for selection in selections:
        chosen = selection.class_names
        is_restricted = len(chosen) < len(names)
        results = predict(selection.clips, '')
        restricted = (
            [r.restricted_to(chosen, names) for r in results] if is_restricted else results
        )
        protocol = f'{selection.protocol}; {describe_method(bundle)}{loudness}'
        subset = subset_results(restricted, chosen, protocol)
        if is_restricted:
            unrestricted = compute_metrics(results, names)['unweighted_accuracy']
            subset['metrics']['unrestricted_accuracy'] = unrestricted
        subset['metrics']['nonspeech'] = nonspeech_metrics(bundle, results, sounds)
        if conditions:
            subset['metrics']['conditions'] = evaluate_conditions(
                bundle, conditions, restricted, chosen, predict
            )
        subsets[selection.name] = subset
    return subsets, restricted
