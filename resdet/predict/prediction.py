"""What a detector found in one image: boxes, scores, labels and masks, and what people do with them."""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8
from PIL import Image

from resdet.coco.results import CocoResults
from resdet.coco.run_lengths import RunLengths
from resdet.data.images.masks import MaskWindow, encoded_window
from resdet.drawing.boxes import draw_detections
from resdet.errors import UserError, did_you_mean
from resdet.files import readable_json, replace_file, whole_file, writing
from resdet.predict.sources import Moment, Source
from resdet.text import printable

if TYPE_CHECKING:
    import supervision  # pyright: ignore[reportMissingImports]

DRAWN_SCORE = 0.5  # the smallest score of an object that is drawn, unless another one is given
PICTURES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
Colors = Literal["class", "object"]  # what has a colour of its own in a drawing
LISTED = 20  # objects in the table of a notebook
NOTEBOOK_SIDE = 960  # pixels of the longer side of a picture in a notebook


@dataclass(frozen=True)
class Detected:
    """One object: its box (x1, y1, x2, y2) in pixels of the image, its score in 0 .. 1, its class.

    `run_lengths` is its mask over the image, None for a detector without masks.
    """

    box: tuple[float, float, float, float]
    score: float
    label: int
    class_name: str
    category_id: int
    run_lengths: RunLengths | None = None

    @property
    def mask(self) -> Bool[np.ndarray, "H W"] | None:
        """The mask over the image."""
        return None if self.run_lengths is None else _pixels(self.run_lengths)


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """The objects in one image, best first. It has a length, and iterating gives its objects one by one.

    `boxes` are (x1, y1, x2, y2) in pixels of the image as it was given, `labels` are 0 .. K-1, and
    `class_names[label]` is the name of a label, `category_ids[label]` its id in the training data. `run_lengths` are
    the masks in COCO's form, None for a detector without masks. `height` and `width` are those of the image.
    """

    boxes: Float32[np.ndarray, "n 4"]
    scores: Float32[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    run_lengths: list[RunLengths] | None
    height: int
    width: int
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    source: Source
    pixels: UInt8[np.ndarray, "H W 3"] | None = None

    @property
    def path(self) -> Path | None:
        """The image's file, None for an image in memory."""
        return self.source.path

    @property
    def moment(self) -> Moment | None:
        """The place in a video, with `number` (of the frame, from 0) and `seconds`; None for an image."""
        return self.source.moment

    @property
    def image(self) -> UInt8[np.ndarray, "H W 3"]:
        """The image as RGB. That of a file in a list or a folder is read again, because a list may be long.

        Raises UserError if the file has gone or has another size now.
        """
        if self.pixels is not None:
            return self.pixels
        image = self.source.read()
        if image.shape[:2] != (self.height, self.width):
            raise UserError(f"{self.source.name}: has another size than when it was predicted; predict it again")
        return image

    @cached_property
    def masks(self) -> Bool[np.ndarray, "n H W"] | None:
        """The masks over the image, None for a detector without masks. They take a byte for each pixel and object."""
        if self.run_lengths is None:
            return None
        masks = np.zeros((len(self), self.height, self.width), bool)
        for mask, run_lengths in zip(masks, self.run_lengths, strict=True):
            _paste(encoded_window(run_lengths), mask)
        return masks

    @property
    def names(self) -> list[str]:
        """The class name of each object."""
        return [_name(self.class_names, label) for label in self.labels.tolist()]

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detected]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, chosen: int) -> Detected: ...

    @overload
    def __getitem__(self, chosen: slice | Sequence[int] | np.ndarray) -> Prediction: ...

    def __getitem__(self, chosen: int | slice | Sequence[int] | np.ndarray) -> Detected | Prediction:
        """One object, or the prediction with some of them: `prediction[0]`, `prediction[prediction.scores > 0.7]`."""
        if isinstance(chosen, int | np.integer):
            return self._object(int(chosen))
        rows = np.arange(len(self))[chosen]
        return replace(
            self,
            boxes=self.boxes[rows],
            scores=self.scores[rows],
            labels=self.labels[rows],
            run_lengths=None if self.run_lengths is None else [self.run_lengths[row] for row in rows.tolist()],
        )

    def chosen(
        self, *, score: float = 0.0, classes: Collection[str] | None = None, most: int | None = None
    ) -> Prediction:
        """The objects with at least this score, of these classes, and at most so many of them, the best.

        Raises UserError for a class that the detector does not have.
        """
        kept = self.scores >= score
        if classes is not None:
            kept &= np.isin(self.labels, labels_of(classes, self.class_names))
        return self[np.flatnonzero(kept)[:most]]

    def windows(self) -> list[MaskWindow] | None:
        """The pixels of each mask in a window that contains it."""
        return None if self.run_lengths is None else [encoded_window(mask) for mask in self.run_lengths]

    def draw(self, *, score: float = DRAWN_SCORE, min_side: int = 480, colors: Colors = "class") -> Image.Image:
        """The image with the masks, boxes and names of the objects with at least this score.

        An image whose shorter side is below `min_side` pixels is enlarged; 0 never enlarges. Below an image stand the
        names of objects that fill it; the drawings of a video's frames have one size. A class has the same
        colour in every drawing; with `colors="object"` objects of one class differ. Raises UserError for other colors.
        """
        check_colors(colors)
        shown = self.chosen(score=score)
        return Image.fromarray(
            draw_detections(
                self.image,
                shown.boxes,
                shown.labels,
                shown.scores,
                self.class_names,
                masks=shown.windows(),
                min_side=min_side,
                by_object=colors == "object",
                same_size=self.moment is not None,
            )
        )

    def save(self, path: str | Path, *, score: float = DRAWN_SCORE, colors: Colors = "class") -> Path:
        """Writes the drawing (.jpg, .png, .webp), or all objects as COCO results (.json); returns the path.

        Raises UserError for another suffix and for a file that cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() == ".json":
            with writing(path, "choose another file"):
                replace_file(path, readable_json(self.to_coco()))
        else:
            save_picture(self.draw(score=score, colors=colors), path)
        return path

    def crops(self, *, score: float = DRAWN_SCORE, margin: float = 0.0) -> list[Image.Image]:
        """The part of the image inside each box with at least this score, best first, without drawings.

        `margin` is added on each side, as a fraction of the side. A crop has at least one pixel.
        """
        image = self.image
        return [Image.fromarray(_inside(image, box, margin)) for box in self.chosen(score=score).boxes]

    def to_coco(self, image_id: int = 1) -> list[dict[str, Any]]:
        """COCO's results form: image_id, category_id, bbox (x, y, width, height), score; with masks segmentation."""
        results = CocoResults()
        ids = np.array([_category_id(self.category_ids, label) for label in self.labels.tolist()], np.int64)
        results.add(image_id, self.boxes, self.scores, ids, self.run_lengths)
        return results.to_json()

    def to_supervision(self) -> supervision.Detections:
        """A `supervision.Detections` (the extra `supervision`) with class names as data["class_name"].

        Raises UserError if the package is not installed.
        """
        try:
            import supervision  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError:
            raise UserError("supervision is not installed; pip install 'resdet[supervision]'") from None
        return supervision.Detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.labels,
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def __repr__(self) -> str:
        counts = Counter(self.chosen(score=DRAWN_SCORE).names)
        what = ", ".join(f"{count} {printable(name)}" for name, count in counts.most_common(5))
        more = f" and {len(counts) - 5} other classes" if len(counts) > 5 else ""
        masks = "" if self.run_lengths is None else " with masks"
        sure = f"{counts.total()} with a score of at least {DRAWN_SCORE:g}{': ' if what else ''}{what}{more}"
        name = printable(self.source.name)
        return f"<Prediction of {name}, {self.height}x{self.width}: {len(self)} objects{masks}, {sure}>"

    def _repr_html_(self) -> str:
        """The drawing and a table of the objects, for a notebook; names are text, never markup."""
        picture = self.draw()
        picture.thumbnail((NOTEBOOK_SIDE, NOTEBOOK_SIDE))
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=88)
        rows = "".join(
            f"<tr><td>{html.escape(printable(one.class_name))}</td><td>{one.score:.3f}</td>"
            f"<td>{', '.join(f'{side:.1f}' for side in one.box)}</td></tr>"
            for one in self[:LISTED]
        )
        more = f"<p>and {len(self) - LISTED} more</p>" if len(self) > LISTED else ""
        return (
            f"<p>{html.escape(repr(self))}</p>"
            f'<img src="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}" style="max-width:100%">'
            f"<table><tr><th>class</th><th>score</th><th>box: x1, y1, x2, y2</th></tr>{rows}</table>{more}"
        )

    def _object(self, index: int) -> Detected:
        label = int(self.labels[index])
        x1, y1, x2, y2 = self.boxes[index].tolist()
        return Detected(
            box=(x1, y1, x2, y2),
            score=float(self.scores[index]),
            label=label,
            class_name=_name(self.class_names, label),
            category_id=_category_id(self.category_ids, label),
            run_lengths=None if self.run_lengths is None else self.run_lengths[index],
        )


