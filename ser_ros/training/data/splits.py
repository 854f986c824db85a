"""Splits of clips into a training, a validation and a test set."""

import dataclasses
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Optional

from ser_ros import SerError
from ser_ros.emotions import Emotion, class_order
from ser_ros.files import printable
from ser_ros.training.data.corpora import Clip, Corpus, merge_labels
from ser_ros.training.recipe import Recipe, SplitConfig

FOLDS = {
    # EmoBox (Ma et al., 2024), six.
    'RAVDESS': (
        ('01', '11', '20', '21'),
        ('04', '10', '12', '14'),
        ('08', '09', '19', '23'),
        ('03', '05', '07', '24'),
        ('02', '15', '16', '18'),
        ('06', '13', '17', '22'),
    ),
    # EmoBox, one speaker left out at a time.
    'SAVEE': (('JE',), ('KL',), ('DC',), ('JK',)),
    # This project's own.
    'BanglaSER': (
        ('01', '06', '11', '14', '20', '22', '27', '33'),
        ('02', '07', '12', '15', '23', '28', '29', '34'),
        ('03', '08', '13', '17', '24', '30'),
        ('04', '09', '16', '19', '25', '31'),
        ('05', '10', '18', '21', '26', '32'),
    ),
}
"""Corpus → test speakers of each of its published folds."""

QUICK = 'QUICK TRIAL'
"""How card, report and protocol mark a recipe that is `quick`."""

QUICK_MEANS = (
    'trained to try settings, not for use: it was not refitted, its metrics are those of every '
    'second clip, and sounds without a voice were not evaluated'
)

SUBSETS = {'train': 'training', 'validation': 'validation', 'test': 'test'}
"""Subset → its name in messages."""


@dataclass(frozen=True)
class Split:
    """Each clip in one of three subsets."""

    train: list[Clip]
    validation: list[Clip]
    test: list[Clip]
    protocol: str
    """How the split was made, in one sentence."""
    known: frozenset[str] = frozenset()
    """Voices outside the training set that the bundle to start from was trained on."""

    @functools.cached_property
    def class_names(self) -> tuple[str, ...]:
        """Classes of the training set: the vocabulary's in its order, then one's own, sorted."""
        present = {clip.emotion for clip in self.train}
        return class_order(present)

    @property
    def classes(self) -> dict[str, Emotion]:
        """What the classes mean that are not in `emotions.EMOTIONS`."""
        return {clip.emotion: clip.own for clip in self.train if clip.own is not None}

    def voices(self) -> dict[str, list[str]]:
        """Subset → its voices, sorted."""
        return {name: sorted({clip.voice for clip in getattr(self, name)}) for name in SUBSETS}

    def speakers(self) -> dict[str, dict[str, list[str]]]:
        """Corpus → subset → its speakers, sorted."""
        subsets = {name: getattr(self, name) for name in SUBSETS}
        corpora = dict.fromkeys(clip.corpus for clips in subsets.values() for clip in clips)
        return {
            corpus: {
                name: sorted({clip.speaker for clip in clips if clip.corpus == corpus})
                for name, clips in subsets.items()
            }
            for corpus in corpora
        }

    @property
    def digest(self) -> str:
        """Hash of the clips in each subset and of their sound; it changes with the corpus."""
        subsets = {
            name: sorted((c.voice, c.path.stem, c.emotion, c.digest) for c in getattr(self, name))
            for name in SUBSETS
        }
        return hashlib.sha256(json.dumps(subsets).encode()).hexdigest()

    @property
    def is_speaker_independent(self) -> bool:
        """Whether the model is evaluated only on voices that it was not trained on."""
        voices = self.voices()
        return not self.known and len(set().union(*voices.values())) == sum(
            map(len, voices.values())
        )


