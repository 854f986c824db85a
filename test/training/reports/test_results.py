"""Results of folds, their summaries, and the page of results, from results made by hand."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from ser_ros import SerError
from ser_ros.__main__ import main
from ser_ros.bundle import load_bundle
from ser_ros.emotions import EMOTIONS
from ser_ros.shipped import shipped_bundles, shipped_recipes
from ser_ros.training.data.corpora import Clip
from ser_ros.training.data.splits import FOLDS
from ser_ros.training.evaluation.clip_result import ClipResult, to_records
from ser_ros.training.evaluation.metrics import compute_metrics
from ser_ros.training.recipe import load_recipe, plain_recipe
from ser_ros.training.reports.results import (
    FoldResult,
    Summary,
    fold_table,
    from_columns,
    read_fold,
    read_folds,
    summarise,
    to_columns,
    write_fold,
)
from ser_ros.training.reports.results_page import render

NAMES = tuple(EMOTIONS)
ALL = len(FOLDS['RAVDESS'])


def clip_results(speakers, n_right, streamed=True, clips_a_class=2):
    """Results with `n_right` right ones of `clips_a_class`, for each class and speaker.

    The wrong ones are predicted as the next class; all have a probability of 0.86.
    """
    results = []
    for speaker in speakers:
        for label, name in enumerate(NAMES):
            for take in range(clips_a_class):
                predicted = label if take < n_right else (label + 1) % len(NAMES)
                scores = np.log(np.full((1 if not streamed else 3, len(NAMES)), 0.02))
                scores[:, predicted] = np.log(0.86)
                clip = Clip(
                    Path(f'03-01-{label}-{take}-01-01-{speaker}.wav'),
                    name,
                    speaker,
                    'RAVDESS',
                    'male' if int(speaker) % 2 else 'female',
                    'normal' if take else 'strong',
                )
                results.append(
                    ClipResult(clip, scores, [EMOTIONS[NAMES[predicted]].expression], not streamed)
                )
    return results


def finished(name='parallel_fusion', fold=1, seed=1, n_right=1, overrides=(), **changes):
    """A result of the shipped recipe `name`, on the fold's own speakers."""
    recipe = load_recipe(name, (*overrides, f'split.fold={fold}', f'seed={seed}'))
    streamed = recipe.frontend.sample_rate == 16_000
    tested = clip_results(FOLDS['RAVDESS'][fold - 1], n_right, streamed)
    result = FoldResult(
        recipe=plain_recipe(recipe),
        n_folds=ALL,
        protocol='speaker-independent',
        is_speaker_independent=recipe.split.protocol != 'random',
        class_names=list(NAMES),
        parameters=395_176,
        trainable_parameters=395_176,
        epochs=recipe.optimization.epochs,
        seconds_per_epoch=12.34,
        milliseconds_per_window=4.2,
        source_rate=16_000,
        machine={'processor': 'A processor', 'threads': 2, 'device': 'cpu'},
        versions={'torch': '2'},
        temperature=1.25,
        threshold=0.5,
        validation=compute_metrics(clip_results(('02', '05'), 1), NAMES),
        test={**compute_metrics(tested, NAMES), 'nonspeech': {'rows': {}}},
        predictions=to_columns(to_records(tested, NAMES)),
        date='2020-02-02',
    )
    return dataclasses.replace(result, **changes)


# --- One fold --------------------------------------------------------------------------------


def test_a_result_can_be_read_back(tmp_path):
    path = tmp_path / 'new' / 'fold1_seed1.json'
    result = finished()
    write_fold(path, result)
    again = read_fold(path)
    assert again.test['unweighted_accuracy'] == pytest.approx(0.5)
    assert again.test['confusion'] == result.test['confusion']
    changed = {'test', 'validation'}  # rounded
    for field in dataclasses.fields(FoldResult):
        if field.name not in changed:
            assert getattr(again, field.name) == getattr(result, field.name)
    assert (again.name, again.fold, again.seed) == ('parallel_fusion', 1, 1)
    assert [p.name for p in path.parent.iterdir()] == ['fold1_seed1.json']


