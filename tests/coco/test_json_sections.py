"""A large file is read in portions; whatever is not plain is parsed at once, with the same result or message."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resdet.coco import annotation_file, given_masks, json_sections
from resdet.coco.annotation_file import AnnotationFile, parse_annotations, read_annotation_file
from resdet.coco.json_sections import Section, Unusual, read_sections
from resdet.errors import UserError


class Thing(msgspec.Struct):
    id: int
    more: msgspec.Raw = msgspec.Raw(b"[]")


SECTIONS = {"a": Section(Thing), "b": Section(Thing, shared=True)}
VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(-1e3, 1e3)
    | st.text(alphabet='"\\{}[], :\n\u00e9', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='"}],{ a', max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
THINGS = st.lists(
    st.fixed_dictionaries({"id": st.integers(0, 9)}, optional={"more": VALUE, "other": VALUE}), max_size=6
)


def portions(text: bytes) -> dict[str, list[tuple[int, Any]]]:
    found: dict[str, list[tuple[int, Any]]] = {}
    for name, records in read_sections(io.BytesIO(text), SECTIONS):
        found.setdefault(name, []).extend((record.id, msgspec.json.decode(record.more)) for record in records)
    return found


@settings(deadline=None, max_examples=300)
@given(
    st.permutations(["a", "b", "c", 'd\\"']),
    THINGS,
    THINGS,
    VALUE,
    st.sampled_from([None, 1]),
    st.integers(1, 90),
    st.sampled_from(["", "\n", "  "]),
)
def test_portions_of_any_size_are_the_whole(
    order: list[str], a: list[Any], b: list[Any], other: Any, indent: int | None, block: int, end: str
) -> None:
    content = {"a": a, "b": b, "c": other, 'd\\"': [other]}
    text = json.dumps({key: content[key] for key in order if key in content}, indent=indent) + end
    content = json.loads(text)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_sections, "BLOCK", block)
        patched.setattr(json_sections, "NEARBY", 5)
        found = portions(text.encode())
    assert found == {name: [(thing["id"], thing.get("more", [])) for thing in content[name]] for name in SECTIONS}


def one_after_another(work: Callable[[int], Any], processes: int) -> Iterator[Any]:
    """What forks compute, without forks."""
    for number in count():
        if (result := work(number)) is None:
            return
        yield result


@settings(deadline=None, max_examples=300)
@given(
    THINGS,
    THINGS,
    VALUE,
    st.permutations(["a", "b", "c"]),
    st.sampled_from([None, 1]),
    st.integers(1, 60),
    st.integers(3, 60),
)
def test_portions_that_several_processes_read_are_the_whole(
    a: list[Any], b: list[Any], other: Any, order: list[str], indent: int | None, shared: int, nearby: int
) -> None:
    content = {"a": a, "b": b, "c": other}
    with pytest.MonkeyPatch.context() as patched, tempfile.TemporaryFile() as file:
        _ = file.write(json.dumps({key: content[key] for key in order}, indent=indent).encode())
        file.flush()
        _ = file.seek(0)
        patched.setattr(json_sections, "SHARED", shared)
        patched.setattr(json_sections, "NEARBY", nearby)
        patched.setattr(json_sections, "forked", one_after_another)
        found: dict[str, list[int]] = {}
        for name, records in read_sections(file, SECTIONS, processes=2):
            found.setdefault(name, []).extend(record.id for record in records)
    assert found == {name: [thing["id"] for thing in content[name]] for name in SECTIONS}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"a": [], "b": []',
        '{"a": [], "b": []} x',
        '{"a": []}',
        '{"a": [], "b": [], "a": []}',
        '{"a": [{"id": 1} {"id": 2}], "b": []}',
        '{"a": [{"id": "1"}], "b": []}',
        '{"a": [{"id": 1}, {"id": NaN}], "b": []}',
        '{"a": {}, "b": []}',
        '{"a": [{"id": 1}], "b": [], "c": tru}',
        '\ufeff{"a": [], "b": []}',
    ],
)
@pytest.mark.parametrize("block", [1, 7, 1000])
def test_what_is_not_plain_is_left_to_the_parser_of_the_whole(
    text: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_sections, "BLOCK", block)
    with pytest.raises(Unusual):
        _ = portions(text.encode())


def miniature(count: int = 40) -> dict[str, Any]:
    """Polygons, run lengths, no mask and a malformed one in turn."""
    shapes: list[Any] = [
        [[1, 1, 9, 1.5, 9, 9]],
        [[1, 1, 9, 1, 9, 9], [10, 10, 12, 10, 12, 12.25, 9, 13]],
        {"size": [20, 30], "counts": [100, 50, 450]},
        [],
        [[1, 2, 3]],
        None,
        "abc",
        [[1, 1, 9, 1, 9, 9, 4]],
    ]
    annotations = [
        {
            "id": number,
            "image_id": number % 3,
            "category_id": 1,
            "bbox": [1, 1, 8, 8],
            **({} if number % 5 == 4 else {"area": 30.5, "iscrowd": 0}),
            **({} if number % 11 == 10 else {"segmentation": shapes[number % len(shapes)]}),
        }
        for number in range(count)
    ]
    images = [{"id": number, "file_name": f"{number}.jpg", "height": 20, "width": 30} for number in range(3)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}


def assert_equal(one: AnnotationFile, two: AnnotationFile) -> None:
    assert (one.images, one.categories, one.converted) == (two.images, two.categories, two.converted)
    for left, right in ((one.annotations, two.annotations), (one.annotations.masks, two.annotations.masks)):
        for name, value in vars(left).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(value, getattr(right, name), err_msg=name)
    assert one.annotations.masks.faults == two.annotations.masks.faults


def test_a_file_in_portions_is_that_parsed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps(miniature()).encode()
    whole = annotation_file._parsed_at_once(text, "f")
    file = tmp_path / "f"
    _ = file.write_bytes(text)
    monkeypatch.setattr(json_sections, "BLOCK", 500)
    monkeypatch.setattr(given_masks, "PORTION", 3)

    def never(data: bytes, source: str) -> AnnotationFile:
        raise AssertionError("a plain file is parsed in portions")

    monkeypatch.setattr(annotation_file, "_parsed_at_once", never)
    assert_equal(read_annotation_file(file), whole)
    assert_equal(parse_annotations(text, "f"), whole)


def read_by_three(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every file is large from now on; the list gets an item for each portion that a fork gives."""
    given: list[int] = []
    real = json_sections.forked

    def counted(work: Callable[[int], Any], processes: int) -> Iterator[Any]:
        for result in real(work, processes):
            given.append(processes)
            yield result

    monkeypatch.setattr(json_sections, "forked", counted)
    monkeypatch.setattr(json_sections, "SHARED", 500)
    monkeypatch.setattr(annotation_file, "LARGE", 0)
    monkeypatch.setattr(annotation_file, "usable_processes", lambda: 3)
    return given


