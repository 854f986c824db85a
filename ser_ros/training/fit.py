"""Finding the weights: Lightning's trainer as a recipe wants it."""

import logging
import signal
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import lightning
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    WeightAveraging,
)
from lightning.pytorch.loggers import TensorBoardLogger

from ser_ros.recognizer import select_device
from ser_ros.training.batches import EmotionData
from ser_ros.training.recipe import OptimizationConfig
from ser_ros.training.task import EmotionTask


@dataclass(frozen=True)
class Compute:
    """Where a training runs.

    Of what it learns only the number of processes decides anything but rounding: each draws its
    own augmentation, and normalises by its own share of a batch.
    """

    device: str = 'auto'
    """auto, cpu, cuda or cuda:N."""
    devices: int = 1
    """GPUs, or processes on the CPU, of each machine; more than one train data-parallel."""
    nodes: int = 1
    """Machines."""
    workers: int = 0
    """Processes that prepare batches."""
    cache: Optional[Path] = None
    """Folder for decoded sound; None for none."""


@dataclass(frozen=True)
class Fit:
    """A finished fit."""

    best: Path
    """Checkpoint of the best epoch by validation; the last one's where there is none."""
    history: list[dict[str, float]]
    """One row an epoch: losses, validation accuracy, learning rate, seconds."""
    is_first_process: bool


def fit(task: EmotionTask, data: EmotionData, out: Path, compute: Compute) -> Fit:
    """Train `task` on `data`; checkpoints and logs are written to `out`.

    A fit that was interrupted goes on from its last whole epoch. SerError for a loss that is not
    finite or a device that is not there; KeyboardInterrupt passes, the last checkpoint written.
    """
    device = select_device(compute.device)
    config = task.recipe.optimization
    logging.getLogger('lightning.pytorch').setLevel(logging.WARNING)
    # Lightning 2.6 with torch 2.11; nothing a user can do about it.
    warnings.filterwarnings('ignore', message='.*LeafSpec')
    first = device.index or 0
    history, interruption = History(), Interruption()
    n_processes = compute.devices * compute.nodes
    trainer = lightning.Trainer(
        accelerator='gpu' if device.type == 'cuda' else 'cpu',
        devices=(
            list(range(first, first + compute.devices))
            if device.type == 'cuda'
            else compute.devices
        ),
        num_nodes=compute.nodes,
        strategy='ddp' if n_processes > 1 else 'auto',
        use_distributed_sampler=False,
        deterministic=task.recipe.deterministic,
        precision=config.precision,
        gradient_clip_val=config.gradient_clip or None,
        max_epochs=config.epochs,
        callbacks=[
            *_averaging(config, len(data.items)),
            *_early_stopping(config, data),
            history,
            interruption,
            LearningRateMonitor('epoch'),
            *_best(out, data),
            ModelCheckpoint(
                out, 'last', enable_version_counter=False, save_on_train_epoch_end=True
            ),
        ],
        logger=TensorBoardLogger(out, name=None, version=''),
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        limit_val_batches=None if data.validation else 0,
        enable_model_summary=False,
    )
    last = out / 'last.ckpt'
    with interruption:
        trainer.fit(task, data, ckpt_path=last if last.is_file() else None, weights_only=True)
    best = out / 'best.ckpt' if data.validation else last
    return Fit(best, history.rows, trainer.is_global_zero)


class History(Callback):
    """What each epoch came to; kept in the checkpoints, so that a resumed run has all of it."""

    def __init__(self):
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_start(self, trainer: lightning.Trainer, task: EmotionTask) -> None:
        """Start the epoch's clock."""
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: lightning.Trainer, task: EmotionTask) -> None:
        """Add the epoch's row."""
        figures = {key: float(value) for key, value in trainer.callback_metrics.items()}
        self.rows.append(
            {
                'epoch': trainer.current_epoch,
                **figures,
                'learning_rate': trainer.optimizers[0].param_groups[0]['lr'],
                'seconds': time.monotonic() - self._start,
            }
        )

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {'rows': self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.rows = state['rows']


class Interruption(Callback):
    """Ctrl-C, heeded between two batches: elsewhere a library's lock may stay held.

    A second one is heeded at once.
    """

    def __init__(self):
        self._is_asked = False

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGINT, self._ask)

    def __exit__(self, kind: Optional[type], *_: Any) -> None:
        signal.signal(signal.SIGINT, self._before)
        if kind is SystemExit:  # what Lightning makes of KeyboardInterrupt
            raise KeyboardInterrupt

    def _ask(self, *_: Any) -> None:
        if self._is_asked:
            raise KeyboardInterrupt
        self._is_asked = True

    def on_train_batch_start(self, *_: Any) -> None:
        """Stop here if asked to."""
        if self._is_asked:
            raise KeyboardInterrupt

    on_validation_batch_start = on_train_batch_start


def _averaging(config: OptimizationConfig, n_items: int) -> list[Callback]:
    if config.average == 'ema':
        return [EMAWeightAveraging(decay=config.ema_decay)]
    if config.average == 'swa':
        start = config.swa_start * config.epochs * n_items / config.batch_size

        def average(
            averaged: torch.Tensor, current: torch.Tensor, n: torch.Tensor
        ) -> torch.Tensor:
            # The weights themselves until the average begins: they are validated, too.
            if n < start:
                return current
            return averaged + (current - averaged) / (n - start + 1)

        return [WeightAveraging(avg_fn=average)]
    return []


def _best(out: Path, data: EmotionData) -> list[Callback]:
    if not data.validation:
        return []
    return [
        ModelCheckpoint(
            out, 'best', monitor='val_accuracy', mode='max', enable_version_counter=False
        )
    ]


class Stopping(EarlyStopping):
    """Early stopping that a run which had stopped, and is started again, remembers."""

    def on_train_start(self, trainer: lightning.Trainer, task: EmotionTask) -> None:
        """Stop at once where it had stopped."""
        trainer.should_stop = self.wait_count >= self.patience


def _early_stopping(config: OptimizationConfig, data: EmotionData) -> list[Callback]:
    if not config.early_stopping or not data.validation:
        return []
    return [Stopping('val_accuracy', mode='max', patience=config.early_stopping)]
