"""The configs of configs/imagenet follow the papers' recipes, and their nets are the papers'."""

from pathlib import Path

import pytest
import torch
import torchvision

from resdet.config import load_config
from resdet.engine.evaluate.classifier import configured_views
from resdet.engine.train.optim import learning_rate
from resdet.models.build.classifier import build_classifier

FOLDER = Path(__file__).parents[1] / "configs/imagenet"
RESIDUAL = ("plain18", "plain34", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
TORCHVISION = {"resnet50": "resnet50", "resnet101": "resnet101", "resnet152": "resnet152", "vgg16": "vgg16"}


def test_no_config_is_left_out():
    expected = sorted([*RESIDUAL, "vgg16", "miniature", "multi_scale_testing"])
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == expected


@pytest.mark.parametrize("name", RESIDUAL)
def test_the_recipe_of_section_3_4(name: str):
    config = load_config(FOLDER / f"{name}.yaml")
    optim, train, augment = config.optim, config.train, config.data.augment
    assert (config.task, config.data.train.name, config.data.val.name) == ("classification", "imagenet", "imagenet")
    assert (train.steps, train.batch_size, train.grad_clip) == (600_000, 256, None)
    assert (optim.momentum, optim.weight_decay, optim.norm_weight_decay) == (0.9, 1e-4, 1e-4)
    assert (augment.short_side_range, augment.crop, augment.flip) == ([256, 480], 224, 0.5)
    assert (augment.extra, augment.extra_probability) == (["pca_colour"], 1.0)
    rates = [learning_rate(step, optim, train) for step in (0, 149_999, 150_000, 300_000)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.001])
    views = configured_views(config)
    assert (views.per_image, views.side, views.short_sides) == (10, 224, (256,))


def test_multi_scale_testing_is_that_of_table_4():
    views = configured_views(load_config(FOLDER / "resnet152.yaml", FOLDER / "multi_scale_testing.yaml"))
    assert (views.crops, views.short_sides, views.flip) == ("full", (224, 256, 384, 480, 640), True)


@pytest.mark.parametrize("name", TORCHVISION)
def test_a_net_has_the_parameters_of_torchvision_s(name: str):
    with torch.device("meta"):
        ours = build_classifier(load_config(FOLDER / f"{name}.yaml").model, 1000)
        theirs = getattr(torchvision.models, TORCHVISION[name])(weights=None)
    counts = [sum(parameter.numel() for parameter in model.parameters()) for model in (ours, theirs)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("depth", [18, 34])
def test_a_residual_net_with_shortcuts_a_has_the_parameters_of_the_plain_one(depth: int):
    with torch.device("meta"):
        nets = [
            build_classifier(load_config(FOLDER / f"{kind}{depth}.yaml").model, 1000) for kind in ("plain", "resnet")
        ]
    plain, residual = (sum(parameter.numel() for parameter in net.parameters()) for net in nets)
    assert plain == residual


def test_fully_connected_layers_run_as_convolutions_and_give_torchvision_s_logits():
    """VGG with a map of 7x7, and the mean over the places of a larger one."""
    _ = torch.manual_seed(0)
    config = load_config(FOLDER / "vgg16.yaml", overrides=["model.classifier.fc_dim=16"]).model
    model = build_classifier(config, 10).eval()
    assert model.hidden is not None
    fc6, *_ = model.hidden
    assert isinstance(fc6, torch.nn.Conv2d)
    maps = torch.randn(2, 512, 7, 8)
    whole = model.fc(model.hidden(maps).mean(dim=(2, 3)))
    places = []
    for left in (0, 1):
        square = maps[..., left : left + 7]
        hidden = torch.relu(torch.nn.functional.linear(square.flatten(1), fc6.weight.flatten(1), fc6.bias))
        places.append(model.fc(model.hidden[3:](hidden[..., None, None]).flatten(1)))
    torch.testing.assert_close(whole, torch.stack(places).mean(0), atol=1e-4, rtol=1e-4)
