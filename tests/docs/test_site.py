"""The site leads to every page, and its reference has every public name; CI builds it with every warning an error."""

from __future__ import annotations

import re
import runpy

from docutils.utils.smartquotes import educate_tokens

import resdet
from docs_pages import PAGES, ROOT, name_of

INDEX = (ROOT / "docs/index.md").read_text(encoding="utf-8")
TREES = re.findall(r"^```\{toctree\}\n(.*?)^```$", INDEX, re.MULTILINE | re.DOTALL)
ENTRIES = [line for tree in TREES for line in tree.splitlines() if line and not line.startswith(":")]


def test_the_site_leads_to_every_page_once() -> None:
    pages = {name_of(page) for page in PAGES} - {"README.md", "docs/index.md"} | {"docs/first_steps.ipynb"}
    files = [
        (ROOT / "docs" / f"{entry}{suffix}").resolve()
        for entry in ENTRIES
        for suffix in (".md", ".ipynb")
        if (ROOT / "docs" / f"{entry}{suffix}").is_file()
    ]
    assert sorted(name_of(file) for file in files) == sorted(pages)
    assert len(files) == len(ENTRIES)


def test_the_front_page_lists_pages_and_not_their_sections() -> None:
    assert all(":maxdepth: 1\n" in tree for tree in TREES)


def test_the_dashes_of_an_option_stay_two_dashes() -> None:
    """Sphinx makes a dash of two of them outside code, in headings for example."""
    action = runpy.run_path(str(ROOT / "docs/conf.py"))["smartquotes_action"]
    assert "".join(educate_tokens([("plain", 'check-data --strict "a"')], action)) == "check-data --strict “a”"


def test_the_readme_names_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [name for page in PAGES if (name := name_of(page)) not in ("README.md", "docs/index.md")
               and f"]({name})" not in readme]  # fmt: skip
    assert missing == []


def test_the_reference_has_every_public_name() -> None:
    reference = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\.\. auto\w+:: resdet\.(\w+)$", reference, re.MULTILINE))
    assert named == set(resdet.__all__) - {"__version__"} | {"structures"}
