"""The learning task: inputs, targets, loss, and validation metrics."""

import math
from typing import Any, Optional, Union

import lightning
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from ser_ros import SerError
from ser_ros.features import voice_mean
from ser_ros.training.data.augmentation import Augment, mixup
from ser_ros.training.data.batches import mixed_seed
from ser_ros.training.data.copies import CopyBatch
from ser_ros.training.data.dataset import Batch
from ser_ros.training.learning.distillation import Teacher, streamed_features
from ser_ros.training.recipe import OptimizationConfig, Recipe


class EmotionTask(lightning.LightningModule):
    """A front-end and a model, trained with a recipe."""

    def __init__(
        self,
        recipe: Recipe,
        frontend: nn.Module,
        model: nn.Module,
        n_classes: int,
        class_weights: Optional[Tensor] = None,
        corpus_classes: Optional[Tensor] = None,
        teacher: Optional[Teacher] = None,
    ):
        """`frontend`: fitted. `class_weights`: (n_classes,), by default all equal.

        `corpus_classes`: (n_corpora, n_classes), True for the classes that enter the loss of the
        corpus's clips; by default all. `teacher`: whose probabilities are mixed into the targets.
        """
        super().__init__()
        self.recipe = recipe
        self.frontend = frontend
        self.model = model
        self.n_classes = n_classes
        self.teacher = teacher
        self.augment = Augment(recipe.augmentation, recipe.frontend.sample_rate)
        weights = torch.ones(n_classes) if class_weights is None else class_weights
        self.register_buffer('class_weights', weights, persistent=False)
        if corpus_classes is None:
            corpus_classes = torch.ones(len(recipe.data.corpora), n_classes, dtype=torch.bool)
        self.register_buffer('corpus_classes', corpus_classes, persistent=False)
        # Macro average: the mean of the classes' recalls, the field's "unweighted accuracy".
        self.accuracy = MulticlassAccuracy(n_classes, average='macro')
        # A loss that is not a number must show, not be left out.
        self.validation_loss = MeanMetric(nan_strategy='disable')

    def forward(self, samples: Tensor, lengths: Tensor) -> Tensor:
        """(batch, samples), true lengths in samples (batch,) → logits (batch, n_classes)."""
        return self.model(self.frontend(samples, lengths), self._steps(lengths))

    def _steps(self, lengths: Tensor) -> Tensor:
        """(batch,) in samples → (batch,) in steps of the features."""
        return self.frontend.n_steps(self.frontend.n_frames(lengths))

    def losses(self, batch: Union[Batch, CopyBatch]) -> Tensor:
        """(batch,) losses of the clips, augmented and mixed up."""
        if self.recipe.voice.copies:
            features, steps, labels, corpora, means = batch
            x = self.frontend.standardise(features, self._known(means))
        else:
            samples, lengths, labels, corpora = batch
            steps = self._steps(lengths)
            samples = self.augment.waveform(samples, lengths)
            x = self._features(samples, lengths)
        x = self.augment.spectrogram(x, steps)
        targets = soft_targets(labels, self.n_classes)
        # A sound without a voice is uncertain among all classes, whatever corpus it replaces.
        known = self.corpus_classes[corpora] | (labels < 0)[:, None]
        if self.teacher:
            targets = self.teacher.soften(targets, labels, samples, lengths, known)
        if alpha := self.recipe.augmentation.mixup_alpha:
            x, steps, targets, known = mixup(x, steps, targets, known, alpha)
        return clip_losses(
            self.model(x, steps), targets, known, self.class_weights, self.recipe.optimization
        )

    def _features(self, samples: Tensor, lengths: Tensor) -> Tensor:
        """(batch, samples), true lengths (batch,) → (batch, n_features, steps)."""
        if not self.frontend.is_streaming:
            return self.frontend(samples, lengths)
        return streamed_features(self.frontend, samples, lengths)

    def _known(self, means: Tensor) -> Tensor:
        """The means of voices (batch, n_features, 1) → as if some of their utterances were known.

        See `stream.adaptation`.
        """
        voice, shape = self.recipe.voice, (len(means), 1, 1)
        n = torch.randint(voice.history[0], voice.history[1] + 1, shape)
        n = n * (torch.rand(shape) >= voice.unknown_probability)
        return voice_mean(self.frontend.mean, means, (n / (n + voice.memory)).to(means.device))

    def training_step(self, batch: Batch) -> Tensor:
        """Return the mean loss over all processes' clips; SerError if it is not finite."""
        # Seeded for each step, so that a resumed run draws the same as an uninterrupted one.
        torch.manual_seed(mixed_seed(self.recipe.seed, self.global_step, self.global_rank))
        losses = self.losses(batch)
        # Processes average their gradients, even if their numbers of clips differ: count clips.
        n_clips = torch.tensor(len(losses), device=self.device)
        n_clips = self.trainer.strategy.reduce(n_clips, reduce_op='sum')
        loss = losses.sum() * self.trainer.world_size / n_clips
        self._check(loss)
        self.log('train_loss', loss, on_epoch=True, on_step=False, sync_dist=True, batch_size=1)
        return loss

    def _check(self, loss: Tensor) -> None:
        if not loss.isfinite():
            raise SerError(
                f'the loss is not finite in epoch {self.current_epoch}; a lower learning_rate '
                'may help'
            )

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor, list[int]]) -> None:
        """A batch of `pad_utterances` holds their longest windows: see `voice.pool_windows`."""
        samples, lengths, labels, n_windows = batch
        scores = self(samples, lengths).log_softmax(dim=1).split(n_windows)
        scores = torch.stack([score.mean(dim=0) for score in scores])
        self.validation_loss.update(nn.functional.nll_loss(scores, labels, reduction='none'))
        self.accuracy.update(scores, labels)

    def on_validation_epoch_end(self) -> None:
        """Log exact means over all processes' utterances; SerError if the loss is not finite."""
        loss = self.validation_loss.compute()
        self._check(loss)
        self.log('val_loss', loss, prog_bar=True)
        self.log('val_accuracy', self.accuracy.compute(), prog_bar=True)
        self.validation_loss.reset()
        self.accuracy.reset()

    def configure_optimizers(self) -> dict[str, Any]:
        """Return the recipe's optimiser and its schedule, stepped each batch."""
        config = self.recipe.optimization
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        if config.optimizer == 'sgd':
            optimizer = torch.optim.SGD(
                parameters,
                config.learning_rate,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
            )
        else:
            optimizer = torch.optim.AdamW(
                parameters, config.learning_rate, weight_decay=config.weight_decay
            )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = learning_rate_schedule(optimizer, config, steps)
        return {
            'optimizer': optimizer,
            'lr_scheduler': {'scheduler': schedule, 'interval': 'step'},
        }