def test_a_result_is_small(tmp_path):
    """As many clips as the largest fold of RAVDESS, none with the same probabilities."""
    rng = np.random.default_rng(1)
    tested = [
        dataclasses.replace(r, windows=np.log(rng.dirichlet(np.full(8, 0.3), 6)))
        for r in clip_results(FOLDS['RAVDESS'][0], 1, clips_a_class=8)[:240]
    ]
    result = finished(
        test=compute_metrics(tested, NAMES),
        predictions=to_columns(to_records(tested, NAMES)),
    )
    assert len(result.predictions['name']) == 240
    write_fold(tmp_path / 'fold1_seed1.json', result)
    assert (tmp_path / 'fold1_seed1.json').stat().st_size < 42_000


def test_records_of_clips_can_be_read_back():
    results = clip_results(('01', '02'), 1)
    results[0] = dataclasses.replace(results[0], windows=np.zeros((0, len(NAMES))), decisions=[])
    records = to_records(results, NAMES)
    assert records[0]['probabilities'] is None
    assert from_columns(json.loads(json.dumps(to_columns(records))), NAMES) == records


@pytest.mark.parametrize(
    'spoil',
    [
        lambda values: json.dumps(values)[:-5],
        lambda values: '[]',
        lambda values: json.dumps({k: v for k, v in values.items() if k != 'test'}),
        lambda values: json.dumps({**values, 'recipe': {**values['recipe'], 'sed': 1}}),
    ],
    ids=['cut short', 'not a mapping', 'a key missing', 'a recipe of another release'],
)
def test_a_file_that_is_not_a_result_is_named(tmp_path, spoil):
    path = tmp_path / 'fold1_seed1.json'
    path.write_text(spoil(dataclasses.asdict(finished())))
    with pytest.raises(SerError, match=r'fold1_seed1\.json') as refusal:
        read_folds(tmp_path)
    assert '\n' not in str(refusal.value)


def test_a_missing_folder(tmp_path):
    with pytest.raises(SerError, match='nowhere'):
        read_folds(tmp_path / 'nowhere')


# --- Several ---------------------------------------------------------------------------------


def test_folds_are_pooled():
    summary = Summary((finished(fold=1, n_right=2), finished(fold=2, n_right=1)))
    metrics = summary.pooled['metrics']
    assert metrics['clips'] == 2 * 4 * 8 * 2
    assert len(metrics['speakers']) == 8
    # All right in one fold, half of them in the other.
    assert metrics['unweighted_accuracy'] == pytest.approx(0.75)
    assert metrics['unweighted_accuracy_interval'][0] < 0.75
    assert metrics['calibration_error'] == pytest.approx(abs(0.86 - 0.75), abs=1e-3)
    assert summary.coverage == '2 of 6 folds, seed 1'
    *_, pooled, mean = fold_table(summary)
    assert pooled.startswith('| pooled |')
    assert ' 75.0% [' in pooled
    assert ' 75.0% ± 35.4 ' in mean


def test_one_run_has_no_deviation():
    summary = Summary((finished(),))
    assert '±' not in fold_table(summary)[-1].removeprefix('| mean ± std')


def test_seeds_are_pooled_without_pretending_to_more_speakers():
    once = Summary((finished(fold=1), finished(fold=2, n_right=2)))
    twice = Summary((*once.runs, finished(fold=1, seed=2), finished(fold=2, n_right=2, seed=2)))
    assert twice.coverage == '2 of 6 folds, seeds 1, 2'
    before, after = once.pooled['metrics'], twice.pooled['metrics']
    assert after['clips'] == 2 * before['clips']
    for key in ('unweighted_accuracy', 'unweighted_accuracy_interval'):
        assert after[key] == pytest.approx(before[key])


def test_seeds_without_all_folds_show_in_the_coverage():
    summary = Summary((finished(fold=1), finished(fold=2), finished(fold=1, seed=2)))
    assert summary.coverage == '2 of 6 folds, seeds 1, 2, 3 runs'


def test_a_clip_tested_in_two_folds_is_an_error():
    with pytest.raises(SerError, match='more than one'):
        _ = Summary((finished(fold=1), dataclasses.replace(finished(fold=1)))).pooled


