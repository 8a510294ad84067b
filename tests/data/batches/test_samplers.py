"""The order of batches is a law of the step."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from resdet.data.batches.samplers import BatchOrder, evaluation_order, rank_slice, sample_seed


def order(images: int, batch_size: int, seed: int = 0) -> BatchOrder:
    return BatchOrder(np.arange(images) % 3 // 2, batch_size, seed)  # a third is portrait


@pytest.mark.parametrize(("images", "batch_size"), [(30, 5), (31, 4), (7, 7), (1, 1), (12, 4)])
def test_an_epoch_shows_every_image_once_but_for_what_fills_the_last_batch(images: int, batch_size: int) -> None:
    batches = order(images, batch_size).epoch(0)
    assert batches.shape == (-(-images // batch_size), batch_size)
    counts = np.bincount(batches.ravel(), minlength=images)
    assert counts.min() == 1
    assert (counts - 1).sum() == -images % batch_size
    assert counts.max() <= 2


def test_a_data_set_smaller_than_a_batch_is_repeated() -> None:
    assert sorted(order(3, 8).epoch(0)[0].tolist()) in (
        [0, 0, 0, 1, 1, 1, 2, 2],
        [0, 0, 0, 1, 1, 2, 2, 2],
        [0, 0, 1, 1, 1, 2, 2, 2],
    )


def test_batches_hold_one_orientation_but_for_the_leftovers() -> None:
    batches = order(60, 4)
    mixed = [batch for batch in batches.epoch(0) if len(set(batches.groups[batch])) > 1]
    assert len(mixed) <= 1


def test_batches_of_both_orientations_take_turns_at_random() -> None:
    """And do not come one orientation after the other, each epoch alike."""
    groups = np.repeat([0, 1], 40)
    turns = [groups[BatchOrder(groups, batch_size=4, seed=0).epoch(epoch)[:, 0]].tolist() for epoch in range(2)]
    assert turns[0] != turns[1]
    assert all(sorted(turn) != turn for turn in turns)


def test_epochs_and_seeds_differ() -> None:
    first = order(60, 4)
    assert not np.array_equal(first.epoch(0), first.epoch(1))
    assert not np.array_equal(first.epoch(0), order(60, 4, seed=1).epoch(0))


def test_starting_at_a_step_continues_the_same_sequence() -> None:
    batches = order(10, 4)  # three batches an epoch
    whole = [indices.tolist() for _, indices in islice(batches.from_step(0), 10)]
    assert whole == [batch for epoch in range(4) for batch in batches.epoch(epoch).tolist()][:10]
    assert [indices.tolist() for _, indices in islice(batches.from_step(4), 6)] == whole[4:]
    assert [epoch for epoch, _ in islice(batches.from_step(4), 6)] == [1, 1, 2, 2, 2, 3]


def test_processes_share_a_global_batch_in_order() -> None:
    batch = np.arange(8)
    assert np.concatenate([rank_slice(batch, rank, 4) for rank in range(4)]).tolist() == batch.tolist()


def test_sample_seeds_are_numbers_of_32_bits_that_differ() -> None:
    seeds = {sample_seed(seed, epoch, index) for seed in range(3) for epoch in range(3) for index in range(100)}
    assert len(seeds) == 900
    assert min(seeds) >= 0
    assert max(seeds) < 2**32


def test_evaluation_shows_each_image_once_with_its_like() -> None:
    heights, widths = np.array([10, 20, 10, 20, 10]), np.array([20, 10, 20, 10, 20])
    batches = [batch.tolist() for batch in evaluation_order(heights, widths, 2)]
    assert sorted(index for batch in batches for index in batch) == [0, 1, 2, 3, 4]
    assert batches == [[1, 3], [0, 2], [4]]
