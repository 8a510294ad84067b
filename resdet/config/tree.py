"""The whole configuration as one typed tree; its defaults are the papers' 1x recipe on COCO 2017.

Each key is declared here (those of `model.` in model.py) and nowhere else: type, default, bounds, a line of help, and
the changes that a resumed run and a comparison permit (declare.py). Only `build`, the loader and the layers above them
read these classes: modules take parts and numbers. Lengths and sizes are in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from resdet.config.declare import COUNT, FINITE, MANY, PIXELS, SEED, Group, key, part
from resdet.config.model import ModelConfig


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

    root: str = key("datasets", resume="warned", place=True, scored_on=True, help="the folder of the known sets")
    train: SplitConfig = part(SplitConfig)
    val: SplitConfig = part(SplitConfig, scored_on=True)
    augment: AugmentConfig = part(AugmentConfig)
    shapes: ShapesConfig = part(ShapesConfig, scored_on=True)
    patches: PatchesConfig = part(PatchesConfig)
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
class TrainConfig(Group):
    """How long, on what and how a model is trained."""

    steps: int = key(90000, ge=1, le=COUNT, resume="warned", help="updates of the weights")
    batch_size: int = key(16, ge=1, le=32768, help="images an update, over all processes")
    overfit: int | None = key(
        None, ge=1, le=MANY, scored_on=True, help="train and evaluate on the first so many training images with objects"
    )
    seed: int = key(0, ge=0, le=SEED, help="of the first weights, the order of the images and all that is drawn")
    device: Literal["auto", "cpu", "cuda"] = key(
        "auto", resume="warned", place=True, help="auto: a GPU where there is one"
    )
    amp: Literal["auto", "off", "bf16", "native"] = key(
        "auto", resume="warned", help="auto: bf16 on a GPU; native: also on a CPU with bf16 instructions"
    )
    compile: bool = key(False, resume="warned", help="compile the model with torch.compile")
    channels_last: bool = key(True, resume="warned", help="memory format of weights and features")
    parts: list[str] | None = key(
        None, length=(0, 4), help="of backbone, neck, rpn, roi_heads: those that learn; null: all"
    )
    proposals: str | None = key(
        None, help="a run or checkpoint on whose proposals the second stage trains, in place of the model's own"
    )
    grad_clip: float | None = key(
        35.0, gt=0, le=FINITE, help="largest L2 norm of all gradients together; null: no limit"
    )
    precise_bn: int = key(
        0, ge=0, le=MANY, help="batches that give the batch norms new statistics at the end; 0: the running averages"
    )
    log_every: int = key(20, ge=1, le=COUNT, resume="free", help="steps")
    checkpoint_every: int = key(5000, ge=1, le=COUNT, resume="free", help="steps")
    keep_checkpoints: int = key(2, ge=1, le=COUNT, resume="free", help="the newest so many are kept, and the best")
    tensorboard: bool = key(
        False, resume="free", help="also write TensorBoard event files into the run's folder (the extra `log`)"
    )


@dataclass
class OptimConfig(Group):
    """The optimizer and the learning rate."""

    name: Literal["sgd", "adamw"] = key("sgd", help="the optimizer")
    lr: float = key(
        0.02, ge=0, le=FINITE, help="for reference_batch images a step; scaled in proportion to train.batch_size"
    )
    reference_batch: int = key(16, ge=1, le=MANY, help="images a step that lr is meant for")
    backbone_lr: float = key(1.0, ge=0, le=FINITE, help="factor on the learning rate of the backbone")
    layer_decay: float = key(
        1.0, ge=0, le=1, help="a further factor for each stage of the backbone before its last one"
    )
    momentum: float = key(0.9, ge=0, le=1, help="of sgd")
    weight_decay: float = key(1e-4, ge=0, le=FINITE, help="of all weights but those of normalization layers")
    norm_weight_decay: float = key(0.0, ge=0, le=FINITE, help="of weights and biases of normalization layers")
    schedule: Literal["step", "cosine", "constant"] = key("step", help="how the learning rate falls after the warm-up")
    milestones: list[float] = key(
        [2 / 3, 8 / 9], ge=0, le=1, length=(0, 100), help="of schedule=step: fractions of train.steps"
    )
    gamma: float = key(0.1, ge=0, le=1, help="of schedule=step: factor on the learning rate at each milestone")
    warmup_steps: int = key(1000, ge=0, le=COUNT, help="over which the learning rate rises linearly")
    warmup_factor: float = key(0.001, ge=0, le=1, help="the share of the learning rate that the warm-up starts from")


@dataclass
class EvalConfig(Group):
    """When and how a model is evaluated."""

    every: int = key(0, ge=0, le=COUNT, resume="free", help="steps; 0: at the end only")
    batch_size: int = key(2, ge=1, le=32768, resume="free", help="images that are predicted together")
    backend: Literal["auto", "pycocotools", "hotcoco"] = key(
        "auto", resume="free", help="auto: hotcoco where it is installed"
    )
    count_skipped: bool = key(
        False,
        scored_on=True,
        help="skipped annotations are objects to find, as in pycocotools (docs/data.md)",
    )
    metric: str = key(
        "coco",
        help="a row of METRICS, beside COCO's figures: voc07, voc12 (voc/AP50), ilsvrc_det (ilsvrc/AP), ilsvrc_loc",
    )
    train_images: int = key(
        0, ge=0, le=MANY, help="classification: the first so many training images are evaluated too (train/error)"
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
