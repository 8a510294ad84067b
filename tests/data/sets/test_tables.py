"""Tables of boxes (csv) and CVAT's xml: columns by their names, shapes as boxes and masks, one line for a mistake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from layout_folders import csv_lines, csv_tables, picture, text
from resdet.data.sets import cvat as source
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.formats import read_set
from resdet.data.sets.opened import open_folder
from resdet.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path_factory.mktemp("cache")))


def table(root: Path, content: str) -> Path:
    """A table of images of 40 x 20 pixels."""
    for stem in "ab":
        picture(root / f"images/{stem}.jpg")
    text(root / "boxes.csv", content)
    return root / "boxes.csv"


def read(file: Path) -> CocoDataset:
    return read_set(file, file.parent)


def refused(read: Callable[[], CocoDataset]) -> str:
    with pytest.raises(UserError) as caught:
        _ = read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


HEADERS = {
    "ours": "image,xmin,ymin,xmax,ymax,label\na.jpg,4,2,12,10,bee\nb.jpg,,,,,\n",
    "another order": "label;ymax;xmax;image;ymin;xmin\nbee;10;12;images/a.jpg;2;4\n;;;images/b.jpg;;\n",
    "keras-retinanet": "path,x1,y1,x2,y2,class_name\nimages/a.jpg,4,2,12,10,bee\nimages/b.jpg,,,,,\n",
    "tensorflow": "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,40,20,bee,4,2,12,10\nb.jpg,40,20,,,,,\n",
    "open images": "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf\na,x,bee,1,0.1,0.3,0.1,0.5,0\n"
    "b,x,,,,,,,\n",
    "quoted, with a mark": '\ufeff"image","xmin","ymin","xmax","ymax","label"\r\n"a.jpg",4,2,12,10,"bee"\r\n'
    "b.jpg,,,,,\r\n",
}


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
def test_columns_are_found_by_their_names(tmp_path: Path, content: str) -> None:
    dataset = read(table(tmp_path, content))
    np.testing.assert_allclose(dataset.boxes, [[4, 2, 12, 10]], rtol=1e-6)
    assert dataset.class_names == ("bee",)
    assert [dataset.file_names[index] for index in range(2)] == ["images/a.jpg", "images/b.jpg"]
    assert dataset.objects_per_image().tolist() == [1, 0]


def test_a_group_is_a_crowd_region(tmp_path: Path) -> None:
    rows = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\na,bee,0,0.5,0,0.5,1\na,bee,0,0.25,0,0.5,0\n"
    assert read(table(tmp_path, rows)).crowd.tolist() == [True, False]


HEADER = "image,xmin,ymin,xmax,ymax,label\n"
BAD = {
    "a.jpg,4,2,12,10,bee\n": "the first line 'a.jpg,4,2,12,10,bee' has no column image, label, xmin, ymin, xmax, ymax; "
    "begin with a header such as image,xmin,ymin,xmax,ymax,label",
    "image,xmin,ymin,xmax,label\na.jpg,1,2,3,bee\n": "has no column ymax",
    f"{HEADER}a.jpg,4,2,12,bee\n": "line 2: has 5 cells, the header 6",
    f"{HEADER}a.jpg,4,2,12,10,bee\na.jpg,4,x,12,10,bee\na.jpg,,x,12,10,bee\n": "line 3: 'x' is no number of pixels "
    "(2 such lines)",
    f"{HEADER}a.jpg,4,2,nan,10,bee\n": "line 2: 'nan' is no number of pixels",
    f"{HEADER}a.jpg,12,2,4,10,bee\n": "line 2: the box from (12, 2) to (4, 10) ends before it begins",
    f"{HEADER}a.jpg,4,2,12,10,\n": "line 2: has a box and no label",
    f"{HEADER},4,2,12,10,bee\n": "line 2: names no image",
    f"{HEADER}../a.jpg,4,2,12,10,bee\n": "line 2: file_name '../a.jpg' climbs out",
    f"{HEADER}/etc/a.jpg,4,2,12,10,bee\n": "line 2: file_name '/etc/a.jpg' is an absolute path",
    f"{HEADER}http://a.b/c.jpg,4,2,12,10,bee\n": "is a URL",
    f"{HEADER}a.jpg,,,,,\n": "no line has a label",
    HEADER: "no line has a label",
    "": "the first line '' has no column",
    f'{HEADER}"a.jpg,4,2,12,10,bee\n': "line 2: has 1 cells",
    "ImageID,LabelName,XMin,XMax,YMin,YMax\na,bee,4,12,2,10\n": "line 2: 12 is no fraction of the image",
}


@pytest.mark.parametrize(("content", "problem"), BAD.items())
def test_a_table_that_does_not_fit_is_named_with_its_line(tmp_path: Path, content: str, problem: str) -> None:
    file = table(tmp_path, content)
    message = refused(lambda: read(file))
    assert message.startswith(str(file))
    assert problem in message


def test_a_table_without_a_header_in_a_folder_is_named_too(tmp_path: Path) -> None:
    file = table(tmp_path, "a.jpg,4,2,12,10,bee\n")
    assert refused(lambda: open_folder(tmp_path, "train")).startswith(f"{file}: the first line")


def test_an_image_that_is_there_twice_needs_its_path(tmp_path: Path) -> None:
    file = table(tmp_path, csv_lines(("a",)))
    picture(tmp_path / "more/a.jpg")
    assert "line 2: image 'a.jpg' may be 'images/a.jpg' or 'more/a.jpg'" in refused(lambda: read(file))
    text(file, csv_lines(("a",), folder="more/"))
    assert read(file).file_names[0] == "more/a.jpg"


def test_an_image_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = table(tmp_path, f"{HEADER}z.jpg,4,2,12,10,bee\n")
    assert f"{tmp_path}/z.jpg: cannot be read" in refused(lambda: read(file))


def cvat(root: Path, shapes: str, attributes: str = 'name="a.jpg" width="40" height="20"') -> Path:
    labels = "<meta><task><labels><label><name>bee</name></label></labels></task></meta>"
    text(root / "annotations.xml", f'<annotations>{labels}<image id="0" {attributes}>{shapes}</image></annotations>')
    picture(root / "images/a.jpg")
    return root


def test_shapes_of_cvat_are_boxes_and_masks(tmp_path: Path) -> None:
    """A mask of 4 x 2 pixels at (10, 5): the left half of both rows is background."""
    shapes = (
        '<polygon label="bee" points="4,2;20,2;4,12"></polygon>'
        '<mask label="bee" rle="2,2,2,2" left="10" top="5" width="4" height="2"></mask>'
        '<points label="bee" points="1,1"></points><tag label="bee"></tag>'
    )
    dataset = read_one(cvat(tmp_path, shapes))
    assert dataset.boxes.tolist() == [[4, 2, 20, 12], [10, 5, 14, 7]]
    assert dataset.areas.tolist()[1] == 4
    decoded = dataset.segmentations.run_lengths(1)
    mask = np.repeat(np.arange(len(decoded)) % 2 == 1, decoded).reshape(40, 20).T
    assert np.argwhere(mask).tolist() == [[5, 12], [5, 13], [6, 12], [6, 13]]
    assert sum(note.count for note in dataset.report.skipped.values()) == 2


def read_one(root: Path) -> CocoDataset:
    return read_set(*source.read(root, "train"))


BAD_SHAPES = {
    '<box label="bee" xtl="x" ytl="0" xbr="1" ybr="1"/>': "box of 'bee': its corners 'x 0 1 1' are no pixels",
    '<box xtl="0" ytl="0" xbr="1" ybr="1"/>': "a box without a label",
    '<box label="bee" xtl="0" ytl="0" xbr="1" ybr="1" rotation="30"/>': "is rotated",
    '<polygon label="bee" points="1,2;3"/>': "its points '1,2;3' are not at least three pairs",
    '<mask label="bee" rle="3,2" left="0" top="0" width="2" height="2"/>': "its runs do not fill 2x2 pixels",
    '<mask label="bee" rle="4" left="39" top="0" width="2" height="2"/>': "its runs do not fill 2x2 pixels inside",
}


@pytest.mark.parametrize(("shape", "problem"), BAD_SHAPES.items())
def test_a_shape_that_cannot_be_meant_is_named_with_its_image(tmp_path: Path, shape: str, problem: str) -> None:
    root = cvat(tmp_path, shape)
    message = refused(lambda: read_one(root))
    assert message.startswith(f"{root}/annotations.xml: image 'a.jpg': ")
    assert problem in message


HOSTILE = {
    '<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>': "declares a document type",
    "<html></html>": "begins with <html>",
    "<annotations><image": "not readable as XML",
    '<annotations><image name="../a.jpg" width="4" height="4"/></annotations>': "has no label",
}


@pytest.mark.parametrize(("content", "problem"), HOSTILE.items())
def test_a_file_that_is_none_of_cvats_is_named(tmp_path: Path, content: str, problem: str) -> None:
    text(tmp_path / "annotations.xml", content)
    assert problem in refused(lambda: read_one(tmp_path))


def test_a_name_that_climbs_out_is_refused(tmp_path: Path) -> None:
    root = cvat(tmp_path, "", 'name="../a.jpg" width="40" height="20"')
    assert "climbs out" in refused(lambda: read_one(root))


@pytest.mark.parametrize("whole", [False, True])
def test_a_split_that_a_folder_does_not_have_is_refused_also_where_nothing_is_held_out(tmp_path: Path, *, whole: bool):
    csv_tables(tmp_path)
    (tmp_path / "train.csv").unlink()
    message = refused(lambda: open_folder(tmp_path, "train", whole=whole))
    assert message == f"{tmp_path}: its csv layout has no train split (it has val); add one"
