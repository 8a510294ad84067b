"""The door for `model.backbone.weights`: torchvision's files, MSRA's, timm's, and all that does not fit."""

import itertools
import pickle

import pytest
import timm
import torch
import torchvision

from resdet.errors import UserError
from resdet.models.backbones import build_backbone
from resdet.weights import WeightContract, load_backbone_weights, save_weights

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def backbone(name, norm="frozen_bn"):
    return build_backbone(name, norm=norm, frozen_stages=0)


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory):
    _ = torch.manual_seed(0)
    model = torchvision.models.resnet18()
    file = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(model.state_dict(), file)
    return model.eval(), file


def test_torchvisions_classifier_gives_its_features(resnet18):
    model, file = resnet18
    ours = backbone("resnet18").eval()
    report, contract = load_backbone_weights(ours, str(file), "resnet18")
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        x = model.maxpool(model.relu(model.bn1(model.conv1(images))))
        expected = model.layer4(model.layer3(model.layer2(model.layer1(x))))
        torch.testing.assert_close(ours(images)[-1], expected, rtol=1e-4, atol=1e-4)
    assert (report.ratio, report.unexpected) == (1.0, ())
    assert "no part of the backbone, left out: fc (2 tensors)" in report.notes
    assert "the file declares no contract: torchvision's mean, std and RGB order are assumed" in report.notes
    assert contract.pixel_mean == IMAGENET_MEAN
    assert contract.pixel_std == IMAGENET_STD
    assert (contract.channel_order, contract.bn_eps, contract.architecture) == ("RGB", 1e-5, "resnet18")
    assert contract.stride_in_1x1 is None  # a basic block has no choice of stride


def test_a_detectors_backbone_is_taken_out_of_the_whole(resnet18, tmp_path):
    model, _ = resnet18
    trunk = {name: value for name, value in model.state_dict().items() if not name.startswith("fc.")}
    whole = {f"backbone.{name}": value for name, value in trunk.items()} | {"rpn.head.cls_logits.bias": torch.ones(3)}
    contract = WeightContract((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), source="our own run")
    save_weights(tmp_path / "run.safetensors", whole, contract)
    ours = backbone("resnet18")
    report, loaded = load_backbone_weights(ours, str(tmp_path / "run.safetensors"), "resnet18")
    assert report.ratio == 1.0
    assert "the part under 'backbone.' is taken (1 tensors of other parts left out)" in report.notes
    assert (loaded.pixel_mean, loaded.source) == ((1.0, 2.0, 3.0), "our own run")
    torch.testing.assert_close(ours.state_dict()["conv1.weight"], model.state_dict()["conv1.weight"])


def test_a_bgr_contract_turns_the_first_convolution(resnet18, tmp_path):
    model, _ = resnet18
    save_weights(
        tmp_path / "bgr.safetensors",
        model.state_dict(),
        WeightContract(IMAGENET_MEAN, (1.0, 1.0, 1.0), channel_order="BGR", source="Caffe"),
    )
    ours = backbone("resnet18")
    report, contract = load_backbone_weights(ours, str(tmp_path / "bgr.safetensors"), "resnet18")
    torch.testing.assert_close(ours.state_dict()["conv1.weight"], model.state_dict()["conv1.weight"].flip(1))
    assert contract.channel_order == "RGB"
    assert "BGR weights: the input channels of conv1.weight were reversed" in report.notes


