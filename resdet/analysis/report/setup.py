"""The inputs of a run: its data and its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from markupsafe import Markup

from resdet.analysis.pages.page import Section, code, columns, details, key, meter, name_of, note, table
from resdet.config import Config
from resdet.config.diff import differences
from resdet.engine.run_folder import RunFolder

MOST_CLASSES = 100  # rows of a table
MOST_TEXT = 100_000  # characters of a config
LONGEST_PATH = 500  # characters
COUNTS = {
    "classes": "classes",
    "images": "images",
    "objects": "objects",
    "crowd": "crowd regions",
    "masks": "masks",
    "images_without_objects": "images without objects",
    "images_with_crowd_only": "images with crowd regions only",
    "annotations_read": "annotations read",
    "annotations_kept": "annotations kept",
}
PLACES = {"annotations": "annotations", "images_folder": "images", "source": "file"}


def data_section(run: RunFolder) -> Section:
    """The counts of data_report.json."""
    if not run.data:
        body = note("The run has no readable data_report.json, which training writes when it opens its data.")
        return Section("data", "Data", body)
    splits = list(run.data)
    counts: list[list[object]] = [
        [label, *(_whole(run.data[split].get(count)) for split in splits)]
        for count, label in COUNTS.items()
        if any(_whole(run.data[split].get(count)) is not None for split in splits)
    ]
    places = [
        [split, label, Markup("<code>{}</code>").format(place[:LONGEST_PATH])]
        for split in splits
        for kind, label in PLACES.items()
        if isinstance(place := run.data[split].get(kind), str)
    ]
    body = columns(table(["", *splits], counts), _class_counts(run, splits))
    body += table(["split", "", "place"], places) if places else ""
    return Section("data", "Data", body + _remarks(run, splits))


def _class_counts(run: RunFolder, splits: list[str]) -> Markup:
    counts = {split: _mapping(run.data[split].get("class_counts")) for split in splits}
    first = counts[splits[0]]
    names = list(dict.fromkeys(name for split in counts.values() for name in split))
    if not names:
        return Markup("")
    names.sort(key=lambda name: -(_whole(first.get(name)) or 0))
    largest = max((_whole(value) or 0 for value in first.values()), default=1)
    rows = [
        [name_of(name), meter(_whole(first.get(name)) or 0, largest=largest)]
        + [_whole(counts[split].get(name)) for split in splits]
        for name in names[:MOST_CLASSES]
    ]
    more = f" (the first {MOST_CLASSES} of {len(names)})" if len(names) > MOST_CLASSES else ""
    return table([f"objects by class{more}", "", *splits], rows, wide=[1])


def _remarks(run: RunFolder, splits: list[str]) -> Markup:
    """The annotations that the reader skipped or corrected."""
    rows: list[list[object]] = []
    for split in splits:
        report = run.data[split]
        missing = report.get("missing_files")
        if isinstance(missing, list) and missing:
            rows.append([split, "image files missing", len(missing), ", ".join(map(str, missing[:5]))])
        for kind, what in (("skipped", "skipped"), ("skipped_masks", "mask left out"), ("fixed", "mended")):
            for reason, found in _mapping(report.get(kind)).items():
                examples = _mapping(found).get("examples")
                ids = ", ".join(map(str, examples[:5])) if isinstance(examples, list) else ""
                rows.append([split, f"{what}: {reason}", _whole(_mapping(found).get("count")), ids])
    return table(["split", "found while reading", "how often", "for example"], rows) if rows else Markup("")


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def config_section(run: RunFolder) -> Section:
    """The keys that differ from the defaults, and the whole config."""
    rows = [[key(name), _value(value), _value(default)] for name, (value, default) in changed(run.config).items()]
    lead = "The defaults are the papers' 1x recipe on COCO 2017; this is what the run does otherwise."
    body = table(["key", "this run", "default"], rows) if rows else note("Every key has its default.")
    text = run.config_text
    text = text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + "\n... (cut here)"
    return Section("config", "Config", body + details("config.yaml, whole", code(text)), lead)


def changed(config: Config) -> dict[str, tuple[Any, Any]]:
    """The keys whose values differ from the defaults, with both values; None is also the value of an absent part."""
    return {name: (ours, default) for name, (default, ours) in differences(Config(), config).items()}


def _value(value: Any) -> Markup:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return Markup("<code>{}</code>").format(text.removesuffix("\n").removesuffix("...").strip()[:300])
