"""The command `false-expressions`."""

import json

import numpy as np
import pytest
import soundfile

from ser_ros.bundle import load_bundle
from ser_ros.training.evaluation import false_expressions

SETTINGS = {'threshold': 0.0, 'class_names': ('happy', 'sad')}


@pytest.fixture
def folders(utterance, tmp_path):
    """Three files of orders, and two of silence."""
    sounds = {'orders': [utterance] * 3, 'fan': [np.zeros(16_000)] * 2}
    for name, some in sounds.items():
        (tmp_path / name).mkdir()
        for number, samples in enumerate(some):
            soundfile.write(tmp_path / name / f'{number}.wav', samples, 16_000)
    return [tmp_path / name for name in sounds]


@pytest.fixture
def count(run, write_bundle, tmp_path):
    """A function: more arguments → exit status, lines on stdout, lines on stderr."""
    path = write_bundle(tmp_path / 'mine.safetensors', **SETTINGS)

    def run_command(*arguments):
        return run('false-expressions', '--bundle', path, '--device', 'cpu', *arguments)

    return run_command


def test_it_prints_a_table(count, folders):
    status, out, err = count(*folders)
    assert (status, err) == (0, [])
    assert out[0].startswith('protocol: each file streamed as on the robot')
    columns = ('sound', 'files', 'minutes', 'utterances', 'emotions', 'per', 'hour')
    assert tuple(out[1].split())[:7] == columns
    assert [line.split()[:2] for line in out[2:]] == [['orders', '3'], ['fan', '2']]
    assert out[3].split()[3:5] == ['0', '0.0']


def test_it_prints_json(count, folders):
    status, out, _ = count('--json', '--held-out', folders[0])
    assert status == 0
    (rows,) = (json.loads(line)['rows'] for line in out)
    assert list(rows) == ['orders (held out)']
    assert rows['orders (held out)']['files'] == 1
    assert rows['orders (held out)']['emotions'] == 1


def test_it_records_in_the_bundle_and_its_card(count, folders, tmp_path):
    path = tmp_path / 'mine.safetensors'
    status, out, _ = count('--record', '--json', folders[0])
    assert status == 0
    assert load_bundle(path).info.metrics == {'false_expressions': json.loads(out[0])}
    # A folder that is evaluated later is added.
    count('--record', folders[1])
    metrics = load_bundle(path).info.metrics['false_expressions']
    assert list(metrics['rows']) == ['orders', 'fan']
    text = (tmp_path / 'mine.md').read_text()
    assert '### False expressions' in text
    assert '| orders | 3 |' in text
    assert '| fan | 2 | 0.0 | 0 | 0.0 [0.0, ' in text


def test_it_counts_backgrounds_and_generated_sounds(
    count, folders, utterance, tmp_path, monkeypatch
):
    monkeypatch.setattr(false_expressions, 'N_GENERATED', 1)
    monkeypatch.setattr(false_expressions, 'SECONDS_GENERATED', 1.0)
    for number in range(3, 5):
        soundfile.write(folders[0] / f'{number}.wav', utterance, 16_000)
    arguments = ('--television', '--babble', '--generated', folders[0])
    status, out, _ = count('--json', '--record', *arguments)
    assert status == 0
    metrics = json.loads(out[0])
    names = list(metrics['rows'])
    assert names[:3] == ['orders', 'orders, television', 'orders, babble']
    assert names[3:5] == ['coloured noise (generated)', 'band noise (generated)']
    assert 'babble: 5 files at once' in metrics['protocol']
    assert metrics['rows']['orders, television']['seconds'] == metrics['rows']['orders']['seconds']
    # What was recorded is described, also after other folders were added.
    count('--record', folders[1])
    text = (tmp_path / 'mine.md').read_text()
    assert 'television: played by a loudspeaker of 200 to 6000 Hz' in text
    assert '| orders, babble | 5 |' in text


def test_errors_are_one_line(count, run, folders, tmp_path, write_bundle):
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'orders').symlink_to(folders[0])
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'broken').mkdir()
    (tmp_path / 'broken' / 'notes.wav').write_text('no sound')
    before = (tmp_path / 'mine.safetensors').read_bytes()
    for arguments, message in (
        ([], 'name a folder'),
        (['/nowhere'], '/nowhere'),
        ([folders[0], '--babble'], 'babble needs 5'),
        ([tmp_path / 'empty'], 'has no sound files'),
        ([folders[1], '--held-out'], 'fewer than three recordings'),
        ([*folders, tmp_path / 'broken'], 'notes.wav'),
    ):
        status, out, err = count('--record', *arguments)
        assert (status, out) == (1, [])
        (line,) = err
        assert line.startswith('ser_ros: ')
        assert message in line
    assert (tmp_path / 'mine.safetensors').read_bytes() == before
    assert not (tmp_path / 'mine.md').exists()


def test_two_folders_of_one_name(count, folders, tmp_path):
    (tmp_path / 'other' / 'fan').mkdir(parents=True)
    soundfile.write(tmp_path / 'other' / 'fan' / '0.wav', np.zeros(16_000), 16_000)
    status, _, err = count(folders[1], tmp_path / 'other' / 'fan')
    assert status == 1
    assert 'two folders are called fan' in err[0]
