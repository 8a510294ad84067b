"""Copies tensors into a model, and raises an error if too few of them fit; a model with partly loaded weights trains
without error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from resdet.errors import UserError
from resdet.text import first_few
from resdet.weights.family import family

# The tensors in our detectors whose first dimension is the number of classes.
CLASS_HEADS = (
    "roi_heads.box_predictor.cls_score.",
    "roi_heads.box_predictor.bbox_pred.",
    # of a cascade, whose deltas are class-agnostic
    *(f"roi_heads.box_predictor.{stage}.cls_score." for stage in range(10)),
    "roi_heads.mask_head.predictor.",
)
MASK_HEAD = "roi_heads.mask_head."  # a few tensors among hundreds, but the whole of one task


@dataclass(frozen=True)
class CoverageReport:
    """The result for every tensor, by name. `mismatched` tensors have the right name but another shape or type of
    number.
    """

    source: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    reinitialised: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ratio(self) -> float:
        """Matched tensors divided by the tensors of the model, without those that are re-initialized on purpose."""
        wanted = len(self.matched) + len(self.missing) + len(self.mismatched)
        return len(self.matched) / wanted if wanted else 1.0

    def line(self) -> str:
        """The report as one line for a log."""
        heads = f", {len(self.reinitialised)} re-initialised" if self.reinitialised else ""
        return (
            f"{self.source}: {len(self.matched)} matched ({100 * self.ratio:.1f} %), {len(self.missing)} missing, "
            f"{len(self.unexpected)} unexpected, {len(self.mismatched)} mismatched{heads}"
        )

    def details(self) -> str:
        """The line, the notes, and the names of all tensors that did not match, one per line."""
        kinds = ("missing", "unexpected", "mismatched", "reinitialised")
        names = [f"  {kind}: {', '.join(getattr(self, kind))}" for kind in kinds if getattr(self, kind)]
        return "\n".join([self.line(), *(f"  {note}" for note in self.notes), *names])


def load_checked(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str,
    also: Sequence[nn.Module] = (),
    required: float = 0.99,
    reinitialise: Sequence[str] = (),
    class_heads: Sequence[str] = CLASS_HEADS,
    new_classes: bool = False,
    notes: tuple[str, ...] = (),
) -> CoverageReport:
    """Copies the tensors of `state` into those of `module` (and of `also`, whose names must be others).

    The module changes only if the whole state is accepted. UserError, with the first names and the likely cause, for:
    fewer than `required` of the model's tensors found, a correspondingly large part of the file's tensors unused (a
    deeper net would cover a shallower one), a mask head on one side only, any tensor of another shape, numbers that are
    not finite.

    Args:
        source: the name of the file for messages.
        reinitialise: prefixes of names that keep their fresh values, given by the user.
        class_heads: prefixes of names that keep their fresh values where only the number of classes differs.
        new_classes: the classes are others, whatever their number: all of `class_heads` keep their fresh values.
        notes: earlier changes of the tensors, which are added to the report.
    """
    target = _target(module, also)
    state = without_counters(state)
    anew = (*reinitialise, *class_heads) if new_classes else tuple(reinitialise)
    report = replace(_compare(target, state, source, anew, tuple(class_heads)), notes=notes)
    report = report if new_classes else _with_head_notes(report, target, state)
    _check(report, target, state, required)
    with torch.no_grad():
        for name in report.matched:
            _ = target[name].copy_(state[name])
    return report


def without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without BatchNorm2d's step counters, which a loaded model does not use and frozen norms do
    not have.
    """
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def _target(module: nn.Module, also: Sequence[nn.Module]) -> dict[str, Tensor]:
    target: dict[str, Tensor] = {}
    for part in (module, *also):
        tensors = without_counters(part.state_dict())
        if both := target.keys() & tensors.keys():
            raise ValueError(f"two modules have the same names: {sorted(both)[:3]}")
        target |= tensors
    return target


def _compare(
    target: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    source: str,
    reinitialise: tuple[str, ...],
    class_heads: tuple[str, ...],
) -> CoverageReport:
    kinds: dict[str, list[str]] = {"matched": [], "missing": [], "mismatched": [], "reinitialised": []}
    for name, ours in target.items():
        theirs = state.get(name)
        if name.startswith(reinitialise):
            kinds["reinitialised"].append(name)
        elif theirs is None:
            kinds["missing"].append(name)
        elif theirs.shape == ours.shape and theirs.is_floating_point() == ours.is_floating_point():
            kinds["matched"].append(name)
        elif name.startswith(class_heads) and theirs.shape[1:] == ours.shape[1:]:
            kinds["reinitialised"].append(name)
        else:
            kinds["mismatched"].append(name)
    unexpected = tuple(name for name in state if name not in target and not name.startswith(reinitialise))
    return CoverageReport(source, unexpected=unexpected, **{kind: tuple(names) for kind, names in kinds.items()})


