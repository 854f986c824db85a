"""Plots of sound and of metrics, for the report and for `inspect`.

Every function returns a new Figure; pyplot's state is neither used nor changed.
"""

import hashlib
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import librosa
import numpy as np
from librosa.display import specshow
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE
from ser_ros.files import write_atomically

INK = '#1f2328'
"""Colour of text and axes; in an `svg` the reader's colour scheme replaces it."""
LIGHT_INK = '#e6e8eb'
ACCENT, SECOND_ACCENT, MUTED = '#2f7ebc', '#d55e00', '#8b949e'

COLORS = {
    'neutral': '#8b949e',
    'calm': '#56b4e9',
    'happy': '#e69f00',
    'sad': '#0072b2',
    'angry': '#d55e00',
    'fearful': '#cc79a7',
    'disgust': '#009e73',
    'surprised': '#c9b400',
}
"""One colour for an emotion in all plots, after Okabe & Ito (2008)."""

OTHER_COLORS = ('#7a5195', '#00a6a6', '#a05a2c', '#ff7c9c', '#5f7d2a', '#4b4bd1')
"""For classes of one's own, in turn."""


def colors_of(class_names: Sequence[str]) -> dict[str, str]:
    """Class → its colour."""
    others = itertools.cycle(OTHER_COLORS)
    return {name: COLORS.get(name) or next(others) for name in class_names}


WIDTH = 4.8
"""Width of a plot in the report, in inches: its text can be read on a telephone."""

_STYLE = {
    'axes.edgecolor': INK,
    'axes.grid': True,
    'axes.axisbelow': True,
    'axes.labelcolor': INK,
    'axes.spines.right': False,
    'axes.spines.top': False,
    'axes.titlecolor': INK,
    'axes.titlesize': 'medium',
    'figure.constrained_layout.use': True,
    'figure.dpi': 100,
    'font.family': 'sans-serif',
    'font.sans-serif': ['DejaVu Sans', 'Verdana', 'Arial'],
    'font.size': 9,
    'grid.alpha': 0.3,
    'grid.color': MUTED,
    'grid.linewidth': 0.6,
    'legend.frameon': False,
    'svg.fonttype': 'none',
    'svg.hashsalt': 'ser_ros',
    'text.color': INK,
    'xtick.color': INK,
    'ytick.color': INK,
}
_styled = rc_context(_STYLE)


@_styled
def svg(figure: Figure) -> str:
    """An SVG document whose text and axes follow a light or a dark colour scheme."""
    file = io.StringIO()
    figure.savefig(file, format='svg', transparent=True, metadata={'Date': None})
    style = (
        f'<style>svg{{--ink:{INK}}}'
        f'@media (prefers-color-scheme:dark){{svg{{--ink:{LIGHT_INK}}}}}</style>'
    )
    head, tag, body = file.getvalue().replace(INK, 'var(--ink)').partition('<defs>')
    return head + style.replace('var(--ink)', INK) + tag + body


KINDS = ('.png', '.svg', '.pdf')
"""Suffixes of the files that `save` writes."""


def check_kind(path: Path) -> None:
    """SerError for a suffix that `save` does not write."""
    if path.suffix.lower() not in KINDS:
        raise SerError(f'plot {path}: use one of the suffixes {", ".join(KINDS)}')


@_styled
def save(figure: Figure, path: Path, subject: Optional[Path] = None) -> None:
    """Write a plot on white, completely or not at all; SerError if it cannot be written.

    `subject`: what a PNG shows, for `own_path`.
    """
    check_kind(path)
    image, metadata = io.BytesIO(), {}
    if subject:
        metadata = {'metadata': {'Source': _mark(subject)}}
    figure.savefig(image, format=path.suffix[1:].lower(), dpi=120, facecolor='white', **metadata)
    write_atomically(path, image.getvalue())


def own_path(path: Path, subject: Path) -> Path:
    """The path of a PNG, or NAME_2, NAME_3, ...: the first that shows this subject, or is not there.

    So that two corpora of one name do not overwrite each other's plot.
    """
    names = itertools.chain(
        [path], (path.with_stem(f'{path.stem}_{n}') for n in itertools.count(2))
    )
    return next(name for name in names if not name.exists() or _shows(name, subject))


def _mark(subject: Path) -> str:
    """A name for the subject that does not tell where it is: plots are shared."""
    return hashlib.sha256(str(subject.resolve()).encode(errors='replace')).hexdigest()


def _shows(path: Path, subject: Path) -> bool:
    """Whether `save` wrote this PNG with this subject: its chunk of text is not compressed."""
    try:
        return f'Source\0{_mark(subject)}'.encode() in path.read_bytes()
    except OSError:
        return False


