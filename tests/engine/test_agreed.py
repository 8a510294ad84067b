"""Several processes stop at the same step, and no step waits for their agreement."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_distributed import in_processes, start_processes
from typing_extensions import override

from resdet.config import Config, load_config
from resdet.data.batches.loader import LoadedBatch
from resdet.data.sets.shapes import shapes_folder
from resdet.engine.checkpoint import checkpoints
from resdet.engine.distributed import World
from resdet.engine.signals import StopRequest
from resdet.engine.train import train
from resdet.engine.train.agreed import AgreedBatches
from resdet.errors import UserError
from resdet.structures import Batch


class Two(World):
    """A process of two; the other one answers what the test says, and `asked` are this one's flags."""

    def __init__(self, others: list[bool]) -> None:
        super().__init__(size=2)
        self.__dict__.update(others=iter(others), asked=[])

    @override
    def ask_any(self, flag: bool) -> Callable[[], bool]:  # as in World
        self.__dict__["asked"].append(flag)
        other = next(self.__dict__["others"])
        return lambda: flag or other


def batches_of(read: list[int], count: int = 10, *, bad: int | None = None) -> Iterator[LoadedBatch]:
    """Batches whose images have the batch's number as their size."""
    for number in range(count):
        if number == bad:
            raise UserError(f"batch {number} cannot be read")
        read.append(number)
        yield LoadedBatch(Batch(torch.zeros(1, 3, 4, 4), torch.tensor([[number, number]])), ())


def number_of(loaded: LoadedBatch | None) -> int | None:
    return None if loaded is None else int(loaded.batch.sizes[0, 0])


def test_alone_a_batch_is_read_when_it_is_needed() -> None:
    read: list[int] = []
    batches = AgreedBatches(batches_of(read), World(), StopRequest())
    assert number_of(batches.next(more=True)) == 0
    assert read == [0]


def test_one_of_several_reads_one_batch_ahead_and_asks_about_it() -> None:
    read: list[int] = []
    world = Two([False] * 10)
    batches = AgreedBatches(batches_of(read), world, StopRequest())
    assert number_of(batches.next(more=True)) == 0
    assert read == [0, 1]
    assert number_of(batches.next(more=False)) == 1, "none is read beyond the last step"
    assert read == [0, 1]
    assert world.__dict__["asked"] == [False, False]


def test_all_stop_where_another_process_has_no_batch() -> None:
    batches = AgreedBatches(batches_of([]), Two([False, False, True]), StopRequest())
    assert [number_of(batches.next(more=True)) for _ in range(3)] == [0, 1, None]
    assert batches.problem is None


def test_the_batches_before_one_that_cannot_be_read_are_given() -> None:
    batches = AgreedBatches(batches_of([], bad=2), Two([False] * 5), StopRequest())
    assert [number_of(batches.next(more=True)) for _ in range(3)] == [0, 1, None]
    assert str(batches.problem) == "batch 2 cannot be read"


def test_a_signal_stops_after_the_batches_that_were_agreed() -> None:
    stop = StopRequest()
    batches = AgreedBatches(batches_of([]), Two([False] * 5), stop)
    assert number_of(batches.next(more=True)) == 0
    stop.signal_name = "SIGTERM"
    assert number_of(batches.next(more=True)) == 1
    assert batches.next(more=True) is None


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_of_two_processes_stops_both_at_the_same_step_which_is_saved(
    tmp_path: Path, nano_arguments: list[str], rank: int
) -> None:
    config, *rest = [*nano_arguments, "train.steps=1000", "train.checkpoint_every=1000000", "train.batch_size=4"]
    run = tmp_path / "run"
    processes = start_processes(2, [config, *rest, "--output", str(run)])
    while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_text():
        time.sleep(0.1)
        assert all(process.poll() is None for process in processes)
    processes[rank].send_signal(signal.SIGTERM)
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [143, 143], said
    (saved,) = checkpoints(run)
    step = int(saved.name.removeprefix("step_"))
    logged = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert logged == list(range(1, step + 1)), "no step is lost or made twice"
    assert f"at step {step}, saved" in said[0]


def images_with_one_that_cannot_be_read(folder: Path) -> list[str]:
    source = shapes_folder(train_images=8, val_images=4, size=64, max_objects=4, seed=0)
    truth = json.loads((source / "annotations/instances_train.json").read_text())
    for image in truth["images"]:
        Image.open(source / "train" / image["file_name"]).save(folder / image["file_name"])
    _ = (folder / truth["images"][5]["file_name"]).write_bytes(b"no image")
    _ = (folder / "truth.json").write_text(json.dumps(truth))
    return [f"data.train.annotations={folder / 'truth.json'}", f"data.train.images={folder}"]


def test_an_image_that_one_of_two_cannot_read_is_one_line_and_the_steps_before_it_are_saved(
    tmp_path: Path, nano_arguments: list[str]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    config, *rest = [*nano_arguments, "train.batch_size=2", "train.steps=8", "train.checkpoint_every=1000"]
    run = tmp_path / "run"
    done = in_processes(2, [config, *rest, *images_with_one_that_cannot_be_read(folder), "--output", str(run)])
    assert [process.returncode for process in done] == [2, 2], [process.stderr for process in done]
    (line,) = [line for process in done for line in process.stderr.splitlines() if line.startswith("error: ")]
    assert "is saved, go on from it with --resume" in line
    (saved,) = checkpoints(run)
    step = int(saved.name.removeprefix("step_"))
    alone: Config = load_config(config, overrides=[*rest, *images_with_one_that_cannot_be_read(folder)])
    with pytest.raises(UserError, match=f"step {step} is saved"):
        _ = train(alone, tmp_path / "alone")
