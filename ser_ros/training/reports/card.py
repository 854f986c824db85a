"""The model card that stands beside a bundle, written from what the bundle says of itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ser_ros import __version__
from ser_ros.bundle import Bundle, BundleInfo
from ser_ros.features import (
    FrontendConfig,
    MfccConfig,
    ResearchConfig,
    VggishConfig,
)
from ser_ros.files import write_atomically
from ser_ros.models import count_parameters
from ser_ros.stream.voice import can_stream
from ser_ros.training.reports.html import (
    NONSPEECH_HEADER,
    decimal,
    markdown_table,
    nonspeech_rows,
    percent,
    with_interval,
)

SPEECH = {
    'RAVDESS': 'actors who read two English sentences',
    'SAVEE': 'four men who read English sentences',
    'CREMA-D': 'actors who read twelve English sentences',
    'TESS': 'two women who read English words in one sentence',
    'EmoDB': 'actors who read ten German sentences',
    'BanglaSER': 'people who acted three Bengali sentences',
}
"""Whom one hears in a corpus."""

OWN_PARTS = ('validation', 'test')
"""Names of figures that are of the bundle's own corpora; all others are across corpora."""


def write_card(bundle: Bundle) -> Path:
    """Write `NAME.md` beside the bundle, whole or not at all; return its path."""
    path = bundle.path.with_suffix('.md')
    write_atomically(path, card(bundle))
    return path


def card(bundle: Bundle) -> str:
    """The card as Markdown."""
    info = bundle.info
    n_parameters = count_parameters(bundle.model)
    streamed = can_stream(bundle)
    lines = [
        f'# {bundle.path.stem}',
        '',
        f'`{info.architecture}`, {n_parameters:,} parameters; classes: '
        f'{", ".join(info.class_names)}.',
        '',
        f'Front-end: {_frontend(info.frontend)}.'
        + (f' Windows of up to {info.window:g} s.' if streamed else ''),
        '',
        '## What it is for',
        '',
        'A robot that adapts how it behaves to how it is spoken to. It was trained on '
        f'{_speech(info)}; on other voices, languages and spontaneous speech it is less right '
        'than the figures on its own corpora. It is no lie detector and no diagnosis, and must '
        'not decide anything about a person.',
        '',
        '## Data and licence',
        '',
    ]
    for corpus, parts in info.corpora.items():
        lines += [f'{corpus}, speakers:', '']
        lines += [f'- {part}: {", ".join(speakers)}' for part, speakers in parts.items()]
        lines.append('')
    lines += [
        f'Licence of the weights: {info.license}, as the data asks for: **not for commercial use**.'
        if '-NC' in info.license
        else f'Licence of the weights: {info.license}.',
        '',
        '## Figures',
        '',
        *_own_figures(info, streamed),
        *_foreign_figures(info),
        *_nonspeech(info),
        f'One seed ({info.seed}); temperature {info.temperature:.3f}; below a confidence of '
        f'{info.threshold:.3f} no expression is given.',
        '',
        f'This card was written by ser_ros {__version__}.',
        '',
    ]
    return '\n'.join(lines)


def _frontend(config: FrontendConfig) -> str:
    if isinstance(config, VggishConfig):
        return "VGGish's own, 64 log-mel bands at 16000 Hz in examples of 0.96 s"
    milliseconds = 1000 / config.sample_rate
    frames = (
        f'{config.win_length * milliseconds:.3g} ms windows every '
        f'{config.hop_length * milliseconds:.3g} ms'
    )
    if isinstance(config, ResearchConfig):
        return (
            f'log-mel at {config.sample_rate} Hz, {config.n_mels} mels, {frames}, of each clip '
            f'the {config.duration:g} s from {config.offset:g} s on, decibels relative to their '
            'maximum, standardised per bin'
        )
    what = f'log-mel at {config.sample_rate} Hz'
    if isinstance(config, MfccConfig):
        deltas = ('', ' with deltas', ' with deltas and their deltas')[config.deltas]
        what = f'{config.n_mfcc} MFCC{deltas} at {config.sample_rate} Hz'
    return (
        f'{what}, {config.n_mels} mels from {config.f_min:g} to {config.f_max:g} Hz, {frames}, '
        'fixed decibel reference, standardised per row'
    )