def test_a_file_that_several_processes_read_is_that_parsed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps(miniature()).encode()
    whole = annotation_file._parsed_at_once(text, "f")
    _ = (tmp_path / "f").write_bytes(text)
    given = read_by_three(monkeypatch)
    assert_equal(read_annotation_file(tmp_path / "f"), whole)
    assert len(given) > 3
    assert set(given) == {3}


def test_a_mistake_that_a_fork_reads_is_named_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = miniature()
    content["annotations"][30]["bbox"] = [1, 2, "x", 4]
    _ = (tmp_path / "f").write_text(json.dumps(content))
    given = read_by_three(monkeypatch)
    with pytest.raises(UserError, match=r"f: annotation 30 of the list \(id 30, image_id 0\): field 'bbox'"):
        _ = read_annotation_file(tmp_path / "f")
    assert given


def test_without_simdjson_the_masks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps(miniature()).encode()
    flat = parse_annotations(text, "f")
    monkeypatch.setattr(given_masks, "_flat", lambda raws: None)
    assert_equal(parse_annotations(text, "f"), flat)


NUMBER = st.one_of(
    st.floats(-1e4, 1e4),
    st.integers(-5, 700),
    st.sampled_from([0, -0.0, 1e-320, 2**53 + 1, 2**64, 1e22, 1.7976931348623157e308, 0.1 + 0.2, 5e-324]),
)
POLYGONS = st.lists(st.lists(NUMBER | st.sampled_from([None, True, "1", [1.0], {}]), max_size=8), max_size=3)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        POLYGONS | st.sampled_from([None, "a", 3, {}, [1, 2], [[[1]]], [[[[1]]]], [[[1], [2]]], ["abc"], [{"a": 1}]]),
        min_size=1,
        max_size=5,
    )
)
def test_simdjson_and_msgspec_read_the_same_numbers(masks: list[Any]) -> None:
    raws = [msgspec.Raw(json.dumps(mask).encode()) for mask in masks]
    fast = given_masks.parse_masks(raws)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(given_masks, "_flat", lambda raws: None)
        slow = given_masks.parse_masks(raws)
    for name, value in vars(slow).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(fast, name), err_msg=name)
    assert fast.faults == slow.faults


def test_a_mistake_far_into_a_file_is_named_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_sections, "BLOCK", 100)
    content = miniature()
    content["annotations"][30]["bbox"] = [1, 2, "x", 4]
    with pytest.raises(UserError, match=r"f: annotation 30 of the list \(id 30, image_id 0\): field 'bbox'"):
        _ = parse_annotations(json.dumps(content).encode(), "f")
