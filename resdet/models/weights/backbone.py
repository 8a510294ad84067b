"""The one door for `model.backbone.weights`: from a spec to a loaded backbone, its coverage and its contract."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from torch import Tensor, nn

from resdet.errors import UserError
from resdet.models.weights.contract import WeightContract, to_rgb
from resdet.models.weights.convert import FORMATS, format_of, from_torchvision
from resdet.models.weights.coverage import CoverageReport, load_checked
from resdet.models.weights.read import WeightsFile, read_weights
from resdet.models.weights.sources import resolve


def load_backbone_weights(
    backbone: nn.Module, spec: str, architecture: str, *, also: Sequence[nn.Module] = ()
) -> tuple[CoverageReport, WeightContract]:
    """Loads pretrained weights into a backbone, all of them or none.

    Args:
        backbone: a network under torchvision's (or timm's) names of parameters.
        spec: a path, a torchvision name such as IMAGENET1K_V1, or `timm`; see `sources.resolve`.
        architecture: its name in a config: resnet50, vgg16, timm/<model>.
        also: modules that hold the family's other stages under their own names, such as a C4 head with `layer4`.

    Returns what was loaded, and the contract that the model has to keep: for RGB images, whatever the file was
    trained on. UserError where the file cannot be read, does not fit, or has another batch-norm epsilon.
    """
    source = resolve(spec, architecture)
    file = read_weights(source.path)
    targets = {name for module in (backbone, *also) for name in module.state_dict()}
    state, contract, notes = _under_our_names(file, source.contract)
    state, aligned = _aligned(state, targets)
    state, head = _without_head(state, targets)
    state, contract, flipped = to_rgb(state, contract)
    _check_eps((backbone, *also), contract, str(source.path))
    notes = (*file.notes, *notes, *aligned, *head, *flipped)
    report = load_checked(backbone, state, source=str(source.path), also=also, notes=notes)
    return report, replace(contract, architecture=contract.architecture or architecture)


def _under_our_names(
    file: WeightsFile, published: WeightContract | None
) -> tuple[dict[str, Tensor], WeightContract, tuple[str, ...]]:
    """What the file says of itself counts first, then its publisher, then the habit of the toolkit that wrote it."""
    kind = format_of(file.state)
    if kind is not None and file.contract is None:
        converted = FORMATS[kind](file.state, str(file.path))
        return converted.state, published or converted.contract, (f"names and conventions of {kind}", *converted.notes)
    if declared := file.contract or published:
        return file.state, declared, ()
    assumed = replace(
        from_torchvision(file.state, str(file.path)).contract,
        source=f"{file.path} (no contract: torchvision's is assumed)",
    )
    return file.state, assumed, ("the file declares no contract: torchvision's mean, std and RGB order are assumed",)


def _aligned(state: dict[str, Tensor], targets: Collection[str]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The names as they are, or without or with the prefix under which more of them fit."""
    best, note = state, ()
    for prefix in ("backbone.", "body.", "encoder."):
        inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if _hits(inside, targets) > _hits(best, targets):
            others = len(state) - len(inside)
            best, note = inside, (f"the part under {prefix!r} is taken ({others} tensors of other parts left out)",)
    # timm's feature extractors write a stage's first dot as an underscore: stages.0 is stages_0
    flat = {new if (new := name.replace(".", "_", 1)) in targets else name: value for name, value in best.items()}
    if _hits(flat, targets) > _hits(best, targets):
        best = flat
    if prefix := _common_prefix(targets):
        for names in (best, {name.replace(".", "_", 1): value for name, value in best.items()} | best):
            longer = {prefix + name: value for name, value in names.items() if prefix + name in targets}
            if len(longer) > _hits(best, targets):
                rest = {prefix + name: value for name, value in best.items()}
                used = {id(value) for value in longer.values()}
                best = longer | {name: value for name, value in rest.items() if id(value) not in used}
    return best, note


def _hits(state: Iterable[str], targets: Collection[str]) -> int:
    return sum(name in targets for name in state)


def _common_prefix(names: Collection[str]) -> str | None:
    first = {name.partition(".")[0] for name in names}
    return f"{first.pop()}." if len(first) == 1 else None


def _without_head(state: dict[str, Tensor], targets: Collection[str]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Leaves out the modules that the backbone does not have at all (fc, classifier, head), and says so."""
    modules = {_module(name) for name in targets}
    kept = {name: value for name, value in state.items() if _module(name) in modules}
    left = sorted({_module(name) for name in state.keys() - kept.keys()})
    if not kept or not left:
        return state, ()
    return kept, (f"no part of the backbone, left out: {', '.join(left[:8])} ({len(state) - len(kept)} tensors)",)


def _module(name: str) -> str:
    return name.partition(".")[0]


def _check_eps(modules: Sequence[nn.Module], contract: WeightContract, source: str) -> None:
    for module in modules:
        for name, layer in module.named_modules():
            eps = getattr(layer, "eps", None) if hasattr(layer, "running_var") else None
            if eps is not None and contract.bn_eps is not None and eps != contract.bn_eps:
                raise UserError(f"{source}: trained with bn_eps {contract.bn_eps}, but {name} of the model has {eps}")
