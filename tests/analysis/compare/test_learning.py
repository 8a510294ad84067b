"""The steps until a contestant has the first one's final AP, and the drawing of AP over steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from fabricated_runs import FABRICATED, NANO, fabricate, report, request
from resdet.analysis.compare.comparison import AP, Comparison, ContestantRecord, Curve, Run, read_comparison
from resdet.analysis.compare.learning import (
    check_figure,
    draw_curves,
    final_ap,
    mean_curve,
    reached_in_words,
    steps_to_reach,
)
from resdet.analysis.compare.plan import read_contestants
from resdet.errors import UserError
from resdet.workflows.compare import compare


def run(seed: int, *values: float | None) -> Run:
    """A run that was evaluated every 10 steps."""
    steps = [10.0 * (i + 1) for i in range(len(values))]
    return Run(f"run-seed{seed}", seed, "", {}, {}, {AP: Curve(steps, list(values))} if values else {})


def test_each_seed_is_held_against_the_same_seed_of_the_first() -> None:
    first = [run(0, 0.1, 0.3), run(1, 0.1, 0.2)]
    mine = [run(0, 0.2, 0.3, 0.2), run(1, 0.2, 0.1)]
    assert [(one.seed, one.step) for one in steps_to_reach(first, mine)] == [(0, 20), (1, 10)]


def test_what_is_never_reached_or_has_no_partner_is_told_apart() -> None:
    first = [run(0, 0.1, 0.3), run(1, 0.1, None), run(2)]
    mine = [run(0, 0.2, None, 0.2), run(1, 0.9), run(2, 0.9), run(3, 0.9)]
    assert [(one.seed, one.step) for one in steps_to_reach(first, mine)] == [(0, None)]
    assert [final_ap(one) for one in first] == [0.3, None, None]


def with_curves(folder: Path, curves: dict[str, list[list[float]]]) -> Comparison:
    """A comparison of finished runs whose AP over steps is given, contestant by contestant and seed by seed."""
    wanted = request(folder, *curves)
    for planned in fabricate(wanted, dict.fromkeys(curves, 0.1)):
        values = curves[planned.contestant][planned.seed]
        lines = [json.dumps({"step": 10 * (i + 1), AP: value}) + "\n" for i, value in enumerate(values)]
        _ = (planned.folder / "metrics.jsonl").write_text("".join(lines))
    _ = report(wanted)
    return read_comparison(folder / "compare.json")


CURVES = {
    "nano": [[0.0, 0.1, 0.2, 0.3], [0.0, 0.1, 0.2, 0.2]],
    "resnet18": [[0.1, 0.3, 0.4, 0.4], [0.0, 0.1, 0.1, 0.1]],
}


def test_a_comparison_tells_it_on_its_page_and_in_its_file(tmp_path: Path) -> None:
    first, other = with_curves(tmp_path, CURVES).contestants
    assert (first.reaches_first, reached_in_words(other)) == ([], "20, never of 40")
    page = (tmp_path / "compare.html").read_text()
    assert "Steps until the final AP of nano with the same seed" in page
    assert "20, never of 40" in page


def test_the_mean_is_over_the_steps_that_every_seed_has(tmp_path: Path) -> None:
    one = with_curves(tmp_path, CURVES).contestants[1]
    assert mean_curve(one) == ([10, 20, 30, 40], pytest.approx([0.05, 0.2, 0.25, 0.25]))
    shorter: ContestantRecord = msgspec.structs.replace(one, runs=[run(0, 0.2, 0.4, 0.6), run(1, 0.4, None)])
    assert mean_curve(shorter) == ([10], pytest.approx([0.3]))


def test_the_figure_is_drawn_and_replaced_but_no_file_of_others(tmp_path: Path) -> None:
    content = with_curves(tmp_path / "runs", CURVES)
    contestants = read_contestants([NANO], ["eval.every=10"], ["nano"])
    figure = tmp_path / "curves.png"
    for _ in range(2):
        check_figure(figure, contestants)
        draw_curves(content, figure)
    with Image.open(figure) as image:
        colors = {color for _, color in image.convert("RGB").getcolors(1 << 20) or ()}
    assert {(31, 119, 180), (255, 127, 14)} <= colors, "the two thick lines"
    Image.new("RGB", (4, 4)).save(figure)
    with pytest.raises(UserError, match=r"curves.png.*another file for --figure"):
        check_figure(figure, contestants)
    with pytest.raises(UserError, match=r"curves.jpg: the figure is a PNG"):
        check_figure(tmp_path / "curves.jpg", contestants)


def test_without_evaluations_on_the_way_there_is_no_figure_and_this_is_known_before_training(tmp_path: Path) -> None:
    contestants = read_contestants([NANO], [], ["nano"])
    never = [replace(one, config=replace(one.config, eval=replace(one.config.eval, every=0))) for one in contestants]
    with pytest.raises(UserError, match=r"set eval.every"):
        check_figure(tmp_path / "curves.png", never)
    content = with_curves(tmp_path / "runs", {"nano": [[0.1], [0.1]], "resnet18": [[0.1], [0.1]]})
    with pytest.raises(UserError, match=r"set eval.every"):
        draw_curves(content, tmp_path / "curves.png")


def test_python_draws_it_too(tmp_path: Path) -> None:
    _ = with_curves(tmp_path / "runs", CURVES)
    figure = tmp_path / "curves.png"
    done = compare(
        [NANO],
        list(CURVES),
        tmp_path / "runs",
        seeds=2,
        overrides=[*FABRICATED, "eval.every=10"],
        report_only=True,
        figure=figure,
        resamples=100,
        rounds=0,
    )
    assert done.comparison is not None
    assert figure.stat().st_size > 1000
