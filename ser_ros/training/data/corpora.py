"""Speech corpora on disk: their usable clips, and the reason for each file that is not used."""

import csv
import dataclasses
import difflib
import hashlib
import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
from tqdm import tqdm

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE
from ser_ros.audio.channels import AVERAGE, mix
from ser_ros.audio.reading import DEFAULT_READING, Mixdown, Reading
from ser_ros.audio.sound_file import (
    CUT_SHORT,
    TOLERANCE,
    EmptySoundError,
    NoSuchChannelError,
    SoundFile,
    SourceError,
)
from ser_ros.audio.sources import read_audio
from ser_ros.emotions import EMOTIONS, LABELS, Emotion, class_of
from ser_ros.files import printable, user_path, walk_files
from ser_ros.training.data.naming import NAMINGS, Naming
from ser_ros.training.labels import KNOWN, UNUSED, LabelMap

logger = logging.getLogger(__name__)

KINDS = (*NAMINGS, 'csv', 'folders')

LOSSLESS = ('.wav', '.flac', '.aif', '.aiff', '.aifc', '.au', '.caf', '.rf64', '.w64')
SOUNDS = (*LOSSLESS, '.ogg', '.oga', '.opus', '.mp3')
VIDEOS = ('.mp4', '.flv', '.avi')
UNREAD = (
    *('.m4a', '.m4b', '.aac', '.wma', '.sph', '.amr', '.3gp', '.ac3', '.ape', '.wv', '.mka'),
    *('.mkv', '.mov', '.webm', '.raw', '.pcm'),
)
"""Suffixes of sound and video that are not read."""

MIN_DURATION = 0.2
"""Seconds; a shorter clip is hardly a syllable."""
MIN_PEAK = 1e-3
"""Share of full scale, −60 dBFS; a clip below it is silent."""
LFS_POINTER = b'version https://git-lfs.github.com/spec/'

CorpusPath = Union[Path, tuple[Path, str], tuple[Path, str, Reading]]
"""Path of a corpus, optionally with its kind and what is used of its files: see `read_corpus`."""

LICENSES = {
    'RAVDESS': 'CC-BY-NC-SA-4.0',
    'CREMA-D': 'ODbL-1.0',
    'TESS': 'CC-BY-NC-ND-4.0',
    'BanglaSER': 'CC-BY-4.0',
    'nEMO': 'CC-BY-NC-SA-4.0',
    'Indian-EmoSpeech-Command': 'CC-BY-NC-SA-4.0',
    'EmoGator': 'Apache-2.0',
}
"""SPDX identifiers of the corpora whose owners name one."""

LANGUAGES = {
    'RAVDESS': 'English',
    'SAVEE': 'English',
    'CREMA-D': 'English',
    'TESS': 'English',
    'EmoDB': 'German',
    'BanglaSER': 'Bengali',
    'nEMO': 'Polish',
    'Indian-EmoSpeech-Command': 'Hindi and English',
    'emotiontts_open_db': 'Korean',
}
"""What is spoken in a corpus; EmoGator has no words."""

AGE_GROUPS = {'under 18': 18, '18–29': 30, '30–44': 45, '45–59': 60, '60 and over': 150}
"""Name → the age in years below which it ends; the last end is that of all ages."""


