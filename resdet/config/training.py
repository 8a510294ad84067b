"""The keys of `train.`, `optim.` and `eval.`: how a model is trained and evaluated (docs/training.md).

The defaults are the papers' 1x recipe on COCO 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from resdet.config.declare import COUNT, FINITE, MANY, SEED, Group, key


@dataclass
class EMAConfig(Group):
    """An exponential moving average of weights and batch statistics, which is evaluated and saved as the model."""

    decay: float = key(0.9999, ge=0, le=1, help="the largest share of the average that an update keeps")
    warmup: bool = key(
        True, help="update number n keeps at most 1 - n^(-2/3), so that a short training has a short average"
    )


@dataclass
class TrainConfig(Group):
    """How long, on what and how a model is trained."""

    steps: int = key(90000, ge=1, le=COUNT, resume="warned", help="updates of the weights")
    epochs: float | None = key(
        None, gt=0, le=MANY, resume="warned", help="passes over the training images, from which train.steps follows"
    )
    minutes: float | None = key(
        None, gt=0, le=COUNT, help="time of all updates, from which train.steps follows after the first few of them"
    )
    patience: int | None = key(
        None, ge=1, le=COUNT, resume="free", help="evaluations without a better eval.best after which training ends"
    )
    batch_size: int = key(16, ge=1, le=32768, help="images an update, over all processes")
    accumulate: int = key(
        1, ge=1, le=32768, help="parts in which each process computes its images of an update: less memory, more time"
    )
    overfit: int | None = key(
        None, ge=1, le=MANY, scored_on=True, help="train and evaluate on the first so many training images with objects"
    )
    seed: int = key(0, ge=0, le=SEED, help="of the first weights, the order of the images and all that is drawn")
    device: Literal["auto", "cpu", "cuda"] = key(
        "auto", resume="warned", place=True, help="auto: a GPU where there is one"
    )
    amp: Literal["auto", "off", "bf16", "native", "fp16"] = key(
        "auto",
        resume="warned",
        help="auto: bf16 on a GPU; native: also on a CPU with bf16 instructions; fp16: with a loss scale",
    )
    parallel: Literal["ddp", "fsdp"] = key(
        "ddp",
        resume="warned",
        help="of several processes; fsdp: each keeps a share of weights, gradients and optimizer (for large backbones)",
    )
    recompute: bool = key(
        False, resume="warned", help="activations of the backbone's blocks anew in the backward pass: less memory"
    )
    deterministic: bool = key(
        False, resume="warned", help="only operators that always give the same bits (a GPU may refuse some)"
    )
    compile: bool = key(False, resume="warned", help="compile the model with torch.compile")
    compile_mode: Literal["default", "reduce-overhead"] = key(
        "default",
        resume="warned",
        help="of torch.compile; reduce-overhead: CUDA graphs, one a shape (set data.shape_buckets)",
    )
    channels_last: bool | None = key(
        None,
        resume="warned",
        help="memory format of weights and features; null: on a CPU the quicker one, timed before",
    )
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
    ema: EMAConfig | None = None
    log_every: int = key(20, ge=1, le=COUNT, resume="free", help="steps")
    checkpoint_every: int = key(5000, ge=1, le=COUNT, resume="free", help="steps")
    keep_checkpoints: int = key(2, ge=1, le=COUNT, resume="free", help="the newest so many are kept, and the best")
    profile: int = key(
        0, ge=0, le=1000, resume="free", help="steps that are traced into trace.json, after three others; 0: none"
    )
    wandb: str | None = key(
        None, resume="free", help="also log to this project of Weights & Biases (the extra `wandb`)"
    )
    mlflow: str | None = key(None, resume="free", help="also log to this experiment of MLflow (the extra `mlflow`)")
    tensorboard: bool = key(
        False, resume="free", help="also write TensorBoard event files into the run's folder (the extra `log`)"
    )

    @property
    def length(self) -> str:
        """How long a training is, in the words of its config: "12 epochs"."""
        given = {"epochs": self.epochs, "minutes": self.minutes, "steps": self.steps}
        return next(f"{value:.12g} {unit}" for unit, value in given.items() if value is not None)


@dataclass
class OptimConfig(Group):
    """The optimizer and the learning rate."""

    name: str = key("sgd", help="sgd, adamw, another optimizer of torch.optim in lower case, or timm/NAME")
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
    fused: bool | None = key(
        None,
        resume="warned",
        help="one kernel updates all weights; null: on a GPU, for sgd, adam and adamw",
    )
    arguments: dict[str, Any] = key({}, help="further arguments of the optimizer by name, such as {nesterov: true}")
    schedule: Literal["step", "cosine", "poly", "one_cycle", "restarts", "constant"] = key(
        "step", help="how the learning rate falls after the warm-up; one_cycle has its own rise in place of the warm-up"
    )
    milestones: list[float] = key(
        [2 / 3, 8 / 9], ge=0, le=1, length=(0, 100), help="of schedule=step: fractions of train.steps"
    )
    gamma: float = key(0.1, ge=0, le=1, help="of schedule=step: factor on the learning rate at each milestone")
    final_factor: float = key(
        0.0, ge=0, le=1, help="of cosine, poly, one_cycle and restarts: the share of the learning rate at the end"
    )
    power: float = key(0.9, gt=0, le=100, help="of schedule=poly: the exponent of the share of steps that is left")
    rise: float = key(0.3, gt=0, le=1, help="of schedule=one_cycle: the share of all steps over which the rate rises")
    start_factor: float = key(0.04, ge=0, le=1, help="of schedule=one_cycle: the share of the rate at the beginning")
    cycles: int = key(3, ge=1, le=1000, help="of schedule=restarts: the number of cosines in all steps")
    cycle_growth: float = key(2.0, ge=1, le=100, help="of schedule=restarts: each cosine is so many times longer")
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
        help="a row of METRICS, beside COCO's: voc07, voc12 (voc/AP50), lvis, ilsvrc_det (ilsvrc/AP), ilsvrc_loc",
    )
    best: str | None = key(
        None,
        help="the figure that chooses RUN/best, such as segm/AP, voc/AP50, bbox/AP/CLASS, val/loss; null: the task's",
    )
    loss: bool = key(False, help="detection: also the losses on the val images (val/loss and its parts)")
    train_images: int = key(
        0, ge=0, le=MANY, help="classification: the first so many training images are evaluated too (train/error)"
    )
