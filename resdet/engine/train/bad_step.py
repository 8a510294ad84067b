"""What a run says and keeps about a step whose loss or gradient is not finite, before anything is updated."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from resdet.data.batches.collate import ImageInfo
from resdet.engine.train.alternating import OnProposals
from resdet.engine.train.divergence import Findings, causes_of, examine
from resdet.engine.train.state import Run, TrainState
from resdet.engine.train.unread import Kept
from resdet.structures import Batch
from resdet.text import first_few


def examined(kind: str, losses: Mapping[str, float], state: TrainState, run: Run, kept: Kept) -> tuple[list[str], bool]:
    """Examines a step, prints and writes the findings and the batch; returns the likely causes in their order, and
    whether bad_step.json was written.

    `kind` says what is not finite, "loss" or "gradient". Every process must call this.
    """
    batch = kept.batch
    if isinstance(kept.losses_of, OnProposals):
        with kept.precision:
            batch = kept.losses_of.with_proposals(batch)
    state.gather(within_update=True)
    shares = run.world.gather(examine(state.whole, batch, kept.images, kept.precision))
    images = [image for share in run.world.gather(tuple(kept.images)) for image in share]
    found = together(shares)
    pasts = zip(*run.world.gather(list(run.recent)), strict=False)  # each step, as each process had it
    recent = [replace(past[0], image_ids=sum((each.image_ids for each in past), ())) for past in pasts]
    causes = causes_of(found, recent, updates=run.updates)
    for line in (*described(found), *(f"likely cause {i}: {cause}" for i, cause in enumerate(causes, 1))):
        run.log.say(f"step {kept.step}: {line}")
    written = run.writes and keep(kind, losses, run, replace(kept, batch=batch), images, found, causes)
    return causes, written


def together(shares: Sequence[Findings]) -> Findings:
    """The findings of the first process that found something, with the inputs and images of all."""
    first = next((share for share in shares if share.module or share.bad_gradient), shares[0])
    return replace(
        first,
        bad_inputs=[line for share in shares for line in share.bad_inputs],
        bad_images=[number for share in shares for number in share.bad_images],
        images=sum(share.images for share in shares),
    )


def described(found: Findings) -> list[str]:
    """The findings as lines of a log."""
    lines: list[str] = []
    if found.module:
        lines.append(f"the first module whose output is not finite: {found.module}")
    if found.bad_gradient:
        lines.append(f"the gradient is not finite from {found.bad_gradient} on, backwards")
    if found.losses:
        lines.append("the losses: " + ", ".join(f"{name} {value:.4g}" for name, value in found.losses.items()))
    if found.gradients:
        norms = ", ".join(f"{stage} {norm:.3g}" for stage, norm in found.gradients.items())
        lines.append(f"gradient norms by stage, of the finite losses: {norms}")
    if found.bad_images:
        lines.append(
            f"{len(found.bad_images)} of {found.images} images alone give no finite step: ids"
            f" {first_few(found.bad_images)}"
        )
    return lines


def keep(
    kind: str,
    losses: Mapping[str, float],
    run: Run,
    kept: Kept,
    images: Sequence[ImageInfo],
    found: Findings,
    causes: Sequence[str],
) -> bool:
    """Writes bad_step.json and, from each process, its share of the batch; returns whether that is done. A disk error
    is a warning.
    """
    try:
        run.files.write_bad_batch(run.world.rank, _batch_bytes(kept.step, kept.batch, kept.images))
        if run.world.leads:
            run.files.write_bad_step(
                {
                    "step": kept.step,
                    "not_finite": kind,
                    "losses": {name: v if math.isfinite(v) else str(v) for name, v in losses.items()},
                    "images": [{"image_id": each.image_id, "file_name": each.file_name} for each in images],
                    "causes": list(causes),
                    "findings": found.to_json(),
                }
            )
    except OSError as error:
        run.log.warn(f"{run.files.bad_step}: cannot be written ({error.strerror or error})")
        return False
    return True


def _batch_bytes(step: int, batch: Batch, images: Sequence[ImageInfo]) -> bytes:
    """Only plain values and tensors, for torch.load(weights_only=True)."""
    targets: dict[str, Any] = {} if batch.targets is None else vars(batch.targets.to("cpu"))
    content = {
        "step": step,
        "image_ids": [image.image_id for image in images],
        "file_names": [image.file_name for image in images],
        "images": batch.images.cpu(),
        "sizes": batch.sizes.cpu(),
        "targets": {name: value for name, value in targets.items() if value is not None},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()
