"""The model card beside a bundle, written from the bundle's metadata."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ser_ros import SerError, __version__
from ser_ros.bundle import Bundle, save_bundle
from ser_ros.bundle_info import BundleInfo
from ser_ros.files import write_atomically
from ser_ros.frontend_config import (
    FrontendConfig,
    MfccConfig,
    ResearchConfig,
    SpeechEncoderConfig,
    VggishConfig,
)
from ser_ros.models import count_parameters
from ser_ros.training.data.splits import QUICK, QUICK_MEANS
from ser_ros.training.reports.formatting import (
    CONDITIONS_HEADER,
    FALSE_EXPRESSIONS_HEADER,
    GROUPS_HEADER,
    NONSPEECH_HEADER,
    condition_rows,
    decimal,
    false_expression_rows,
    group_rows,
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
    'nEMO': 'actors who read ninety Polish sentences',
    'Indian-EmoSpeech-Command': 'people who called single words in Hindi and English at home',
    'emotiontts_open_db': 'actors of Korean dialogues for robots',
    'EmoGator': 'people who recorded laughs, sobs, screams and other bursts without words',
}
"""Who speaks in a corpus, and what."""

OWN_SUBSETS = ('validation', 'test')
"""Names of metrics on the bundle's own corpora."""

MOST_NAMED = 40
"""Speakers of a subset that are named; of more only their number is stated."""

UNEVALUATED = 'Not evaluated on its own corpora yet: `evaluate --record` adds the metrics.'

FALSE_EXPRESSIONS = 'false_expressions'
"""Name of metrics on sound in which no emotion is meant; all other names are other corpora."""


def record_metrics(bundle: Bundle, metrics: Mapping[str, Any]) -> None:
    """Add metrics to those in the bundle, replacing any of the same names, and write its card.

    SerError as for `write_card`; then nothing is changed on disk.
    """
    recorded = {**bundle.info.metrics, **metrics}
    bundle.info = dataclasses.replace(bundle.info, metrics=recorded)
    write_card(bundle)  # first: it refuses metrics of another version
    save_bundle(bundle.path, bundle.info, bundle.frontend, bundle.model, bundle.programs)


def write_card(bundle: Bundle) -> Path:
    """Write `NAME.md` beside the bundle, completely or not at all; return its path.

    Raises SerError for a bundle whose metrics were recorded by a version with other names of them.
    """
    path = bundle.path.with_suffix('.md')
    try:
        text = card(bundle)
    except KeyError as error:
        raise SerError(
            f'bundle {bundle.path}: its metrics lack {error}, because another version of ser_ros '
            'recorded them; train it again'
        ) from error
    write_atomically(path, text)
    return path


def card(bundle: Bundle) -> str:
    """The card as Markdown."""
    info = bundle.info
    n_parameters = count_parameters(bundle.model)
    streamed = bundle.info.can_stream
    lines = [
        f'# {bundle.path.stem}',
        '',
        *_quick(info),
        f'`{info.architecture}`, {n_parameters:,} parameters; classes: '
        f'{", ".join(info.class_names)}.',
        '',
        *_own_classes(info),
        f'Front-end: {_frontend(info.frontend)}.'
        + (f' Windows of up to {info.window:g} s.' if streamed else ''),
        '',
        '## What it is for',
        '',
        'A robot that adapts how it behaves to how it is spoken to. It was trained on '
        f'{_speech(info)}; with other voices, languages and spontaneous speech it is less '
        'accurate than the metrics on its own corpora state. It is no lie detector and no '
        'diagnosis, and must not decide anything about a person.',
        '',
        '## Data and licence',
        '',
    ]
    for corpus, subsets in info.corpora.items():
        lines += [f'{corpus}, speakers:', '']
        lines += [f'- {subset}: {_names(s)}' for subset, s in subsets.items() if s]
        lines.append('')
    if start := info.recipe.get('pretrained'):
        lines += [f'Weights at the start of the training: `{Path(start).name}`.', '']
    if teacher := info.recipe.get('distillation', {}).get('teacher'):
        lines += [f'Teacher, whose probabilities were targets: `{Path(teacher).name}`.', '']
    lines += [
        f'Licence of the weights: {info.license}, as the data requires: **not for commercial use**.'
        if '-NC' in info.license
        else f'Licence of the weights: {info.license}.',
        '',
        *_adaptation(info),
        '## Metrics',
        '',
        *_own_metrics(info, streamed),
        *_foreign_metrics(info),
        *trust(info),
        *_nonspeech(info),
        f'One seed ({info.seed}); temperature {info.temperature:.3f}; if the most probable '
        f'expression leads the next one by less than {info.threshold:.3f}, none is decided.',
        '',
        f'This card was written by ser_ros {__version__}.',
        '',
    ]
    return '\n'.join(lines)


def _names(speakers: Sequence[str]) -> str:
    if len(speakers) > MOST_NAMED:
        return f'{len(speakers)} speakers, whom the metadata in the bundle names'
    return ', '.join(speakers)


