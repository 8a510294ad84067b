"""Loads the backbone weights of `model.backbone.weights`, checks their coverage, and returns their contract."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from resdet.text import first_few
from resdet.weights.contract import WeightContract
from resdet.weights.convert.timm import timm_names
from resdet.weights.coverage import CoverageReport, load_checked, without_counters
from resdet.weights.layers import check_layers
from resdet.weights.published import open_weights
from resdet.weights.sources import resolve

PARTS = ("backbone.", "body.", "encoder.")  # the names that a whole model may give to its backbone
VGG_LAYERS = ((0, "fc6"), (3, "fc7"))


def load_backbone_weights(
    backbone: nn.Module, spec: str, architecture: str, *, also: Sequence[nn.Module] = ()
) -> tuple[CoverageReport, WeightContract]:
    """Loads pretrained weights into a backbone, all of them or none.

    Args:
        backbone: a network under torchvision's (or timm's) names of parameters.
        spec: a path, a torchvision name such as IMAGENET1K_V1, or `timm`; see `sources.resolve`.
        architecture: its name in a config: resnet50, vgg16, timm/<model>.
        also: modules that hold the family's other stages under their own names, such as a C4 head with `layer4`.

    Tensors of the file that the backbone does not have (classifier, heads) are left out and named in the report.
    Returns the report, and the contract that the model must keep (for RGB images, also if the file was trained on BGR).
    Raises UserError if the file cannot be read, does not fit, or has another batch-norm epsilon.
    """
    source = resolve(spec, architecture)
    file = open_weights(source.path, stated=source.contract, assume_torchvision=True)
    contract = file.contract
    assert contract is not None
    targets = without_counters({name: value for part in (backbone, *also) for name, value in part.state_dict().items()})
    state, aligned = _aligned(_with_fc6(without_counters(file.state), targets), targets)
    if architecture.startswith("timm/") and state.keys() != targets.keys():
        translated = timm_names(without_counters(file.original), architecture, file.source)
        state, aligned = _aligned(translated, targets)
        aligned = ("names translated by timm", *aligned)
    for module in (backbone, *also):
        check_layers(module, contract, file.source)
    report = load_checked(backbone, state, source=file.source, also=also, notes=(*file.notes, *aligned))
    return report, replace(contract, architecture=contract.architecture or architecture)


def _aligned(state: dict[str, Tensor], targets: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The names unchanged or with another prefix, whichever matches the most of the model's tensors."""
    options = [(strip, front) for strip in ("", *PARTS) for front in _fronts(targets)]
    named = {option: _with_front(state, *option, targets) for option in options}
    strip, front = max(options, key=lambda option: len(named[option].keys() & targets.keys()))
    best = named[strip, front]
    kept = _of_modules(best, targets, front) or best  # no name matches: keep all names for the error message
    left_out = len(state) - len(best)
    notes = (
        f"the part under {strip!r} is taken ({left_out} tensors of other parts left out)" if strip else "",
        _left_out(best.keys() - kept.keys(), front),
    )
    return kept, tuple(note for note in notes if note)


def _with_fc6(state: dict[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """If a head has VGG's hidden layers, they get the paper's names; torchvision numbers them."""
    numbered = {f"classifier.{n}.{kind}": f"{fc}.{kind}" for n, fc in VGG_LAYERS for kind in ("weight", "bias")}
    return {numbered[name] if numbered.get(name) in targets else name: value for name, value in state.items()}


def _fronts(targets: Mapping[str, Tensor]) -> list[str]:
    """The prefixes that all of the model's names share, as wrappers such as `net.` add them; the shortest first."""
    fronts, names = [""], list(targets)
    while len(first := {name.partition(".")[0] for name in names}) == 1 and all("." in name for name in names):
        fronts.append(f"{fronts[-1]}{first.pop()}.")
        names = [name.partition(".")[2] for name in names]
    return fronts


def _with_front(state: dict[str, Tensor], strip: str, front: str, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names with `strip` replaced by `front`. timm's feature extractors write the stage stages.0 as stages_0."""
    renamed = {}
    for name, value in state.items():
        if name.startswith(strip):
            plain, flat = (front + short for short in _spellings(name.removeprefix(strip)))
            renamed[flat if flat in targets else plain] = value
    return renamed


def _spellings(name: str) -> tuple[str, str]:
    return name, name.replace(".", "_", 1)


def _of_modules(state: dict[str, Tensor], targets: Mapping[str, Tensor], front: str) -> dict[str, Tensor]:
    """The tensors without the modules that the backbone lacks completely, such as a classifier."""
    modules = {_module(name, front) for name in targets}
    return {name: value for name, value in state.items() if _module(name, front) in modules}


def _left_out(names: Collection[str], front: str) -> str:
    modules = sorted({_module(name, front) for name in names})
    return f"no part of the backbone, left out: {first_few(modules, 8)} ({len(names)} tensors)" if modules else ""


def _module(name: str, front: str) -> str:
    return name.removeprefix(front).partition(".")[0]
