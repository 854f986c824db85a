"""The command `cross-validate`: two folds, one epoch, and the same command repeated."""

import json
import shutil
from collections import Counter

import pytest
import torch
from filelock import FileLock

from ser_ros.__main__ import main
from ser_ros.bundle import load_bundle
from ser_ros.models.parallel_cnn_transformer import ParallelCnnTransformer
from ser_ros.training.reports.results import read_fold

RECIPE = """
split: {protocol: leave_one_speaker_out, validation_speakers: ['03']}
augmentation: {crop: [1.0, 1.5]}
optimization: {epochs: 1, batch_size: 8}
"""


class Session:
    """A folder with a recipe for the command."""

    def __init__(self, folder, corpus, cache, capsys):
        self.folder, self.corpus, self.cache, self.capsys = folder, corpus, cache, capsys

    def __call__(self, *arguments):
        """Exit status, lines on stdout, messages on stderr."""
        status = main(
            [
                *('cross-validate', str(self.folder / 'short.yaml')),
                *('--corpus', str(self.corpus), '--device', 'cpu', '--cache', str(self.cache)),
                *('--out', str(self.folder / 'runs'), '--results', str(self.folder / 'results')),
                *arguments,
            ]
        )
        out, err = self.capsys.readouterr()
        lines = [line.rsplit('\r', 1)[-1].strip() for line in err.splitlines()]
        return status, out.splitlines(), [line for line in lines if line.startswith('ser_ros: ')]

    def result(self, name):
        return self.folder / 'results' / 'short' / f'{name}.json'


@pytest.fixture(scope='module')
def template(tmp_path_factory):
    """The folder of the first session; the others start from copies of it."""
    return tmp_path_factory.mktemp('cross_validation') / 'template'


@pytest.fixture
def steps():
    """Counts training steps."""
    counter = Counter()

    def hook(module, inputs):
        if isinstance(module, ParallelCnnTransformer) and module.training:
            counter['steps'] += 1

    handle = torch.nn.modules.module.register_module_forward_pre_hook(hook)
    yield counter
    handle.remove()


@pytest.fixture
def session(template, tmp_path, tiny_corpus, cache, capsys):
    """A session in which folds 5 and 1 are finished, and fold 3 could not be."""
    session = Session(tmp_path / 'session', tiny_corpus, cache, capsys)
    if not template.exists():
        first = Session(template, tiny_corpus, cache, capsys)
        template.mkdir()
        (template / 'short.yaml').write_text(RECIPE)
        # Fold 3 tests the validation speaker: it fails, and the next fold is still run.
        first.outcome = first('--folds', '5,3,1')
        (template / 'outcome.json').write_text(json.dumps(first.outcome))
    shutil.copytree(template, session.folder)
    session.outcome = json.loads((template / 'outcome.json').read_text())
    return session


def test_a_fold_that_fails_does_not_stop_the_others(session):
    status, out, err = session.outcome
    assert status == 1
    # At once, and at the end.
    assert sum(line.startswith('ser_ros: fold3_seed1: ') and '03' in line for line in err) == 2
    assert '1 of the runs failed' in err[-1]
    table = [line for line in out if line.startswith('|')]
    assert [line.split('|')[1].strip() for line in table] == [
        *('fold', '---', '1', '5', 'pooled', 'mean ± std')
    ]
    assert (session.folder / 'runs' / 'table.md').read_text().splitlines() == table
    page = (session.folder / 'runs' / 'report.html').read_text()
    assert '<title>short: 2 of 7 folds, seed 1' in page
    assert page.count('<audio') > 0  # the hardest clips