def _with_head_notes(
    report: CoverageReport, target: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> CoverageReport:
    """Notes, for each re-initialized head, whether the user named it or the number of classes differs."""
    notes = []
    for name in report.reinitialised:
        if name in state and state[name].shape != target[name].shape and name.endswith("weight"):
            theirs, ours = len(state[name]), len(target[name])
            notes.append(
                f"{name} starts anew: the file has {theirs} rows, the model {ours} (another number of classes)"
            )
    if len(notes) < len([name for name in report.reinitialised if name.endswith("weight")]):
        notes.append("other re-initialised names were asked for")
    return replace(report, notes=(*report.notes, *notes))


def _check(report: CoverageReport, target: Mapping[str, Tensor], state: Mapping[str, Tensor], required: float) -> None:
    if not state:
        raise UserError(f"{report.source}: refused, it holds no tensors at all")
    too_many = len(report.unexpected) > (1 - required) * len(state)
    if report.ratio < required or too_many or report.mismatched or _lone_mask_head(report):
        raise UserError(
            f"{report.line()}. Refused: {_first_names(report, target, state)}. {_cause(report, target, state)}"
        )
    broken = [name for name in report.matched if not torch.isfinite(state[name]).all()]
    if broken:
        raise UserError(f"{report.source}: refused, NaN or infinite numbers in {first_few(broken, 3)}")


def _first_names(report: CoverageReport, target: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    shapes = [f"{n} (file {_shape(state[n])}, model {_shape(target[n])})" for n in report.mismatched[:2]]
    parts = [
        f"missing {first_few(report.missing, 3)}" if report.missing else "",
        f"unexpected {first_few(report.unexpected, 3)}" if report.unexpected else "",
        f"of another shape {', '.join(shapes)}" if shapes else "",
    ]
    return "; ".join(part for part in parts if part)


def _cause(report: CoverageReport, target: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """The most likely cause; the most specific is checked first."""
    if lone := _lone_mask_head(report):
        return lone
    theirs, ours = (family({name: value.shape for name, value in side.items()}) for side in (state, target))
    prefix = None if report.matched else _prefix(target, state)
    statistics = [name for name in (*report.missing, *report.unexpected) if name.endswith("running_mean")]
    if report.mismatched and all(name.startswith(CLASS_HEADS) for name in report.mismatched):
        return "Likely cause: the file and the model have another number of classes"
    if theirs and ours and theirs != ours:
        return f"Likely cause: the file is {theirs}, the model is {ours}"
    if prefix:
        return f"Likely cause: {prefix}"
    if statistics:
        side = "the model" if statistics[0] in report.missing else "the file"
        return f"Likely cause: another normalisation (only {side} has batch statistics); see model.backbone.norm"
    if not report.matched and all(name.split(".")[-2:-1] in (["fc"], ["classifier"], ["head"]) for name in state):
        return "Likely cause: the file holds a classifier without its backbone"
    sides = f"the file is {theirs or 'another network'}, the model {ours or 'another one'}"
    return f"Likely cause: other names or another network ({sides})"


def _lone_mask_head(report: CoverageReport) -> str | None:
    shared = (*report.matched, *report.mismatched, *report.reinitialised)
    if any(name.startswith(MASK_HEAD) for name in shared):
        return None
    if any(name.startswith(MASK_HEAD) for name in report.missing):
        return (
            "Likely cause: the file has no mask head; set model.mask_head=null, or take its backbone alone by "
            "model.backbone.weights"
        )
    if any(name.startswith(MASK_HEAD) for name in report.unexpected):
        return "Likely cause: the file has a mask head and the model none; set model.mask_head.name=fcn"
    return None


def _prefix(target: Iterable[str], state: Iterable[str]) -> str | None:
    """The prefix without which the names would match."""
    ours, theirs = list(target), list(state)
    if end := next((a.removesuffix(b) for b in ours[:1] for a in theirs if a.endswith("." + b)), None):
        return f"the file's names carry the prefix {end!r}"
    if end := next((b.removesuffix(a) for a in theirs[:1] for b in ours if b.endswith("." + a)), None):
        return f"the file's names lack the prefix {end!r}"
    return None


def _shape(tensor: Tensor) -> str:
    kind = "" if tensor.is_floating_point() else f" {tensor.dtype}".replace("torch.", "")
    return "x".join(map(str, tensor.shape)) + kind
