"""All that a training can switch on, together and in two processes: a resumed run is the uninterrupted one."""

import shutil
from pathlib import Path

from exact_resume import assert_same, logged
from test_distributed import in_processes

from resdet.engine.checkpoint import MODEL, checkpoint_path, checkpoints, read_model_file, read_state

EVERYTHING = (
    "train.ema.decay=0.9", "train.accumulate=2", "train.batch_size=8", "train.epochs=4", "train.amp=fp16",
    "train.deterministic=true", "train.patience=3", "optim.name=timm/lion", "optim.lr=0.001",
    "optim.arguments={betas: [0.9, 0.95]}", "optim.schedule=one_cycle", "eval.every=2", "eval.loss=true",
    "eval.best=val/loss", "model.backbone.norm=bn", "model.mask_head.channels=8", "train.checkpoint_every=1",
    "train.keep_checkpoints=10",
)  # fmt: skip


def test_a_resumed_run_of_two_processes_with_everything_on_is_exact(tmp_path: Path, nano_arguments: list[str]) -> None:
    full, resumed = tmp_path / "full", tmp_path / "resumed"
    arguments = [*nano_arguments, *EVERYTHING, "--output"]
    done = in_processes(2, [*arguments, str(full)])
    assert [process.returncode for process in done] == [0, 0], done[0].stderr + done[1].stderr
    assert checkpoints(full)[-1].name == "step_00000004", "four epochs of eight images"
    _ = shutil.copytree(full, resumed)
    for path in checkpoints(resumed)[1:]:
        shutil.rmtree(path)
    done = in_processes(2, [*arguments, str(resumed), "--resume"])
    assert [process.returncode for process in done] == [0, 0], done[0].stderr + done[1].stderr
    ours, theirs = (read_model_file(checkpoint_path(run, 4) / MODEL).weights for run in (resumed, full))
    assert_same(ours, theirs, "weights")
    ours, theirs = (read_state(checkpoint_path(run, 4)) for run in (resumed, full))
    assert_same(ours, theirs, "state")
    assert logged(resumed) == logged(full)
    assert {"val/loss", "val/loss_mask", "segm/AP"} <= {name for line in logged(full) for name in line}
