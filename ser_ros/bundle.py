"""A trained model on disk: one safetensors file with the weights and all that is needed to use them."""

import dataclasses
import hashlib
import json
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Union

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ser_ros import SerError
from ser_ros.emotions import EMOTIONS, Emotion
from ser_ros.features import Frontend, FrontendConfig, build_frontend
from ser_ros.files import user_path, write_atomically
from ser_ros.models import build_model
from ser_ros.models.size_limit import SizeLimit
from ser_ros.settings import from_dict
from ser_ros.shipped import shipped_bundles, shipped_file

FORMAT = 'ser_ros bundle'
FORMAT_VERSION = 3
DEFAULT_BUNDLE = 'companion'
WINDOW_RANGE = (0.5, 60.0)
"""Shortest and longest allowed value of a bundle's window, in seconds."""
MAX_WINDOW = 2**20
"""The most values that a window may have, frames times features: a minute has 384,000 of 64 bands."""


class BundleError(SerError):
    """A bundle that cannot be used, or a clip that a bundle cannot classify."""


@dataclass(frozen=True)
class AdaptationInfo:
    """How the model's stream adapts to a voice, see `stream.adaptation`.

    Raises BundleError for invalid values.
    """

    by_voice: bool = False
    """Whether the model was trained on features standardised by voice; others do not adapt."""
    memory: float = 24.0
    """After n utterances of a voice its own means have the weight n / (n + memory)."""
    neutral_share: float = 0.4
    """Share of neutral utterances that is expected unless a user states another."""

    def __post_init__(self):
        if not self.memory > 0:
            raise BundleError(f'adaptation.memory {self.memory} is not positive')
        if not 0 < self.neutral_share < 1:
            raise BundleError(
                f'adaptation.neutral_share {self.neutral_share} is not between 0 and 1'
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
    """Confidence below which no expression is decided."""
    corpora: dict[str, dict[str, list[str]]]
    """Corpus → subset (train, validation, test) → speakers."""
    recipe: dict[str, Any]
    seed: int
    metrics: dict[str, Any]
    """Subset, or other corpus → metrics with their protocol."""
    license: str
    """SPDX expression that the training data requires."""
    recordings: tuple[str, ...]
    """Fingerprints of the clips used in training and calibration, see `corpora.Clip`."""
    calibration: str
    """What temperature and threshold were chosen on, as in "chosen on ..."."""
    adaptation: AdaptationInfo
    classes: dict[str, Emotion] = field(default_factory=dict)
    """What the classes mean that are not in `emotions.EMOTIONS`."""

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


@dataclass
class Bundle:
    """A model ready to use, on the CPU until it is moved."""

    info: BundleInfo
    frontend: Frontend
    model: nn.Module
    path: Path
    digest: str = ''
    """SHA-256 of the file that it was loaded from."""

    @property
    def min_samples(self) -> int:
        """Samples of the shortest clip that can be classified, at the front-end's rate."""
        return self.frontend.n_samples(self.model.min_frames)

    @torch.inference_mode()
    def log_probabilities(self, features: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """(batch, n_features, frames), true lengths (batch,) → calibrated (batch, n_classes).

        Computed on the model's device, returned on the CPU.
        """
        logits = self.model(features, lengths)
        return (logits / self.info.temperature).log_softmax(dim=-1).cpu()

    @torch.inference_mode()
    def classify(self, waveform: Tensor) -> Tensor:
        """(samples,) of a whole clip, at the front-end's rate → calibrated (n_classes,), on CPU.

        BundleError for a clip that is too short, or silent in the part that the front-end reads.
        """
        rate = self.frontend.sample_rate
        if len(waveform) < self.min_samples:
            raise BundleError(
                f'a clip of {len(waveform) / rate:.3f} s is too short: {self.info.architecture} '
                f'needs at least {self.min_samples / rate:.3f} s'
            )
        spectrum = self.frontend.spectrum(waveform.to(self.frontend.mean.device))
        if (spectrum == spectrum[:, :1]).all():
            raise BundleError(
                f'the clip is silent in the part that {self.info.architecture} reads'
            )
        features = self.frontend.standardise(self.frontend.features(spectrum))[None]
        return self.log_probabilities(features.to(next(self.model.parameters()).device))[0]


def save_bundle(path: Path, info: BundleInfo, frontend: Frontend, model: nn.Module) -> None:
    """Write a bundle to `path`, completely or not at all; SerError if it cannot be written."""
    metadata = {
        'format': FORMAT,
        'format_version': str(FORMAT_VERSION),
        **{key: json.dumps(value) for key, value in dataclasses.asdict(info).items()},
    }
    if not info.classes:  # releases that do not know the key read all other bundles
        del metadata['classes']
    weights = {
        'frontend.mean': frontend.mean,
        'frontend.std': frontend.std,
        **{f'model.{name}': tensor for name, tensor in model.state_dict().items()},
    }
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write_atomically(path, save(weights, metadata))


def find_bundle(name: Union[str, Path]) -> Path:
    """The file of a bundle: `name` is a path, the name of a shipped bundle, or '' for the default."""
    path = user_path(name or DEFAULT_BUNDLE)
    shipped = shipped_file(f'bundles/{path.name}.safetensors')
    return shipped if path.parent == Path() and not path.is_file() and shipped.is_file() else path


def load_bundle(name: Union[str, Path] = '') -> Bundle:
    """Load and check a bundle (see `find_bundle`); BundleError describes what is wrong with it."""
    path = find_bundle(name)
    if not path.is_file():
        raise BundleError(f'bundle {path}: no such file; shipped: {", ".join(shipped_bundles())}')
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with safe_open(path, framework='pt') as file:
            metadata = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BundleError(f'bundle {path}: {_describe_foreign(path)} ({error})') from error
    try:
        info = _read_info(metadata)
        frontend = _load_frontend(info.frontend, weights)
        _check_window(info, frontend)
        model = _load_model(info, frontend.n_features, weights)
        bundle = Bundle(info, frontend.eval(), model.eval().requires_grad_(False), path, digest)
        _check_runs(bundle)
    except (SerError, ValueError, RuntimeError, ArithmeticError) as error:
        reason = textwrap.shorten(str(error), 500, placeholder=' ...')
        raise BundleError(f'bundle {path}: {reason}') from error
    return bundle


def _describe_foreign(path: Path) -> str:
    try:
        with path.open('rb') as file:
            magic = file.read(2)
    except OSError:
        return 'cannot be read'
    if magic in (b'PK', b'\x80\x02', b'\x80\x03', b'\x80\x04', b'\x80\x05'):
        return 'a pickle or PyTorch checkpoint, which is never unpickled; use a bundle instead'
    return 'damaged, or not a safetensors file'


def _read_info(metadata: dict[str, str]) -> BundleInfo:
    if metadata.get('format') != FORMAT:
        raise BundleError('a safetensors file, but not a ser_ros bundle')
    version = metadata.get('format_version')
    if version != str(FORMAT_VERSION):
        raise BundleError(_describe_version(version))
    values = {key: value for key, value in metadata.items() if not key.startswith('format')}
    return from_dict(BundleInfo, {key: json.loads(value) for key, value in values.items()})


def _describe_version(version: Optional[str]) -> str:
    text = f'format version {version}, this release reads {FORMAT_VERSION}'
    if version in ('1', '2'):
        return f'{text}: written before the first release of ser_ros, train the model again'
    if version is not None and version.isdecimal() and int(version) > FORMAT_VERSION:
        return f'{text}: written by a newer release of ser_ros, use that one'
    return text


def _load_frontend(config: FrontendConfig, weights: dict[str, Tensor]) -> Frontend:
    """Build the front-end; its statistics are removed from `weights`."""
    if missing := [name for name in ('frontend.mean', 'frontend.std') if name not in weights]:
        raise BundleError(f'{", ".join(missing)} is missing')
    return build_frontend(config, weights.pop('frontend.mean'), weights.pop('frontend.std'))


def _check_window(info: BundleInfo, frontend: Frontend) -> None:
    n_frames = frontend.n_frames(round(info.window * frontend.sample_rate))
    if n_frames * frontend.n_features > MAX_WINDOW:
        raise BundleError(
            f'a window of {info.window:g} s has {n_frames} frames of {frontend.n_features} features, '
            f'more than {MAX_WINDOW} values'
        )


def _load_model(info: BundleInfo, n_features: int, weights: dict[str, Tensor]) -> nn.Module:
    """Build the model and load its weights; it is built only if these fit."""
    if foreign := [name for name in weights if not name.startswith('model.')]:
        raise BundleError(f'unexpected tensors: {", ".join(foreign)}')
    state = {name.removeprefix('model.'): tensor for name, tensor in weights.items()}

    def build() -> nn.Module:
        n_classes = len(info.class_names)
        return build_model(info.architecture, n_features, n_classes, **info.hyperparameters)

    # First without memory: the hyperparameters may describe a model of any size.
    with torch.device('meta'), SizeLimit(state):
        planned = build()
    _load_weights(planned, state, assign=True)
    model = build()
    _load_weights(model, state)
    if bad := [name for name, tensor in weights.items() if not tensor.isfinite().all()]:
        raise BundleError(f'weights that are not finite: {", ".join(bad)}')
    return model


def _load_weights(model: nn.Module, state: dict[str, Tensor], assign: bool = False) -> None:
    try:
        model.load_state_dict(state, assign=assign)
    except RuntimeError as error:
        _, first, *others = str(error).splitlines()
        more = f' (and {len(others)} similar errors)' if others else ''
        raise BundleError(
            f'not the weights of this architecture: {first.strip()}{more}'
        ) from error


def _check_runs(bundle: Bundle) -> None:
    """Classify the shortest clip: some settings that do not work together have no other sign."""
    frontend = bundle.frontend
    try:
        features = frontend.features(frontend.spectrum(torch.zeros(bundle.min_samples)))
        scores = bundle.log_probabilities(frontend.standardise(features)[None])
    except Exception as error:  # whatever the settings make the front-end or the model do
        raise BundleError(f'it does not run: {error}') from error
    if scores.shape != (1, len(bundle.info.class_names)) or not scores.isfinite().all():
        raise BundleError('it does not run: its probabilities are not finite')
