"""Everything before the first step: what is asked for is checked, then data, model and folder are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from resdet.config import Config
from resdet.data.batches.loader import open_split, subset
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.labelled import LabelledImages
from resdet.engine import checkpoint
from resdet.engine.alternating import choose_parts
from resdet.engine.classify import LABELLED_SETS, ImageSet, open_labelled
from resdet.engine.distributed import World
from resdet.engine.evaluate import mask_gaps
from resdet.engine.optim import build_optimizer, learning_rate_scales, peak_learning_rate
from resdet.engine.precise_bn import batch_norms
from resdet.engine.run_folder import MODEL, RunFiles
from resdet.engine.state import Run, TrainState
from resdet.errors import UserError
from resdet.models.build.detector import build_classifier, build_model
from resdet.models.classifier import Classifier
from resdet.models.rcnn import RCNN
from resdet.version import __version__
from resdet.weights.contract import conflicts
from resdet.weights.detector import load_detector_weights


def check_setup(config: Config, world: World) -> None:
    """Raises UserError for what cannot be divided among the processes."""
    if config.train.batch_size % world.size:
        raise UserError(
            f"train.batch_size={config.train.batch_size} counts the images of all processes and must be divisible by"
            f" their number, {world.size}"
        )


def find_resume(output: Path, resume: bool | str | Path, world: World) -> tuple[Path | None, list[str]]:  # noqa: FBT001
    """The checkpoint to continue from, None to begin, and what to say about it.

    `resume` is the value of `--resume`: absent (False), alone (True), or with a checkpoint.
    Raises UserError when `output` holds anything that this run would overwrite.
    """
    is_run = RunFiles(output).hold_a_run
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: is a file; --output takes a folder")
    if not is_run and output.is_dir() and any(output.iterdir()):
        raise UserError(f"{output}: is not empty and not a run of resdet; choose another --output")
    if is_run and not resume:
        raise UserError(f"{output}: already holds a run; continue it with --resume or choose another --output")
    if resume is False:
        return None, []
    if resume is not True:
        return named_checkpoint(Path(resume)), []
    if world.leads and is_run:
        checkpoint.remove_leftovers(output)
    _ = world.from_lead(None)
    if not checkpoint.checkpoints(output):
        return None, [f"{output} holds no checkpoint yet: training begins at step 0"]
    return checkpoint.newest_checkpoint(output)


def named_checkpoint(path: Path) -> Path:
    """A checkpoint to resume from, given as such or as a run. Raises UserError when it is damaged."""
    file, _ = checkpoint.find_model_file(path)
    if fault := checkpoint.damage(file.parent):
        raise UserError(f"{path}: cannot be resumed: {fault}; give a folder such as checkpoints/step_00000500")
    return file.parent


def open_data(
    config: Config,
) -> tuple[CocoDataset, CocoDataset] | tuple[LabelledImages, LabelledImages]:
    """The train and val sets; with `train.overfit` the first so many training images with objects for both."""
    overfit = config.train.overfit
    if config.task == "classification":
        labelled = open_labelled(config.data, "train")
        check_side(config, labelled)
        if overfit is not None:
            labelled = labelled.first(overfit)
            return labelled, labelled
        return labelled, open_labelled(config.data, "val")
    if config.data.train.name in LABELLED_SETS:
        raise UserError(f"data.train.name={config.data.train.name} has no boxes; it is for task=classification")
    train_set = open_split(config.data, "train")
    check_masks(config, train_set)
    if overfit is not None:
        train_set = subset(train_set, overfit)
        return train_set, train_set
    val_set = open_split(config.data, "val")
    check_categories(train_set, val_set)
    return train_set, val_set


def check_side(config: Config, dataset: LabelledImages) -> None:
    """Raises UserError for images of which a VGG's five poolings leave nothing."""
    name, side = config.model.backbone.name, dataset.images.shape[1]
    if name.startswith("vgg") and side < 32:
        raise UserError(
            f"model.backbone.name={name} halves an image five times, and those of {dataset.annotations} have {side} "
            "pixels a side; take a net for small images such as resnet20_cifar"
        )