def refusal(spec, name, norm="frozen_bn"):
    with torch.device("meta"):  # a refusal touches no numbers
        model = backbone(name, norm)
    with pytest.raises(UserError) as caught:
        _ = load_backbone_weights(model, str(spec), name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_depth_is_refused_both_ways(resnet18, tmp_path):
    _, file = resnet18
    message = refusal(file, "resnet34")
    assert "100 matched (55.6 %), 80 missing" in message
    assert "the file is ResNet-18 (its stages have 2, 2, 2, 2 blocks), the model is ResNet-34" in message
    torch.save(torchvision.models.resnet34().state_dict(), tmp_path / "r34.pth")
    assert "100 matched (100.0 %), 0 missing, 80 unexpected" in refusal(tmp_path / "r34.pth", "resnet18")


def test_another_family_is_refused(resnet18, tmp_path):
    _, file = resnet18
    torch.save({f"features.{i}.weight": torch.ones(8, 8, 3, 3) for i in range(13)}, tmp_path / "vgg.pth")
    assert "the file is VGG-16, the model is ResNet-18" in refusal(tmp_path / "vgg.pth", "resnet18")
    assert "the model is VGG-11" in refusal(file, "vgg11")


def test_another_norm_is_refused(resnet18):
    assert "only the file has batch statistics" in refusal(resnet18[1], "resnet18", "gn")


def test_another_epsilon_is_refused(resnet18, tmp_path):
    model, _ = resnet18
    contract = WeightContract(IMAGENET_MEAN, IMAGENET_STD, bn_eps=1e-3, source="a test")
    save_weights(tmp_path / "eps.safetensors", model.state_dict(), contract)
    assert "trained with bn_eps 0.001, but bn1 of the model has 1e-05" in refusal(
        tmp_path / "eps.safetensors", "resnet18"
    )


def test_what_holds_no_backbone_is_refused(tmp_path):
    torch.save({}, tmp_path / "empty.pth")
    assert "holds no tensors" in refusal(tmp_path / "empty.pth", "resnet18")
    torch.save({"fc.weight": torch.ones(2, 2)}, tmp_path / "fc.pth")
    assert "none of its tensors has a place" in refusal(tmp_path / "fc.pth", "resnet18")
    assert "no such file" in refusal(tmp_path / "none.pth", "resnet18")


def test_vggs_hidden_layers_are_found_by_a_head_that_has_them(tmp_path):
    trunk = backbone("vgg11")
    state = {name: torch.full_like(value, 0.5) for name, value in trunk.state_dict().items()}
    state |= {"classifier.0.weight": torch.full((4, 8), 6.0), "classifier.0.bias": torch.full((4,), 6.5)}
    state |= {"classifier.3.weight": torch.full((4, 4), 7.0), "classifier.3.bias": torch.full((4,), 7.5)}
    torch.save(state | {"classifier.6.weight": torch.ones(10, 4)}, tmp_path / "vgg.pth")
    head = torch.nn.ModuleDict({"fc6": torch.nn.Linear(8, 4), "fc7": torch.nn.Linear(4, 4)})
    report, _ = load_backbone_weights(trunk, str(tmp_path / "vgg.pth"), "vgg11", also=[head])
    assert report.ratio == 1.0
    torch.testing.assert_close(head.state_dict()["fc7.bias"], torch.full((4,), 7.5))
    assert "left out: classifier (1 tensors)" in " ".join(report.notes)


def msra_blobs(blocks=(3, 4, 6, 3), width=64):
    """The names of MSRA's R-50.pkl, each with a number of its own."""
    numbers = itertools.count(0.25)

    def norm(name, channels):
        return {f"{name}_{kind}": torch.full((channels,), next(numbers)) for kind in "sb"}

    def conv(name, out, inside, kernel):
        return {name: torch.full((out, inside, kernel, kernel), next(numbers))}

    blobs = conv("conv1_w", width, 3, 7) | norm("res_conv1_bn", width) | {"conv1_b": torch.zeros(width)}
    inside = width
    for stage, count in enumerate(blocks, start=2):
        middle = width * 2 ** (stage - 2)
        for block in range(count):
            at = f"res{stage}_{block}_branch"
            if block == 0:
                blobs |= conv(f"{at}1_w", 4 * middle, inside, 1) | norm(f"{at}1_bn", 4 * middle)
            for branch, (out, into, kernel) in {
                "a": (middle, inside, 1), "b": (middle, middle, 3), "c": (4 * middle, middle, 1),
            }.items():  # fmt: skip
                blobs |= conv(f"{at}2{branch}_w", out, into, kernel) | norm(f"{at}2{branch}_bn", out)
            inside = 4 * middle
    blobs["conv1_w"] += torch.arange(3.0)[:, None, None]  # blue, green, red
    return blobs | {"fc1000_w": torch.ones(10, 4), "fc1000_b": torch.ones(10), "lr": torch.ones(1)}


def test_msras_resnet50_fills_ours_and_sees_rgb(tmp_path):
    blobs = msra_blobs()
    with (tmp_path / "R-50.pkl").open("wb") as file:
        pickle.dump({"blobs": {name: value.numpy() for name, value in blobs.items()}}, file, protocol=2)
    ours = backbone("resnet50_caffe")
    report, contract = load_backbone_weights(ours, str(tmp_path / "R-50.pkl"), "resnet50_caffe")
    assert report.ratio == 1.0
    state = ours.state_dict()
    torch.testing.assert_close(state["conv1.weight"], blobs["conv1_w"].flip(1))
    torch.testing.assert_close(state["layer3.5.conv2.weight"], blobs["res4_5_branch2b_w"])
    torch.testing.assert_close(state["layer4.0.downsample.1.bias"], blobs["res5_0_branch1_bn_b"])
    assert (contract.pixel_mean, contract.pixel_std) == (IMAGENET_MEAN, (1.0, 1.0, 1.0))
    assert (contract.channel_order, contract.stride_in_1x1) == ("RGB", True)
    message = refusal(tmp_path / "R-50.pkl", "resnet50")
    assert (
        "trained with the stride in the first 1x1 (resnet*_caffe), but layer2.0 of the model has it in the 3x3"
        in message
    )


@pytest.mark.parametrize("name", ["resnet10t", "test_convnext", "test_efficientnet"])
def test_timms_checkpoints_fill_its_feature_extractors(tmp_path, name):
    model = timm.create_model(name, pretrained=False)
    torch.save(model.state_dict(), tmp_path / "timm.pth")
    ours = backbone(f"timm/{name}")
    report, contract = load_backbone_weights(ours, str(tmp_path / "timm.pth"), f"timm/{name}")
    assert (report.ratio, report.unexpected) == (1.0, ())
    assert any("left out" in note for note in report.notes)
    published = timm.get_pretrained_cfg(name)
    assert published is not None
    assert contract.pixel_mean == pytest.approx([255 * mean for mean in published.mean])
    other = timm.create_model("test_resnet", pretrained=False)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth"):
        _ = load_backbone_weights(ours, str(tmp_path / "other.pth"), f"timm/{name}")


def test_the_weights_of_another_width_are_refused(resnet18):
    with pytest.raises(UserError, match="shape") as refused:
        _ = load_backbone_weights(build_backbone("resnet18", norm="bn", width=0.5), str(resnet18[1]), "resnet18")
    assert "\n" not in str(refused.value)