def test_only_runs_with_the_same_settings_are_summarised_together():
    runs = [
        finished(fold=2),
        finished(fold=1, overrides=['optimization.epochs=6']),
        finished('vgg'),
        finished(fold=1),
        finished(fold=1, seed=2),
    ]
    groups = [[(r.name, r.fold, r.seed, r.epochs) for r in s.runs] for s in summarise(runs)]
    epochs = load_recipe('parallel_fusion').optimization.epochs
    assert sorted(groups) == sorted(
        [
            [('parallel_fusion', 1, 1, 6)],
            [
                ('parallel_fusion', 1, 1, epochs),
                ('parallel_fusion', 1, 2, epochs),
                ('parallel_fusion', 2, 1, epochs),
            ],
            [('vgg', 1, 1, load_recipe('vgg').optimization.epochs)],
        ]
    )


# --- The page --------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def shipped(write_bundle, tmp_path_factory):
    """A bundle with the metrics of a shipped one."""
    tested = [
        dataclasses.replace(r, clip=dataclasses.replace(r.clip, corpus=corpus))
        for corpus in ('RAVDESS', 'BanglaSER')
        for r in clip_results(('01', '11'), 1)
    ]
    sounds = {
        'speech (windows)': {'count': 4, 'rejected': 0.25, 'confidence': 0.7, 'answered': None},
        'hum': {'count': 2, 'rejected': 1.0, 'confidence': 0.3, 'answered': 0.5},
    }
    test = {**compute_metrics(tested, NAMES), 'nonspeech': {'rows': sounds}}
    across = {**compute_metrics(clip_results(('01', '02'), 2), NAMES), 'protocol': 'all of it'}
    corpora = {name: {'train': ['02'], 'test': ['01', '11']} for name in ('RAVDESS', 'BanglaSER')}
    path = tmp_path_factory.mktemp('shipped') / 'friend.safetensors'
    metrics = {'test': test, 'SAVEE (other corpus), a model of RAVDESS alone': across}
    return load_bundle(write_bundle(path, corpora=corpora, metrics=metrics))


@pytest.fixture
def page(tmp_path, shipped):
    """A function: results → the page's lines."""

    def render_page(*results):
        for index, result in enumerate(results):
            write_fold(tmp_path / f'{index}' / f'fold{result.fold}_seed{result.seed}.json', result)
        return render(tmp_path, [shipped]).splitlines()

    return render_page


def row(lines, *beginning):
    """The cells of the one row that begins with these."""
    start = '| ' + ' | '.join(beginning) + ' |'
    (found,) = [line for line in lines if line.startswith(start)]
    return [cell.strip() for cell in found.strip('|').split('|')]


def test_every_shipped_recipe_has_a_row(page):
    lines = page()
    for name in shipped_recipes():
        if load_recipe(name).data.corpora != ('RAVDESS',):
            assert not [line for line in lines if f'`{name}`' in line]
            continue
        cells = row(lines, f'`{load_recipe(name).architecture}`', f'`{name}`')
        assert cells[2] == 'not run'
    assert lines.count('Not run.') == 3  # corpora left out, random splits and the default


def test_a_row_states_what_was_run(page):
    lines = page(
        finished(fold=1, n_right=2),
        finished(fold=2, n_right=1),
        finished('cnn_lstm', overrides=['optimization.epochs=6', 'augmentation.crop=[1, 2]']),
        finished(
            'research/vgg',
            overrides=['pretrained=""', 'freeze=3'],
            parameters=19_042_888,
            trainable_parameters=4_328_200,
            epochs=3,
        ),
    )
    cells = row(lines, '`parallel_fusion`', '`parallel_fusion`')
    assert cells[2] == '2 of 6 folds, seed 1'
    assert cells[3] == str(load_recipe('parallel_fusion').optimization.epochs)
    assert cells[4].startswith('75.0% [')
    assert cells[5] == '75.0% ± 35.4'
    assert cells[6] == '74.4% ± 36.2 (74.4% ± 36.2)'
    assert cells[7] == '0.110 / 0.110'
    assert cells[8:12] == ['395,176', '12.3', '4.2', 'A']
    assert cells[12].startswith('as shipped')
    assert 'Machine A: A processor, 2 threads.' in lines
    cells = row(lines, '`cnn_lstm`', '`cnn_lstm`')
    assert cells[3] == '6'
    assert cells[12] == '`augmentation.crop=[1.0, 2.0]`; `optimization.epochs=6`'
    cells = row(lines, '`vgg`', '`research/vgg`')
    assert cells[3] == '3 of 50'
    assert cells[6] == '–'
    assert cells[7] == '0.360 / –'
    assert cells[8] == '19,042,888 (4,328,200 of them trained)'
    assert cells[12] == (
        '`pretrained=""`; `freeze=3`; '
        'from scratch, without the published weights, 3 stages frozen at random values; '
        'resampled from 16 kHz: bands above 8 kHz are empty'
    )


