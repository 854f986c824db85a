"""Every shipped recipe, for two epochs on a few seconds of speech."""

import shutil

import numpy as np
import pytest
import soundfile
import torch

from ser_ros.bundle import load_bundle
from ser_ros.shipped import shipped_recipes
from ser_ros.training.data.splits import FOLDS
from ser_ros.training.learning.fit import Compute
from ser_ros.training.recipe import load_recipe
from ser_ros.training.run import train

SMALL = (
    'optimization.epochs=2',
    'optimization.batch_size=8',
    'optimization.precision=32-true',
    'data.noisy_copies=0',
    'split.validation_speakers=["03"]',
    'augmentation.crop=[1.0, 1.5]',
)
# 14.7 and 72 million parameters: layers are frozen where possible, and images are smaller.
SMALLER = {
    'vgg': (
        'freeze=5',
        'frontend.n_mels=32',
        'hyperparameters.chunk_frames=64',
        'hyperparameters.chunk_stride=64',
    ),
    'research/vgg': ('frontend.duration=1.0', 'pretrained=""'),
    'research/vggish': ('pretrained=""',),
    # Their optimiser's state and averages would be written to disk with every epoch.
    'vggish': ('freeze=5', 'optimization.optimizer=sgd', 'optimization.average=none'),
    'companion': (
        'data.corpora=[RAVDESS, BanglaSER]',
        'data.epoch_clips=32',
        'voice.copies=1',
        'split.validation_speakers=["RAVDESS:03", "BanglaSER:03"]',
    ),
    'companion_open': (
        'data.corpora=[RAVDESS, BanglaSER]',
        'data.epoch_clips=32',
        'voice.copies=1',
        'split.validation_speakers=["RAVDESS:03", "BanglaSER:03"]',
    ),
}


@pytest.fixture(scope='module')
def corpora(tiny_corpus, tmp_path_factory):
    """Name → folder with one speaker to train on; those named as BanglaSER's have the same voice."""
    ravdess, folder = (tmp_path_factory.mktemp(name) for name in ('ravdess', 'bangla'))
    for actor in ('02', '03', *FOLDS['RAVDESS'][0]):
        shutil.copytree(tiny_corpus / f'Actor_{actor}', ravdess / f'Actor_{actor}')
    samples, rate = soundfile.read(next(tiny_corpus.rglob('*-21.wav')))
    for speaker in ('02', '03', *FOLDS['BanglaSER'][0]):
        neutral, *others = ('05-01', '01-01', '02-01', '03-02', '04-02')
        for label in (neutral, *others) if speaker in ('02', '03') else (neutral,):
            seed = int(speaker), int(label[:2])
            noise = 1e-3 * np.random.default_rng(seed).standard_normal(len(samples))
            soundfile.write(folder / f'03-01-{label}-03-01-{speaker}.wav', samples + noise, rate)
    return {'RAVDESS': ravdess, 'BanglaSER': folder}


@pytest.mark.parametrize('name', shipped_recipes())
def test_two_epochs(name, corpora, cache, tmp_path):
    smaller = SMALLER.get(load_recipe(name).architecture, ())
    recipe = load_recipe(name, (*SMALL, *smaller, *SMALLER.get(name, ())))
    names = recipe.data.corpora
    run = train(recipe, [corpora[n] for n in names], tmp_path, Compute('cpu', cache=cache))
    assert run.bundle.name == name.replace('/', '_') + '.safetensors'
    assert [row['epoch'] for row in run.history] == [0, 1]
    assert all(torch.tensor(row['train_loss']).isfinite() for row in run.history)
    assert len(run.validation) == sum({'RAVDESS': 8, 'BanglaSER': 5}[n] for n in names)
    assert all(result.has_speech for result in run.validation)
    bundle = load_bundle(run.bundle)
    assert bundle.info.recipe['name'] == name
    assert not recipe.data.merge.keys() & set(bundle.info.class_names)
    assert bundle.info.frontend == recipe.frontend
    # Hundreds of megabytes, and pytest keeps the folder.
    for path in (*tmp_path.glob('*.ckpt'), run.bundle):
        path.unlink()
