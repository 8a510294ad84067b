"""Laws of what `config.test` puts around a detector: each part with nothing to do changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from resdet.config import Config, load_config
from resdet.errors import UserError
from resdet.models.build.detector import build_model
from resdet.models.rcnn import RCNN
from resdet.models.second_stage.detections import suppressed
from resdet.ops.box_coder import BoxCoder
from resdet.ops.boxes import is_nonempty
from resdet.structures import Batch, Detections, Proposals
from resdet.test_time.augmentation import AugmentedDetector
from resdet.test_time.build import build_detector
from resdet.test_time.ensemble import mean_boxes
from resdet.test_time.refinement import moved, union
from resdet.test_time.region_detector import RegionDetector
from resdet.test_time.views import mirrored, mirrored_boxes

NANO = Path(__file__).parents[2] / "configs/nano.yaml"
CLASSES = 4
SIZES = torch.tensor([[64, 64], [50, 60]])


def nano(*overrides: str) -> Config:
    return load_config(NANO, overrides=["model.box_head.score_threshold=0.0", *overrides])


# Every law holds for a plain head, for a cascade, and for one that sees the whole image as well.
STAGES = {"plain": [], "cascade": ["model.cascade={}"],
    "context": ["model.cascade={}", "model.box_head.global_context=true"]}  # fmt: skip


def detector(config: Config, seed: int = 0) -> RCNN:
    """With random weights, whose scores and boxes differ from region to region."""
    _ = torch.manual_seed(seed)
    model = build_model(config.model, CLASSES)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "cls_score.weight" in name or "cls_logits.weight" in name:
                _ = parameter.normal_(std=0.5)
            if name.startswith("roi_heads") and "bbox_pred.weight" in name:
                _ = parameter.normal_(std=0.1)
    return model.eval()


@pytest.fixture(scope="module", params=STAGES)
def stages(request: pytest.FixtureRequest) -> list[str]:
    return STAGES[request.param]


@pytest.fixture(scope="module")
def model(stages: list[str]) -> RCNN:
    return detector(nano(*stages))


@pytest.fixture(scope="module")
def batch() -> Batch:
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Batch(images, SIZES)


def assert_same(ours: Detections, expected: Detections, atol: float = 1e-3) -> None:
    assert expected.valid.any()
    for name, value in vars(expected).items():
        assert_close(getattr(ours, name), value, atol=atol, rtol=1e-4, msg=name)


def test_without_any_part_it_is_the_model_itself(model: RCNN, batch: Batch) -> None:
    assert build_detector([model], nano()) is model
    assert_same(RegionDetector([model]).predict(batch), model.predict(batch))


@pytest.mark.parametrize("layout", ["fpn", "c4"])
def test_one_scale_of_maxout_is_plain_prediction(layout: str, batch: Batch) -> None:
    backbone = [] if layout == "fpn" else ["model.backbone.name=resnet18", "model.anchors.sizes=[32, 64]"]
    config = nano(f"model.neck.name={layout}", "test.scales=[64]", *backbone)
    model = detector(config)
    assert_same(build_detector([model], config).predict(batch), model.predict(batch))


def test_an_ensemble_of_a_model_with_itself_is_the_model(model: RCNN, batch: Batch) -> None:
    assert_same(build_detector([model, model], nano()).predict(batch), model.predict(batch))


def test_an_ensemble_does_not_depend_on_the_order_of_its_members(stages: list[str], batch: Batch) -> None:
    first, second = detector(nano(*stages)), detector(nano(), seed=1)
    assert_same(RegionDetector([first, second]).predict(batch), RegionDetector([second, first]).predict(batch))


def test_a_class_agnostic_detector_joins_one_with_boxes_for_each_class(model: RCNN, batch: Batch) -> None:
    other = detector(nano("model.box_head.class_agnostic=true"))
    assert RegionDetector([model, other]).predict(batch).valid.any()


def test_augmentation_by_the_identity_is_plain_prediction(model: RCNN, batch: Batch) -> None:
    augmented = build_detector([model], nano("test.augmentation.flip=false"))
    assert isinstance(augmented, AugmentedDetector)
    assert_same(augmented.predict(batch), model.predict(batch))


def test_flip_augmentation_of_mirrored_images_finds_the_mirrored_boxes(model: RCNN, batch: Batch) -> None:
    augmented = build_detector([model], nano("test.augmentation.flip=true"))
    here, there = augmented.predict(batch), augmented.predict(mirrored(batch))
    back = mirrored_boxes(there.boxes, SIZES) * there.valid[..., None]
    assert_same(replace(there, boxes=back), here)


def test_boxes_of_larger_views_come_back_into_the_image(model: RCNN, batch: Batch) -> None:
    found = build_detector([model], nano("test.augmentation.short_sides=[32, 128]")).predict(batch)
    assert found.valid.any(dim=1).all()
    assert (found.boxes[..., 2:] <= SIZES.flip(-1)[:, None] + 1e-3).all()
    assert found.boxes[..., 2].max() > 50, "not those of the small view as they were"


def test_refinement_without_deltas_changes_nothing(batch: Batch) -> None:
    """Of a plain head: the last stage of a cascade alone scores otherwise than the mean of its stages."""
    model = detector(nano())
    with torch.no_grad():
        for parameter in ("weight", "bias"):
            _ = model.get_parameter(f"roi_heads.box_predictor.bbox_pred.{parameter}").zero_()
    own = nano().model.box_head
    assert own is not None
    refined = build_detector([model], nano(f"test.refinement.nms_iou={own.nms_iou}"))
    assert_same(refined.predict(batch), model.predict(batch))


def test_a_cascade_looks_again_with_its_last_stage_at_the_boxes_it_has_found(batch: Batch) -> None:
    """The candidates of a refined cascade: those of all stages, then those of the last stage at the boxes found."""
    model = detector(nano("model.cascade={}"))
    heads = model.roi_heads
    assert heads is not None
    features = model.neck(model.backbone(model.normalized(batch)))
    proposals = model.rpn.proposals(model.rpn(features), SIZES, model.test_limits)
    probabilities, boxes = heads(features, proposals.boxes, SIZES)
    again = moved(proposals, probabilities, boxes, SIZES)
    last = heads.stages[-1]
    logits, deltas = last.box_predictor(last.box_head(heads.pooler(features, again.boxes)))
    shape = again.scores.shape
    second = last.box_coder.decode(deltas.unflatten(0, shape), again.boxes[:, :, None])
    candidates = union(
        heads.candidates(probabilities, boxes, proposals, SIZES),
        heads.candidates(logits.softmax(-1).unflatten(0, shape), second, again, SIZES),
    )
    expected = suppressed(candidates, replace(heads.limits, nms_iou=0.3))
    assert_same(RegionDetector([model], refinement_iou=0.3).predict(batch), expected)


def test_a_proposal_moves_to_the_box_of_its_most_probable_class() -> None:
    proposals = Proposals(torch.tensor([[[0.0, 0.0, 10.0, 20.0]]]), torch.zeros(1, 1), torch.ones(1, 1).bool())
    boxes = torch.tensor([[[[0.0, 0, 10, 20], [5, 0, 15, 20]]]])
    sizes = torch.tensor([[64, 12]])
    second = moved(proposals, torch.tensor([[[0.1, 0.3, 0.6]]]), boxes, sizes)
    assert second.boxes.tolist() == [[[5, 0, 12, 20]]], "clipped to the image"
    first = moved(proposals, torch.tensor([[[0.3, 0.1, 0.6]]]), boxes, sizes)
    assert first.boxes.tolist() == [[[0, 0, 10, 20]]]
    only = moved(proposals, torch.tensor([[[0.1, 0.3, 0.6]]]), boxes[:, :, :1], sizes)
    assert only.boxes.tolist() == [[[0, 0, 10, 20]]], "one box for all classes"


def test_a_proposal_that_is_moved_to_no_box_is_padding() -> None:
    proposals = Proposals(torch.tensor([[[0.0, 0.0, 10.0, 20.0]]]), torch.zeros(1, 1), torch.ones(1, 1).bool())
    nowhere = torch.full((1, 1, 1, 4), float("nan"))
    again = moved(proposals, torch.tensor([[[0.9, 0.1]]]), nowhere, torch.tensor([[64, 64]]))
    assert (again.boxes.tolist(), again.valid.tolist()) == ([[[0, 0, 0, 0]]], [[False]])


def test_the_mean_of_boxes_is_that_of_their_deltas_from_any_region() -> None:
    generator = torch.Generator().manual_seed(0)
    corner, side = torch.rand(3, 2, 5, 4, 2, generator=generator) * 40, torch.rand(3, 2, 5, 4, 2, generator=generator)
    boxes = torch.cat([corner, corner + 1 + side * 20], dim=-1)
    for weights in ((10.0, 10.0, 5.0, 5.0), (30.0, 30.0, 15.0, 15.0)):
        coder, regions = BoxCoder(weights), torch.tensor([10.0, 10, 50, 30]).expand(2, 5, 4, 4)
        deltas = torch.stack([coder.encode(each, regions) for each in boxes]).mean(0)
        assert_close(mean_boxes(list(boxes)), coder.decode(deltas, regions), atol=1e-4, rtol=0)
    assert_close(mean_boxes([boxes[0]]), boxes[0], atol=0, rtol=0)
    assert mean_boxes([boxes[0], boxes[1][:, :, :1]]).shape == boxes[0].shape


def test_the_mean_with_an_empty_box_is_empty() -> None:
    box, empty = torch.tensor([[[[0.0, 0, 10, 10]]]]), torch.tensor([[[[4.0, 4, 4, 9]]]])
    assert not is_nonempty(mean_boxes([box, empty])).any()


def test_the_union_holds_all_of_both() -> None:
    box = torch.tensor([[[0.0, 0, 1, 1]]])
    one = Detections(box, torch.tensor([[0.5]]), torch.tensor([[1]]), torch.tensor([[True]]))
    assert union(one, one).boxes.shape == (1, 2, 4)
    assert union(one, one, one).labels.tolist() == [[1, 1, 1]]


ALL = ("test.refinement.nms_iou=0.3", "test.voting.iou=0.5", "test.scales=[48, 64, 96]", "test.augmentation.flip=true")


@pytest.mark.parametrize("part", [*ALL, "test.augmentation.short_sides=[48, 64]"])
def test_a_batch_of_many_gives_what_batches_of_one_give(part: str, model: RCNN, batch: Batch) -> None:
    config = nano(part)
    prepared = build_detector([model], config)
    together = prepared.predict(batch)
    for image in range(2):
        alone = prepared.predict(Batch(batch.images[image : image + 1], SIZES[image : image + 1]))
        expected = {name: value[image : image + 1] for name, value in vars(together).items() if value is not None}
        assert_same(alone, Detections(**expected), atol=1e-2)


def test_all_parts_go_together_and_masks_are_kept(stages: list[str], batch: Batch) -> None:
    masks = ("model.mask_head.convs=1", "model.mask_head.channels=8")
    config = nano(*masks, *stages, *ALL)
    model = detector(config)
    found = build_detector([model, detector(config, seed=1)], config).predict(batch)
    assert found.masks is not None
    assert found.masks.shape == (*found.scores.shape, 28, 28)
    assert (found.masks[found.valid] > 0).all()
    plain = build_detector([model], nano("test.augmentation.flip=false")).predict(batch)
    assert_same(plain, model.predict(batch))


def test_all_parts_go_with_conv5_as_the_head(batch: Batch) -> None:
    c4 = ("model.neck.name=c4", "model.backbone.name=resnet18", "model.anchors.sizes=[32, 64]")
    few = ("model.rpn.proposals_test=8", "model.box_head.detections=8")  # conv5 runs on each of them 16 times
    config = nano(*c4, *few, "model.box_head.resolution=7", "model.mask_head.channels=8", *ALL)
    model = detector(config)
    found = build_detector([model, detector(config, seed=1)], config).predict(batch)
    assert found.masks is not None
    assert found.valid.any()
    assert (found.masks[found.valid] > 0).all()
    assert (found.boxes[..., 2:] <= SIZES.flip(-1)[:, None] + 1e-3).all()


def test_a_detector_with_masks_and_one_without_are_no_ensemble(model: RCNN, batch: Batch) -> None:
    masks = detector(nano("model.mask_head.convs=1", "model.mask_head.channels=8"))
    with pytest.raises(UserError, match="different masks"):
        _ = RegionDetector([masks, model]).predict(batch)


def test_a_first_stage_alone_and_a_net_of_another_kind_are_refused() -> None:
    config = load_config(NANO, overrides=["model.box_head=null", "test.voting.iou=0.5"])
    for net, reason in ((build_model(config.model, CLASSES), r"has none \(model.box_head=null\)"), (nn.ReLU(), "ReLU")):
        with pytest.raises(UserError, match=f"detectors with a second stage; this one.*{reason}") as refusal:
            _ = build_detector([net], config)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["test.scales=[48, 64]", "test.augmentation.short_sides=[48]"], "leave one out"),
        (["test.scales=[]"], r"test.scales=\[\] is empty"),
        (["test.scales=[64, 100000]"], r"test.scales=\[64, 100000\]: enlarges images more than 8 times"),
        (["test.augmentation.short_sides=[100000]"], r"test.augmentation.short_sides=\[100000\]: enlarges images"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(overrides: list[str], message: str, model: RCNN) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        _ = build_detector([model], nano(*overrides))
    assert "\n" not in str(refusal.value)


def test_parts_are_absent_unless_given_and_have_the_papers_numbers() -> None:
    assert nano().test == load_config().test
    parts = ("refinement", "voting", "scales", "augmentation", "soft_nms", "fusion")
    assert vars(load_config().test) == {**dict.fromkeys(parts), "crops": "center", "compile": False}
    given = load_config(overrides=["test.refinement={}", "test.voting={}"]).test
    assert (given.refinement, given.voting) != (None, None)
    assert given.refinement is not None
    assert given.voting is not None
    assert (given.refinement.nms_iou, given.voting.iou) == (0.3, 0.5)
    assert load_config(overrides=["test.voting.iou=0.4", "test.voting=null"]).test.voting is None
