"""The HTML report of a run: facts, metrics, plots, and the hardest clips with their sound.

The page is rendered from plain values, `results`, which are also written as JSON beside it:

    title      title of the page
    facts      label → text, number, list, or mapping (which the page collapses)
    subsets    name → what `metrics.subset_results` or `metrics.pool_subsets` returns; may be empty
    history    one row an epoch (epoch, train_loss, val_loss, val_accuracy); may be empty
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
import soundfile
from jinja2 import Environment
from markupsafe import Markup

from ser_ros.audio import SAMPLE_RATE
from ser_ros.files import write_atomically
from ser_ros.training.evaluation.clip_result import ClipResult
from ser_ros.training.reports import plots
from ser_ros.training.reports.formatting import (
    CLASSES_HEADER,
    CONDITIONS_HEADER,
    KNOWN_VOICES,
    MEANINGS,
    NONSPEECH_HEADER,
    SUMMARY,
    class_rows,
    condition_rows,
    decimal,
    known_voices,
    nonspeech_rows,
    percent,
    with_interval,
)

TEMPLATE = Path(__file__).with_name('templates') / 'report.html.jinja'

N_HARDEST = 8
MAX_SECONDS = 6
"""Length of a clip's sound in the page: eight of them stay below two megabytes."""

Results = Mapping[str, Any]


def write_results(path: Path, results: Results) -> None:
    """Write the results as JSON, completely or not at all."""
    write_atomically(path, json.dumps(results, ensure_ascii=False) + '\n')


def write_report(path: Path, results: Results, clip_results: Sequence[ClipResult] = ()) -> None:
    """Write the page, completely or not at all: one file that needs no other and no network.

    It contains sound and spectrogram of the hardest of `clip_results`, which must have the
    classes of the last subset.
    """
    subsets = results['subsets']
    class_names = next(reversed(subsets.values()), {'class_names': ()})['class_names']
    clips = [_clip(result, class_names) for result in hardest(clip_results, class_names)]
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        percent=percent,
        indented=lambda value: json.dumps(value, indent=2),
    )
    summary = _summary([subset['metrics'] for subset in subsets.values()])
    page = environment.from_string(TEMPLATE.read_text(encoding='utf-8')).render(
        title=results['title'],
        facts=results['facts'],
        subsets=subsets,
        summary=summary,
        training=_training(results['history']),
        plots={name: _plots(subset['metrics']) for name, subset in subsets.items()},
        meanings={label: MEANINGS[label] for label, *_ in summary if label in MEANINGS},
        classes_header=CLASSES_HEADER,
        classes={name: class_rows(subset['metrics']) for name, subset in subsets.items()},
        groups_header=GROUPS_HEADER,
        groups={name: _groups(subset['metrics']) for name, subset in subsets.items()},
        nonspeech_header=NONSPEECH_HEADER,
        nonspeech={name: nonspeech_rows(subset['metrics']) for name, subset in subsets.items()},
        conditions_header=CONDITIONS_HEADER,
        conditions={name: condition_rows(subset['metrics']) for name, subset in subsets.items()},
        clips=clips,
        clip_corpora=sorted({clip['corpus'] for clip in clips}),
        max_seconds=MAX_SECONDS,
        colors=plots.colors_of(class_names),
        ink=plots.INK,
        light_ink=plots.LIGHT_INK,
        # Escaped, so that no text in it ends the script element.
        json=Markup(json.dumps(results).replace('<', '\\u003c')),
    )
    write_atomically(path, page)


GROUPS_HEADER = ('speakers', 'clips', 'unweighted accuracy', 'accuracy')


def _groups(metrics: Mapping[str, Any]) -> dict[str, list[tuple[str, ...]]]:
    """What the clips are divided by, but for voices → a row for each value."""
    return {
        attribute.replace('_', ' '): [
            (
                value,
                str(group['speakers']),
                str(group['clips']),
                with_interval(group),
                percent(group['accuracy']),
            )
            for value, group in groups.items()
        ]
        for attribute, groups in metrics['groups'].items()
        if groups and attribute != 'voice'
    }