def test_a_refitted_model_is_named(page):
    lines = page(finished('research/vggish', overrides=['refit=true']))
    cells = row(lines, '`vggish`', '`research/vggish`')
    assert cells[12] == '`refit=true`; refitted on training and validation speakers'
    for refit in (False, True):
        summary = Summary((finished(overrides=[f'refit={json.dumps(refit)}']),))
        protocol = summary.pooled['metrics']['protocol']
        assert protocol.endswith(', refitted on training and validation speakers') == refit


def test_a_recipe_of_several_corpora_was_run_on_ravdess(page):
    overrides = ['data.merge={}', 'data.corpora=[RAVDESS]', 'split.protocol=folds']
    cells = row(page(finished('companion', overrides=overrides)), '`perceptron`', '`companion`')
    assert cells[12] == '`data.corpora=["RAVDESS"]`; `split.protocol=folds`; `no data.merge.calm`'


def test_known_voices_have_a_column(page):
    run = finished()

    def known(fold, adapted):
        metrics = {
            when: {'unweighted_accuracy': accuracy}
            for when, accuracy in (('adapted', adapted), ('unadapted', 0.5))
        }
        return finished(fold=fold, test={**run.test, 'known_voices': metrics})

    cells = row(page(known(1, 0.6), known(2, 0.8)), '`parallel_fusion`', '`parallel_fusion`')
    assert cells[6] == '70.0% ± 14.1 (50.0% ± 0.0)'


def test_settings_that_change_no_training_are_no_differences(page):
    earlier = finished(overrides=['voice.by_answers=false', 'voice.memory=24'])
    cells = row(page(earlier), '`parallel_fusion`', '`parallel_fusion`')
    assert cells[12].startswith('as shipped')
    earlier = finished(
        'companion', overrides=['data.corpora=[RAVDESS]', 'data.merge={}', 'voice.memory=9']
    )
    cells = row(page(earlier), '`perceptron`', '`companion`')
    assert '`voice.memory=9' in cells[12]


def test_machines_are_distinguished(page):
    gpu = {'processor': 'A processor', 'threads': 16, 'device': 'A GPU'}
    lines = page(
        finished(fold=1),
        finished(fold=2),
        finished(fold=3, machine=gpu, seconds_per_epoch=1.0),
    )
    assert row(lines, '`parallel_fusion`', '`parallel_fusion`')[9:12] == [
        '1.0, 12.3',
        '4.2, 4.2',
        'A, B',
    ]
    assert 'Machine A: A processor, 16 threads, A GPU.' in lines
    assert 'Machine B: A processor, 2 threads.' in lines


def test_other_settings_have_a_row_of_their_own(page):
    """The shipped settings come first, and the details of the default are theirs."""
    others = ['augmentation.mixup_alpha=0', 'optimization.epochs=6']
    lines = page(
        finished(fold=1, overrides=others[:1]),
        *(finished(fold=fold, overrides=others[1:]) for fold in (1, 2)),
        finished(fold=1, n_right=2),
    )
    rows = [line for line in lines if line.startswith('| `parallel_fusion` | `par')]
    for cells, setting in zip(rows, ('as shipped', 'optimization.epochs=6', 'mixup_alpha=0')):
        assert setting in cells
    assert len(rows) == 3
    assert any('Measured: 100.0% [' in line for line in lines)