def split_corpora(recipe: Recipe, corpora: Sequence[Corpus]) -> Split:
    """The recipe's split of these corpora; SerError if they are not the recipe's corpora."""
    found = {corpus.name: corpus for corpus in corpora}
    wanted = recipe.data.corpora
    if set(found) != set(wanted):
        raise SerError(
            f'the recipe trains on {", ".join(wanted)}, but --corpus names {", ".join(found)}: '
            f"they must be the same (--set 'data.corpora={json.dumps(list(found))}')"
        )
    clips = [clip for name in wanted for clip in found[name].clips]
    split = split_clips(merge_labels(clips, recipe.data.merge), recipe.split)
    return _halved(split) if recipe.quick else split


def _halved(split: Split) -> Split:
    """The split with every second clip of each voice and class of validation and test set."""
    return dataclasses.replace(
        split,
        validation=_every_second(split.validation),
        test=_every_second(split.test),
        protocol=f'{QUICK}: every second validation and test clip; {split.protocol}',
    )


def _every_second(clips: Sequence[Clip]) -> list[Clip]:
    seen: Counter[tuple[str, str]] = Counter()
    kept = []
    for clip in clips:
        if seen[clip.voice, clip.emotion] % 2 == 0:
            kept.append(clip)
        seen[clip.voice, clip.emotion] += 1
    return kept


def split_clips(clips: Sequence[Clip], config: SplitConfig) -> Split:
    """Split clips of one or more corpora by the config's protocol.

    - folds: the published folds in `FOLDS`.
    - folds_or_speakers: those where there are any, else as `speakers`.
    - leave_one_speaker_out: fold n tests the n-th speaker, in the published order or sorted.
    - speakers: `n_folds` folds of speakers, balanced by gender, then by number of clips.
    - corpora: the corpora `left_out` are the test set, without clips of classes that no other
      corpus has; there is no validation set.
    - random: `n_folds` folds of clips, balanced by class; the order depends only on their names.
      One fold is the test set, the next one the validation set. Identical recordings stay
      together.

    Each corpus is split on its own, with the same fold number. All protocols but random split by
    speaker: `n_validation` speakers of each corpus leave the training set, but at most half of
    those outside the test set. They are equally many women and men if possible, evenly spaced in
    sorted order. SerError for a split that is impossible, or that could not be evaluated: each
    class of the training set must be in the validation and the test set. Only a test speaker of
    leave_one_speaker_out or speakers may lack a class, and then the protocol states it.
    """
    if not clips:
        raise SerError('there are no clips to split')
    if len(classes := {clip.emotion for clip in clips}) < 2:
        raise SerError(
            f'all clips are of class {classes.pop()}; a model needs two or more classes'
        )
    if config.n_validation < 0:
        raise SerError(f'n_validation is {config.n_validation}, not 0 or more')
    if config.protocol == 'corpora':
        return _leave_out(clips, config.left_out)
    split = (
        _split_random(clips, config)
        if config.protocol == 'random'
        else _split_speakers(clips, config)
    )
    _check(split, config)
    if untested := _classes_without(split.test, split.train):
        protocol = f'{split.protocol}; the test set has no clips of {", ".join(untested)}'
        split = dataclasses.replace(split, protocol=protocol)
    return split


def count_folds(recipe: Recipe, clips: Sequence[Clip]) -> int:
    """Number of folds that the recipe's protocol has in each of the corpora; SerError for none."""
    if recipe.split.protocol in ('speakers', 'random'):
        return recipe.split.n_folds
    if recipe.split.protocol == 'corpora':
        raise SerError('corpora have no folds: name those to leave out with --leave-out-corpus')
    corpora = {clip.corpus for clip in clips}
    if recipe.split.protocol == 'folds_or_speakers':
        return min(len(FOLDS.get(name, ())) or recipe.split.n_folds for name in corpora)
    if recipe.split.protocol == 'leave_one_speaker_out':
        return min(len({c.speaker for c in clips if c.corpus == name}) for name in corpora)
    if unpublished := sorted(corpora - FOLDS.keys()):
        raise SerError(
            f'{", ".join(unpublished)} has no published folds; set split.protocol to speakers or '
            'leave_one_speaker_out'
        )
    return min(len(FOLDS[name]) for name in corpora)


