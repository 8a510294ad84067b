"""Training: one loop, read from top to bottom."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch

from resdet.config import Config
from resdet.data.batches.loader import ImageInfo
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.labelled import LabelledImages
from resdet.engine.alternating import losses_module
from resdet.engine.classify import evaluate_classifier, training_batches
from resdet.engine.distributed import autocast, choose_device, join_world, to_device
from resdet.engine.dry_run import rehearse
from resdet.engine.evaluate import Interrupted, evaluate, predict_dataset
from resdet.engine.log import Meter, RunLog, tensorboard
from resdet.engine.optim import clip_gradients, learning_rate, set_learning_rate
from resdet.engine.precise_bn import make_precise
from resdet.engine.resources import Usage
from resdet.engine.run_folder import RunFiles
from resdet.engine.saving import leave, note_usage, save
from resdet.engine.setup import (
    announce,
    as_resumed,
    build_state,
    check_num_classes,
    check_setup,
    find_resume,
    open_data,
)
from resdet.engine.signals import StopRequest
from resdet.engine.state import Metrics, Run, TrainState, data_fingerprint
from resdet.errors import UserError
from resdet.evaluation.coco import CocoResults, backend_name
from resdet.text import first_few

HEADLINES = {  # of each task: the metric whose highest value is the best checkpoint, and its name in the log
    "detection": ("bbox/AP", "box AP"),
    "proposals": ("recall/AR1000", "AR of 1000 proposals"),
    "classification": ("top1/accuracy", "top-1 accuracy"),
}
MOST_SKIPPED = 10  # updates in a row with a gradient that is not finite


def train(
    config: Config,
    output: str | Path,
    *,
    resume: bool | str | Path = False,
    dry_run: bool = False,
) -> Metrics:
    """Trains a detector (task=classification: a classifier) into the folder `output`; the last evaluation's figures.

    `resume` continues the run in `output` from its newest checkpoint (from the beginning if it has none), or from
    the checkpoint given. `dry_run` makes a few steps, reports and writes nothing.

    Raises UserError for a mistake in config, data or folder, and Stopped (a KeyboardInterrupt) when a signal ended
    the run after saving.
    """
    output, files, start = Path(output), RunFiles(Path(output)), time.monotonic()
    with join_world(config.train.device) as world:
        check_setup(config, world)
        source, warnings = (None, []) if dry_run else find_resume(output, resume, world)
        train_set, val_set = open_data(config)
        device = choose_device(config.train.device, world)
        check_num_classes(config, train_set)
        if source:
            config = as_resumed(config, source)
        names = train_set.class_names
        state, config, loaded = build_state(config, names, device, world, pretrained=source is None)
        if source:
            warnings += state.restore(source, config, data_fingerprint(train_set), world)
        _ = world.any(flag=False)  # every process has looked at the folder as it was
        if not dry_run and world.leads:
            reports = {"train": train_set.report.to_dict(), "val": val_set.report.to_dict()}
            files.begin(config, reports, state.step)
        folder = None if dry_run else output
        board = tensorboard(output) if config.train.tensorboard and folder and world.leads else None
        with RunLog(folder, steps=config.train.steps, speaks=world.leads, board=board) as log, StopRequest() as stop:
            usage = Usage(device, start, before=files.written_resources())
            run = Run(config, output, world, device, train_set, val_set, log, stop, usage)
            if source and source.parent.parent == output:
                run.saved_step = state.step
            announce(state, run, source, loaded=loaded, warnings=warnings)
            if dry_run:
                return rehearse(state, run)
            try:
                return fit(state, run)
            finally:
                note_usage(run)


def fit(state: TrainState, run: Run) -> Metrics:
    """The training loop."""
    config, world, log, stop = run.config, run.world, run.log, run.stop
    steps = config.train.steps
    # An evaluation that a signal cut short. The last one may also have changed the model (precise BN).
    if due_for_evaluation(state, config) and (evaluate_step(state, run) or state.step == steps):
        save(state, run)
    batches = training_batches(run.train_set, config, start_step=state.step, rank=world.rank, world_size=world.size)
    losses_of = losses_module(state.model, config, world, run.device)
    meter = Meter(config.train.batch_size)
    while state.step < steps:
        with meter.waiting():
            loaded = stop.next(batches)
        if world.any(stop.requested) or loaded is None:
            raise leave(state, run)

        run.note_unreadable(loaded.skipped)
        lr = learning_rate(state.step, config.optim, config.train)
        set_learning_rate(state.optimizer, lr)
        with autocast(config.train, run.device):
            losses = losses_of(to_device(loaded.batch, config.train, run.device))
        state.optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        norm = clip_gradients(state.model, config.train.grad_clip)
        *values, grad_norm = world.mean(torch.stack([*losses.values(), norm]).tolist())  # the one wait for the device
        named = dict(zip(losses, values, strict=True))
        check_losses(named, state, run, loaded.images)
        if gradient_is_finite(grad_norm, state, log):
            _ = state.optimizer.step()
        state.step += 1

        meter.step()
        record = {**named, "loss": sum(values), "lr": lr, "grad_norm": grad_norm}
        log.progress(state.step, record)
        if due(state.step, config.train.log_every) or state.step == steps:
            log.training(state.step, steps, record | meter.figures(steps - state.step))
        improved = False
        try:
            if due_for_evaluation(state, config):
                improved = evaluate_step(state, run)
        finally:  # an evaluation that fails loses no step
            if improved or due(state.step, config.train.checkpoint_every) or state.step == steps:
                save(state, run)
    return finish(state, run)


def due(step: int, every: int) -> bool:
    """Whether something done every so many steps is to be done after update number `step`; every 0 is never."""
    return every > 0 and step > 0 and step % every == 0


def due_for_evaluation(state: TrainState, config: Config) -> bool:
    """After every `eval.every` steps and at the end, once."""
    last = state.step == config.train.steps
    return state.evaluated != state.step and (last or due(state.step, config.eval.every))


def check_losses(losses: dict[str, float], state: TrainState, run: Run, images: tuple[ImageInfo, ...]) -> None:
    """Ends training before an update with a loss that is not finite; bad_step.json names the images it came from."""
    bad = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
    if not bad:
        return
    everywhere = [image for share in run.world.gather(images) for image in share]
    if run.world.leads and run.folder.is_dir():
        content = {
            "step": state.step,
            "losses": {name: value if math.isfinite(value) else str(value) for name, value in losses.items()},
            "images": [{"image_id": image.image_id, "file_name": image.file_name} for image in everywhere],
        }
        run.files.write_bad_step(content)
    raise UserError(
        f"step {state.step}: {', '.join(bad)}; the weights are unchanged since the step before;"
        f" {run.files.bad_step} names the images"
        f" (image ids {first_few([image.image_id for image in everywhere])});"
        " lower optim.lr or lengthen optim.warmup_steps"
    )


def gradient_is_finite(norm: float, state: TrainState, log: RunLog) -> bool:
    """Whether to make the update. One that would not be finite is left out, and too many in a row are an error."""
    if math.isfinite(norm):
        state.skipped = 0
        return True
    state.skipped += 1
    log.warn(f"step {state.step}: the gradient is not finite; update left out ({state.skipped} in a row)")
    if state.skipped >= MOST_SKIPPED:
        raise UserError(
            f"step {state.step}: {MOST_SKIPPED} gradients in a row were not finite; lower optim.lr or set train.amp=off"
        )
    return False


def evaluate_step(state: TrainState, run: Run) -> bool:
    """Evaluates, writes the figures, and says whether this is the best evaluation so far.

    The last evaluation is of a model with precise batch statistics, where the config asks for them, and leaves its
    detections in the run, a COCO results file.
    """
    at_the_end = state.step == run.config.train.steps
    if at_the_end and run.config.train.precise_bn and not make_precise(state.model, run):
        raise leave(state, run)
    try:
        metrics, results = figures_and_results(state, run)
    except Interrupted:
        raise leave(state, run) from None
    state.evaluated, run.metrics = state.step, metrics
    proposes = run.config.task == "detection" and run.config.model.box_head is None
    name, words = HEADLINES["proposals" if proposes else run.config.task]
    headline = metrics[name]
    improved = headline is not None and (state.best is None or headline > state.best)
    if improved:
        state.best, state.best_step = headline, state.step
    if run.world.leads:
        run.log.metrics(state.step, metrics)
        backend = None if results is None else backend_name(run.config.eval.backend)
        kept = results if at_the_end else None
        run.files.write_evaluation(metrics, step=state.step, backend=backend, results=kept)
    described = "undefined: no ground truth" if headline is None else f"{headline:.4f}"
    run.log.say(f"step {state.step}: {words} {described}{' (the best so far)' if improved else ''}")
    return improved


def figures_and_results(state: TrainState, run: Run) -> tuple[Metrics, CocoResults | None]:
    """The figures of the val set, and a detector's detections. Raises Interrupted on a signal."""
    model, config, world, stop, progress = state.model, run.config, run.world, run.stop, run.log.evaluating
    train_set, val_set = run.train_set, run.val_set
    if isinstance(train_set, LabelledImages) and isinstance(val_set, LabelledImages):
        figures = evaluate_classifier(model, train_set, val_set, config, world=world, stop=stop, progress=progress)
        return figures, None
    assert isinstance(val_set, CocoDataset)
    results = predict_dataset(model, val_set, config, world=world, stop=stop, progress=progress)
    return evaluate(model, val_set, config, results=results, world=world), results


def finish(state: TrainState, run: Run) -> Metrics:
    """The figures of the last evaluation, read back when the run had ended before."""
    if not run.metrics:
        run.log.say(f"finished at step {state.step} before; raise train.steps to go on, or start a new --output")
        run.metrics = run.files.written_figures()
    return run.metrics
