"""The training loop, which can be read from top to bottom."""

from __future__ import annotations

from resdet.config import Config
from resdet.engine.compilation import compiled_graphs
from resdet.engine.evaluate import Interrupted
from resdet.engine.pace import Forecast, Meter
from resdet.engine.run_folder import Figures
from resdet.engine.task.interface import Evaluation
from resdet.engine.train.agreed import AgreedBatches
from resdet.engine.train.budget import budget_of, fit_to_time
from resdet.engine.train.precise_bn import make_precise
from resdet.engine.train.saving import leave, save
from resdet.engine.train.sharded import prepared
from resdet.engine.train.state import Run, TrainState
from resdet.engine.train.trace import traced
from resdet.engine.train.update import settle, update
from resdet.errors import UserError


def fit(state: TrainState, run: Run) -> Figures:
    """The training loop."""
    log = run.log
    # A signal interrupted an evaluation. The last evaluation may also have changed the model (precise BN).
    if due_for_evaluation(state, run.config) and (evaluate_step(state, run) or state.is_over(run.config)):
        save(state, run)
    batches = batches_from(state, run)
    losses_of = prepared(state, run)
    meter = Meter(run.config.train.batch_size)
    forecast = Forecast(run.config.train.steps - state.step, run.device.type)
    budget = budget_of(state, run)
    with traced(run) as trace:
        while not state.is_over(run.config):
            with meter.waiting():
                loaded = batches.next(more=state.step + 1 < run.config.train.steps)
            if loaded is None:
                raise leave(state, run, batches.problem)

            record = update(state, run, losses_of, loaded)
            trace()
            if budget and not state.fitted:
                fit_to_time(state, run, budget)
                if state.fitted and run.config.data.augment.transforms:  # train.steps says until when images are mixed
                    batches = batches_from(state, run)
            config, steps = run.config, run.config.train.steps
            meter.step()
            if is_read_after(state, config):
                record = settle(state, run)
            log.progress(state.step, record)
            if (estimate := forecast.after_step()) and run.config.train.minutes is None:
                log.say(estimate)
            if due(state.step, config.train.log_every) or state.step == steps:
                log.training(state.step, steps, record | meter.figures(steps - state.step) | dropped(state, run))
            improved = due_for_evaluation(state, config) and evaluate_step(state, run)
            if improved or due(state.step, config.train.checkpoint_every) or state.is_over(config):
                save(state, run)
    return finish(state, run)


def batches_from(state: TrainState, run: Run) -> AgreedBatches:
    """The batches of the steps that are left."""
    rank, size = run.world.rank, run.world.size
    batches = run.task.training_batches(run.train_set, run.config, start_step=state.step, rank=rank, world_size=size)
    return AgreedBatches(batches, run.world, run.stop)


def dropped(state: TrainState, run: Run) -> dict[str, float]:
    """How many objects a list of transforms has removed since the last line of the log, over all processes; the count
    begins anew.
    """
    if not run.task.has_detections or run.config.data.augment.transforms is None:
        return {}
    own, state.dropped = state.dropped, 0
    return {"dropped_objects": float(sum(run.world.gather(own)))}


def due(step: int, every: int) -> bool:
    """Whether an action with the period `every` is due after update number `step`; with `every` 0 it is never due."""
    return every > 0 and step > 0 and step % every == 0


def is_read_after(state: TrainState, config: Config) -> bool:
    """Whether the last update is logged, saved or evaluated, so that its result must be known."""
    periods = (config.train.log_every, config.train.checkpoint_every, config.eval.every)
    return state.is_over(config) or any(due(state.step, every) for every in periods)


def due_for_evaluation(state: TrainState, config: Config) -> bool:
    """Due after every `eval.every` steps and at the end; the end counts once."""
    return state.evaluated != state.step and (state.is_over(config) or due(state.step, config.eval.every))


