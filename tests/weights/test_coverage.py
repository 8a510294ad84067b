"""Weights are loaded as a whole or not at all, and a refusal says why."""

import pytest
import torch
from torch import nn

from resdet.config import load_config
from resdet.errors import UserError
from resdet.models.build.detector import build_model
from resdet.weights.coverage import load_checked
from resdet.weights.family import network


def numbered(count, *, width=2):
    """A network of `count` tensors, 0.weight to (count - 1).weight."""
    return nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(count)))


def untouched(module, before):
    return all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def copied(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def refusal(module, state, **options):
    """The message of the refusal, which must have left the model alone."""
    before = copied(module)
    with pytest.raises(UserError) as caught:
        _ = load_checked(module, state, source="w.pth", **options)
    assert untouched(module, before)
    message = str(caught.value)
    assert message.startswith("w.pth")
    assert "\n" not in message
    return message


def test_all_of_a_state_dict_is_copied():
    model, other = numbered(3), numbered(3)
    report = load_checked(model, other.state_dict(), source="w.pth", notes=("said before",))
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=0, atol=0)
    assert report.line() == "w.pth: 3 matched (100.0 %), 0 missing, 0 unexpected, 0 mismatched"
    assert report.details().splitlines() == [report.line(), "  said before"]


def test_99_of_100_pass_and_98_do_not():
    model, state = numbered(100), copied(numbered(100))
    del state["7.weight"]
    report = load_checked(model, state, source="w.pth")
    assert (len(report.matched), report.missing, report.ratio) == (99, ("7.weight",), 0.99)
    assert "missing: 7.weight" in report.details()
    del state["8.weight"]
    assert "98 matched (98.0 %), 2 missing" in refusal(model, state)
    assert load_checked(model, state, source="w.pth", required=0.9).ratio == 0.98


def test_a_deeper_file_is_refused_though_it_covers_the_model():
    message = refusal(numbered(4), numbered(6).state_dict())
    assert "4 matched (100.0 %), 0 missing, 2 unexpected" in message
    assert "unexpected 4.weight, 5.weight" in message


def test_one_tensor_of_another_shape_is_refused_in_any_case():
    state = copied(numbered(200)) | {"3.weight": torch.ones(2, 5)}
    assert "3.weight (file 2x5, model 2x2)" in refusal(numbered(200), state)
    whole_numbers = copied(numbered(200)) | {"3.weight": torch.ones(2, 2, dtype=torch.int8)}
    assert "3.weight (file 2x2 int8, model 2x2)" in refusal(numbered(200), whole_numbers)


def test_half_precision_is_read_as_float32():
    model, state = numbered(1), {"0.weight": torch.tensor([[0.5, 1.0], [2.0, -4.0]], dtype=torch.float16)}
    _ = load_checked(model, state, source="w.pth")
    torch.testing.assert_close(model.state_dict()["0.weight"], torch.tensor([[0.5, 1.0], [2.0, -4.0]]))


def test_an_empty_file_is_refused():
    assert "no tensors at all" in refusal(numbered(2), {})


def test_numbers_that_are_not_finite_are_refused():
    state = copied(numbered(3)) | {"1.weight": torch.tensor([[1.0, float("nan")], [0.0, 0.0]])}
    assert "NaN or infinite numbers in 1.weight" in refusal(numbered(3), state)


def test_batch_counters_do_not_count():
    model = nn.Sequential(nn.BatchNorm2d(2))
    state = {name: value for name, value in model.state_dict().items() if "num_batches" not in name}
    assert load_checked(model, state, source="w.pth").ratio == 1.0
    assert load_checked(model, model.state_dict(), source="w.pth").unexpected == ()


def head(classes):
    """A detector's last layer, behind 30 layers of its own."""
    model = nn.Module()
    model.body = numbered(30)
    model.roi_heads = nn.Module()
    model.roi_heads.box_predictor = nn.Module()
    model.roi_heads.box_predictor.cls_score = nn.Linear(2, classes + 1)
    model.roi_heads.box_predictor.bbox_pred = nn.Linear(2, classes * 4)
    return model


def test_another_number_of_classes_starts_the_head_anew_and_says_so():
    model = head(3)
    before = copied(model)
    report = load_checked(model, head(80).state_dict(), source="w.pth")
    assert report.reinitialized == (
        "roi_heads.box_predictor.cls_score.weight",
        "roi_heads.box_predictor.cls_score.bias",
        "roi_heads.box_predictor.bbox_pred.weight",
        "roi_heads.box_predictor.bbox_pred.bias",
    )
    assert report.line().endswith("0 mismatched, 4 re-initialized")
    assert "cls_score.weight starts anew: the file has 81 rows, the model 4" in report.details()
    for name in report.reinitialized:
        assert torch.equal(model.state_dict()[name], before[name])
    assert torch.equal(model.state_dict()["body.0.weight"], before["body.0.weight"]) is False


def test_classes_that_differ_are_refused_where_nothing_may_start_anew():
    message = refusal(head(3), head(80).state_dict(), class_heads=())
    assert "cls_score.weight (file 81x2, model 4x2)" in message
    assert "Likely cause: the file and the model have another number of classes" in message


def test_a_head_of_other_width_is_refused():
    state = copied(head(3)) | {"roi_heads.box_predictor.cls_score.weight": torch.ones(4, 7)}
    assert "cls_score.weight (file 4x7, model 4x2)" in refusal(head(3), state)


