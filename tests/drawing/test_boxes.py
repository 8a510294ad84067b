"""Drawings: boxes where they belong, tags inside the image, and no input that breaks them."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from resdet.data.images.masks import MaskWindow
from resdet.drawing.boxes import class_color, draw_detections, grid, side_by_side
from resdet.drawing.masks import DARK, FILL, resized


def gray(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, dtype=np.uint8)


def drawn(image: np.ndarray, boxes: list[list[float]], names: list[str], *, scores: bool = True) -> np.ndarray:
    confidence = np.linspace(0.9, 0.5, len(boxes)) if scores else None
    array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return draw_detections(image, array, np.arange(len(boxes)) % max(1, len(names)), confidence, names, min_side=0)


def test_without_detections_the_image_is_unchanged() -> None:
    image = np.random.default_rng(0).integers(0, 256, size=(40, 50, 3), dtype=np.uint8)
    np.testing.assert_array_equal(drawn(image, [], []), image)


def test_a_box_has_the_colour_of_its_class_between_dark_lines() -> None:
    """On 460 pixels the line is two wide, with one dark pixel at either side; inside nothing changes."""
    image = gray(460, 460)
    result = drawn(image, [[100, 200, 300, 400]], ["cat"])
    left_edge = result[350, 98:106].astype(int)
    np.testing.assert_array_equal(left_edge[[0, 1, 6, 7]], np.full((4, 3), 128))
    assert left_edge[2].tolist() == left_edge[5].tolist()
    assert (left_edge[2] < 128).all()
    assert left_edge[3].tolist() == left_edge[4].tolist() == list(class_color(0))
    np.testing.assert_array_equal(result[230:390, 110:290], image[230:390, 110:290])
    assert (image == 128).all()


def test_a_fractional_edge_is_covered_in_part() -> None:
    """The outer dark line of a box at 100.5 covers half of pixel 100: half of its 55 %."""
    result = drawn(gray(460, 460), [[100.5, 200, 300, 400]], ["cat"])
    expected = 128 + (np.array(DARK) - 128) * 0.55 / 2
    np.testing.assert_allclose(result[350, 100], expected, atol=1)


def test_the_tag_lies_above_the_box_or_below_and_not_on_the_object() -> None:
    color = np.array(class_color(0))
    above = drawn(gray(460, 460), [[100, 200, 300, 400]], ["cat"])
    assert (above[:200] == color).all(2).sum() > 100
    below = drawn(gray(460, 460), [[100, 0, 300, 400]], ["cat"])
    assert (below[402:] == color).all(2).sum() > 100
    for result in (above[206:394], below[6:394]):
        np.testing.assert_array_equal(result[:, 110:290], gray(len(result), 180))


def test_the_tag_of_an_object_that_fills_the_picture_stands_below_it() -> None:
    """The picture stays as it is; the frames of a video keep their size, with the tag in the corner."""
    boxes, labels, scores = np.array([[0.0, 0, 320, 240]]), np.array([0]), np.array([0.9])
    given = (gray(240, 320), boxes, labels, scores, ["cat"])
    result = draw_detections(*given, min_side=0)
    assert result.shape[0] > 240
    assert result.shape[1] == 320
    np.testing.assert_array_equal(result[6:234, 6:314], gray(228, 308))
    assert (result[240:] == class_color(0)).all(2).sum() > 300
    frame = draw_detections(*given, min_side=0, same_size=True)
    assert frame.shape == (240, 320, 3)
    assert (frame[6:30, 6:100] == class_color(0)).all(2).sum() > 300


@pytest.mark.parametrize("box", [[300, 5, 319, 20], [-50, -50, 9, 9], [310, 230, 400, 300]])
def test_a_box_at_the_border_keeps_its_tag_inside(box: list[float]) -> None:
    result = drawn(gray(240, 320), [box], ["a rather long class name"])
    assert result.shape == (240, 320, 3)
    assert (result == class_color(0)).all(2).sum() > 300


def test_tags_of_one_place_do_not_cover_each_other() -> None:
    """Two equal boxes of two classes: both tags are legible."""
    result = drawn(gray(460, 460), [[100, 200, 300, 400]] * 2, ["cat", "dog"])
    for label in (0, 1):
        assert (result == class_color(label)).all(2).sum() > 400


@pytest.mark.parametrize(
    "box",
    [[float("nan"), 0, 5, 5], [0, 0, float("inf"), 5], [10, 10, 10, 20], [20, 20, 10, 10], [500, 500, 600, 600]],
)
def test_boxes_that_cannot_be_seen_are_left_out(box: list[float]) -> None:
    np.testing.assert_array_equal(drawn(gray(60, 60), [box], ["cat"]), gray(60, 60))


@pytest.mark.parametrize("name", ["", "猫", "кошка", "قطة", "a\nb", "🐈", "x" * 500, "[b]&lt;"])
def test_any_class_name_can_be_drawn(name: str) -> None:
    result = drawn(gray(100, 100), [[10, 30, 60, 80]], [name])
    assert result.shape[0] >= 100
    assert result.shape[1:] == (100, 3)


def test_a_label_without_a_name_is_drawn_by_its_number() -> None:
    result = draw_detections(gray(99, 99), np.array([[9, 40, 60, 80.0]]), np.array([7]), None, ["cat"], min_side=0)
    assert (result == class_color(7)).all(2).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (7, 5)])
def test_tiny_images_can_be_drawn(size: tuple[int, int]) -> None:
    height, width = size
    result = drawn(gray(*size), [[0, 0, width, height]], ["cat"])
    assert result.shape[0] == height or width == 300
    assert result.shape[1:] == (width, 3)


def test_small_images_are_enlarged_with_their_boxes() -> None:
    result = draw_detections(
        gray(60, 80), np.array([[40.0, 30, 79, 59]]), np.array([0]), np.array([0.5]), ["cat"], min_side=480
    )
    assert result.shape == (480, 640, 3)
    np.testing.assert_array_equal(result[:200, :300], gray(200, 300))
    assert (result[300:, 320:] == class_color(0)).all(2).any()


def test_huge_images_are_shrunk_with_their_boxes() -> None:
    """8192 pixels become 4096, so a box from 4096 begins in the middle."""
    box = np.array([[4096.0, 0, 8192, 50]])
    result = draw_detections(gray(50, 8192), box, np.array([0]), np.array([0.5]), ["cat"])
    assert result.shape == (25, 4096, 3)
    np.testing.assert_array_equal(result[:, :1500], gray(25, 1500))
    assert (result[:, 2048:] == class_color(0)).all(2).any()


def test_large_images_keep_their_size() -> None:
    boxes, labels = np.zeros((0, 4)), np.zeros(0, dtype=np.int64)
    assert draw_detections(gray(500, 600), boxes, labels, None, []).shape == (500, 600, 3)


def test_the_first_twenty_colours_are_well_apart_and_text_on_them_is_legible() -> None:
    colors = [np.array(class_color(label)) for label in range(20)]
    assert min(np.linalg.norm(a - b) for a, b in combinations(colors, 2)) > 30
    assert min(np.linalg.norm(a - b) for a, b in pairwise(colors)) > 100
    assert class_color(3) == class_color(3)


def test_a_sheet_has_a_cell_for_every_image() -> None:
    """Cells 100 wide, gaps of 10: rows as high as their highest image."""
    images = [
        np.full((50, 100, 3), 10, np.uint8),
        np.full((100, 100, 3), 20, np.uint8),
        np.full((40, 50, 3), 30, np.uint8),
    ]
    sheet = grid(images, columns=2, cell_width=100, gap=10)
    assert sheet.shape == (10 + 100 + 10 + 80 + 10, 10 + 100 + 10 + 100 + 10, 3)
    assert (sheet[10:60, 10:110] == 10).all()
    assert (sheet[10:110, 120:220] == 20).all()
    assert (sheet[120:200, 10:110] == 30).all()


def test_captions_stand_above_the_images() -> None:
    plain = grid([gray(40, 200)], cell_width=200)
    captioned = grid([gray(40, 200)], cell_width=200, captions=["猫 " * 100])
    assert captioned.shape[0] > plain.shape[0]
    assert captioned.shape[1] == plain.shape[1]


def test_a_sheet_needs_an_image() -> None:
    with pytest.raises(ValueError, match="at least one"):
        _ = grid([])


def test_truth_stands_beside_predictions() -> None:
    sheet = side_by_side(gray(40, 200), gray(40, 200))
    assert sheet.shape[1] == 2 * 200 + 3 * 12


def test_pictures_too_narrow_for_a_caption_have_none() -> None:
    assert side_by_side(gray(300, 1), gray(300, 1)).shape == (300 + 2 * 12, 2 + 3 * 12, 3)


def with_masks(image: np.ndarray, *masks: MaskWindow) -> np.ndarray:
    """Drawn with boxes outside the picture's middle, so that nothing but masks is there."""
    boxes = np.array([[0.0, 0, *image.shape[1::-1]]] * len(masks))
    return draw_detections(
        image, boxes, np.arange(len(masks)), None, ["cat", "dog"], masks=masks, min_side=0, most_tags=0
    )


