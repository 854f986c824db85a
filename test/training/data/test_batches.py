"""Batches over one process or several."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ser_ros import SerError
from ser_ros.training.data.batches import EmotionData, EpochOrder, EvenBatches, mixed_seed

sizes = st.integers(1, 60)


def shares(n, batch_size, world_size, epoch=0, weights=None):
    """For each process a list of its batches of an epoch."""
    orders = [EpochOrder(n, 1, weights) for _ in range(world_size)]
    for order in orders:
        order.set_epoch(epoch)
    return [
        list(EvenBatches(order, batch_size, rank, world_size)) for rank, order in enumerate(orders)
    ]


@given(n=sizes, batch_size=sizes, world_size=st.integers(1, 4))
def test_the_processes_together_have_every_item_once(n, batch_size, world_size):
    seen = [
        item for share in shares(n, batch_size, world_size) for batch in share for item in batch
    ]
    assert sorted(seen) == [(0, index) for index in range(n)]


@given(n=sizes, batch_size=sizes, world_size=st.integers(1, 4))
def test_batches_are_even_few_and_at_most_of_the_size(n, batch_size, world_size):
    steps = list(zip(*shares(n, batch_size, world_size), strict=True))
    totals = [sum(map(len, step)) for step in steps]
    assert max(totals) <= batch_size
    assert max(totals) - min(totals) <= 1
    assert len(totals) - 1 < n / batch_size
    assert all(max(map(len, step)) - min(map(len, step)) <= 1 for step in steps)


@pytest.mark.parametrize(
    ('n', 'size', 'totals'),
    [(47, 32, [24, 23]), (33, 32, [17, 16]), (32, 32, [32]), (5, 32, [5]), (65, 32, [22, 22, 21])],
)
def test_a_remainder_is_shared_by_all_batches(n, size, totals):
    assert [len(batch) for batch in shares(n, size, 1)[0]] == totals


@given(n=sizes, batch_size=sizes)
def test_the_length_is_what_is_yielded(n, batch_size):
    batches = EvenBatches(EpochOrder(n, 1), batch_size)
    assert len(batches) == len(list(batches))


@given(n=sizes, batch_size=sizes, n_validation=sizes, world_size=st.integers(1, 9))
def test_too_few_clips_for_the_processes_are_an_error(n, batch_size, n_validation, world_size):
    data = EmotionData([None] * n, [[]] * n_validation, batch_size, EpochOrder(n, 1))
    is_enough = all(batch for share in shares(n, batch_size, world_size) for batch in share)
    if is_enough and n_validation >= world_size:
        data.check(world_size)
    else:
        with pytest.raises(SerError, match=f'clips for {world_size} processes: set fewer devices'):
            data.check(world_size)


@given(
    n_windows=st.lists(st.integers(1, 9), min_size=1),
    batch_size=st.integers(1, 20),
    world_size=st.integers(1, 3),
)
def test_validation_has_each_utterance_once(n_windows, batch_size, world_size):
    validation = [
        [(torch.full((1 + k,), float(i)), i, 0) for k in range(n)] for i, n in enumerate(n_windows)
    ]
    data = EmotionData([], validation, batch_size, EpochOrder(0, 1))
    seen = []
    for rank in range(world_size):
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)
        batches = list(data.val_dataloader())
        for samples, lengths, labels, counts in batches:
            assert len(samples) == len(lengths) == sum(counts)
            for windows, label, n in zip(samples.split(counts), labels.tolist(), counts):
                assert windows[:, 0].tolist() == [label] * n_windows[label]
                assert n == n_windows[label]
                seen.append(label)
        # Each batch is full without its last utterance or with it, but for the last batch.
        for _, _, _, counts in batches[:-1]:
            assert sum(counts) - counts[-1] < batch_size <= sum(counts)
    assert sorted(seen) == list(range(len(n_windows)))


def test_the_order_depends_on_the_epoch_and_is_repeatable():
    first, again, second = (shares(50, 8, 1, epoch)[0] for epoch in (0, 0, 1))
    assert first == again
    assert [index for batch in first for _, index in batch] != [
        index for batch in second for _, index in batch
    ]
    assert {epoch for batch in second for epoch, _ in batch} == {1}


def test_weights_are_the_frequencies_of_the_items():
    weights = torch.tensor([1.0] * 50 + [0.0] * 25 + [3.0] * 50)
    items = [item for e in range(40) for b in shares(125, 16, 1, e, weights)[0] for item in b]
    drawn = [index for _, index, _ in items]
    assert len(drawn) == 40 * 125 == len(set(items))
    assert not [index for index in drawn if 50 <= index < 75]
    often, seldom = sum(i >= 75 for i in drawn), sum(i < 50 for i in drawn)
    assert often / seldom == pytest.approx(3, rel=0.15)


def test_similar_numbers_have_unrelated_seeds():
    seeds = {mixed_seed(seed, epoch) for seed in range(20) for epoch in range(20)}
    assert len(seeds) == 400
    assert mixed_seed(1, 2) == mixed_seed(1, 2)
