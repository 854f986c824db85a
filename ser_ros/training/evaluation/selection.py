"""Which clips a bundle may be measured on."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ser_ros import SerError
from ser_ros.bundle import Bundle, BundleInfo
from ser_ros.training.data.corpora import Clip, Corpus, merge_labels
from ser_ros.training.evaluation.metrics import ClipResult, listen, manner, measure, record_part
from ser_ros.training.evaluation.rejection import hear_nonspeech, rejection


@dataclass(frozen=True)
class Selection:
    """Clips, and how they were chosen."""

    name: str
    """Of the part."""
    clips: list[Clip]
    protocol: str
    class_names: list[str]
    """Classes among which the bundle's guess is looked for."""
    missing: list[str]
    """Voices that the bundle names for the part, and that have no clips here."""
    notes: list[str]
    """What was left out."""


def select(info: BundleInfo, corpora: Sequence[Corpus], part: str) -> list[Selection]:
    """The bundle's own corpora as one part, and every other corpus as a part by itself.

    `part`: validation, test, or all for whoever there is. Labels are merged as for the training.
    Raises SerError where nothing is left, where the part's speakers were trained on, and for
    another corpus that holds recordings which were.
    """
    own = [corpus for corpus in corpora if corpus.name in info.corpora]
    others = [corpus for corpus in corpora if corpus.name not in info.corpora]
    selections = [_select_own(info, own, part)] if own else []
    return selections + [_select_other(info, corpus) for corpus in others]


def _select_own(info: BundleInfo, corpora: Sequence[Corpus], part: str) -> Selection:
    voices = {
        name: {
            f'{corpus}:{s}' for corpus, parts in info.corpora.items() for s in parts.get(name, ())
        }
        for name in ('train', part)
    }
    clips, notes = [], []
    for corpus in corpora:
        usable, more = _usable(info, corpus)
        clips += [clip for clip in usable if part == 'all' or clip.voice in voices[part]]
        notes += more
    heard = {clip.voice for clip in clips}
    names = ' and '.join(corpus.name for corpus in corpora)
    if part != 'all' and not voices[part]:
        raise SerError(f'the bundle names no {part} speakers of {names}')
    if not heard:
        whom = f'of the {part} speakers, {", ".join(sorted(voices[part]))}'
        if part == 'all':
            whom = f'of {", ".join(info.class_names)}, the classes of the bundle'
        raise SerError(f'{names}: there are no clips {whom}')
    trained = heard & voices['train']
    missing = sorted(voices[part] - heard)
    n = f'{len(heard)} of the {len(voices[part])} ' if missing else ''
    protocol = f'speaker-independent: {n}{part} speakers of {names}'
    if part == 'validation':
        protocol += ', by whom the bundle was calibrated'
    if part == 'all':
        protocol = f'all {len(heard)} speakers of {names}, {len(trained)} of them trained on'
        protocol = f'{"NOT " if trained else ""}speaker-independent: {protocol}'
    elif trained:
        raise SerError(
            f'the bundle was trained on {part} speakers, too ({", ".join(sorted(trained))}): '
            'it cannot be measured on them'
        )
    return Selection(part, clips, protocol, list(info.class_names), missing, notes)


def _select_other(info: BundleInfo, corpus: Corpus) -> Selection:
    clips, notes = _usable(info, corpus)
    if known := {clip.fingerprint for clip in corpus.clips} & set(info.recordings):
        raise SerError(
            f'{corpus.name}: the bundle was trained or calibrated on {len(known)} of its '
            f'{len(corpus.clips)} recordings: it cannot be measured on them as another corpus'
        )
    present = {clip.emotion for clip in clips}
    common = [name for name in info.class_names if name in present]
    if len(common) < 2:
        raise SerError(
            f'{corpus.name} has the classes {", ".join(sorted({c.emotion for c in corpus.clips}))}, '
            f'of which the bundle knows {len(common)}: there is nothing to choose between'
        )
    protocol = (
        f'other corpus: all speakers of {corpus.name}, of which the bundle names nobody; guesses '
        f'among the {len(common)} common classes ({", ".join(common)})'
    )
    return Selection(f'{corpus.name} (other corpus)', clips, protocol, common, [], notes)


def _usable(info: BundleInfo, corpus: Corpus) -> tuple[list[Clip], list[str]]:
    """Clips of classes that the bundle has, and notes on all others."""
    clips = merge_labels(corpus.clips, info.recipe.get('data', {}).get('merge', {}))
    strange = Counter(clip.emotion for clip in clips if clip.emotion not in info.class_names)
    notes = [
        f'{corpus.name}: {n} clips of {emotion} left out, no class of the bundle'
        for emotion, n in sorted(strange.items())
    ]
    if corpus.left_out:
        notes.append(corpus.left_out)
    return [clip for clip in clips if clip.emotion in info.class_names], notes


def evaluate(
    bundle: Bundle, selections: Sequence[Selection], device: str = 'auto', gain_db: float = 0.0
) -> tuple[dict[str, dict[str, Any]], list[ClipResult]]:
    """Name → part, see `evaluation.record_part`, and what the last of them was made of.

    Where the guess is looked for among some of the bundle's classes, `unrestricted_accuracy` is
    the unweighted accuracy among all of them. `nonspeech`: see `rejection.rejection`.
    """
    names = bundle.info.class_names
    sounds = hear_nonspeech(bundle, device)
    loudness = f', {gain_db:+g} dB' if gain_db else ''
    parts = {}
    for selection in selections:
        chosen = selection.class_names
        results = listen(bundle, selection.clips, device, gain_db)
        among = results
        if len(chosen) < len(names):
            among = [r.among(names, chosen) for r in results]
        part = record_part(among, chosen, f'{selection.protocol}; {manner(bundle)}{loudness}')
        if among is not results:
            unrestricted = measure(results, names)['unweighted_accuracy']
            part['figures']['unrestricted_accuracy'] = unrestricted
        part['figures']['nonspeech'] = rejection(bundle, results, sounds)
        parts[selection.name] = part
    return parts, among
