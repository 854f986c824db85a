"""What stands beside a run's bundle says by which model it was heard."""

import dataclasses
import json

import pytest

from ser_ros.bundle import load_bundle
from ser_ros.training.data.corpora import read_corpus
from ser_ros.training.data.splits import split_clips
from ser_ros.training.evaluation.metrics import listen
from ser_ros.training.learning.fit import Compute
from ser_ros.training.learning.train import Run
from ser_ros.training.recipe import Recipe, SplitConfig
from ser_ros.training.reports.run_report import write_run_report


@pytest.mark.parametrize('refit', [False, True])
def test_a_refit_is_told_wherever_the_protocol_is(write_bundle, tiny_corpus, tmp_path, refit):
    recipe = Recipe(name='mine', split=SplitConfig(validation_speakers=('03',)), refit=refit)
    split = split_clips(read_corpus(tiny_corpus).clips, recipe.split)
    path = write_bundle(tmp_path / 'mine.safetensors', recipe=dataclasses.asdict(recipe))
    bundle = load_bundle(path)
    parts = {'validation': split.validation[:2], 'test': split.test[:2]}
    heard = {name: listen(bundle, clips, 'cpu') for name, clips in parts.items()}
    run = Run(path, split, [{'epoch': 0, 'seconds': 1.0}], heard['validation'])
    write_run_report(run, heard, Compute('cpu'))
    results = json.loads((tmp_path / 'results.json').read_text())
    figures = {name: part['figures'] for name, part in results['parts'].items()}
    assert load_bundle(path).info.metrics == figures
    said = ['; before the model was refitted on training and validation speakers; each clip stre']
    said += ['; refitted on training and validation speakers; each clip streamed']
    for part, sentence in zip(figures.values(), said):
        assert part['protocol'].startswith(split.protocol)
        assert (sentence in part['protocol']) == refit
        assert ('refitted' in part['protocol']) == refit
        assert part['protocol'] in (tmp_path / 'report.html').read_text()
    counts = [part['nonspeech']['rows']['speech (windows)']['count'] for part in figures.values()]
    assert [count > 0 for count in counts] == [not refit, True]
    assert '### Sounds without a voice' in (tmp_path / 'mine.md').read_text()
