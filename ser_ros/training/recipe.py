"""A training recipe: everything that decides what a model becomes, in one YAML file."""

import dataclasses
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ser_ros import SerError
from ser_ros.features import LogMelConfig


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

    SerError for an unreadable file, an unknown key (naming the nearest known one) or a value of
    the wrong type.
    """
    return _build(Recipe, {**_read(Path(path)), 'name': Path(path).stem}, str(path))


def _read(path: Path) -> dict:
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SerError(f'recipe {path} cannot be read: {" ".join(str(error).split())}') from error
    if not isinstance(values, dict):
        raise SerError(f'recipe {path} is not a mapping of keys to values')
    parent = values.pop('inherit', None)
    return _merge(_read(path.parent / parent), values) if parent else values


def _merge(base: dict, override: dict) -> dict:
    merged = dict(base)
    for key, value in override.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged


def _build(cls: type, values: dict, where: str) -> Any:
    """A dataclass from plain YAML values, checked against the type of each field's default."""
    defaults = cls()
    known = [f.name for f in dataclasses.fields(cls)]
    arguments = {}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1) or known[:1]
            raise SerError(f'{where}: unknown key {key!r}; did you mean {near[0]!r}?')
        default = getattr(defaults, key)
        if dataclasses.is_dataclass(default) and isinstance(value, dict):
            arguments[key] = _build(type(default), value, f'{where}: {key}')
        elif isinstance(default, tuple) and isinstance(value, list):
            arguments[key] = tuple(value)
        elif isinstance(default, float) and type(value) in (int, float):
            arguments[key] = float(value)
        elif type(value) is type(default):
            arguments[key] = value
        else:
            kind = type(default).__name__
            raise SerError(
                f'{where}: {key} is {value!r}, expected a value like {default!r} ({kind})'
            )
    return cls(**arguments)
