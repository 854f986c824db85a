"""The benchmark's logic, and the one ratio that must not fall; nothing here depends on seconds."""

import json
import math
import os
import subprocess
import sys

import gpu
import numpy as np
import processes
import pytest
import torch
import trainings
from bench import PARTS
from decision import ORIGINAL, WINDOW, inputs, quantised, ratio_to_original, rows_of
from hypothesis import given
from hypothesis import strategies as st
from measure import Row, Settings, silent, speaking, take_turns, wall_seconds, with_programs
from profiles import function_shares, import_seconds, operator_shares, percentages
from report import numbers, page
from targets import TARGETS, compare
from trainings import generated_clips

from ser_ros.audio import SAMPLE_RATE
from ser_ros.backends import load_backend
from ser_ros.bundle import load_bundle
from ser_ros.stream.types import Window
from ser_ros.training.recipe import load_recipe

SETTINGS = Settings()
DECISION = TARGETS[0]
WHERE = {
    **{'processor': 'P', 'cores': 2, 'gpu': '', 'python': '3', 'bundle': 'b'},
    **{'architecture': 'a', 'commit': 'c', 'date': 'd'},
}


def test_the_stream_stays_far_faster_than_the_original_pipeline():
    """Both in one run, so that the machine's speed does not matter; noise must not fail it five times."""
    limit = 0.7 * 11  # what the shipped bundle reaches; the target is greater
    ratios = []
    while len(ratios) < 5 and max(ratios, default=0) < limit:
        ratios.append(ratio_to_original())
    assert max(ratios) >= limit, ratios


# What is measured.


def test_alternatives_take_turns():
    calls = []
    seconds = {'slow': 0.02, 'fast': 0.004}
    current = []

    def alternative(name):
        def run():
            calls.append(name)
            current.append(seconds[name])

        return run

    def measured(function):
        current.clear()
        function()
        return sum(current)

    values = take_turns({name: alternative(name) for name in seconds}, 3, measured)
    assert values == {name: pytest.approx([1e3 * each] * 3) for name, each in seconds.items()}
    assert calls[4:] == [*['slow'] * 3, *['fast'] * 13] * 3  # after two calls each, to warm up


@given(st.lists(st.floats(-1e6, 1e6), min_size=1))
def test_quartiles_rise(values):
    low, middle, high = Row('x', 's', values).quartiles
    assert min(values) <= low <= middle <= high <= max(values)


def test_without_values_there_is_no_median():
    assert math.isnan(Row('x', 's', note='does not run here').median)


def test_without_the_original_pipeline_there_is_no_ratio():
    values = {ORIGINAL: [30.0], DECISION.row: [2.0]}
    assert [row.ratio for row in rows_of(values)] == [1.0, 15.0]
    del values[ORIGINAL]
    (row,) = rows_of(values)
    assert row.ratio is None
    assert DECISION.measured({'decision': [row]}) is None


def test_sounds_have_their_lengths_and_levels():
    assert len(speaking(5)) == len(silent(5)) == 5 * SAMPLE_RATE
    blocks = np.abs(speaking(5)).reshape(-1, 160).max(axis=1)
    assert blocks.min() > 0.01 > np.abs(silent(5)).max()


def test_a_bundle_with_programs_is_measured_itself(tmp_path):
    assert with_programs('', tmp_path) == ''
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('method', ['dynamic', 'static'])
def test_a_quantised_model_is_smaller_and_still_answers(speech, method):
    whole, small = load_backend('', 'onnx'), quantised('', method)
    spectrum = inputs(whole, speech[:WINDOW])['spectrum'][0]
    scores = [b.score([Window(spectrum, 0, None)])[0].log_probabilities for b in (whole, small)]
    assert 0 < np.abs(scores[0] - scores[1]).max() < 1


def test_linked_files_count_once(tmp_path):
    (tmp_path / 'a').write_bytes(b'x' * 100_000)
    before = processes.folder_megabytes(tmp_path)
    os.link(tmp_path / 'a', tmp_path / 'b')
    assert processes.folder_megabytes(tmp_path) == before >= 0.1


def test_generated_clips_have_all_classes_and_voices():
    clips = generated_clips(load_recipe('companion'), 16, 7)
    assert {clip.label for clip in clips} == set(range(7))
    assert len({clip.voice for clip in clips}) == 8
    assert len({clip.samples.tobytes() for clip in clips}) == 16
    assert {len(clip.samples) for clip in clips} == {3 * SAMPLE_RATE}


def test_a_node_listens_within_seconds():
    pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')
    assert 0 < processes._start_seconds(SETTINGS, 'onnx') < 60


# Profiles.


def test_shares_of_operators_and_functions_add_up(speech):
    backend = load_backend('', 'onnx')
    shares = operator_shares(load_bundle().programs.score, inputs(backend, speech[:WINDOW]))
    assert sum(shares.values()) == pytest.approx(1)
    assert 'Conv' in shares

    def inner():
        return sum(range(100_000))

    def outer():
        return inner()

    assert 0.5 < function_shares(outer, ['inner', 'other'])['inner'] <= 1
    assert function_shares(outer, ['other']) == {'other': 0}
    assert percentages({'a': 0.2, 'b': 0.5, 'c': 0.3}, 2) == 'b 50%, c 30%'


