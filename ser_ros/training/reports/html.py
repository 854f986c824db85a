"""One HTML page a run: what was run, what it came to, and what it sounds like where it fails.

The page is made of plain values, `results`, which are also written as JSON beside it:

    title      of the page
    facts      label → text, number, list, or mapping (which the page folds)
    parts      name → what `evaluation.record_part` or `evaluation.pool` returns
    history    one row an epoch (epoch, train_loss, val_loss, val_accuracy); may be empty
"""

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
import soundfile
from jinja2 import Environment
from markupsafe import Markup

from ser_ros.audio import SAMPLE_RATE
from ser_ros.audio.sources import read_audio
from ser_ros.files import write_atomically
from ser_ros.training.evaluation.metrics import ClipResult
from ser_ros.training.reports import plots

TEMPLATE = Path(__file__).with_name('templates') / 'report.html.jinja'

N_HARDEST = 8
MAX_SECONDS = 6
"""Of a clip in the page: eight of them stay below two megabytes."""

Results = Mapping[str, Any]


def write_results(path: Path, results: Results) -> None:
    """Write the figures as JSON, whole or not at all."""
    write_atomically(path, json.dumps(results, ensure_ascii=False) + '\n')


def write_report(path: Path, results: Results, heard: Sequence[ClipResult] = ()) -> None:
    """Write the page, whole or not at all: one file that needs no other and no network.

    The hardest of the clips `heard` are in it with sound and spectrogram; they must be of the
    classes of the last part.
    """
    parts = results['parts']
    class_names = list(parts.values())[-1]['class_names']
    clips = [_clip(result, class_names) for result in hardest(heard, class_names)]
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        percent=percent,
        with_interval=with_interval,
        indented=lambda value: json.dumps(value, indent=2),
    )
    page = environment.from_string(TEMPLATE.read_text(encoding='utf-8')).render(
        title=results['title'],
        facts=results['facts'],
        parts=parts,
        summary=_summary([part['figures'] for part in parts.values()]),
        training=_training(results['history']),
        pictures={name: _pictures(part['figures']) for name, part in parts.items()},
        nonspeech_header=NONSPEECH_HEADER,
        nonspeech={name: nonspeech_rows(part['figures']) for name, part in parts.items()},
        clips=clips,
        clip_corpora=sorted({clip['corpus'] for clip in clips}),
        max_seconds=MAX_SECONDS,
        colors=plots.COLORS,
        ink=plots.INK,
        light_ink=plots.LIGHT_INK,
        # No text in it can end the element.
        json=Markup(json.dumps(results).replace('<', '\\u003c')),
    )
    write_atomically(path, page)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [header, ['---'] * len(header), *rows]
    return ['| ' + ' | '.join(map(str, line)) + ' |' for line in lines]


def percent(share: Optional[float]) -> str:
    """As the page writes it; a dash for None."""
    return '–' if share is None else f'{share:.1%}'


def decimal(value: Optional[float]) -> str:
    """The same with three decimals, no share."""
    return '–' if value is None else f'{value:.3f}'


def with_interval(part: Mapping[str, Any]) -> str:
    """Unweighted accuracy of one part's figures, and its interval where there is one."""
    accuracy, interval = part['unweighted_accuracy'], part['unweighted_accuracy_interval']
    if interval is None:
        return percent(accuracy)
    return f'{percent(accuracy)} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]'


SUMMARY: dict[str, Callable[[Mapping[str, Any]], str]] = {
    'clips': lambda part: str(part['clips']),
    'of them without audible speech': lambda part: str(part['unheard']),
    'speakers': lambda part: str(len(part['speakers'])),
    'unweighted accuracy': with_interval,
    'accuracy': lambda part: percent(part['accuracy']),
    'macro F1': lambda part: percent(part['macro_f1']),
    'calibration error': lambda part: decimal(part['calibration_error']),
    'calibration error by chance': lambda part: decimal(part['calibration_error_by_chance']),
    'calibration error of windows': lambda part: decimal(part['window_calibration_error']),
    'the same of windows': lambda part: decimal(part['window_calibration_error_by_chance']),
    'negative log-likelihood': lambda part: decimal(part['negative_log_likelihood']),
    'area under risk–coverage': lambda part: decimal(part['risk_coverage']['area']),
    'expressions given': lambda part: percent(part['coverage']),
    'right when given': lambda part: percent(part['expression_accuracy_when_given']),
}
"""Rows of the summary: label → how it is written, from the figures of one part."""


