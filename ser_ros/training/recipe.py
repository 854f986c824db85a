"""A training recipe: everything that decides what a model becomes, in one YAML file."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ser_ros import SerError
from ser_ros.features import LogMelConfig
from ser_ros.settings import build


@dataclass(frozen=True)
class SplitConfig:
    """Who is heard in which part (RAVDESS actors)."""

    fold: int = 1
    validation_speakers: tuple[str, ...] = ('03', '08', '13', '18')


@dataclass(frozen=True)
class AugmentationConfig:
    """What a training clip goes through, drawn anew each epoch; ranges are uniform."""

    crop: tuple[float, float] = (1.0, 3.0)
    """Seconds of a window, as long as the stream's."""
    edge_jitter: float = 0.15
    """Seconds by which voice activity may open too early or too late."""
    onset_probability: float = 0.5
    """Share of windows that begin where speech begins, as most of the stream's do."""
    speed: tuple[float, float] = (0.88, 1.12)
    """Speed factor, pitch and formants with it: speakers who are not in the corpus."""
    gain_db: tuple[float, float] = (-30.0, 5.0)
    noise_probability: float = 0.5
    noise_snr_db: tuple[float, float] = (10.0, 40.0)
    mel_masks: int = 2
    mel_mask_width: int = 8
    time_masks: int = 2
    time_mask_width: int = 20
    """SpecAugment (Park et al., 2019), in mels and frames."""
    mixup_alpha: float = 0.2
    """Beta parameter of mixup (Zhang et al., 2018); 0 turns it off."""

    def __post_init__(self):
        for name in ('crop', 'speed', 'gain_db', 'noise_snr_db'):
            low, high = getattr(self, name)
            if not low <= high:
                raise SerError(f'{name} runs from {low} to {high}, it must rise')


@dataclass(frozen=True)
class OptimizationConfig:
    """AdamW with a one-cycle schedule, and an average of the weights."""

    epochs: int = 100
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    label_smoothing: float = 0.1
    ema_decay: float = 0.99
    """Per step; the averaged weights are the ones validated and kept."""
    precision: str = '32-true'
    """Lightning's word for it; bf16-mixed is half as long on a CPU that has it."""


@dataclass(frozen=True)
class Recipe:
    """A training run; `name` is the recipe file's."""

    name: str = 'unnamed'
    seed: int = 1
    architecture: str = 'parallel_cnn_transformer'
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    frontend: LogMelConfig = field(default_factory=LogMelConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)
    target_accuracy: float = 0.75
    """Share of right expressions at which the decision threshold is set, on validation."""


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; its `inherit` key names a file beside it whose keys it overrides.

    SerError for an unreadable file, an unknown key (naming the nearest known one) or a value that
    cannot be.
    """
    path = Path(path)
    try:
        return build(Recipe, {**_read(path, ()), 'name': path.stem})
    except SerError as error:
        raise SerError(f'recipe {path}: {error}') from error


def _read(path: Path, heirs: tuple[Path, ...]) -> dict:
    if path in heirs:
        raise SerError(f'{path.name} inherits from itself')
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SerError(f'{path.name} cannot be read: {" ".join(str(error).split())}') from error
    if not isinstance(values, dict):
        raise SerError(f'{path.name} is no mapping of keys to values')
    parent = values.pop('inherit', None)
    if parent is None:
        return values
    return _merge(_read(path.parent / str(parent), (*heirs, path)), values)


def _merge(base: dict, override: dict) -> dict:
    merged = dict(base)
    for key, value in override.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged
