"""Speech corpora on disk, read by their own file names."""

from dataclasses import dataclass
from pathlib import Path

from ser_ros import SerError
from ser_ros.emotions import RAVDESS_LABELS

RAVDESS_TWIN = '03-01-03-01-02-02-07'
"""The same recording as 03-01-03-01-02-01-07; no hash finds it in re-encoded copies."""


@dataclass(frozen=True)
class Clip:
    """One labelled recording."""

    path: Path
    emotion: str
    speaker: str


def read_ravdess(root: Path) -> list[Clip]:
    """RAVDESS speech below `root` (Livingstone & Russo, 2018), sorted by name.

    File names are modality-channel-emotion-intensity-statement-repetition-actor. Every recording
    counts once, however many copies of its folder there are; SerError where there is none, or one
    of an unknown emotion.
    """
    clips = {}
    for path in sorted(Path(root).rglob('03-01-*')):
        fields = path.stem.split('-')
        if path.suffix.lower() not in ('.wav', '.flac') or len(fields) != 7:
            continue
        if fields[2] not in RAVDESS_LABELS:
            raise SerError(f'{path}: RAVDESS has no emotion {fields[2]}')
        clips.setdefault(path.stem, Clip(path, RAVDESS_LABELS[fields[2]], fields[6]))
    clips.pop(RAVDESS_TWIN, None)
    if not clips:
        raise SerError(f'no RAVDESS speech (03-01-*.wav or .flac) below {root}')
    return [clips[name] for name in sorted(clips)]
