"""What all tests share: a cache of their own, no calls home, one thread, the quick tests, no skipped promise in CI."""

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

import reliability
from fault_rows import TESTS_OF_FAULTS, is_of_a_fault
from guarantee_rows import SHARED, forbid_skip

CACHE = tempfile.TemporaryDirectory(prefix="resdet-tests-")
if "PYTEST_XDIST_WORKER" in os.environ:  # a cache of its own: some tests damage what another one may just be reading
    os.environ["RESDET_CACHE"] = CACHE.name
_ = os.environ.setdefault("RESDET_CACHE", CACHE.name)
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

TESTS = Path(__file__).parent
# Laws and pencils: no detector is built, no process started. `-m quick` reads these files alone.
QUICK = (
    "coco/test_results.py",
    "coco/test_run_lengths.py",
    "coco/test_segmentation.py",
    "config",
    "data/batches/test_samplers.py",
    "data/images/test_transforms.py",
    "docs/test_guarantees.py",
    "evaluation/analysis/test_errors.py",
    "evaluation/test_coco.py",
    "evaluation/test_metrics.py",
    "evaluation/test_voc.py",
    "models/backbones/test_norms.py",
    "models/test_losses.py",
    "models/test_necks.py",
    "ops/test_anchors.py",
    "ops/test_array_boxes.py",
    "ops/test_box_coder.py",
    "ops/test_boxes.py",
    "ops/test_matching.py",
    "ops/test_nms.py",
    "ops/test_roi_align.py",
    "ops/test_sampling.py",
    "test_files.py",
    "test_mutants.py",
    "test_outputs.py",
    "test_text.py",
    "test_time/configured_views.py",
    "test_time/test_voting.py",
    "weights/test_contract.py",
)


def is_quick(file: Path) -> bool:
    return any(file.is_relative_to(TESTS / name) for name in QUICK)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Importing the other files takes longer than the quick tests."""
    if config.option.markexpr == "quick" and collection_path.name.startswith("test_") and collection_path.suffix:
        return not is_quick(collection_path)
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_quick(item.path) and not item.get_closest_marker("slow"):
            item.add_marker("quick")
        if is_of_a_fault(item.path, getattr(item, "originalname", item.name)):
            item.add_marker("fault")


RESULTS: dict[str, bool] = {}  # of the tests of the table of faults, by file::name below tests/


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Every case of a test must pass in all its phases."""
    test = report.nodeid.partition("[")[0].removeprefix("tests/")
    RESULTS[test] = RESULTS.get(test, True) and report.passed


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Only a run of all the tests of the table writes the page."""
    if session.config.option.markexpr == "fault" and RESULTS.keys() >= TESTS_OF_FAULTS:
        _ = reliability.PAGE.write_text(reliability.page(RESULTS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return forbid_skip(report, ci=bool(os.environ.get("CI")), shared=SHARED.is_dir())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads of a loaded machine wait for each other."""
    import torch  # not needed to collect

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
