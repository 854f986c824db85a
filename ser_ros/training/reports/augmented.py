"""Augmented versions of one recording: each augmentation by itself, and all together."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor

from ser_ros.audio import SAMPLE_RATE
from ser_ros.audio.vad import Segment, SileroVad, speech_span
from ser_ros.features import build_frontend
from ser_ros.frontend_config import LogMelConfig
from ser_ros.training.data.augmentation import Augment
from ser_ros.training.data.dataset import TrainingWindows, Utterance, WholeClips
from ser_ros.training.recipe import AugmentationConfig, DataConfig

N_TOGETHER = 3
"""Versions with all augmentations, as in training."""

OFF = AugmentationConfig(
    edge_jitter=0.0,
    speed=(1.0, 1.0),
    pitch_probability=0.0,
    silence_probability=0.0,
    reverb_probability=0.0,
    noise_probability=0.0,
    gain_db=(0.0, 0.0),
    mel_shift=0.0,
    mel_masks=0,
    time_masks=0,
    mixup_alpha=0.0,
)
"""Settings without any augmentation."""


@dataclass(frozen=True)
class Version:
    """One augmented version of a recording."""

    title: str
    """The augmentation, and the value drawn for it."""
    samples: np.ndarray
    """Float32 (n,) at 16 kHz."""
    features: Optional[np.ndarray] = None
    """(n_features, frames), standardised; None if only the waveform was changed."""


def versions(samples: np.ndarray, config: AugmentationConfig, seed: int = 1) -> list[Version]:
    """Versions of float32 (n,) samples at 16 kHz with the augmentations that `config` uses.

    The first is the recording itself; masks apply to a log-mel spectrogram, whatever the front-end.
    """
    speech = speech_span(SileroVad(), samples) or Segment(0, len(samples))
    utterance = Utterance(samples, speech, 0)
    made = [Version('as recorded', samples)]
    for number, (title, settings) in enumerate(_each(config, np.random.default_rng(seed))):
        alone = dataclasses.replace(OFF, **settings)
        made.append(_make(title, utterance, WholeClips, alone, seed + number))
    for number in range(N_TOGETHER):
        title = f'all together, {number + 1}'
        made.append(_make(title, utterance, TrainingWindows, config, seed + number))
    return made


def _each(
    config: AugmentationConfig, rng: np.random.Generator
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Title and settings of each single augmentation, with a value drawn as in training."""

    def drawn(bounds: tuple[float, float]) -> tuple[float, tuple[float, float]]:
        value = rng.uniform(*bounds)
        return value, (value, value)

    if config.speed != OFF.speed:
        value, pinned = drawn(config.speed)
        yield f'speed × {value:.2f}', {'speed': pinned}
    if config.pitch_probability:
        value, pinned = drawn(config.pitch_semitones)
        yield (
            f'pitch {value:+.1f} semitones',
            {'pitch_probability': 1.0, 'pitch_semitones': pinned},
        )
    if config.silence_probability:
        value, pinned = drawn(config.silence)
        yield f'silence of {value:.2f} s', {'silence_probability': 1.0, 'silence': pinned}
    if config.reverb_probability:
        value, pinned = drawn(config.reverb_rt60)
        title = f'room, RT60 {value:.2f} s'
        if config.reverb_folder:
            title = 'recorded room'
        yield (
            title,
            {
                'reverb_probability': 1.0,
                'reverb_rt60': pinned,
                'reverb_folder': config.reverb_folder,
            },
        )
    if config.noise_probability:
        value, pinned = drawn(config.noise_snr_db)
        yield (
            f'noise, SNR {value:.0f} dB',
            {
                'noise_probability': 1.0,
                'noise_snr_db': pinned,
                'noise_folder': config.noise_folder,
            },
        )
    if config.gain_db != OFF.gain_db:
        value, pinned = drawn(config.gain_db)
        yield f'gain {value:+.0f} dB', {'gain_db': pinned}
    if config.mel_shift:
        limit = config.mel_shift
        yield f'mel bands shifted by up to {limit:g}', {'mel_shift': limit}
    if config.mel_masks or config.time_masks:
        names = ('mel_masks', 'mel_mask_width', 'time_masks', 'time_mask_width')
        yield 'masks', {name: getattr(config, name) for name in names}


def _make(
    title: str,
    utterance: Utterance,
    items: type[WholeClips],
    config: AugmentationConfig,
    seed: int,
) -> Version:
    """Augment with the code of the training; `items`: the data set that cuts a window or not."""
    augment = Augment(config, SAMPLE_RATE)
    changed, *_ = items([utterance], DataConfig(), config, seed)[0, 0]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        changed = augment.waveform(changed[None], torch.tensor([len(changed)]))
        if not (config.mel_shift or config.mel_masks or config.time_masks):
            return Version(title, changed[0].numpy())
        features = _features(changed)
        features = augment.spectrogram(features, torch.tensor([features.shape[-1]]))
    return Version(title, changed[0].numpy(), features[0].numpy())


def _features(waveform: Tensor) -> Tensor:
    """(1, samples) → (1, n_mels, frames), standardised with their own mean and deviation."""
    decibels = build_frontend(LogMelConfig())(waveform)
    return (decibels - decibels.mean()) / decibels.std()
