"""Every Python snippet of the README and the docs is executed, page by page, in a folder like that of a reader.

The pages train for minutes; here every training is that of the smallest config. docs/extending.md has its own test.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import resdet
from resdet.config import Config, load_config

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "datasets/README.md"]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^\n)((?:^    .*\n|^\n)+)", re.MULTILINE)
TINY = (
    "train.steps=4", "data.shapes.train_images=8", "data.shapes.val_images=4", "train.device=cpu",
    "model.box_head.score_threshold=0.0",
)  # fmt: skip


def snippets(page: str) -> list[str]:
    """The Python blocks of a page: fenced as such, or indented and beginning with an import."""
    indented = [textwrap.dedent(block) for block in INDENTED.findall(re.sub(BLOCK, "", page))]
    return BLOCK.findall(page) + [block for block in indented if re.match(r"\s*(import|from) \w", block)]


def test_fenced_and_indented_blocks_are_found():
    page = "text\n\n    import a\n\n    a.b()\n\ntext\n\n    resdet train\n\n```python\nc\n```\n"
    assert snippets(page) == ["c\n", "import a\n\na.b()\n\n"]


WITH_SNIPPETS = [page for page in PAGES if snippets(page.read_text(encoding="utf-8")) and page.stem != "extending"]


def tiny_config(*paths: Any, overrides: Any = ()) -> Config:
    """The nano config for every other one, with the overrides of the page except for its backbones and lengths."""
    kept = [override for override in overrides if not override.startswith(("model.backbone", "train.steps"))]
    return load_config(*("nano" if "quickstart" in str(path) else path for path in paths), overrides=[*kept, *TINY])


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the photos of the pages, where the quickstart takes a second."""
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for name in ("photo.jpg", "photos/a.jpg", "photos/b.png"):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / name)
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("resdet.workflows.train.load_config", tiny_config)
    monkeypatch.setattr("resdet.analysis.compare.plan.load_config", tiny_config)
    return tmp_path


@pytest.mark.parametrize("page", WITH_SNIPPETS, ids=[page.name for page in WITH_SNIPPETS])
def test_the_snippets_of_a_page_run(page: Path, reader: Path):
    names: dict[str, Any] = {}
    if page.name == "five_minutes.md":  # its first command
        _ = resdet.train("quickstart", "runs/quickstart")
    for number, snippet in enumerate(snippets(page.read_text(encoding="utf-8"))):
        if "to_supervision" in snippet:
            _ = pytest.importorskip("supervision")
        exec(compile(snippet, f"{page.name}, block {number}", "exec"), names)
    if page.name in ("README.md", "python.md"):
        assert (reader / "found.png").is_file()
        assert isinstance(names["prediction"], resdet.Prediction)


def test_the_pages_with_snippets_are_known():
    assert [page.name for page in WITH_SNIPPETS] == [
        "README.md",
        "augmentation.md",
        "five_minutes.md",
        "formats.md",
        "python.md",
        "training.md",
        "weights.md",
    ]
