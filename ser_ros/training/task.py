"""The learning task: what a model is given, what it is asked, how it is judged."""

import functools
from collections.abc import Sequence

import lightning
import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from ser_ros import SerError
from ser_ros.features import LogMel
from ser_ros.models import build_model
from ser_ros.models.blocks import frame_mask
from ser_ros.training.recipe import AugmentationConfig, Recipe

# (samples (batch, longest), lengths (batch,), labels (batch,))
Batch = tuple[Tensor, Tensor, Tensor]


class Augment(nn.Module):
    """Gain and noise on the waveform, masks on the spectrogram; drawn per clip, on the device."""

    def __init__(self, config: AugmentationConfig):
        super().__init__()
        self.config = config

    def waveform(self, samples: Tensor) -> Tensor:
        """(batch, samples) → the same shape, with white noise relative to each clip's level.

        Rounded to 16 bits after the gain, as a quiet voice is in a message.
        """
        n = len(samples)
        snr_db = _uniform(n, self.config.noise_snr_db, samples.device)
        level = samples.square().mean(dim=1).sqrt() * 10 ** (-snr_db / 20)
        noisy = torch.rand(n, device=samples.device) < self.config.noise_probability
        samples = samples + torch.randn_like(samples) * (level * noisy)[:, None]
        gain_db = _uniform(n, self.config.gain_db, samples.device)
        samples = (samples * 10 ** (gain_db / 20)[:, None]).clamp(-1.0, 1.0)
        return (samples * 2.0**15).round() / 2.0**15

    def spectrogram(self, x: Tensor) -> Tensor:
        """(batch, n_mels, frames) → the same, bands and stretches set to the mean (zero)."""
        x = (
            x
            * self._masks(x, x.shape[1], self.config.mel_masks, self.config.mel_mask_width)[
                :, :, None
            ]
        )
        return (
            x
            * self._masks(x, x.shape[2], self.config.time_masks, self.config.time_mask_width)[
                :, None
            ]
        )

    @staticmethod
    def _masks(x: Tensor, size: int, count: int, max_width: int) -> Tensor:
        """(batch, size), False where one of `count` masks lies."""
        width = _uniform((len(x), count, 1), (0, max_width), x.device)
        start = torch.rand(len(x), count, 1, device=x.device) * (size - width)
        position = torch.arange(size, device=x.device)
        return ~((position >= start) & (position < start + width)).any(dim=1)


def _uniform(shape: int | tuple, bounds: tuple[float, float], device: torch.device) -> Tensor:
    return torch.empty(shape, device=device).uniform_(*bounds)


class EmotionTask(lightning.LightningModule):
    """Front-end and model trained with AdamW, one cycle, mixup and label smoothing."""

    def __init__(self, recipe: Recipe, class_names: Sequence[str], mean: Tensor, std: Tensor):
        """`mean`, `std`: (n_mels,) decibel statistics of the training part."""
        super().__init__()
        self.recipe = recipe
        self.frontend = LogMel(recipe.frontend, mean.tolist(), std.tolist())
        self.model = build_model(
            recipe.architecture, recipe.frontend.n_mels, len(class_names), **recipe.hyperparameters
        )
        self.augment = Augment(recipe.augmentation)
        # Macro average: the mean of the classes' recalls, the field's "unweighted accuracy".
        self.accuracy = MulticlassAccuracy(len(class_names), average='macro')

    def forward(self, samples: Tensor, lengths: Tensor) -> Tensor:
        """(batch, samples), true lengths in samples (batch,) → logits (batch, n_classes)."""
        return self.model(self.frontend(samples), self._frames(lengths))

    def _frames(self, lengths: Tensor) -> Tensor:
        config = self.frontend.config
        return (lengths - config.n_fft) // config.hop_length + 1

    def training_step(self, batch: Batch) -> Tensor:
        """Return the loss of an augmented, mixed-up batch; SerError if it is not finite."""
        samples, lengths, labels = batch
        frames = self._frames(lengths)
        x = self.augment.spectrogram(self.frontend(self.augment.waveform(samples)))
        x = x * frame_mask(frames, x.shape[-1])[:, None]
        smoothing = self.recipe.optimization.label_smoothing
        loss_of = functools.partial(nn.functional.cross_entropy, label_smoothing=smoothing)
        alpha = self.recipe.augmentation.mixup_alpha
        if alpha:
            share = torch.distributions.Beta(alpha, alpha).sample().item()
            other = torch.randperm(len(x), device=x.device)
            x = share * x + (1 - share) * x[other]
            logits = self.model(x, torch.maximum(frames, frames[other]))
            loss = share * loss_of(logits, labels) + (1 - share) * loss_of(logits, labels[other])
        else:
            loss = loss_of(self.model(x, frames), labels)
        if not loss.isfinite():
            raise SerError(
                f'the loss is not finite in epoch {self.current_epoch}; a lower learning_rate '
                'may help'
            )
        self.log('train_loss', loss, on_epoch=True, on_step=False)
        return loss

    def validation_step(self, batch: Batch) -> None:
        """A batch is one utterance's windows; its decision is their mean log-probability."""
        samples, lengths, labels = batch
        score = self(samples, lengths).log_softmax(dim=1).mean(dim=0, keepdim=True)
        loss = nn.functional.nll_loss(score, labels[:1])
        self.accuracy.update(score, labels[:1])
        self.log('val_loss', loss, prog_bar=True, batch_size=1)
        self.log('val_accuracy', self.accuracy, prog_bar=True, batch_size=1)

    def configure_optimizers(self) -> dict:
        """Return AdamW and its one-cycle schedule, stepped each batch."""
        config = self.recipe.optimization
        optimizer = torch.optim.AdamW(
            self.model.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, config.learning_rate, self.trainer.estimated_stepping_batches
        )
        return {
            'optimizer': optimizer,
            'lr_scheduler': {'scheduler': schedule, 'interval': 'step'},
        }
