"""The whole configuration as one typed tree; its defaults are the papers' 1x recipe on COCO 2017.

A config file is YAML data and never runs code. Files are merged left to right over the defaults, then
`key=value` overrides; an unknown key is an error with a suggestion. Only `build.py`, `loader.py` and the
floors above them read these classes: modules take parts and numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml.composer import ComposerError

from resdet.errors import UserError, did_you_mean


@dataclass
class BackboneConfig:
    name: str = "resnet50"  # a key of models.backbones.BACKBONES, or timm/<model>
    weights: str | None = None  # torchvision weights by name (IMAGENET1K_V1), or a .pth / .safetensors file
    norm: str = "frozen_bn"  # frozen_bn | bn | sync_bn | gn | none; families without normalisation (vgg16) have none
    frozen_stages: int = 2  # 0: train all; 1: freeze the stem; 2: and the first stage; ... (Detectron's FREEZE_AT)


@dataclass
class NeckConfig:
    name: str = "fpn"  # fpn | pafpn | c4: conv5 (VGG: fc6, fc7) on each region | dc5: conv5 dilated, at stride 16
    channels: int = 256  # of fpn and pafpn
    norm: str = "none"  # of fpn and pafpn: none | bn | sync_bn | gn
    extra_levels: str = "pool"  # of fpn and pafpn: pool (P6, every second cell of P5) | conv (P6 and P7)


@dataclass
class AnchorConfig:
    # Pixels; fpn and pafpn: one a level, from the finest; c4 and dc5: all of them on the one level.
    sizes: list[float] = field(default_factory=lambda: [32.0, 64.0, 128.0, 256.0, 512.0])
    ratios: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0])  # height over width
    rounded: bool = False  # corners rounded to whole pixels, as torchvision does


@dataclass
class RPNConfig:
    convs: int = 1  # 3x3 convolutions before the two predictions
    batch_size_per_image: int = 256
    positive_fraction: float = 0.5
    foreground_iou: float = 0.7
    background_iou: float = 0.3
    pre_nms_train: int = 2000  # candidates a level before NMS
    pre_nms_test: int = 1000
    proposals_train: int = 2000  # proposals an image after NMS
    proposals_test: int = 1000
    nms_iou: float = 0.7
    box_loss: str = "smooth_l1"  # smooth_l1 | giou | ciou: on deltas, or on the boxes they lead to
    smooth_l1_beta: float = 0.0  # 0 is plain L1
    box_loss_weight: float = 1.0
    cross_boundary: float | None = None  # pixels by which an anchor that teaches may leave the image (0: in the paper)


@dataclass
class BoxHeadConfig:
    name: str = "two_fc"  # two_fc | four_conv_fc; with c4 the backbone's last layers are the head
    norm: str = "none"  # of four_conv_fc: none | bn | sync_bn | gn
    pooling: str = "roi_align"  # roi_align | roi_pool
    batch_size_per_image: int = 512
    positive_fraction: float = 0.25
    foreground_iou: float = 0.5
    background_iou_low: float = 0.0  # regions that overlap less teach nothing (Fast R-CNN: 0.1)
    resolution: int = 7  # bins a side; c4 with a ResNet: 14 with conv5's stride of 2, 7 without it
    sampling_ratio: int = 2  # samples a bin side; 0: adaptive, as many as the bin is pixels wide
    aligned: bool = True  # half-pixel correction of RoIAlign (Detectron2); torchvision's detectors use False
    fc_dim: int = 1024
    global_context: bool = False  # the whole image's vector joined to that of each region (He et al. 2015)
    classification_loss: str = "cross_entropy"  # cross_entropy | focal: (1 - p)^gamma times it, of the same softmax
    focal_gamma: float = 2.0
    class_weights: list[float] | None = None  # factors on the loss, one a class; a last one more for the background
    class_agnostic: bool = False  # one box a region instead of one a class
    box_loss: str = "smooth_l1"  # smooth_l1 | giou | ciou: on deltas, or on the boxes they lead to
    smooth_l1_beta: float = 0.0
    box_loss_weight: float = 1.0
    score_threshold: float = 0.05
    nms_iou: float = 0.5
    detections: int = 100  # kept an image


@dataclass
class CascadeConfig:
    """A box head for each overlap, on the boxes of the one before (Cai & Vasconcelos 2018).

    All are as `box_head` says, but with class-agnostic boxes; the overlaps take the place of its `foreground_iou`.
    """

    ious: list[float] = field(default_factory=lambda: [0.5, 0.6, 0.7])  # a stage's foreground overlaps as much
    delta_weights: list[list[float]] = field(  # of each stage: factors on dx, dy, dw, dh
        default_factory=lambda: [[10.0, 10.0, 5.0, 5.0], [20.0, 20.0, 10.0, 10.0], [30.0, 30.0, 15.0, 15.0]]
    )


@dataclass
class MaskHeadConfig:
    """The fully convolutional mask branch (He et al. 2017); with c4 it works on what the box head made of a region."""

    name: str = "fcn"
    convs: int | None = None  # 3x3 convolutions before the upsampling: 4, with c4 none, unless given
    channels: int | None = None  # of the layers before the masks: as many as model.neck.channels, unless given
    norm: str = "none"  # none | bn | sync_bn | gn
    resolution: int = 14  # bins a side of a region; the mask has twice as many; with c4 it follows from the box head
    sampling_ratio: int = 2
    class_agnostic: bool = False  # one mask for all classes


@dataclass
class ModelConfig:
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    neck: NeckConfig = field(default_factory=NeckConfig)
    anchors: AnchorConfig = field(default_factory=AnchorConfig)
    rpn: RPNConfig = field(default_factory=RPNConfig)
    box_head: BoxHeadConfig | None = field(default_factory=BoxHeadConfig)  # null: the first stage alone
    cascade: CascadeConfig | None = None  # model.cascade.ious=[0.5,0.6,0.7] makes it a Cascade R-CNN; not with c4
    mask_head: MaskHeadConfig | None = None  # model.mask_head.name=fcn makes a Faster R-CNN a Mask R-CNN
    num_classes: int | None = None  # follows from the data unless given
    weights: str | None = None  # a resdet checkpoint to start from
    pixel_mean: list[float] | None = None  # RGB, 0..255; follows from the backbone and its weights unless given
    pixel_std: list[float] | None = None


@dataclass
class SplitConfig:
    name: str = "coco2017"  # a known set (shapes, coco2017, voc0712, ...), whose files follow from data.root
    annotations: str | None = None  # or any COCO json, or VOC split (ImageSets/Main/train.txt) ...
    images: str | None = None  # ... and the folder its file names are relative to


@dataclass
class AugmentConfig:
    short_side: list[int] = field(default_factory=lambda: [800])  # training draws one of these, in pixels
    test_short_side: int = 800
    max_side: int = 1333
    flip: float = 0.5  # probability of a horizontal flip
    photometric: float = 0.0  # probability of a change of brightness, contrast, saturation and hue
    pad: int = 0  # classification: pixels added on each side of an image before a random crop of its own size


@dataclass
class PatchesConfig:
    """The generated classification set (`task=classification data.train.name=shapes_patches`)."""

    train_images: int = 2000
    val_images: int = 1000
    size: int = 16  # pixels, square
    seed: int = 0


@dataclass
class ShapesConfig:
    """The generated data set (`data.train.name=shapes`)."""

    train_images: int = 800
    val_images: int = 200
    size: int = 160  # pixels, square
    max_objects: int = 6
    seed: int = 0


@dataclass
class DataConfig:
    root: str = "datasets"
    train: SplitConfig = field(default_factory=SplitConfig)
    val: SplitConfig = field(default_factory=SplitConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    shapes: ShapesConfig = field(default_factory=ShapesConfig)
    patches: PatchesConfig = field(default_factory=PatchesConfig)
    workers: int = 2
    on_bad_image: str = "error"  # error | skip: what to do with an image file that cannot be read
    sixteen_bit: str = "error"  # error | scale: what to do with more than 8 bits a channel (scale: 0..65535 to 0..255)
    mask_resolution: int = 64  # cells a side that a ground-truth mask is kept in, in the frame of its box
    max_bad_fraction: float = 0.01  # with skip: more bad images than this is an error all the same


@dataclass
class TrainConfig:
    steps: int = 90000
    batch_size: int = 16  # over all processes
    seed: int = 0
    device: str = "auto"  # auto | cpu | cuda
    amp: str = "auto"  # auto | off | bf16 | native; auto: bf16 on a GPU; native: also on a CPU with bf16 instructions
    compile: bool = False
    channels_last: bool = True
    parts: list[str] | None = None  # of backbone, neck, rpn, roi_heads: those that learn; null: all
    proposals: str | None = None  # a run or checkpoint whose proposals teach the second stage, not the model's
    grad_clip: float | None = 35.0  # largest L2 norm of all gradients together; null for none
    precise_bn: int = 0  # batches that give the batch norms their statistics anew at the end; 0: the running averages
    log_every: int = 20
    checkpoint_every: int = 5000
    keep_checkpoints: int = 2
    tensorboard: bool = False  # also write TensorBoard event files into the run's folder (the extra `log`)


@dataclass
class OptimConfig:
    name: str = "sgd"  # sgd | adamw
    lr: float = 0.02  # for `reference_batch` images a step; scaled in proportion to train.batch_size
    reference_batch: int = 16
    backbone_lr: float = 1.0  # factor on the learning rate of the backbone
    layer_decay: float = 1.0  # a further factor for each stage of the backbone before its last one
    momentum: float = 0.9
    weight_decay: float = 1e-4
    norm_weight_decay: float = 0.0  # for normalisation layers and biases of them
    schedule: str = "step"  # step | cosine | constant
    milestones: list[float] = field(default_factory=lambda: [2 / 3, 8 / 9])  # fractions of train.steps
    gamma: float = 0.1
    warmup_steps: int = 1000
    warmup_factor: float = 0.001


@dataclass
class EvalConfig:
    every: int = 0  # steps; 0: at the end only
    batch_size: int = 2
    backend: str = "auto"  # auto | pycocotools | hotcoco
    metric: str = "coco"  # coco | voc07 | voc12: adds Pascal VOC's AP50 by 11 points or by area (voc/AP50)
    train_images: int = 0  # classification: the first so many training images are evaluated too (train/error)


@dataclass
class RefinementConfig:
    """Regions are looked at again where the first look put them (He et al. 2015, appendix B)."""

    nms_iou: float = 0.3  # over the union of both looks, in the place of model.box_head.nms_iou


@dataclass
class VotingConfig:
    """A detection's box becomes the mean of the overlapping candidates of its class (Gidaris & Komodakis 2015)."""

    iou: float = 0.5