def test_the_stored_result_of_a_fold(session):
    result = read_fold(session.result('fold5_seed1'))
    assert (result.name, result.fold, result.seed, result.n_folds) == ('short', 5, 1, 7)
    assert result.is_speaker_independent
    assert 'fold 5' in result.protocol
    assert result.protocol.split('; ')[2] == (
        'the test set has no clips of calm, disgust, fearful, sad, surprised'
    )
    assert len(result.class_names) == 8
    assert result.epochs == 1
    assert result.parameters == result.trainable_parameters > 100_000
    assert result.seconds_per_epoch > 0
    assert 0 < result.milliseconds_per_window < 1000
    assert result.source_rate == 16_000
    assert result.machine['device'] == 'cpu'
    assert result.machine['processor']
    assert result.versions['torch'] == torch.__version__
    assert result.validation['speakers'] == ['RAVDESS:03']
    assert result.test['speakers'] == ['RAVDESS:11']
    assert result.test['clips'] == len(result.predictions['name']) == 3
    bundle = load_bundle(session.folder / 'runs' / 'fold5_seed1' / 'short.safetensors')
    assert bundle.info.temperature == result.temperature
    assert bundle.info.metrics['test']['accuracy'] == pytest.approx(
        result.test['accuracy'], abs=1e-4
    )
    written = json.loads((bundle.path.parent / 'results.json').read_text())
    assert list(written['subsets']) == ['validation', 'test']


def test_a_fold_without_a_validation_set(session):
    (session.folder / 'short.yaml').write_text(
        RECIPE.replace("validation_speakers: ['03']", 'n_validation: 0') + 'voice: {copies: 1}\n'
    )
    arguments = ('--out', str(session.folder / 'by_voice'))
    status, out, err = session(
        *('--folds', '5', '--results', str(session.folder / 'by_voice' / 'results'), *arguments)
    )
    assert status == 0, err
    table = [line.split('|') for line in out if line.startswith('| 5 ')]
    assert [cell.strip() for cell in table[0][1:5]] == ['5', '1', '', '11']
    result = read_fold(session.folder / 'by_voice' / 'results' / 'short' / 'fold5_seed1.json')
    assert result.validation == {}
    assert result.test['clips'] == 3


def test_the_recipes_seed_is_that_of_the_runs(session):
    session('--folds', '4', '--set', 'seed=9')
    assert read_fold(session.result('fold4_seed9')).seed == 9


def test_finished_folds_are_not_repeated(session, steps):
    before = {path: path.read_bytes() for path in session.result('x').parent.iterdir()}
    assert len(before) == 2
    status, out, err = session('--folds', '1,5')
    assert (status, err, steps['steps']) == (0, [], 0)
    assert {path: path.read_bytes() for path in before} == before
    first = [line for line in session.outcome[1] if line.startswith('|')]
    assert [line for line in out if line.startswith('|')] == first


def test_finished_folds_that_started_from_a_bundle_are_not_repeated(session, steps):
    """Results name the bundle, not its folder."""
    bundle = session.folder / 'runs' / 'fold5_seed1' / 'short.safetensors'
    arguments = ('--folds', '4', '--set', f'pretrained={bundle}')
    results = session.folder / 'tuned'
    folders = ('--out', str(session.folder / 'tuned_runs'), '--results', str(results))
    status, _, err = session(*arguments, *folders)
    assert (status, err) == (0, [])
    result = read_fold(results / 'short' / 'fold4_seed1.json')
    assert result.recipe['pretrained'] == 'short.safetensors'
    steps.clear()
    status, _, err = session(*arguments, *folders)
    assert (status, err, steps['steps']) == (0, [], 0)


def test_a_fold_that_was_trained_but_not_tested_is_only_tested(session, steps):
    path = session.result('fold1_seed1')
    before = read_fold(path)
    path.unlink()
    (session.folder / 'runs' / 'fold1_seed1.lock').touch()  # left by a process that was killed
    status, _, err = session('--folds', '1')
    assert (status, err, steps['steps']) == (0, [], 0)
    after = read_fold(path)
    assert after.predictions == before.predictions
    assert after.test == before.test


def test_a_fold_of_another_process_is_skipped(session, steps):
    session.result('fold1_seed1').unlink()
    with FileLock(session.folder / 'runs' / 'fold1_seed1.lock'):
        status, out, err = session('--folds', '1,5')
    assert (status, err, steps['steps']) == (0, [], 0)
    assert out[-1].startswith('fold1_seed1: ')
    assert not session.result('fold1_seed1').exists()
    assert any('1 of 7 folds' in line for line in out)