def _leave_out(clips: Sequence[Clip], names: Sequence[str]) -> Split:
    corpora = _by_corpus(clips)
    if unknown := [name for name in names if name not in corpora]:
        raise SerError(f'left_out has {", ".join(unknown)}, not one of {", ".join(corpora)}')
    kept = [name for name in corpora if name not in names]
    if not kept:
        raise SerError(f'left_out has all of {", ".join(corpora)}: there is nothing to train on')
    train = [clip for name in kept for clip in corpora[name]]
    test = [clip for name in names for clip in corpora[name]]
    known = {clip.fingerprint: clip for clip in train}
    if shared := [clip for clip in test if clip.digest and clip.fingerprint in known]:
        other = known[shared[0].fingerprint]
        raise SerError(
            f'{shared[0].path} and {other.path} are one recording, and {len(shared)} of '
            f'{" and ".join(names)} are in other corpora: remove them there, they would be trained on'
        )
    trained = {clip.emotion for clip in train}
    test = [clip for clip in test if clip.emotion in trained]
    if len({clip.emotion for clip in test}) < 2:
        raise SerError(
            f'{" and ".join(names)} and the other corpora have fewer than two classes in common'
        )
    protocol = f'{" and ".join(names)} left out, trained on all speakers of {", ".join(kept)}'
    return Split(train, [], test, protocol)


def _split_speakers(clips: Sequence[Clip], config: SplitConfig) -> Split:
    _check_classes(clips)
    corpora = _by_corpus(clips)
    test, validation = set(), set()
    for name, members in corpora.items():
        folds = _folds(name, members, config)
        _check_fold(config.fold, len(folds), name)
        tested = folds[config.fold - 1]
        if missing := sorted(set(tested) - {clip.speaker for clip in members}):
            raise SerError(
                f'fold {config.fold} of {name} tests speakers {", ".join(missing)}, '
                'but there are no clips of them'
            )
        test |= {f'{name}:{speaker}' for speaker in tested}
    if config.validation_speakers:
        validation = _named_voices(config.validation_speakers, corpora)
        if both := sorted(validation & test):
            raise SerError(
                f'speakers both in the test and the validation set: {", ".join(both)}; change '
                'split.validation_speakers'
            )
    elif config.n_validation:
        for members in corpora.values():
            rest = [clip for clip in members if clip.voice not in test]
            validation |= _choose_voices(rest, config.n_validation)
    names = {
        'folds': 'published fold',
        'folds_or_speakers': f'published fold, or of {config.n_folds} folds of speakers, fold',
        'leave_one_speaker_out': 'one speaker left out, fold',
        'speakers': f'{config.n_folds} folds of speakers, fold',
    }
    protocol = (
        f'speaker-independent: {names[config.protocol]} {config.fold} of '
        f'{" and of ".join(corpora)}; {len(test)} test, {len(validation)} validation and '
        f'{len({clip.voice for clip in clips} - test - validation)} training speakers'
    )
    return Split(
        [clip for clip in clips if clip.voice not in test | validation],
        [clip for clip in clips if clip.voice in validation],
        [clip for clip in clips if clip.voice in test],
        protocol,
    )


def _by_corpus(clips: Iterable[Clip]) -> dict[str, list[Clip]]:
    corpora: dict[str, list[Clip]] = {}
    for clip in clips:
        corpora.setdefault(clip.corpus, []).append(clip)
    return corpora


def _folds(name: str, clips: Sequence[Clip], config: SplitConfig) -> Sequence[tuple[str, ...]]:
    """The test speakers of each fold of one corpus."""
    speakers = sorted({clip.speaker for clip in clips})
    if config.protocol == 'leave_one_speaker_out':
        published = [f for f in FOLDS.get(name, ()) if len(f) == 1 and f[0] in speakers]
        return published + [(s,) for s in speakers if (s,) not in published]
    is_unpublished = config.protocol == 'folds_or_speakers' and name not in FOLDS
    if config.protocol == 'speakers' or is_unpublished:
        return _balanced_folds(name, clips, config.n_folds)
    if name not in FOLDS:
        raise SerError(
            f'{name} has no published folds, only {", ".join(FOLDS)} have; '
            'set split.protocol to speakers or leave_one_speaker_out'
        )
    return FOLDS[name]


