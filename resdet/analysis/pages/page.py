"""A page in one file: skeleton, numbers and tables. It loads nothing from the network.

Everything is escaped by default (Jinja's autoescape, `Markup.format`), and the page's Content-Security-Policy permits
only the scripts and the style that this module writes into it.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from resdet.text import printable

Number = float | int  # the shape checks of the tests do not accept a whole number as a float
UNDEFINED = "\N{EN DASH}"
LONGEST_NAME = 48  # characters of a name in a table; its tooltip has the whole name

environment = Environment(
    loader=PackageLoader("resdet.analysis.pages", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Section:
    """A part of a page with an entry in the table of contents; `lead` is a sentence under the title."""

    anchor: str
    title: str
    body: Markup
    lead: str | Markup = ""


@dataclass(frozen=True)
class Headline:
    """One large figure at the top of a page; `detail` describes it in a few words."""

    name: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Page:
    """The content of a page: title, a line of facts, large figures, sentences, sections and the file names
    of scripts."""

    title: str
    sections: Sequence[Section]
    kicker: str = "resdet"
    facts: Sequence[str] = ()
    headlines: Sequence[Headline] = ()
    summary: str | Markup = ""
    scripts: Sequence[str] = ("contents.js",)
    footer: str | Markup = ""


def render_page(page: Page) -> str:
    """The whole page as HTML."""
    style = asset("page.css")
    scripts = [asset(name) for name in page.scripts]
    return environment.get_template("page.html.j2").render(
        page=page,
        style=Markup(style),  # noqa: S704  # our own files
        scripts=[Markup(script) for script in scripts],  # noqa: S704  # our own files
        policy=content_security_policy(style, scripts),
    )


def content_security_policy(style: str, scripts: Sequence[str]) -> str:
    """Permits embedded images, this style and these scripts; no other source and no other inline script."""
    hashes = " ".join(_hash(script) for script in scripts) or "'none'"
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {hashes}; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def asset(name: str) -> str:
    """A file of resdet/analysis/pages/templates."""
    return (resources.files("resdet.analysis.pages") / "templates" / name).read_text(encoding="utf-8")


def number(value: Number | None, digits: int = 3) -> str:
    """A number with this many decimals; a dash if undefined."""
    return UNDEFINED if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def count(value: int) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def name_of(text: str) -> Markup:
    """A name from data: on one line, shortened, with the whole name as a tooltip if it was cut."""
    line = " ".join(printable(text).split())
    if len(line) <= LONGEST_NAME:
        return Markup('<bdi class="name">{}</bdi>').format(line)
    return Markup('<bdi class="name" title="{}">{}…</bdi>').format(line[:1000], line[: LONGEST_NAME - 1])


def meter(value: Number | None, *, largest: Number = 1.0, color: int = 1) -> Markup:
    """A horizontal bar of length `value / largest` (relative to the available width); `color` is a series, 1 .. 8."""
    share = 0.0 if value is None or not math.isfinite(value) or largest <= 0 else min(max(value / largest, 0.0), 1.0)
    return Markup(
        '<svg class="meter" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="8"/><rect class="fill{}" width="{}" height="8"/></svg>'
    ).format(color, f"{100 * share:.1f}")


def table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str = "", wide: Sequence[int] = ()
) -> Markup:
    """A table. Cells are text (escaped), Markup, or numbers, which are aligned to the right with three decimals; the
    columns in `wide` share the remaining width.
    """
    head = Markup("").join(
        Markup('<th scope="col"{}>{}</th>').format(_cell_class(number=_is_numeric(rows, i), wide=i in wide), column)
        for i, column in enumerate(columns)
    )
    body = Markup("").join(
        Markup("<tr>{}</tr>\n").format(
            Markup("").join(
                Markup("<td{}>{}</td>").format(_cell_class(number=_is_numeric(rows, i), wide=i in wide), _cell(value))
                for i, value in enumerate(row)
            )
        )
        for row in rows
    )
    title = Markup("<caption>{}</caption>").format(caption) if caption else Markup("")
    return Markup('<div class="scroll"><table>{}<thead><tr>{}</tr></thead>\n<tbody>\n{}</tbody></table></div>').format(
        title, head, body
    )


def _cell(value: object) -> str | Markup:
    if value is None or isinstance(value, float):
        return number(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return count(value)
    return value if isinstance(value, Markup) else str(value)


def _is_numeric(rows: Sequence[Sequence[object]], column: int) -> bool:
    """Whether a column holds numbers."""
    values = [row[column] for row in rows if row[column] is not None]
    return bool(rows) and all(isinstance(value, int | float) for value in values)


def _cell_class(*, number: bool, wide: bool) -> Markup:
    kinds = " ".join(name for name, wanted in (("number", number), ("wide", wide)) if wanted)
    return Markup(' class="{}"').format(kinds) if kinds else Markup("")


def note(text: str | Markup) -> Markup:
    """A sentence in the place of something that is missing."""
    return Markup('<p class="note">{}</p>').format(text)


def columns(*parts: Markup) -> Markup:
    """Parts beside one another if the page is wide enough."""
    cells = Markup("").join(Markup("<div>{}</div>\n").format(part) for part in parts if part)
    return Markup('<div class="columns">\n{}</div>').format(cells)


def details(summary: str, body: Markup) -> Markup:
    """A part that is collapsed until the reader opens it."""
    return Markup("<details><summary>{}</summary>\n{}</details>").format(summary, body)


def key(name: str) -> Markup:
    """The name of a config key, which a narrow column breaks at its dots only."""
    return Markup('<code class="key">{}</code>').format(Markup(".<wbr>").join(name.split(".")))


def code(text: str) -> Markup:
    return Markup('<pre class="scroll"><code>{}</code></pre>').format(text)
