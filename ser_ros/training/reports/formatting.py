"""How the reports write metrics: numbers, tables, and the rows that several of them share."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional


def percent(share: Optional[float]) -> str:
    """A share as a percentage; a dash for None."""
    return '–' if share is None else f'{share:.1%}'


def decimal(value: Optional[float]) -> str:
    """A number with three decimals; a dash for None."""
    return '–' if value is None else f'{value:.3f}'


def with_interval(metrics: Mapping[str, Any]) -> str:
    """Unweighted accuracy, with its interval if there is one."""
    accuracy, interval = metrics['unweighted_accuracy'], metrics['unweighted_accuracy_interval']
    if interval is None:
        return percent(accuracy)
    return f'{percent(accuracy)} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]'


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
