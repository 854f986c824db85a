"""The report of a run states whether the metrics are those before or after a refit."""

import dataclasses
import json

import pytest

from ser_ros.bundle import load_bundle
from ser_ros.training.data.corpora import read_corpus
from ser_ros.training.data.splits import split_clips
from ser_ros.training.evaluation.prediction import predict_clips
from ser_ros.training.recipe import Recipe, SplitConfig
from ser_ros.training.reports.run_report import write_run_report


@pytest.mark.parametrize('refit', [False, True])
def test_every_protocol_states_a_refit(write_bundle, tiny_corpus, tmp_path, refit):
    recipe = Recipe(name='mine', split=SplitConfig(validation_speakers=('03',)), refit=refit)
    split = split_clips(read_corpus(tiny_corpus).clips, recipe.split)
    path = write_bundle(tmp_path / 'mine.safetensors', recipe=dataclasses.asdict(recipe))
    bundle = load_bundle(path)
    clips = {'validation': split.validation[:2], 'test': split.test[:2]}
    results = {name: predict_clips(bundle, some, 'cpu') for name, some in clips.items()}
    history = [{'epoch': 0, 'seconds': 1.0}]
    returned = write_run_report(path, split.protocol, history, results, 'cpu')
    subsets = json.loads((tmp_path / 'results.json').read_text())['subsets']
    assert returned == subsets
    metrics = {name: subset['metrics'] for name, subset in subsets.items()}
    assert load_bundle(path).info.metrics == metrics
    refits = [
        '; before the model was refitted on training and validation speakers; each clip stre'
    ]
    refits += ['; refitted on training and validation speakers; each clip streamed']
    for values, sentence in zip(metrics.values(), refits):
        assert values['protocol'].startswith(split.protocol)
        assert (sentence in values['protocol']) == refit
        assert ('refitted' in values['protocol']) == refit
        assert values['protocol'] in (tmp_path / 'report.html').read_text()
    counts = [v['nonspeech']['rows']['speech (windows)']['count'] for v in metrics.values()]
    assert [count > 0 for count in counts] == [not refit, True]
    assert '### Sounds without a voice' in (tmp_path / 'mine.md').read_text()
