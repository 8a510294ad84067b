"""The whole configuration as one typed tree; its defaults are the papers' 1x recipe on COCO 2017.

Each key is declared here (those of `model.` in model.py, of `train.`, `optim.` and `eval.` in training.py) and nowhere
else: type, default, bounds, a line of help, and the changes that a resumed run and a comparison permit (declare.py).
Only `build`, the loader and the layers above them read these classes: modules take parts and numbers. Lengths and sizes
are in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from resdet.config.declare import MANY, PIXELS, SEED, Group, key, part
from resdet.config.model import ModelConfig
from resdet.config.training import EvalConfig, OptimConfig, TrainConfig


@dataclass
class SplitConfig(Group):
    """A data set, known by its name or given by its files."""

    name: str = key("coco2017", help="a known set (shapes, coco2017, voc0712, ...), whose files follow from data.root")
    annotations: str | None = key(
        None,
        help="or any COCO json, or VOC split (ImageSets/Main/train.txt); classification: the devkit's numbers",
    )
    images: str | None = key(
        None, help="and the folder that its file names are relative to; classification: also alone, a folder per class"
    )


@dataclass
class AugmentConfig(Group):
    """How an image is changed before the model sees it."""

    short_side: list[int] = key(
        [800], ge=1, le=PIXELS, length=(1, 1000), help="training draws one of these, in pixels, for each image"
    )
    short_side_range: list[int] = key(
        [256, 480], ge=8, le=10_000, length=(2, 2), help="classification of image files: the smallest and the largest"
    )
    test_short_side: int = key(800, ge=1, le=PIXELS, help="in pixels, in evaluation and prediction")
    max_side: int = key(1333, ge=1, le=PIXELS, help="in pixels; longer images become smaller than the short side asks")
    flip: float = key(0.5, ge=0, le=1, help="probability of a horizontal flip")
    photometric: float = key(
        0.0, ge=0, le=1, help="probability of a change of brightness, contrast, saturation and hue"
    )
    extra: list[str] = key(
        [], length=(0, 100), help="rows of PIXEL_CHANGES (grey, blur, pca_colour), applied in this order"
    )
    extra_probability: float = key(0.5, ge=0, le=1, help="of each row in extra")
    transforms: list[dict[str, Any]] | None = key(
        None,
        length=(0, 100),
        help="light, standard, lsj, heavy, or a list of transforms (docs/augmentation.md); null: the keys above",
    )
    close_mix: float = key(
        0.1,
        ge=0,
        le=1,
        help="of transforms: the last share of train.steps, in which no images are put together (mosaic, mixup,"
        " copy_paste)",
    )
    min_visible: float = key(
        0.1,
        ge=0,
        le=1,
        help="of transforms: an object of which a smaller share is left is neither positive nor negative",
    )
    crop: int = key(
        224, ge=8, le=4096, help="classification of image files: pixels a side of the square that the model sees"
    )
    pad: int = key(
        0, ge=0, le=10_000, help="classification: pixels added on each side before a random crop of the image's size"
    )


@dataclass
class PatchesConfig(Group):
    """The generated classification set (`task=classification data.train.name=shapes_patches`)."""

    train_images: int = key(2000, ge=1, le=MANY, help="images to train on")
    val_images: int = key(1000, ge=1, le=MANY, help="images to evaluate on")
    size: int = key(16, ge=8, le=256, help="pixels a side of the square images")
    seed: int = key(0, ge=0, le=SEED, help="another seed draws other images")


@dataclass
class ShapesConfig(Group):
    """The generated detection set (`data.train.name=shapes`)."""

    train_images: int = key(800, ge=1, le=MANY, help="images to train on")
    val_images: int = key(200, ge=1, le=MANY, help="images to evaluate on")
    size: int = key(160, ge=64, le=10_000, help="pixels a side of the square images")
    max_objects: int = key(6, ge=1, le=1000, help="the most objects an image")
    seed: int = key(0, ge=0, le=SEED, help="another seed draws other images")


@dataclass
class DataConfig(Group):
    """The images, and how they are read."""

    path: list[str] | None = key(
        None,
        length=(1, 100),
        alone=True,
        resume="warned",
        place=True,
        scored_on=True,
        help="a folder of a known format (docs/formats.md), or several, joined by class name; not with train, val",
    )
    format: str = key(
        "auto", scored_on=True, help="of path: coco, yolo, voc, cvat, csv, shards; auto: by the layout of the folder"
    )
    val_share: float = key(
        0.2, gt=0, le=0.9, scored_on=True, help="of the images of a folder without a val split, held out by their names"
    )
    val_seed: int = key(0, ge=0, le=SEED, scored_on=True, help="another seed holds out other images")
    classes: list[str] | None = key(
        None, length=(1, 10_000), alone=True, scored_on=True, help="these classes alone, by their names; null: all"
    )
    rename: dict[str, str] = key(
        {}, scored_on=True, help="new names of classes, {old: new}, before classes; equal names become one class"
    )
    empty_images: float = key(1.0, ge=0, le=1, help="the share of the training images without objects that is kept")
    sampler: Literal["shuffled", "repeat_factor", "class_aware", "weighted"] = key(
        "shuffled",
        help="repeat_factor: more of rare classes; class_aware: all classes alike; weighted: by sampler_weights",
    )
    sampler_threshold: float = key(
        0.001, gt=0, le=1, help="of repeat_factor: classes in a smaller share of the images are shown more often"
    )
    sampler_weights: str | None = key(None, help="of weighted: a csv with the header image,weight; others weigh 1")
    root: str = key("datasets", resume="warned", place=True, scored_on=True, help="the folder of the known sets")
    train: SplitConfig = part(SplitConfig)
    val: SplitConfig = part(SplitConfig, scored_on=True)
    augment: AugmentConfig = part(AugmentConfig)
    shapes: ShapesConfig = part(ShapesConfig, scored_on=True)
    patches: PatchesConfig = part(PatchesConfig)
    index: bool = key(
        True, resume="free", place=True, help="keep large annotation files as arrays in the cache, for a quick start"
    )
    cache: Literal["off", "ram", "disk"] = key(
        "off", resume="free", place=True, help="keep the decoded training images in memory or in the cache folder"
    )
    shape_buckets: int | None = key(
        None,
        ge=4,
        le=64,
        resume="warned",
        help="training pads its batches to at most so many shapes, for train.compile; null: each to its own",
    )
    workers: int = key(2, ge=0, le=256, resume="free", help="processes that read images, for each training process")
    on_bad_image: Literal["error", "skip"] = key(
        "error", scored_on=True, help="what to do with an image file that cannot be read"
    )
    sixteen_bit: Literal["error", "scale", "auto"] = key(
        "error",
        scored_on=True,
        help="more than 8 bits a channel; scale: 0..65535 to 0..255; auto: by the bits that the largest value needs",
    )
    mask_resolution: int = key(
        64, ge=4, le=1024, help="cells a side that a ground-truth mask is kept in, in the frame of its box"
    )
    max_bad_fraction: float = key(
        0.01, ge=0, le=1, scored_on=True, help="with on_bad_image=skip: more bad images than this share are an error"
    )


@dataclass
class RefinementConfig(Group):
    """Regions are looked at again where the first look put them (He et al. 2015, appendix B)."""

    nms_iou: float = key(0.3, ge=0, le=1, help="over the union of both looks, in place of model.box_head.nms_iou")


@dataclass
class VotingConfig(Group):
    """A detection's box becomes the mean of the overlapping candidates of its class (Gidaris & Komodakis 2015)."""

    iou: float = key(0.5, ge=0, le=1, help="candidates that overlap a detection as much vote")


