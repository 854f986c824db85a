"""`cross-validate --leave-out-corpus` and `calibrate`: three small corpora, one epoch."""

import dataclasses
import json

import pytest

from ser_ros.__main__ import main
from ser_ros.bundle import load_bundle, save_bundle
from ser_ros.training.data.corpora import read_corpus
from ser_ros.training.evaluation.selection import select
from ser_ros.training.left_out import _pairs
from ser_ros.training.reports.left_out import read_summaries, read_summary
from ser_ros.training.reports.results_page import _left_out

RECIPE = """
architecture: perceptron
frontend: {kind: log_mel}
data: {corpora: [A, B, C], mask_absent_classes: true, balance_corpora: true, epoch_clips: 32}
voice: {copies: 1}
augmentation: {crop: [0.3, 1.0], mixup_alpha: 0.0}
optimization: {epochs: 1, batch_size: 16}
"""
NAMES = ('A', 'B', 'C')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('left_out')
    (folder / 'strangers.yaml').write_text(RECIPE)
    return folder


@pytest.fixture
def validate(folder, three_corpora, cache):
    def run(*arguments, names=NAMES):
        sources = [
            option for name in NAMES for option in ('--corpus', str(three_corpora / f'{name}.csv'))
        ]
        return main(
            [
                *('cross-validate', str(folder / 'strangers.yaml'), *sources),
                *('--device', 'cpu', '--cache', str(cache), '--out', str(folder / 'runs')),
                *('--results', str(folder / 'results'), '--leave-out-corpus', *names, *arguments),
            ]
        )

    return run


@pytest.fixture
def result(validate, folder):
    """The result file; trained once."""
    path = folder / 'results' / 'strangers' / 'left_out_seed1.json'
    if not path.exists():
        assert validate() == 0
    return path


def test_each_corpus_is_left_out_with_choices_made_on_others(result, folder):
    summary = read_summary(result)
    assert [r.corpus for r in summary.results] == list(NAMES)
    assert summary.results[0].protocol == 'A left out, trained on all speakers of B, C'
    assert [r.chosen_on for r in summary.results] == [('B', 'C'), ('A', 'C'), ('A', 'B')]
    for found in summary.results:
        assert found.metrics['cold']['clips'] == 16
        assert set(found.metrics['streams']) >= {'balanced', 'mostly neutral', 'only sad'}
        assert 0 <= found.choices.threshold <= 1
    runs = sorted(path.name for path in (folder / 'runs').glob('without_*') if path.is_dir())
    assert runs == [
        *('without_A+B_seed1', 'without_A+C_seed1', 'without_A_seed1'),
        *('without_B+C_seed1', 'without_B_seed1', 'without_C_seed1'),
    ]
    trained = load_bundle(folder / 'runs' / 'without_A+B_seed1' / 'strangers.safetensors').info
    assert list(trained.corpora['C']['train']) == ['p', 'q']
    assert not trained.corpora['A']['train']
    assert trained.adaptation.by_voice


@pytest.mark.parametrize(
    ('neighbours', 'pairs'),
    [
        (1, 'AB AE BC CD DE'),
        (2, 'AB AC AD AE BC BD BE CD CE DE'),
        (None, 'AB AC AD AE BC BD BE CD CE DE'),
    ],
)
def test_pairs_of_neighbours_in_a_circle(neighbours, pairs):
    assert [''.join(pair) for pair in _pairs('ABCDE', neighbours)] == pairs.split()


def test_neighbours_are_of_corpora_left_out(capsys):
    arguments = (
        'cross-validate',
        'companion',
        '--corpus',
        '.',
        '--out',
        'runs',
        '--neighbours',
        '1',
    )
    assert main(arguments) == 1
    assert '--neighbours needs --leave-out-corpus' in capsys.readouterr().err


def test_finished_runs_are_not_repeated(result, validate, folder, capsys):
    before = result.read_text()
    assert validate() == 0
    out = capsys.readouterr().out
    assert 'without_' not in out
    assert 'corpus left out' in out
    assert '**mean**' in out
    first, again = json.loads(before), json.loads(result.read_text())
    assert first['results'] == again['results']
    # A damaged file of scores is made again, from the run that is finished.
    scores = folder / 'runs' / 'without_A_seed1' / 'scores.safetensors'
    scores.write_bytes(scores.read_bytes()[:100])
    assert validate() == 0
    assert json.loads(result.read_text())['results'] == first['results']


