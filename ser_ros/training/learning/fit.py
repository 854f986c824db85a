"""Fitting weights with Lightning's trainer, configured by a recipe."""

import contextlib
import io
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
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
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ser_ros import SerError
from ser_ros.files import write_atomically
from ser_ros.stream.torch_backend import select_device
from ser_ros.training.data.batches import EmotionData
from ser_ros.training.learning.progress import progress
from ser_ros.training.learning.task import EmotionTask
from ser_ros.training.recipe import OptimizationConfig


@dataclass(frozen=True)
class Compute:
    """The devices and processes of a training.

    Only the number of processes changes the result by more than rounding: each process draws its
    own augmentation, and on CPUs its batch norm uses only its own share of a batch. SerError for
    invalid numbers and missing devices.
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
    """Folder for decoded sound; None to decode it each time."""

    def __post_init__(self):
        for name, least in (('devices', 1), ('nodes', 1), ('workers', 0)):
            if getattr(self, name) < least:
                raise SerError(f'{name} is {getattr(self, name)}, not {least} or more')
        if self.nodes > 1 and not {'MASTER_ADDR', 'SLURM_JOB_ID'} & os.environ.keys():
            raise SerError(f'nodes is {self.nodes}: set MASTER_ADDR, MASTER_PORT and NODE_RANK')
        n_gpus = torch.cuda.device_count()
        if self.device == 'auto' and not n_gpus:
            return
        device = select_device(self.device)
        if device.type == 'cuda' and self.devices > (n := n_gpus - (device.index or 0)):
            raise SerError(f'devices is {self.devices}, but from {device} on there are {n}')


def is_slow_in_bf16(device: str) -> bool:
    """Whether bf16 is computed without support by the processor, in several times the time."""
    is_cpu = select_device(device).type == 'cpu'
    return is_cpu and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


@dataclass(frozen=True)
class Fit:
    """A finished fit."""

    best: Path
    """Checkpoint of the best epoch by validation, or of the last one without a validation set."""
    last: Path
    history: list[dict[str, float]]
    """One row an epoch: losses, validation accuracy, learning rate, seconds."""
    is_first_process: bool


QUIET = (
    'Checkpoint directory .* exists and is not empty',
    'GPU available but not used',
    'It is recommended to use .*sync_dist=True',
    r"The '\w+' does not have many workers",
    '.*LeafSpec',
    'Found .* in eval mode at the start of training',
)
"""Beginnings of Lightning's warnings about intended settings, or that a user cannot act on."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        for message in QUIET:
            warnings.filterwarnings('ignore', message)
        yield


@_quiet()
def fit(task: EmotionTask, data: EmotionData, out: Path, compute: Compute) -> Fit:
    """Train `task` on `data`; checkpoints and logs are written to `out`.

    An interrupted fit continues from its last completed epoch. SerError if the loss is not finite,
    a checkpoint cannot be read or belongs to another release, or a device is missing. Ctrl-C and
    SIGTERM raise KeyboardInterrupt with the signal's number; the last checkpoint stays.
    """
    device = select_device(compute.device)
    config = task.recipe.optimization
    logging.getLogger('lightning.pytorch').setLevel(logging.WARNING)
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
        sync_batchnorm=device.type == 'cuda',
        plugins=[WholeCheckpoints()],
        deterministic=task.recipe.deterministic,
        precision=config.precision,
        gradient_clip_val=config.gradient_clip or None,
        max_epochs=config.epochs,
        callbacks=[
            *_averaging(config, data.n_batches),
            *_early_stopping(config, data),
            history,
            progress(),
            interruption,
            LearningRateMonitor('epoch'),
            *_best(out, data),
            MovableCheckpoint(
                out, 'last', enable_version_counter=False, save_on_train_epoch_end=True
            ),
        ],
        logger=TensorBoardLogger(out, name=None, version=''),
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        limit_val_batches=None if data.validation else 0,
        enable_model_summary=False,
    )
    last = out / 'last.ckpt'
    is_resumed = last.is_file()
    if is_resumed and read_checkpoint(last)['state_dict'].keys() != task.state_dict().keys():
        raise SerError(
            f'{last} was written by another release of ser_ros: remove {out} and train from the start'
        )
    # Progress bars belong on stderr, but Lightning draws them on stdout.
    with interruption, _logs(out), contextlib.redirect_stdout(sys.stderr):
        trainer.fit(task, data, ckpt_path=last if is_resumed else None, weights_only=True)
    best = out / 'best.ckpt' if data.validation else last
    return Fit(best, last, history.rows, trainer.is_global_zero)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint that `fit` wrote; SerError if the file is missing or damaged."""
    try:
        return torch.load(path, weights_only=True, map_location='cpu')
    # Any error that torch, pickle or zip raise for damaged bytes.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SerError(
            f'{path} cannot be read ({reason}): remove {path.parent} and train from the start'
        ) from error


@contextlib.contextmanager
def _logs(out: Path) -> Iterator[None]:
    """SerError if TensorBoard's logs cannot be written."""
    before = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        # An OSError of the writer's thread is raised again when the next value is logged.
        if not isinstance(arguments.exc_value, OSError):
            before(arguments)

    threading.excepthook = hook
    try:
        yield
    except OSError as error:
        raise SerError(f'logs cannot be written to {out}: {error.strerror or error}') from error
    finally:
        threading.excepthook = before


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are written completely or not at all; SerError if the disk is full.

    Lightning's own are moved from the folder for temporary files. If that is on another disk, the
    move is a copy, which may be cut off.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str, storage_options: Optional[Any] = None
    ) -> None:
        """Write to a file beside `path`, then rename it."""
        data = io.BytesIO()
        torch.save(checkpoint, data)
        write_atomically(Path(path), data.getvalue())


