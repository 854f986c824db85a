"""From a corpus to a bundle: two epochs on a few seconds of speech."""

import dataclasses
from collections import Counter

import pytest
import torch

from ser_ros import SerError
from ser_ros.bundle import load_bundle
from ser_ros.models.parallel_cnn_transformer import ParallelCnnTransformer
from ser_ros.recognizer import Recognizer
from ser_ros.training.recipe import AugmentationConfig, OptimizationConfig, Recipe, SplitConfig
from ser_ros.training.train import decibel_statistics, recipe_split, train

# Sixteen clips to train on, in batches of four.
BATCHES = 4
RECIPE = Recipe(
    name='tiny',
    seed=3,
    split=SplitConfig(validation_speakers=('03',)),
    augmentation=AugmentationConfig(crop=(1.0, 1.5)),
    optimization=OptimizationConfig(epochs=2, batch_size=4),
)


def changed(**optimization):
    return dataclasses.replace(
        RECIPE, optimization=dataclasses.replace(RECIPE.optimization, **optimization)
    )


pytestmark = pytest.mark.filterwarnings('ignore::UserWarning', 'ignore::FutureWarning')


@pytest.fixture(scope='module')
def run(tiny_corpus, tmp_path_factory):
    """The folder and the bundle of a training."""
    out = tmp_path_factory.mktemp('runs') / 'tiny'
    return out, train(RECIPE, tiny_corpus, out, 'cpu')


@pytest.fixture
def steps():
    """Counts the training steps; at one of them a function may be called with the model."""
    counter = Counter()
    counter.at, counter.call = None, None

    def hook(module, inputs):
        if isinstance(module, ParallelCnnTransformer) and module.training:
            if counter['steps'] == counter.at:
                counter.call(module)
            counter['steps'] += 1

    handle = torch.nn.modules.module.register_module_forward_pre_hook(hook)
    yield counter
    handle.remove()


def test_the_bundle_says_how_it_was_made(run, tiny_corpus):
    out, path = run
    assert path == out / 'tiny.safetensors'
    info = load_bundle(path).info
    assert info.architecture == 'parallel_cnn_transformer'
    assert info.frontend == RECIPE.frontend
    assert info.window == 1.5
    assert info.seed == 3
    assert info.recipe['optimization']['epochs'] == 2
    assert info.license == 'CC-BY-NC-SA-4.0'
    assert info.corpora == {
        'RAVDESS speech': {
            'train': ['02', '04'],
            'validation': ['03'],
            'test': ['01', '11', '20', '21'],
        }
    }
    assert 0.1 <= info.temperature <= 10
    assert 0 < info.threshold < 1
    assert list(info.metrics) == ['validation']
    assert info.metrics['validation']['clips'] == 3
    assert info.metrics['validation']['speakers'] == ['03']


def test_the_bundle_runs(run, utterance):
    recognizer = Recognizer(load_bundle(run[1]), 'cpu')
    estimates = recognizer.push(utterance, 0) + recognizer.flush()
    assert sum(estimate.is_final for estimate in estimates) == 1
    assert recognizer.counters.windows > 5


def test_the_run_can_be_looked_at_and_gone_on_with(run):
    out, _ = run
    assert list(out.glob('events.out.tfevents.*'))
    checkpoint = torch.load(out / 'last.ckpt', weights_only=True, map_location='cpu')
    assert checkpoint['global_step'] == 2 * BATCHES
    assert (out / 'best.ckpt').is_file()


def test_statistics_are_those_of_the_training_part(run):
    info = load_bundle(run[1]).info
    assert all(-100 < mean < 0 for mean in info.mean)
    assert all(1 < std < 40 for std in info.std)


def test_the_seed_decides_everything(run, tiny_corpus, tmp_path):
    again = load_bundle(train(RECIPE, tiny_corpus, tmp_path, 'cpu'))
    first = load_bundle(run[1])
    assert again.info == first.info
    for name, weight in first.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], weight, rtol=0, atol=0)


def power_cut(model):
    raise RuntimeError('power cut')


