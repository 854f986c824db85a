"""Women and men: how accurate models are for each, with RAVDESS in the training and without."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ser_ros import SerError
from ser_ros.settings import from_dict
from ser_ros.training.reports.formatting import difference_in_points, percent, with_interval
from ser_ros.training.reports.results import Summary

FILE = 'genders.json'
"""Name of the file in a folder of results."""

GENDERS = ('female', 'male')

FOLDS_HEADER = ('recipe', 'UA of women [95 %]', 'UA of men [95 %]', 'difference')

LEFT_OUT_HEADER = (
    'corpus left out', 'voice', 'women', 'men', 'UA of women', 'UA of men',
    'difference [95 %], points',
)  # fmt: skip


@dataclass(frozen=True)
class LeftOutGenders:
    """A corpus that a model was not trained on."""

    corpus: str
    speakers: dict[str, int]
    """Gender → how many."""
    conditions: dict[str, dict[str, Any]]
    """What is known of a voice → unweighted accuracy of each gender, their `difference`, and its 95 %
    bootstrap interval over speakers, `difference_interval`."""


def read_genders(folder: Path) -> list[LeftOutGenders]:
    """The corpora of the file in a folder of results, if it is there; SerError if it is none."""
    path = folder / FILE
    if not path.is_file():
        return []
    try:
        return [from_dict(LeftOutGenders, values) for values in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError, SerError) as error:
        raise SerError(f'{path} does not compare women and men: {error}') from error


def fold_rows(summaries: Sequence[Summary]) -> list[tuple[str, ...]]:
    """A row of each setting that was run on all folds."""
    rows = []
    for summary in summaries:
        run = summary.runs[0]
        groups = summary.pooled['metrics']['groups']['gender']
        if len(summary.folds) < run.n_folds or not set(GENDERS) <= groups.keys():
            continue
        women, men = (groups[gender] for gender in GENDERS)
        gap = women['unweighted_accuracy'] - men['unweighted_accuracy']
        rows.append(
            (f'`{run.name}`', with_interval(women), with_interval(men), difference_in_points(gap))
        )
    return rows


def left_out_rows(corpora: Sequence[LeftOutGenders]) -> list[tuple[str, ...]]:
    """A row of each corpus and condition."""
    return [
        (
            corpus.corpus,
            condition,
            *(str(corpus.speakers[gender]) for gender in GENDERS),
            *(percent(values[gender]) for gender in GENDERS),
            difference_in_points(values['difference'], values['difference_interval']),
        )
        for corpus in corpora
        for condition, values in corpus.conditions.items()
    ]