@dataclass(frozen=True)
class Clip:
    """One labelled recording."""

    path: Path
    emotion: str
    """A class of `ser_ros.emotions.EMOTIONS`, or of one's own."""
    speaker: str
    corpus: str
    gender: Optional[str] = None
    """female or male; None if the corpus does not state it."""
    intensity: Optional[str] = None
    statement: Optional[str] = None
    duration: float = 0.0
    """Seconds."""
    digest: str = ''
    """Hash of the decoded sound, one channel or their average: clips with the same one are one recording."""
    age: Optional[int] = None
    """Years; None if the corpus does not state them."""
    own: Optional[Emotion] = None
    """What its class means, if it is one of one's own."""
    name: str = ''
    """Path below its corpus, with `#t=START,END` for a part of a file and `#channel=N` for one channel
    of it; no other clip of the corpus has the same. Default: the file's name."""
    start: float = 0.0
    end: Optional[float] = None
    """Seconds in its file; None for the end of the file."""
    reading: Reading = DEFAULT_READING
    """What is used of the file."""

    @property
    def expression(self) -> str:
        """The ROS4HRI expression of its class."""
        return (self.own or EMOTIONS[self.emotion]).expression

    def __post_init__(self):
        if not self.name:
            object.__setattr__(self, 'name', printable(self.path.name))

    def read(self, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
        """Its sound as float32 (n,) samples, see `read_audio`."""
        return read_audio(self.path, sample_rate, self.start, self.end, self.reading)

    @property
    def fingerprint(self) -> str:
        """The beginning of the digest, enough to recognise the recording."""
        return self.digest[:12]

    @property
    def voice(self) -> str:
        """The speaker with its corpus: unique among several corpora."""
        return f'{self.corpus}:{self.speaker}'

    @property
    def language(self) -> Optional[str]:
        """What is spoken; None if it is not known."""
        return LANGUAGES.get(self.corpus)

    @property
    def age_group(self) -> Optional[str]:
        """One of `AGE_GROUPS`; None if the age is not known."""
        if self.age is None:
            return None
        return next(name for name, end in AGE_GROUPS.items() if self.age < end)


@dataclass(frozen=True)
class Problem:
    """A faulty file."""

    path: Path
    reason: str
    """A few words, the same for all files with the same fault."""
    detail: str = ''
    """More about this file."""
    is_used: bool = False
    """Whether its clip is used in spite of the fault."""
    label: str = ''
    """Its label, if that is the fault: it has no class."""


@dataclass(frozen=True)
class Corpus:
    """The usable clips and the faulty files of a corpus."""

    name: str
    clips: list[Clip]
    problems: list[Problem]
    labels: dict[str, str]
    """The corpus's own label → the class of its clips."""

    @property
    def left_out(self) -> str:
        """How many files are not used, and why, in one line; '' if all are used."""
        faults = Counter(problem.reason for problem in self.problems if not problem.is_used)
        counts = ', '.join(f'{n} {reason}' for reason, n in sorted(faults.items()))
        return counts and '; '.join(
            [
                f'{self.name}: files left out: {counts} (the command corpus names them)',
                *self.unknown_labels,
            ]
        )

    @property
    def unknown_labels(self) -> list[str]:
        """One line about the labels without a class, with what is known; empty if there are none."""
        counts = Counter(problem.label for problem in self.problems if problem.label)
        labels = ', '.join(f'{label} ({n})' for label, n in sorted(counts.items()))
        return [f'labels without a class: {labels}; {KNOWN}'] if labels else []

    def collisions(self) -> dict[str, list[str]]:
        """Class with several of the corpus's own labels → those labels."""
        owned: dict[str, list[str]] = {}
        for label, emotion in self.labels.items():
            owned.setdefault(emotion, []).append(label)
        return {emotion: labels for emotion, labels in owned.items() if len(labels) > 1}


def license_of(corpora: Sequence[str]) -> str:
    """The SPDX expression for a model trained on the corpora of these names."""
    known = [LICENSES[name] for name in LICENSES if name in corpora]
    others = [re.sub('[^A-Za-z0-9.]+', '-', name) for name in sorted(set(corpora) - set(LICENSES))]
    return joint_license(*known, *(f'LicenseRef-{name}' for name in others))


def joint_license(*licenses: str) -> str:
    """The SPDX expression for what must fulfil all of these; each licence stands in it once."""
    terms = [term for expression in licenses for term in expression.split(' AND ')]
    return ' AND '.join(dict.fromkeys(terms))


def merge_labels(clips: Sequence[Clip], merges: Mapping[str, str]) -> list[Clip]:
    """The clips with some classes replaced by others, such as calm by neutral.

    SerError for an unknown class, with the nearest known one.
    """
    own = {clip.emotion: clip.own for clip in clips}
    known = {**EMOTIONS, **own}
    for name in (*merges, *merges.values()):
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, cutoff=0.0)[0]
            raise SerError(f'merge: {name!r} is not a class; did you mean {near!r}?')
    merged = [merges.get(clip.emotion, clip.emotion) for clip in clips]
    return [
        dataclasses.replace(clip, emotion=emotion, own=own.get(emotion))
        for clip, emotion in zip(clips, merged)
    ]


