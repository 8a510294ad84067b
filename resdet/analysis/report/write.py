"""Assembles the report, limits its size, and writes it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup

from resdet.analysis.pages.page import Page, Section, environment, note, render_page
from resdet.analysis.report.figures import figures_section, headlines
from resdet.analysis.report.mistakes import mistakes_section, summary
from resdet.analysis.report.pictures import Album, Detail, Picture
from resdet.analysis.report.scored import Scored, open_scored
from resdet.analysis.report.setup import config_section, data_section
from resdet.analysis.report.training import training_section
from resdet.data.sets.coco import CocoDataset
from resdet.engine.run_folder import RunFiles, RunFolder, read_run
from resdet.engine.task.table import task_of
from resdet.errors import UserError
from resdet.outputs import check_output, write_output
from resdet.version import __version__

LARGEST = 9_500_000  # bytes of the page
DETAILS = (  # the first one that fits is used
    Detail(gallery=24, worst=12, side=512, quality=82),
    Detail(gallery=24, worst=12, side=384, quality=75),
    Detail(gallery=16, worst=8, side=320, quality=70),
    Detail(gallery=8, worst=6, side=256, quality=60),
    Detail(gallery=0, worst=0, side=256, quality=60),
)


def write_report(run: Path, output: Path | None = None, *, dataset: CocoDataset | None = None) -> Path:
    """Writes the report of a run's folder to `output` (report.html in the folder) and returns where it is.

    `dataset` are the images of its last evaluation, if they are open already. A part whose inputs are missing is
    replaced by a sentence that names the command which creates them. Raises UserError for a folder that is not a run
    and for a file that cannot be written; an older report then stays unchanged.
    """
    folder = read_run(run)
    if output:
        check_output(output)
    output = output or RunFiles(run).report
    write_output(output, report_html(folder, dataset).encode())
    return output


def report_html(run: RunFolder, dataset: CocoDataset | None = None, *, largest: int = LARGEST) -> str:
    """The page with the most detail that fits into `largest` bytes."""
    scored, without = None, ""
    if task_of(run.config).has_detections:
        try:
            scored = open_scored(run, dataset)
        except UserError as error:
            without = str(error)
    before = [figures_section(run, scored), training_section(run)]
    if scored:
        before.append(mistakes_section(scored))
    elif without:
        before.append(Section("mistakes", "What it gets wrong", note(f"Not shown: {without}.")))
    after = [data_section(run), config_section(run)]
    if scored is None:
        return _rendered(run, scored, [*before, *after])
    album = Album(scored, DETAILS[0].side, run.config.data.sixteen_bit)
    html = ""
    for detail in DETAILS:
        pictures = [_worst_section(album, detail), _gallery_section(album, detail)]
        html = _rendered(run, scored, [*before, *pictures, *after])
        if len(html.encode()) <= largest:
            break
    return html


def _rendered(run: RunFolder, scored: Scored | None, sections: Sequence[Section]) -> str:
    page = Page(
        title=run.name,
        kicker="resdet report",
        sections=sections,
        facts=_facts(run, scored),
        headlines=headlines(run.figures),
        summary=_summary(run, scored),
        scripts=("contents.js", "gallery.js"),
        footer=f"Written by resdet {__version__} from {run.path}. This file needs nothing else.",
    )
    return render_page(page)


def _facts(run: RunFolder, scored: Scored | None) -> list[str]:
    config = run.config
    facts = [f"{task_of(config).describe(config.model)}, {config.model.backbone.name}"]
    if run.step is not None:
        facts.append(f"step {run.step} of {config.train.steps}{f', ended by {run.ended}' if run.ended else ''}")
    if scored:
        dataset = scored.dataset
        objects = int(dataset.objects_per_image().sum())
        facts.append(f"{len(dataset)} images, {objects} objects, {len(dataset.class_names)} classes")
    if run.backend:
        facts.append(f"scored by {run.backend}")
    return [*facts, datetime.now(UTC).strftime("written %Y-%m-%d %H:%M UTC"), f"resdet {__version__}"]


def _summary(run: RunFolder, scored: Scored | None) -> Markup:
    parts = [summary(scored)] if scored else []
    parts += [note(text) for text in run.notes]
    ap50, written = (scored.boxes.errors.ap50 if scored else None), run.figures.get("bbox/AP50")
    if ap50 is not None and written is not None and abs(ap50 - written) > 1e-6:
        text = (
            f"predictions.json is of another evaluation than the figures: it has an AP50 of {ap50:.4f}, eval.json one "
            f"of {written:.4f}. To have both of the newest checkpoint: resdet evaluate {run.path} --output {run.path}"
        )
        parts.append(note(text))
    return Markup("\n").join(parts)


def _worst_section(album: Album, detail: Detail) -> Section:
    pictures = album.worst(detail)
    lead = f"The images with most missed objects and wrong boxes, at a score of {album.scored.score:g} and IoU 0.5."
    if not pictures and not album.scored.boxes.worst:
        return Section(
            "worst", "Worst images", note("There is none: every object is found, and no box is wrong."), lead
        )
    return Section("worst", "Worst images", _pictures(album, pictures, gallery=False), lead)


def _gallery_section(album: Album, detail: Detail) -> Section:
    lead = "Images spread evenly over those that the run was evaluated on."
    return Section("gallery", "Gallery", _pictures(album, album.gallery(detail), gallery=True), lead)


def _pictures(album: Album, pictures: Sequence[Picture], *, gallery: bool) -> Markup:
    template = environment.get_template("pictures.html.j2")
    drawn = Markup("")
    if pictures:
        html = template.render(pictures=pictures, gallery=gallery, score=album.scored.score)
        drawn = Markup(html)  # noqa: S704  # the template has escaped it
    if album.unreadable:
        first = next(iter(album.unreadable.values()))
        drawn += note(f"{len(album.unreadable)} images cannot be read and are left out, the first: {first}")
    elif not pictures:
        drawn = note("The images are left out, for with them the page would be too large.")
    return drawn
