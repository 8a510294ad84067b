"""One training step, by the pencil: the losses, their gradient, the norm, and the weight after it."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from resdet.engine.train.step import LossNotFinite, gradients_of, training_step


class Line(nn.Module):
    """Two weights, 3 and 4, whose losses are their halved squares: each gradient is the weight itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0, 4.0]))

    def forward(self) -> dict[str, Tensor]:
        return {"loss_first": self.weight[0] ** 2 / 2, "loss_second": self.weight[1] ** 2 / 2}


def exact() -> torch.autocast:
    return torch.autocast("cpu", enabled=False)


def step_of(model: Line, forward: Callable[[], dict[str, Tensor]] | None = None, grad_clip: float | None = None):
    optimizer = torch.optim.SGD(model.parameters(), lr=123.0)  # which the step replaces
    return training_step(forward or model, model, optimizer, lr=0.5, grad_clip=grad_clip, precision=exact())


def test_a_step_follows_the_gradient_of_the_sum_of_the_losses():
    model = Line()
    step = step_of(model)
    assert step.losses == {"loss_first": 4.5, "loss_second": 8.0}
    assert (step.grad_norm, step.made) == (5.0, True)
    assert model.weight.tolist() == [1.5, 2.0]


def test_clipping_shortens_the_update_and_the_norm_is_that_before():
    model = Line()
    assert step_of(model, grad_clip=1.0).grad_norm == 5.0
    torch.testing.assert_close(model.weight.detach(), torch.tensor([3 - 0.5 * 0.6, 4 - 0.5 * 0.8]), atol=1e-6, rtol=0)


def test_gradients_of_an_earlier_batch_are_forgotten():
    model = Line()
    model.weight.grad = torch.tensor([1000.0, 1000.0])
    losses = gradients_of(model, model, exact())
    assert {name: loss.item() for name, loss in losses.items()} == {"loss_first": 4.5, "loss_second": 8.0}
    assert model.weight.grad is not None
    assert model.weight.grad.tolist() == [3.0, 4.0]


def test_the_gradient_can_be_looked_at_before_it_is_clipped():
    model, seen = Line(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def look() -> None:
        assert model.weight.grad is not None
        seen.append(model.weight.grad.tolist())

    _ = training_step(model, model, optimizer, lr=0.5, grad_clip=1.0, precision=exact(), look=look)
    assert seen == [[3.0, 4.0]]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_moves_nothing_and_is_named(value: float):
    model = Line()
    with pytest.raises(LossNotFinite, match=f"^loss_bad is {value}$") as error:
        _ = step_of(model, lambda: {**model(), "loss_bad": model.weight.sum() * value})
    assert error.value.losses["loss_first"] == 4.5
    assert model.weight.tolist() == [3.0, 4.0]


def test_a_gradient_that_is_not_finite_moves_nothing():
    model = Line()
    step = step_of(model, lambda: {"loss": (model.weight * 0).sqrt().sum()})  # 0, with an infinite gradient
    assert step.losses == {"loss": 0.0}
    assert not step.made
    assert model.weight.tolist() == [3.0, 4.0]