def read_corpora(
    paths: Sequence[CorpusPath], labels: Optional[Mapping[str, Any]] = None
) -> list[Corpus]:
    """Several corpora; a recording that is already in an earlier one is left out of the later.

    `labels`: as the recipe's key `data.labels`, see `LabelMap`. SerError as for `read_corpus`, and
    for two corpora of one name, whose speakers could not be distinguished.
    """
    corpora: list[Corpus] = []
    owners: dict[str, Clip] = {}
    for given in paths:
        path, *others = given if isinstance(given, tuple) else (given,)
        corpus = read_corpus(path, *others, labels=labels)
        if corpus.name in (other.name for other in corpora):
            raise SerError(f'corpus {path}: there are two corpora {corpus.name}; leave one out')
        fresh = [clip for clip in corpus.clips if clip.digest not in owners]
        known = [
            _identical(clip, owners[clip.digest], SHARED)
            for clip in corpus.clips
            if clip.digest in owners
        ]
        owners.update((clip.digest, clip) for clip in fresh)
        problems = corpus.problems + known
        corpora.append(dataclasses.replace(corpus, clips=fresh, problems=problems))
    return corpora


def read_corpus(
    path: Path,
    kind: str = 'auto',
    reading: Reading = DEFAULT_READING,
    labels: Optional[Mapping[str, Any]] = None,
) -> Corpus:
    """The corpus in a folder or a CSV file: its usable clips, each recording once.

    `kind`: one of `KINDS`, or auto to identify it by the files' names. The published corpora are
    described in `ser_ros.training.data.naming`. A CSV file has the columns path (relative to the
    file), emotion and speaker, and may have gender, age and intensity, start and end of the clip in
    its file in seconds, and the channel to use of the file. Folders are `EMOTION/SPEAKER/*.wav`,
    `EMOTION/SPEAKER_*.wav` or `SPEAKER/EMOTION/*.wav`. Every clip is decoded once, to find silent,
    truncated and duplicate ones. `reading`: what is used of the files, where a CSV file does not say
    it; `labels`: see `LabelMap`.

    Clips are in the order of their names, whatever the folders. SerError if the path does not
    exist or has no usable clip, or if its kind cannot be identified.
    """
    path, label_map = user_path(path), LabelMap(labels or {})
    kind = _known_kind(kind)
    if kind in ('auto', 'csv') and path.is_file():
        return _use(path, printable(path.stem), *_read_table(path, reading, label_map))
    if not path.is_dir():
        raise SerError(f'corpus {path}: no such folder or CSV file')
    if kind == 'csv':
        raise SerError(f'corpus {path}: this is a folder; name the CSV file itself')
    paths, problems = _list_sounds(path)
    if not paths:
        others = Counter(p.path.suffix.lower() for p in problems if p.reason == NOT_READ)
        advice = ''.join(f', only {n} {suffix}' for suffix, n in others.items())
        raise SerError(
            f'corpus {path}: there are no sound files ({", ".join(SOUNDS)}) in it{advice}'
        )
    if kind == 'auto':
        kind = _identify_kind(path, paths, label_map)
    if kind == 'folders':
        name, (entries, more) = (
            printable(path.resolve().name),
            _read_folders(path, paths, label_map),
        )
    else:
        name, (entries, more) = kind, _read_names(NAMINGS[kind], path, paths, label_map)
    entries = [_with_reading(entry, reading) for entry in entries]
    return _use(path, name, entries, problems + more)


def _known_kind(kind: str) -> str:
    known = {name.casefold(): name for name in ('auto', *KINDS)}
    if kind.casefold() not in known:
        raise SerError(f'corpus kind {kind!r} is not one of auto, {", ".join(KINDS)}')
    return known[kind.casefold()]


NOT_READ = 'format that is not read'

SHARED = 'recording of an earlier corpus'
"""Reason of a file whose sound is that of one in another corpus."""


def _list_sounds(root: Path) -> tuple[list[Path], list[Problem]]:
    """Sounds and videos below `root`; and such that are not read, and metadata files of macOS."""
    found, problems = [], []
    for path in sorted(walk_files(root)):
        suffix = path.suffix.lower()
        if path.name.startswith('._') and suffix in (*SOUNDS, *VIDEOS, *UNREAD):
            problems.append(Problem(path, 'left by macOS', 'metadata of its Finder, not sound'))
        elif suffix in (*SOUNDS, *VIDEOS):
            found.append(path)
        elif suffix in UNREAD:
            problems.append(Problem(path, NOT_READ, 'convert it to WAV or FLAC'))
    return found, problems


