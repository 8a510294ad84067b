"""`resdet score`: what it prints, writes and refuses, and that it starts without torch."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from resdet.cli import score
from resdet.errors import UserError
from resdet.version import __version__

TRUTH: dict[str, Any] = {
    "images": [{"id": 1, "height": 50, "width": 50}],
    "categories": [{"id": 1, "name": "[red]cat"}, {"id": 2, "name": "bird/tit"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 20], "area": 400}],
}
RESULTS = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 20], "score": 0.9}]


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    for name, content in (("truth", TRUTH), ("results", RESULTS)):
        _ = (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return str(tmp_path / "truth.json"), str(tmp_path / "results.json")


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    score.add_arguments(parser)
    return score.run(parser.parse_args(arguments))


def test_the_table_shows_every_figure_and_class(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*files, "--backend", "pycocotools") == 0
    printed = capsys.readouterr().out
    for word in ("by pycocotools", "bbox/AP50", "1.000", "[red]cat", "bird/tit", "1 of 1 annotations without iscrowd"):
        assert word in printed


@pytest.mark.parametrize(
    ("metric", "names"),
    [
        ("coco", {"bbox/AP", "bbox/ARl", "bbox/AP/[red]cat", "bbox/AR/bird/tit"}),
        ("voc07", {"voc/AP50", "voc/AP50/bird/tit"}),
        ("voc12", {"voc/AP50", "voc/AP50/bird/tit"}),
        ("recall", {"recall/AR100", "recall/AR300", "recall/AR1000", "recall/ARs100"}),
    ],
)
def test_the_json_file_is_one_flat_object(files: tuple[str, str], tmp_path: Path, metric: str, names: set[str]) -> None:
    output = tmp_path / "figures.json"
    assert run(*files, "--metric", metric, "--json", str(output)) == 0
    figures = json.loads(output.read_text())
    assert names <= set(figures)
    assert figures.pop("resdet") == __version__
    assert figures.pop("backend").startswith(("pycocotools ", "hotcoco ", "resdet"))
    assert all(value is None or 0 <= value <= 1 for value in figures.values())
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_names_from_files_cannot_steer_the_terminal_or_break_the_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [{"id": 1, "name": "\x1b[31mred"}, {"id": 2, "name": "half \ud800"}, {"id": 3, "name": "猫"}]
    truth, results, output = (str(tmp_path / name) for name in ("truth.json", "results.json", "figures.json"))
    _ = Path(truth).write_text(json.dumps({**TRUTH, "categories": names}))
    _ = Path(results).write_text(json.dumps(RESULTS))
    assert run(truth, results, "--json", output) == 0
    assert "\x1b[31mred" not in capsys.readouterr().out
    assert {"bbox/AP/\x1b[31mred", "bbox/AP/half ?", "bbox/AP/猫"} <= set(json.loads(Path(output).read_text("utf-8")))


def test_a_file_that_cannot_be_written_is_named(files: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        _ = run(*files, "--json", str(tmp_path / "absent" / "figures.json"))


def test_voc_figures_are_of_boxes(files: tuple[str, str]) -> None:
    with pytest.raises(UserError, match="leave out --iou-type"):
        _ = run(*files, "--metric", "voc07", "--iou-type", "segm")


def test_errors_and_a_comparison_are_printed_on_demand(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.json"
    _ = other.write_text("[]")
    assert run(*files, "--errors", "--against", str(other)) == 0
    printed = capsys.readouterr().out
    for words in ("Errors at IoU .5", "AP50 lost", "localization", "other.json (1 images drawn 1,000 times", "+1.000"):
        assert words in printed
    with pytest.raises(UserError, match="leave out --metric voc12"):
        _ = run(*files, "--metric", "voc12", "--errors")
    with pytest.raises(UserError, match="is the results file itself"):
        _ = run(*files, "--against", files[1])


def test_ground_truth_may_be_a_split_in_vocs_layout(files: tuple[str, str], tmp_path: Path) -> None:
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>20</ymax></bndbox>"
    _ = (tmp_path / "Annotations/a.xml").write_text(
        "<annotation><size><width>50</width><height>50</height></size>"
        f"<object><name>cat</name>{box}</object></annotation>"
    )
    split, output = tmp_path / "ImageSets/Main/test.txt", tmp_path / "figures.json"
    _ = split.write_text("a\n")
    assert run(str(split), files[1], "--metric", "voc12", "--json", str(output)) == 0
    assert json.loads(output.read_text())["voc/AP50/cat"] == 1


@pytest.mark.parametrize("metric", ["coco", "voc12", "recall"])
def test_scoring_imports_no_torch(files: tuple[str, str], metric: str) -> None:
    code = (
        "import argparse, sys; from resdet.cli import score; parser = argparse.ArgumentParser();"
        "score.add_arguments(parser); assert 'numpy' not in sys.modules;"
        "score.run(parser.parse_args(sys.argv[1:])); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, *files, "--metric", metric], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_unknown_metric_is_refused_with_a_suggestion(files: tuple[str, str]) -> None:
    with pytest.raises(UserError, match="--metric=voc21 is not known; did you mean 'voc12'"):
        _ = run(*files, "--metric", "voc21")
