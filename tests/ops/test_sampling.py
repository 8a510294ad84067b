import torch
from torch.testing import assert_close

from resdet.ops.sampling import BalancedSampler, random_keys

seeds = torch.tensor([7, 8])


def masks(positives: int, negatives: int, ignored: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    kind = torch.tensor([1] * positives + [0] * negatives + [2] * ignored).expand(2, -1)
    return kind == 1, kind == 0


def test_positives_fill_at_most_their_share_and_negatives_the_rest() -> None:
    positive, negative = masks(positives=50, negatives=200)
    samples = BalancedSampler(64, 0.25)(positive, negative, seeds)
    assert samples.positive.sum(1).tolist() == [16, 16]
    assert samples.valid.all()
    assert (positive.gather(1, samples.index) == samples.positive).all()
    assert (negative.gather(1, samples.index) == ~samples.positive).all()


def test_few_positives_are_all_taken_and_replaced_by_negatives() -> None:
    positive, negative = masks(positives=3, negatives=200)
    samples = BalancedSampler(64, 0.5)(positive, negative, seeds)
    assert samples.positive.sum(1).tolist() == [3, 3]
    assert samples.valid.all()


def test_slots_without_a_candidate_are_not_valid() -> None:
    positive, negative = masks(positives=2, negatives=4, ignored=30)
    samples = BalancedSampler(16, 0.5)(positive, negative, seeds)
    assert samples.valid.sum(1).tolist() == [6, 6]
    assert sorted(samples.index[0][samples.valid[0]].tolist()) == [0, 1, 2, 3, 4, 5]


def test_without_candidates_nothing_is_drawn() -> None:
    none = torch.zeros(2, 0, dtype=torch.bool)
    samples = BalancedSampler(16, 0.5)(none, none, seeds)
    assert [value.shape for value in vars(samples).values()] == [(2, 0)] * 3


def test_nothing_is_drawn_twice() -> None:
    positive, negative = masks(positives=40, negatives=60)
    samples = BalancedSampler(80, 0.5)(positive, negative, seeds)
    assert all(len(row.unique()) == 80 for row in samples.index)


def test_the_choice_depends_on_the_seed_of_the_image_alone() -> None:
    positive, negative = masks(positives=50, negatives=200)
    sampler = BalancedSampler(32, 0.5)
    both = sampler(positive, negative, seeds)
    second = sampler(positive[1:], negative[1:], seeds[1:])
    assert_close(both.index[1:], second.index)
    assert not (both.index[0] == both.index[1]).all()


def test_keys_are_spread_evenly_and_unrelated_between_seeds() -> None:
    keys = random_keys(torch.arange(4), 100_000).double() / 2**31
    assert keys.min() >= 0
    assert keys.max() < 1
    assert_close(keys.mean(1), torch.full((4,), 0.5).double(), atol=0.005, rtol=0)
    correlation = torch.corrcoef(keys) - torch.eye(4)
    assert correlation.abs().max() < 0.02


def test_a_small_share_is_one_positive_at_least() -> None:
    positive, negative = masks(positives=5, negatives=5)
    samples = BalancedSampler(2, 0.25)(positive, negative, seeds)
    assert samples.positive.tolist() == [[True, False], [True, False]]


def finalized(x: int) -> int:
    """Murmur3's fmix32, in whole numbers of Python."""
    x ^= x >> 16
    x = x * 0x85EBCA6B % 2**32
    x ^= x >> 13
    x = x * 0xC2B2AE35 % 2**32
    return x ^ x >> 16


def test_a_key_is_the_finalizer_of_murmur3_over_seed_and_position() -> None:
    keys = [[(finalized(finalized(seed) ^ finalized(j + 0x9E3779B9))) >> 1 for j in range(4)] for seed in (7, 8)]
    assert random_keys(seeds, 4).tolist() == keys
