"""Distillation: a trained model as the teacher of another one (Hinton et al., 2015)."""

import copy
from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor, nn

from ser_ros import SerError
from ser_ros.bundle import Bundle, load_bundle
from ser_ros.training.data.augmentation import spectrum_by_length
from ser_ros.training.recipe import DistillationConfig, Recipe


class Teacher:
    """Soft targets from a bundle for clips that are augmented as the trained model gets them.

    It is no module, so that checkpoints and averages of weights do not have its weights.
    """

    def __init__(self, bundle: Bundle, class_names: Sequence[str], config: DistillationConfig):
        """`class_names`: of the model that is trained, in its order; the bundle has all of them."""
        self.config = config
        # Copies, which move to the device of the training; the bundle stays where it is.
        self._frontend = copy.deepcopy(bundle.frontend)
        self._model = copy.deepcopy(bundle.model)
        self._columns = [bundle.info.class_names.index(name) for name in class_names]

    @torch.no_grad()
    def probabilities(self, samples: Tensor, lengths: Tensor, known: Tensor) -> Tensor:
        """(batch, samples), true lengths (batch,) → (batch, n_classes) among the `known` classes."""
        frontend, model = (part.to(samples.device) for part in (self._frontend, self._model))
        logits = model(
            streamed_features(frontend, samples, lengths),
            frontend.n_steps(frontend.n_frames(lengths)),
        )
        logits = logits[:, self._columns].float() / self.config.temperature
        return logits.masked_fill(~known, -torch.inf).softmax(dim=1)

    def soften(
        self, targets: Tensor, labels: Tensor, samples: Tensor, lengths: Tensor, known: Tensor
    ) -> Tensor:
        """`targets` (batch, n_classes) mixed with the probabilities of the teacher.

        Those of clips without a class, whose label is -1, stay.
        """
        taught = self.probabilities(samples, lengths, known)
        weights = self.config.weight * (labels >= 0)[:, None].float()
        return targets.lerp(taught, weights)


def streamed_features(frontend: nn.Module, samples: Tensor, lengths: Tensor) -> Tensor:
    """(batch, samples), true lengths (batch,) → (batch, n_features, steps), in 32 bits.

    For a front-end of the stream.
    """
    with torch.autocast(samples.device.type, enabled=False):
        spectrum = spectrum_by_length(frontend, samples, lengths)
        return frontend.standardise(frontend.features(spectrum, frontend.n_frames(lengths)))


def load_teacher(recipe: Recipe) -> Optional[Bundle]:
    """The bundle that the recipe's `distillation` names; None if it names none.

    BundleError for one that cannot be loaded; SerError for one of another sample rate, or that
    reads whole clips.
    """
    if not recipe.distillation.teacher:
        return None
    bundle = load_bundle(recipe.distillation.teacher)
    own, needed = bundle.frontend.sample_rate, recipe.frontend.sample_rate
    if own != needed:
        raise SerError(
            f'the teacher {bundle.path} is for {own} Hz, and the recipe for {needed} Hz'
        )
    if not bundle.frontend.is_streaming:
        raise SerError(f'the teacher {bundle.path} reads whole clips; it needs windows')
    return bundle


def make_teacher(
    recipe: Recipe, class_names: Sequence[str], bundle: Optional[Bundle]
) -> Optional[Teacher]:
    """The teacher of a model with these classes, if there is one; SerError if it lacks any."""
    if bundle is None:
        return None
    if unknown := [name for name in class_names if name not in bundle.info.class_names]:
        raise SerError(
            f'the teacher {bundle.path} does not know {", ".join(unknown)}: it must know all '
            'classes of the model that it teaches'
        )
    return Teacher(bundle, class_names, recipe.distillation)