def test_a_random_split_is_compared_with_the_folds(page):
    random = ['split.protocol=random']
    lines = page(
        finished(fold=1, n_right=1),
        finished(fold=1, n_right=2, overrides=random),
        finished('parallel_cnn_transformer', n_right=2, overrides=random),
    )
    assert row(lines, '`parallel_fusion`', '`parallel_fusion`')[4].startswith('50.0%')
    cells = row(lines, '`parallel_fusion`', '100.0% [100.0, 100.0]')
    assert cells[3].startswith('50.0% [')
    assert cells[5] == '+50.0 points'
    # A setting that an older release did not have counts with its default.
    older = finished(fold=1, n_right=1)
    del older.recipe['augmentation']['mel_shift']
    lines = page(older, finished(fold=1, n_right=2, overrides=random))
    assert row(lines, '`parallel_fusion`', '100.0% [100.0, 100.0]')[5] == '+50.0 points'
    cells = row(lines, '`parallel_cnn_transformer`', '100.0% [100.0, 100.0]')
    assert cells[3:] == ['not run', '–', '–']
    # It has no row in the speaker-independent table.
    assert row(lines, '`parallel_cnn_transformer`', '`parallel_cnn_transformer`')[2] == 'not run'


def test_folds_whose_speakers_the_start_was_trained_on_are_in_no_table(page):
    start = ['pretrained=companion']
    known = finished(n_right=2, overrides=start, is_speaker_independent=False)
    protocol = Summary((known,)).pooled['metrics']['protocol']
    assert protocol.startswith('NOT speaker-independent: test sets pooled')
    lines = page(known)
    assert row(lines, '`parallel_fusion`', '`parallel_fusion`')[2] == 'not run'
    assert not [line for line in lines if line.startswith('| `parallel_fusion` | 100.0%')]


def test_women_and_men_are_compared(page, tmp_path):
    """Of all settings that were run on all folds; women's clips are all right here, men's half."""

    def fold(number):
        speakers = FOLDS['RAVDESS'][number - 1]
        women = [speaker for speaker in speakers if int(speaker) % 2 == 0]
        men = [speaker for speaker in speakers if int(speaker) % 2]
        tested = clip_results(women, 2) + clip_results(men, 1)
        metrics = {**compute_metrics(tested, NAMES), 'nonspeech': {'rows': {}}}
        predictions = to_columns(to_records(tested, NAMES))
        return finished(fold=number, test=metrics, predictions=predictions)

    folds = [fold(number) for number in range(1, ALL + 1)]
    assert '## Women and men' not in page(*folds)
    values = {'female': 0.4, 'male': 0.5, 'difference': -0.1, 'difference_interval': [-0.2, 0.01]}
    corpus = {
        'corpus': 'nEMO',
        'speakers': {'female': 4, 'male': 5},
        'conditions': {'unknown voice': values},
    }
    (tmp_path / 'genders.json').write_text(json.dumps([corpus]))
    lines = page(*folds, finished('cnn_lstm'))
    women, men, difference = row(lines, '`parallel_fusion`', '100.0% [100.0, 100.0]')[1:]
    assert women == '100.0% [100.0, 100.0]'
    assert men == '50.0% [50.0, 50.0]'
    assert difference == '+50.0'
    cells = row(lines, 'nEMO', 'unknown voice')
    assert cells[2:] == ['4', '5', '40.0%', '50.0%', '-10.0 [-20.0, +1.0]']
    for text in ('{"corpus": 3}', '[{"corpus": "nEMO"}]', '[3]', 'none'):
        (tmp_path / 'genders.json').write_text(text)
        with pytest.raises(SerError, match=r'genders.json does not compare women and men'):
            page()


def test_the_default_is_shown_in_detail(page):
    lines = page(finished(fold=1, n_right=2), finished(fold=2, n_right=1))
    assert any('Measured: 75.0% [' in line for line in lines)
    (chance,) = [line for line in lines if 'with this many' in line]
    clips, windows = map(float, re.search(r'have ([\d.]+) / ([\d.]+) with', chance).groups())
    assert 0 < windows < clips < 0.1
    assert row(lines, '2', '1')[3] == '04 10 12 14'
    assert row(lines, 'happy', '16')[2:] == ['75.0%', '75.0%', '75.0%']
    assert row(lines, '**happy**') == ['**happy**', '0', '0', '12', '4', '0', '0', '0', '0', '0']
    assert row(lines, 'strong')[1:] == ['64', '8', '100.0% [100.0, 100.0]']
    assert row(lines, 'normal')[1:] == ['64', '8', '50.0% [12.5, 87.5]']


