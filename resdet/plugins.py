"""Imports a user's own Python files, which add rows to resdet's tables: `--plugin my_backbone.py`.

This is the one place where resdet runs code that a user names, and only the command line (or the user's own Python
code) can name it: no key of a config, no checkpoint and no data file does.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from resdet.errors import UserError

_loaded: list[Path] = []


def load_plugins(files: Sequence[str | Path]) -> None:
    """Imports each file once, as `import my_backbone` would with its folder added at the end of the module path.

    An exception inside a file is not caught, because the file is the user's own code.

    Raises UserError for a file that is missing, is not a .py file, or has the name of another module.
    """
    for file in files:
        path = Path(file).resolve()
        if path not in _loaded:
            _import(path, str(file))
            _loaded.append(path)


def loaded_plugins() -> tuple[Path, ...]:
    """The files that were imported in this process, in order; the processes that it starts import them too."""
    return tuple(_loaded)


def _import(path: Path, given: str) -> None:
    if path.suffix != ".py" or not path.is_file():
        reason = "is not a Python file (.py)" if path.exists() else "does not exist"
        raise UserError(f"--plugin {given} {reason}; name the file that adds rows to resdet's tables")
    name = path.stem
    if not name.isidentifier():
        raise UserError(f"--plugin {given}: {name!r} is not a name that Python can import; rename the file")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # last, so that no file in that folder replaces a module of another package
    importlib.invalidate_caches()
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or Path(spec.origin).resolve() != path:
        raise UserError(f"--plugin {given}: there is another module {name!r}; rename the file")
    _ = importlib.import_module(name)