def _speech(info: BundleInfo) -> str:
    """The corpora and who speaks in them."""
    known = [f'{name} ({SPEECH[name]})' if name in SPEECH else name for name in info.corpora]
    return ' and '.join(known) or 'corpora that it does not name'


def _own_figures(info: BundleInfo, streamed: bool) -> list[str]:
    figures = {part: info.metrics[part] for part in OWN_PARTS if part in info.metrics}
    heard = (
        'Each clip was streamed through the recogniser as on the robot, between half a second of '
        'silence; its class is that of the mean log-probability of its longest windows.'
        if streamed
        else 'Each clip was classified as a whole.'
    )
    chosen = (
        'Temperature and threshold were chosen by the validation part. Then the model was trained '
        'once more, to the last epoch, on the validation speakers as well: their figures are of '
        'the weights before that.'
        if info.recipe.get('refit')
        else 'Epoch, temperature and threshold were chosen by the validation part.'
    )
    lines = [
        f'{heard} {_independence(info)} {chosen} The training did not hear the test part. UA is '
        "unweighted accuracy, the mean of the classes' recalls, with a 95 % bootstrap interval "
        'over speakers; ECE the expected calibration error in 15 bins.',
        '',
        *_table(figures),
        '',
    ]
    if len(info.corpora) > 1:
        rows = [
            (
                part,
                corpus,
                group['clips'],
                group['n_classes'],
                with_interval(group),
                percent(group['accuracy']),
            )
            for part, values in figures.items()
            for corpus, group in values['groups']['corpus'].items()
        ]
        header = ('part', 'corpus', 'clips', 'classes', 'UA', 'accuracy')
        lines += [*markdown_table(header, rows), '']
    for part, values in figures.items():
        recalls = ', '.join(f'{n} {c["recall"]:.0%}' for n, c in values['classes'].items())
        lines += [f'Recall of each class, {part}: {recalls}.', '']
    return lines


def _independence(info: BundleInfo) -> str:
    for corpus, parts in info.corpora.items():
        speakers = [speaker for part in parts.values() for speaker in part]
        if len(set(speakers)) < len(speakers):
            return f'**Not speaker-independent**: speakers of {corpus} are in several parts.'
    return 'No speaker is in two parts.'


def foreign_metrics(info: BundleInfo) -> dict[str, Any]:
    """What was recorded on corpora of which the bundle names no speaker."""
    return {name: info.metrics[name] for name in info.metrics if name not in OWN_PARTS}


def _foreign_figures(info: BundleInfo) -> list[str]:
    figures = foreign_metrics(info)
    if not figures:
        return []
    return [
        '### Across corpora',
        '',
        'Corpora of which the model that was measured heard no speaker in training; the guess is '
        'among the classes of both.',
        '',
        *_table(figures),
        '',
        *(f'- {name}: {values["protocol"]}.' for name, values in figures.items()),
        '',
    ]


def _nonspeech(info: BundleInfo) -> list[str]:
    """Of the last part of its own that it was measured beside."""
    figures = [
        info.metrics[part] for part in OWN_PARTS if 'nonspeech' in info.metrics.get(part, ())
    ]
    if not figures:
        return []
    return [
        '### Sounds without a voice',
        '',
        f'Of the model itself: {figures[-1]["nonspeech"]["protocol"]}. Too uncertain is what is '
        'below the threshold; answered, what any expression is given of where voice activity '
        'detection comes first, as on the robot.',
        '',
        *markdown_table(NONSPEECH_HEADER, nonspeech_rows(figures[-1])),
        '',
    ]


def _table(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    header = (
        'part', 'clips', 'speakers', 'UA', 'accuracy', 'macro F1', 'ECE', 'ECE of windows',
        'expressions given', 'right when given',
    )  # fmt: skip
    rows = [
        (
            part,
            values['clips'],
            len(values['speakers']),
            with_interval(values),
            percent(values['accuracy']),
            percent(values['macro_f1']),
            decimal(values['calibration_error']),
            decimal(values['window_calibration_error']),
            percent(values['coverage']),
            percent(values['expression_accuracy_when_given']),
        )
        for part, values in figures.items()
    ]
    return markdown_table(header, rows)
