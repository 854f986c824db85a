"""Folders of recordings without labels, such as noise, divided by recording."""

import csv
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from ser_ros import SerError
from ser_ros.files import walk_files
from ser_ros.training.data.corpora import SOUNDS

HOUSEHOLD = 'household'
"""Value of the column `kind` for sounds of machines at home, in which nobody speaks."""

_PIECE = re.compile(r'(.+_\d+)_\d+')
"""File name of a piece: `vacuuming_2_7` is one of the recording `vacuuming_2`."""


def list_sounds(folder: Path, role: str) -> list[Path]:
    """All sound files below a folder, in the order of their paths.

    SerError if there are none; it begins with `role`, what the folder is for.
    """
    paths = [
        path
        for path in sorted(walk_files(folder))
        if path.suffix.lower() in SOUNDS and not path.name.startswith('._')  # left by macOS
    ]
    if not paths:
        raise SerError(
            f'{role} {str(folder)!r} has no sound files ({", ".join(SOUNDS)}): name a folder that has'
        )
    return paths


def recordings(paths: Sequence[Path]) -> list[list[Path]]:
    """The files of each recording: pieces `NAME_2_7` of `NAME_2`, or one file of another name."""
    found: dict[tuple[Path, str], list[Path]] = {}
    for path in paths:
        piece = _PIECE.fullmatch(path.stem)
        found.setdefault((path.parent, piece[1] if piece else path.stem), []).append(path)
    return list(found.values())


def split_recordings(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The files that a training uses, and those that are kept for evaluation.

    Every third recording is kept, so that a model is not evaluated with noise that it knows; none
    of fewer than three.
    """
    found = recordings(paths)
    kept = found[2::3]
    used = [recording for number, recording in enumerate(found) if number % 3 != 2]
    return list(chain(*used)), list(chain(*kept))


def noise_for_evaluation(folder: Path) -> list[Path]:
    """The files of a folder of noise that `split_recordings` keeps for evaluation.

    If the folder `NAME` has a table `NAME.csv` with the columns path and kind, those of the kind
    `HOUSEHOLD` only: other places may have voices in the background. SerError if nothing is left.
    """
    kept = split_recordings(list_sounds(folder, 'noise'))[1]
    table = folder / f'{folder.resolve().name}.csv'
    if table.is_file():
        household = _household(table)
        kept = [path for path in kept if path in household]
    if not kept:
        raise SerError(
            f'noise {str(folder)!r} has none for an evaluation, which uses every third recording (of the '
            f'kind {HOUSEHOLD}, if {table.name} says so); name a folder with three or more'
        )
    return kept


def _household(table: Path) -> set[Path]:
    try:
        with table.open(encoding='utf-8-sig', newline='') as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SerError(f'{table} cannot be read as CSV: {error}') from error
    if rows and not {'path', 'kind'} <= rows[0].keys():
        raise SerError(f'{table} needs the columns path and kind')
    return {table.parent / row['path'] for row in rows if row['kind'] == HOUSEHOLD}