@_styled
def spectrogram(samples: np.ndarray) -> Figure:
    """Spectrogram of float32 (n,) samples at 16 kHz."""
    figure = Figure((WIDTH, 2.2))
    _draw_spectrogram(figure.subplots(), samples)
    return figure


@_styled
def versions(
    sounds: Sequence[tuple[str, np.ndarray, Optional[np.ndarray]]], columns: int = 3
) -> Figure:
    """Waveform and spectrogram of several sounds at 16 kHz, each with its title.

    Standardised features (n_features, frames), if not None, replace the spectrogram.
    """
    columns = min(columns, len(sounds))
    rows = -(-len(sounds) // columns)
    figure = Figure((4.2 * columns, 3.4 * rows))
    cells = figure.subfigures(rows, columns, squeeze=False).ravel()
    longest = max(len(samples) for _, samples, _ in sounds) / SAMPLE_RATE
    for cell, (title, samples, features) in zip(cells, sounds):
        wave, below = cell.subplots(2, sharex=True, height_ratios=(1, 2))
        wave.set_title(title)
        _draw_waveform(wave, samples)
        if features is None:
            _draw_spectrogram(below, samples)
        else:
            _draw_features(below, features, len(samples) / SAMPLE_RATE)
        below.set_xlim(0, longest)
    return figure


@_styled
def overview(
    samples: np.ndarray,
    speech: Sequence[tuple[float, float]],
    attention: Mapping[str, tuple[np.ndarray, np.ndarray]],
    spans: np.ndarray,
    timelines: Mapping[str, tuple[np.ndarray, Sequence[tuple[float, str]]]],
    class_names: Sequence[str],
) -> Figure:
    """Predictions of a bundle for float32 (n,) samples at 16 kHz, over seconds.

    `speech`: starts and ends of detected speech. `attention`: layer → instants (m,) and weights
    (m,), NaN outside of windows. `spans`: (n, 2), the time over which each row of probabilities is
    drawn. `timelines`: title → probabilities (n, n_classes), and time and text of each decision.
    """
    heights = [
        1.2,
        2.2,
        *([1.2] if attention else []),
        *[2.4 if len(timelines) == 1 else 2.0] * len(timelines),
    ]
    width = float(np.clip(1.2 * len(samples) / SAMPLE_RATE, 8, 30))
    figure = Figure((width, sum(heights)))
    rows = figure.subplots(len(heights), sharex=True, height_ratios=heights)
    _draw_waveform(rows[0], samples)
    for start, end in speech:
        rows[0].axvspan(start, end, color=SECOND_ACCENT, alpha=0.15, linewidth=0)
    rows[0].set_title('shaded: voice activity' if speech else 'no voice activity')
    _draw_spectrogram(rows[1], samples)
    rows[1].set_xlabel('')
    for name, (seconds, weights) in attention.items():
        rows[2].plot(seconds, weights, label=name, linewidth=1.2)
    if attention:
        top = max(np.nan_to_num(weights).max() for _, weights in attention.values())
        rows[2].set(ylabel='attention\n(1 = even)', ylim=(0, 1.5 * max(1.0, top)))
        rows[2].legend(loc='upper right', ncols=len(attention))
    for axes, (title, timeline) in zip(rows[-len(timelines) :], timelines.items()):
        _draw_emotions(axes, spans, *timeline, class_names)
        if title:
            axes.set_title(title, pad=14)  # above the decisions
    rows[-1].set(xlim=(0, len(samples) / SAMPLE_RATE), xlabel='time (s)')
    handles, labels = rows[-1].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc='outside lower center', ncols=len(labels), handlelength=1,
        columnspacing=1,
    )  # fmt: skip
    return figure


def _draw_emotions(
    axes: Axes,
    spans: np.ndarray,
    probabilities: np.ndarray,
    decisions: Sequence[tuple[float, str]],
    class_names: Sequence[str],
) -> None:
    """Stacked probabilities, each row over its span."""
    bottom = np.zeros(len(spans))
    colors = colors_of(class_names)
    for name, share in zip(class_names, probabilities.T):
        axes.bar(
            spans[:, 0], share, spans[:, 1] - spans[:, 0], bottom,
            align='edge', color=colors[name], label=name,
        )  # fmt: skip
        bottom += share
    for seconds, text in decisions:
        axes.axvline(seconds, color=INK, linewidth=0.8, linestyle=':')
        axes.annotate(
            text, (seconds, 1.0), (-2, 2), textcoords='offset points', ha='right', va='bottom'
        )
    axes.set(ylabel='probability', ylim=(0, 1.12), yticks=[0, 0.25, 0.5, 0.75, 1])


