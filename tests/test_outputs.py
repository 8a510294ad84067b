"""Outputs are written whole, and a file that resdet did not write stays."""

import json
from pathlib import Path

import pytest

from resdet.errors import UserError
from resdet.files import readable_json
from resdet.outputs import check_output, check_outputs, signed, write_output, write_outputs

MARKED = readable_json(signed({"bbox/AP": 0.5}))


@pytest.mark.parametrize("data", [b"", MARKED, b'<!doctype html>\n<meta name="generator" content="resdet">'])
def test_what_resdet_wrote_and_an_empty_file_are_replaced(tmp_path: Path, data: bytes):
    path = tmp_path / "a.json"
    _ = path.write_bytes(data)
    write_output(path, MARKED)
    assert json.loads(path.read_bytes())["bbox/AP"] == 0.5


@pytest.mark.parametrize("data", [b'{"images": []}', b"<html>", b"\x89PNG\r\n", b"a note that names resdet"])
def test_a_file_of_somebody_else_stays_and_is_named(tmp_path: Path, data: bytes):
    path = tmp_path / "a.json"
    _ = path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.json: exists, and resdet did not write it; choose another --output, or"):
        write_output(path, MARKED)
    with pytest.raises(UserError, match=r"a\.json: exists"):
        write_outputs(tmp_path, {"b.json": MARKED, "a.json": MARKED})
    assert path.read_bytes() == data
    assert not (tmp_path / "b.json").exists()  # all are asked for before one is written


def test_what_is_absent_or_has_no_content_to_lose_may_be_written(tmp_path: Path):
    check_outputs(tmp_path / "absent", ("a.json",))
    check_output(Path("/dev/null"))
    write_output(Path("/dev/null"), MARKED)


def test_a_folder_that_cannot_be_written_is_one_line_with_the_remedy(tmp_path: Path):
    with pytest.raises(UserError, match=r"missing/a: cannot be written \(No such file or directory\); name another"):
        write_output(tmp_path / "missing" / "a", b"", "name another")
    _ = (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"file/folder: cannot be written \(Not a directory\); choose another --output"):
        write_outputs(tmp_path / "file" / "folder", {"a": b""})
