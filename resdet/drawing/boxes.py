"""Pictures of detections: masks, boxes, name tags, and sheets that set pictures side by side.

Images are RGB uint8 (H, W, 3). Lines and tags are blended with exact coverage, so edges are smooth at any scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8
from PIL import Image

from resdet.data.images.decode import resize
from resdet.data.images.masks import MaskWindow
from resdet.drawing.fonts import text_mask
from resdet.drawing.masks import DARK, Color, blend, paint_mask, resized
from resdet.drawing.tags import Rect, places

GOLDEN_ANGLE = 137.508  # degrees: neighbours in the palette differ strongly, and no later colour repeats an early one
PAPER: Color = (250, 250, 248)
LARGEST_ENLARGEMENT = 8
LARGEST_SIDE = 4096  # pixels of a side of a drawing: a larger one takes gigabytes and is not useful
NARROWEST_CAPTION = 64  # pixels
LONGEST_NAME = 32  # characters of a class name on a tag
MOST_ROWS = 3  # of tags below a picture


def class_color(label: int) -> Color:
    """The colour of a class, the same in every picture: hues by the golden angle and three alternating lightnesses
    (OKLCH).
    """
    lightness, chroma = ((0.72, 0.17), (0.80, 0.14), (0.64, 0.19))[label % 3]
    hue = np.deg2rad(25 + GOLDEN_ANGLE * label)
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    # OKLab to linear sRGB: B. Ottosson, "A perceptual color space for image processing", 2020.
    roots = lightness + np.array([[0.3963, 0.2158], [-0.1056, -0.0639], [-0.0895, -1.2915]]) @ [a, b]
    to_rgb = np.array([[4.0767, -3.3077, 0.2310], [-1.2684, 2.6098, -0.3413], [-0.0042, -0.7034, 1.7076]])
    linear = np.clip(to_rgb @ roots**3, 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = np.round(255 * srgb).astype(int).tolist()
    return red, green, blue


def draw_detections(
    image: UInt8[np.ndarray, "H W 3"],
    boxes: Float[np.ndarray, "n 4"],
    labels: Int[np.ndarray, " n"],
    scores: Float[np.ndarray, " n"] | None,
    class_names: Sequence[str],
    *,
    masks: Sequence[MaskWindow] | None = None,
    min_side: int = 480,
    most_tags: int = 40,
    by_object: bool = False,
    same_size: bool = False,
) -> UInt8[np.ndarray, "h w 3"]:
    """The image with its masks, boxes and tags; the input image is not changed.

    `boxes` are (x1, y1, x2, y2) in pixels of the image; parts outside are cut off. With `scores` None only names are
    drawn, as for ground truth. An image whose shorter side is below `min_side` is enlarged (0: never), and one with a
    side above LARGEST_SIDE is shrunk, so the result may have another size than the input. A colour is that of a class
    or, `by_object`, that of a position in the arrays.

    The best `most_tags` objects get a tag beside their box, if it covers no tag of a better one there. The tags of
    objects that fill the picture stand in a strip below it; with `same_size`, as the frames of a video need it, in the
    corner of the box.
    """
    colors = [class_color(number) for number in (range(len(labels)) if by_object else labels.tolist())]
    scale = _scale(image, min_side)
    canvas = _resized(image, scale).astype(np.float32)
    height, width = canvas.shape[:2]
    shown = [i for i in _best_first(boxes, scores) if _visible(boxes[i] * scale, height, width)]
    rects = {i: _clipped(boxes[i] * scale, height, width) for i in shown}
    line = float(np.clip(min(height, width) / 230, 2, 10))
    if masks is not None:
        for i in reversed(shown):
            paint_mask(canvas, resized(masks[i], scale), colors[i], line)
    frame = line if masks is None else line / 2  # thinner, because the mask already shows the object
    for i in reversed(shown):  # the best ones are drawn on top
        _frame(canvas, rects[i], frame + 2, DARK, 0.55)
        _frame(canvas, _shrunk(rects[i], 1.0), frame, colors[i], 1.0)
    crowding = float(np.clip(np.sqrt(12 / max(1, len(shown))), 0.75, 1))
    font_size = float(round(float(np.clip(min(height, width) / 30, 15, 42) * crowding)))
    tagged = shown[:most_tags]
    tags = [
        _tag(_tag_text(class_names, int(labels[i]), None if scores is None else float(scores[i])), font_size)
        for i in tagged
    ]
    below = _stamp_all(canvas, [rects[i] for i in shown], tags, [colors[i] for i in tagged], same_size=same_size)
    return np.round(np.concatenate([canvas, *below])).astype(np.uint8)


def _stamp_all(
    canvas: Float32[np.ndarray, "h w 3"],
    rects: Sequence[Rect],
    tags: Sequence[Float[np.ndarray, "_ _"]],
    colors: Sequence[Color],
    *,
    same_size: bool,
) -> list[Float32[np.ndarray, "_ w 3"]]:
    """Draws the tags of the first boxes; returns the rows of tags for below the picture."""
    height, width = canvas.shape[:2]
    sizes = [(float(tag.shape[0]), float(tag.shape[1])) for tag in tags]
    alone = [i for i, size in enumerate(sizes) if places([rects[i]], [size], width, height) == [None]]
    for i, spot in enumerate(places(rects, sizes, width, height)):
        if spot is not None:
            _stamp(canvas, spot, tags[i], colors[i])
    if same_size:
        for i in alone[:1]:
            x, y = (float(np.ceil(side)) for side in rects[i][:2])
            _stamp(canvas, (x, y, min(x + sizes[i][1], width), min(y + sizes[i][0], height)), tags[i], colors[i])
        return []
    return _rows([tags[i] for i in alone], [colors[i] for i in alone], width)


def _rows(
    tags: Sequence[Float[np.ndarray, "_ _"]], colors: Sequence[Color], width: int
) -> list[Float32[np.ndarray, "_ w 3"]]:
    """Tags in rows as wide as the picture, at most MOST_ROWS; none where the picture is too narrow for text."""
    if width < NARROWEST_CAPTION:
        return []
    gap, rows, free = 4, [], 0
    for tag, color in zip(tags, colors, strict=True):
        if not rows or free + tag.shape[1] > width:
            if len(rows) == MOST_ROWS:
                break
            rows.append(np.full((tag.shape[0] + gap, width, 3), PAPER, np.float32))
            free = 0
        part = tag[: rows[-1].shape[0] - gap // 2, : width - free]
        left, top = float(free), float(gap // 2)
        _stamp(rows[-1], (left, top, left + part.shape[1], top + part.shape[0]), part, color)
        free += part.shape[1] + gap
    return rows


def side_by_side(
    left: UInt8[np.ndarray, "h w 3"],
    right: UInt8[np.ndarray, "h2 w2 3"],
    *,
    captions: tuple[str, str] = ("ground truth", "predictions"),
) -> UInt8[np.ndarray, "sheet_height sheet_width 3"]:
    """Two pictures of one image with a caption above each."""
    return grid([left, right], columns=2, captions=captions, cell_width=max(left.shape[1], right.shape[1]))


def grid(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    *,
    columns: int = 2,
    captions: Sequence[str] = (),
    cell_width: int = 480,
    gap: int = 12,
) -> UInt8[np.ndarray, "sheet_height sheet_width 3"]:
    """A contact sheet: each image scaled to `cell_width` pixels, row by row, under its caption.

    Rows are as high as their highest image. Raises ValueError without images.
    """
    if not images:
        raise ValueError("a contact sheet needs at least one image")
    columns = min(columns, len(images))
    cells = [
        _cell(image, caption or "", cell_width)
        for image, caption in zip_longest(images, captions[: len(images)], fillvalue=None)
        if image is not None
    ]
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [max(cell.shape[0] for cell in row) for row in rows]
    sheet = np.full(
        (sum(heights) + gap * (len(rows) + 1), columns * (cell_width + gap) + gap, 3), PAPER, dtype=np.uint8
    )
    top = gap
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            left = gap + column * (cell_width + gap)
            sheet[top : top + cell.shape[0], left : left + cell_width] = cell
        top += height + gap
    return sheet


def _cell(image: UInt8[np.ndarray, "_ _ 3"], caption: str, width: int) -> UInt8[np.ndarray, "_ _ 3"]:
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    picture = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
    if not caption or width < NARROWEST_CAPTION:
        return picture
    text = text_mask(caption, float(np.clip(width / 28, 12, 24)))[:, : width - 4]
    strip = np.full((text.shape[0] + 4, width, 3), PAPER, dtype=np.float32)
    blend(strip[2 : 2 + text.shape[0], 2 : 2 + text.shape[1]], DARK, text)
    return np.concatenate([np.round(strip).astype(np.uint8), picture])


def _scale(image: UInt8[np.ndarray, "H W 3"], min_side: int) -> float:
    height, width = image.shape[:2]
    enlarged = float(np.clip(min_side / max(1, min(height, width)), 1, LARGEST_ENLARGEMENT))
    return min(enlarged, LARGEST_SIDE / max(height, width))


def _resized(image: UInt8[np.ndarray, "H W 3"], scale: float) -> UInt8[np.ndarray, "h w 3"]:
    if scale == 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    if scale < 1:
        return resize(image, (height, width))
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def _best_first(boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, " n"] | None) -> list[int]:
    """Sorted by score, or large before small, so that small boxes are drawn on top."""
    if scores is not None:
        return np.argsort(-scores, kind="stable").tolist()
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.argsort(sides[:, 0] * sides[:, 1], kind="stable").tolist()


def _visible(box: Float[np.ndarray, "4"], height: int, width: int) -> bool:
    x1, y1, x2, y2 = box.tolist()
    return bool(np.isfinite(box).all()) and x2 > max(x1, 0) and y2 > max(y1, 0) and x1 < width and y1 < height


def _clipped(box: Float[np.ndarray, "4"], height: int, width: int) -> Rect:
    x1, y1, x2, y2 = box.tolist()
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))


def _shrunk(rect: Rect, by: float) -> Rect:
    x1, y1, x2, y2 = rect
    by = min(by, (x2 - x1) / 2, (y2 - y1) / 2)
    return x1 + by, y1 + by, x2 - by, y2 - by


def _frame(canvas: Float32[np.ndarray, "h w 3"], rect: Rect, thickness: float, color: Color, alpha: float) -> None:
    """The border of a rectangle, `thickness` pixels to the inside, as four strips that do not overlap."""
    x1, y1, x2, y2 = rect
    inner_x1, inner_y1, inner_x2, inner_y2 = _shrunk(rect, thickness)
    for strip in (
        (x1, y1, x2, inner_y1),
        (x1, inner_y2, x2, y2),
        (x1, inner_y1, inner_x1, inner_y2),
        (inner_x2, inner_y1, x2, inner_y2),
    ):
        _fill(canvas, strip, color, alpha)


def _fill(canvas: Float32[np.ndarray, "h w 3"], rect: Rect, color: Color, alpha: float) -> None:
    """A rectangle at fractional coordinates: each pixel is blended by the fraction of it that is covered."""
    height, width = canvas.shape[:2]
    rows, row_cover = _coverage(rect[1], rect[3], height)
    columns, column_cover = _coverage(rect[0], rect[2], width)
    blend(canvas[rows, columns], color, alpha * np.outer(row_cover, column_cover))


def _coverage(low: float, high: float, length: int) -> tuple[slice, Float[np.ndarray, " n"]]:
    first, last = max(0, int(np.floor(low))), min(length, int(np.ceil(high)))
    pixels = np.arange(first, max(first, last))
    return slice(first, max(first, last)), np.clip(np.minimum(pixels + 1, high) - np.maximum(pixels, low), 0, 1)


def _tag_text(class_names: Sequence[str], label: int, score: float | None) -> str:
    name = class_names[label] if 0 <= label < len(class_names) else f"class {label}"
    name = " ".join(name.split())
    name = (
        f"\u2068{name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + '…'}\u2069"  # in its own direction
    )
    return name if score is None else f"{name} {score:.2f}"


def _tag(text: str, size: float) -> Float[np.ndarray, "h w"]:
    """The text's coverage with a margin around it."""
    margin = max(2, round(size / 4))
    return np.pad(text_mask(text, size), ((margin // 2, margin // 2), (margin, margin)))


def _stamp(canvas: Float32[np.ndarray, "h w 3"], spot: Rect, tag: Float[np.ndarray, "_ _"], color: Color) -> None:
    """Draws a tag in the class's colour with a dark border; its text is black or white, whichever has more contrast."""
    height, width = canvas.shape[:2]
    x, y = int(spot[0]), int(spot[1])
    _fill(canvas, (spot[0] - 1, spot[1] - 1, spot[2] + 1, spot[3] + 1), DARK, 0.55)
    _fill(canvas, spot, color, 1.0)
    luminance = np.dot(color, (0.299, 0.587, 0.114))
    ink: Color = DARK if luminance > 120 else (255, 255, 255)
    cover = tag[: height - y, : width - x]
    blend(canvas[y : y + cover.shape[0], x : x + cover.shape[1]], ink, cover)
