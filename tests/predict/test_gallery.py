"""The drawings at the end of a training: the ground truth beside the predictions."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resdet.config import Config, MaskHeadConfig
from resdet.data.batches.loader import open_split
from resdet.data.images.decode import read_image
from resdet.data.images.masks import MaskWindow
from resdet.data.sets.coco import CocoDataset
from resdet.drawing.boxes import class_color
from resdet.engine.evaluate import predict_dataset
from resdet.engine.run_folder import RunFiles
from resdet.engine.task.table import detection_of
from resdet.engine.train import train
from resdet.errors import UserError
from resdet.evaluation.coco import CocoResults
from resdet.models.build.detector import build_model
from resdet.models.rcnn import RCNN
from resdet.predict import gallery
from resdet.predict.gallery import DRAWN_SCORE, Example, contact_sheet, draw_gallery, draw_run, spread
from resdet.predict.prediction import save_picture


@pytest.fixture
def results(model: RCNN, dataset: CocoDataset, config: Config) -> CocoResults:
    return predict_dataset(model, dataset, config)


@pytest.fixture
def names(config: Config, dataset: CocoDataset) -> dict[int, str]:
    return detection_of(config).categories(dataset)


def test_each_image_has_a_drawing_and_the_sheet_has_all(
    results: CocoResults, names: dict[int, str], dataset: CocoDataset, config: Config, tmp_path: Path
) -> None:
    overview = draw_gallery(results, names, dataset, config, tmp_path / "run", count=3)
    assert overview == tmp_path / "run" / "drawings" / "overview.jpg"
    assert sorted(path.name for path in overview.parent.iterdir()) == [
        "000000.jpg", "000002.jpg", "000003.jpg", "overview.jpg"
    ]  # fmt: skip
    assert read_image(overview.parent / "000000.jpg").shape[1] == 2 * 480 + 3 * 12
    assert read_image(overview).shape[1] == 4 * 480 + 5 * 12
    assert draw_gallery(results, names, dataset, config, tmp_path / "run", count=3) == overview


def test_files_that_are_not_ours_are_left_alone(
    results: CocoResults, names: dict[int, str], dataset: CocoDataset, config: Config, tmp_path: Path
) -> None:
    mine = tmp_path / "drawings" / "000000.jpg"
    mine.parent.mkdir()
    mine.touch()
    with pytest.raises(UserError, match="drawings: holds files that resdet did not draw"):
        _ = draw_gallery(results, names, dataset, config, tmp_path)
    assert mine.read_bytes() == b""


@pytest.mark.parametrize("saved", [0, 1, 2, 3])
def test_after_a_kill_at_any_picture_the_drawings_are_made_again(
    results: CocoResults,
    names: dict[int, str],
    dataset: CocoDataset,
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    saved: int,
) -> None:
    """The process dies in the write after `saved` pictures, which leaves a temporary file, as SIGKILL does."""
    written: list[Path] = []

    def save_until_killed(picture: Image.Image, path: Path) -> None:
        if len(written) == saved:
            _ = path.with_name(f".{path.name}.0123abcd.tmp").write_bytes(b"half a picture")
            raise KeyboardInterrupt
        written.append(path)
        save_picture(picture, path)

    monkeypatch.setattr(gallery, "save_picture", save_until_killed)
    with pytest.raises(KeyboardInterrupt):
        _ = draw_gallery(results, names, dataset, config, tmp_path, count=3)
    monkeypatch.undo()
    overview = draw_gallery(results, names, dataset, config, tmp_path, count=3)
    assert len(list(overview.parent.glob("*.jpg"))) == 4


def example(height: int, width: int) -> Example:
    box = np.array([[0.2 * width, 0.2 * height, 0.8 * width, 0.8 * height]], np.float32)
    label, score = np.zeros(1, np.int64), np.full(1, 0.9, np.float32)
    return Example("x.jpg", np.full((height, width, 3), 128, np.uint8), box, label, box, label, score)


def test_the_sheet_shows_boxes_where_they_are_and_wide_images_first() -> None:
    """Two images, 50 and 200 pixels high at a width of 100, are 240 and 960 high in a cell of 480."""
    sheet = contact_sheet([example(200, 100), example(50, 100)], ["cat"])
    assert sheet.shape[1] == 4 * 480 + 5 * 12
    colored = (sheet == class_color(0)).all(2)
    for column, height in enumerate((240, 240, 960, 960)):
        cell = colored[:, 12 + column * 492 :][:, :480]
        left, right = np.flatnonzero(cell.sum(0) > 0.5 * 0.6 * height)[[0, -1]]
        assert abs(left - 0.2 * 480) <= 4
        assert abs(right - 0.8 * 480) <= 4


@pytest.mark.parametrize("size", [(1, 1), (4000, 1), (1, 4000)])
def test_the_sheet_stays_bounded_for_any_image(size: tuple[int, int]) -> None:
    height, width, _ = contact_sheet([example(*size)], ["cat"]).shape
    assert height <= 2 * 480 + 60
    assert width == 4 * 480 + 5 * 12 or width == 2 * 480 + 3 * 12


def test_images_are_spread_over_those_with_objects(dataset: CocoDataset) -> None:
    assert spread(dataset, 2) == [0, 3]
    assert spread(dataset, 100) == [0, 1, 2, 3]


def test_true_masks_stand_beside_those_found_in_the_size_of_their_cell() -> None:
    """An image of 50 x 100 is 240 x 480 in its cell; its mask, 20 x 20 at (40, 15), is 96 x 96 at (192, 72)."""
    mask = (MaskWindow(np.ones((20, 20), np.uint8), 40, 15),)
    plain = example(50, 100)
    without = contact_sheet([plain], ["cat"])
    sheet = contact_sheet([replace(plain, true_masks=mask, masks=mask)], ["cat"])
    top = sheet.shape[0] - 12 - 240
    for column in (0, 1):
        left = 12 + column * (480 + 12)
        cell = (slice(top + 72 + 6, top + 168 - 6), slice(left + 192 + 6, left + 288 - 6))
        assert (sheet[cell] != without[cell]).any(2).mean() > 0.9
        beside = (slice(top + 72, top + 168), slice(left + 120, left + 180))
        np.testing.assert_array_equal(sheet[beside], without[beside])


def test_a_detector_of_masks_is_drawn_with_them(dataset: CocoDataset, config: Config, tmp_path: Path) -> None:
    config.model.mask_head = MaskHeadConfig(channels=8)
    assert config.model.box_head is not None
    config.model.box_head.score_threshold = 0.0
    results = predict_dataset(build_model(config.model, 8), dataset, config)
    results.scores[:] = 0.9
    assert results.segmentations
    assert draw_gallery(results, detection_of(config).categories(dataset), dataset, config, tmp_path, count=2).is_file()


def test_a_class_that_the_data_lacks_is_drawn_under_its_own_name_and_colour(
    dataset: CocoDataset, config: Config, tmp_path: Path
) -> None:
    results = CocoResults()
    box = np.array([[10, 10, 50, 50]], np.float32)
    for image_id in dataset.image_ids.tolist():
        results.add(image_id, box, np.full(1, 0.9, np.float32), np.array([99]))
    names = detection_of(config).categories(dataset)
    overview = draw_gallery(results, names | {99: "unicorn"}, dataset, config, tmp_path, count=1)
    drawing = read_image(overview.parent / "000000.jpg").astype(np.int64)
    found = drawing[:, drawing.shape[1] // 2 :]  # the truth is on the left
    distance = np.abs(found - np.array(class_color(len(dataset.class_names)))).max(2)
    assert (distance < 12).sum() > 500


def test_boxes_of_a_low_score_are_not_drawn(dataset: CocoDataset, config: Config, tmp_path: Path) -> None:
    results, names = CocoResults(), detection_of(config).categories(dataset)
    nothing = draw_gallery(results, names, dataset, config, tmp_path / "nothing", count=1).read_bytes()
    box = np.array([[10, 10, 50, 50]], np.float32)
    results.add(int(dataset.image_ids[0]), box, np.full(1, DRAWN_SCORE - 0.01, np.float32), dataset.category_ids[:1])
    assert draw_gallery(results, names, dataset, config, tmp_path / "low", count=1).read_bytes() == nothing


def test_a_run_is_drawn_from_its_detections_without_a_checkpoint(config: Config, tmp_path: Path) -> None:
    config.train.steps = 1
    _ = train(config, tmp_path)
    shutil.rmtree(RunFiles(tmp_path).checkpoints)
    assert draw_run(tmp_path) == tmp_path / "drawings" / "overview.jpg"
    RunFiles(tmp_path).predictions.unlink()
    with pytest.raises(UserError, match="has no detections; resdet evaluate"):
        _ = draw_run(tmp_path)


def test_a_first_stage_alone_is_drawn_as_objects(config: Config, tmp_path: Path) -> None:
    config.train.steps, config.model.box_head = 1, None
    _ = train(config, tmp_path)
    assert detection_of(config).categories(open_split(config.data, "val")) == {1: "object"}
    assert draw_run(tmp_path).is_file()