def test_an_interrupted_run_goes_on_from_its_last_whole_epoch(tiny_corpus, tmp_path, steps):
    recipe = changed(epochs=4, learning_rate=0.0)  # so that no epoch is better than the first
    steps.at, steps.call = 3 * BATCHES + 2, power_cut
    with pytest.raises(RuntimeError, match='power cut'):
        train(recipe, tiny_corpus, tmp_path, 'cpu')
    assert not (tmp_path / 'tiny.safetensors').exists()
    steps.at = None
    steps.clear()
    bundle = load_bundle(train(recipe, tiny_corpus, tmp_path, 'cpu'))
    # Only the fourth epoch is begun anew.
    assert steps['steps'] == BATCHES
    assert bundle.info.metrics['validation']['clips'] == 3
    last = torch.load(tmp_path / 'last.ckpt', weights_only=True, map_location='cpu')
    assert last['global_step'] == 4 * BATCHES


def test_a_finished_run_gives_its_bundle_again(run, tiny_corpus, steps):
    out, path = run
    before = load_bundle(path)
    path.unlink()
    after = load_bundle(train(RECIPE, tiny_corpus, out, 'cpu'))
    assert steps['steps'] == 0
    assert after.info == before.info
    for name, weight in before.model.state_dict().items():
        assert torch.equal(after.model.state_dict()[name], weight)


def test_a_folder_of_another_recipe_is_not_gone_on_with(run, tiny_corpus):
    """Or else a bundle would name a recipe that its weights were not made by."""
    out, _ = run
    other = dataclasses.replace(RECIPE, seed=4)
    with pytest.raises(SerError, match='tiny'):
        train(other, tiny_corpus, out, 'cpu')


def break_weights(model):
    with torch.no_grad():
        model.classifier.bias.fill_(torch.nan)


@pytest.mark.parametrize('step', [0, BATCHES], ids=['at once', 'after an epoch'])
def test_a_loss_that_is_not_finite_is_an_error(tiny_corpus, tmp_path, steps, step):
    steps.at, steps.call = step, break_weights
    with pytest.raises(SerError, match='finite'):
        train(RECIPE, tiny_corpus, tmp_path, 'cpu')


def test_fewer_clips_than_a_batch_is_an_error(tiny_corpus, tmp_path):
    with pytest.raises(SerError, match='16.*17'):
        train(changed(batch_size=17), tiny_corpus, tmp_path, 'cpu')


def test_a_fold_that_is_none(tiny_corpus, tmp_path):
    recipe = dataclasses.replace(RECIPE, split=SplitConfig(fold=7))
    with pytest.raises(SerError, match=r'fold 7.*1, 2, 3, 4, 5, 6'):
        train(recipe, tiny_corpus, tmp_path, 'cpu')


def test_a_corpus_without_the_speakers(tiny_corpus):
    recipe = dataclasses.replace(RECIPE, split=SplitConfig(fold=2, validation_speakers=('03',)))
    with pytest.raises(SerError, match='10, 12, 14'):
        recipe_split(recipe, tiny_corpus)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')
@pytest.mark.parametrize('device', ['cuda', 'cuda:1', 'tpu'])
def test_a_device_that_is_not_there(tiny_corpus, tmp_path, device):
    with pytest.raises(SerError, match=device):
        train(RECIPE, tiny_corpus, tmp_path, device)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_on_a_gpu(tiny_corpus, tmp_path, utterance):
    bundle = load_bundle(train(RECIPE, tiny_corpus, tmp_path, 'cuda'))
    recognizer = Recognizer(bundle, 'cuda')
    assert recognizer.push(utterance, 0) + recognizer.flush()


def test_statistics_by_hand(speech):
    from ser_ros.audio.vad import Segment
    from ser_ros.features import LogMel
    from ser_ros.training.dataset import Utterance

    augmentation = AugmentationConfig(gain_db=(-10.0, 10.0))
    recipe = dataclasses.replace(RECIPE, augmentation=augmentation)
    utterances = [
        Utterance(speech, Segment(16_000, 32_000), 0),
        Utterance(speech, Segment(40_000, 48_000), 0),
    ]
    mean, std = decibel_statistics(recipe, utterances)
    frontend = LogMel(recipe.frontend)
    frames = torch.cat(
        [
            frontend.decibels(torch.from_numpy(speech[16_000:32_000])),
            frontend.decibels(torch.from_numpy(speech[40_000:48_000])),
        ],
        dim=1,
    )
    torch.testing.assert_close(mean, frames.mean(dim=1))
    torch.testing.assert_close(std, frames.std(dim=1))
