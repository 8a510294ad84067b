"""The conventions of a network's layers that the names and shapes of its tensors do not determine."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from resdet.errors import UserError
from resdet.weights.contract import WeightContract


@dataclass(frozen=True)
class LayerConventions:
    """The place of a bottleneck's stride and the epsilon of the batch norms; None if there is none, or several."""

    stride_in_1x1: bool | None
    bn_eps: float | None


def layer_conventions(module: nn.Module) -> LayerConventions:
    strides = {place for layer in module.modules() if (place := _stride_in_1x1(layer)) is not None}
    epsilons = {eps for layer in module.modules() if (eps := _epsilon(layer)) is not None}
    return LayerConventions(
        strides.pop() if len(strides) == 1 else None,
        epsilons.pop() if len(epsilons) == 1 else None,
    )


def check_layers(module: nn.Module, contract: WeightContract, source: str) -> None:
    """Raises UserError for weights that were trained with another epsilon or another place of the stride."""
    for name, layer in module.named_modules():
        eps = _epsilon(layer)
        if eps is not None and contract.bn_eps is not None and eps != contract.bn_eps:
            raise UserError(
                f"{source}: trained with bn_eps {contract.bn_eps}, but {name} of the model has {eps}; choose the "
                "model.backbone.name that fits"
            )
        ours = _stride_in_1x1(layer)
        if ours is not None and contract.stride_in_1x1 is not None and ours != contract.stride_in_1x1:
            places = {True: "the first 1x1 (resnet*_caffe)", False: "the 3x3"}
            named = f"set model.backbone.name={contract.architecture}" if contract.architecture else ""
            raise UserError(
                f"{source}: trained with the stride in {places[contract.stride_in_1x1]}, but {name} of the model "
                f"has it in {places[ours]}; {named or 'choose the model.backbone.name that fits'}"
            )


def _epsilon(layer: nn.Module) -> float | None:
    """The epsilon of a batch norm; None for another layer."""
    return getattr(layer, "eps", None) if hasattr(layer, "running_var") else None


def _stride_in_1x1(layer: nn.Module) -> bool | None:
    """Whether a bottleneck has its stride in the first 1x1; None for a layer that is not a bottleneck or has
    no stride.
    """
    first, second, third = (getattr(layer, name, None) for name in ("conv1", "conv2", "conv3"))
    if not all(isinstance(conv, nn.Conv2d) for conv in (first, second, third)):
        return None
    strides = [max(conv.stride) for conv in (first, second) if isinstance(conv, nn.Conv2d)]
    return None if strides == [1, 1] else strides[0] > 1
