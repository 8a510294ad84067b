import errno
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from resdet import files
from resdet.errors import UserError
from resdet.files import leftovers, readable_json, replace_file, usable_paths, whole_file, working_folder


class Killed(BaseException):
    pass


def test_a_file_has_its_new_content_and_nothing_is_left_beside_it(tmp_path: Path):
    path = tmp_path / "figures.json"
    replace_file(path, b"old")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("bad"), Killed()])
def test_an_error_while_writing_leaves_the_old_content_and_nothing_beside_it(tmp_path: Path, error: BaseException):
    path = tmp_path / "figures.json"
    replace_file(path, b"old")

    def write() -> None:
        with whole_file(path) as temporary:
            _ = temporary.write_bytes(b"ne")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_appears_before_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[bool] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        seen.append((tmp_path / "a").exists())
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)
    replace_file(tmp_path / "a", b"content")
    assert seen == [False, True]  # the file, then the name of it in its folder


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_file_has_the_mode_of_the_umask_even_if_a_library_made_another_one(tmp_path: Path, umask: int, mode: int):
    before = os.umask(umask)
    try:
        with whole_file(tmp_path / "a") as temporary:
            temporary.unlink()
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        _ = os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_many_writers_of_one_file_leave_the_whole_content_of_one(tmp_path: Path):
    contents = [bytes([number]) * 100_000 for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        _ = list(pool.map(lambda content: replace_file(tmp_path / "a", content), contents))
    assert (tmp_path / "a").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_name_as_long_as_the_file_system_allows_can_be_written(tmp_path: Path):
    path = tmp_path / ("車" * 83 + ".json")  # 254 bytes
    replace_file(path, b"content")
    assert path.read_bytes() == b"content"


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(path.read_bytes)
        replace_file(path, b"content")
        assert read.result(timeout=10) == b"content"
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_what_a_killed_process_left_of_a_file_can_be_found(tmp_path: Path):
    (path, other) = (tmp_path / "a.json", tmp_path / "b.json")
    with whole_file(path) as temporary, whole_file(other):
        _ = temporary.write_bytes(b"half")
        assert leftovers(path) == [temporary]
    assert leftovers(path) == []


@pytest.mark.parametrize("refused", ["a" * 300, "circle/a", "file/a"])
def test_a_path_that_the_system_refuses_is_one_line(tmp_path: Path, refused: str):
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be used as a path \("), usable_paths():
        _ = (tmp_path / refused).stat()


def test_an_error_that_no_other_path_would_mend_stays_what_it_is():
    with pytest.raises(OSError, match="No space left"), usable_paths():
        raise OSError(errno.ENOSPC, "No space left on device", "a")


def test_readable_json_keeps_every_script_and_half_characters():
    content = {"猫": [1.5, None], "photo\udcff.jpg": 2}
    data = readable_json(content)
    assert "猫".encode() in data
    assert json.loads(data) == content
    with pytest.raises(ValueError, match="not JSON compliant"):
        _ = readable_json(float("nan"))


def test_the_working_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_stays(tmp_path: Path):
    with working_folder(tmp_path, "shapes") as living:
        killed, new = tmp_path / ".shapes-killed", tmp_path / ".shapes-new"
        for folder in (killed, new):
            folder.mkdir()
            _ = (folder / "000001.jpg").write_bytes(b"half")
        for folder in (living, killed):
            os.utime(folder, (0, 0))  # for long
        with working_folder(tmp_path, "shapes") as mine:
            assert sorted(tmp_path.iterdir()) == sorted((living, new, mine))
        assert not mine.exists()
    assert list(tmp_path.iterdir()) == [new]