def check_colors(colors: str) -> None:
    """Raises UserError for anything but "class" and "object"."""
    if colors not in get_args(Colors):
        raise UserError(f"colors={colors!r} is not known; give 'class', or 'object' to tell objects of a class apart")


def labels_of(classes: Collection[str], class_names: Sequence[str]) -> list[int]:
    """The labels of classes by name. Raises UserError for an unknown one, with a suggestion."""
    if isinstance(classes, str):
        raise UserError(f"classes={classes!r} is one text; give a list of names, [{classes!r}]")
    for name in classes:
        if name not in class_names:
            raise UserError(f"the detector has no class {printable(str(name))!r}{did_you_mean(str(name), class_names)}")
    return [label for label, name in enumerate(class_names) if name in set(classes)]


def save_picture(picture: Image.Image, path: Path) -> None:
    """Writes a picture whole or not at all, in the format that its suffix names.

    A JPEG has no subsampling of colour, so that thin coloured lines stay sharp. Raises UserError for another suffix
    and for a file that cannot be written.
    """
    kind = PICTURES.get(path.suffix.lower())
    if kind is None:
        known = ", ".join(PICTURES)
        raise UserError(f"{path}: {path.suffix or 'no suffix'} is no format to write; give {known} or .json")
    options = {"JPEG": {"quality": 92, "subsampling": 0}, "WEBP": {"quality": 92}}.get(kind, {})
    with writing(path, "choose another file"), whole_file(path) as temporary:
        picture.save(temporary, kind, **options)


