"""Who is trained on, chosen by, and tested on."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Optional

from ser_ros import SerError
from ser_ros.training.data.corpora import Clip
from ser_ros.training.recipe import SplitConfig

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

PARTS = ('train', 'validation', 'test')


@dataclass(frozen=True)
class Split:
    """Every clip in one of three parts."""

    train: list[Clip]
    validation: list[Clip]
    test: list[Clip]
    protocol: str
    """How it was made, in one sentence."""

    def voices(self) -> dict[str, list[str]]:
        """Name of each part → its voices, sorted."""
        return {part: sorted({clip.voice for clip in getattr(self, part)}) for part in PARTS}

    def speakers(self) -> dict[str, dict[str, list[str]]]:
        """Corpus → part → its speakers, sorted."""
        parts = {part: getattr(self, part) for part in PARTS}
        names = dict.fromkeys(clip.corpus for clips in parts.values() for clip in clips)
        return {
            name: {
                part: sorted({clip.speaker for clip in clips if clip.corpus == name})
                for part, clips in parts.items()
            }
            for name in names
        }

    @property
    def digest(self) -> str:
        """Of who says what in which part, and of the sound: that of a changed corpus is another."""
        parts = {
            part: sorted((c.voice, c.name, c.emotion, c.digest) for c in getattr(self, part))
            for part in PARTS
        }
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def is_speaker_independent(self) -> bool:
        """Whether no voice is in two parts."""
        voices = self.voices()
        return len(set().union(*voices.values())) == sum(map(len, voices.values()))


def split_clips(clips: Sequence[Clip], config: SplitConfig) -> Split:
    """Split clips of one corpus or more by the config's protocol.

    - folds: the published folds in `FOLDS`.
    - leave_one_speaker_out: fold n tests the n-th speaker, in the published order or sorted.
    - speakers: `n_folds` folds of speakers, balanced by gender, then by clips.
    - random: `n_folds` parts of clips, balanced by class, in an order that their names alone
      decide; one is tested on, the next one validates. Identical recordings stay together.

    Each corpus is split on its own, with the same fold number. All but random are by speaker:
    there `n_validation` speakers of each corpus, but at most half of those who are not tested,
    leave the training part: equally many women and men as far as there are, evenly spaced in
    sorted order. Raises SerError for a split that cannot be, or that could not be measured: each
    class that is trained must be validated and tested. Only a speaker of leave_one_speaker_out
    or of speakers may lack one, and then the protocol says so.
    """
    if not clips:
        raise SerError('there are no clips to split')
    if config.n_validation < 0:
        raise SerError(f'n_validation is {config.n_validation}, not 0 or more')
    split = (
        _split_random(clips, config)
        if config.protocol == 'random'
        else _split_speakers(clips, config)
    )
    _check(split, config)
    if untested := _classes_without(split.test, split.train):
        protocol = f'{split.protocol}; the test part has no clips of {", ".join(untested)}'
        split = dataclasses.replace(split, protocol=protocol)
    return split


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
                'of whom there are no clips'
            )
        test |= {f'{name}:{speaker}' for speaker in tested}
    if config.validation_speakers:
        validation = _named_voices(config.validation_speakers, corpora)
        if both := sorted(validation & test):
            raise SerError(f'speakers both in test and validation: {", ".join(both)}')
    elif config.n_validation:
        for members in corpora.values():
            rest = [clip for clip in members if clip.voice not in test]
            validation |= _choose_voices(rest, config.n_validation)
    names = {
        'folds': 'published fold',
        'leave_one_speaker_out': 'one speaker left out, fold',
        'speakers': f'{config.n_folds} folds of speakers, fold',
    }
    protocol = (
        f'speaker-independent: {names[config.protocol]} {config.fold} of '
        f'{" and of ".join(corpora)}; {len(test)} speakers test, {len(validation)} validate, '
        f'{len({clip.voice for clip in clips} - test - validation)} train'
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
    if config.protocol == 'speakers':
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
            f'{len(genders)} speakers of {name} make no {n_folds} folds; '
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
    # Where only some clips of a speaker say the gender, these come last and count.
    ordered = sorted(clips, key=lambda clip: (clip.speaker, clip.gender or ''))
    return {clip.speaker: clip.gender for clip in ordered}


def _named_voices(names: Iterable[str], corpora: dict[str, list[Clip]]) -> set[str]:
    """The voices of `CORPUS:SPEAKER`, or of `SPEAKER` where there is one corpus."""
    known = {clip.voice for clips in corpora.values() for clip in clips}
    (only, *others) = corpora
    voices = {name if name in known or others else f'{only}:{name}' for name in names}
    if missing := sorted(voices - known):
        form = '; name each CORPUS:SPEAKER' if others else ''
        raise SerError(f'there are no speakers {", ".join(missing)}{form}')
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
            f'a random split into {config.n_folds} parts is none; set n_folds 3 or more'
        )
    names = ' and '.join(_by_corpus(clips))
    _check_fold(config.fold, config.n_folds, names)
    tested = config.fold - 1
    validated = config.fold % config.n_folds if config.n_validation else None
    part_of = _deal(clips, config.n_folds)
    protocol = (
        f'NOT speaker-independent: random clips of {names}, part {config.fold} of '
        f'{config.n_folds} tests; speakers are in several parts'
    )
    return Split(
        [clip for clip in clips if part_of[_recording(clip)] not in (tested, validated)],
        [clip for clip in clips if part_of[_recording(clip)] == validated],
        [clip for clip in clips if part_of[_recording(clip)] == tested],
        protocol,
    )


def _recording(clip: Clip) -> str:
    return clip.digest or str(clip.path)


def _deal(clips: Iterable[Clip], n_parts: int) -> dict[str, int]:
    """Recording → part; each corpus's clips of one class are dealt round."""

    def rank(clip: Clip) -> tuple[str, ...]:
        key = hashlib.sha256(f'{clip.voice}/{clip.name}'.encode()).hexdigest()
        return clip.corpus, clip.emotion, key, str(clip.path)

    recordings = dict.fromkeys(_recording(clip) for clip in sorted(clips, key=rank))
    return {recording: i % n_parts for i, recording in enumerate(recordings)}