def test_the_shipped_bundle_is_compared_with_the_default(page):
    sounds = {'hum': {'count': 2, 'rejected': 0.0, 'confidence': 0.9, 'answered': 0.1}}
    runs = [finished(fold=fold) for fold in (1, 2)]
    for run, rejected in zip(runs, (0.0, 0.5)):
        sounds = {'hum': {**sounds['hum'], 'rejected': rejected}}
        run.test['nonspeech'] = {'rows': sounds}
    lines = page(*runs)
    assert '## The shipped bundle `friend`' in lines
    lines = lines[: lines.index('### By group')]
    cells = row(lines, 'BanglaSER, test speakers')
    assert cells[1:] == ['32', '8', '50.0% [50.0, 50.0]', '50.0%']
    cells = row(lines, 'SAVEE (other corpus), a model of RAVDESS alone')
    assert cells[3] == '100.0% [100.0, 100.0]'
    assert row(lines, 'hum')[1:] == ['100.0%', '50.0%', '25.0%', '10.0%']
    assert row(lines, 'speech (windows)')[1:] == ['25.0%', '–', '–', '–']


def test_trials_are_sorted(page, tmp_path):
    (tmp_path / 'search').mkdir()
    for name, accuracy in (('small', 0.5), ('large', 0.6), ('best', 0.61)):
        trial = {
            'name': name,
            'settings': {
                'architecture': 'vgg',
                'hyperparameters.width': 64,
                'split.protocol': 'random',
                'pool': 'mean',
            },
            'fold': 1,
            'validation_speakers': ['02', '05'],
            'epochs': 60,
            'parameters': 12_345,
            'unweighted_accuracy': accuracy,
            'nll': 1.25,
            'seed': 1,
        }
        if name == 'best':
            trial['longest'] = [0.7, 1.0]
        (tmp_path / 'search' / f'{name}.json').write_text(json.dumps(trial))
    lines = page()
    starts = [i for i, line in enumerate(lines) if '| 1.250 |' in line]
    assert [lines[i].split()[1] for i in starts] == ['best', 'large', 'small']
    settings = '`hyperparameters.width=64`; `split.protocol="random"`; pool: mean'
    assert row(lines, 'best')[1:] == [
        *('vgg', settings, '1', '02 05', '1', '60', '12,345', '61.0%', '1.250'),
        *('70.0%', '1.000'),
    ]
    assert row(lines, 'small')[-2:] == ['–', '–']
    text = ' '.join(' '.join(lines).split())
    assert 'speakers 02, 05, who are test speakers in folds 4, 5.' in text


def test_the_protocol_states_the_validation_speakers_of_the_runs(page):
    lines = page(finished(fold=1))
    assert any('**Validation**: 2 of the other actors' in line for line in lines)
    assert not any('who are test speakers' in line for line in lines)


def test_a_trial_with_a_missing_key_is_named(page, tmp_path):
    (tmp_path / 'search').mkdir()
    (tmp_path / 'search' / 'mine.json').write_text('{"name": "mine"}')
    with pytest.raises(SerError, match=r'mine\.json.*fold'):
        page()


def test_rows_of_tables_have_as_many_cells_as_the_header(page):
    lines = page(finished(fold=1), finished('research/vgg'), finished(fold=2, seed=2))
    for above, line in zip(lines, lines[1:]):
        if line.startswith('|') and above.startswith('|'):
            assert line.count('|') == above.count('|'), line


def test_the_command_writes_the_page(tmp_path, capsys):
    folder = tmp_path / 'docs' / 'results'
    write_fold(folder / 'parallel_fusion' / 'fold1_seed1.json', finished())
    texts = []
    for _ in range(2):
        assert main(['results', str(folder)]) == 0
        texts.append((tmp_path / 'docs' / 'RESULTS.md').read_bytes())
    assert texts[0] == texts[1]
    assert texts[0].decode() == render(folder, [*map(load_bundle, shipped_bundles())])
    assert capsys.readouterr().out.splitlines()[-1] == f'results: {tmp_path / "docs/RESULTS.md"}'


def test_the_command_with_a_missing_folder(tmp_path, capsys):
    assert main(['results', str(tmp_path / 'nowhere')]) == 1
    assert 'nowhere' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_committed_page_is_up_to_date(root):
    """`make results` writes it."""
    page = render(root / 'docs' / 'results', [*map(load_bundle, shipped_bundles())])
    assert (root / 'docs' / 'RESULTS.md').read_text() == page