@dataclass
class AugmentationConfig:
    """Detections of several views of each image, put together."""

    short_sides: list[int] = field(default_factory=list)  # pixels; none: data.augment.test_short_side alone
    flip: bool = True  # each view mirrored as well


@dataclass
class TestConfig:
    """What `resdet evaluate` and `resdet predict` add to a detector; evaluations in training go without."""

    refinement: RefinementConfig | None = None
    voting: VotingConfig | None = None
    scales: list[int] | None = None  # short sides; each region is pooled from two adjacent ones, merged by maxout
    augmentation: AugmentationConfig | None = None


@dataclass
class Config:
    task: str = "detection"  # detection | classification (the backbone, a global average pool and one linear layer)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    test: TestConfig = field(default_factory=TestConfig)


def load_config(*paths: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The defaults, then each file over what came before, then `key=value` overrides.

    Raises UserError with the file, the key and a suggestion for anything that does not fit.
    """
    tree = OmegaConf.structured(Config)
    for path in paths:
        tree = _merged(tree, read_yaml(Path(path)), source=str(path))
    return _finished(_overridden(tree, overrides))


def config_from_yaml(text: str, source: str, overrides: Sequence[str] = ()) -> Config:
    """The configuration that `to_yaml` wrote, read back from a run or a checkpoint, then `key=value` overrides."""
    tree = _merged(OmegaConf.structured(Config), _mapping(_parse_yaml(text, source), source), source)
    return _finished(_overridden(tree, overrides))


def _overridden(tree: Any, overrides: Sequence[str]) -> Any:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise UserError(f"{override!r} is not an override; write key=value, for example train.steps=100")
        tree = _merged(tree, _nested(key.split("."), _parse_yaml(text, source=override)), source=override)
    return tree


def _finished(tree: Any) -> Config:
    config: Config = OmegaConf.to_object(tree)  # pyright: ignore[reportAssignmentType]
    check(config)
    return config


def to_yaml(config: Config) -> str:
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping, as plain data: no tags, no anchors, at most a megabyte."""
    try:
        if path.stat().st_size > 1_000_000:
            raise UserError(f"{path}: larger than a megabyte; that is not a config file")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a config file such as configs/quickstart.yaml") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file; give a YAML config") from None
    return _mapping(_parse_yaml(text, str(path)), str(path))


