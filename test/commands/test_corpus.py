"""The contents of a corpus, printed and plotted."""

import json

import numpy as np
import pytest
import soundfile

from ser_ros.__main__ import main
from ser_ros.training.data.corpora import read_corpus
from ser_ros.training.reports.corpus_report import corpus_figure, describe

RATE = 8_000
CLIPS = {
    'Actor_01/03-01-03-01-01-01-01.wav': 0.5,
    'Actor_01/03-01-03-01-02-01-01.wav': 1.0,
    'Actor_01/03-01-08-02-01-01-01.wav': 1.5,
    'Actor_02/03-01-03-01-01-01-02.wav': 2.0,
    'Actor_02/03-01-01-01-01-01-02.wav': 4.0,
}


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / 'RAVDESS copy'
    for seed, (name, seconds) in enumerate(CLIPS.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        sound = np.random.default_rng(seed).uniform(-1, 1, round(seconds * RATE))
        soundfile.write(folder / name, sound, RATE)
    soundfile.write(folder / '03-01-05-01-01-01-03.wav', np.zeros(RATE), RATE)
    soundfile.write(folder / '03-01-05-01-01-02-03.wav', np.zeros(RATE), RATE)
    stereo = np.random.default_rng(9).uniform(-1, 1, (RATE, 2))
    soundfile.write(folder / '03-01-06-01-01-01-03.wav', stereo, RATE)
    return folder


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """A function: arguments → exit status, stdout, lines on stderr; in an empty folder."""
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')

    def run_command(*arguments):
        status = main(['corpus', *map(str, arguments)])
        out, err = capsys.readouterr()
        # Progress bars overwrite their line.
        return status, out, [e for e in err.split('\n') if not e.endswith('\r') and e]

    return run_command


def test_it_prints_what_there_is(run, corpus, tmp_path):
    status, out, err = run(corpus)
    assert (status, err) == (0, [])
    lines = [' '.join(line.split()) for line in out.splitlines()]
    assert lines[0] == 'RAVDESS: 6 clips of 3 speakers'
    assert lines[1] == 'lengths: 0.50 to 4.00 s, median 1.25 s, in all 0.2 minutes'
    table = lines[3:9]
    assert table == [
        'emotion clips gender female gender male intensity normal intensity strong',
        'neutral 1 1 0 1 0',
        'happy 3 1 2 3 0',
        'fearful 1 0 1 1 0',
        'surprised 1 0 1 0 1',
        'all 6 2 4 5 1',
    ]
    assert 'speakers: 01 3, 02 2, 03 1' in lines
    detail = '(its peak is below -60 dBFS)'
    first = lines.index('problem: 2 × silent, not used:')
    assert lines[first + 1 : first + 3] == [
        f'{corpus}/03-01-05-01-01-01-03.wav {detail}',
        f'{corpus}/03-01-05-01-01-02-03.wav {detail}',
    ]
    assert 'problem: 1 × not mono, used:' in lines
    assert lines[-1] == 'plot: corpus_RAVDESS.png'
    assert (tmp_path / 'here' / 'corpus_RAVDESS.png').read_bytes().startswith(b'\x89PNG')


def test_it_prints_json(run, corpus, tmp_path):
    status, out, err = run(corpus, '--json')
    assert (status, err) == (0, [])
    contents = json.loads(out)
    assert contents == describe(read_corpus(corpus))
    assert contents['emotions'] == {'neutral': 1, 'happy': 3, 'fearful': 1, 'surprised': 1}
    silent = contents['problems']['silent']
    assert silent['is_used'] is False
    assert [path[-8:] for path in silent['files']] == ['1-03.wav', '2-03.wav']
    assert contents['seconds']['total'] == pytest.approx(10.0)
    assert list((tmp_path / 'here').iterdir()) == []


def test_the_plot_has_the_path_of_the_option(run, corpus, tmp_path):
    status, out, _ = run(corpus, '--plot', tmp_path / 'mine.svg', '--kind', 'ravdess')
    assert status == 0
    assert out.endswith(f'plot: {tmp_path / "mine.svg"}\n')
    assert '<svg' in (tmp_path / 'mine.svg').read_text()
    assert list((tmp_path / 'here').iterdir()) == []


def test_a_plot_of_another_corpus_is_kept(run, corpus, tmp_path):
    sounds = sorted(corpus.rglob('Actor*/*.wav'))
    paths = [tmp_path / owner / 'mine.csv' for owner in ('ann', 'bob')]
    for path, labels in zip(paths, (('happy', 'sad'), ('angry', 'sad'))):
        rows = [f'{sound},{label},ann' for sound, label in zip(sounds, labels)]
        path.parent.mkdir()
        path.write_text('\n'.join(['path,emotion,speaker', *rows]))
    here, seen = tmp_path / 'here', []
    for path in (*paths, *paths):  # the second time each replaces its own
        status, out, _ = run(path)
        assert status == 0
        seen.append(out.splitlines()[-1])
    assert seen == ['plot: corpus_mine.png', 'plot: corpus_mine_2.png'] * 2
    first, second = (
        (here / name).read_bytes() for name in ('corpus_mine.png', 'corpus_mine_2.png')
    )
    assert first != second
    assert len(list(here.iterdir())) == 2
    # What cannot be recognised is kept as well, and a name that is given is not changed.
    (here / 'corpus_mine_2.png').write_bytes(b'a picture of my own')
    assert run(paths[1])[1].endswith('plot: corpus_mine_3.png\n')
    assert run(paths[1], '--plot', 'corpus_mine.png')[1].endswith('plot: corpus_mine.png\n')


@pytest.mark.parametrize('name', ['mine.doc', 'mine', 'nowhere/mine.png'])
def test_a_plot_that_cannot_be_written(run, corpus, name, tmp_path):
    status, _, err = run(corpus, '--plot', name)
    assert status == 1
    (line,) = err
    assert name in line
    assert list((tmp_path / 'here').iterdir()) == []


@pytest.mark.parametrize('kind', ['auto', 'csv', 'sung'])
def test_a_path_without_a_corpus_is_one_line(run, tmp_path, kind):
    status, out, err = run(tmp_path, '--kind', kind)
    assert (status, out) == (1, '')
    (line,) = err
    assert line.startswith('ser_ros: corpus')


def test_labels_of_one_class_are_printed(run, corpus, tmp_path):
    sounds = sorted(corpus.rglob('*01.wav'))
    rows = ['path,emotion,speaker']
    rows += [f'{sounds[0]},anger,ann', f'{sounds[1]},angry,bob', f'{sounds[2]},sad,bob']
    path = tmp_path / 'mine.csv'
    path.write_text('\n'.join(rows))
    _, out, _ = run(path)
    assert 'labels of one class, angry: anger, angry' in out
    assert 'gender unknown' in out
    assert 'problems: none' in out


def bars(axes):
    """Label below each bar → its height, layers summed."""
    names = [text.get_text() for text in axes.get_xticklabels()]
    heights = dict.fromkeys(names, 0)
    for patch in axes.patches:
        heights[names[round(patch.get_x() + patch.get_width() / 2)]] += patch.get_height()
    return heights


def test_the_bars_are_as_high_as_their_labels_say(corpus):
    read = read_corpus(corpus)
    contents = describe(read)
    by_gender, by_intensity, by_speaker, lengths = corpus_figure(read).axes
    assert bars(by_gender) == bars(by_intensity) == contents['emotions']
    assert bars(by_speaker) == contents['speakers'] == {'01': 3, '02': 2, '03': 1}
    layers = {c.get_label(): [p.get_height() for p in c.patches] for c in by_gender.containers}
    assert layers == {'female': [1, 1, 0, 0], 'male': [0, 2, 1, 1]}
    layers = {c.get_label(): [p.get_height() for p in c.patches] for c in by_intensity.containers}
    assert layers == {'normal': [1, 3, 1, 0], 'strong': [0, 0, 0, 1]}
    assert lengths.get_xlabel() == 'seconds'
    assert sum(p.get_height() for p in lengths.patches) == 6
    edges = [p.get_x() for p in lengths.patches]
    assert min(edges) == pytest.approx(0.5)
    for axes in (by_gender, by_intensity, by_speaker):
        assert axes.get_ylim()[0] == 0
        assert axes.get_ylim()[1] > max(bars(axes).values())


@pytest.fixture
def bored(corpus, tmp_path):
    """A table with two labels that are no emotions here."""
    sounds = sorted(corpus.rglob('Actor*/*.wav'))
    labels = ('angry', 'bored', 'bored', 'cough', 'sad')
    rows = [f'{sound},{label},ann' for sound, label in zip(sounds, labels)]
    path = tmp_path / 'mine.csv'
    path.write_text('\n'.join(['path,emotion,speaker', *rows]))
    return path


def test_labels_without_a_class_are_named_with_what_is_known(run, bored):
    for arguments in ([bored], [bored, '--json']):
        status, out, err = run(*arguments)
        assert status == 1
        (line,) = err
        start = (
            'ser_ros: mine: labels without a class: bored (2), cough (1); known are neutral, calm'
        )
        assert line.startswith(start)
        assert 'to amazed, annoyed, bored, ' in line
        assert 'data.labels' in line
        assert 'unknown label' in out


def test_labels_are_mapped(run, bored, tmp_path):
    labels = '{bored: bored, cough: null}'
    status, out, err = run(bored, '--labels', labels)
    assert (status, err) == (0, [])
    lines = [' '.join(line.split()[:2]) for line in out.splitlines()]
    for row in ('sad 1', 'angry 1', 'bored 2', 'all 4'):
        assert row in lines
    assert 'problem: 1 × label mapped to nothing, not used:' in out
    status, _, err = run(bored, '--labels', '{bored: dull}')
    assert status == 1
    assert "'dull' is not a class" in err[0]
    with pytest.raises(SystemExit):
        run(bored, '--labels', 'bored')


def test_folders_of_labels_are_mapped(run, corpus, tmp_path):
    folder = tmp_path / 'moods'
    for number, sound in enumerate(sorted(corpus.rglob('Actor*/*.wav'))):
        copy = folder / ('bored', 'weary')[number % 2] / f'ann_{number}.wav'
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(sound.read_bytes())
    status, _, (err,) = run(folder)
    assert status == 1
    assert 'to amazed, annoyed, bored' in err
    status, out, err = run(folder, '--labels', '{bored: bored, weary: {expression: tired}}')
    assert (status, err) == (0, [])
    assert 'weary' in out
