"""What a bundle says of itself, read without torch."""

import json
import textwrap
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Optional, Union

from safetensors import SafetensorError, safe_open

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE
from ser_ros.emotions import EMOTIONS, Emotion
from ser_ros.files import user_path
from ser_ros.frontend_config import FrontendConfig
from ser_ros.settings import from_dict
from ser_ros.shipped import shipped_bundles, shipped_file

FORMAT = 'ser_ros bundle'
FORMAT_VERSION = 3
PROGRAMS = 'programs'
"""Key of what the ONNX programs inside a bundle say of themselves, see `programs`."""
DEFAULT_BUNDLE = 'companion'
ON_VALIDATION = 'the validation set'
"""`BundleInfo.calibration` of a training."""
WINDOW_RANGE = (0.5, 60.0)
"""Shortest and longest allowed value of a bundle's window, in seconds."""


class BundleError(SerError):
    """A bundle that cannot be used, or a clip that a bundle cannot classify."""


@dataclass(frozen=True)
class AdaptationInfo:
    """How the model's stream adapts to a voice, see `stream.adaptation`.

    Raises BundleError for invalid values.
    """

    by_voice: bool = False
    """Whether the model was trained on features standardised by voice."""
    by_answers: bool = False
    """Whether a model that was not compares its answers with those that the voice usually gets."""
    memory: float = 24.0
    """After n utterances of a voice its own means have the weight n / (n + memory)."""
    neutral_share: float = 0.4
    """Share of neutral utterances that is expected unless a user states another."""
    rare_ratio: float = 1.0
    """How often each disgusted, scared or surprised utterance is expected for a happy, sad or angry one,
    unless a user states another."""

    @property
    def adapts(self) -> bool:
        """Whether a voice is compared with how it usually sounds."""
        return self.by_voice or self.by_answers

    def __post_init__(self):
        if not self.memory > 0:
            raise BundleError(f'adaptation.memory {self.memory} is not positive')
        if not 0 < self.neutral_share < 1:
            raise BundleError(
                f'adaptation.neutral_share {self.neutral_share} is not between 0 and 1'
            )
        if not 0 < self.rare_ratio <= 100:
            raise BundleError(
                f'adaptation.rare_ratio {self.rare_ratio} is not above 0 and at most 100'
            )


@dataclass(frozen=True)
class BundleInfo:
    """The metadata of a bundle.

    Raises BundleError for invalid values.
    """

    architecture: str
    hyperparameters: dict[str, Any]
    frontend: FrontendConfig
    class_names: tuple[str, ...]
    """Names of `emotions.EMOTIONS` or of `classes`, in the order of the logits."""
    window: float
    """Longest window that the model was trained on, in seconds."""
    temperature: float
    """Divides the logits, so that probabilities are calibrated (Guo et al., 2017)."""
    threshold: float
    """Margin of the leading expression below which none is decided, see `emotions.margin`."""
    corpora: dict[str, dict[str, list[str]]]
    """Corpus → subset (train, validation, test) → speakers."""
    recipe: dict[str, Any]
    seed: int
    metrics: dict[str, Any]
    """Subset, or other corpus → metrics with their protocol."""
    license: str
    """SPDX expression that the training data requires."""
    recordings: tuple[str, ...]
    """Fingerprints of the clips that the training used, also for calibration, see `corpora.Clip`."""
    calibration: str
    """What temperature and threshold were chosen on, as in "chosen on ..."."""
    adaptation: AdaptationInfo
    classes: dict[str, Emotion] = field(default_factory=dict)
    """What the classes mean that are not in `emotions.EMOTIONS`."""
    calibrated_on: tuple[str, ...] = field(default_factory=tuple)
    """Corpora that are new to the bundle and that temperature and threshold were chosen on."""

    @property
    def can_stream(self) -> bool:
        """Whether the bundle runs on a stream; others classify whole clips only."""
        return self.frontend.is_streaming and self.frontend.sample_rate == SAMPLE_RATE

    def __post_init__(self):
        shortest, longest = WINDOW_RANGE
        unknown = [n for n in self.class_names if n not in EMOTIONS and n not in self.classes]
        strange = [n for n in self.classes if n in EMOTIONS or n not in self.class_names]
        checks = {
            f'class_names has unknown classes {unknown}': not unknown,
            f'classes has {strange}, which are known or not in class_names': not strange,
            'class_names has fewer than two classes, or one twice': len(set(self.class_names))
            == len(self.class_names)
            >= 2,
            f'temperature {self.temperature} is not positive': self.temperature > 0,
            f'threshold {self.threshold} is not between 0 and 1': 0 <= self.threshold <= 1,
            f'window of {self.window} s is not between {shortest:g} and {longest:g}': shortest
            <= self.window
            <= longest,
        }
        for problem, is_right in checks.items():
            if not is_right:
                raise BundleError(problem)


