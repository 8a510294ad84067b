"""The keys below `model.`: the parts of a detector. Lengths and sizes are in pixels of the resized image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from resdet.config.declare import FINITE, MANY, PIXELS, Group, key, part

Norm = Literal["none", "bn", "sync_bn", "gn"]


@dataclass
class BackboneConfig(Group):
    """The network that turns images into feature maps."""

    name: str = key("resnet50", help="resnet18 ... resnet152, vgg16, nano, ... (docs/backbones.md), or timm/<model>")
    weights: str | None = key(
        None, help="weights by name (IMAGENET1K_V1), a .pth or .safetensors file, or a run; null: from scratch"
    )
    norm: Literal["frozen_bn", "bn", "sync_bn", "gn", "none"] = key(
        "frozen_bn", help="normalization; families without any (vgg16) have none"
    )
    width: float = key(
        1.0, ge=0.05, le=8, help="factor on its channels, rounded to multiples of 8; of resnets, plain nets and vgg"
    )
    frozen_stages: int = key(
        2, ge=0, le=100, help="0: train all; 1: freeze the stem; 2: and the first stage; ... (Detectron's FREEZE_AT)"
    )


@dataclass
class NeckConfig(Group):
    """What joins the backbone's feature maps."""

    name: str = key(
        "fpn", help="fpn; pafpn; c4: conv5 (VGG: fc6, fc7) on each region; dc5: conv5 dilated, at stride 16"
    )
    channels: int = key(256, ge=1, le=MANY, help="of fpn and pafpn")
    norm: Norm = key("none", help="of fpn and pafpn")
    extra_levels: Literal["pool", "conv"] = key(
        "pool", help="of fpn and pafpn; pool: P6, every second cell of P5; conv: P6 and P7"
    )


@dataclass
class AnchorConfig(Group):
    """The boxes that the first stage starts from."""

    sizes: list[float] = key(
        [32.0, 64.0, 128.0, 256.0, 512.0],
        ge=1,
        le=PIXELS,
        length=(1, 100),
        help="fpn and pafpn: one a level, from the finest; c4 and dc5: all of them on the one level",
    )
    ratios: list[float] = key([0.5, 1.0, 2.0], ge=0.001, le=1000, length=(1, 100), help="height over width")
    rounded: bool | None = key(
        None, help="corners rounded to whole pixels, as torchvision does; null: as model.weights, else false"
    )


@dataclass
class RPNConfig(Group):
    """The region proposal network, the first stage (Ren et al. 2015)."""

    convs: int = key(1, ge=1, le=100, help="3x3 convolutions before the two predictions")
    per_class: bool = key(
        False, help="a score and a box for each class (He et al. 2015, appendix C); with model.box_head=null"
    )
    batch_size_per_image: int = key(256, ge=1, le=MANY, help="anchors an image that the losses are computed on")
    positive_fraction: float = key(0.5, ge=0, le=1, help="the largest share of foreground among them")
    foreground_iou: float = key(0.7, ge=0, le=1, help="anchors that overlap an object as much are foreground")
    background_iou: float = key(0.3, ge=0, le=1, help="anchors that overlap every object less are background")
    pre_nms_train: int = key(2000, ge=1, le=MANY, help="candidates a level before NMS, in training")
    pre_nms_test: int = key(1000, ge=1, le=MANY, help="candidates a level before NMS, in prediction")
    proposals_train: int = key(2000, ge=1, le=MANY, help="proposals an image after NMS, in training")
    proposals_test: int = key(1000, ge=1, le=MANY, help="proposals an image after NMS, in prediction")
    nms_iou: float = key(0.7, ge=0, le=1, help="of two proposals that overlap more the lower is dropped")
    box_loss: str = key("smooth_l1", help="smooth_l1: on deltas; giou, ciou: on the boxes they lead to")
    smooth_l1_beta: float = key(0.0, ge=0, le=FINITE, help="where smooth_l1 becomes linear; 0 is plain L1")
    box_loss_weight: float = key(1.0, ge=0, le=FINITE, help="factor on the box loss")
    cross_boundary: float | None = key(
        None, ge=0, le=PIXELS, help="pixels by which an anchor in the losses may leave the image (0 in the paper)"
    )


