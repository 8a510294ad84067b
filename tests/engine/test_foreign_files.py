"""Files that are handed over: pipes, devices and what is not text."""

import os
from pathlib import Path

import pytest

from resdet.engine import checkpoint
from resdet.engine.run_folder import RunFiles
from resdet.errors import UserError


def test_a_pipe_or_a_device_is_refused_at_once(tmp_path: Path):
    from resdet.coco.annotation_file import read_annotation_file
    from resdet.coco.json_file import read_json
    from resdet.files import read_regular

    pipe = tmp_path / "manifest.json"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(UserError, match="is no regular file"):
            _ = read_annotation_file(path)
        with pytest.raises(UserError, match="is no regular file"):
            _ = read_json(path, dict, expected="an object")
    assert checkpoint.damage(tmp_path) == "manifest.json is not readable (UserError)"
    _ = (tmp_path / "long").write_bytes(b"12345")
    assert read_regular(tmp_path / "long", largest=5) == b"12345"
    with pytest.raises(UserError, match="has 5 bytes, and such a file has at most 4"):
        _ = read_regular(tmp_path / "long", largest=4)


def test_files_of_a_run_that_are_not_text_do_not_end_in_a_traceback(tmp_path: Path):
    files = RunFiles(tmp_path)
    _ = (tmp_path / "best").write_bytes(b"\xff\xfe")
    (tmp_path / "checkpoints/step_00000001").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no best checkpoint: it names .* which is not there"):
        _ = checkpoint.find_model_file(tmp_path / "best")
    (tmp_path / "best").unlink()
    (tmp_path / "best").mkdir()
    with pytest.raises(UserError, match=r"best: cannot be read \(Is a directory\); remove it"):
        _ = checkpoint.find_best_model_file(tmp_path)
    _ = files.metrics.write_bytes(b'{"step": 1}\n\xff\xff\n{"step": 2}\n')
    files.forget_after(1)
    assert files.metrics.read_bytes() == b'{"step": 1}\n'