@dataclass(frozen=True)
class Geometry:
    """The sizes of a front-end and the model behind it; lengths in samples at 16 kHz."""

    frame_length: int
    win_length: int
    """Of the Hann window, in the middle of a frame."""
    n_fft: int
    """Of the transform: a frame, then zeros."""
    hop_length: int
    n_rows: int
    """Of the spectrum."""
    n_features: int
    min_frames: int
    """The fewest frames that the model takes."""

    def n_frames(self, n_samples: int) -> int:
        """Whole frames in `n_samples` samples."""
        return max(0, (n_samples - self.frame_length) // self.hop_length + 1)

    @property
    def min_window(self) -> int:
        """Samples that contain the fewest frames the model takes, wherever the frames begin."""
        return self.min_frames * self.hop_length + self.frame_length - 1


def find_bundle(name: Union[str, Path]) -> Path:
    """The file of a bundle: `name` is a path, the name of a shipped bundle, or '' for the default."""
    path = user_path(name or DEFAULT_BUNDLE)
    shipped = shipped_file(f'bundles/{path.name}.safetensors')
    return shipped if path.parent == Path() and not path.is_file() and shipped.is_file() else path


def missing_bundle(path: Path) -> BundleError:
    """The error for a bundle that is not there."""
    return BundleError(f'bundle {path}: no such file; shipped: {", ".join(shipped_bundles())}')


def check_digest(path: Optional[Path], digest: str, expected: str) -> None:
    """BundleError for another file than a command, which other processes work for, was started with."""
    if digest != expected:
        raise BundleError(
            f'bundle {path}: this is not the file of the same name where the command was started; '
            'copy that one here'
        )


def load_info(name: Union[str, Path] = '') -> BundleInfo:
    """What a bundle (see `find_bundle`) says of itself; its weights are neither read nor checked.

    BundleError describes what is wrong with it.
    """
    path = find_bundle(name)
    if not path.is_file():
        raise missing_bundle(path)
    try:
        with safe_open(path, framework='np') as file:
            return read_info(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise BundleError(f'bundle {path}: {describe_foreign(path)} ({error})') from error
    except (SerError, ValueError) as error:
        reason = textwrap.shorten(str(error), 500, placeholder=' ...')
        raise BundleError(f'bundle {path}: {reason}') from error


def read_info(metadata: dict[str, str]) -> BundleInfo:
    """The information in the metadata of a file; SerError if it is not that of a bundle."""
    if metadata.get('format') != FORMAT:
        raise BundleError('a safetensors file, but not a ser_ros bundle')
    version = metadata.get('format_version')
    if version != str(FORMAT_VERSION):
        raise BundleError(_describe_version(version))
    others = ('format', 'format_version', PROGRAMS)
    values = {key: value for key, value in metadata.items() if key not in others}
    info = {key: json.loads(value) for key, value in values.items()}
    # With the defaults in place of missing values the model would silently adapt otherwise, or not at all.
    if isinstance(found := info.get('adaptation'), dict):
        missing = [key.name for key in fields(AdaptationInfo) if key.name not in found]
        if missing:
            raise BundleError(f'adaptation.{missing[0]} is missing')
    return from_dict(BundleInfo, info)


def _describe_version(version: Optional[str]) -> str:
    text = f'format version {version}, this release reads {FORMAT_VERSION}'
    if version in ('1', '2'):
        return f'{text}: written before the first release of ser_ros, train the model again'
    if version is not None and version.isdecimal() and int(version) > FORMAT_VERSION:
        return f'{text}: written by a newer release of ser_ros, use that one'
    return text


def describe_foreign(path: Path) -> str:
    """Why a file is not safetensors, as far as its beginning tells."""
    try:
        with path.open('rb') as file:
            magic = file.read(2)
    except OSError:
        return 'cannot be read'
    if magic in (b'PK', b'\x80\x02', b'\x80\x03', b'\x80\x04', b'\x80\x05'):
        return 'a pickle or PyTorch checkpoint, which is never unpickled; use a bundle instead'
    return 'damaged, or not a safetensors file'
