"""The documentation site, by Sphinx with MyST and Furo: `sphinx-build -W -b dirhtml -c docs . build/site` in a clone.

Material for MkDocs ends in May 2027 and MkDocs 1.x is not maintained any more; their successor, Zensical, is at 0.1.
Sphinx is maintained, and its autodoc and its checks of links (-W) need no plugins of others. The one notebook is turned
into Markdown here: myst-nb would bring 25 packages of Jupyter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx

from resdet.version import __version__

project = "resdet"
author = copyright = "The resdet contributors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "docs/*.ipynb", "datasets/README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
exclude_patterns = [".*", "build", "configs", "docker", "resdet", "runs", "shared", "tests", "tools"]

myst_heading_anchors = 3
smartquotes_action = "qe"  # two dashes begin an option: they are no dash
default_role = "code"  # docstrings write `name` for code
autodoc_typehints = "description"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = "resdet"
html_show_sourcelink = False
html_static_path = ["site"]
html_css_files = ["site.css"]


class NotebookParser(MystParser):
    """Reads a notebook as Markdown: its cells, what they print and what they show."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        cells = json.loads(inputstring)["cells"]
        super().parse("\n\n".join(part for cell in cells for part in markdown_of(cell)), document)


def markdown_of(cell: dict[str, Any]) -> list[str]:
    """The text of a cell, or its code and outputs; a picture is shown rather than its text."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return [source]
    parts = [f"```python\n{source}\n```"]
    for output in cell["outputs"]:
        data = output.get("data", {"text/plain": output.get("text", [])})
        if "image/png" in data:
            parts.append(f'<img alt="what the cell shows" src="data:image/png;base64,{data["image/png"]}">')
        else:
            parts.append(f"````text\n{''.join(data['text/plain'])}\n````")
    return parts


def write_entrance(app: Sphinx, _: Exception | None) -> None:
    """The pages keep their folders, so the first one is below docs/."""
    entrance = '<meta charset="utf-8"><meta http-equiv="refresh" content="0; url=docs/index.html"><title>resdet</title>'
    _ = Path(app.outdir, "index.html").write_text(entrance, encoding="utf-8")


def setup(app: Sphinx) -> None:
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
    _ = app.connect("build-finished", write_entrance)
