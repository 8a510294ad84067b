"""The documentation site, by Sphinx with MyST and Furo: `sphinx-build -W -b dirhtml -c docs . build/site` in the root of a clone.

Material for MkDocs ends in May 2027, and MkDocs 1.x is not maintained any more (its releases 9.8.1 and 1.6.1 say so); their successor,
Zensical, is at 0.1. Sphinx is maintained, and its autodoc and its checks of links (-W) need no plugins of others.
"""

from resdet.version import __version__

project = "resdet"
author = copyright = "The resdet contributors"
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx_copybutton"]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "docs/*.ipynb", "datasets/README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
exclude_patterns = [".*", "build", "runs", "resdet", "tests", "shared", "docker"]

myst_heading_anchors = 3
nb_execution_mode = "off"  # tests/docs/test_notebook.py executes the notebook
default_role = "code"  # docstrings write `name` for code
autodoc_typehints = "description"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = "resdet"
html_show_sourcelink = False
templates_path: list[str] = []
