"""Loads weights of a whole detector or classifier: resdet's own, or torchvision's and Detectron2's published files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from torch import nn

from resdet.weights.contract import WeightContract
from resdet.weights.coverage import CLASS_HEADS, CoverageReport, load_checked
from resdet.weights.layers import check_layers
from resdet.weights.published import PublishedWeights


def load_model_weights(
    model: nn.Module,
    weights: PublishedWeights,
    *,
    reinitialise: Sequence[str] = (),
    class_heads: Sequence[str] = CLASS_HEADS,
    class_names: Sequence[str] | None = None,
) -> CoverageReport:
    """Loads a whole model, all of it but the names in `reinitialise` and, for other classes, the layers of the classes.

    With the model's `class_names`, classes are the same where the file lists the same names in the same order. Without
    them, or where the file names none, they are the same where there are as many.

    Raises UserError if the file belongs to another model, or was trained with another batch-norm epsilon or another
    place of the stride in its bottlenecks.
    """
    if weights.contract is not None:
        check_layers(model, weights.contract, weights.source)
    changed = _changed_classes(weights.contract, class_names)
    return load_checked(
        model,
        weights.state,
        source=weights.source,
        reinitialise=reinitialise,
        class_heads=class_heads,
        new_classes=bool(changed),
        notes=(*weights.notes, *changed),
    )


def _changed_classes(contract: WeightContract | None, class_names: Sequence[str] | None) -> tuple[str, ...]:
    """A line about the difference between the file's classes and the model's; none if they are the same or
    not known.
    """
    theirs = None if contract is None else contract.class_names
    if theirs is None or class_names is None or theirs == tuple(class_names):
        return ()
    label, (there, here) = next(
        (i, pair) for i, pair in enumerate(zip_longest(theirs, class_names)) if pair[0] != pair[1]
    )
    return (
        f"the class layers start anew: {len(theirs)} classes in the file, {len(class_names)} in the model, and label"
        f" {label} is {'none' if there is None else repr(there)} there, {'none' if here is None else repr(here)} here",
    )
