"""Executes docs/first_steps.ipynb as Jupyter would, without it: `python tests/notebook.py` writes its outputs anew."""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from resdet.data.sets.cache import cache_folder

NOTEBOOK = Path(__file__).parents[1] / "docs/first_steps.ipynb"


def executed(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with new outputs; an exception in a cell is raised."""
    names: dict[str, Any] = {}
    cells, count = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            cell = {**cell, "execution_count": count, "outputs": outputs_of("".join(cell["source"]), names, count)}
        cells.append(cell)
    return {**notebook, "cells": cells}


def outputs_of(source: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """What a cell prints, and the value of its last line if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"cell {count}", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {count}", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    if value is not None:
        shown: dict[str, Any] = {"text/plain": repr(value).splitlines(keepends=True)}
        if hasattr(value, "_repr_png_"):
            shown["image/png"] = base64.b64encode(value._repr_png_()).decode()
        outputs.append({"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": shown})
    return outputs


def neutral(text: str) -> str:
    """The text of a notebook with the usual place of the cache, wherever it is on this machine."""
    return text.replace(str(cache_folder()), "~/.cache/resdet")


def main() -> None:
    """Writes the notebook with new outputs."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        notebook = executed(json.loads(NOTEBOOK.read_text(encoding="utf-8")))
        os.chdir(before)
    _ = NOTEBOOK.write_text(neutral(json.dumps(notebook, indent=1, ensure_ascii=False)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
