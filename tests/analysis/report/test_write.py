"""The report is one well-formed file that needs nothing else, escapes every name and says what is missing."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as pycocotools_mask

from resdet.analysis.report import write_report
from resdet.analysis.report.write import LARGEST, report_html
from resdet.engine.run_folder import read_run
from resdet.errors import UserError

coco_mask: Any = pycocotools_mask
MakeRun = Callable[..., Path]
VOID = {"meta", "link", "input", "br", "wbr", "img", "hr"}
ALL = ["figures", "training", "mistakes", "worst", "gallery", "data", "config"]


class Reader(HTMLParser):
    """Collects elements with their attributes; complains about tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), "an attribute twice"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def with_class(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.elements if name in (attributes.get("class") or "").split()]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def read(run: Path) -> Reader:
    return Reader(write_report(run).read_text(encoding="utf-8"))


def test_a_whole_run_has_every_section_in_the_contents(make_run: MakeRun):
    page = read(make_run())
    sections = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert sections == ALL
    assert links == [f"#{anchor}" for anchor in ALL]


def test_nothing_on_the_page_comes_from_elsewhere(make_run: MakeRun):
    page = read(make_run())
    for _, attributes in page.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), attributes
        assert not any(name.startswith("on") or name == "style" for name in attributes)
    policy = next(attributes["content"] for tag, attributes in page.elements if "http-equiv" in attributes)
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy


def test_names_out_of_data_are_text_and_never_markup(make_run: MakeRun):
    page = read(make_run())
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert not any(tag in ("img", "b") for tag, _ in page.elements)
    assert "<script>alert(1)</script>" in page.words
    assert 'a"><img src=x onerror=alert(4)>.png' in page.words
    assert "my <b>run" in page.words


def test_the_summary_counts_what_is_found_and_what_is_right(make_run: MakeRun):
    words = read(make_run()).words
    # At 0.5 and above three boxes are left, of which one is right; it finds one of four objects.
    assert "it finds 1 of 4 objects (25%)" in words
    assert "1 of its 3 boxes are right (33%)" in words


def test_the_gallery_has_every_detection_with_its_score(make_run: MakeRun):
    page = read(make_run())
    found = [element for element in page.with_class("found") if "mark" in (element["class"] or "").split()]
    assert sorted(element["data-score"] or "" for element in found) == ["0.3000", "0.8000", "0.9000"]  # image 4 is bare
    hidden = [element["data-score"] for element in found if "below" in (element["class"] or "").split()]
    assert hidden == ["0.3000"]


def test_objects_beyond_those_that_are_drawn_are_counted(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch):
    """One of image 1's two objects is drawn, the larger one where sizes differ; captions give both numbers."""
    monkeypatch.setattr("resdet.analysis.report.pictures.MOST_MARKS", 1)
    words = Reader(report_html(read_run(make_run()))).words
    assert "ground truth: 2, 1 drawn" in words
    assert "predictions: 2, 1 drawn" in words
    assert "ground truth: 1 predictions: 1" in words


def test_worst_images_have_missed_and_false_boxes(make_run: MakeRun):
    page = read(make_run())
    marks = [set((element["class"] or "").split()) for element in page.with_class("mark")]
    # Missed at a score of 0.5: the second object of image 1, that of image 2 and that of image 3.
    assert sum("missed" in mark for mark in marks) == 3
    assert sum("false" in mark for mark in marks) == 2  # a wrong class in image 1, a box on nothing in image 4
    assert sum("right" in mark for mark in marks) == 1


