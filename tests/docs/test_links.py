"""The documentation names only files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "datasets/README.md")),
]
FILE = re.compile(r"(?<![\w/.$~-])[\w.-]+(?:/[\w.-]+)*/[\w.-]+\.(?:py|yaml|toml|md|png)\b")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
PLACEHOLDER = "NAME"  # resdet/cli/NAME.py


def paths_named_in(page: str) -> set[str]:
    """The files that a page names with their folder, and the targets of its links."""
    without_addresses = re.sub(r"https?://\S+", "", page).replace("\\_", "_")
    without_code = re.sub(r"```.*?```", "", without_addresses, flags=re.DOTALL)
    names = {*FILE.findall(without_addresses), *LINK.findall(without_code)}
    return {name for name in names if PLACEHOLDER not in name}


def test_paths_are_found_in_code_in_links_and_in_commands():
    page = "`ops/nms.py`, [a](b.md), [c](https://x.org/d.py): `python tools/e.py configs/f.yaml`, `resdet/cli/NAME.py`"
    assert paths_named_in(page) == {"ops/nms.py", "b.md", "tools/e.py", "configs/f.yaml"}


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_path_named_in_the_docs_exists(page: Path):
    names = paths_named_in(page.read_text(encoding="utf-8"))
    bases = (page.parent, ROOT, ROOT / "resdet")  # a page may leave the package's own name out
    assert [name for name in sorted(names) if not any((base / name).exists() for base in bases)] == []