def _draw_waveform(axes: Axes, samples: np.ndarray) -> None:
    seconds = np.arange(len(samples)) / SAMPLE_RATE
    axes.plot(seconds, samples, color=ACCENT, linewidth=0.4, rasterized=True)
    limit = max(0.01, float(np.abs(samples).max(initial=0.0)))
    axes.set(ylabel='amplitude', ylim=(-1.05 * limit, 1.05 * limit))


def _draw_spectrogram(axes: Axes, samples: np.ndarray) -> None:
    """Decibels on the mel scale, with ticks in Hz."""
    n_fft, hop_length, f_max = 1024, 160, SAMPLE_RATE / 2
    power = librosa.feature.melspectrogram(
        y=np.pad(samples, (0, max(0, n_fft - len(samples)))),
        sr=SAMPLE_RATE,
        n_fft=n_fft,
        win_length=400,
        hop_length=hop_length,
        n_mels=96,
        fmax=f_max,
    )
    specshow(
        librosa.power_to_db(power, ref=np.max),
        sr=SAMPLE_RATE,
        hop_length=hop_length,
        x_axis='s',
        y_axis='mel',
        fmax=f_max,
        cmap='magma',
        ax=axes,
        rasterized=True,
    )
    axes.grid(False)
    axes.set(xlabel='time (s)', ylabel='frequency (Hz)')
    axes.set_yticks([250, 500, 1000, 2000, 4000, 8000])


def _draw_features(axes: Axes, features: np.ndarray, seconds: float) -> None:
    axes.imshow(
        features, origin='lower', aspect='auto', cmap='magma', vmin=-2.5, vmax=2.5,
        extent=(0, seconds, 0, len(features)),
    )  # fmt: skip
    axes.grid(False)
    axes.set(xlabel='time (s)', ylabel='mel band')


