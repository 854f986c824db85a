"""Pictures show what they were given, under the right names and in the right units."""

import xml.etree.ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE
from ser_ros.emotions import EMOTIONS
from ser_ros.training.reports import plots

pytestmark = pytest.mark.filterwarnings('error')

NAMES = list(EMOTIONS)


@pytest.fixture(autouse=True)
def state():
    """Nothing of matplotlib's own state is used or changed."""
    before = dict(matplotlib.rcParams)
    yield
    assert pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


def tone(frequency, seconds):
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.5 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def drawn(figure):
    """The same figure, laid out."""
    plots.svg(figure)
    return figure


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def brightest(axes):
    """Seconds and Hz of the middle of the brightest cell of a spectrogram."""
    (mesh,) = axes.collections
    values = mesh.get_array()
    row, column = np.unravel_index(values.argmax(), values.shape)
    return mesh.get_coordinates()[row : row + 2, column : column + 2].mean(axis=(0, 1))


@pytest.mark.parametrize('frequency', [300, 1000, 4000])
def test_a_spectrogram_is_in_seconds_and_hertz(frequency):
    samples = np.concatenate((np.zeros(SAMPLE_RATE, np.float32), tone(frequency, 1)))
    (axes,) = drawn(plots.spectrogram(samples)).axes
    seconds, hertz = brightest(axes)
    assert 1 <= seconds <= 2
    assert hertz == pytest.approx(frequency, rel=0.1)
    assert axes.get_xlim() == pytest.approx((0, 2), abs=0.02)
    assert axes.get_xlabel() == 'time (s)'
    assert axes.get_ylabel() == 'frequency (Hz)'
    assert labels(axes.yaxis) == ['250', '500', '1000', '2000', '4000', '8000']


@pytest.mark.parametrize('n', [1, 200, 1600])
def test_sound_of_any_length_has_a_spectrogram(n):
    drawn(plots.spectrogram(np.zeros(n, np.float32)))


def test_class_bars_stand_by_their_names():
    generator = np.random.default_rng(1)
    given = {
        name: dict(zip(('precision', 'recall', 'f1'), generator.random(3))) for name in NAMES[::-1]
    }
    (axes,) = drawn(plots.classes(given)).axes
    assert labels(axes.yaxis) == NAMES[::-1]
    assert [bars.get_label() for bars in axes.containers] == ['precision', 'recall', 'F1']
    for bars, metric in zip(axes.containers, ('precision', 'recall', 'f1')):
        for position, name, bar in zip(axes.get_yticks(), labels(axes.yaxis), bars):
            assert bar.get_y() <= position + 0.4
            assert bar.get_y() + bar.get_height() >= position - 0.4
            assert bar.get_width() == pytest.approx(100 * given[name][metric])


def test_groups_stand_by_their_names_best_first():
    given = {'a': 0.25, 'b': 0.75, 'c': 0.5}
    values = {name: {'unweighted_accuracy': value} for name, value in given.items()}
    (axes,) = drawn(plots.groups(values, overall=0.5)).axes
    assert labels(axes.yaxis) == ['b  75%', 'c  50%', 'a  25%']
    assert [bar.get_width() for bar in axes.patches] == [75, 50, 25]
    top_to_bottom = [bar.get_y() for bar in axes.patches]
    assert axes.yaxis_inverted()
    assert top_to_bottom == sorted(top_to_bottom)
    assert axes.lines[0].get_xdata()[0] == 50


@pytest.mark.parametrize('normalised', [False, True])
def test_a_confusion_matrix_shows_counts_or_shares(normalised):
    counts = [[3, 1, 0], [0, 4, 4]]
    columns = ['happy', 'sad', 'no speech']
    (axes,) = drawn(plots.confusion(counts, columns, normalised)).axes
    assert labels(axes.yaxis) == ['happy', 'sad']
    assert labels(axes.xaxis) == columns
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    expected = [['75', '25', '·'], ['·', '50', '50']] if normalised else [['3', '1', '·'], '·44']
    assert cells == {(x, y): expected[y][x] for y in range(2) for x in range(3)}
    (image,) = axes.images
    np.testing.assert_allclose(image.get_array(), [[0.75, 0.25, 0], [0, 0.5, 0.5]])


def test_a_class_without_clips_has_an_empty_row():
    drawn(plots.confusion([[0, 0], [1, 2]], ['happy', 'sad'], normalised=True))


