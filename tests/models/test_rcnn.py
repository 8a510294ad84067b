"""Laws that hold for every detector: nothing depends on an image's neighbours in its batch."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from resdet.config import ModelConfig, load_config
from resdet.models.build.detector import build_model
from resdet.models.rcnn import RCNN
from resdet.structures import Batch, Detections, Targets

CLASSES = 5


def small_config(
    backbone: str = "nano", norm: Literal["frozen_bn", "bn", "sync_bn", "gn"] = "gn", layout: str = "fpn"
) -> ModelConfig:
    config = load_config().model
    assert config.box_head is not None
    config.neck.name = layout
    config.backbone.name, config.backbone.norm, config.backbone.frozen_stages = backbone, norm, 0
    config.neck.channels, config.box_head.fc_dim = 16, 32
    config.rpn.pre_nms_train = config.rpn.pre_nms_test = 100
    config.rpn.proposals_train = config.rpn.proposals_test = 50
    config.rpn.batch_size_per_image, config.box_head.batch_size_per_image = 64, 32
    config.box_head.score_threshold = 0.0
    return config


def small_model(
    backbone: str = "nano", norm: Literal["frozen_bn", "bn", "sync_bn", "gn"] = "gn", layout: str = "fpn"
) -> RCNN:
    _ = torch.manual_seed(0)
    model = build_model(small_config(backbone, norm, layout), CLASSES)
    with torch.no_grad():  # scores and boxes that differ, so that orders are stable and detections plenty
        _ = model.get_parameter("roi_heads.box_predictor.cls_score.weight").normal_(std=0.5)
        _ = model.rpn.head.cls_logits.weight.normal_(std=0.5)
        _ = model.rpn.head.bbox_pred.weight.normal_(std=0.1)
    return model


def random_batch(objects: list[int], size: tuple[int, int] = (96, 128)) -> Batch:
    """One image for each entry, with that many objects."""
    count, generator = len(objects), torch.Generator().manual_seed(3)
    corner = torch.rand(count, 8, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + 10 + torch.rand(count, 8, 2, generator=generator) * 30], dim=-1)
    valid = torch.arange(8) < torch.tensor(objects)[:, None]
    labels = torch.randint(0, CLASSES, (count, 8), generator=generator)
    targets = Targets(boxes * valid[..., None], labels * valid, torch.zeros_like(valid), valid, torch.arange(count))
    images = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator)
    sizes = torch.tensor([[96 - 8 * i, 100 + 7 * i] for i in range(count)])
    return Batch(images, sizes, targets)


def reordered(batch: Batch, order: list[int]) -> Batch:
    assert batch.targets is not None
    targets = Targets(**{name: value[order] for name, value in vars(batch.targets).items() if value is not None})
    return Batch(batch.images[order], batch.sizes[order], targets)


def fields(detections: Detections) -> dict[str, Tensor]:
    return {name: value for name, value in vars(detections).items() if value is not None}


@pytest.mark.parametrize(("backbone", "layout"), [("nano", "fpn"), ("resnet18", "c4")])
def test_permuting_the_images_permutes_the_detections(backbone: str, layout: str) -> None:
    model, batch, order = small_model(backbone, layout=layout).eval(), random_batch([1, 2, 3]), [2, 0, 1]
    detections, permuted = model.predict(batch), model.predict(reordered(batch, order))
    assert detections.valid.any(dim=1).all()
    for name, value in fields(detections).items():
        assert_close(fields(permuted)[name], value[order], atol=1e-3, rtol=1e-4)


def test_a_batch_of_many_gives_what_batches_of_one_give() -> None:
    model, batch = small_model().eval(), random_batch([1, 2, 3])
    together = model.predict(batch)
    for image in range(3):
        alone = model.predict(reordered(batch, [image]))
        for name, value in fields(together).items():
            assert_close(fields(alone)[name], value[image : image + 1], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("backbone", "layout"), [("nano", "fpn"), ("resnet18", "c4")])
def test_permuting_the_images_leaves_the_losses_unchanged(backbone: str, layout: str) -> None:
    """Sampling depends on the seed of each image, not on its place in the batch."""
    model, batch = small_model(backbone, layout=layout), random_batch([1, 0, 3])
    for name, loss in model(reordered(batch, [2, 0, 1])).items():
        assert_close(loss, model(batch)[name], atol=1e-5, rtol=1e-5)


def test_other_seeds_sample_other_regions() -> None:
    model, batch = small_model(), random_batch([3, 3])
    assert batch.targets is not None
    other = Targets(**{**vars(batch.targets), "seeds": batch.targets.seeds + 100})
    changed = Batch(batch.images, batch.sizes, other)
    assert model(batch)["loss_objectness"] != model(changed)["loss_objectness"]


def test_empty_ground_truth_slots_do_not_matter() -> None:
    model, batch = small_model(), random_batch([2, 1])
    assert batch.targets is not None
    longer = {
        n: torch.cat([v, v.new_zeros(2, 24, *v.shape[2:])], 1)
        for n, v in vars(batch.targets).items()
        if v is not None and v.ndim > 1
    }
    more = Batch(batch.images, batch.sizes, Targets(**longer, seeds=batch.targets.seeds))
    rpn = [model.rpn.losses(model.rpn(features(model, b)), b.targets, b.sizes) for b in (batch, more) if b.targets]
    for losses in zip(*(loss.values() for loss in rpn), strict=True):
        assert_close(losses[0].value, losses[1].value)


def features(model: RCNN, batch: Batch) -> list[Tensor]:
    return model.neck(model.backbone(model.normalized(batch)))


def drawn_batch() -> Batch:
    """Two images with two bright rectangles each, on grey."""
    boxes = torch.zeros(2, 8, 4)
    boxes[0, :2] = torch.tensor([[8.0, 10, 40, 50], [60, 30, 95, 80]])
    boxes[1, :2] = torch.tensor([[30.0, 8, 90, 40], [20, 50, 50, 90]])
    images = torch.full((2, 3, 96, 128), 100, dtype=torch.uint8)
    for image, image_boxes in zip(images, boxes.long().tolist(), strict=True):
        for colour, (x1, y1, x2, y2) in enumerate(image_boxes[:2]):
            image[colour, y1:y2, x1:x2] = 250
    valid = torch.arange(8).expand(2, -1) < 2
    labels = torch.arange(8).expand(2, -1) * valid
    sizes = torch.tensor([[96, 128], [92, 100]])
    return Batch(images, sizes, Targets(boxes, labels, ~valid & False, valid, torch.arange(2)))


@pytest.fixture(scope="module")
def trained() -> RCNN:
    """A small detector that finds both rectangles of each image of `drawn_batch`.

    How many updates that takes depends on the rounding of the processor.
    """
    _ = torch.manual_seed(0)
    model, batch = build_model(small_config(norm="bn"), CLASSES), drawn_batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for update in range(1, 1001):
        optimizer.zero_grad()
        _ = torch.stack(list(model.train()(batch).values())).sum().backward()
        _ = optimizer.step()
        if update % 50 == 0 and (model.eval().predict(batch).scores[:, 1] > 0.9).all():
            return model
    raise AssertionError("the detector does not find the rectangles after 1,000 updates")


@pytest.mark.parametrize(("right", "below"), [(32, 0), (0, 64), (96, 32)])
def test_padding_a_batch_further_moves_a_detection_by_less_than_a_pixel(trained: RCNN, right: int, below: int) -> None:
    """Padding is zero at the input, but what the image sends over its border in deep layers is cut off at the edge of
    the batch, so detections are not bit-equal: within 1 pixel and 0.02 in score.
    """
    batch = drawn_batch()
    wider = Batch(torch.nn.functional.pad(batch.images, (0, right, 0, below)), batch.sizes)
    near, far = trained.predict(batch), trained.predict(wider)
    assert (near.scores[:, 1] > 0.5).all(), "both rectangles are found"
    assert_close(far.labels[:, :2], near.labels[:, :2])
    assert_close(far.boxes[:, :2], near.boxes[:, :2], atol=1.0, rtol=0)
    assert_close(far.scores[:, :2], near.scores[:, :2], atol=0.02, rtol=0)


@pytest.mark.parametrize("objects", [[3, 2], [0, 0], [0, 4]], ids=["objects", "none", "half-empty"])
@pytest.mark.parametrize("backbone", ["nano", "resnet18", "vgg16"])
def test_every_trainable_parameter_gets_a_finite_gradient(backbone: str, objects: list[int]) -> None:
    model = small_model(backbone)
    losses = model(random_batch(objects))
    assert set(losses) == {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}
    _ = torch.stack(list(losses.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    if any(objects):
        assert all(parameter.grad.any() for parameter in model.neck.parameters() if parameter.grad is not None)


def test_the_padding_is_exactly_zero_after_normalization() -> None:
    model, batch = small_model(), random_batch([1, 1])
    images = model.normalized(batch)
    for image, (height, width) in zip(images, batch.sizes.tolist(), strict=True):
        assert not image[:, height:].any()
        assert not image[:, :, width:].any()
    expected = (batch.images[0, 0, 5, 7].float() - 123.675) / 58.395
    assert_close(images[0, 0, 5, 7], expected)
