"""The text of `resdet train --help-config`: every key with its type, default, bounds and a line of help."""

from __future__ import annotations

import textwrap
from typing import Any, Literal, get_args, get_origin

from resdet.config.check import bounds, shown
from resdet.config.declare import Key, Part, walked
from resdet.config.tree import Config
from resdet.errors import UserError, did_you_mean

WIDTH = 80
CHANGES = {
    "forbidden": "",
    "warned": "a resumed run may change it, with a warning",
    "free": "a resumed run may change it",
}


def config_help(prefix: str = "") -> str:
    """The keys at and below a prefix such as "train" or "model.rpn.nms_iou", at 80 columns; all keys for "".

    Raises UserError for a prefix that is neither a key nor a part.
    """
    declarations = list(walked(Config))
    below = [d for d in declarations if not prefix or d.path == prefix or d.path.startswith(f"{prefix}.")]
    if not below:
        raise UserError(f"--help-config {prefix}: no such key{did_you_mean(prefix, [d.path for d in declarations])}")
    return "\n".join(_part(d) if isinstance(d, Part) else _key(d) for d in below)


def _part(part: Part) -> str:
    summary = (part.kind.__doc__ or "").partition("\n")[0]
    absent = " Left out unless one of its keys is given." if part.optional and _is_absent(part) else ""
    return f"\n{_wrapped(f'# {part.path}: {summary}{absent}', '', '# ')}"


def _is_absent(part: Part) -> bool:
    value: Any = Config()
    for name in part.path.split("."):
        value = getattr(value, name, None)
    return value is None


def _key(key: Key) -> str:
    kind = "plain values by name" if get_origin(key.kind) is dict else kind_in_words(key.kind)
    of = " ".join(filter(None, [kind, bounds(key.rules)])) + (", or null" if key.optional else "")
    notes = "; ".join(filter(None, [key.rules.help, CHANGES[key.rules.resume]]))
    return "\n".join(
        [_wrapped(f"{key.path}={shown(key.default)}", "", "    "), _wrapped(of, "    "), _wrapped(notes, "    ")]
    )


def kind_in_words(kind: Any) -> str:
    """int, float, bool, text, "list of float", or the choices: "a | b"."""
    if get_origin(kind) is Literal:
        return " | ".join(get_args(kind))
    if get_origin(kind) is list:
        return f"list of {kind_in_words(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return "names with arguments"
    return "text" if kind is str else kind.__name__


def _wrapped(text: str, indent: str, further: str | None = None) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent if further is None else further,
        break_on_hyphens=False,
    )
