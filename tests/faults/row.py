"""A row of the table of faults, and the files of tests that several rows name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """A row of the list of faults. A test is written as file::name below tests/; a row may have none yet."""

    row: str
    fault: str
    verdict: str
    tests: tuple[str, ...] = ()


COCO = "data/sets/test_coco.py"
DECODE = "data/images/test_decode.py"
LIMITS = "engine/test_limits.py"
LOADER = "data/batches/test_loader.py"
CHECKPOINT = "engine/test_checkpoint.py"
TRAIN = "engine/test_train.py"
BAD_STEPS = "engine/test_bad_steps.py"
STOPPED_RUNS = "engine/test_stopped_runs.py"
READ = "weights/test_read.py"
PICKLE = "weights/test_safe_pickle.py"
WORKERS = "engine/test_failing_workers.py"
FOLDER = "engine/test_one_training_a_folder.py"
STOPPED = "engine/test_stopped_early.py"
DISK = "engine/test_full_disk.py"
ORDER = "engine/test_order_of_writes.py"
FOREIGN = "engine/test_foreign_files.py"
RESUMED = "engine/test_resumed.py"
ENDED = "engine/test_ended_processes.py"
REFUSED = "engine/test_refused_sets.py"


def of(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{file}::test_{name}" for name in names)
