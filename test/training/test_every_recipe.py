"""Every shipped recipe, for two epochs on a few seconds of speech."""

import pytest
import torch

from ser_ros.bundle import load_bundle
from ser_ros.paths import shipped_recipes
from ser_ros.training.fit import Compute
from ser_ros.training.recipe import load_recipe
from ser_ros.training.train import train

pytestmark = pytest.mark.filterwarnings('ignore::UserWarning', 'ignore::FutureWarning')

SMALL = (
    'optimization.epochs=2',
    'optimization.batch_size=8',
    'optimization.precision=32-true',
    'data.noisy_copies=0',
    'split.validation_speakers=["03"]',
    'augmentation.crop=[1.0, 1.5]',
)
# 14.7 and 72 million parameters: what need not be trained is not, and pictures are smaller.
SMALLER = {
    'vgg': (
        'freeze=5',
        'frontend.n_mels=32',
        'hyperparameters.chunk_frames=64',
        'hyperparameters.chunk_stride=64',
    ),
    'research/vgg': ('frontend.duration=1.0',),
    'vggish': ('freeze=5',),
    'companion': ('data.corpora=[RAVDESS]',),
}


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    """The corpus is decoded once for each rate."""
    return tmp_path_factory.mktemp('cache')


@pytest.mark.parametrize('name', shipped_recipes())
def test_two_epochs(name, tiny_corpus, cache, tmp_path):
    smaller = SMALLER.get(load_recipe(name).architecture, ())
    recipe = load_recipe(name, (*SMALL, *smaller, *SMALLER.get(name, ())))
    run = train(recipe, [tiny_corpus], tmp_path, Compute('cpu', cache=cache))
    assert run.bundle.name == name.replace('/', '_') + '.safetensors'
    assert [row['epoch'] for row in run.history] == [0, 1]
    assert all(torch.tensor(row['train_loss']).isfinite() for row in run.history)
    assert len(run.validation) == 3
    assert all(result.is_heard for result in run.validation)
    bundle = load_bundle(run.bundle)
    assert bundle.info.recipe['name'] == name
    assert bundle.info.frontend == recipe.frontend
    # Hundreds of megabytes, which pytest would keep.
    for path in (*tmp_path.glob('*.ckpt'), run.bundle):
        path.unlink()