def soft_targets(labels: Tensor, n_classes: int) -> Tensor:
    """(batch,) labels → (batch, n_classes) probabilities; for -1, no class, all are equal."""
    targets = nn.functional.one_hot(labels.clamp(min=0), n_classes).float()
    return targets.masked_fill((labels < 0)[:, None], 1 / n_classes)


def clip_losses(
    logits: Tensor,
    targets: Tensor,
    known: Tensor,
    class_weights: Tensor,
    config: OptimizationConfig,
) -> Tensor:
    """(batch,) losses of (batch, n_classes) logits against (batch, n_classes) probabilities.

    Classes that are not `known` (batch, n_classes) are left out of the softmax and the smoothing;
    their targets are zero. The focal loss (Lin et al., 2017) multiplies each class's share by
    (1 - p)^gamma.
    """
    smoothing = config.label_smoothing / known.sum(dim=1, keepdim=True)
    targets = targets * (1 - config.label_smoothing) + smoothing
    log_probabilities = logits.float().masked_fill(~known, -torch.inf).log_softmax(dim=1)
    log_probabilities = log_probabilities.masked_fill(~known, 0.0)
    terms = -targets * log_probabilities * class_weights
    if config.loss == 'focal':
        terms = terms * (1 - log_probabilities.exp()) ** config.focal_gamma
    return terms.sum(dim=1)


def learning_rate_schedule(
    optimizer: torch.optim.Optimizer, config: OptimizationConfig, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The recipe's schedule over `steps` batches, after its linear warm-up."""
    schedules = torch.optim.lr_scheduler
    if config.schedule == 'one_cycle':
        return schedules.OneCycleLR(optimizer, config.learning_rate, steps)
    steps_per_epoch = steps / config.epochs
    warmup = round(config.warmup_epochs * steps_per_epoch)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if config.schedule == 'cosine':
            return (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2
        if config.schedule == 'step':
            return config.step_factor ** int(step / steps_per_epoch / config.step_epochs)
        return 1.0

    return schedules.LambdaLR(optimizer, factor)