def _summary(subsets: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    rows = {label: [write(metrics) for metrics in subsets] for label, write in SUMMARY.items()}
    if any('known_voices' in metrics for metrics in subsets):
        rows[KNOWN_VOICES] = [known_voices(metrics) for metrics in subsets]
    return [[label, *cells] for label, cells in rows.items()]


def hardest(results: Sequence[ClipResult], class_names: Sequence[str]) -> list[ClipResult]:
    """The clips with the highest loss; those without detected speech come first."""

    def loss(result: ClipResult) -> float:
        if not result.has_speech:
            return np.inf
        return -result.score[class_names.index(result.clip.emotion)]

    return sorted(results, key=loss, reverse=True)[:N_HARDEST]


def _clip(result: ClipResult, class_names: Sequence[str]) -> dict[str, Any]:
    clip = result.clip
    samples = clip.read()[: MAX_SECONDS * SAMPLE_RATE]
    shares = np.exp(result.score).tolist() if result.has_speech else []
    probabilities = dict(zip(class_names, shares))
    return {
        'name': clip.name,
        'corpus': clip.corpus,
        'voice': clip.voice,
        'gender': clip.gender,
        'intensity': clip.intensity,
        'emotion': clip.emotion,
        'prediction': max(probabilities, key=probabilities.get, default=None),
        'probabilities': probabilities,
        'plot': _plot('', f'Spectrogram of {clip.name}', plots.spectrogram(samples)),
        'sound': _data_uri('audio/flac', _flac(samples)),
    }


def _flac(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format='FLAC', subtype='PCM_16')
    return file.getvalue()


def _data_uri(kind: str, data: bytes) -> str:
    return f'data:{kind};base64,{base64.b64encode(data).decode()}'


def _plot(title: str, alt: str, figure: plots.Figure) -> dict[str, str]:
    uri = _data_uri('image/svg+xml', plots.svg(figure).encode())
    return {'title': title, 'alt': alt, 'uri': uri}


def _training(history: Sequence[Mapping[str, float]]) -> Optional[dict[str, str]]:
    if not history:
        return None
    alt = f'Loss and validation accuracy over {len(history)} epochs'
    return _plot('', alt, plots.history(history))


def _plots(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    rows, columns = metrics['confusion']['rows'], metrics['confusion']['columns']
    if not metrics['no_speech']:
        rows, columns = [row[:-1] for row in rows], columns[:-1]
    voices, overall = metrics['groups']['voice'], metrics['unweighted_accuracy']
    recalls = ', '.join(f'{name} {percent(c["recall"])}' for name, c in metrics['classes'].items())
    made = [
        _plot(
            'Confusion, clips',
            f'Confusion matrix in clips; {metrics["clips"]} in all',
            plots.confusion(rows, columns, normalised=False),
        ),
        _plot(
            'Confusion, normalised',
            f'Confusion matrix in percent of each true class; recalls: {recalls}',
            plots.confusion(rows, columns, normalised=True),
        ),
        _plot(
            'Classes',
            f'Precision, recall and F1 of each class; recalls: {recalls}',
            plots.classes(metrics['classes']),
        ),
    ]
    for kind, prefix in (('whole clips', ''), ('windows', 'window_')):
        if bins := metrics[f'{prefix}reliability']:
            error = decimal(metrics[f'{prefix}calibration_error'])
            made.append(
                _plot(
                    f'Reliability of {kind}',
                    f'Accuracy by confidence of {kind}; calibration error {error}',
                    plots.reliability(bins),
                )
            )
    made += [
        _plot(
            'Risk and coverage',
            'Share of wrong clips among the most certain ones; '
            f'all: {percent(1 - metrics["accuracy"])}',
            plots.risk_coverage(metrics['risk_coverage']),
        ),
        _plot(
            'Speakers',
            f'Unweighted accuracy of each of {len(voices)} speakers; all: {percent(overall)}',
            plots.groups(voices, overall),
        ),
    ]
    if conditions := metrics.get('conditions'):
        accuracies = ', '.join(
            f'{name} {percent(row["unweighted_accuracy"])}'
            for name, row in conditions['rows'].items()
        )
        made.append(
            _plot(
                'Conditions',
                f'Metrics under each condition; unweighted accuracy: {accuracies}',
                plots.conditions(conditions['rows']),
            )
        )
    return made