def _identify_kind(root: Path, paths: Sequence[Path], labels: LabelMap) -> str:
    """The kind that all files with a known name have; SerError for none, and for several."""
    fits = {
        kind: {path for path in paths if naming.parse(path) is not None}
        for kind, naming in NAMINGS.items()
    }
    best = max(fits, key=lambda kind: len(fits[kind]))
    if not fits[best]:
        if any(_n_labelled(root, paths, level, labels) for level in (0, 1)):
            return 'folders'
        known = ', '.join(f'{kind} ({naming.example})' for kind, naming in NAMINGS.items())
        raise SerError(
            f'corpus {root}: file names such as {paths[0].name} do not belong to a known corpus; '
            f'known are {known}, folders of emotions (angry/SPEAKER_1.wav or SPEAKER/angry/1.wav), '
            f'and a CSV file; of the emotions {KNOWN}'
        )
    rivals = [kind for kind in fits if kind != best and fits[kind] and not fits[kind] < fits[best]]
    if rivals:
        counts = ', '.join(f'{kind} ({len(fits[kind])} files)' for kind in (best, *rivals))
        raise SerError(
            f'corpus {root}: it could be {counts}; name the folder of one of them, or the kind, '
            f'as in --corpus {best}={root} or corpus {root} --kind {best}'
        )
    return best


@dataclass(frozen=True)
class _Entry:
    """A file before it is opened; its clip has no duration and no digest yet."""

    clip: Clip
    label: str
    recording: tuple[str, ...]


def _with_reading(entry: _Entry, reading: Reading) -> _Entry:
    return dataclasses.replace(entry, clip=dataclasses.replace(entry.clip, reading=reading))


def _below(root: Path, path: Path) -> str:
    return printable(path.relative_to(root).as_posix())


def _read_names(
    naming: Naming, root: Path, paths: Sequence[Path], labels: LabelMap
) -> tuple[list[_Entry], list[Problem]]:
    entries, problems = [], []
    for path in paths:
        name = naming.parse(path)
        if name is None:
            detail = f'its names are like {naming.example}'
            problems.append(Problem(path, f'not a file name of {naming.corpus}', detail))
        elif path.suffix.lower() in VIDEOS or name.channel != naming.speech:
            problems.append(Problem(path, 'not speech alone', 'a video, or song'))
        elif (
            emotion := labels.find(
                naming.corpus, name.label, LABELS[naming.corpus].get(name.label)
            )
        ) in (None, UNUSED):
            problems.append(_without_class(path, name.label, emotion))
        elif path.stem in naming.faulty:
            problems.append(Problem(path, *naming.faulty[path.stem]))
        else:
            clip = Clip(
                path,
                emotion,
                name.speaker,
                naming.corpus,
                name.gender,
                name.intensity,
                name.statement,
                age=name.age,
                own=labels.own.get(emotion),
                name=_below(root, path),
            )
            entries.append(_Entry(clip, name.label, name.recording))
    # If there are several copies of a recording, one that was not compressed comes first.
    entries.sort(key=lambda e: (e.recording, e.clip.path.suffix.lower() not in LOSSLESS))
    return entries, problems


def _without_class(path: Path, label: str, emotion: Optional[str]) -> Problem:
    if emotion == UNUSED:
        return Problem(path, 'label mapped to nothing', f'{label!r}, by data.labels')
    detail = f'{label!r} is not a known emotion'
    return Problem(path, 'unknown label', detail, label=label or '(none)')


def _no_speaker(path: Path, remedy: str) -> Problem:
    return Problem(path, 'no speaker', remedy)


def _check_speakers(
    root: Path, entries: Sequence[_Entry], nameless: Mapping[str, Problem]
) -> None:
    """SerError for a class of which no clip has a speaker: nobody would notice that it is missing.

    `nameless`: class → one of its files without a speaker.
    """
    for emotion in nameless.keys() - {entry.clip.emotion for entry in entries}:
        problem = nameless[emotion]
        raise SerError(
            f'corpus {root}: no clip of {emotion} has a speaker, such as {problem.path}: '
            f'{problem.detail}'
        )


def _n_labelled(root: Path, paths: Sequence[Path], level: int, labels: LabelMap) -> int:
    """How many files have a label of an emotion as their first (0) or second (1) folder."""
    corpus = printable(root.resolve().name)
    folders = [path.relative_to(root).parts[:-1][level:] for path in paths]
    words = [printable(f[0]) for f in folders if f]
    return sum(labels.find(corpus, word, class_of(word)) is not None for word in words)


