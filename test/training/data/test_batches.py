"""Batches over one process or several."""

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
def test_no_batch_is_a_small_remainder(n, batch_size, world_size):
    steps = list(zip(*shares(n, batch_size, world_size), strict=True))
    totals = [sum(map(len, step)) for step in steps]
    assert max(totals) - min(totals) <= 1
    assert min(totals) >= min(n, batch_size * 2 // 3)
    assert all(max(map(len, step)) - min(map(len, step)) <= 1 for step in steps)


def test_the_length_is_what_is_yielded():
    assert [len(EvenBatches(EpochOrder(n, 1), 16)) for n in (5, 16, 39, 41)] == [1, 1, 2, 3]
    assert len(list(EvenBatches(EpochOrder(41, 1), 16))) == 3


@given(n=sizes, batch_size=sizes, n_validation=sizes, world_size=st.integers(1, 9))
def test_too_few_clips_for_the_processes_are_an_error(n, batch_size, n_validation, world_size):
    data = EmotionData([None] * n, [[]] * n_validation, batch_size, 1)
    is_enough = all(batch for share in shares(n, batch_size, world_size) for batch in share)
    if is_enough and n_validation >= world_size:
        data.check(world_size)
    else:
        with pytest.raises(SerError, match=f'clips for {world_size} processes: set fewer devices'):
            data.check(world_size)


def test_the_order_depends_on_the_epoch_and_is_repeatable():
    first, again, second = (shares(50, 8, 1, epoch)[0] for epoch in (0, 0, 1))
    assert first == again
    assert [index for batch in first for _, index in batch] != [
        index for batch in second for _, index in batch
    ]
    assert {epoch for batch in second for epoch, _ in batch} == {1}


def test_weights_are_the_frequencies_of_the_items():
    weights = torch.tensor([1.0] * 50 + [0.0] * 25 + [3.0] * 50)
    drawn = [index for e in range(40) for b in shares(125, 16, 1, e, weights)[0] for _, index in b]
    assert len(drawn) == 40 * 125
    assert not [index for index in drawn if 50 <= index < 75]
    often, seldom = sum(i >= 75 for i in drawn), sum(i < 50 for i in drawn)
    assert often / seldom == pytest.approx(3, rel=0.15)


def test_similar_numbers_have_unrelated_seeds():
    seeds = {mixed_seed(seed, epoch) for seed in range(20) for epoch in range(20)}
    assert len(seeds) == 400
    assert mixed_seed(1, 2) == mixed_seed(1, 2)
