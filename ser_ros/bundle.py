"""A trained model on disk: one safetensors file with the weights and all that is needed to use them."""

import dataclasses
import hashlib
import json
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor, nn

from ser_ros import SerError
from ser_ros.bundle_info import (
    FORMAT,
    FORMAT_VERSION,
    BundleError,
    BundleInfo,
    describe_foreign,
    find_bundle,
    missing_bundle,
    read_info,
)
from ser_ros.features import Frontend, build_frontend
from ser_ros.files import write_atomically
from ser_ros.frontend_config import FrontendConfig
from ser_ros.models import build_model
from ser_ros.models.size_limit import SizeLimit
from ser_ros.programs import Programs, pop_programs, remove_programs

MAX_WINDOW = 2**20
"""The most values that a window may have, frames times features: a minute has 384,000 of 64 bands."""


@dataclass
class Bundle:
    """A model ready to use, on the CPU until it is moved."""

    info: BundleInfo
    frontend: Frontend
    model: nn.Module
    path: Path
    digest: str = ''
    """SHA-256 of the file that it was loaded from."""
    programs: Optional[Programs] = None
    """Those inside the file, for machines without torch."""

    @property
    def min_samples(self) -> int:
        """Samples of the shortest clip that can be classified, at the front-end's rate."""
        return self.frontend.n_samples(self.model.min_frames)

    @torch.inference_mode()
    def log_probabilities(self, features: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """(batch, n_features, steps), true lengths (batch,) → calibrated (batch, n_classes).

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


def save_bundle(
    path: Path,
    info: BundleInfo,
    frontend: Frontend,
    model: nn.Module,
    programs: Optional[Programs] = None,
) -> None:
    """Write a bundle to `path`, completely or not at all; SerError if it cannot be written.

    `programs`: made from the same weights, see `export.make_programs`.
    """
    metadata = {
        'format': FORMAT,
        'format_version': str(FORMAT_VERSION),
        **{key: json.dumps(value) for key, value in dataclasses.asdict(info).items()},
    }
    if not info.classes:  # releases that do not know the key read all other bundles
        del metadata['classes']
    weights = weights_of(frontend, model)
    if programs is not None:
        metadata |= programs.metadata()
        weights |= programs.tensors()
    write_atomically(path, save(weights, metadata))


def weights_of(frontend: Frontend, model: nn.Module) -> dict[str, np.ndarray]:
    """The tensors of a bundle's file."""
    weights = {
        **{f'frontend.{name}': tensor for name, tensor in frontend.tensors().items()},
        **{f'model.{name}': tensor for name, tensor in model.state_dict().items()},
    }
    return {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in weights.items()}


def load_bundle(name: Union[str, Path] = '', with_programs: bool = True) -> Bundle:
    """Load and check a bundle (see `find_bundle`); BundleError describes what is wrong with it.

    `with_programs`: False to make them anew, whatever is wrong with those inside.
    """
    path = find_bundle(name)
    if not path.is_file():
        raise missing_bundle(path)
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with safe_open(path, framework='np') as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BundleError(f'bundle {path}: {describe_foreign(path)} ({error})') from error
    try:
        info = read_info(metadata)
        programs = None
        if with_programs:
            programs = pop_programs(metadata, tensors)
        else:
            remove_programs(tensors)
        weights = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
        frontend = _load_frontend(info.frontend, weights)
        _check_window(info, frontend)
        model = _load_model(info, frontend.n_features, weights)
        bundle = Bundle(
            info, frontend.eval(), model.eval().requires_grad_(False), path, digest, programs
        )
        _check_runs(bundle)
    except (SerError, ValueError, RuntimeError, ArithmeticError) as error:
        reason = textwrap.shorten(str(error), 500, placeholder=' ...')
        raise BundleError(f'bundle {path}: {reason}') from error
    return bundle


def _load_frontend(config: FrontendConfig, weights: dict[str, Tensor]) -> Frontend:
    """Build the front-end; its tensors are removed from `weights`."""
    if missing := [name for name in ('frontend.mean', 'frontend.std') if name not in weights]:
        raise BundleError(f'{", ".join(missing)} is missing')
    own = {
        name.removeprefix('frontend.'): weights.pop(name)
        for name in list(weights)
        if name.startswith('frontend.')
    }
    return build_frontend(config, own.pop('mean'), own.pop('std'), own)


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
