"""The loader of a detector beside other libraries': the same images and objects, and figures with the right names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from resdet.analysis.benchmark.detection_loading import as_coco, benchmark_detection_loading
from resdet.analysis.benchmark.loading_peers import Detectron2Like, TorchvisionReference
from resdet.cli.main import main
from resdet.coco.reader import annotations_from_dict
from resdet.config import Config, load_config
from resdet.data.batches.loader import open_split
from resdet.errors import UserError

# pycocotools' decode
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
OVERRIDES = ["data.shapes.train_images=6", "data.shapes.val_images=2", "train.batch_size=2", "data.augment.flip=1.0"]


def config(*overrides: str) -> Config:
    return load_config("nano", overrides=[*OVERRIDES, *overrides])


@pytest.mark.parametrize("masks", [False, True])
def test_figures_of_all_loaders(*, masks: bool) -> None:
    chosen = config(*(["model.mask_head={name: fcn}"] if masks else []))
    results = benchmark_detection_loading(chosen, against="torchvision", pairs=1, images=5)
    names = ("our", "decode", "torchvision", "detectron2_like")
    assert (results["images"], results["pairs"], results["masks"]) == (4, 1, int(masks))
    assert min(float(results[f"load/{name}_images_per_second"]) for name in names) > 0
    assert {name for name in names if f"load/{name}_ratio" in results} == set(names) - {"our"}
    alone = benchmark_detection_loading(chosen, against=None, pairs=1, images=2)
    assert "load/torchvision_ratio" not in alone


def test_the_peers_get_the_same_objects(tmp_path: Path) -> None:
    """Mirrored with probability 1: a mask's pixels lie in its box, which is that of the file, mirrored."""
    chosen = config("model.mask_head={name: fcn}")
    dataset = open_split(chosen.data, "train")
    file = tmp_path / "a.json"
    _ = file.write_text(json.dumps(as_coco(dataset)))
    content = annotations_from_dict(json.loads(file.read_text()))
    np.testing.assert_allclose(content.boxes, dataset.boxes, atol=1e-3)
    assert content.masks.present().all()
    one, two = TorchvisionReference(file, chosen), Detectron2Like(file, chosen)
    for index in range(len(dataset)):
        image, target = one.samples[index]
        sample = two.mapped({**two.coco.dataset["images"][index]})
        assert image.shape == sample["image"].shape
        scale = image.shape[2] / int(dataset.widths[index])
        boxes = dataset.boxes[dataset.rows(index)] * scale
        mirrored = np.stack((image.shape[2] - boxes[:, 2], boxes[:, 1], image.shape[2] - boxes[:, 0], boxes[:, 3]), 1)
        for found in (target, sample):
            np.testing.assert_allclose(found["boxes"].numpy(), mirrored, atol=0.51)
            for mask, (x1, y1, x2, y2) in zip(found["masks"].numpy(), mirrored, strict=True):
                rows, columns = np.nonzero(mask)
                assert x1 - 2 <= columns.min() <= columns.max() <= x2 + 2
                assert y1 - 2 <= rows.min() <= rows.max() <= y2 + 2


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "times.json"
    arguments = ["benchmark", "nano", *OVERRIDES, "--data", "--against", "torchvision", "--pairs", "1", "--images", "2"]
    assert main([*arguments, "--json", str(file)]) == 0
    assert "times the time of ours" in capsys.readouterr().out
    assert json.loads(file.read_text())["load/torchvision_ratio"] > 0


def test_too_few_images_are_an_error() -> None:
    with pytest.raises(UserError, match=r"has fewer than train\.batch_size=16 images with objects"):
        _ = benchmark_detection_loading(config("train.batch_size=16"), against=None, pairs=1)
