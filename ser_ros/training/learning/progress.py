"""The progress of a fit: a bar in a terminal, a line for each epoch in a log file."""

import sys
import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.progress_bar import ProgressBar

from ser_ros.training.learning.task import EmotionTask


def progress() -> ProgressBar:
    """What stderr can show."""
    return EpochBar() if sys.stderr.isatty() else EpochLines()


def _title(trainer: lightning.Trainer, task: EmotionTask) -> str:
    is_refit = task.recipe.refit and not trainer.enable_validation
    epoch = f'epoch {trainer.current_epoch + 1} of {trainer.max_epochs}'
    return f'refit, {epoch}' if is_refit else epoch


class EpochBar(TQDMProgressBar):
    """A bar that is closed on an error, so that the error message begins a new line."""

    def on_train_epoch_start(self, trainer: lightning.Trainer, *more: Any) -> None:
        """Start the bar again, with the number of epochs."""
        super().on_train_epoch_start(trainer, *more)
        self.train_progress_bar.set_description(_title(trainer, trainer.lightning_module))

    def on_exception(self, *_: Any) -> None:
        """Close the open bars, the upper one last."""
        for bar in (self._val_progress_bar, self._train_progress_bar):
            if bar is not None:
                bar.close()


class EpochLines(ProgressBar):
    """One line for each epoch: its number, its seconds and its metrics."""

    def __init__(self):
        super().__init__()
        self._is_enabled = True

    def disable(self) -> None:
        """Print nothing: Lightning calls it in all processes but the first."""
        self._is_enabled = False

    def enable(self) -> None:
        """Print again."""
        self._is_enabled = True

    def on_train_epoch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Start the epoch's clock."""
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: lightning.Trainer, task: EmotionTask) -> None:
        """Print the line."""
        if not self._is_enabled:
            return
        values = trainer.callback_metrics
        names = ('train_loss', 'val_loss', 'val_accuracy')
        metrics = [f'{name} {float(values[name]):.3f}' for name in names if name in values]
        seconds = f'{time.monotonic() - self._start:.1f} s'
        print(', '.join([_title(trainer, task), seconds, *metrics]), file=sys.stderr, flush=True)
