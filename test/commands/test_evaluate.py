"""The command `evaluate`."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from ser_ros.bundle import load_bundle
from ser_ros.frontend_config import ResearchConfig
from ser_ros.training.evaluation import conditions

CORPORA = {'RAVDESS': {'train': ['02'], 'validation': ['03'], 'test': ['01', '11']}}
CODES = {'happy': '03', 'sad': '04', 'calm': '02'}


@pytest.fixture(scope='module')
def sounds(speech, segments):
    """A function: number → one and a half seconds of speech, different for each number."""

    def sound(number):
        start = segments[number % len(segments)].start + 40 * number
        return speech[start : start + 24_000]

    return sound


@pytest.fixture(scope='module')
def ravdess_like(sounds, tmp_path_factory):
    """Three clips of each of four actors."""
    folder = tmp_path_factory.mktemp('ravdess')
    for number, actor in enumerate(('01', '02', '03', '11')):
        for index, code in enumerate(CODES.values()):
            name = f'03-01-{code}-01-01-01-{actor}.wav'
            soundfile.write(folder / name, sounds(3 * number + index), 16_000)
    return folder


@pytest.fixture(scope='module')
def savee_like(sounds, tmp_path_factory):
    """Happy, sad and disgusted clips of two speakers."""
    folder = tmp_path_factory.mktemp('savee')
    for number, speaker in enumerate(('DC', 'JE')):
        for index, code in enumerate(('h', 'sa', 'd')):
            sound = sounds(20 + 3 * number + index)
            soundfile.write(folder / f'{speaker}_{code}01.wav', sound, 16_000)
    return folder


@pytest.fixture(scope='module')
def trained(write_bundle, tmp_path_factory):
    """A bundle that names the speakers of each subset of RAVDESS."""
    path = tmp_path_factory.mktemp('bundles') / 'trained.safetensors'
    return write_bundle(path, corpora=CORPORA)


@pytest.fixture
def evaluate(run, trained, ravdess_like):
    """A function: more arguments → exit status, lines on stdout, lines on stderr."""

    def run_evaluate(*arguments, bundle=trained, corpus=ravdess_like):
        options = ('--corpus', corpus, '--device', 'cpu', '--subset', 'validation')
        return run('evaluate', bundle, *options, *arguments)

    return run_evaluate


def test_it_prints_metrics_and_protocol(evaluate):
    status, out, err = evaluate()
    assert (status, err) == (0, [])
    assert out[0] == 'validation'
    lines = [' '.join(line.split()) for line in out[1:]]
    assert lines[0].startswith('protocol: speaker-independent: validation speakers of RAVDESS,')
    assert 'clips 3' in lines
    assert 'speakers 1' in lines
    starts = ('unweighted accuracy', 'calibration error', 'recall of happy', 'recall of calm')
    starts = (*starts, 'calibration error by chance 0.', 'siren (held out) count 1, too uncertain')
    assert all(any(line.startswith(start) for line in lines) for start in starts)


def test_the_test_set_is_the_default_where_there_is_one(run, write_bundle, ravdess_like, tmp_path):
    """Also of a bundle that was refitted with its validation speakers, such as the shipped one."""
    path = tmp_path / 'bundle.safetensors'
    command = ('evaluate', path, '--corpus', ravdess_like, '--device', 'cpu', '--json')
    for train, validation, test, expected in (
        (['02', '03'], [], ['01', '11'], 'test'),
        (['02'], ['03'], ['01'], 'test'),
        (['02'], ['03'], [], 'validation'),
    ):
        corpora = {'RAVDESS': {'train': train, 'validation': validation, 'test': test}}
        write_bundle(path, corpora=corpora)
        status, out, err = run(*command)
        assert (status, err) == (0, [])
        assert list(json.loads(out[0])) == [expected]
    write_bundle(path, corpora={'RAVDESS': {'train': ['02', '03']}})
    status, out, err = run(*command)
    assert (status, out) == (1, [])
    assert 'names no validation speakers of RAVDESS; --subset names other' in err[-1]


def test_it_prints_json(evaluate):
    status, out, _ = evaluate('--subset', 'test', '--gain-db', '-20', '--json')
    assert status == 0
    (metrics,) = map(json.loads, out)
    assert list(metrics) == ['test']
    assert metrics['test']['clips'] == 6
    assert metrics['test']['speakers'] == ['RAVDESS:01', 'RAVDESS:11']
    assert metrics['test']['protocol'].endswith('-20 dB')


def test_all_speakers_are_not_speaker_independent(evaluate):
    _, out, _ = evaluate('--subset', 'all', '--json')
    metrics = json.loads(out[0])['all']
    assert metrics['clips'] == 12
    assert metrics['protocol'].startswith('NOT speaker-independent')


def test_the_kind_of_a_corpus_can_be_named(evaluate, ravdess_like, savee_like, tmp_path):
    for path in (*ravdess_like.iterdir(), *savee_like.iterdir()):
        (tmp_path / path.name).symlink_to(path)
    status, _, err = evaluate(corpus=tmp_path)
    assert status == 1
    assert f'--corpus RAVDESS={tmp_path}' in err[0]
    status, out, _ = evaluate(
        '--corpus', f'savee={tmp_path}', '--json', corpus=f'RAVDESS={tmp_path}'
    )
    assert status == 0
    metrics = json.loads(out[0])
    assert [values['clips'] for values in metrics.values()] == [3, 6]
    status, _, err = evaluate(corpus=f'SAVE={tmp_path}')
    assert status == 1
    assert "'SAVE' is not one of" in err[-1]
    # The text before the = of a folder's name is no kind.
    (tmp_path / 'a=b').symlink_to(ravdess_like)
    assert evaluate(corpus=tmp_path / 'a=b')[0] == 0


def test_another_corpus_is_evaluated_as_well(evaluate, savee_like):
    status, out, err = evaluate('--corpus', savee_like, '--json')
    assert status == 0
    metrics = json.loads(out[0])
    assert list(metrics) == ['validation', 'SAVEE (other corpus)']
    other = metrics['SAVEE (other corpus)']
    assert other['clips'] == 6
    assert other['confusion']['columns'] == ['happy', 'sad', 'disgust', 'no speech']
    assert 'other corpus: all speakers of SAVEE' in other['protocol']
    assert 'unrestricted_accuracy' in other
    assert err == []


def test_labels_are_merged_as_in_training(
    evaluate, write_bundle, tmp_path, ravdess_like, savee_like
):
    path = write_bundle(
        tmp_path / 'merged.safetensors',
        class_names=('neutral', 'happy', 'sad'),
        corpora=CORPORA,
        recipe={'data': {'merge': {'calm': 'neutral'}}},
    )
    status, out, err = evaluate('--corpus', savee_like, '--json', bundle=path)
    assert status == 0
    metrics = json.loads(out[0])
    assert metrics['validation']['classes'].keys() == {'neutral', 'happy', 'sad'}
    assert metrics['SAVEE (other corpus)']['clips'] == 4
    assert err == ['ser_ros: SAVEE: 2 clips of disgust left out, no class of the bundle']


def test_it_records_in_the_bundle_and_its_card(evaluate, write_bundle, savee_like, tmp_path):
    path = write_bundle(tmp_path / 'mine.safetensors', corpora=CORPORA, metrics={'old': None})
    path = write_bundle(path, corpora=CORPORA)
    before = load_bundle(path)
    status, out, _ = evaluate(
        '--corpus', savee_like, '--subset', 'test', '--record', '--json', bundle=path
    )
    assert status == 0
    after = load_bundle(path)
    assert after.info.metrics == json.loads(out[0])
    assert list(after.info.metrics) == ['test', 'SAVEE (other corpus)']
    for name, weight in before.model.state_dict().items():
        assert (after.model.state_dict()[name] == weight).all()
    assert (after.frontend.mean == before.frontend.mean).all()
    text = (tmp_path / 'mine.md').read_text()
    assert '| test | 6 | 2 |' in text
    assert '| SAVEE (other corpus) | 6 | 2 |' in text
    # A subset that is evaluated later is added.
    evaluate('--record', bundle=path)
    assert list(load_bundle(path).info.metrics) == ['test', 'SAVEE (other corpus)', 'validation']


def test_it_quotes_the_metrics_of_other_bundles(evaluate, write_bundle, savee_like, tmp_path):
    other = write_bundle(tmp_path / 'other.safetensors', corpora=CORPORA)
    mine = write_bundle(tmp_path / 'mine.safetensors', corpora=CORPORA)
    status, out, err = evaluate('--record', '--quote', other, bundle=mine)
    assert (status, out) == (1, [])
    assert 'it has no metrics of other corpora' in err[0]
    evaluate('--corpus', savee_like, '--record', bundle=other)
    status, _, _ = evaluate('--record', '--quote', other, bundle=mine)
    assert status == 0
    metrics = load_bundle(mine).info.metrics
    name = 'SAVEE (other corpus), a model of RAVDESS alone'
    assert list(metrics) == ['validation', name]
    assert metrics[name] == load_bundle(other).info.metrics['SAVEE (other corpus)']
    assert f'| {name} | 6 | 2 |' in (tmp_path / 'mine.md').read_text()
    status, _, err = evaluate('--quote', other, bundle=mine)
    assert status == 1
    assert '--record' in err[0]


def test_it_writes_a_report(evaluate, tmp_path):
    status, out, _ = evaluate('--report', tmp_path / 'report.html', '--json')
    assert status == 0
    results = json.loads((tmp_path / 'report.json').read_text())
    assert results['subsets']['validation']['metrics'] == json.loads(out[0])['validation']
    assert len(results['subsets']['validation']['predictions']) == 3
    text = (tmp_path / 'report.html').read_text()
    assert text.count('<audio') == 3
    assert 'contains recordings of RAVDESS' in text


@pytest.fixture
def noise(tmp_path, monkeypatch):
    """A folder of three recordings of noise; the conditions are few, to save time."""
    monkeypatch.setattr(conditions, 'SNRS_DB', (0,))
    monkeypatch.setattr(conditions, 'DISTANCES', {})
    monkeypatch.setattr(conditions, 'CODECS', {})
    monkeypatch.setattr(conditions, 'GAINS_DB', (-20,))
    folder = tmp_path / 'kitchen'
    folder.mkdir()
    for number in range(3):
        samples = np.random.default_rng(number).standard_normal(32_000)
        soundfile.write(folder / f'{number}.wav', 0.1 * samples, 16_000)
    return folder


def test_it_evaluates_and_records_conditions(evaluate, write_bundle, noise, savee_like, tmp_path):
    path = write_bundle(tmp_path / 'mine.safetensors', corpora=CORPORA)
    report = tmp_path / 'report.html'
    status, out, err = evaluate(
        *('--corpus', savee_like, '--conditions', noise, '--record', '--report', report),
        bundle=path,
    )
    assert (status, err) == (0, [])
    lines = [line.strip() for line in out if line.startswith('  ')]
    assert sum('recordings below kitchen that no training' in line for line in lines) == 2
    named = [line.split('  ')[0] for line in lines]
    for name in ('clean', 'noise, SNR 0 dB', 'telephone, 8 kHz', 'gain -20 dB'):
        assert named.count(name) == 2
    metrics = load_bundle(path).info.metrics
    assert list(metrics) == ['validation', 'SAVEE (other corpus)']
    for values in metrics.values():
        clean, *others = values['conditions']['rows'].values()
        assert clean['unweighted_accuracy'] == values['unweighted_accuracy']
        assert [row['clips'] for row in others] == [values['clips']] * 3
    card = (tmp_path / 'mine.md').read_text()
    assert card.count('| telephone, 8 kHz |') == 2
    assert report.read_text().count('alt="Metrics under each condition') == 2


def test_what_conditions_cannot_be_used_with(evaluate, write_bundle, noise, tmp_path):
    path = write_bundle(tmp_path / 'whole.safetensors', frontend=ResearchConfig(), corpora=CORPORA)
    for arguments, bundle, message in (
        (('--conditions', noise, '--gain-db', '3'), path, 'leave'),
        (('--conditions', noise), path, 'a stream needs one for 16000 Hz'),
        (('--conditions', '/nowhere'), None, '/nowhere'),
    ):
        status, out, err = evaluate(*arguments, **({'bundle': bundle} if bundle else {}))
        assert (status, out) == (1, [])
        (line,) = err
        assert message in line


@pytest.mark.parametrize('arguments', [('--gain-db', '-20'), ('--subset', 'all')])
def test_only_an_unchanged_subset_is_recorded(evaluate, trained, arguments):
    before = trained.read_bytes()
    status, out, err = evaluate('--record', *arguments)
    assert (status, out) == (1, [])
    assert '--record' in err[0]
    assert trained.read_bytes() == before


def test_only_a_whole_subset_is_recorded(evaluate, write_bundle, tmp_path):
    path = write_bundle(
        tmp_path / 'two.safetensors',
        corpora={**CORPORA, 'SAVEE': {'train': ['DC'], 'validation': ['JE'], 'test': ['KL']}},
    )
    before = path.read_bytes()
    status, out, err = evaluate('--record', bundle=path)
    assert (status, out) == (1, [])
    assert 'SAVEE:JE' in err[0]
    assert path.read_bytes() == before
    # Without --record the speakers that are present are evaluated, with a note.
    status, _, err = evaluate(bundle=path)
    assert status == 0
    assert err == ['ser_ros: validation: no clips of SAVEE:JE']


def test_a_corpus_without_the_speakers(evaluate, write_bundle, tmp_path):
    path = write_bundle(
        tmp_path / 'others.safetensors',
        corpora={'RAVDESS': {'train': ['01'], 'validation': ['23'], 'test': ['24']}},
    )
    status, out, err = evaluate(bundle=path)
    assert (status, out) == (1, [])
    assert 'RAVDESS:23' in err[-1]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('/nowhere/b.safetensors', '--corpus', '/nowhere'), '/nowhere/b.safetensors'),
        (('--corpus', '/nowhere'), '/nowhere'),
        (('--corpus', '/nowhere', '--report', '/nowhere/report.html'), '/nowhere/report.html'),
        (('--corpus', '/nowhere', '--report', 'report.json'), 'name it .html'),
    ],
)
def test_errors_are_one_line(run, trained, arguments, message):
    if arguments[0].startswith('--'):
        arguments = (trained, *arguments)
    status, out, err = run('evaluate', *arguments)
    assert (status, out) == (1, [])
    (line,) = err
    assert line.startswith('ser_ros: ')
    assert message in line


# --- In several processes, and interrupted


@pytest.fixture
def small_batches(monkeypatch):
    """Two clips in a batch, so that the corpora here have several."""
    from ser_ros.training.evaluation import prediction

    monkeypatch.setattr(prediction, 'BATCH_SIZE', 2)


def test_several_processes_have_the_results_of_one(evaluate, noise, small_batches, tmp_path):
    report = tmp_path / 'r.html'

    def results(*arguments):
        options = ('--subset', 'test', '--conditions', noise, '--json')
        status, out, err = evaluate(*options, *arguments)
        assert (status, err) == (0, [])
        return out[:1]

    journal = tmp_path / 'journal'
    one = results('--resume', journal, '--report', report)
    reported = json.loads(report.with_suffix('.json').read_text())
    assert reported['subsets']['test']['metrics']['clips'] == 6
    # Three batches, clean and under each condition, of which none is computed again.
    lines = journal.read_bytes().splitlines(keepends=True)
    n_conditions = len(reported['subsets']['test']['metrics']['conditions']['rows'])
    assert len(lines) == 1 + 3 * n_conditions
    journal.write_bytes(b''.join(lines[:4]) + lines[4][:100])
    assert results('--workers', 2, '--resume', journal, '--report', report) == one
    assert json.loads(report.with_suffix('.json').read_text()) == reported
    assert sorted(journal.read_bytes().splitlines(keepends=True)) == sorted(lines)
    assert results('--resume', journal) == one
    assert sorted(journal.read_bytes().splitlines(keepends=True)) == sorted(lines)


def test_so_have_those_of_a_bundle_for_whole_clips(
    evaluate, write_bundle, small_batches, tmp_path
):
    path = write_bundle(tmp_path / 'whole.safetensors', frontend=ResearchConfig(), corpora=CORPORA)
    options = ('--subset', 'test', '--gain-db', -6, '--json')
    one = evaluate(*options, bundle=path)
    assert one[0] == 0
    assert evaluate(*options, '--workers', 2, '--resume', tmp_path / 'j', bundle=path) == one
    assert evaluate(*options, '--resume', tmp_path / 'j', bundle=path) == one


def test_a_journal_of_other_settings_is_refused(evaluate, tmp_path):
    options = ('--resume', tmp_path / 'journal')
    assert evaluate(*options)[0] == 0
    status, out, (line,) = evaluate(*options, '--gain-db', -6)
    assert (status, out) == (1, [])
    assert f'{tmp_path}/journal: it was begun with another gain_db; ' in line


def test_a_clip_that_cannot_be_read_is_one_line(evaluate, ravdess_like, tmp_path, monkeypatch):
    from ser_ros.training.data import corpora

    read = corpora.read_corpora

    def lose_one(*arguments):
        loaded = read(*arguments)
        loaded[0].clips[0].path.unlink()
        return loaded

    folder = shutil.copytree(ravdess_like, tmp_path / 'ravdess')
    monkeypatch.setattr(corpora, 'read_corpora', lose_one)
    status, out, (line,) = evaluate('--subset', 'all', '--workers', 2, corpus=folder)
    assert (status, out) == (1, [])
    assert 'no such file' in line
