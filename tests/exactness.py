"""How the tests compare floating point numbers with an oracle's, so that they hold on every processor.

The rounding error of float32 depends on the order of its sums, and that on the processor's vectors and on the
libraries. A bound between two float32 results is therefore met on one machine and missed on the next. Two bounds hold
everywhere: in float64 both are equal to many digits; and in float32 ours is about as far from the float64 result as the
oracle is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.testing import assert_close

DIGITS = 1e-10  # of a tensor's own scale, in float64: an error in a formula is many thousand times larger
TIMES_THE_ORACLES = 2.0  # our error in float32 over the oracle's, both root mean squares


def assert_equal_in_float64(ours: Sequence[Tensor], oracles: Sequence[Tensor]) -> None:
    """Each tensor equal to 1e-10 of its own scale (root mean square)."""
    for mine, theirs in zip(ours, oracles, strict=True):
        assert mine.dtype == theirs.dtype == torch.float64
        assert theirs.isfinite().all()
        assert_close(mine, theirs, atol=DIGITS * rms(theirs), rtol=DIGITS)


def assert_as_exact_as_oracle(ours: Sequence[Tensor], oracles: Sequence[Tensor], exact: Sequence[Tensor]) -> None:
    """Float32 results of both against the oracle's in float64: our error is at most twice the oracle's own."""
    for mine, theirs, truth in zip(ours, oracles, exact, strict=True):
        assert (mine.dtype, theirs.dtype, truth.dtype) == (torch.float32, torch.float32, torch.float64)
        limit = TIMES_THE_ORACLES * rms(theirs.double() - truth) + torch.finfo(torch.float32).eps * rms(truth)
        error = rms(mine.double() - truth)
        assert error <= limit, f"our error {error:.3g}, allowed {limit:.3g}, of numbers about {rms(truth):.3g}"


def rms(values: Tensor) -> float:
    """Root mean square, 0 of no values."""
    return values.double().square().mean().sqrt().item() if values.numel() else 0.0