class _DataLoader(yaml.SafeLoader):
    """Plain data only: aliases are refused too, for ten nested ones can expand to a billion nodes.

    `on`, `off`, `yes` and `no` are words, as in YAML 1.2: `train.amp=off` means "off".
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML's own class attribute
        first: [(tag, pattern) for tag, pattern in resolvers if first in "tTfF" or not tag.endswith(":bool")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise ComposerError(None, None, "aliases are not allowed", event.start_mark)
        return super().compose_node(parent, index)


def _parse_yaml(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_DataLoader)  # noqa: S506  # a SafeLoader, stricter still
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        raise UserError(f"{source}: not readable as YAML{line}: {reason}") from None


def _mapping(data: Any, source: str) -> dict[str, Any]:
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(f"{source}: a config is a mapping of keys to values, this is a {type(data).__name__}")
    return data


def _nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return value


def _merged(tree: Any, data: dict[str, Any], source: str) -> Any:
    _check_keys(tree, data, (), source)
    try:
        return OmegaConf.merge(tree, data)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{source}: {error.full_key or 'config'}: {reason}") from None


def _check_keys(tree: Any, data: dict[str, Any], path: tuple[str, ...], source: str) -> None:
    for key, value in data.items():
        here = ".".join((*path, str(key)))
        if key not in tree:
            raise UserError(f"{source}: unknown key {here!r}{did_you_mean(str(key), [str(k) for k in tree])}")
        part = _optional_part(tree, key)
        if part and value is None:
            continue
        group = OmegaConf.structured(part) if part else tree[key]
        if OmegaConf.is_dict(group):
            if not isinstance(value, dict):
                raise UserError(f"{source}: {here} is a group of keys ({', '.join(map(str, group))})")
            _check_keys(group, value, (*path, str(key)), source)


def _optional_part(tree: Any, key: str) -> type | None:
    """The dataclass of a part that may be absent (`mask_head: MaskHeadConfig | None`), else None."""
    of_tree = OmegaConf.get_type(tree)
    assert of_tree is not None
    alternatives = get_args(get_type_hints(of_tree)[key])
    return next(
        (kind for kind in alternatives if NoneType in alternatives and isinstance(kind, type) and is_dataclass(kind)),
        None,
    )


CHOICES = {
    "task": ("detection", "classification"),
    "model.backbone.norm": ("frozen_bn", "bn", "sync_bn", "gn", "none"),
    "model.neck.name": ("fpn", "pafpn", "c4", "dc5"),
    "model.neck.norm": ("none", "bn", "sync_bn", "gn"),
    "model.neck.extra_levels": ("pool", "conv"),
    "model.box_head.name": ("two_fc", "four_conv_fc"),
    "model.box_head.norm": ("none", "bn", "sync_bn", "gn"),
    "model.box_head.pooling": ("roi_align", "roi_pool"),
    "model.rpn.box_loss": ("smooth_l1", "giou", "ciou"),
    "model.box_head.box_loss": ("smooth_l1", "giou", "ciou"),
    "model.box_head.classification_loss": ("cross_entropy", "focal"),
    "model.mask_head.name": ("fcn",),
    "model.mask_head.norm": ("none", "bn", "sync_bn", "gn"),
    "train.device": ("auto", "cpu", "cuda"),
    "train.amp": ("auto", "off", "bf16", "native"),
    "optim.name": ("sgd", "adamw"),
    "optim.schedule": ("step", "cosine", "constant"),
    "eval.backend": ("auto", "pycocotools", "hotcoco"),
    "eval.metric": ("coco", "voc07", "voc12"),
    "data.on_bad_image": ("error", "skip"),
    "data.sixteen_bit": ("error", "scale"),
}

BOUNDS = {
    (1, math.inf): (
        "train.steps train.batch_size train.log_every train.checkpoint_every train.keep_checkpoints eval.batch_size "
        "optim.reference_batch model.neck.channels model.rpn.batch_size_per_image model.rpn.pre_nms_train "
        "model.rpn.pre_nms_test model.rpn.proposals_train model.rpn.proposals_test model.box_head.resolution "
        "model.box_head.batch_size_per_image model.box_head.detections model.box_head.fc_dim data.augment.short_side "
        "data.augment.max_side data.augment.test_short_side data.shapes.train_images data.shapes.val_images "
        "data.shapes.max_objects model.num_classes model.anchors.sizes model.rpn.convs "
        "model.mask_head.channels model.mask_head.resolution data.patches.train_images data.patches.val_images "
        "test.scales test.augmentation.short_sides"
    ),
    (0, 1): (
        "model.rpn.positive_fraction model.rpn.foreground_iou model.rpn.background_iou model.rpn.nms_iou "
        "model.box_head.positive_fraction model.box_head.foreground_iou model.box_head.background_iou_low "
        "model.cascade.ious "
        "model.box_head.score_threshold "
        "model.box_head.nms_iou data.augment.flip data.augment.photometric data.max_bad_fraction optim.milestones "
        "optim.momentum optim.gamma optim.warmup_factor optim.layer_decay test.refinement.nms_iou test.voting.iou"
    ),
    (0, math.inf): (
        "optim.lr optim.weight_decay optim.norm_weight_decay optim.warmup_steps train.seed train.grad_clip eval.every "
        "data.workers model.backbone.frozen_stages model.box_head.sampling_ratio model.rpn.smooth_l1_beta "
        "model.rpn.box_loss_weight model.rpn.cross_boundary model.box_head.focal_gamma model.box_head.class_weights "
        "model.box_head.box_loss_weight model.box_head.smooth_l1_beta optim.backbone_lr train.precise_bn "
        "model.mask_head.convs model.mask_head.sampling_ratio data.augment.pad eval.train_images"
    ),
    (4, 1024): "data.mask_resolution",
    (64, math.inf): "data.shapes.size",
    (8, 256): "data.patches.size",
}


def check(config: Config) -> None:
    """Refuses values no run could mean, before anything is built."""
    for key, choices in CHOICES.items():
        value = _at(config, key)
        if value not in choices and not _absent(config, key):
            raise UserError(f"{key}={value} is not known{did_you_mean(str(value), choices)}")
    for (low, high), keys in BOUNDS.items():
        for key in keys.split():
            _check_bounds(key, _at(config, key), low, high)
    for key in ("data.augment.short_side", "model.anchors.sizes", "model.anchors.ratios"):
        if not _at(config, key):
            raise UserError(f"{key} is empty; give at least one value")


def _check_bounds(key: str, value: Any, low: int | float, high: int | float) -> None:
    """Holds for a number, for each number of a list, and for an absent value."""
    for number in value if isinstance(value, list) else [value]:
        if number is not None and not (low <= number <= high and math.isfinite(number)):
            upper = "" if high == math.inf else f" and at most {high}"
            raise UserError(f"{key}={value} must be a number of at least {low}{upper}")


def _at(config: Any, key: str) -> Any:
    """The value of a key; None where the part it belongs to is absent."""
    for name in key.split("."):
        if config is None:
            return None
        config = getattr(config, name)
    return config


def _absent(config: Config, key: str) -> bool:
    """Whether the part that a key belongs to is left out."""
    part = key.rpartition(".")[0]
    return bool(part) and _at(config, part) is None
