"""The command `train`."""

import functools
import json
import re
import sys
from collections import Counter

import pytest
import torch
from tqdm import tqdm

from ser_ros.__main__ import main
from ser_ros.bundle import load_bundle
from ser_ros.commands.arguments import recipe_names
from ser_ros.emotions import OTHERS
from ser_ros.models.parallel_cnn_transformer import ParallelCnnTransformer
from ser_ros.shipped import shipped_recipes
from ser_ros.training.evaluation import prediction

RECIPE = """
split: {validation_speakers: ['03']}
augmentation: {crop: [1.0, 1.5]}
optimization: {epochs: 1, batch_size: 8}
"""
BATCHES = 2


@pytest.fixture
def run(capsys, tmp_path, tiny_corpus, cache, monkeypatch):
    """A function: arguments → exit status, lines on stdout, the last line on stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'short.yaml').write_text(RECIPE)

    def run_train(*arguments):
        status = main(
            [
                *('train', 'short.yaml', '--corpus', str(tiny_corpus)),
                *('--cache', str(cache), '--device', 'cpu', *arguments),
            ]
        )
        out, err = capsys.readouterr()
        # Between them are progress bars.
        starts = ('protocol: ', 'validation, ', 'bundle: ', 'card: ', 'report: ')
        return status, [o for o in out.splitlines() if o.startswith(starts)], err.splitlines()[-1]

    return run_train


@pytest.fixture
def steps():
    """Counts training steps; Ctrl-C is pressed at step `interrupt_at`."""
    counter = Counter()
    counter.interrupt_at = None

    def hook(module, inputs):
        if isinstance(module, ParallelCnnTransformer) and module.training:
            if counter['steps'] == counter.interrupt_at:
                raise KeyboardInterrupt
            counter['steps'] += 1

    handle = torch.nn.modules.module.register_module_forward_pre_hook(hook)
    yield counter
    handle.remove()


def test_after_ctrl_c_the_same_command_continues(run, tmp_path, steps):
    command = ('--set', 'optimization.epochs=2', 'seed=5', '--cache', 'decoded')
    steps.interrupt_at = BATCHES + 1
    status, out, err = run(*command)
    assert (status, out) == (130, [])
    assert 'same command' in err
    folder = tmp_path / 'runs' / 'short'
    assert not (folder / 'short.safetensors').exists()

    steps.interrupt_at = None
    steps.clear()
    status, out, _ = run(*command)
    assert status == 0
    assert steps['steps'] == BATCHES  # only the interrupted epoch
    assert out[0].startswith('protocol: speaker-independent')
    assert 'streamed' in out[0]
    assert 'validation, clips: 8' in out
    assert any(line.startswith('validation, unweighted accuracy: ') for line in out)
    assert out[-3:] == [
        'bundle: runs/short/short.safetensors',
        'card: runs/short/short.md',
        'report: runs/short/report.html',
    ]
    bundle = load_bundle(folder / 'short.safetensors')
    assert (bundle.info.seed, bundle.info.recipe['optimization']['epochs']) == (5, 2)
    assert bundle.info.metrics['validation']['protocol'] == out[0].removeprefix('protocol: ')
    assert '# short' in (folder / 'short.md').read_text()
    results = json.loads((folder / 'results.json').read_text())
    assert list(results['subsets']) == ['validation']
    assert [row['epoch'] for row in results['history']] == [0, 1]
    assert results['facts']['settings']['seed'] == 5
    assert '<title>short, fold 1, seed 5' in (folder / 'report.html').read_text()
    assert list((tmp_path / 'decoded').rglob('*'))


def test_a_training_without_a_validation_set_ends_with_card_and_report(run, tmp_path):
    status, out, _ = run(
        '--set', 'split.n_validation=0', 'split.validation_speakers=[]', 'voice.copies=2'
    )
    assert status == 0
    assert out == [
        'bundle: runs/short/short.safetensors',
        'card: runs/short/short.md',
        'report: runs/short/report.html',
    ]
    folder = tmp_path / 'runs' / 'short'
    assert load_bundle(folder / 'short.safetensors').info.metrics == {}
    card = (folder / 'short.md').read_text()
    assert 'Not evaluated on its own corpora yet' in card
    assert 'Temperature and threshold were chosen' not in card
    results = json.loads((folder / 'results.json').read_text())
    assert results['subsets'] == {}
    assert len(results['history']) == 1
    page = (folder / 'report.html').read_text()
    assert 'Loss' in page
    assert 'Summary' not in page


def test_a_log_file_has_a_line_for_each_epoch(tiny_corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'short.yaml').write_text(RECIPE)
    command = ['train', 'short.yaml', '--corpus', str(tiny_corpus), '--no-cache']
    assert not main([*command, '--set', 'optimization.epochs=2', 'refit=true'])
    out, err = capsys.readouterr()
    assert out.startswith('protocol: ')  # only the results are on stdout
    assert '\r' not in err
    epochs = [line for line in err.splitlines() if 'epoch' in line]
    number, validated = r'\d+\.\d', r', val_loss \d\.\d{3}, val_accuracy \d\.\d{3}'
    patterns = [
        rf'{title}epoch {epoch} of 2, {number} s, train_loss \d\.\d{{3}}{metrics}'
        for title, metrics in (('', validated), ('refit, ', ''))
        for epoch in (1, 2)
    ]
    assert len(epochs) == 4
    for line, pattern in zip(epochs, patterns):
        assert re.fullmatch(pattern, line)


def test_the_bar_in_a_terminal_names_the_last_epoch(tiny_corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
    # It would leave out what comes within a tenth of a second.
    eager = functools.partial(tqdm, mininterval=0, miniters=1)
    monkeypatch.setattr(prediction, 'tqdm', eager)
    (tmp_path / 'short.yaml').write_text(RECIPE)
    assert not main(['train', 'short.yaml', '--corpus', str(tiny_corpus), '--no-cache'])
    out, err = capsys.readouterr()
    assert out.startswith('protocol: ')
    assert 'epoch 1 of 1: 100%' in err
    assert 'streaming: 100%' in err


def test_a_quick_trial_is_marked_and_evaluates_half(run, tmp_path):
    status, out, _ = run('--quick')
    assert status == 0
    assert out[0].startswith('protocol: QUICK TRIAL: every second validation and test clip; ')
    assert 'validation, clips: 8' in out  # one of each class, of eight classes
    folder = tmp_path / 'runs' / 'short_quick'
    card, report = (folder / 'short.md').read_text(), (folder / 'report.html').read_text()
    assert card.splitlines()[2].startswith('**QUICK TRIAL**: trained to try settings, not for use')
    assert '<title>QUICK TRIAL: short, fold 1, seed 1' in report
    for text in (card, report):
        assert 'sounds without a voice were not evaluated' in text
        assert 'Sounds without a voice' not in text
    assert 'nonspeech' not in load_bundle(folder / 'short.safetensors').info.metrics['validation']
    status, out, err = run('--quick', '--set', 'refit=true')
    assert (status, out) == (1, [])
    assert 'a quick trial is not refitted' in err


def test_a_quick_trial_does_not_refit(run, tmp_path, steps):
    (tmp_path / 'short.yaml').write_text('inherit: once.yaml\nrefit: true\n')
    (tmp_path / 'once.yaml').write_text(RECIPE)
    assert run('--quick')[0] == 0
    assert steps['steps'] == BATCHES


@pytest.mark.parametrize('is_slow', [False, True])
def test_bf16_without_support_is_said_and_not_tried(run, tmp_path, caplog, monkeypatch, is_slow):
    from ser_ros.training import run as training
    from ser_ros.training.learning import fit

    for module in (fit, training):
        monkeypatch.setattr(module, 'is_slow_in_bf16', lambda device: is_slow)
    (tmp_path / 'once.yaml').write_text(RECIPE)
    text = 'inherit: once.yaml\noptimization: {precision: bf16-mixed}\n'
    (tmp_path / 'short.yaml').write_text(text)
    assert run('--quick')[0] == 0
    assert 'bf16' not in caplog.text
    info = load_bundle(tmp_path / 'runs' / 'short_quick' / 'short.safetensors').info
    precision = '32-true' if is_slow else 'bf16-mixed'
    assert info.recipe['optimization']['precision'] == precision
    if is_slow:
        assert run()[0] == 0
        assert 'set optimization.precision=32-true' in caplog.text


@pytest.fixture
def table(own_corpus, tmp_path):
    """The clips of `own_corpus` as a CSV file."""
    rows = [f'{p},{p.parent.name},{p.stem}' for p in sorted(own_corpus.rglob('*.wav'))]
    path = tmp_path / 'mine.csv'
    path.write_text('\n'.join(['path,emotion,speaker', *rows]))
    return path


def test_a_recipe_takes_a_corpus_of_ones_own(capsys, caplog, tmp_path, table, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'short.yaml').write_text(
        RECIPE.replace("split: {validation_speakers: ['03']}", '')
    )
    command = ['short.yaml', '--corpus', str(table), '--cache', str(cache), '--device', 'cpu']
    assert main(['train', *command]) == 0
    chosen = (
        'recipe short, chosen for these corpora: data.corpora=["mine"] split.protocol=speakers'
    )
    (line,) = (r.getMessage() for r in caplog.records if chosen in r.getMessage())
    assert '1 test, 1 validation and 2 training speakers' in line
    info = load_bundle('runs/short/short.safetensors').info
    assert {name: len(speakers) for name, speakers in info.corpora['mine'].items()} == {
        'train': 2,
        'validation': 1,
        'test': 1,
    }
    # The same command finds its finished run; an explicit setting is another run.
    assert main(['train', *command]) == 0
    assert main(['train', *command, '--set', 'split.n_folds=3']) == 1
    assert 'holds a run of another recipe' in capsys.readouterr().err.splitlines()[-1]
    explicit = ['--set', 'data.corpora=[theirs]', '--out', 'runs/theirs']
    assert main(['train', *command, *explicit]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('ser_ros: the recipe trains on theirs, but --corpus names mine')


def test_classes_of_ones_own(capsys, caplog, tmp_path, table, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table.write_text(table.read_text().replace('calm', 'bored', 12).replace('/bored/', '/calm/'))
    (tmp_path / 'short.yaml').write_text(
        RECIPE.replace("split: {validation_speakers: ['03']}", '')
    )
    common = ['--corpus', str(table), '--device', 'cpu']
    command = ['train', 'short.yaml', *common, '--cache', str(cache)]
    # Without a map the clips are left out, and the line says what helps.
    assert main([*command, '--set', 'optimization.epochs=0']) == 1
    assert main([*command, '--out', 'runs/two', '--quick']) == 0
    assert 'labels without a class: bored (4); known are neutral' in caplog.text
    assert load_bundle('runs/two/short.safetensors').info.class_names == ('happy', 'sad')

    assert main([*command, '--set', 'data.labels={bored: {expression: bored}}', 'refit=true']) == 0
    path = 'runs/short/short.safetensors'
    info = load_bundle(path).info
    assert info.class_names == ('happy', 'sad', 'bored')
    assert info.classes == {'bored': OTHERS['bored']}
    card = (tmp_path / 'runs' / 'short' / 'short.md').read_text()
    assert '| bored | bored | -0.65 | -0.62 | Russell & Mehrabian (1977) |' in card
    capsys.readouterr()
    assert main(['evaluate', path, *common, '--subset', 'test', '--json']) == 0
    assert json.loads(capsys.readouterr().out)['test']['classes'].keys() == {
        'happy',
        'sad',
        'bored',
    }
    sound = table.read_text().splitlines()[1].split(',')[0]
    assert main(['inspect', sound, '--bundle', path, '--out', 'x.png']) == 0

    # A bundle that starts from it reads the same labels.
    assert (
        main(['train', '--from', path, *common, '--quick', '--set', 'optimization.epochs=1']) == 0
    )
    fine_tuned = load_bundle('runs/finetune_quick/finetune.safetensors').info
    assert fine_tuned.classes == info.classes


def test_an_unknown_recipe_is_one_line(capsys, tmp_path):
    assert main(['train', 'no_such', '--corpus', str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == ''
    assert err.count('\n') == 1
    assert 'parallel_fusion' in err


def test_an_unknown_key_is_one_line(capsys, tmp_path):
    arguments = ['train', 'vgg', '--corpus', str(tmp_path), '--set', 'optimization.epoch=3']
    assert main(arguments) == 1
    _, err = capsys.readouterr()
    assert err.count('\n') == 1
    assert 'optimization.epochs' in err


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--devices', '0'], 'devices is 0, not 1 or more'),
        (['--nodes', '0'], 'nodes is 0, not 1 or more'),
        (['--workers', '-1'], 'workers is -1, not 0 or more'),
        (['--device', 'cuda:99'], 'cuda:99'),
        (['--nodes', '2'], 'set MASTER_ADDR'),
    ],
)
def test_invalid_devices_and_processes_are_one_line(
    capsys, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert main(['train', 'vgg', '--corpus', '.', '--device', 'cpu', *arguments]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count('\n')) == ('', 1)
    assert message in err
    assert not list(tmp_path.iterdir())


def test_a_bundle_is_fine_tuned(capsys, tmp_path, own_corpus, bundle_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = ('--corpus', str(own_corpus), '--cache', str(cache), '--device', 'cpu')
    common = ('--from', str(bundle_path), *common, '--set', 'optimization.epochs=1')
    assert main(['train', *common, 'refit=false']) == 0
    assert 'bundle: runs/finetune/finetune.safetensors\n' in capsys.readouterr().out
    bundle = load_bundle('runs/finetune/finetune.safetensors')
    assert bundle.info.class_names == ('calm', 'happy', 'sad')
    card = (tmp_path / 'runs/finetune/finetune.md').read_text()
    assert 'Weights at the start of the training: `untrained.safetensors`.' in card
    assert 'RAVDESS' in card

    # A recipe of one's own instead, with a teacher.
    (tmp_path / 'mine.yaml').write_text(
        'hyperparameters: {conv_dropout: 0.2}\ndata: {corpora: [mine]}\n'
        'split: {protocol: speakers, n_folds: 3, n_validation: 1}\n'
    )
    teacher = f'distillation.teacher={bundle_path}'
    assert main(['train', 'mine.yaml', *common, 'seed=5', teacher]) == 0
    info = load_bundle('runs/mine/mine.safetensors').info
    assert (info.recipe['pretrained'], info.seed) == (bundle_path.name, 5)
    assert info.recipe['distillation']['teacher'] == bundle_path.name
    card = (tmp_path / 'runs/mine/mine.md').read_text()
    assert 'Teacher, whose probabilities were targets: `untrained.safetensors`.' in card


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['--from', 'compagnon'], 'ser_ros: bundle compagnon: no such file'),
        (['--from', 'damaged.safetensors'], 'ser_ros: bundle damaged.safetensors: damaged'),
        (['--from', 'half.pth'], 'ser_ros: bundle half.pth: a pickle'),
        (['vgg', '--from', 'companion'], 'whose settings differ: set architecture='),
        (['cnn_lstm', '--from', 'compagnon'], 'compagnon is not a bundle'),
        (['--from', 'companion', '--set', 'freeze=9'], '9 stages cannot be frozen'),
    ],
)
def test_bundles_that_cannot_be_started_from_are_one_line(
    capsys, tmp_path, own_corpus, monkeypatch, arguments, said
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'damaged.safetensors').write_bytes(b'\0' * 9)
    (tmp_path / 'half.pth').write_bytes(b'PK\3\4')
    common = ['--corpus', str(own_corpus), '--device', 'cpu', '--no-cache']
    if arguments[0] == 'cnn_lstm':
        common += ['--set', 'data.corpora=[mine]', 'split.protocol=speakers', 'split.n_folds=3']
    assert main(['train', *arguments, *common]) == 1
    out, err = capsys.readouterr()
    (line,) = (line for line in err.splitlines() if said in line)
    assert line == err.splitlines()[-1]
    assert out == ''
    assert sorted(path.name for path in tmp_path.iterdir()) == ['damaged.safetensors', 'half.pth']


@pytest.mark.parametrize(
    'arguments',
    [
        ['vgg'],
        ['--from', '', '--corpus', 'x'],
        ['--corpus', 'x'],
        ['vgg', '--corpus', 'x', '--cache', 'y', '--no-cache'],
    ],
)
def test_invalid_command_lines(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(['train', *arguments])
    assert caught.value.code == 2
    assert 'usage' in capsys.readouterr().err


@pytest.mark.parametrize('command', ['train', 'cross-validate'])
def test_help_names_the_shipped_recipes(capsys, command):
    with pytest.raises(SystemExit):
        main([command, '--help'])
    text = ' '.join(capsys.readouterr().out.split())
    # The formatter may break a line behind a hyphen or a slash.
    assert recipe_names().replace(' ', '') in text.replace(' ', '')


def test_recipe_names_lists_the_shipped_recipes():
    assert recipe_names() == f'shipped recipes: {", ".join(shipped_recipes())}'