def test_imports_are_summed_up_by_package():
    text = 'import time: self [us] | cumulative | imported package\n' + ''.join(
        f'import time: {own:>9} | {own:>10} | {name}\n'
        for own, name in ((500_000, '  numpy.core'), (250_000, 'numpy'), (100_000, ' rclpy'))
    )
    assert import_seconds(text, 1) == '0.85 s, of which numpy 0.75 s'


# The CUDA part: here its functions on the CPU, there all of it.


def test_the_model_takes_batches_of_any_size(monkeypatch):
    monkeypatch.setattr(gpu, 'DEVICE', 'cpu')
    monkeypatch.setattr(gpu, '_synchronised', wall_seconds)
    backend = load_backend('', 'torch', 'cpu')
    row = gpu._model_row('model', lambda: gpu._eager(backend, 3), 3, 2)
    assert len(row.values) == 2
    assert min(row.values) > 0


def test_what_cannot_be_captured_has_a_note():
    def fail():
        raise RuntimeError('operation not permitted when stream is capturing\nmore')

    row = gpu._model_row('CUDA graph', fail, 3, 2)
    assert not row.values
    assert row.note.endswith('RuntimeError: operation not permitted when stream is capturing')


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_the_cuda_part_measures_all_its_rows(monkeypatch):
    monkeypatch.setattr(gpu, 'SIZES', (1, 4))
    monkeypatch.setattr(gpu, 'VOICES', (2,))
    monkeypatch.setattr(trainings, 'CLIPS', dict.fromkeys(trainings.CLIPS, 4))
    rows = gpu.gpu(Settings(rounds=1))
    measured = {row.what for row in rows if len(row.values)}
    assert {'model, 4 windows', gpu.STREAM.format(2)} < measured
    assert any(what.startswith('epoch') for what in measured)


# Targets and the page.


@pytest.mark.parametrize('target', TARGETS, ids=lambda target: target.metric)
@given(st.floats(0, 1e5))
def test_the_aim_is_harder_than_the_limit(target, value):
    assert target.part in PARTS
    if target.reaches(value, target.aim):
        assert target.reaches(value, target.at_least)
        assert target.verdict(value) == 'aim met'
    assert ('missed' in target.verdict(value)) == (not target.reaches(value, target.at_least))


@pytest.fixture
def results():
    return {
        'decision': [
            Row('original pipeline', 'ms', [30.0, 31.0, 29.0], 1.0),
            Row(DECISION.row, 'ms', [1.0, 1.0, 1.1], 30.0),
            Row('stream, torch compiled', 'ms', note='does not run here: no compiler'),
        ],
        'stream': [Row('silent, onnx', '% of a core', [1.4])],
        'nodes': [
            Row(
                'emotion_node, silent, onnx',
                '% of a core',
                [6.0, 6.2],
                note='by threads: main 1 %',
            )
        ],
        'gpu': [],
    }


def test_figures_are_compared_with_their_targets(results):
    verdicts = {target['metric']: target for target in compare(results, SETTINGS)}
    assert len(verdicts) == len(TARGETS)
    decided = verdicts[DECISION.metric]
    assert (decided['measured'], decided['verdict'], decided['bound']) == (30.0, 'met', '')
    silent_node = verdicts['emotion node while nobody speaks']
    assert silent_node['verdict'] == '**missed**'
    assert silent_node['bound'] == (
        'by threads: main 1 %; the stream without ROS takes 1.4 % of a core'
    )
    measured = [target for target in verdicts.values() if target['measured'] is not None]
    assert len(measured) == 2
    assert {t['verdict'] for t in verdicts.values() if t not in measured} == {'not measured'}


def test_the_page_has_targets_notes_and_spread(results):
    text = page(results, compare(results, SETTINGS), WHERE, dict.fromkeys(results, 'What it is.'))
    lines = text.splitlines()
    assert f'| {DECISION.metric} | 30 × | 20 × | 40 × | met |' in lines
    assert '| original pipeline | 30 ms [29.5, 30.5] | 1 × |  |' in lines
    assert '| stream, torch compiled | – |  | does not run here: no compiler |' in lines
    assert '## Gpu' not in lines
    (bound,) = (line for line in lines if line.startswith('- '))
    assert bound.startswith('- emotion node while nobody speaks: by threads')
    tables = [line for line in lines if line.startswith('|')]
    assert len(tables) == 3 * 2 + 2 + len(TARGETS) + 3 + 1 + 1


def test_the_numbers_are_valid_json(results):
    values = numbers(results, compare(results, SETTINGS), WHERE)
    read = json.loads(json.dumps(values, allow_nan=False))
    assert read['machine'] == WHERE
    first, _, compiled = read['decision']
    assert (first['median'], first['low'], first['n'], first['ratio']) == (30.0, 29.5, 3, 1.0)
    assert compiled == {
        **{'what': 'stream, torch compiled', 'unit': 'ms', 'median': None, 'n': 0},
        'note': 'does not run here: no compiler',
    }


def test_the_command_writes_page_and_numbers(root, tmp_path):
    out = tmp_path / 'page.md'
    command = [sys.executable, root / 'benchmarks' / 'bench.py', '--out', out, '--only']
    run = subprocess.run([*command, 'environment'], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == out.read_text() + '\n'
    assert len(json.loads((tmp_path / 'page.json').read_text())['targets']) == len(TARGETS)


def test_an_unknown_bundle_is_one_line(root):
    command = [sys.executable, root / 'benchmarks' / 'bench.py', '--bundle', 'none']
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert line.startswith('bench: ')
