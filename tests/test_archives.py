"""resdet unpacks no archive, so no path in one can leave the folder that it is unpacked into."""

import ast
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UNPACKING = {"unpack_archive", "extractall", "extract"}
ARCHIVES = {"tarfile"}  # what reads them; only these files may, which read and write members as bytes:
READERS = {"resdet/coco/shards.py", "resdet/data/sets/shard_folder.py", "resdet/exporting/web/runtime_files.py"}


def names(tree: ast.AST) -> set[str]:
    """The modules and attributes that code uses."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
    return found


@pytest.mark.parametrize("folder", ["resdet", "tools", "datasets"])
def test_no_code_unpacks_an_archive(folder: str):
    used = {
        file.relative_to(ROOT).as_posix(): names(ast.parse(file.read_text())) for file in (ROOT / folder).rglob("*.py")
    }
    assert [file for file, found in used.items() if found & UNPACKING] == []
    assert {file for file, found in used.items() if found & ARCHIVES} == {
        file for file in READERS if file.startswith(f"{folder}/")
    }


def test_the_search_finds_what_it_searches_for():
    for code in ("import tarfile", "from shutil import unpack_archive", "archive.extractall(folder)"):
        assert names(ast.parse(code)) & (UNPACKING | ARCHIVES), code


MEMBERS = {
    "../escaped": (tarfile.REGTYPE, ""),
    "/tmp/escaped-from-resdet": (tarfile.REGTYPE, ""),
    "link": (tarfile.SYMTYPE, "/etc"),
    "hard": (tarfile.LNKTYPE, "../escaped"),
    "device": (tarfile.CHRTYPE, ""),
}


@pytest.mark.parametrize("member", MEMBERS)
def test_an_archive_in_the_place_of_a_file_is_refused_and_stays_packed(tmp_path: Path, member: str):
    folder = tmp_path / "inner"
    folder.mkdir()
    archive, info = folder / "a.json", tarfile.TarInfo(member)
    info.type, info.linkname = MEMBERS[member]
    with tarfile.open(archive, "w") as file:
        file.addfile(info, io.BytesIO())
    command = [sys.executable, "-m", "resdet.cli.main", "check-data", str(archive), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "a.json: not valid JSON" in line
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.json", "inner"]
    assert not Path("/tmp/escaped-from-resdet").exists()