def _read_folders(
    root: Path, paths: Sequence[Path], labels: LabelMap
) -> tuple[list[_Entry], list[Problem]]:
    entries, problems, nameless = [], [], {}
    corpus = printable(root.resolve().name)
    n_first, n_second = (_n_labelled(root, paths, level, labels) for level in (0, 1))
    for path in paths:
        folders = [printable(folder) for folder in path.relative_to(root).parts[:-1]]
        if n_second > n_first:
            folders[:2] = folders[1::-1]
        label, *folders = folders or ('',)
        emotion = labels.find(corpus, label, class_of(label))
        prefix, underscore, _ = printable(path.stem).partition('_')
        speaker = folders[0] if folders else prefix if underscore else ''
        if emotion in (None, UNUSED):
            problems.append(_without_class(path, label, emotion))
        elif not speaker:
            remedy = f'name it {label}/SPEAKER/{path.name} or {label}/SPEAKER_{path.name}'
            problems.append(_no_speaker(path, remedy))
            nameless[emotion] = problems[-1]
        else:
            own, name = labels.own.get(emotion), _below(root, path)
            clip = Clip(path, emotion, speaker, corpus, name=name, own=own)
            entries.append(_Entry(clip, label, path.parts))
    _check_speakers(root, entries, nameless)
    _doubt_speakers(root, [entry.clip for entry in entries])
    return entries, problems


def _doubt_speakers(root: Path, clips: Sequence[Clip]) -> None:
    """Warn where nearly each file has a speaker of its own: numbers, which keep no voices apart."""
    n_speakers = len({clip.speaker for clip in clips})
    if len(clips) >= 6 and n_speakers > 0.8 * len(clips):
        logger.warning(
            f'corpus {root}: its {len(clips)} clips have {n_speakers} speakers, such as '
            f'{clips[0].speaker!r} of {clips[0].name}, by what stands before the first _ of their '
            'names, or their folders: if these are numbers, voices are not kept apart'
        )


def _read_table(
    path: Path, reading: Reading, labels: LabelMap
) -> tuple[list[_Entry], list[Problem]]:
    try:
        # Names of files need not be UTF-8.
        with path.open(encoding='utf-8-sig', errors='surrogateescape', newline='') as file:
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            columns, rows = reader.fieldnames, list(reader)
    except (OSError, csv.Error) as error:
        raise SerError(f'corpus {path}: it cannot be read as CSV: {error}') from error
    if missing := [name for name in ('path', 'emotion', 'speaker') if name not in columns]:
        raise SerError(
            f'corpus {path}: the columns {", ".join(missing)} are missing; '
            f'its first line is {printable(",".join(columns))[:200]!r}'
        )
    entries, problems, nameless = [], [], {}
    for number, row in enumerate(rows, 2):
        row = {name: (row[name] or '').strip() for name in columns}
        file = path.parent / row['path']
        row = {name: printable(cell) for name, cell in row.items()}
        emotion = labels.find(printable(path.stem), row['emotion'], class_of(row['emotion']))
        if emotion in (None, UNUSED):
            problems.append(_without_class(file, row['emotion'], emotion))
        elif not row['speaker']:
            problems.append(_no_speaker(file, f'the column is empty in row {number}'))
            nameless[emotion] = problems[-1]
        elif (part := _part(row)) is None:
            detail = f'row {number}: {row.get("start")!r} to {row.get("end")!r} are not seconds'
            problems.append(Problem(file, 'invalid start or end', detail))
        else:
            start, end = part
            gender, age = row.get('gender', '').lower(), row.get('age', '')
            is_age = age.isdecimal() and int(age) < max(AGE_GROUPS.values())
            if gender and gender not in GENDERS:
                detail = f'row {number}: {gender!r} is taken as not stated'
                problems.append(Problem(file, 'gender not f or m', detail, is_used=True))
            if age and not is_age:
                detail = f'row {number}: {age!r} is taken as not stated'
                problems.append(Problem(file, 'age not in whole years', detail, is_used=True))
            clip = Clip(
                file,
                emotion,
                row['speaker'],
                printable(path.stem),
                GENDERS.get(gender),
                row.get('intensity') or None,
                age=int(age) if is_age else None,
                name=row['path'] + _fragment(row),
                start=start,
                end=end,
                own=labels.own.get(emotion),
                reading=_with_channel(reading, row.get('channel', ''), f'{path}: row {number}'),
            )
            entries.append(_Entry(clip, row['emotion'], (str(number),)))
    _check_speakers(path, entries, nameless)
    return entries, problems