class MovableCheckpoint(ModelCheckpoint):
    """A checkpoint that keeps the best score when its folder is moved between two sessions.

    Lightning's forgets the score, so that the next epoch always replaces the best one.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore from the checkpoint, with its paths replaced by those in the present folder."""

        def here(path: str) -> str:
            return path and str(Path(self.dirpath, Path(path).name))

        paths = ('best_model_path', 'kth_best_model_path', 'last_model_path')
        super().load_state_dict(
            {
                **state_dict,
                'dirpath': self.dirpath,
                **{key: here(state_dict[key]) for key in paths},
                'best_k_models': {
                    here(path): score for path, score in state_dict['best_k_models'].items()
                },
            }
        )


class History(Callback):
    """Metrics of each epoch; stored in the checkpoints, so that a resumed run has all of them."""

    def __init__(self):
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_start(self, trainer: lightning.Trainer, task: EmotionTask) -> None:
        """Start the epoch's clock."""
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: lightning.Trainer, task: EmotionTask) -> None:
        """Add the epoch's row."""
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        self.rows.append(
            {
                'epoch': trainer.current_epoch,
                **metrics,
                'learning_rate': trainer.optimizers[0].param_groups[0]['lr'],
                'seconds': time.monotonic() - self._start,
            }
        )

    def state_dict(self) -> dict[str, Any]:
        """The state to store in the checkpoint."""
        return {'rows': self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from the checkpoint."""
        self.rows = state['rows']


class Interruption(Callback):
    """Stops between two batches on Ctrl-C or SIGTERM: elsewhere a library's lock may stay held.

    A second signal stops immediately.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self._asked = 0

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, self._ask) for number in self.SIGNALS}

    def __exit__(self, kind: Optional[type], *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        # Lightning turns KeyboardInterrupt into SystemExit, and raises it itself on SIGTERM.
        if kind is not None and issubclass(kind, SystemExit):
            raise KeyboardInterrupt(self._asked or signal.SIGINT)

    def _ask(self, number: int, _: Any) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = number

    def on_train_batch_start(self, *_: Any) -> None:
        """Stop here if a signal was received."""
        if self._asked:
            raise KeyboardInterrupt

    on_validation_batch_start = on_train_batch_start


def _averaging(config: OptimizationConfig, n_batches: int) -> list[Callback]:
    if config.average == 'ema':
        return [EMAWeightAveraging(decay=config.ema_decay)]
    if config.average == 'swa':
        start = config.swa_start * config.epochs * n_batches

        def average(
            averaged: torch.Tensor, current: torch.Tensor, n: torch.Tensor
        ) -> torch.Tensor:
            # Until the average begins, the weights themselves: they are validated as well. Counts
            # and masks have no average.
            if n < start or not current.is_floating_point():
                return current
            return averaged + (current - averaged) / (n - start + 1)

        return [WeightAveraging(avg_fn=average)]
    return []


def _best(out: Path, data: EmotionData) -> list[Callback]:
    if not data.validation:
        return []
    return [
        MovableCheckpoint(
            out, 'best', monitor='val_accuracy', mode='max', enable_version_counter=False
        )
    ]


class Stopping(EarlyStopping):
    """Early stopping that stays in force when a stopped run is started again."""

    def on_train_start(self, trainer: lightning.Trainer, task: EmotionTask) -> None:
        """Stop immediately if the run had stopped before."""
        trainer.should_stop = self.wait_count >= self.patience


def _early_stopping(config: OptimizationConfig, data: EmotionData) -> list[Callback]:
    if not config.early_stopping or not data.validation:
        return []
    return [Stopping('val_accuracy', mode='max', patience=config.early_stopping)]