def evaluate_step(state: TrainState, run: Run) -> bool:
    """Evaluates, writes the figures, and returns whether this is the best evaluation so far.

    If the config requires it, the last evaluation uses a model with precise batch statistics. It also writes its
    detections into the run as a COCO results file.
    """
    state.gather()
    at_the_end = state.is_over(run.config)
    if at_the_end and run.config.train.precise_bn and not make_precise(state.scored, run):
        raise leave(state, run)
    evaluation = evaluated(state, run)
    for note in evaluation.notes:
        run.log.warn(note)
    state.evaluated, run.metrics = state.step, evaluation.figures
    value = evaluation.figures.get(run.goal.name)
    improved = run.goal.improves(value, state.best)
    if not state.out_of_patience(run.config):  # an end stays an end
        state.stale = 0 if improved else state.stale + 1
    if improved:
        state.best, state.best_step = value, state.step
    ends = state.out_of_patience(run.config) and not at_the_end
    write_evaluation(evaluation, state, run, with_results=at_the_end or ends)
    described = "undefined: no ground truth" if value is None else f"{value:.4f}"
    run.log.say(f"step {state.step}: {run.goal.words} {described}{' (the best so far)' if improved else ''}")
    if ends:
        run.log.say(f"{state.stale} evaluations without a better {run.goal.words}: training ends (train.patience)")
    if ends and run.config.train.precise_bn:
        state.evaluated = 0  # once more, with precise statistics; also after an interruption
        return evaluate_step(state, run) or improved
    return improved


def evaluated(state: TrainState, run: Run) -> Evaluation:
    """The evaluation of the model; a signal or an error leaves the training after the state is saved."""
    try:
        return run.task.evaluate(
            state.scored,
            run.train_set,
            run.val_set,
            run.config,
            world=run.world,
            stop=run.stop,
            progress=run.log.evaluating,
        )
    except Interrupted:
        raise leave(state, run) from None
    except UserError as problem:  # the same in every process
        raise leave(state, run, problem) from None
    except Exception:  # an error of resdet: no step is lost
        if run.world.size == 1:
            save(state, run)
        raise


def write_evaluation(evaluation: Evaluation, state: TrainState, run: Run, *, with_results: bool) -> None:
    """Writes the figures. An error of the disk is a warning; at the end it is a UserError, after the state was saved,
    so that a resume evaluates again.
    """
    failure = None
    if run.world.leads:
        run.log.metrics(state.step, evaluation.figures)
        kept = evaluation.counted if with_results else None
        try:
            run.files.write_evaluation(
                evaluation.figures,
                step=state.step,
                backend=evaluation.backend,
                results=kept,
                ended=ended_by(state, run.config) if with_results else None,
            )
        except UserError as error:
            failure = str(error)
    failure = run.world.from_lead(failure)
    if failure is None:
        return
    if with_results:
        state.evaluated = 0
        raise leave(state, run, UserError(failure))
    run.log.warn(f"step {state.step}: {failure}")


def ended_by(state: TrainState, config: Config) -> str | None:
    """The key that ended a training at another step than a config alone tells."""
    keys = {"patience": state.out_of_patience(config), "minutes": state.fitted, "epochs": config.train.epochs}
    return next((f"train.{key}={getattr(config.train, key):g}" for key, is_it in keys.items() if is_it), None)


def finish(state: TrainState, run: Run) -> Figures:
    """The figures of the last evaluation; they are read from the run if it had already ended before."""
    if run.world.any(run.stop.requested):
        raise leave(state, run)
    if run.config.train.compile:
        run.log.say(f"train.compile: {compiled_graphs()} graphs for {len(run.shapes)} shapes of batches")
    if not run.metrics:
        what = (ended_by(state, run.config) or "train.steps").partition("=")[0]
        run.log.say(f"finished at step {state.step} before; raise {what} to go on, or start a new --output")
        run.metrics = run.files.written_figures()
    return run.metrics
