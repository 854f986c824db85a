"""The batches of an epoch, for one process or several."""

import math
from collections.abc import Iterator, Sequence
from typing import Optional

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from ser_ros import SerError
from ser_ros.training.data.dataset import Item, pad


class EpochOrder(Sampler):
    """(epoch, index) of each of `n` items once, in an order that seed and epoch decide.

    With `weights` (n,), `n` items are drawn with replacement, in proportion to them.
    """

    group = 1
    """Items that must stay together in a batch."""

    def __init__(self, n: int, seed: int, weights: Optional[Tensor] = None):
        self.n, self.seed, self.weights = n, seed, weights
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning's call at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, self.epoch))
        if self.weights is None:
            order = torch.randperm(self.n, generator=generator)
        else:
            order = torch.multinomial(self.weights, self.n, replacement=True, generator=generator)
        return ((self.epoch, index) for index in order.tolist())


class VoiceOrder(EpochOrder):
    """(epoch, index, place, group) of items in groups of one voice, drawn with replacement.

    The voice of a group is drawn by `weights`; each of its items by class, all that the voice has
    being equally frequent, and then evenly.
    """

    def __init__(
        self,
        voices: Sequence[Sequence[Sequence[int]]],
        weights: Tensor,
        group: int,
        n: int,
        seed: int,
    ):
        """`voices`: the items' indices, of each class, of each voice; `weights`: (n_voices,)."""
        super().__init__(max(1, n // group) * group, seed, weights)
        self.voices, self.group = voices, group

    def __iter__(self) -> Iterator[tuple[int, int, int, int]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        chances = self.weights.double().numpy()
        drawn = rng.choice(len(self.voices), self.n // self.group, p=chances / chances.sum())
        for group, voice in enumerate(drawn):
            for place in range(group * self.group, (group + 1) * self.group):
                classes = self.voices[voice]
                clips = classes[rng.integers(len(classes))]
                yield self.epoch, clips[rng.integers(len(clips))], place, group


class EvenBatches(BatchSampler):
    """One process's share of the fewest batches of at most `batch_size`, without a small remainder.

    Their sizes differ by at most one. If the sampler's items come in groups, these stay together,
    and sizes differ by a group.

    All processes divide the same order, so that together they process each item once.
    """

    def __init__(self, sampler: EpochOrder, batch_size: int, rank: int = 0, world_size: int = 1):
        """`batch_size`: of all processes together, and at least a group."""
        super().__init__(sampler, batch_size, drop_last=False)
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        group = self.sampler.group
        return count_batches(len(self.sampler) // group, self.batch_size // group)

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        items, size = list(self.sampler), self.sampler.group
        for batch in np.array_split(np.arange(0, len(items), size), len(self)):
            share = np.array_split(batch, self.world_size)[self.rank]
            yield [item for start in share for item in items[start : start + size]]


def count_batches(n: int, batch_size: int) -> int:
    """The fewest batches of at most `batch_size` that hold `n` items."""
    return math.ceil(n / batch_size)


def mixed_seed(*numbers: int) -> int:
    """One seed from several numbers; similar numbers have unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class EmotionData(lightning.LightningDataModule):
    """Training items in batches; validation utterances one by one, as their longest windows."""

    def __init__(
        self,
        items: Dataset,
        validation: Sequence[Sequence[Item]],
        batch_size: int,
        order: EpochOrder,
        workers: int = 0,
    ):
        """`items`: indexed by what `order` yields. `validation`: each utterance's windows."""
        super().__init__()
        self.items, self.validation = items, validation
        self.batch_size, self.order = batch_size, order
        self.workers = workers

    @property
    def n_batches(self) -> int:
        """Batches of an epoch."""
        return len(EvenBatches(self.order, self.batch_size))

    def check(self, n_processes: int) -> None:
        """SerError if there are too few clips for each process to have one."""
        n_groups = len(self.order) // self.order.group
        shared = {
            'smallest batch': n_groups // self.n_batches,
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
            collate_fn=pad,
            num_workers=self.workers,
            # Its own, so that it does not draw from the generators of the augmentation.
            generator=torch.Generator(),
            persistent_workers=self.workers > 0,
        )

    def val_dataloader(self) -> DataLoader:
        """The share of this process; no clip is repeated to make the shares equal."""
        own = self.validation[self.trainer.global_rank :: self.trainer.world_size]
        return DataLoader(own, batch_size=None, collate_fn=pad)