def test_a_mask_is_filled_with_half_its_colour_inside_an_outline() -> None:
    """The outline is two wide on 460 pixels, half of it inside and half outside, and has a dark rim of one pixel."""
    result = with_masks(gray(460, 460), MaskWindow(np.ones((100, 200), np.uint8), 50, 150))
    color = np.array(class_color(0))
    filled = np.broadcast_to(128 + FILL * (color - 128), (96, 196, 3))
    np.testing.assert_allclose(result[152:248, 52:248], filled, atol=1)
    np.testing.assert_array_equal(result[200, [49, 50]], [color, color])
    np.testing.assert_allclose(result[200, 48], 128 + (np.array(DARK) - 128) * 0.55, atol=1)
    np.testing.assert_array_equal(result[200, 44:47], np.full((3, 3), 128))


def test_a_mask_at_the_border_has_no_outline_there_beyond_the_picture() -> None:
    image = gray(60, 80)
    corner = MaskWindow(np.ones((20, 30), np.uint8), 50, 40)
    assert with_masks(image, corner, MaskWindow(np.zeros((0, 0), np.uint8), 0, 0)).shape == image.shape
    beyond = MaskWindow(np.ones((20, 30), np.uint8), 500, 400)
    np.testing.assert_array_equal(with_masks(image, beyond)[4:-4, 4:-4], image[4:-4, 4:-4])


def test_holes_stay_empty() -> None:
    ring = np.ones((100, 100), np.uint8)
    ring[30:70, 30:70] = 0
    result = with_masks(gray(460, 460), MaskWindow(ring, 100, 100))
    np.testing.assert_array_equal(result[135:165, 135:165], gray(30, 30))


def test_masks_grow_with_their_image() -> None:
    """Three times as large: area nine times, corner three times as far."""
    window = resized(MaskWindow(np.ones((4, 6), np.uint8), 10, 20), 3.0)
    assert (window.x, window.y) == (30, 60)
    np.testing.assert_array_equal(window.pixels, np.ones((12, 18)))
    small = draw_detections(
        gray(60, 80), np.array([[0.0, 0, 80, 60]]), np.array([0]), None, ["cat"],
        masks=[MaskWindow(np.ones((20, 20), np.uint8), 30, 20)], min_side=480, most_tags=0,
    )  # fmt: skip
    changed = (small[20:-20, 20:-20] != 128).any(2)
    rows, columns = np.flatnonzero(changed.any(1)) + 20, np.flatnonzero(changed.any(0)) + 20
    np.testing.assert_allclose([rows[0], rows[-1] + 1, columns[0], columns[-1] + 1], [160, 320, 240, 400], atol=3)
