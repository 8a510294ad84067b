"""YAML as plain data: mappings, lists, text, numbers, true, false and null; no tags, no aliases, no code.

Unquoted values are read by the rules of YAML 1.2: 010 and 1:30 are text (in YAML 1.1 they are 8 and 90), and so are on,
off, yes, no and dates; 1e-3 is a number.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from resdet.errors import UserError

LARGEST_FILE = 1_000_000  # bytes
TAG = "tag:yaml.org,2002:"
WHOLE, EXPONENT = "(0|[1-9][0-9]*)", "[eE][-+]?[0-9]+"
PLAIN = [  # YAML 1.2, core schema: tag, pattern, first characters
    ("null", r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", rf"-?{WHOLE}", list("-0123456789")),
    ("float", rf"[-+]?((\.[0-9]+|{WHOLE}\.[0-9]*)({EXPONENT})?|{WHOLE}{EXPONENT})", list("-+.0123456789")),
    ("float", r"[-+]?(\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN", list("-+.")),
]


def read_yaml(path: Path) -> dict[str, Any]:
    """The content of a config file (a mapping) as plain data; the file has at most one megabyte."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path}: larger than a megabyte; that is not a config file")
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UserError(f"{path}: not a regular file; give a config file such as configs/quickstart.yaml")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a config file such as configs/quickstart.yaml") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file; give a YAML config") from None
    return parse_mapping(text, str(path))


def parse_mapping(text: str, source: str) -> dict[str, Any]:
    """A mapping of keys to values; an empty text is an empty mapping. Errors use `source` as the name."""
    data = parse(text, source)
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(f"{source}: a config is a mapping of keys to values, this is a {type(data).__name__}")
    return data


def parse(text: str, source: str) -> Any:
    """Any YAML value. Raises UserError that names the line with the syntax error."""
    try:
        node = yaml.compose(text, Loader=_DataLoader)
        return None if node is None else _plain(node)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        raise UserError(f"{source}: not readable as YAML{line}: {reason}") from None


def as_yaml(value: Any) -> str:
    """A value on one line, as in a config; a Python object that a config cannot contain is shown in Python's form."""
    try:
        text = yaml.dump(value, Dumper=_DataDumper, default_flow_style=True, allow_unicode=True, width=float("inf"))
    except (yaml.YAMLError, RecursionError):
        return " ".join(repr(value).split())
    return text.removesuffix("\n").removesuffix("\n...")


def dump(data: dict[str, Any]) -> str:
    """A mapping as YAML text; `parse_mapping` reads the same mapping back."""
    return yaml.dump(data, Dumper=_DataDumper, sort_keys=False, allow_unicode=True, width=float("inf"))


class _DataLoader(yaml.BaseLoader):
    """Rejects aliases, because ten nested aliases can expand to a billion nodes."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  # PyYAML's own class attribute

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise ComposerError(None, None, "aliases are not allowed", event.start_mark)
        return super().compose_node(parent, index)


class _DataDumper(yaml.SafeDumper):
    """Quotes text that YAML 1.2, or only the older 1.1, would read as another type."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _name, _pattern, _first in PLAIN:
    _tag, _whole = f"{TAG}{_name}", re.compile(rf"(?:{_pattern})\Z")
    _DataLoader.add_implicit_resolver(_tag, _whole, _first)
    _DataDumper.add_implicit_resolver(_tag, _whole, _first)


def _plain(node: yaml.Node) -> Any:
    if node.tag not in READERS:
        raise ConstructorError(None, None, f"the tag {node.tag} is not allowed", node.start_mark)
    return READERS[node.tag](node.value)


def _mapping(pairs: list[tuple[yaml.Node, yaml.Node]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key, value in pairs:
        if not isinstance(key, yaml.ScalarNode):
            raise ConstructorError(None, None, "a key must be a word", key.start_mark)
        line = key.start_mark.line + 1
        if key.value in mapping:
            raise ConstructorError(
                None, None, f"the key {key.value!r} stands in line {lines[key.value]} and again in line {line}"
            )
        mapping[key.value], lines[key.value] = _plain(value), line
    return mapping


READERS: dict[str, Callable[[Any], Any]] = {
    f"{TAG}map": _mapping,
    f"{TAG}seq": lambda nodes: [_plain(node) for node in nodes],
    f"{TAG}str": str,
    f"{TAG}int": int,
    f"{TAG}float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
    f"{TAG}bool": lambda text: text.lower() == "true",
    f"{TAG}null": lambda text: None,
}
