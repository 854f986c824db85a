"""Models, front-ends and class weights before the first step."""

import numpy as np
import torch

from ser_ros.audio.vad import Segment
from ser_ros.features import build_frontend
from ser_ros.training.data.dataset import Utterance, WholeClips
from ser_ros.training.learning.train import class_weights, make_task
from ser_ros.training.recipe import AugmentationConfig, Recipe, load_recipe


def test_whole_clips_are_standardised_with_their_noisy_copies():
    """In bands above those of the recordings there is nothing but noise."""
    recipe = load_recipe('research/parallel_cnn_transformer')
    rng = np.random.default_rng(1)
    noise = rng.standard_normal(4 * 48_000)
    low = np.cumsum(noise - noise.mean()).astype(np.float32)
    low *= 0.1 / np.abs(low).max()
    training = [Utterance(low, Segment(0, len(low)), n, 48_000) for n in range(2)]
    task = make_task(recipe, 2, training)
    items = WholeClips(training, recipe.data, recipe.augmentation, recipe.seed)
    features = torch.stack([task.frontend(items[0, n][0]) for n in range(len(items))])
    assert features.abs().max() < 5


def test_class_weights_are_inverse_to_the_shares():
    segment = Segment(0, 1)
    utterances = [Utterance(None, segment, label) for label in [0, 0, 0, 1]]
    weights = class_weights(utterances, 2)
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 2.0]))


def test_the_front_end_is_fitted_to_speech_at_the_mean_gain(speech):
    augmentation = AugmentationConfig(gain_db=(-30.0, -10.0))
    recipe = Recipe(augmentation=augmentation)
    utterances = [
        Utterance(speech, Segment(16_000, 32_000), 0),
        Utterance(speech, Segment(40_000, 48_000), 1),
    ]
    fitted = make_task(recipe, 2, utterances).frontend
    frontend = build_frontend(recipe.frontend)
    sounds = [
        torch.from_numpy(speech[s.start : s.end]) * 0.1 for s in (u.speech for u in utterances)
    ]
    frames = torch.cat([frontend.spectrum(sound) for sound in sounds], dim=1)
    torch.testing.assert_close(fitted.mean[:, 0], frames.mean(dim=1))
    torch.testing.assert_close(fitted.std[:, 0], frames.std(dim=1))