@dataclass
class SoftNmsConfig(Group):
    """An overlapping box loses score instead of being dropped (Bodla et al. 2017)."""

    sigma: float = key(0.5, gt=0, le=100, help="scores fall by exp(-overlap^2 / sigma)")


@dataclass
class FusionConfig(Group):
    """The boxes of all views become weighted means, in place of NMS over the views (Solovyev et al. 2019)."""

    iou: float = key(0.55, ge=0, le=1, help="boxes of a class that overlap more are one object")


@dataclass
class AugmentationConfig(Group):
    """Detections of several views of each image, put together."""

    short_sides: list[int] = key(
        [], ge=1, le=PIXELS, length=(0, 100), help="in pixels; none: data.augment.test_short_side alone"
    )
    flip: bool = key(True, help="each view mirrored as well")


@dataclass
class TestConfig(Group):
    """What `resdet evaluate` and `resdet predict` add to a model; evaluations in training go without."""

    refinement: RefinementConfig | None = None
    voting: VotingConfig | None = None
    scales: list[int] | None = key(
        None,
        ge=1,
        le=PIXELS,
        length=(1, 100),
        help="short sides in pixels, such as [400, 600, 800]; each region is pooled from two, merged by maxout",
    )
    augmentation: AugmentationConfig | None = None
    soft_nms: SoftNmsConfig | None = None
    fusion: FusionConfig | None = None
    compile: bool = key(False, help="compile the prediction with torch.compile, which takes minutes, once a process")
    crops: Literal["center", "ten", "full"] = key(
        "center",
        help="classification of image files: the central square; 4 corners, centre and mirror images; the full image",
    )


@dataclass
class Config(Group):
    """Everything that a run depends on."""

    task: Literal["detection", "classification"] = key(
        "detection", help="classification: the backbone, a global average pool and one linear layer"
    )
    model: ModelConfig = part(ModelConfig)
    data: DataConfig = part(DataConfig)
    train: TrainConfig = part(TrainConfig)
    optim: OptimConfig = part(OptimConfig)
    eval: EvalConfig = part(EvalConfig)
    test: TestConfig = part(TestConfig)