@dataclass
class BoxHeadConfig(Group):
    """The second stage: a class and a better box for each proposal."""

    name: str = key("two_fc", help="two_fc; four_conv_fc; with c4 the backbone's last layers are the head")
    norm: Norm = key("none", help="of four_conv_fc")
    pooling: Literal["roi_align", "roi_pool"] = key("roi_align", help="how the features of a region are read")
    batch_size_per_image: int = key(512, ge=1, le=MANY, help="regions an image that the losses are computed on")
    positive_fraction: float = key(0.25, ge=0, le=1, help="the largest share of foreground among them")
    foreground_iou: float = key(0.5, ge=0, le=1, help="regions that overlap an object as much are foreground")
    background_iou_low: float = key(
        0.0, ge=0, le=1, help="background regions that overlap less are left out of the losses (Fast R-CNN: 0.1)"
    )
    resolution: int = key(
        7, ge=1, le=1000, help="bins a side; c4 with a ResNet: 14 with conv5's stride of 2, 7 without it"
    )
    sampling_ratio: int | None = key(
        None,
        ge=0,
        le=100,
        help="samples a bin side; 0: as many as the bin is cells wide; null: as model.weights, else 2",
    )
    aligned: bool | None = key(
        None, help="half-pixel correction of RoIAlign (Detectron2); null: as model.weights, else true"
    )
    fc_dim: int = key(1024, ge=1, le=MANY, help="features of the fully connected layers")
    global_context: bool = key(False, help="the whole image's vector is joined to that of each region (He et al. 2015)")
    classification_loss: Literal["cross_entropy", "focal"] = key(
        "cross_entropy", help="focal: (1 - p)^focal_gamma times cross_entropy, of the same softmax"
    )
    focal_gamma: float = key(2.0, ge=0, le=1000, help="exponent of the focal loss")
    class_weights: list[float] | None = key(
        None, ge=0, le=FINITE, length=(1, MANY), help="factors on the loss, one a class; one more for the background"
    )
    class_agnostic: bool = key(False, help="one box a region instead of one a class")
    box_loss: str = key("smooth_l1", help="smooth_l1: on deltas; giou, ciou: on the boxes they lead to")
    smooth_l1_beta: float = key(0.0, ge=0, le=FINITE, help="where smooth_l1 becomes linear; 0 is plain L1")
    box_loss_weight: float = key(1.0, ge=0, le=FINITE, help="factor on the box loss")
    score_threshold: float = key(0.05, ge=0, le=1, help="detections with a lower score are dropped")
    nms_iou: float = key(0.5, ge=0, le=1, help="of two detections of a class that overlap more the lower is dropped")
    detections: int = key(100, ge=1, le=MANY, help="kept an image")


@dataclass
class CascadeConfig(Group):
    """A box head for each overlap, on the boxes of the one before (Cai & Vasconcelos 2018).

    All are as `box_head` says, but with class-agnostic boxes; the overlaps take the place of its `foreground_iou`.
    """

    ious: list[float] = key(
        [0.5, 0.6, 0.7], ge=0, le=1, length=(1, 100), help="for each stage the overlap that makes a region foreground"
    )
    delta_weights: list[list[float]] = key(
        [[10.0, 10.0, 5.0, 5.0], [20.0, 20.0, 10.0, 10.0], [30.0, 30.0, 15.0, 15.0]],
        gt=0,
        le=FINITE,
        length=(1, 100),
        item_length=4,
        help="for each stage factors on dx, dy, dw and dh",
    )


@dataclass
class MaskHeadConfig(Group):
    """The fully convolutional mask branch (He et al. 2017); with c4 it works on what the box head made of a region."""

    name: Literal["fcn"] = key("fcn", help="the kind of mask head")
    convs: int | None = key(None, ge=0, le=100, help="3x3 convolutions before the upsampling; null: 4, with c4 none")
    channels: int | None = key(
        None, ge=1, le=MANY, help="of the layers before the masks; null: as many as model.neck.channels"
    )
    norm: Norm = key("none", help="of its convolutions")
    resolution: int = key(
        14, ge=1, le=1000, help="bins a side of a region, half of the mask's; with c4 it follows from the box head"
    )
    sampling_ratio: int | None = key(None, ge=0, le=100, help="samples a bin side; null: as model.weights, else 2")
    class_agnostic: bool = key(False, help="one mask for all classes")


@dataclass
class ClassifierConfig(Group):
    """The layers behind the backbone with task=classification."""

    name: Literal["pool", "two_fc", "timm"] = key(
        "pool", help="a global average pool; two_fc: fc6 and fc7 of a VGG; timm: a timm/ model's own, whole"
    )
    fc_dim: int = key(4096, ge=1, le=MANY, help="of two_fc: features of each of the two layers")


@dataclass
class ModelConfig(Group):
    """The detector, or with task=classification the backbone with the layers of an image classifier."""

    backbone: BackboneConfig = part(BackboneConfig)
    neck: NeckConfig = part(NeckConfig)
    anchors: AnchorConfig = part(AnchorConfig)
    rpn: RPNConfig = part(RPNConfig)
    box_head: BoxHeadConfig | None = part(BoxHeadConfig)  # null: the first stage alone
    cascade: CascadeConfig | None = None  # model.cascade.ious=[0.5,0.6,0.7] makes it a Cascade R-CNN; not with c4
    mask_head: MaskHeadConfig | None = None  # model.mask_head.name=fcn makes a Faster R-CNN a Mask R-CNN
    classifier: ClassifierConfig = part(ClassifierConfig)
    num_classes: int | None = key(None, ge=1, le=MANY, help="null: as many as the data has")
    weights: str | None = key(None, help="a whole detector to start from: a run, a checkpoint or a file")
    pixel_mean: list[float] | None = key(
        None, ge=0, le=255, length=(3, 3), help="R, G, B of 0..255; null: that of the backbone and its weights"
    )
    pixel_std: list[float] | None = key(
        None, ge=0.001, le=1000, length=(3, 3), help="R, G, B of 0..255; null: that of the backbone and its weights"
    )


def has_no_classes(model: ModelConfig) -> bool:
    """Whether the detector is a first stage alone, whose proposals have no classes."""
    return model.box_head is None and not model.rpn.per_class
