"""The model card that stands beside a bundle, written from what the bundle says of itself."""

from pathlib import Path

from ser_ros.bundle import Bundle


def write_card(bundle: Bundle) -> Path:
    """Write `NAME.md` beside the bundle; return its path."""
    path = bundle.path.with_suffix('.md')
    path.write_text(card(bundle))
    return path


def card(bundle: Bundle) -> str:
    """The card as Markdown."""
    info = bundle.info
    frontend = info.frontend
    n_parameters = sum(p.numel() for p in bundle.model.parameters())
    milliseconds = 1000 / frontend.sample_rate
    lines = [
        f'# {bundle.path.stem}',
        '',
        f'`{info.architecture}`, {n_parameters:,} parameters; classes: '
        f'{", ".join(info.class_names)}.',
        '',
        f'Front-end: log-mel at {frontend.sample_rate} Hz, {frontend.n_mels} mels from '
        f'{frontend.f_min:g} to {frontend.f_max:g} Hz, {frontend.win_length * milliseconds:g} ms '
        f'windows every {frontend.hop_length * milliseconds:g} ms, fixed decibel reference, '
        f'standardised per mel. Windows of up to {info.window:g} s.',
        '',
        '## What it is for',
        '',
        'A robot that adapts how it behaves to how it is spoken to. It was trained on actors who '
        'read two English sentences; on other voices, languages and spontaneous speech it is less '
        'right than the figures below. It is no lie detector and no diagnosis, and must not decide '
        'anything about a person.',
        '',
        '## Data and licence',
        '',
    ]
    for corpus, parts in info.corpora.items():
        lines += [f'{corpus}, speakers: ', '']
        lines += [f'- {part}: {", ".join(speakers)}' for part, speakers in parts.items()]
    lines += [
        '',
        f'Licence of the weights: {info.license}, as the data asks for: **not for commercial use**.'
        if '-NC' in info.license
        else f'Licence of the weights: {info.license}.',
        '',
        '## Figures',
        '',
        'Each clip was streamed through the recogniser as on the robot, between half a second of '
        'silence; its class is that of the mean log-probability of its windows. No speaker is in '
        'two parts. Everything was chosen on the validation part, nothing by the accuracy on the test part.',
        '',
        '| part | clips | speakers | unweighted accuracy | accuracy | ECE | expressions given '
        '| right when given |',
        '|---|---|---|---|---|---|---|---|',
    ]
    for part, figures in info.metrics.items():
        lines.append(
            f'| {part} | {figures["clips"]} | {" ".join(figures["speakers"])} '
            f'| {figures["unweighted_accuracy"]:.1%} | {figures["accuracy"]:.1%} '
            f'| {figures["calibration_error"]:.3f} | {figures["coverage"]:.0%} '
            f'| {figures["expression_accuracy_when_given"]:.0%} |'
        )
    for part, figures in info.metrics.items():
        recalls = ', '.join(f'{name} {value:.0%}' for name, value in figures['recall'].items())
        lines += ['', f'Recall of each class, {part}: {recalls}.']
    lines += [
        '',
        f'One seed ({info.seed}); temperature {info.temperature:.3f}; below a confidence of '
        f'{info.threshold:.3f} no expression is given.',
        '',
    ]
    return '\n'.join(lines)
