"""The custom operators in an exported graph give what they give in torch: NMS and RoI kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from resdet.exporting import torch_ops
from resdet.ops.nms import batched_nms
from resdet.ops.roi_align import assign_levels, roi_align
from resdet.ops.roi_kernels import kernel_roi_align, roi_pool

THRESHOLD, KEEP = 0.5, 12


class Suppress(nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        return batched_nms(boxes, scores, groups, valid, iou_threshold=THRESHOLD, keep=KEEP)


class Pool(nn.Module):
    def __init__(self, pooling: Callable[..., Tensor], **options: object) -> None:
        super().__init__()
        self.pooling = pooling
        self.options = options

    def forward(self, fine: Tensor, coarse: Tensor, boxes: Tensor) -> Tensor:
        return self.pooling([fine, coarse], (4, 8), boxes, assign_levels(boxes, 2, 3) - 2, **self.options)


def candidates(images: int = 3, count: int = 60) -> tuple[Tensor, ...]:
    """Crowded boxes with equal scores among them; the last image has none that is valid."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(images, count, 2, generator=generator) * 20
    boxes = torch.cat([corners, corners + 5 + torch.rand(images, count, 2, generator=generator) * 20], dim=-1)
    scores = torch.rand(images, count, generator=generator).mul(8).round().div(8) - 0.5  # negative too, as logits
    groups = torch.randint(0, 4, (images, count), generator=generator)
    valid = torch.rand(images, count, generator=generator) < 0.8
    valid[-1] = False
    return boxes, scores, groups, valid


def pyramid() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(2, 9, 2, generator=generator) * 40 - 4  # some reach beyond the image
    boxes = torch.cat([corners, corners + torch.rand(2, 9, 2, generator=generator) * 200], dim=-1)
    fine, coarse = (torch.randn(2, 3, side, side, generator=generator) for side in (16, 8))
    return fine, coarse, boxes


POOLS = {
    "align": Pool(kernel_roi_align, resolution=3, sampling_ratio=2, aligned=True),
    "as in the paper": Pool(kernel_roi_align, resolution=3, sampling_ratio=2, aligned=False),
    "adaptive": Pool(kernel_roi_align, resolution=3, sampling_ratio=0, aligned=True),
    "pool": Pool(roi_pool, resolution=3),
}


def in_onnx(module: nn.Module, given: tuple[Tensor, ...]) -> list[np.ndarray]:
    onnxruntime = pytest.importorskip("onnxruntime")
    _ = pytest.importorskip("onnxscript")
    from resdet.exporting.onnx_ops import TRANSLATIONS

    program = torch.onnx.export(
        module.eval(), given, dynamo=True, opset_version=18, custom_translation_table=TRANSLATIONS, verbose=False
    )
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, (value.numpy() for value in given), strict=True)))


def test_nms_in_onnx_keeps_the_same_boxes_in_the_same_order() -> None:
    given = candidates()
    index, valid = Suppress()(*given)
    found = in_onnx(Suppress(), given)
    assert found[1].tolist() == valid.tolist()
    assert found[0].tolist() == index.tolist()
    assert valid[:2].sum() > 12
    assert not valid[2].any()


def test_nms_in_torchs_own_operators_keeps_the_same_boxes() -> None:
    given = candidates()
    index, valid = Suppress()(*given)
    found = torch_ops.padded_nms(*given, iou_threshold=THRESHOLD, keep=KEEP)  # pyright: ignore[reportCallIssue]
    assert torch.equal(found >= 0, valid)
    assert torch.equal(found.clamp(min=0), index)


@pytest.mark.parametrize("name", POOLS)
def test_regions_in_onnx_are_those_in_torch(name: str) -> None:
    given = pyramid()
    (found,) = in_onnx(POOLS[name], given)
    np.testing.assert_allclose(found, POOLS[name](*given).numpy(), atol=2e-5)


@pytest.mark.parametrize("name", POOLS)
def test_regions_in_torchs_own_operators_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from resdet.ops import roi_kernels

    given, pool = pyramid(), POOLS[name]
    wanted = pool(*given)
    monkeypatch.setattr(roi_kernels, "_align", torch_ops.roi_align)
    monkeypatch.setattr(roi_kernels, "_pool", torch_ops.roi_pool)
    torch.testing.assert_close(pool(*given), wanted)


def test_kernels_pool_what_the_weighted_sums_pool() -> None:
    """A graph has the kernels in the place of `ops.roi_align`."""
    given = pyramid()
    for aligned in (True, False):
        options = {"resolution": 3, "sampling_ratio": 2, "aligned": aligned}
        torch.testing.assert_close(Pool(kernel_roi_align, **options)(*given), Pool(roi_align, **options)(*given))