def _name(class_names: Sequence[str], label: int) -> str:
    return class_names[label] if label < len(class_names) else f"class {label}"


def _category_id(category_ids: Sequence[int], label: int) -> int:
    return category_ids[label] if label < len(category_ids) else label + 1


def _pixels(run_lengths: RunLengths) -> Bool[np.ndarray, "H W"]:
    mask = np.zeros(run_lengths["size"], bool)
    _paste(encoded_window(run_lengths), mask)
    return mask


def _paste(window: MaskWindow, mask: Bool[np.ndarray, "H W"]) -> None:
    height, width = window.pixels.shape
    mask[window.y : window.y + height, window.x : window.x + width] = window.pixels.astype(bool)


def _inside(
    image: UInt8[np.ndarray, "H W 3"], box: Float32[np.ndarray, "4"], margin: float
) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels that a box touches, with a margin, cut at the image."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = box.tolist()
    across, down = margin * (x2 - x1), margin * (y2 - y1)
    left = min(max(int(np.floor(x1 - across)), 0), width - 1)
    top = min(max(int(np.floor(y1 - down)), 0), height - 1)
    right = min(max(int(np.ceil(x2 + across)), left + 1), width)
    bottom = min(max(int(np.ceil(y2 + down)), top + 1), height)
    return np.ascontiguousarray(image[top:bottom, left:right])