def test_reliability_bars_stand_over_their_confidences():
    bins = {
        'count': [0, 2, 0, 8],
        'confidence': [0, 0.4, 0, 0.9],
        'accuracy': [0, 0.5, 0, 0.75],
    }
    accuracy, count = drawn(plots.reliability(bins)).axes
    assert [bar.get_x() for bar in accuracy.patches] == [0, 0.25, 0.5, 0.75]
    assert [bar.get_height() for bar in accuracy.patches] == bins['accuracy']
    assert [bar.get_height() for bar in count.patches] == bins['count']
    points = accuracy.lines[1]
    assert points.get_xdata().tolist() == [0.4, 0.9]
    assert points.get_ydata().tolist() == [0.5, 0.75]


def test_a_history_marks_the_best_epoch():
    rows = [
        {'epoch': 0, 'train_loss': 2.0, 'val_loss': 2.1, 'val_accuracy': 0.2},
        {'epoch': 1, 'train_loss': 1.5, 'val_loss': 1.9, 'val_accuracy': 0.45},
        {'epoch': 2, 'train_loss': 1.2, 'val_loss': 2.0, 'val_accuracy': 0.4},
    ]
    loss, accuracy = drawn(plots.history(rows)).axes
    assert [line.get_label() for line in loss.lines] == ['training', 'validation']
    assert list(loss.lines[0].get_ydata()) == [2.0, 1.5, 1.2]
    assert accuracy.get_title() == 'best: 45.0% in epoch 1'
    assert list(accuracy.lines[1].get_xdata()) == [1]
    drawn(plots.history(rows[:1]))
    # Of a training on everybody there is no validation.
    _, accuracy = drawn(plots.history([{'epoch': 0, 'train_loss': 2.0}])).axes
    assert accuracy.get_title() == ''


def test_a_risk_curve():
    (axes,) = drawn(plots.risk_coverage({'coverage': [0.5, 1.0], 'risk': [0.0, 0.6]})).axes
    assert axes.lines[0].get_xydata().tolist() == [[0.5, 0], [1, 0.6]]
    assert axes.get_ylim()[1] > 0.6


def test_conditions_stand_in_their_order_with_intervals():
    row = {
        'unweighted_accuracy': 0.6,
        'unweighted_accuracy_interval': [0.5, 0.7],
        'coverage': 0.8,
        'expression_accuracy_when_decided': 0.7,
    }
    rows = {
        'clean': row,
        'noise': {**row, 'unweighted_accuracy': 0.4, 'unweighted_accuracy_interval': None},
        'silence': {**row, 'coverage': None, 'expression_accuracy_when_decided': None},
    }
    (axes,) = drawn(plots.conditions(rows)).axes
    assert labels(axes.yaxis) == ['clean', 'noise', 'silence']
    assert axes.yaxis_inverted()
    clean, first, third, *points = axes.lines
    assert clean.get_xdata()[0] == 60
    # A single speaker has no interval.
    assert [line.get_ydata()[0] for line in (first, third)] == [0, 2]
    assert list(first.get_xdata()) == pytest.approx([50, 70])
    accuracy, right, decided = (line.get_xydata().tolist() for line in points)
    assert accuracy == [[60, 0], [40, 1], [60, 2]]
    assert right == [[70, 0], [70, 1]]
    assert decided == [[80, 0], [80, 1]]
    assert [line.get_label() for line in points] == [
        *('unweighted accuracy', 'right when decided', 'expressions decided')
    ]


def overview(**changes):
    probabilities = np.random.default_rng(1).dirichlet(np.ones(8), 3)
    instants = np.arange(0, 4, 0.01)
    given = {
        'samples': tone(440, 4),
        'speech': [(0.5, 2.0), (2.5, 3.5)],
        'attention': {'lstm': (instants, np.ones(400)), 'cnn': (instants, instants * np.nan)},
        'spans': np.array([[0.5, 0.75], [0.75, 1.0], [2.5, 3.0]]),
        'timelines': {'': (probabilities, [(2.0, 'happy 0.80')])},
        'class_names': NAMES,
    }
    return given, plots.overview(**{**given, **changes})