def _check_classes(clips: Sequence[Clip]) -> None:
    for emotion, voices in _voices_by_class(clips).items():
        if len(voices) == 1:
            raise SerError(
                f'class {emotion} has one speaker, {voices[0]}, who cannot be both trained and '
                'tested on; merge the class with another, or leave its clips out'
            )


def _classes_without(clips: Iterable[Clip], others: Iterable[Clip]) -> list[str]:
    """Classes of `others` that none of the clips is of."""
    return sorted({clip.emotion for clip in others} - {clip.emotion for clip in clips})


def _voices_by_class(clips: Iterable[Clip]) -> dict[str, list[str]]:
    classes: dict[str, set[str]] = {}
    for clip in clips:
        classes.setdefault(clip.emotion, set()).add(clip.voice)
    return {emotion: sorted(classes[emotion]) for emotion in sorted(classes)}


def _check(split: Split, config: SplitConfig) -> None:
    """What must hold of any split."""
    for part in PARTS:
        if not getattr(split, part) and (part != 'validation' or config.n_validation):
            count = len(set().union(*split.voices().values()))
            raise SerError(
                f'no clips are left for the {part} part in fold {config.fold}; '
                f'there are only {count} speakers'
            )
    trained = _voices_by_class(split.train)
    for emotion, voices in _voices_by_class([*split.validation, *split.test]).items():
        if emotion not in trained:
            raise SerError(
                f'fold {config.fold} leaves no clips of class {emotion} to train on: only '
                f'{", ".join(voices)} have it, who validate or test'
            )
    if unvalidated := split.validation and _classes_without(split.validation, split.train):
        raise SerError(
            f'fold {config.fold} leaves no clips of class {", ".join(unvalidated)} to validate by; '
            'name other speakers in split.validation_speakers, or raise split.n_validation'
        )
    untested = _classes_without(split.test, split.train)
    if untested and config.protocol in ('folds', 'random'):
        raise SerError(
            f'fold {config.fold} leaves no clips of class {", ".join(untested)} to test on; '
            'complete the corpus, merge the class with another, or set another split.protocol'
        )
    owners: dict[str, tuple[str, Clip]] = {}
    for part in PARTS:
        for clip in getattr(split, part):
            owner, other = owners.setdefault(_recording(clip), (part, clip))
            if owner != part:
                raise SerError(
                    f'{clip.path} and {other.path} are one recording, of {clip.voice} and '
                    f'{other.voice}; remove one, or both would be in {owner} and in {part}'
                )
