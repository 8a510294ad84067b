from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from resdet.models.backbones.norms import NORMS, FrozenBatchNorm2d, conv_norm, group_norm


def scrambled(norm: nn.Module) -> nn.Module:
    """A batch norm in which each of the four numbers matters."""
    for name, tensor in norm.state_dict().items():
        if name in ("weight", "running_var"):
            _ = tensor.uniform_(0.5, 2.0)
        elif name in ("bias", "running_mean"):
            _ = tensor.normal_()
    return norm.double()


CONVS = {
    "plain": nn.Conv2d(4, 6, 3, bias=False),
    "with a bias": nn.Conv2d(4, 6, 3),
    "strided, dilated, in groups": nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2, bias=False),
}


@pytest.mark.parametrize("kind", ["frozen_bn", "bn", "sync_bn"])
@pytest.mark.parametrize("conv", CONVS.values(), ids=CONVS.keys())
def test_a_folded_norm_gives_the_values_and_the_gradients_of_the_two_layers(conv: nn.Conv2d, kind: str):
    conv, norm = conv.double(), scrambled(NORMS[kind](6)).eval()
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64, requires_grad=True)
    inputs = [x, *conv.parameters(), *norm.parameters()]

    def values_and_gradients(y: Tensor) -> list[Tensor]:
        return [y, *torch.autograd.grad(y.square().sum(), inputs)]

    torch.testing.assert_close(values_and_gradients(conv_norm(x, conv, norm)), values_and_gradients(norm(conv(x))))


def test_under_autocast_the_fold_is_taken_in_float32_and_rounded_once():
    # A scale of 1 + 2**-12 would vanish if it were rounded to bfloat16 before the product.
    conv, norm = nn.Conv2d(1, 1, 1, bias=False), FrozenBatchNorm2d(1, eps=0.0)
    scale, weight = 1 + 2**-12, 1 + 2**-8 - 2**-13
    _ = conv.weight.data.fill_(weight)
    _ = norm.weight.fill_(scale)
    with torch.autocast("cpu", torch.bfloat16):
        y = conv_norm(torch.ones(1, 1, 1, 1), conv, norm)
    assert y.dtype == torch.bfloat16
    assert y.item() == torch.tensor(weight * scale).bfloat16().item() != torch.tensor(weight).bfloat16().item()


def test_a_batch_norm_in_training_still_learns_its_statistics():
    _ = torch.manual_seed(0)
    conv, norm, x = nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), torch.randn(2, 4, 9, 8)
    y = conv_norm(x, conv, norm.train())
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(6), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(norm.running_mean, 0.1 * conv(x).mean((0, 2, 3)))


def test_a_frozen_norm_reads_a_batch_norms_state_dict_and_equals_it_in_eval_mode():
    batch_norm, frozen = scrambled(nn.BatchNorm2d(6)).eval(), FrozenBatchNorm2d(6).double()
    _ = frozen.load_state_dict(batch_norm.state_dict(), strict=True)
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(frozen(x), batch_norm(x))


def test_a_batch_norm_reads_a_frozen_norms_state_dict():
    _ = nn.BatchNorm2d(6).load_state_dict(dict(FrozenBatchNorm2d(6).state_dict()), strict=True)


def test_a_frozen_norm_has_nothing_to_train_and_stays_frozen_after_train():
    norm = FrozenBatchNorm2d(6).train()
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    _ = conv_norm(torch.randn(2, 4, 9, 8), nn.Conv2d(4, 6, 3), norm)
    _ = norm(torch.randn(2, 6, 9, 8))
    assert not list(norm.parameters())
    torch.testing.assert_close(dict(norm.state_dict()), before, atol=0.0, rtol=0.0)


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (64, 32), (32, 16), (16, 8), (24, 4), (2, 1), (7, 1)])
def test_group_norm_has_32_groups_or_fewer_with_two_channels_or_more_in_each(channels: int, groups: int):
    assert group_norm(channels).num_groups == groups


def test_a_norm_that_is_observed_runs_by_itself():
    conv, norm, seen = nn.Conv2d(4, 6, 3), FrozenBatchNorm2d(6), []
    x = torch.randn(1, 4, 5, 5)
    folded = conv_norm(x, conv, norm)
    _ = norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    torch.testing.assert_close(conv_norm(x, conv, norm), folded)
    torch.testing.assert_close(seen[0], folded)
