"""YAML as plain data: no tags, no aliases, nothing that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError

from resdet.errors import UserError

LARGEST_FILE = 1_000_000  # bytes


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a config file is, as plain data; at most a megabyte."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path}: larger than a megabyte; that is not a config file")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a config file such as configs/quickstart.yaml") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file; give a YAML config") from None
    return parse_mapping(text, str(path))


def parse_mapping(text: str, source: str) -> dict[str, Any]:
    """A mapping of keys to values; an empty text is an empty one. `source` is what an error names."""
    data = parse(text, source)
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(f"{source}: a config is a mapping of keys to values, this is a {type(data).__name__}")
    return data


def parse(text: str, source: str) -> Any:
    """Any YAML value. Raises UserError with the line that is not readable."""
    try:
        return yaml.load(text, Loader=_DataLoader)  # noqa: S506  # a SafeLoader, stricter still
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        raise UserError(f"{source}: not readable as YAML{line}: {reason}") from None


class _DataLoader(yaml.SafeLoader):
    """Plain data only: aliases are refused too, for ten nested ones can expand to a billion nodes.

    `on`, `off`, `yes` and `no` are words, as in YAML 1.2: `train.amp=off` means "off".
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML's own class attribute
        first: [(tag, pattern) for tag, pattern in resolvers if first in "tTfF" or not tag.endswith(":bool")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise ComposerError(None, None, "aliases are not allowed", event.start_mark)
        return super().compose_node(parent, index)
