"""The batches of an epoch, for one process or several."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Optional

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from ser_ros import SerError
from ser_ros.training.data.dataset import Item, pad, pad_utterances


class EpochOrder(Sampler):
    """(epoch, index) of each of `n` items once, in an order that seed and epoch decide.

    With `weights` (n_items,), `n` items are drawn with replacement, in proportion to them: (epoch,
    index, place), so that an item that is drawn twice is not the same twice.
    """

    def __init__(self, n: int, seed: int, weights: Optional[Tensor] = None):
        self.n, self.seed, self.weights = n, seed, weights
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning's call at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, self.epoch))
        if self.weights is None:
            order = torch.randperm(self.n, generator=generator)
            return ((self.epoch, index) for index in order.tolist())
        order = torch.multinomial(self.weights, self.n, replacement=True, generator=generator)
        return ((self.epoch, index, place) for place, index in enumerate(order.tolist()))


class EvenBatches(BatchSampler):
    """One process's share of the fewest batches of at most `batch_size`, without a small remainder.

    Their sizes differ by at most one. All processes divide the same order, so that together they
    process each item once.
    """

    def __init__(self, sampler: EpochOrder, batch_size: int, rank: int = 0, world_size: int = 1):
        """`batch_size`: of all processes together."""
        super().__init__(sampler, batch_size, drop_last=False)
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return count_batches(len(self.sampler), self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        items = list(self.sampler)
        for batch in np.array_split(np.arange(len(items)), len(self)):
            yield [items[i] for i in np.array_split(batch, self.world_size)[self.rank]]


def count_batches(n: int, batch_size: int) -> int:
    """The fewest batches of at most `batch_size` that hold `n` items."""
    return math.ceil(n / batch_size)


def mixed_seed(*numbers: int) -> int:
    """One seed from several numbers; similar numbers have unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class EmotionData(lightning.LightningDataModule):
    """Training items in batches; validation utterances as batches of their longest windows."""

    def __init__(
        self,
        items: Dataset,
        validation: Sequence[Sequence[Item]],
        batch_size: int,
        order: EpochOrder,
        workers: int = 0,
        collate: Callable[[list], Sequence[Tensor]] = pad,
    ):
        """`items`: indexed by what `order` yields, and put together by `collate`.

        `validation`: each utterance's windows.
        """
        super().__init__()
        self.items, self.validation = items, validation
        self.batch_size, self.order = batch_size, order
        self.workers, self.collate = workers, collate

    @property
    def n_batches(self) -> int:
        """Batches of an epoch."""
        return len(EvenBatches(self.order, self.batch_size))

    def check(self, n_processes: int) -> None:
        """SerError if there are too few clips for each process to have one."""
        shared = {
            'smallest batch': len(self.order) // self.n_batches,
            'validation set': len(self.validation),
        }
        for name, n in shared.items():
            if 0 < n < n_processes:
                raise SerError(
                    f'the {name} has {n} clips for {n_processes} processes: set fewer devices, or '
                    'a larger optimization.batch_size'
                )

    def train_dataloader(self) -> DataLoader:
        """The share of this process."""
        # Lightning's own call comes after the workers start, too late for a resumed run.
        self.order.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed)
        return DataLoader(
            self.items,
            batch_sampler=EvenBatches(
                self.order, self.batch_size, self.trainer.global_rank, self.trainer.world_size
            ),
            collate_fn=self.collate,
            num_workers=self.workers,
            # Its own, so that it does not draw from the generators of the augmentation.
            generator=torch.Generator(),
            persistent_workers=self.workers > 0,
        )

    def val_dataloader(self) -> DataLoader:
        """The share of this process; no clip is repeated to make the shares equal."""
        own = self.validation[self.trainer.global_rank :: self.trainer.world_size]
        batches: list[list[Sequence[Item]]] = []
        n_windows = self.batch_size
        for windows in own:
            if n_windows >= self.batch_size:
                batches.append([])
                n_windows = 0
            batches[-1].append(windows)
            n_windows += len(windows)
        return DataLoader(batches, batch_size=None, collate_fn=pad_utterances)