GENDERS = {'f': 'female', 'female': 'female', 'm': 'male', 'male': 'male'}


def _with_channel(reading: Reading, text: str, where: str) -> Reading:
    """`text`: of a column channel; empty for the channel of `reading`."""
    if not text:
        return reading
    if not text.removeprefix('-').isdecimal() or int(text) < AVERAGE:
        raise SerError(
            f'corpus {where}: channel is {text!r}, not a number from 0, or {AVERAGE} for the average'
        )
    return dataclasses.replace(reading, channel=int(text))


def _part(row: Mapping[str, str]) -> Optional[tuple[float, Optional[float]]]:
    """Start and end of a row in seconds, (0, None) without them; None for what they cannot be."""
    try:
        start = float(row.get('start') or 0)
        end = float(row['end']) if row.get('end') else None
    except ValueError:
        return None
    is_valid = 0 <= start < (math.inf if end is None else end) and math.isfinite(end or 0)
    return (start, end) if is_valid else None


def _fragment(row: Mapping[str, str]) -> str:
    """As in a URI (W3C Media Fragments 1.0, but for the channel); '' for a whole file."""
    start, end, channel = (row.get(name, '') for name in ('start', 'end', 'channel'))
    parts = [f't={start}' + (f',{end}' if end else '')] if start or end else []
    parts += [f'channel={channel}'] if channel else []
    return '#' + '&'.join(parts) if parts else ''


@dataclass(frozen=True)
class _Sound:
    duration: float
    digest: str
    channel_note: str
    """That several channels are averaged; '' for one."""
    full_scale_note: str
    """That some samples are beyond full scale; '' where none are."""
    fault: tuple[str, str]
    """Why it is used nevertheless: see `SoundFile.fault`."""


def _use(root: Path, name: str, entries: Sequence[_Entry], problems: list[Problem]) -> Corpus:
    """Decode every file, and keep one clip of each recording."""
    with ThreadPoolExecutor() as pool:
        sounds = list(
            tqdm(
                pool.map(_decode, [entry.clip for entry in entries]),
                desc=f'checking {name}',
                total=len(entries),
                unit='file',
                leave=False,
                disable=None,
            )
        )
    kept: dict[tuple[str, ...], Clip] = {}
    labels = {}
    for entry, sound in zip(entries, sounds):
        path, before = entry.clip.path, kept.get(entry.recording)
        if isinstance(sound, Problem):
            problems.append(sound)
            continue
        if before is not None:
            copies = before.digest == sound.digest
            reason = 'copy' if copies else 'another version'
            problems.append(Problem(path, reason, f'of {before.path}, which is used'))
            continue
        if sound.channel_note:
            problems.append(Problem(path, 'not mono', sound.channel_note, is_used=True))
        if sound.full_scale_note:
            note = sound.full_scale_note
            problems.append(Problem(path, BEYOND_FULL_SCALE, note, is_used=True))
        if sound.fault[0]:
            problems.append(Problem(path, *sound.fault, is_used=True))
        kept[entry.recording] = dataclasses.replace(
            entry.clip, duration=sound.duration, digest=sound.digest
        )
        labels[entry.label] = entry.clip.emotion
    clips, more = _once_each(kept.values())
    problems = sorted(problems + more, key=lambda problem: (problem.reason, problem.path))
    if not clips:
        raise SerError(_nothing_left(root, name, problems))
    used = {clip.path for clip in clips}
    problems = [p for p in problems if not p.is_used or p.path in used]
    return Corpus(name, clips, problems, dict(sorted(labels.items())))


BEYOND_FULL_SCALE = 'beyond full scale'
CHOOSE_CHANNEL = 'choose one with --channel, or with a column channel of a CSV file'