def check_categories(train_set: CocoDataset, val_set: CocoDataset) -> None:
    """Raises UserError unless train and val list the same categories."""
    pairs = (zip(data.category_ids.tolist(), data.class_names, strict=True) for data in (train_set, val_set))
    different = set(next(pairs)) ^ set(next(pairs))
    if different:
        number, name = min(different)
        raise UserError(
            f"{val_set.annotations}: its categories differ from those of {train_set.annotations} (first at id {number},"
            f" {name!r}); train and val need the same list"
        )


def check_masks(config: Config, train_set: CocoDataset) -> None:
    """Raises UserError when there is nothing for a mask head to learn from."""
    if config.model.mask_head and not train_set.segmentations.present()[~train_set.crowd].any():
        raise UserError(
            f"{train_set.annotations}: no object has a mask (segmentation), which model.mask_head learns from;"
            " set model.mask_head=null for boxes alone"
        )


def check_num_classes(config: Config, dataset: ImageSet) -> None:
    """Raises UserError when the config claims another number of classes than the data has."""
    found, wanted = len(dataset.class_names), config.model.num_classes
    if wanted is not None and wanted != found:
        raise UserError(f"model.num_classes={wanted}, but {dataset.annotations} has {found} categories; drop the key")


def build_state(
    config: Config, class_names: Sequence[str], device: torch.device, world: World, *, pretrained: bool = True
) -> tuple[TrainState, Config, list[str]]:
    """A model and an optimizer at step 0, the same in every process for the same seed.

    Also gives the config completed by what follows from the weights, and lines on what was loaded. Without
    `pretrained` nothing is, because a checkpoint comes next.
    """
    _ = torch.manual_seed(config.train.seed)
    whole = config.model.weights if pretrained else None
    random = whole or not pretrained
    start = checkpoint.without_weights(config) if random else with_backbone_file(config)
    if config.task == "classification":
        model = build_classifier(start.model, len(class_names))
        loaded = load_classifier(model, Path(whole)) if whole else []
    else:
        model = build_model(start.model, len(class_names))
        loaded = load_detector(model, config, Path(whole), class_names) if whole else list(model.notes)
    choose_parts(model, config)
    check_batch_norm(model, config, world)
    config = with_normalisation(config, *model.normalisation)
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    model = model.to(device, memory_format=layout)  # pyright: ignore[reportCallIssue]
    _ = torch.manual_seed(config.train.seed + world.rank)  # dropout differs between processes
    return TrainState(model, build_optimizer(model, config.optim)), config, loaded


def with_backbone_file(config: Config) -> Config:
    """The config with the model file in place of a run or a checkpoint whose backbone is wanted."""
    weights = config.model.backbone.weights
    if weights is None or not Path(weights).is_dir():
        return config
    file, _ = checkpoint.find_model_file(Path(weights))
    backbone = replace(config.model.backbone, weights=str(file))
    return replace(config, model=replace(config.model, backbone=backbone))


def load_detector(model: RCNN, config: Config, weights: Path, class_names: Sequence[str]) -> list[str]:
    """Loads a whole detector and normalises images as it was trained to; says what was matched.

    Raises UserError for weights that do not fit, or that were trained under conventions the config contradicts.
    """
    file, _ = checkpoint.find_model_file(weights)
    report, contract = load_detector_weights(model, file, class_names=class_names)
    if contract:
        wanted = config.model
        differences = conflicts(
            contract,
            pixel_mean=wanted.pixel_mean,
            pixel_std=wanted.pixel_std,
            anchors_rounded=wanted.anchors.rounded,
            roi_align_aligned=wanted.box_head.aligned if wanted.box_head else None,
        )
        if differences:
            keys = "model.pixel_mean, model.pixel_std, model.anchors.rounded and model.box_head.aligned"
            raise UserError(f"{report.source}: {'; '.join(differences)}; set {keys} to theirs")
        model.normalise_by(contract.pixel_mean, contract.pixel_std)
    return report.details().splitlines()


def load_classifier(model: Classifier, weights: Path) -> list[str]:
    """Loads a whole classifier of the same backbone and number of classes."""
    file, _ = checkpoint.find_model_file(weights)
    checkpoint.load_weights(model, checkpoint.read_model_file(file).weights, str(file))
    return [f"started from {file}"]


