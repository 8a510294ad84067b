import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from resdet.ops.box_coder import BoxCoder

coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
sides = st.floats(0.5, 1000)
corners = st.floats(-500, 1500)
boxes = st.tuples(corners, corners, sides, sides).map(lambda b: torch.tensor([b[0], b[1], b[0] + b[2], b[1] + b[3]]))


def test_an_anchor_on_its_target_has_zero_deltas() -> None:
    box = torch.tensor([[10.0, 20, 50, 80]])
    assert_close(coder.encode(box, box), torch.zeros(1, 4))


def test_deltas_by_pencil() -> None:
    # The box is shifted right by half a width of the reference and is twice as high.
    reference, box = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[5.0, -5, 15, 15]])
    assert_close(coder.encode(box, reference), torch.tensor([[5.0, 0, 0, 5 * math.log(2)]]))


@given(box=boxes, reference=boxes)
@settings(max_examples=100, deadline=None)
def test_decode_undoes_encode(box: torch.Tensor, reference: torch.Tensor) -> None:
    ratio = (box[2:] - box[:2]) / (reference[2:] - reference[:2])
    decoded = coder.decode(coder.encode(box, reference), reference)
    if bool((ratio < 1000 / 16).all()):
        assert_close(decoded, box, atol=1e-2, rtol=1e-4)


def test_an_absurd_scale_is_clamped_instead_of_overflowing() -> None:
    decoded = coder.decode(torch.tensor([[0.0, 0, 1e4, 1e4]]), torch.tensor([[0.0, 0, 16, 16]]))
    assert_close(decoded[:, 2:] - decoded[:, :2], torch.full((1, 2), 1000.0))


def test_boxes_and_references_without_area_have_finite_deltas() -> None:
    point, box = torch.tensor([[5.0, 5, 5, 5]]), torch.tensor([[0.0, 0, 10, 10]])
    for pair in ((point, box), (box, point), (point, point)):
        assert coder.encode(*pair).isfinite().all()