def test_results_of_another_recipe_are_not_mixed_in(session, steps):
    status, out, err = session('--folds', '1', '--set', 'optimization.learning_rate=0.5')
    assert (status, out, steps['steps']) == (1, [], 0)
    (line,) = err
    assert 'fold1_seed1.json' in line
    assert 'optimization.learning_rate=0.001' in line


@pytest.mark.parametrize('has_digest', [True, False])
def test_results_of_another_corpus_are_not_mixed_in(session, steps, has_digest):
    """Results of a release that stored no digest are accepted."""
    path = session.result('fold1_seed1')
    if not has_digest:
        values = json.loads(path.read_text())
        assert values.pop('split_digest')
        path.write_text(json.dumps(values))
    session.corpus = shutil.copytree(session.corpus, session.folder / 'corpus')
    next(session.corpus.glob('Actor_02/*')).unlink()
    status, out, err = session('--folds', '1')
    assert steps['steps'] == 0
    if has_digest:
        (line,) = err
        assert (status, out) == (1, [])
        assert 'fold1_seed1.json' in line
        assert 'the corpus has changed since' in line
    else:
        assert (status, err) == (0, [])


@pytest.mark.parametrize('option', ['--out', '--results'])
def test_a_file_where_a_folder_should_be(session, option):
    status, out, err = session('--folds', '2', option, __file__)
    (line,) = err
    assert (status, out) == (1, [])
    assert 'test_cross_validate.py' in line
    assert 'cannot be made' in line


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--folds', '8'], 'fold 8'),
        (['--folds', '0'], 'there is no fold 0: the folds are 1 to 7'),
        (['--set', 'split.protocol=random', 'split.validation_speakers=[]', '--folds', '6'], '6'),
        (['--corpus', 'nowhere'], 'nowhere'),
        (['--set', 'split.protocol=published'], 'leave_one_speaker_out'),
        (['--set', 'split.fold=2'], '--folds'),
    ],
)
def test_errors_are_one_line(session, arguments, message):
    status, out, err = session(*arguments)
    assert (status, out) == (1, [])
    (line,) = err
    assert message in line


def test_an_error_of_all_folds_is_printed_once(session):
    out = str(session.folder / 'others')
    status, _, err = session('--set', 'data.corpora=[SAVEE]', '--out', out, '--results', out)
    assert status == 1
    first, last = err
    assert first.startswith('ser_ros: fold1_seed1, fold2_seed1, ')
    assert 'RAVDESS' in first
    assert '7 of the runs failed' in last


@pytest.mark.parametrize('text', ['', '1-', '3-1', 'all', '1,,2', '-1', '1-99999'])
def test_invalid_lists_of_numbers(capsys, text):
    with pytest.raises(SystemExit) as caught:
        main(['cross-validate', 'vgg', '--corpus', 'x', '--out', 'y', f'--seeds={text}'])
    assert caught.value.code == 2
    assert '--seeds' in capsys.readouterr().err


def test_a_corpus_of_ones_own(own_corpus, tmp_path, cache, capsys):
    for path in own_corpus.rglob('*.wav'):
        emotion = path.parent.name
        copy = tmp_path / 'mine' / emotion / path.stem[:3] / f'{emotion}.wav'
        copy.parent.mkdir(parents=True)
        shutil.copy(path, copy)
    session = Session(tmp_path, tmp_path / 'mine', cache, capsys)
    (tmp_path / 'short.yaml').write_text(RECIPE[RECIPE.index('augmentation') :])
    status, _, err = session('--folds', '2')
    assert (status, err) == (0, [])
    result = read_fold(session.result('fold2_seed1'))
    assert (result.fold, result.n_folds, result.is_speaker_independent) == (2, 4, True)
    assert [len(s) for s in (result.test['speakers'], result.validation['speakers'])] == [1, 1]
    assert result.recipe['data']['corpora'] == ['mine']
    # The next session chooses the same, and repeats nothing.
    before = session.result('fold2_seed1').read_bytes()
    assert session('--folds', '2')[0] == 0
    assert session.result('fold2_seed1').read_bytes() == before