def as_resumed(config: Config, source: Path) -> Config:
    """The config with the mean and deviation of the run that goes on."""
    saved = checkpoint.read_model_file(source / MODEL).config.model
    return with_normalisation(config, saved.pixel_mean, saved.pixel_std)


def with_normalisation(config: Config, mean: list[float] | None, std: list[float] | None) -> Config:
    """The config with the mean and deviation written out that follow from the weights, which may not be at hand later.

    What the config gives itself stays.
    """
    model = replace(config.model, pixel_mean=config.model.pixel_mean or mean, pixel_std=config.model.pixel_std or std)
    return replace(config, model=model)


def check_batch_norm(model: nn.Module, config: Config, world: World) -> None:
    """Statistics of a single image are too noisy to train with (pixels of one image are not independent)."""
    learns_statistics = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    if learns_statistics and config.train.batch_size // world.size == 1:
        raise UserError(
            "batch normalisation with 1 image a process (train.batch_size over the number of processes);"
            " use model.backbone.norm=gn, frozen_bn or sync_bn, or a larger batch"
        )
    if config.train.precise_bn and not batch_norms(model):
        raise UserError(
            f"train.precise_bn={config.train.precise_bn}, but no layer of the model keeps batch statistics"
            f" (model.backbone.norm={config.model.backbone.norm}); use model.backbone.norm=bn, or train.precise_bn=0"
        )


def announce(state: TrainState, run: Run, source: Path | None, *, loaded: list[str], warnings: list[str]) -> None:
    """Says what is about to be trained, on what, and how."""
    config, log, world = run.config, run.log, run.world
    threads = f"{torch.get_num_threads()} threads" if run.device.type == "cpu" else torch.cuda.get_device_name()
    processes = f", {world.size} processes" if world.size > 1 else ""
    log.say(f"resdet {__version__}, torch {torch.__version__}, {run.device.type} ({threads}){processes}")
    sizes = [parameter.numel() for parameter in state.model.parameters()]
    trained = sum(parameter.numel() for parameter in state.model.parameters() if parameter.requires_grad)
    log.say(f"model: {config.model.backbone.name}, {sum(sizes) / 1e6:.2f} M parameters, {trained / 1e6:.2f} M trained")
    for name, dataset in (("train", run.train_set), ("val", run.val_set)):
        log.say(f"{name}: {dataset.report.summary()}")
    if run.train_set is run.val_set:
        log.say(f"overfit: trains and evaluates on the same {len(run.train_set)} images")
    optim = config.optim
    log.say(
        f"learning rate {peak_learning_rate(optim, config.train):.6g} = {optim.lr:g} x {config.train.batch_size} /"
        f" {optim.reference_batch} (optim.lr x batch / reference batch), {optim.warmup_steps} steps of warm-up,"
        f" {optim.schedule} schedule, {config.train.steps} steps"
    )
    low, high = learning_rate_scales(state.optimizer)
    if (low, high) != (1.0, 1.0):
        scales = f"backbone_lr={optim.backbone_lr:g}, layer_decay={optim.layer_decay:g}"
        log.say(f"learning rates of the layers: {low:.3g} to {high:.3g} times that (optim: {scales})")
    for line in loaded:
        log.say(line)
    gaps = mask_gaps(run.val_set) if config.model.mask_head and isinstance(run.val_set, CocoDataset) else []
    for warning in (*random_constants(config, state.model), *gaps, *warnings):
        log.warn(warning)
    if source:
        log.say(f"resumed from {source} at step {state.step}")


def random_constants(config: Config, model: nn.Module) -> list[str]:
    """Warns of layers that never learn although nothing was loaded into them."""
    if config.model.weights or config.model.backbone.weights:
        return []
    frozen = sum(not parameter.requires_grad for parameter in model.parameters())
    frozen_norms = any("FrozenBatchNorm" in type(module).__name__ for module in model.modules())
    if not frozen and not frozen_norms:
        return []
    what = [f"{frozen} frozen parameters"] * bool(frozen) + ["frozen batch normalisation"] * frozen_norms
    return [
        f"{' and '.join(what)} with random weights will never learn: set model.backbone.weights, or train from scratch"
        " with model.backbone.norm=gn model.backbone.frozen_stages=0"
    ]
