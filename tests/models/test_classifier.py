"""The classifier: pooling, one linear layer, cross entropy."""

import math

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from resdet.config import load_config
from resdet.errors import UserError
from resdet.models.backbones import Backbone, build_backbone
from resdet.models.build.classifier import build_classifier
from resdet.models.classifier import Classifier
from resdet.structures import Batch, Targets


def labelled(images: Tensor, labels: list[int]) -> Batch:
    count, _, height, width = images.shape
    valid = torch.ones(count, 1, dtype=torch.bool)
    targets = Targets(
        boxes=torch.tensor([[[0.0, 0.0, width, height]]]).repeat(count, 1, 1),
        labels=torch.tensor(labels)[:, None],
        crowd=~valid,
        valid=valid,
        seeds=torch.arange(count),
    )
    return Batch(images, torch.tensor([[height, width]]).repeat(count, 1), targets)


class Same(Backbone):
    """The image itself as the one feature map."""

    channels = (3,)
    strides = (1,)

    def forward(self, images: Float[Tensor, "N 3 H W"]) -> list[Float[Tensor, "N _ _ _"]]:
        return [images]

    def stages(self) -> list[tuple[str, nn.Module]]:
        return []


def test_two_classes_by_hand():
    """Mean colour (1, 2, 4) after normalization; the two logits are its first and its second channel."""
    model = Classifier(Same(), 2, pixel_mean=[10.0, 20.0, 30.0], pixel_std=[2.0, 1.0, 5.0])
    with torch.no_grad():
        _ = model.fc.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 0]]))
        _ = model.fc.bias.zero_()
    image = torch.tensor([[[[12, 12]], [[21, 23]], [[40, 60]]]], dtype=torch.uint8)  # mean 12, 22, 50
    batch = labelled(image, [0])
    torch.testing.assert_close(model.logits(batch), torch.tensor([[1.0, 2.0]]))
    torch.testing.assert_close(model.predict(batch)[0, 0].item(), 1 / (1 + math.e))
    torch.testing.assert_close(model(batch)["loss_classifier"].item(), math.log(1 + math.e))


def test_the_loss_is_that_of_the_predicted_probabilities_over_the_batch():
    _ = torch.manual_seed(0)
    model = Classifier(build_backbone("nano", norm="gn"), 5, pixel_mean=[128.0] * 3, pixel_std=[64.0] * 3)
    batch = labelled(torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8), [0, 4, 2, 2])
    probabilities = model.predict(batch)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(4))
    expected = -torch.stack([probabilities[row, label] for row, label in enumerate([0, 4, 2, 2])]).log().mean()
    torch.testing.assert_close(model(batch)["loss_classifier"], expected)


@pytest.mark.parametrize(("name", "parameters"), [("resnet20_cifar", 0.27), ("resnet56_cifar", 0.85)])
def test_the_cifar_nets_have_the_parameters_of_table_6(name: str, parameters: float):
    config = load_config(overrides=[f"model.backbone={{name: {name}, norm: bn, frozen_stages: 0}}"])
    model = build_classifier(config.model, 10)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 2) == parameters


def test_a_classifier_has_no_weights_of_a_backbone():
    config = load_config(overrides=["model.backbone.weights=IMAGENET1K_V1"])
    with pytest.raises(UserError, match="starts from scratch"):
        _ = build_classifier(config.model, 10)