def test_a_head_that_is_named_starts_anew():
    model = head(3)
    before = copied(model)
    report = load_checked(model, head(3).state_dict(), source="w.pth", reinitialize=["roi_heads.box_predictor."])
    assert len(report.reinitialized) == 4
    assert "asked for" in report.details()
    name = "roi_heads.box_predictor.cls_score.weight"
    assert torch.equal(model.state_dict()[name], before[name])


def test_a_missing_head_is_refused_unless_named():
    state = {name: value for name, value in head(3).state_dict().items() if name.startswith("body")}
    assert "missing roi_heads.box_predictor.cls_score.weight" in refusal(head(3), state)
    assert load_checked(head(3), state, source="w.pth", reinitialize=["roi_heads."]).ratio == 1.0


def detector(*overrides, classes=3):
    small = ["model.backbone.name=nano", "model.backbone.norm=gn", "model.neck.channels=8", "model.box_head.fc_dim=8"]
    return build_model(load_config(overrides=[*small, "model.backbone.frozen_stages=0", *overrides]).model, classes)


MASK = "model.mask_head={name: fcn, channels: 8}"


def starting_anew(model, file):
    report = load_checked(model, detector(*file).state_dict(), source="w.pth", new_classes=True)
    return {name.removeprefix("roi_heads.").rpartition(".")[0] for name in report.reinitialized}


def test_new_classes_start_the_last_layers_of_all_heads_anew():
    boxes = {"box_predictor.cls_score", "box_predictor.bbox_pred"}
    assert starting_anew(detector(MASK), (MASK,)) == boxes | {"mask_head.predictor"}
    cascade = "model.cascade={ious: [0.5, 0.6], delta_weights: [[10, 10, 5, 5], [20, 20, 10, 10]]}"
    assert starting_anew(detector(cascade), (cascade,)) == {f"box_predictor.{stage}.cls_score" for stage in range(2)}


def test_another_number_of_classes_starts_the_masks_anew_as_well():
    model, other = detector(MASK, classes=5), detector(MASK)
    report = load_checked(model, other.state_dict(), source="w.pth")
    assert {name for name in report.reinitialized if "mask" in name} == {
        f"roi_heads.mask_head.predictor.{kind}" for kind in ("weight", "bias")
    }
    kept = "roi_heads.mask_head.deconv.weight"
    torch.testing.assert_close(model.state_dict()[kept], other.state_dict()[kept])


@pytest.mark.parametrize("required", [0.99, 0.5])
def test_a_mask_head_on_one_side_only_is_refused_however_few_its_tensors_are(required):
    with_masks, without = detector(MASK), detector()
    message = refusal(with_masks, without.state_dict(), required=required)
    assert message.endswith(
        "no mask head; set model.mask_head=null, or take its backbone alone by model.backbone.weights"
    )
    message = refusal(without, with_masks.state_dict(), required=required)
    assert message.endswith("the file has a mask head and the model none; set model.mask_head.name=fcn")
    report = load_checked(
        with_masks, without.state_dict(), source="w.pth", required=required, reinitialize=["roi_heads.mask_head."]
    )
    assert len(report.reinitialized) == 12


def test_tensors_of_several_modules_are_one_target():
    first, second = nn.ModuleDict({"layer3": numbered(1)}), nn.ModuleDict({"layer4": numbered(1)})
    state = {"layer3.0.weight": torch.full((2, 2), 3.0), "layer4.0.weight": torch.full((2, 2), 4.0)}
    _ = load_checked(first, state, source="w.pth", also=[second])
    torch.testing.assert_close(second.state_dict()["layer4.0.weight"], torch.full((2, 2), 4.0))


def test_the_cause_is_a_prefix():
    state = {f"student.{name}": value for name, value in numbered(3).state_dict().items()}
    assert "Likely cause: the file's names carry the prefix 'student.'" in refusal(numbered(3), state)
    wrapped = nn.ModuleDict({"net": numbered(3)})
    assert "Likely cause: the file's names lack the prefix 'net.'" in refusal(wrapped, numbered(3).state_dict())


def test_the_cause_is_the_norm():
    norms = nn.Sequential(*(nn.GroupNorm(1, 2) for _ in range(3)))
    batch = nn.Sequential(*(nn.BatchNorm2d(2) for _ in range(3)))
    assert "another normalization (only the file has batch statistics)" in refusal(norms, batch.state_dict())
    assert "another normalization (only the model has batch statistics)" in refusal(batch, norms.state_dict())


def test_the_cause_is_a_classifier_alone():
    state = {"fc.weight": torch.ones(2, 2), "fc.bias": torch.ones(2)}
    assert "a classifier without its backbone" in refusal(numbered(3), state)


@pytest.mark.parametrize(
    ("name", "known", "says"),
    [
        ("resnet18", "resnet18", "ResNet-18 "),
        ("resnet34", "resnet34", "ResNet-34 "),
        ("resnet50", "resnet50", "ResNet-50 "),
        ("resnet101", "resnet101", "ResNet-101 (its stages have 3, 4, 23, 3 blocks)"),
        ("resnet152", "resnet152", "ResNet-152 "),
        ("vgg16", "vgg16", "VGG-16"),
        ("vgg19_bn", "vgg19_bn", "VGG-19 with batch norm"),
        ("resnext50_32x4d", "resnext50_32x4d", "ResNeXt with 32 groups"),
        ("wide_resnet101_2", "wide_resnet101_2", "Wide ResNet-101"),
        ("mobilenet_v2", None, None),
    ],
)
def test_families_are_known_by_their_tensors(name, known, says):
    import torchvision

    with torch.device("meta"):
        model = getattr(torchvision.models, name)()
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    found = network(shapes)
    assert (found and found.architecture()) == known
    assert (found.text() if found else "None").startswith(str(says))