def _decode(clip: Clip) -> Union[_Sound, Problem]:
    """Decode a clip block by block; a Problem if it cannot be used."""
    path = clip.path
    if '\0' in str(path):
        return Problem(path, 'no such file')
    digest, peak, n = hashlib.sha256(), np.float32(0), 0
    try:
        with path.open('rb') as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                return Problem(path, 'Git LFS pointer', 'fetch the sound with: git lfs pull')
        with SoundFile(path, clip.reading) as file:
            mixdown = file.mixdown
            for block in file.blocks(None, clip.start, clip.end):
                samples = mix(mixdown.select(block))
                digest.update(samples)
                peak = np.maximum(peak, np.abs(samples).max())  # NaN if one of them is
                n += len(samples)
            rate, fault = file.sample_rate, file.fault
    except FileNotFoundError:
        return Problem(path, 'no such file')
    except EmptySoundError:
        return Problem(path, 'too short', 'it holds no samples')
    except NoSuchChannelError as error:
        return Problem(path, 'no such channel', str(error.__cause__))
    except OSError as error:
        return Problem(path, 'unreadable', error.strerror)
    except SourceError as error:
        return Problem(path, 'unreadable', str(error).rpartition(f'{printable(path)}: ')[2])
    if clip.end is not None and n < (clip.end - clip.start - TOLERANCE) * rate:
        ending = f'the sound ends at {clip.start + n / rate:.3f} s, before {clip.end:g} s'
        return Problem(path, CUT_SHORT, ending)
    if clip.end is None and fault[0] == CUT_SHORT:
        return Problem(path, *fault)
    if n < MIN_DURATION * rate:
        return Problem(path, 'too short', f'{n / rate:.3f} s')
    if not np.isfinite(peak):
        return Problem(path, 'unreadable', 'some of its samples are not finite')
    if peak < MIN_PEAK:
        about = mixdown.channel_problem
        detail = f'{about}; {CHOOSE_CHANNEL}' if about else 'its peak is below -60 dBFS'
        return Problem(path, 'silent', detail)
    full_scale = mixdown.full_scale
    full_scale_note = (full_scale and full_scale.problem) or ''
    if full_scale and full_scale.is_unscaled:
        return Problem(path, BEYOND_FULL_SCALE, f'{full_scale_note}; scale it with --full-scale')
    seconds, channel_note = n / rate, _channel_note(mixdown)
    return _Sound(seconds, digest.hexdigest(), channel_note, full_scale_note, fault)


def _channel_note(mixdown: Mixdown) -> str:
    if mixdown.is_chosen or mixdown.n_channels == 1:
        return ''
    note = f'the average of its {mixdown.n_channels} channels is used'
    if about := mixdown.channel_problem:
        return f'{note}, but {about}; {CHOOSE_CHANNEL}'
    return note if mixdown.n_channels == 2 else f'{note}; {CHOOSE_CHANNEL}'


def _once_each(clips: Iterable[Clip]) -> tuple[list[Clip], list[Problem]]:
    """One clip of each sound; none if clips of the same sound have different labels."""
    same: dict[str, list[Clip]] = {}
    for clip in clips:
        same.setdefault(clip.digest, []).append(clip)
    kept, problems = [], []
    for first, *others in same.values():
        if all((c.emotion, c.speaker) == (first.emotion, first.speaker) for c in others):
            kept.append(first)
            problems += [_identical(clip, first) for clip in others]
        else:
            problems += [
                Problem(
                    clip.path,
                    'collision',
                    f'{_claim(clip)}, but its sound is that of {other.path}: {_claim(other)}',
                )
                for clip, other in zip((first, *others), (*others, first))
            ]
    return kept, problems


def _identical(clip: Clip, other: Clip, reason: str = 'identical recording') -> Problem:
    return Problem(clip.path, reason, f'its sound is that of {other.path}')


def _claim(clip: Clip) -> str:
    return f'{clip.emotion} by {clip.speaker}'


def _nothing_left(root: Path, name: str, problems: Sequence[Problem]) -> str:
    reasons = Counter(problem.reason for problem in problems)
    if set(reasons) == {'Git LFS pointer'}:
        return (
            f'corpus {root}: its {len(problems)} files are Git LFS pointers, without the sound '
            'itself; run git lfs pull in its repository'
        )
    counts = ', '.join(f'{count} {reason}' for reason, count in reasons.items())
    example = ''
    if problems:
        detail = f' ({problems[0].detail})' if problems[0].detail else ''
        example = f', such as {problems[0].path}{detail}'
    known = f'; {KNOWN}' if any(problem.label for problem in problems) else ''
    counts = counts or 'it lists none'
    return f'corpus {root}: no clip of {name} can be used: {counts}{example}{known}'