def test_an_overview_is_over_one_time():
    given, figure = overview()
    wave, spectrogram, attention, emotions = drawn(figure).axes
    assert {axes.get_xlim() for axes in figure.axes} == {(0, 4)}
    assert emotions.get_xlabel() == 'time (s)'
    spans = [patch.get_extents().transformed(wave.transData.inverted()) for patch in wave.patches]
    assert [(span.x0, span.x1) for span in spans] == [
        pytest.approx(span) for span in given['speech']
    ]
    assert [line.get_label() for line in attention.lines] == ['lstm', 'cnn']
    assert len(spectrogram.collections) == 1
    assert [bars.get_label() for bars in emotions.containers] == NAMES
    for index, bars in enumerate(emotions.containers):
        assert [bar.get_height() for bar in bars] == pytest.approx(
            given['timelines'][''][0][:, index]
        )
        assert [bar.get_x() for bar in bars] == [0.5, 0.75, 2.5]
        assert [bar.get_width() for bar in bars] == [0.25, 0.25, 0.5]
        assert bars[0].get_facecolor() == matplotlib.colors.to_rgba(plots.COLORS[NAMES[index]])
    assert [text.get_text() for text in emotions.texts] == ['happy 0.80']


def test_an_overview_of_silence_without_attention():
    nothing = {'speech': [], 'attention': {}, 'spans': np.zeros((0, 2))}
    _, figure = overview(timelines={'': (np.zeros((0, 8)), [])}, **nothing)
    wave, _, emotions = drawn(figure).axes
    assert wave.get_title() == 'no voice activity'
    assert not emotions.texts


def test_an_overview_has_a_row_for_each_timeline():
    probabilities = np.random.default_rng(2).dirichlet(np.ones(8), 3)
    timelines = {'before': (probabilities, []), 'after': (probabilities, [(2.0, 'sad 0.60')])}
    before, after = drawn(overview(timelines=timelines)[1]).axes[-2:]
    assert (before.get_title(), after.get_title()) == ('before', 'after')
    assert (before.get_xlabel(), after.get_xlabel()) == ('', 'time (s)')
    assert [text.get_text() for text in after.texts] == ['sad 0.60']
    assert not before.texts
    assert len(before.containers) == len(after.containers) == len(NAMES)


def test_versions_stand_beside_each_other():
    sounds = [
        ('as recorded', tone(440, 2), None),
        ('short', tone(440, 1), None),
        ('masked', tone(440, 2), np.zeros((64, 200))),
        ('loud', tone(440, 2), None),
    ]
    axes = drawn(plots.versions(sounds)).axes
    assert [wave.get_title() for wave in axes[::2]] == [title for title, *_ in sounds]
    assert {a.get_xlim() for a in axes} == {(0, 2)}
    assert [below.get_ylabel() for below in axes[1::2]] == [
        *('frequency (Hz)', 'frequency (Hz)', 'mel band', 'frequency (Hz)')
    ]
    assert len(drawn(plots.versions(sounds[:1])).axes) == 2


def test_every_emotion_has_a_colour_of_its_own():
    assert list(plots.COLORS) == NAMES
    assert len(set(plots.COLORS.values())) == len(NAMES)


def test_an_svg_follows_the_colour_scheme_and_needs_nothing_else():
    text = plots.svg(plots.spectrogram(tone(440, 1)))
    root = xml.etree.ElementTree.fromstring(text)
    assert root.tag == '{http://www.w3.org/2000/svg}svg'
    assert 'prefers-color-scheme:dark' in text
    # Named where the scheme is defined, and nowhere else.
    assert text.count(plots.INK) == 1
    assert 'fill: var(--ink)' in text
    links = [
        value for element in root.iter() for key, value in element.items() if key.endswith('href')
    ]
    assert links
    assert all(link.startswith(('#', 'data:')) for link in links)


def test_the_same_plot_is_the_same_file():
    one, other = (plots.svg(plots.spectrogram(tone(440, 1))) for _ in range(2))
    assert one == other


@pytest.mark.parametrize(
    ('name', 'magic'), [('a.png', b'\x89PNG'), ('a.SVG', b'<?xml'), ('a.pdf', b'%PDF')]
)
def test_plots_are_saved(tmp_path, name, magic):
    plots.save(plots.spectrogram(tone(440, 1)), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_cannot_be_saved(tmp_path):
    figure = plots.spectrogram(tone(440, 1))
    with pytest.raises(SerError, match=r'a\.xyz.*\.png'):
        plots.save(figure, tmp_path / 'a.xyz')
    (tmp_path / 'a.png').mkdir()
    with pytest.raises(SerError, match=r'a\.png cannot be written'):
        plots.save(figure, tmp_path / 'a.png')
    assert [path.name for path in tmp_path.iterdir()] == ['a.png']
    with pytest.raises(SerError, match='cannot be written'):
        plots.save(figure, tmp_path / 'nowhere' / 'a.png')
