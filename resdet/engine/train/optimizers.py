"""Optimizers by name: those of torch.optim (in lower case) and of timm (timm/NAME), with their arguments checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool
from timm.optim import (
    get_optimizer_class,  # pyright: ignore[reportPrivateImportUsage]
    get_optimizer_info,  # pyright: ignore[reportPrivateImportUsage]
    list_optimizers,  # pyright: ignore[reportPrivateImportUsage]
)
from torch import Tensor, nn

from resdet.config import OptimConfig
from resdet.errors import UserError, did_you_mean
from resdet.text import said_by

TIMM = "timm/"
# lbfgs and adahessian need several gradients an update, sparseadam sparse ones. kron compiles itself, for minutes, and
# draws from generators of its own, so its exact resume is not tested.
EXCLUDED = {"lbfgs", "sparseadam", "timm/adahessian", "timm/kron", "timm/kronc", "timm/kronw"}
BY_KEYS = {  # arguments that have keys of their own
    "params": "model",
    "lr": "optim.lr",
    "weight_decay": "optim.weight_decay",
    "fused": "optim.fused",
}
FUSED = ("sgd", "adam", "adamw")  # in torch, with a kernel for a GPU that is used unless a config says otherwise
RIVALS = ("foreach", "differentiable")  # arguments that choose another form than the fused one


def known_optimizers() -> list[str]:
    """All names that `optim.name` takes."""
    ours = [name.lower() for name, kind in vars(torch.optim).items() if _is_optimizer(kind)]
    theirs = [f"{TIMM}{name}" for name in list_optimizers()]
    return [name for name in (*ours, *theirs) if name not in EXCLUDED]


def check_optimizer(optim: OptimConfig) -> None:
    """Finds mistakes before the data are read; arguments are tried in an update of a small parameter.

    Raises UserError for a name or an argument that does not exist or does not fit.
    """
    small = nn.Parameter(torch.ones(2, 2))
    small.grad = torch.ones(2, 2)
    with _one_line(optim):
        optimizer = made_optimizer([{"params": [small]}], optim)
        if optim.arguments:
            _ = optimizer.step()


def made_optimizer(groups: Sequence[dict[str, Any]], optim: OptimConfig) -> torch.optim.Optimizer:
    """The optimizer over parameter groups, each with its weight decay. Raises UserError as `check_optimizer`, and for
    parameters that it does not take.
    """
    make, parameters, arguments = _named(optim)
    arguments = {**arguments, **_checked_arguments(optim, parameters)}
    if "weight_decay" not in parameters and (optim.weight_decay or optim.norm_weight_decay):
        raise UserError(
            f"optim.name={optim.name} has no weight decay; set optim.weight_decay=0 optim.norm_weight_decay=0"
        )
    if wants_fused(optim, {each.device.type for group in groups for each in group["params"]}):
        arguments["fused"] = True  # false would also switch off the form with a kernel for each operation
    with _one_line(optim):
        return make(groups, lr=optim.lr, **arguments)


def has_fused_form(optim: OptimConfig) -> bool:
    """Whether one kernel can update all parameters: the optimizer has it, and no argument asks for another form."""
    return "fused" in _named(optim)[1] and not any(optim.arguments.get(name) for name in RIVALS)


def wants_fused(optim: OptimConfig, devices: set[str]) -> bool:
    """As `optim.fused` says; otherwise on a GPU for the rows of FUSED. Raises UserError if it says true and there is no
    such form.
    """
    if optim.fused and not has_fused_form(optim):
        arguments = f" with optim.arguments={optim.arguments}" if optim.arguments else ""
        raise UserError(f"optim.fused=true: optim.name={optim.name}{arguments} has no fused form; set it to null")
    if optim.fused is not None:
        return optim.fused
    return devices == {"cuda"} and optim.name.removeprefix(TIMM) in FUSED and has_fused_form(optim)


def step_if(finite: Bool[Tensor, ""], optimizer: torch.optim.Optimizer) -> None:
    """The optimizer's update if `finite` is true; otherwise neither weights nor state change.

    The kernel of a fused optimizer reads `finite` itself. For others it is read here, which waits for a GPU; also in
    the first update with a momentum, which SGD's kernel would leave undefined if that update was left out.
    """
    begins = not optimizer.state and any(group.get("momentum") for group in optimizer.param_groups)
    if getattr(optimizer, "_step_supports_amp_scaling", False) and not begins:
        optimizer.found_inf = (~finite).float()  # pyright: ignore[reportAttributeAccessIssue]  # as torch's GradScaler
        _ = optimizer.step()
    elif finite:
        optimizer.found_inf = None  # pyright: ignore[reportAttributeAccessIssue]
        _ = optimizer.step()


def load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Restores a saved state; `fused` stays as the optimizer was built, for the device may be another one."""
    fused = [{"fused": group["fused"]} if "fused" in group else {} for group in optimizer.param_groups]
    groups = [group | own for group, own in zip(saved["param_groups"], fused, strict=True)]
    optimizer.load_state_dict({**saved, "param_groups": groups})


@contextmanager
def _one_line(optim: OptimConfig) -> Iterator[None]:
    """An optimizer may refuse its arguments in any of these ways."""
    try:
        yield
    except (TypeError, ValueError, AssertionError, RuntimeError, IndexError, KeyError, AttributeError) as error:
        given = ", ".join(f"{name}={value}" for name, value in optim.arguments.items())
        raise UserError(f"optim.name={optim.name} with optim.arguments={{{given}}}: {said_by(error)}") from None


def _named(optim: OptimConfig) -> tuple[Callable[..., torch.optim.Optimizer], set[str], dict[str, Any]]:
    """The class of an optimizer, the names of its arguments, and the arguments that its name stands for."""
    known = known_optimizers()
    if optim.name not in known:
        raise UserError(f"optim.name={optim.name} is not known{did_you_mean(optim.name, known)}")
    if not optim.name.startswith(TIMM):
        kind = next(kind for name, kind in vars(torch.optim).items() if name.lower() == optim.name)
        return kind, set(inspect.signature(kind).parameters), _momentum(optim)
    name = optim.name.removeprefix(TIMM)
    try:
        kind = get_optimizer_class(name, bind_defaults=False)
    except (ImportError, AssertionError) as error:
        raise UserError(f"optim.name={optim.name} needs a package that is not installed: {error}") from None
    defaults = get_optimizer_info(name).defaults or {}
    return kind, set(inspect.signature(kind).parameters), {**defaults, **_momentum(optim)}


def _momentum(optim: OptimConfig) -> dict[str, float]:
    """`optim.momentum`, for sgd and for those of timm's that are kinds of it."""
    name = optim.name.removeprefix(TIMM)
    timms = optim.name.startswith(TIMM) and get_optimizer_info(name).has_momentum
    return {"momentum": optim.momentum} if optim.name == "sgd" or timms else {}


def _checked_arguments(optim: OptimConfig, parameters: set[str]) -> dict[str, Any]:
    own = BY_KEYS | dict.fromkeys(_momentum(optim), "optim.momentum")
    for name in optim.arguments:
        if name in own:
            raise UserError(f"optim.arguments.{name} has a key of its own: {own[name]}")
        if name not in parameters:
            raise UserError(
                f"optim.arguments.{name}: optim.name={optim.name} has no such argument"
                f"{did_you_mean(name, sorted(parameters - own.keys()))}"
            )
    return optim.arguments


def _is_optimizer(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