@_styled
def history(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Loss and validation accuracy of the epochs that have them; the best epoch is marked."""
    figure = Figure((WIDTH, 3.6))
    loss, accuracy = figure.subplots(2, sharex=True)
    for key, label, color in (
        ('train_loss', 'training', ACCENT),
        ('val_loss', 'validation', SECOND_ACCENT),
    ):
        _draw_curve(loss, rows, key, color=color, label=label)
    loss.set(ylabel='loss')
    loss.legend()
    _draw_curve(accuracy, rows, 'val_accuracy', color=SECOND_ACCENT)
    if scored := [row for row in rows if 'val_accuracy' in row]:
        best = max(scored, key=lambda row: row['val_accuracy'])
        accuracy.plot(best['epoch'], best['val_accuracy'], 'o', color=SECOND_ACCENT)
        accuracy.set_title(f'best: {best["val_accuracy"]:.1%} in epoch {best["epoch"]:.0f}')
    accuracy.set(xlabel='epoch', ylabel='unweighted accuracy\nin validation')
    accuracy.set(xlim=(-0.5, rows[-1]['epoch'] + 0.5), ylim=(0, None))
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    accuracy.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def _draw_curve(
    axes: Axes, rows: Sequence[Mapping[str, float]], key: str, **settings: Any
) -> None:
    known = [row for row in rows if key in row]
    marker = '.' if len(known) == 1 else None
    epochs = [row['epoch'] for row in known]
    axes.plot(epochs, [row[key] for row in known], linewidth=1.2, marker=marker, **settings)


@_styled
def confusion(counts: Sequence[Sequence[int]], columns: Sequence[str], normalised: bool) -> Figure:
    """Rows are the true classes `columns[:len(counts)]`; normalised: shares of each row."""
    counts = np.array(counts)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    figure = Figure((WIDTH, 0.46 * len(counts) + 1.1))
    axes = figure.subplots()
    axes.imshow(shares, cmap='Blues', vmin=0, vmax=1, aspect='auto')
    for (row, column), share in np.ndenumerate(shares):
        text = f'{100 * share:.0f}' if normalised else f'{counts[row, column]}'
        axes.text(
            column, row, text if counts[row, column] else '·', ha='center', va='center',
            color='#ffffff' if share > 0.5 else '#15181c',
        )  # fmt: skip
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha='right', rotation_mode='anchor')
    axes.set_yticks(range(len(counts)), columns[: len(counts)])
    axes.set(xlabel='predicted class', ylabel='true class')
    axes.set_title('% of the true class' if normalised else 'clips')
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


@_styled
def classes(metrics: Mapping[str, Mapping[str, float]]) -> Figure:
    """Precision, recall and F1 of each class."""
    colors = {'precision': MUTED, 'recall': ACCENT, 'f1': SECOND_ACCENT}
    figure = Figure((WIDTH, 0.42 * len(metrics) + 0.9))
    axes = figure.subplots()
    height = 0.8 / len(colors)
    # Labels and bars come from one sequence, from top to bottom.
    positions = np.arange(len(metrics))
    for number, (metric, color) in enumerate(colors.items()):
        values = [100 * class_metrics[metric] for class_metrics in metrics.values()]
        offset = (number - (len(colors) - 1) / 2) * height
        axes.barh(
            positions + offset, values, height, color=color, label=metric.replace('f1', 'F1')
        )
    axes.set_yticks(positions, list(metrics))
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel='%')
    axes.grid(False, axis='y')
    figure.legend(loc='outside upper center', ncols=len(colors))
    return figure


@_styled
def reliability(bins: Mapping[str, Sequence[float]]) -> Figure:
    """Accuracy in bins of confidence, and below the count of each bin."""
    figure = Figure((WIDTH, 4.2))
    accuracy, count = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    n_bins = len(bins['count'])
    left = np.arange(n_bins) / n_bins
    accuracy.plot([0, 1], [0, 1], color=MUTED, linestyle='--', label='perfectly calibrated')
    accuracy.bar(
        left, bins['accuracy'], 0.94 / n_bins, align='edge', color=ACCENT, label='accuracy'
    )
    filled = np.array(bins['count']) > 0
    accuracy.plot(
        np.array(bins['confidence'])[filled], np.array(bins['accuracy'])[filled], 'o',
        markersize=3, color=SECOND_ACCENT, label='at its mean confidence',
    )  # fmt: skip
    accuracy.set(ylabel='accuracy', ylim=(0, 1))
    figure.legend(loc='outside upper center', ncols=3, fontsize='small', columnspacing=1)
    count.bar(left, bins['count'], 0.94 / n_bins, align='edge', color=MUTED)
    count.set(xlim=(0, 1), xlabel='confidence', ylabel='count')
    return figure


@_styled
def risk_coverage(curve: Mapping[str, Any]) -> Figure:
    """Share of errors if only the most certain clips are decided."""
    figure = Figure((WIDTH, 2.6))
    axes = figure.subplots()
    axes.plot(curve['coverage'], curve['risk'], color=ACCENT, linewidth=1.4)
    axes.set(xlim=(0, 1), ylim=(0, max(0.5, *curve['risk']) * 1.05))
    axes.set(xlabel='share of clips decided', ylabel='share of these\nthat are wrong')
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    return figure


@_styled
def groups(metrics: Mapping[str, Mapping[str, float]], overall: float) -> Figure:
    """Unweighted accuracy of each group, such as speakers, best first; `overall` is marked."""
    order = sorted(metrics, key=lambda name: -metrics[name]['unweighted_accuracy'])
    figure = Figure((WIDTH, 0.2 * len(order) + 0.9))
    axes = figure.subplots()
    values = [100 * metrics[name]['unweighted_accuracy'] for name in order]
    # The value is in the label, where no line crosses it.
    axes.barh(
        [f'{name}  {value:.0f}%' for name, value in zip(order, values)], values, color=ACCENT
    )
    axes.axvline(100 * overall, color=SECOND_ACCENT, linewidth=1.2, label=f'all: {overall:.1%}')
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel='unweighted accuracy (%)')
    axes.margins(y=0.02)
    axes.grid(False, axis='y')
    figure.legend(loc='outside upper center')
    return figure


@_styled
def conditions(metrics: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Unweighted accuracy under each condition with its interval, and how decisions fare.

    The first condition is the one that the others are compared with; its accuracy is marked.
    """
    figure = Figure((WIDTH, 0.28 * len(metrics) + 1.2))
    axes = figure.subplots()
    positions = np.arange(len(metrics))
    accuracies = [100 * row['unweighted_accuracy'] for row in metrics.values()]
    axes.axvline(accuracies[0], color=MUTED, linewidth=1, linestyle='--')
    for position, row in zip(positions, metrics.values()):
        if row['unweighted_accuracy_interval'] is not None:
            low, high = row['unweighted_accuracy_interval']
            axes.plot([100 * low, 100 * high], [position, position], color=ACCENT, linewidth=1.4)
    axes.plot(accuracies, positions, 'o', color=ACCENT, label='unweighted accuracy')
    for key, label, marker in (
        ('expression_accuracy_when_decided', 'right when decided', 'D'),
        ('coverage', 'expressions decided', '|'),
    ):
        shares = [(row[key], position) for position, row in zip(positions, metrics.values())]
        known = [(100 * share, position) for share, position in shares if share is not None]
        axes.plot(
            *np.array(known).reshape(-1, 2).T,
            marker,
            color=SECOND_ACCENT,
            markersize=5,
            label=label,
        )
    axes.set_yticks(positions, list(metrics))
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel='%')
    axes.grid(False, axis='y')
    figure.legend(loc='outside upper center', ncols=2, fontsize='small')
    return figure
