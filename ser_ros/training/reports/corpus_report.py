"""The contents of a corpus, as counts and as one plot."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ser_ros.emotions import class_order
from ser_ros.files import printable
from ser_ros.training.data.corpora import Clip, Corpus

UNKNOWN = 'unknown'
"""Gender or intensity of a clip if the corpus does not state it."""
GENDERS = ('female', 'male', UNKNOWN)
INTENSITIES = ('low', 'normal', 'medium', 'strong', 'high')
COLORS = {'female': 'tab:purple', 'male': 'tab:green', UNKNOWN: 'tab:gray'}


def describe(corpus: Corpus) -> dict[str, Any]:
    """Counts and lengths of the usable clips, and the faulty files, as plain values."""
    clips = corpus.clips
    emotions = class_order(clip.emotion for clip in clips)
    durations = [clip.duration for clip in clips]
    problems: dict[str, dict[str, Any]] = {}
    unused = {problem.reason for problem in corpus.problems if not problem.is_used}
    for problem in corpus.problems:
        is_mild = problem.is_used and problem.reason in unused
        reason = f'{problem.reason}, yet used' if is_mild else problem.reason
        alike = problems.setdefault(reason, {'is_used': problem.is_used, 'files': {}})
        details = [alike['files'].get(name := printable(problem.path)), problem.detail]
        alike['files'][name] = '; '.join(filter(None, details))
    return {
        'name': corpus.name,
        'clips': len(clips),
        'emotions': _count(clips, 'emotion', emotions),
        'genders': _table(clips, emotions, 'gender', GENDERS),
        'intensities': _table(clips, emotions, 'intensity', _intensities(clips)),
        'speakers': _count(clips, 'speaker', sorted({clip.speaker for clip in clips})),
        'speaker_genders': {clip.speaker: clip.gender for clip in clips},
        'seconds': {
            'shortest': min(durations),
            'median': float(np.median(durations)),
            'longest': max(durations),
            'total': sum(durations),
        },
        'labels': corpus.labels,
        'collisions': corpus.collisions(),
        'problems': problems,
    }


def _intensities(clips: Sequence[Clip]) -> list[str]:
    others = {clip.intensity or UNKNOWN for clip in clips} - {*INTENSITIES, UNKNOWN}
    return [*INTENSITIES, *sorted(others), UNKNOWN]


def _count(clips: Sequence[Clip], field: str, values: Sequence[str]) -> dict[str, int]:
    """Value of a field → number of clips, in the order of `values`."""
    counts = Counter(getattr(clip, field) or UNKNOWN for clip in clips)
    return {value: counts[value] for value in values}


def _table(
    clips: Sequence[Clip], emotions: Sequence[str], field: str, values: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Emotion → value of a field → number of clips, for the values that clips have."""
    present = [value for value, count in _count(clips, field, values).items() if count]
    return {
        emotion: _count([clip for clip in clips if clip.emotion == emotion], field, present)
        for emotion in emotions
    }


def corpus_figure(corpus: Corpus) -> Figure:
    """Clips per emotion by gender, per emotion by intensity, per speaker, and their lengths."""
    contents = describe(corpus)
    figure = Figure(figsize=(12, 9), dpi=120, layout='constrained')
    (by_gender, by_intensity), (by_speaker, lengths) = figure.subplots(2, 2)
    total = contents['seconds']['total'] / 60
    figure.suptitle(
        f'{corpus.name}: {len(corpus.clips)} clips of {len(contents["speakers"])} speakers, '
        f'{total:.0f} minutes'
    )
    _stacked_bars(by_gender, contents['genders'], COLORS)
    by_gender.set(title='emotion and gender', ylabel='clips')
    _stacked_bars(by_intensity, contents['intensities'], {})
    by_intensity.set(title='emotion and intensity', ylabel='clips')
    speakers = contents['speakers']
    colors = [COLORS[contents['speaker_genders'][name] or UNKNOWN] for name in speakers]
    by_speaker.bar(range(len(speakers)), list(speakers.values()), color=colors)
    by_speaker.set(title='speaker (colours as above)', ylabel='clips')
    _label_bars(by_speaker, list(speakers))
    lengths.hist([clip.duration for clip in corpus.clips], bins=30)
    lengths.set(title='length', xlabel='seconds', ylabel='clips')
    for axes in (by_gender, by_intensity, by_speaker, lengths):
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _stacked_bars(axes: Axes, table: dict[str, dict[str, int]], colors: dict[str, str]) -> None:
    """One bar for each row of the table, one layer for each column."""
    bottom = np.zeros(len(table))
    for column in next(iter(table.values())):
        heights = np.array([row[column] for row in table.values()])
        axes.bar(range(len(table)), heights, bottom=bottom, label=column, color=colors.get(column))
        bottom += heights
    _label_bars(axes, list(table))
    axes.set_ylim(0, 1.2 * bottom.max())  # room for the legend
    axes.legend(loc='upper center', ncols=3)


def _label_bars(axes: Axes, names: Sequence[str]) -> None:
    crowded = len(names) > 12
    axes.set_xticks(
        range(len(names)), names, rotation=90 if crowded else 0, fontsize=7 if crowded else None
    )
