"""A weight contract says what the numbers mean, survives the header of a file, and names both sides of a conflict."""

import json
from dataclasses import replace

import pytest
import torch

from resdet.errors import UserError
from resdet.weights import WeightContract, conflicts, to_rgb
from resdet.weights.contract import METADATA_KEY

MSRA = WeightContract(
    pixel_mean=(123.675, 116.28, 103.53),
    pixel_std=(1.0, 1.0, 1.0),
    channel_order="BGR",
    stride_in_1x1=True,
    bn_eps=1e-5,
    class_names=("person", "naïve \n name"),
    architecture="resnet50",
    source="MSRA",
)


def test_a_header_gives_back_the_contract():
    metadata = MSRA.to_metadata()
    assert all(isinstance(value, str) for value in metadata.values())
    assert WeightContract.from_metadata(metadata, "f.safetensors") == MSRA


def test_a_header_without_a_contract_declares_none():
    assert WeightContract.from_metadata({"format": "pt"}, "f.safetensors") is None


def test_a_contract_for_pixels_in_0_to_1_is_read_in_0_to_255():
    text = json.dumps({"pixel_mean": [0.2, 0.4, 0.6], "pixel_std": [0.1, 0.2, 0.2], "scale": 1.0})
    contract = WeightContract.from_metadata({METADATA_KEY: text}, "f")
    assert contract is not None
    assert contract.pixel_mean == pytest.approx((51.0, 102.0, 153.0))
    assert contract.pixel_std == pytest.approx((25.5, 51.0, 51.0))
    assert contract.scale == 255.0


@pytest.mark.parametrize(
    "change",
    [
        {"pixel_mean": [1.0, 2.0]},
        {"pixel_mean": "grey"},
        {"pixel_std": [1.0, 0.0, 1.0]},
        {"channel_order": "GRB"},
        {"class_names": "person"},
        {"scale": -1.0},
        {"bn_eps": 0.0},
    ],
)
def test_a_header_that_is_no_contract_is_refused_in_one_line(change):
    broken = {"pixel_mean": [1.0, 2.0, 3.0], "pixel_std": [1.0, 1.0, 1.0]} | change
    with pytest.raises(UserError, match=r"^f\.safetensors: the weight contract in its header is not valid") as caught:
        _ = WeightContract.from_metadata({METADATA_KEY: json.dumps(broken)}, "f.safetensors")
    assert "\n" not in str(caught.value)


def test_what_agrees_is_no_conflict():
    numbers = {
        "pixel_mean": (0.485 * 255, 0.456 * 255, 0.406 * 255),
        "pixel_std": (1.0, 1.0, 1.0),
        "stride_in_1x1": True,
    }
    assert conflicts(MSRA, **numbers, bn_eps=1e-5) == []
    assert conflicts(MSRA) == []
    assert conflicts(replace(MSRA, stride_in_1x1=None), stride_in_1x1=False) == []  # the file leaves it open


def test_every_conflict_names_both_sides():
    found = conflicts(
        replace(MSRA, anchors_rounded=False, roi_align_aligned=True),
        pixel_mean=(103.53, 116.28, 123.675),  # the same numbers in the other order
        pixel_std=(58.395, 57.12, 57.375),
        stride_in_1x1=False,
        bn_eps=1e-3,
        anchors_rounded=True,
        roi_align_aligned=False,
    )
    assert [line.partition(":")[0] for line in found] == [
        "pixel_mean", "pixel_std", "stride_in_1x1", "bn_eps", "anchors_rounded", "roi_align_aligned",
    ]  # fmt: skip
    assert (
        found[0]
        == "pixel_mean: the weights have (123.675, 116.28, 103.53) (R, G, B), the model (103.53, 116.28, 123.675)"
    )
    assert found[2] == "stride_in_1x1: the weights have True, the model False"


def test_as_many_classes_under_other_names_are_a_conflict():
    named = replace(MSRA, class_names=("cat", "dog"))
    assert conflicts(named, class_names=("cat", "dog")) == []
    assert conflicts(named, class_names=("cat", "dog", "bird")) == []  # another head altogether
    assert conflicts(named, class_names=("dog", "cat"))[0] == "class 0: the weights have 'cat', the model 'dog'"


def test_bgr_weights_see_rgb_images_as_they_saw_bgr():
    weight, image = torch.randn(4, 3, 5, 5), torch.rand(1, 3, 9, 9)
    state, contract, notes = to_rgb({"conv1.weight": weight, "bn1.weight": torch.ones(4)}, MSRA)
    seen_in_bgr = torch.nn.functional.conv2d(image.flip(1), weight)
    torch.testing.assert_close(torch.nn.functional.conv2d(image, state["conv1.weight"]), seen_in_bgr)
    assert contract == replace(MSRA, channel_order="RGB")
    assert notes == ("BGR weights: the input channels of conv1.weight were reversed",)


def test_rgb_weights_are_left_alone():
    state = {"conv1.weight": torch.randn(4, 3, 5, 5)}
    again, contract, notes = to_rgb(state, replace(MSRA, channel_order="RGB"))
    assert again is state
    assert contract.channel_order == "RGB"
    assert notes == ()


def test_bgr_weights_without_a_first_convolution_are_refused():
    with pytest.raises(UserError, match="one first convolution over 3 channels; found none"):
        _ = to_rgb({"fc.weight": torch.ones(2, 3)}, MSRA)