NONSPEECH_HEADER = ('sound', 'count', 'too uncertain', 'mean confidence', 'answered as a stream')


def nonspeech_rows(part: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of a table of what a bundle makes of sounds without a voice; none where it was not asked."""
    return [
        (
            name,
            str(row['count']),
            *(percent(row[key]) for key in ('rejected', 'confidence', 'answered')),
        )
        for name, row in part.get('nonspeech', {'rows': {}})['rows'].items()
    ]


def _summary(parts: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    return [(label, [write(part) for part in parts]) for label, write in SUMMARY.items()]


def hardest(results: Sequence[ClipResult], class_names: Sequence[str]) -> list[ClipResult]:
    """The clips of the highest loss, first those in which no speech was heard."""

    def loss(result: ClipResult) -> float:
        if not result.is_heard:
            return np.inf
        return -result.score[class_names.index(result.clip.emotion)]

    return sorted(results, key=loss, reverse=True)[:N_HARDEST]


def _clip(result: ClipResult, class_names: Sequence[str]) -> dict[str, Any]:
    clip = result.clip
    samples = read_audio(clip.path)[: MAX_SECONDS * SAMPLE_RATE]
    shares = np.exp(result.score).tolist() if result.is_heard else []
    probabilities = dict(zip(class_names, shares))
    return {
        'name': clip.name,
        'corpus': clip.corpus,
        'voice': clip.voice,
        'gender': clip.gender,
        'intensity': clip.intensity,
        'emotion': clip.emotion,
        'guess': max(probabilities, key=probabilities.get, default=None),
        'probabilities': probabilities,
        'picture': _picture('', f'Spectrogram of {clip.name}', plots.spectrogram(samples)),
        'sound': _data_uri('audio/flac', _flac(samples)),
    }


def _flac(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format='FLAC', subtype='PCM_16')
    return file.getvalue()


def _data_uri(kind: str, data: bytes) -> str:
    return f'data:{kind};base64,{base64.b64encode(data).decode()}'


def _picture(title: str, alt: str, figure: plots.Figure) -> dict[str, str]:
    uri = _data_uri('image/svg+xml', plots.svg(figure).encode())
    return {'title': title, 'alt': alt, 'uri': uri}


def _training(history: Sequence[Mapping[str, float]]) -> Optional[dict[str, str]]:
    if not history:
        return None
    alt = f'Loss and validation accuracy over {len(history)} epochs'
    return _picture('', alt, plots.history(history))


def _pictures(part: Mapping[str, Any]) -> list[dict[str, str]]:
    rows, columns = part['confusion']['rows'], part['confusion']['columns']
    if not part['unheard']:
        rows, columns = [row[:-1] for row in rows], columns[:-1]
    voices, overall = part['groups']['voice'], part['unweighted_accuracy']
    recalls = ', '.join(f'{name} {percent(c["recall"])}' for name, c in part['classes'].items())
    pictures = [
        _picture(
            'Confusion, clips',
            f'Confusion matrix in clips; {part["clips"]} in all',
            plots.confusion(rows, columns, normalised=False),
        ),
        _picture(
            'Confusion, normalised',
            f'Confusion matrix in percent of each true class; recalls: {recalls}',
            plots.confusion(rows, columns, normalised=True),
        ),
        _picture(
            'Classes',
            f'Precision, recall and F1 of each class; recalls: {recalls}',
            plots.classes(part['classes']),
        ),
    ]
    for kind, prefix in (('whole clips', ''), ('windows', 'window_')):
        if bins := part[f'{prefix}reliability']:
            error = decimal(part[f'{prefix}calibration_error'])
            pictures.append(
                _picture(
                    f'Reliability of {kind}',
                    f'Accuracy by confidence of {kind}; calibration error {error}',
                    plots.reliability(bins),
                )
            )
    pictures += [
        _picture(
            'Risk and coverage',
            'Share of wrong clips among the most certain ones; '
            f'all: {percent(1 - part["accuracy"])}',
            plots.risk_coverage(part['risk_coverage']),
        ),
        _picture(
            'Speakers',
            f'Unweighted accuracy of each of {len(voices)} speakers; all: {percent(overall)}',
            plots.groups(voices, overall),
        ),
    ]
    return pictures
