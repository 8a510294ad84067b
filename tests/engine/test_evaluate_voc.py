"""Pascal VOC's figure beside COCO's at the end of a run, on a data set in VOC's layout."""

from typing import Literal

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from resdet.config import Config
from resdet.data.batches.loader import open_split
from resdet.engine.evaluate import evaluate
from resdet.structures import Batch, Detections


class FindsWhatIsNotDifficult(nn.Module):
    """Answers with the targets that are to be learned."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def predict(self, batch: Batch) -> Detections:
        targets = batch.targets
        assert targets is not None
        wanted = targets.valid & ~targets.crowd
        return Detections(targets.boxes, wanted.float() * 0.9, targets.labels, wanted)


@pytest.fixture
def voc(nano: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """One image with a car and a difficult car."""
    root = tmp_path_factory.mktemp("cars")
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    assert cv2.imwrite(str(root / "JPEGImages/1.jpg"), np.zeros((64, 64, 3), np.uint8))
    _ = (root / "ImageSets/Main/val.txt").write_text("1\n")
    cars = "".join(
        f"<object><name>car</name><difficult>{difficult}</difficult><bndbox><xmin>{x}</xmin><ymin>1</ymin>"
        f"<xmax>{x + 19}</xmax><ymax>20</ymax></bndbox></object>"
        for difficult, x in ((0, 1), (1, 31))
    )
    _ = (root / "Annotations/1.xml").write_text(
        f"<annotation><size><width>64</width><height>64</height></size>{cars}</annotation>"
    )
    nano.data.val.annotations, nano.data.val.images = f"{root}/ImageSets/Main/val.txt", f"{root}/JPEGImages"
    return nano


@pytest.mark.parametrize("metric", ["voc07", "voc12"])
def test_difficult_objects_count_for_coco_and_not_for_voc(voc: Config, metric: Literal["voc07", "voc12"]) -> None:
    voc.eval.metric = metric
    figures = evaluate(FindsWhatIsNotDifficult(), open_split(voc.data, "val"), voc)
    assert figures["voc/AP50"] == figures["voc/AP50/car"] == pytest.approx(1)
    assert figures["bbox/AP50"] == pytest.approx(51 / 101)  # half of the objects


def test_without_being_asked_for_the_figure_is_left_out(voc: Config) -> None:
    figures = evaluate(FindsWhatIsNotDifficult(), open_split(voc.data, "val"), voc)
    assert not [name for name in figures if name.startswith("voc/")]