def _check_fold(fold: int, n_folds: int, name: str) -> None:
    if not 1 <= fold <= n_folds:
        raise SerError(f'{name} has no fold {fold}: its folds are 1 to {n_folds}')


def _balanced_folds(name: str, clips: Sequence[Clip], n_folds: int) -> list[tuple[str, ...]]:
    genders = _genders(clips)
    if not 2 <= n_folds <= len(genders):
        raise SerError(
            f'{len(genders)} speakers of {name} cannot be split into {n_folds} folds; '
            'set split.n_folds from 2 to their number'
        )
    sizes = {speaker: sum(clip.speaker == speaker for clip in clips) for speaker in genders}
    folds: list[list[str]] = [[] for _ in range(n_folds)]
    for speaker in sorted(genders, key=lambda s: (str(genders[s]), -sizes[s], s)):
        alike = [sum(genders[s] == genders[speaker] for s in fold) for fold in folds]
        n_clips = [sum(sizes[s] for s in fold) for fold in folds]
        smallest = min(range(n_folds), key=lambda i: (alike[i], n_clips[i]))
        folds[smallest].append(speaker)
    return [tuple(sorted(fold)) for fold in folds]


def _genders(clips: Iterable[Clip]) -> dict[str, Optional[str]]:
    """Speaker → gender, speakers sorted."""
    # If only some clips of a speaker have a gender, these come last and decide.
    ordered = sorted(clips, key=lambda clip: (clip.speaker, clip.gender or ''))
    return {clip.speaker: clip.gender for clip in ordered}


def _named_voices(names: Iterable[str], corpora: dict[str, list[Clip]]) -> set[str]:
    """The voices named `CORPUS:SPEAKER`, or `SPEAKER` if there is one corpus."""
    known = {clip.voice for clips in corpora.values() for clip in clips}
    (only, *others) = corpora
    voices = {name if name in known or others else f'{only}:{name}' for name in names}
    if missing := sorted(voices - known):
        form = '; name each CORPUS:SPEAKER' if others else ''
        raise SerError(f'split.validation_speakers: no clips of {", ".join(missing)}{form}')
    return voices


