"""How the reports write metrics: numbers, tables, and the rows that several of them share."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Optional


def percent(share: Optional[float]) -> str:
    """A share as a percentage; a dash for None."""
    return '–' if share is None else f'{share:.1%}'


def decimal(value: Optional[float]) -> str:
    """A number with three decimals; a dash for None."""
    return '–' if value is None else f'{value:.3f}'


def with_interval(metrics: Mapping[str, Any]) -> str:
    """Unweighted accuracy, with its interval if there is one."""
    return _bracketed(
        percent(metrics['unweighted_accuracy']),
        _points(metrics['unweighted_accuracy_interval']),
        '{:.1f}',
    )


def mean_deviation(shares: Sequence[float]) -> str:
    """Their mean, and of several the standard deviation (n - 1): `60.0% ± 1.2`."""
    deviation = f' ± {100 * statistics.stdev(shares):.1f}' if len(shares) > 1 else ''
    return percent(statistics.mean(shares)) + deviation


def _points(shares: Optional[Sequence[float]]) -> Optional[list[float]]:
    return shares and [100 * share for share in shares]


def difference_in_points(difference: float, interval: Optional[Sequence[float]] = None) -> str:
    """A difference of two shares: `+1.5 [+0.2, +2.8]`."""
    return _bracketed(f'{100 * difference:+.1f}', _points(interval), '{:+.1f}')


def _bracketed(text: str, interval: Optional[Sequence[float]], form: str) -> str:
    """A value with its interval, if there is one."""
    return text if interval is None else f'{text} [{", ".join(form.format(i) for i in interval)}]'


def calibration_errors(metrics: Mapping[str, Any], key: str = 'calibration_error') -> str:
    """Expected calibration error of clips and of windows; a dash for None."""
    return ' / '.join(decimal(metrics[name]) for name in (key, f'window_{key}'))


def speakers(metrics: Mapping[str, Any]) -> str:
    """Speakers by name, their number if there are many; the corpus only if there are several."""
    voices = [voice.split(':', 1) for voice in metrics['speakers']]
    if len(voices) > 8:
        return f'{len(voices)} speakers'
    if len({corpus for corpus, _ in voices}) == 1:
        return ' '.join(speaker for _, speaker in voices)
    return ' '.join(':'.join(voice) for voice in voices)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [header, ['---'] * len(header), *rows]
    return ['| ' + ' | '.join(map(str, line)) + ' |' for line in lines]


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table for the terminal."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return ['  '.join(map(str.ljust, line, widths)).rstrip() for line in lines]


SUMMARY: dict[str, Callable[[Mapping[str, Any]], str]] = {
    'clips': lambda metrics: str(metrics['clips']),
    'clips without detected speech': lambda metrics: str(metrics['no_speech']),
    'speakers': lambda metrics: str(len(metrics['speakers'])),
    'unweighted accuracy': with_interval,
    'accuracy': lambda metrics: percent(metrics['accuracy']),
    'macro F1': lambda metrics: percent(metrics['macro_f1']),
    'calibration error': lambda metrics: decimal(metrics['calibration_error']),
    'calibration error by chance': lambda metrics: decimal(metrics['calibration_error_by_chance']),
    'window calibration error': lambda metrics: decimal(metrics['window_calibration_error']),
    'window calibration error by chance': lambda metrics: decimal(
        metrics['window_calibration_error_by_chance']
    ),
    'negative log-likelihood': lambda metrics: decimal(metrics['negative_log_likelihood']),
    'area under risk–coverage': lambda metrics: decimal(metrics['risk_coverage']['area']),
    'expressions decided': lambda metrics: percent(metrics['coverage']),
    'right when decided': lambda metrics: percent(metrics['expression_accuracy_when_decided']),
}
"""Rows of the summary of a subset: label → text from its metrics."""

KNOWN_VOICES = 'unweighted accuracy, known voices'
"""Label of `known_voices`."""


def known_voices(metrics: Mapping[str, Any]) -> str:
    """Unweighted accuracy for known voices, and of the same utterances without adaptation."""
    if not (known := metrics.get('known_voices')):
        return '–'
    return f'{with_interval(known["adapted"])} ({with_interval(known["unadapted"])})'


MEANINGS = {
    'clips without detected speech': 'Nothing is predicted for them: they count as wrong.',
    'unweighted accuracy': "Mean of the classes' recalls. Brackets: 95 % bootstrap interval over "
    'speakers.',
    KNOWN_VOICES: 'Of the utterances from the eleventh of a voice on, adapted to those before; in '
    'round brackets the same utterances without adaptation.',
    'macro F1': "Mean of the classes' F1 scores.",
    'calibration error': 'Mean difference between confidence and accuracy of clips, over 15 bins '
    'of confidence.',
    'calibration error by chance': 'What a perfectly calibrated model is expected to have with as '
    'many clips.',
    'window calibration error': 'The calibration error of the windows that the stream classifies, '
    'of which a clip has several; by chance: as for clips.',
    'area under risk–coverage': 'Mean share of wrong predictions among the most certain 1 %, 2 %, '
    '… of the clips; 0 is best.',
    'expressions decided': 'Share of the utterances whose most probable expression leads the next one '
    'by the threshold or more; for the others a robot receives no expression.',
    'right when decided': 'Share of right expressions among those that are decided.',
}
"""What rows of the summary mean, for those who do not know them."""

CLASSES_HEADER = ('class', 'clips', 'precision', 'recall', 'F1')


def class_rows(metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of the table of a subset's classes."""
    return [
        (name, str(row['clips']), *(percent(row[key]) for key in ('precision', 'recall', 'f1')))
        for name, row in metrics['classes'].items()
    ]