def test_masks_are_outlined(make_run: MakeRun):
    square = np.zeros((48, 64), np.uint8, order="F")
    square[4:24, 4:24] = 1
    mask = coco_mask.encode(square)
    mask["counts"] = mask["counts"].decode()
    found = {"image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 20], "score": 0.9, "segmentation": mask}
    page = read(make_run([found], masks=True))
    assert "mask AP" in page.words
    assert "AP50 that errors of masks cost" in page.words
    paths = [attributes["d"] for tag, attributes in page.elements if tag == "path"]
    scale = 300 / 64  # units of the viewBox a pixel; an outline runs through the middles of the outermost pixels
    low, high = f"{4.5 * scale:.1f}", f"{23.5 * scale:.1f}"
    corners = {f"{x} {y}" for x in (low, high) for y in (low, high)}
    assert any(set(re.split("[MLZ]+", path or "")[1:-1]) == corners for path in paths)


@pytest.mark.parametrize(
    ("absent", "sentence", "anchors"),
    [
        ("predictions.json", "resdet evaluate", ["figures", "training", "mistakes", "data", "config"]),
        ("data_report.json", "no readable data_report.json", ALL),
    ],
)
def test_a_missing_part_is_left_out_with_a_sentence(make_run: MakeRun, absent: str, sentence: str, anchors: list[str]):
    run = make_run()
    (run / absent).unlink()
    page = read(run)
    assert [attributes["id"] for tag, attributes in page.elements if tag == "section"] == anchors
    assert sentence in page.words


def test_without_eval_json_the_last_evaluation_of_the_metrics_counts(make_run: MakeRun):
    run = make_run()
    expected = json.loads((run / "eval.json").read_text())
    (run / "eval.json").unlink()
    folder = read_run(run)
    assert folder.step == 40
    assert folder.figures == {name: value for name, value in expected.items() if name not in ("backend", "step")}


def test_missing_images_and_annotations_are_said_on_the_page(make_run: MakeRun):
    run = make_run()
    _ = (run.parent / "images" / "one.png").write_bytes(b"no image")
    assert "1 images cannot be read and are left out, the first:" in read(run).words
    (run.parent / "truth.json").unlink()
    page = read(run)
    assert "Not shown:" in page.words
    assert "truth.json" in page.words


def test_damaged_lines_are_left_out_and_counted(make_run: MakeRun):
    run = make_run()
    with (run / "metrics.jsonl").open("ab") as file:
        _ = file.write(b'{"step": 41, "loss": 0.\n\xff\xfe\n[1, 2]\n"step"\n')
    _ = (run / "eval.json").write_text('{"bbox/AP": 0.')
    folder = read_run(run)
    assert len(folder.records) == 42
    assert folder.notes == ["metrics.jsonl: 4 of 46 lines are damaged, the first is line 43", "eval.json: is damaged"]
    assert "eval.json: is damaged" in read(run).words


def test_damaged_predictions_are_said_on_the_page(make_run: MakeRun):
    run = make_run()
    _ = (run / "predictions.json").write_text('[{"image_id": 99, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]')
    page = read(run)
    assert "Not shown:" in page.words
    assert "predictions.json" in page.words


def test_predictions_of_another_evaluation_are_named(make_run: MakeRun):
    run = make_run()
    figures = json.loads((run / "eval.json").read_text())
    _ = (run / "eval.json").write_text(json.dumps({**figures, "bbox/AP50": 0.9}))
    assert "predictions.json is of another evaluation" in read(run).words


def test_a_detector_that_finds_nothing_has_a_report(make_run: MakeRun):
    words = read(make_run([])).words
    assert "it finds 0 of 4 objects (0%)" in words


@pytest.mark.parametrize("absent", ["config.yaml", "metrics.jsonl"])
def test_a_folder_that_is_no_run_is_refused(make_run: MakeRun, absent: str):
    run = make_run()
    (run / absent).unlink()
    with pytest.raises(UserError, match=f"no {absent}"):
        _ = write_report(run)


def test_an_older_report_outlives_a_failure(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch):
    run = make_run()
    path = write_report(run)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("resdet.files.os.fsync", full)
    with pytest.raises(UserError, match=r"report\.html: cannot be written \(No space left on device\)"):
        _ = write_report(run)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("height", "width"), [(16384, 1), (1, 16384)])
def test_an_image_of_one_pixel_in_a_side_has_its_picture(make_run: MakeRun, height: int, width: int):
    run = make_run()
    truth = json.loads((run.parent / "truth.json").read_text())
    truth["images"][3] |= {"height": height, "width": width}
    _ = (run.parent / "truth.json").write_text(json.dumps(truth))
    Image.new("RGB", (width, height)).save(run.parent / "images" / truth["images"][3]["file_name"])
    page = read(run)
    assert "Not shown" not in page.words
    assert "w3" in [attributes.get("id") for _, attributes in page.elements]  # it has a wrong box


def test_a_large_page_is_made_smaller_until_it_fits(make_run: MakeRun):
    assert LARGEST < 10_000_000
    run = read_run(make_run())
    whole = len(report_html(run).encode())
    pictures = re.compile("data:image/jpeg")
    assert len(pictures.findall(report_html(run))) == 3 + 4  # gallery and worst
    smaller = report_html(run, largest=whole - 1)
    assert len(smaller.encode()) < whole
    bare = report_html(run, largest=1)
    assert not pictures.findall(bare)
    assert "with them the page would be too large" in Reader(bare).words


def test_a_run_of_overfit_is_reported_on_its_training_images(make_run: MakeRun):
    run = make_run()
    config = (run / "config.yaml").read_text()
    truth, images = run.parent / "truth.json", run.parent / "images"
    for before, after in (
        (f"annotations: {truth}", "annotations: absent.json"),
        (f"images: {images}", "images: absent"),
        (
            "    name: coco2017\n    annotations: null\n    images: null",
            f"    name: coco2017\n    annotations: {truth}\n    images: {images}",
        ),
        ("overfit: null", "overfit: 2"),
    ):
        assert before in config
        config = config.replace(before, after, 1)
    _ = (run / "config.yaml").write_text(config)
    page = Reader(write_report(run).read_text())
    assert "2 images, 3 objects, 3 classes" in page.words


def test_the_same_run_gives_the_same_bytes(make_run: MakeRun):
    run = make_run()
    first, second = (re.sub("written [^<]* UTC", "", write_report(run).read_text()) for _ in range(2))
    assert first == second


def test_a_classifier_has_curves_and_figures_alone(make_run: MakeRun):
    run = make_run()
    config = (run / "config.yaml").read_text()
    _ = (run / "config.yaml").write_text(config.replace("task: detection", "task: classification"))
    _ = (run / "eval.json").write_text('{"top1/error": 0.25, "top1/accuracy": 0.75, "step": 40}')
    page = read(run)
    sections = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    assert sections == ["figures", "training", "data", "config"]
    assert "top-1 accuracy 0.750" in page.words


def test_what_ended_the_training_is_said(make_run: MakeRun):
    run = make_run()
    figures = json.loads((run / "eval.json").read_text())
    _ = (run / "eval.json").write_text(json.dumps({**figures, "ended": "train.patience=3"}))
    assert "step 40 of 40, ended by train.patience=3" in read(run).words