def _choose_voices(clips: Sequence[Clip], n: int) -> set[str]:
    """Up to `n` voices for validation, at most half of those of the `clips` of one corpus."""
    voices = {clip.speaker: clip.voice for clip in clips}
    groups: dict[Optional[str], list[str]] = {}
    for speaker, gender in _genders(clips).items():
        groups.setdefault(gender, []).append(voices[speaker])
    shares = dict.fromkeys(groups, 0)
    for _ in range(min(n, len(voices) // 2)):
        # The gender with the fewest so far; of several, the one with the most speakers.
        open_groups = [g for g in groups if shares[g] < len(groups[g])]
        shares[min(open_groups, key=lambda g: (shares[g], -len(groups[g]), str(g)))] += 1
    return {
        groups[gender][(2 * i + 1) * len(groups[gender]) // (2 * share)]
        for gender, share in shares.items()
        for i in range(share)
    }


def _split_random(clips: Sequence[Clip], config: SplitConfig) -> Split:
    if config.validation_speakers:
        raise SerError('a random split has no validation_speakers; set another split.protocol')
    if config.n_folds < 3:
        raise SerError(
            f'a random split needs 3 or more folds, not {config.n_folds}; set split.n_folds'
        )
    names = ' and '.join(_by_corpus(clips))
    _check_fold(config.fold, config.n_folds, names)
    test = config.fold - 1
    validation = config.fold % config.n_folds if config.n_validation else None
    fold_of = _deal(clips, config.n_folds)
    protocol = (
        f'NOT speaker-independent: random clips of {names}, fold {config.fold} of '
        f'{config.n_folds}; speakers are in several subsets'
    )
    return Split(
        [clip for clip in clips if fold_of[_recording(clip)] not in (test, validation)],
        [clip for clip in clips if fold_of[_recording(clip)] == validation],
        [clip for clip in clips if fold_of[_recording(clip)] == test],
        protocol,
    )


def _recording(clip: Clip) -> str:
    return clip.digest or str(clip.path)


def _deal(clips: Iterable[Clip], n_folds: int) -> dict[str, int]:
    """Recording → fold; the clips of each corpus and class are dealt to the folds in turn."""

    def rank(clip: Clip) -> tuple[str, ...]:
        key = hashlib.sha256(printable(f'{clip.voice}/{clip.path.stem}').encode()).hexdigest()
        return clip.corpus, clip.emotion, key, clip.name

    recordings = dict.fromkeys(_recording(clip) for clip in sorted(clips, key=rank))
    return {recording: i % n_folds for i, recording in enumerate(recordings)}


def _check_classes(clips: Sequence[Clip]) -> None:
    for emotion, voices in _voices_by_class(clips).items():
        if len(voices) == 1:
            raise SerError(
                f'class {emotion} has one speaker, {voices[0]}, who cannot be in both the '
                'training and the test set; merge the class with another, or leave its clips out'
            )


def _classes_without(clips: Iterable[Clip], others: Iterable[Clip]) -> list[str]:
    """Classes of `others` that the clips do not have."""
    return sorted({clip.emotion for clip in others} - {clip.emotion for clip in clips})


def _voices_by_class(clips: Iterable[Clip]) -> dict[str, list[str]]:
    classes: dict[str, set[str]] = {}
    for clip in clips:
        classes.setdefault(clip.emotion, set()).add(clip.voice)
    return {emotion: sorted(classes[emotion]) for emotion in sorted(classes)}


def _check(split: Split, config: SplitConfig) -> None:
    """SerError for a split that cannot be trained, calibrated and evaluated."""
    for name in SUBSETS:
        if not getattr(split, name) and (name != 'validation' or config.n_validation):
            count = len(set().union(*split.voices().values()))
            raise SerError(
                f'fold {config.fold} leaves no clips for the {SUBSETS[name]} set; there are only {count} '
                'speakers'
            )
    trained = _voices_by_class(split.train)
    more_clips = 'record more of them, or merge the class with another'
    for emotion, voices in _voices_by_class([*split.validation, *split.test]).items():
        if emotion not in trained:
            owners = f': only the validation and test speakers {", ".join(voices)} have it'
            raise SerError(
                f'fold {config.fold} leaves no clips of class {emotion} to train on'
                + (f'; {more_clips}' if config.protocol == 'random' else owners)
            )
    if unvalidated := split.validation and _classes_without(split.validation, split.train):
        remedy = 'name other speakers in split.validation_speakers, or raise split.n_validation'
        if config.protocol == 'random':
            remedy = more_clips
        raise SerError(
            f'fold {config.fold} leaves no clips of class {", ".join(unvalidated)} to validate '
            f'on; {remedy}'
        )
    untested = _classes_without(split.test, split.train)
    if untested and config.protocol in ('folds', 'random'):
        raise SerError(
            f'fold {config.fold} leaves no clips of class {", ".join(untested)} to test on; '
            'complete the corpus, merge the class with another, or set another split.protocol'
        )
    owners: dict[str, tuple[str, Clip]] = {}
    for name in SUBSETS:
        for clip in getattr(split, name):
            owner, other = owners.setdefault(_recording(clip), (name, clip))
            if owner != name:
                raise SerError(
                    f'{clip.path} and {other.path} are one recording, of {clip.voice} and '
                    f'{other.voice}; remove one: it would be in the {SUBSETS[owner]} '
                    f'and the {SUBSETS[name]} set'
                )