def test_the_page_of_results_shows_them(result):
    (section,) = _left_out(read_summaries(result.parents[1]))
    assert section['name'] == 'strangers'
    assert section['facts'].endswith('choices for each corpus on 2 others')
    assert section['table'].count('\n') == len(NAMES) + 2
    assert '21 and more' in section['curve']


@pytest.mark.parametrize(
    ('arguments', 'names', 'said'),
    [
        ((), ('A', 'B'), 'name three or more corpora to leave out'),
        ((), ('A', 'B', 'D'), 'left_out has D, not one of A, B, C'),
        (
            ('--set', 'pretrained=companion'),
            NAMES,
            "pretrained is 'companion': its weights may know",
        ),
        (
            ('--set', 'distillation.teacher=companion', 'voice.copies=0'),
            NAMES,
            "distillation.teacher is 'companion': its weights may know",
        ),
        (('--neighbours', '0'), NAMES, 'neighbours is 0, not 1 or more'),
        (('--folds', '1'), NAMES, '--folds cannot be used with --leave-out-corpus'),
    ],
)
def test_what_cannot_be_left_out_is_one_line(validate, capsys, arguments, names, said):
    assert validate(*arguments, names=names) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert said in error
    assert error.startswith('ser_ros: ')


def test_a_bundle_gets_what_was_chosen(result, folder, tmp_path, capsys):
    source = load_bundle(folder / 'runs' / 'without_A_seed1' / 'strangers.safetensors')
    path = tmp_path / 'mine.safetensors'
    info = dataclasses.replace(source.info, metrics={'test': {}})
    save_bundle(path, info, source.frontend, source.model)
    assert main(['calibrate', str(path), str(result)]) == 0
    chosen, calibrated = read_summary(result).choices, load_bundle(path).info
    assert calibrated.temperature == chosen.temperature
    assert calibrated.threshold == chosen.threshold
    assert calibrated.adaptation.neutral_share == chosen.neutral_share
    assert calibrated.metrics == {}
    assert 'without one of A, B, C' in calibrated.calibration
    assert f'threshold {chosen.threshold:.3f}' in capsys.readouterr().out


def test_a_bundle_of_another_recipe_is_refused(result, bundle_path, tmp_path, capsys):
    path = tmp_path / 'other.safetensors'
    path.write_bytes(bundle_path.read_bytes())
    assert main(['calibrate', str(path), str(result)]) == 1
    assert 'trained by another recipe' in capsys.readouterr().err
    assert path.read_bytes() == bundle_path.read_bytes()
    broken = tmp_path / 'broken.json'
    broken.write_text('{}')
    assert main(['calibrate', str(path), str(broken)]) == 1
    assert 'is not a result of cross-validate --leave-out-corpus' in capsys.readouterr().err


@pytest.fixture
def calibrate(three_corpora, cache, tmp_path):
    """A function: a bundle, names of corpora → the status of `calibrate`, and the path of its copy."""

    def run(source, *names):
        path = tmp_path / 'mine.safetensors'
        path.write_bytes(source.read_bytes())
        sources = [
            option
            for name in names
            for option in ('--corpus', str((three_corpora / name).with_suffix('.csv')))
        ]
        command = ['calibrate', str(path), *sources, '--device', 'cpu', '--cache', str(cache)]
        results = ['--results', str(tmp_path / 'results')] if len(names) > 1 else []
        return main([*command, *results]), path

    return run


@pytest.fixture
def trained_on_c(result, folder):
    return folder / 'runs' / 'without_A+B_seed1' / 'strangers.safetensors'


def test_a_bundle_is_calibrated_on_corpora_that_are_new_to_it(calibrate, trained_on_c, capsys):
    status, path = calibrate(trained_on_c, 'A', 'B')
    assert status == 0
    header, *rows, said = capsys.readouterr().out.splitlines()
    assert header.startswith('corpus left out')
    assert [row.split()[0] for row in rows] == ['A', 'B', '**mean**']
    before, after = (load_bundle(p).info for p in (trained_on_c, path))
    assert after.calibration == 'A, B, which are new to it'
    assert (before.temperature, before.threshold) == (1.0, 0.0)
    assert said == (
        f'{path}: temperature {after.temperature:.3f}, threshold {after.threshold:.3f}, '
        f'neutral share {after.adaptation.neutral_share:g}, rare ratio 0.25'
    )
    assert 0 < after.threshold < 1
    assert after.metrics == {}
    assert 'were chosen on A, B, which are new to it' in path.with_suffix('.md').read_text()
    # What it had been calibrated on before makes no difference.
    again, second = calibrate(path, 'A', 'B')
    assert again == 0
    assert load_bundle(second).info == after