def _own_classes(info: BundleInfo) -> list[str]:
    """What the classes mean that not every bundle can have."""
    rows = [
        (name, emotion.expression, emotion.valence, emotion.arousal, emotion.source)
        for name, emotion in info.classes.items()
    ]
    header = ('class', 'expression', 'valence', 'arousal', 'source of valence and arousal')
    return [*markdown_table(header, rows), ''] if rows else []


def _quick(info: BundleInfo) -> list[str]:
    if not info.recipe.get('quick'):
        return []
    return [f'**{QUICK}**: {QUICK_MEANS}.', '']


def _frontend(config: FrontendConfig) -> str:
    if isinstance(config, VggishConfig):
        return "VGGish's own, 64 log-mel bands at 16000 Hz in examples of 0.96 s"
    if isinstance(config, SpeechEncoderConfig):
        return (
            'the two convolutions in front of a speech encoder (Whisper tiny, as trained further for '
            'Smart Turn 3.2; 535,296 parameters, not trained here), at 16000 Hz, 80 mels, mean and '
            'deviation of 384 channels'
        )
    milliseconds = 1000 / config.sample_rate
    frames = (
        f'{config.win_length * milliseconds:.3g} ms windows every '
        f'{config.hop_length * milliseconds:.3g} ms'
    )
    if isinstance(config, ResearchConfig):
        return (
            f'log-mel at {config.sample_rate} Hz, {config.n_mels} mels, {frames}, for the '
            f'{config.duration:g} s of each clip that begin at {config.offset:g} s, decibels '
            'relative to their maximum, standardised per bin'
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
    return '; '.join(known) or 'corpora that its metadata does not name'


def _adaptation(info: BundleInfo) -> list[str]:
    adaptation = info.adaptation
    if not adaptation.adapts:
        return []
    means = 'mean features and answers' if adaptation.by_voice else 'mean answers'
    return [
        '## How it adapts',
        '',
        f'A voice is compared with how it usually sounds: with the {means} of its '
        f'earlier utterances, which count for half after {adaptation.memory:g} of them; '
        f'{adaptation.neutral_share:.0%} of the utterances are expected to be neutral, and '
        'disgusted, scared and surprised ones, each, '
        f'{adaptation.rare_ratio:g} times as frequent as those of another expression. Nothing is '
        'stored on disk. **For a voice that has one emotion only, the model is less accurate with '
        'adaptation than without**: for such voices switch it off, or enrol them. '
        '[Results](../docs/RESULTS.md) has by how much. The metrics of clips below are without '
        'adaptation: each clip is of an unknown voice.',
        '',
    ]


def _own_metrics(info: BundleInfo, streamed: bool) -> list[str]:
    metrics = {subset: info.metrics[subset] for subset in OWN_SUBSETS if subset in info.metrics}
    chosen = (
        'Temperature and threshold are not chosen yet: `calibrate` does it.'
        if info.calibration == 'nothing'
        else f'Temperature and threshold were chosen on {info.calibration}.'
    )
    method = (
        'Each clip was streamed through the recogniser as on the robot, between half a second of '
        'silence; its class is the one with the highest mean log-probability over its longest '
        'windows.'
        if streamed
        else 'Each clip was classified as a whole.'
    )
    if info.recipe.get('refit'):
        chosen += (
            ' Then the model was trained again from the start, to the last epoch, with the '
            'validation speakers as well: their metrics are those of the weights before that.'
        )
    elif 'validation' in metrics:
        chosen += ' The epoch was chosen on the validation set.'
    lines = [
        f'{method} {_independence(info)} {chosen} The test set was not used in training. UA is '
        "unweighted accuracy, the mean of the classes' recalls, with a 95 % bootstrap interval "
        'over speakers; ECE is the expected calibration error in 15 bins.',
        '',
        *(_table(metrics) if metrics else [UNEVALUATED]),
        '',
    ]
    for subset, values in metrics.items():
        recalls = ', '.join(f'{n} {c["recall"]:.0%}' for n, c in values['classes'].items())
        lines += [f'Recall of each class, {subset}: {recalls}.', '']
    return lines


def _independence(info: BundleInfo) -> str:
    for metrics in info.metrics.values():
        if (protocol := metrics.get('protocol', '')).startswith('NOT '):
            return f'**Not{protocol.removeprefix("NOT")}**.'
    for corpus, subsets in info.corpora.items():
        speakers = [speaker for subset in subsets.values() for speaker in subset]
        if len(set(speakers)) < len(speakers):
            return f'**Not speaker-independent**: speakers of {corpus} are in several subsets.'
    return 'No speaker is in two subsets.'


def foreign_metrics(info: BundleInfo) -> dict[str, Any]:
    """The recorded metrics on corpora of which the bundle names no speaker."""
    others = (*OWN_SUBSETS, FALSE_EXPRESSIONS)
    return {name: metrics for name, metrics in info.metrics.items() if name not in others}


def _foreign_metrics(info: BundleInfo) -> list[str]:
    metrics = foreign_metrics(info)
    if not metrics:
        return []
    return [
        '### Across corpora',
        '',
        'Corpora that the evaluated model was not trained on. UA, accuracy, F1 and ECE are of '
        'predictions restricted to the classes that the model and the corpus have in common; the '
        'last two columns are of decisions among all classes, as a robot makes them.',
        '',
        *_table(metrics),
        '',
        *(f'- {name}: {values["protocol"]}.' for name, values in metrics.items()),
        '',
    ]


def _subsets(info: BundleInfo) -> dict[str, Any]:
    """The recorded metrics of all subsets, its own first."""
    own = {name: info.metrics[name] for name in OWN_SUBSETS if name in info.metrics}
    return {**own, **foreign_metrics(info)}


def trust(info: BundleInfo) -> list[str]:
    """The sections by group, under conditions, and of false expressions, if they are recorded."""
    return [*_groups(info), *_conditions(info), *_false_expressions(info)]


def _groups(info: BundleInfo) -> list[str]:
    rows = [
        (name, *row) for name, metrics in _subsets(info).items() for row in group_rows(metrics)
    ]
    if not rows:
        return []
    return [
        '### By group',
        '',
        'Clips whose corpus does not state the gender or the age of the speaker are in no row of '
        'these. The interval of fewer than about ten speakers is too narrow: it knows only how these '
        'differ. Of one speaker there is none.' + _dominant_speakers(info),
        '',
        *markdown_table(('subset', *GROUPS_HEADER), rows),
        '',
    ]


DOMINANT = 1 / 3
"""Share of a corpus's clips from which on the speaker of so many is named."""


def _dominant_speakers(info: BundleInfo) -> str:
    """Sentences about speakers whose clips are a large part of a corpus with several."""
    sentences = []
    for name, metrics in _subsets(info).items():
        groups = metrics.get('groups', {})
        for corpus, whole in groups.get('corpus', {}).items():
            own = {
                voice: row['clips']
                for voice, row in groups.get('voice', {}).items()
                if voice.startswith(f'{corpus}:')
            }
            largest = max(own, key=own.get, default=None)
            if largest and len(own) > 3 and own[largest] > DOMINANT * whole['clips']:
                sentences.append(
                    f' {own[largest]} of the {whole["clips"]} clips of {corpus} ({name}) are of one '
                    f'speaker, {largest.partition(":")[2]}.'
                )
    return ''.join(sentences)


def _conditions(info: BundleInfo) -> list[str]:
    """The tables of all subsets that were evaluated under conditions."""
    lines = []
    for name, metrics in _subsets(info).items():
        if rows := condition_rows(metrics):
            protocol = _capitalised(metrics['conditions']['protocol'])
            lines += [f'{name}. {protocol}.', '', *markdown_table(CONDITIONS_HEADER, rows), '']
    if not lines:
        return []
    return [
        '### Under conditions',
        '',
        'The same clips, changed before they are streamed. The change of UA is in points, with a '
        '95 % bootstrap interval that is paired: it draws the same speakers for both.',
        '',
        *lines,
    ]


def _nonspeech(info: BundleInfo) -> list[str]:
    """The table of the last of its own subsets that was evaluated with such sounds."""
    metrics = [
        info.metrics[name] for name in OWN_SUBSETS if 'nonspeech' in info.metrics.get(name, ())
    ]
    if not metrics:
        return []
    return [
        '### Sounds without a voice',
        '',
        f'{_capitalised(metrics[-1]["nonspeech"]["protocol"])}. "Too uncertain" is the share below '
        'the threshold; "decided in a stream" is the share for which an expression is decided when '
        'the sound is streamed, with voice activity detection, as on the robot.',
        '',
        *markdown_table(NONSPEECH_HEADER, nonspeech_rows(metrics[-1])),
        '',
    ]


def _false_expressions(info: BundleInfo) -> list[str]:
    if not (metrics := info.metrics.get(FALSE_EXPRESSIONS)):
        return []
    return [
        '### False expressions',
        '',
        f'Sound in which no emotion is meant: {metrics["protocol"]}. Emotions are the expressions '
        'other than neutral. Brackets: 95 % Poisson interval, which is too narrow where many of '
        'the expressions come from few voices or machines.',
        '',
        *markdown_table(FALSE_EXPRESSIONS_HEADER, false_expression_rows(metrics)),
        '',
    ]


def _capitalised(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _table(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    header = (
        'subset', 'clips', 'speakers', 'UA', 'accuracy', 'macro F1', 'ECE', 'ECE of windows',
        'expressions decided', 'right when decided',
    )  # fmt: skip
    rows = [
        (
            name,
            values['clips'],
            len(values['speakers']),
            with_interval(values),
            percent(values['accuracy']),
            percent(values['macro_f1']),
            decimal(values['calibration_error']),
            decimal(values['window_calibration_error']),
            percent(values['coverage']),
            percent(values['expression_accuracy_when_decided']),
        )
        for name, values in metrics.items()
    ]
    return markdown_table(header, rows)
