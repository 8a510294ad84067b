"""The whole configuration as one typed tree; its defaults are the papers' 1x recipe on COCO 2017.

Only `build.py`, `loader.py` and the floors above them read these classes: modules take parts and numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field


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
    overfit: int | None = None  # train and evaluate on the first so many training images with objects; null: on all
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