def test_the_page_of_results_shows_one_model_on_corpora_that_are_new_to_it(
    calibrate, trained_on_c, tmp_path
):
    assert calibrate(trained_on_c, 'A', 'B')[0] == 0
    (section,) = _left_out(read_summaries(tmp_path / 'results'))
    assert section['name'] == 'strangers'
    assert '; one model, trained on C; choices' in section['facts']
    assert section['table'].count('\n') == 4


def test_one_corpus_is_enough_and_has_no_metrics(calibrate, trained_on_c, capsys):
    status, path = calibrate(trained_on_c, 'B')
    assert status == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert load_bundle(path).info.calibration == 'B, which are new to it'


def test_results_of_one_corpus_are_refused(three_corpora, trained_on_c, tmp_path, capsys):
    corpus, results = str(three_corpora / 'B.csv'), tmp_path / 'results'
    command = ['calibrate', str(trained_on_c), '--corpus', corpus, '--results', str(results)]
    assert main(command) == 1
    assert '--results needs two corpora or more' in capsys.readouterr().err
    assert not results.exists()


def test_evaluations_state_what_was_calibrated_on(calibrate, trained_on_c, three_corpora):
    _, path = calibrate(trained_on_c, 'B')
    info = load_bundle(path).info
    # A name that stands in the sentence, but is not that of a corpus.
    info = dataclasses.replace(
        info, corpora={'C': info.corpora['C']}, calibration='B, which are new to A'
    )
    one, two = (
        select(info, [read_corpus(three_corpora / f'{name}.csv')], 'all')[0].protocol
        for name in 'AB'
    )
    assert 'were chosen on them' not in one
    assert two.endswith('; its temperature and threshold were chosen on them')


@pytest.mark.parametrize(
    ('names', 'said'),
    [
        ((), 'name either LEFT_OUT.json or corpora that are new to the bundle (--corpus)'),
        (('A', 'C'), 'it was trained on C: name corpora that are new to it'),
    ],
)
def test_corpora_that_are_not_new_are_refused(calibrate, trained_on_c, capsys, names, said):
    status, path = calibrate(trained_on_c, *names)
    assert status == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith(f': {said}')
    assert path.read_bytes() == trained_on_c.read_bytes()


def test_a_bundle_that_does_not_adapt_is_refused(calibrate, bundle_path, capsys):
    status, path = calibrate(bundle_path, 'A')
    assert status == 1
    assert 'does not adapt to voices' in capsys.readouterr().err
    assert path.read_bytes() == bundle_path.read_bytes()


def test_a_corpus_without_a_whole_speaker_is_named(
    calibrate, trained_on_c, three_corpora, tmp_path, capsys
):
    lines = (three_corpora / 'A.csv').read_text().splitlines()
    rows = [
        lines[0],
        *(str(three_corpora / line) for line in lines[1:] if ',neutral,p' not in line),
    ]
    few = tmp_path / 'few.csv'
    few.write_text('\n'.join(row for row in rows if ',happy,q' not in row))
    status, path = calibrate(trained_on_c, few)
    assert status == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(
        'ser_ros: few: nothing can be chosen on it: no speaker has eight clips'
    )
    assert path.read_bytes() == trained_on_c.read_bytes()


def test_finished_runs_of_another_recipe_or_on_other_clips_are_refused(
    validate, result, three_corpora, capsys
):
    before = result.read_bytes()
    assert validate('--set', 'voice.memory=5') == 1
    assert 'without_A_seed1 holds a run of another recipe (voice.memory=' in only_line(capsys)
    table = three_corpora / 'A.csv'
    text = table.read_text()
    try:
        table.write_text(''.join(text.splitlines(keepends=True)[:-1]))
        assert validate() == 1
    finally:
        table.write_text(text)
    assert 'without_A_seed1 holds a run on other clips' in only_line(capsys)
    assert result.read_bytes() == before


def test_a_recording_in_two_corpora_is_refused(validate, three_corpora, folder, capsys):
    table = three_corpora / 'A.csv'
    copied = three_corpora / 'copied.csv'
    copied.write_text(''.join(table.read_text().splitlines(keepends=True)[:5]))
    try:
        assert validate('--corpus', str(copied), '--set', 'data.corpora=[A,B,C,copied]') == 1
    finally:
        copied.unlink()
    assert '4 recordings are in two corpora, such as' in only_line(capsys)


def only_line(capsys):
    """The error; before it are the files that are left out."""
    *_, line = capsys.readouterr().err.splitlines()
    return line