NONSPEECH_HEADER = ('sound', 'count', 'too uncertain', 'mean confidence', 'decided in a stream')


def nonspeech_rows(metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of the table of sounds without a voice; none if a subset was evaluated without them."""
    return [
        (
            name,
            str(row['count']),
            *(percent(row[key]) for key in ('rejected', 'confidence', 'answered')),
        )
        for name, row in metrics.get('nonspeech', {'rows': {}})['rows'].items()
    ]


GROUPS_HEADER = ('by', 'group', 'speakers', 'clips', 'classes', 'UA', 'accuracy')


def group_rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Rows of the table of a subset's groups: what its clips are divided by, but for voices."""
    for attribute, groups in metrics['groups'].items():
        if attribute != 'voice' and len(groups) > 1:
            for value, group in groups.items():
                yield (
                    attribute.replace('_', ' '),
                    value,
                    str(group.get('speakers', '–')),  # bundles of 0.1.0 lack it
                    str(group['clips']),
                    str(group['n_classes']),
                    with_interval(group),
                    percent(group['accuracy']),
                )


CONDITIONS_HEADER = (
    'condition', 'UA', 'change of UA', 'no speech detected', 'expressions decided',
    'right when decided', 'ECE',
)  # fmt: skip


def condition_rows(metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of the table of conditions; none if a subset was evaluated without them."""
    return [
        (
            name,
            with_interval(row),
            _change(row),
            percent(row['no_speech'] / row['clips']),
            percent(row['coverage']),
            percent(row['expression_accuracy_when_decided']),
            decimal(row['calibration_error']),
        )
        for name, row in metrics.get('conditions', {'rows': {}})['rows'].items()
    ]


def _change(row: Mapping[str, Any]) -> str:
    if row['accuracy_change'] is None:
        return '–'
    return difference_in_points(row['accuracy_change'], row['accuracy_change_interval'])


FALSE_EXPRESSIONS_HEADER = (
    'sound', 'files', 'minutes', 'utterances', 'emotions per hour', 'expressions per hour'
)  # fmt: skip


def false_expression_rows(metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of the table of false expressions."""
    return [
        (
            name,
            str(row['files']),
            f'{row["seconds"] / 60:.1f}',
            str(row['utterances']),
            *(
                _bracketed(
                    f'{row[f"{kind}_per_hour"]:.1f}', row[f'{kind}_per_hour_interval'], '{:.1f}'
                )
                for kind in ('emotions', 'expressions')
            ),
        )
        for name, row in metrics['rows'].items()
    ]
