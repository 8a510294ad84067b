"""How the cost grows: one quantity is changed at a time, and its figures follow laws that no clock decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from resdet.analysis.benchmark.growth import QUANTITIES, Setting, exponent, growth, operations
from resdet.analysis.benchmark.growth_page import page, plot
from resdet.analysis.benchmark.timing import optimizer_seconds
from resdet.cli.main import main
from resdet.config import OptimConfig, load_config
from resdet.models.build.detector import build_model


@pytest.fixture(scope="module")
def base() -> Setting:
    return Setting(load_config("nano", overrides=["train.device=cpu"]), (64, 64), 2)


@pytest.fixture(scope="module")
def results(base: Setting) -> dict[str, Any]:
    few = {name: QUANTITIES[name] for name in ("batch", "classes")}
    return growth(base, rounds=1, quantities=few)


def rows_of(results: dict[str, Any], quantity: str) -> list[dict[str, float]]:
    return [row for row in results["rows"] if row["quantity"] == quantity]


def test_a_row_has_the_time_and_the_memory_of_each_value(results: dict[str, Any]) -> None:
    assert [row["value"] for row in rows_of(results, "batch")] == [2, 4, 6, 8]
    assert [row["value"] for row in rows_of(results, "classes")] == [20, 80, 365, 1203]
    for row in results["rows"]:
        assert all(row[name] > 0 for name in ("train_seconds", "predict_seconds", "train_mib", "train_gflop", "share"))
    assert results["limit_gflops"] > 0


def test_the_work_of_a_step_is_in_proportion_to_the_images(results: dict[str, Any]) -> None:
    rows = rows_of(results, "batch")
    assert exponent(rows, "train_gflop") == pytest.approx(1, abs=0.02)
    assert exponent(rows, "train_mib") == pytest.approx(1, abs=0.25)


def test_more_classes_are_more_work_in_the_last_layers_alone(results: dict[str, Any]) -> None:
    assert 0 < exponent(rows_of(results, "classes"), "train_gflop") < 0.5


def test_every_quantity_changes_one_thing(base: Setting) -> None:
    changed = {name: quantity.changed(base, 18) for name, quantity in QUANTITIES.items()}
    assert changed["batch"].batch == changed["objects"].objects == changed["classes"].classes == 18
    assert changed["depth"].config.model.backbone.name == "resnet18"
    rpn = changed["proposals"].config.model.rpn
    assert rpn.proposals_train == rpn.proposals_test == rpn.pre_nms_train == rpn.pre_nms_test == 18
    assert QUANTITIES["pixels"].changed(base, 4 * 64 * 64).size == (128, 128)
    assert base.config.model.rpn.proposals_train == 50, "the base stays"


def test_the_power_of_a_growth_by_the_pencil() -> None:
    rows = [{"value": 2, "a": 3.0, "b": 5.0, "c": 1.0}, {"value": 8, "a": 12.0, "b": 5.0, "c": 16.0}]
    assert [exponent(rows, name) for name in "abc"] == pytest.approx([1, 0, 2])


def test_operations_are_those_of_products() -> None:
    """A product of (2, 3) and (3, 5): 2 x 3 x 5 multiplications and as many additions."""
    left, right = torch.ones(2, 3), torch.ones(3, 5)
    assert operations(lambda: left @ right) == 60


def test_the_page_and_the_plot_have_every_quantity(results: dict[str, Any]) -> None:
    text = page(results)
    assert "## Images a batch" in text
    assert "## Classes" in text
    assert text.count("The time of a step grows as its power") == 2
    assert "| 1203 |" in text
    assert plot(results).startswith(b"\x89PNG")


@pytest.mark.parametrize("rest", [["--against", "torchvision"], ["--json", "a.json"], ["task=classification"]])
def test_growth_is_measured_alone(tmp_path: Path, rest: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "nano", "--growth", str(tmp_path / "out"), *rest]) == 2
    assert "--growth measures a detector alone" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command_measures_every_quantity_and_may_be_repeated(tmp_path: Path) -> None:
    arguments = ["benchmark", "nano", "train.device=cpu", "--size", "64x64", "--batch", "1", "--pairs", "1"]
    for _ in range(2):
        assert main([*arguments, "--growth", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "growth.json").read_text())["rows"]
    assert {row["quantity"] for row in rows} == set(QUANTITIES)
    assert (tmp_path / "growth.md").read_text().count("\n## ") == len(QUANTITIES)
    assert (tmp_path / "growth.png").stat().st_size > 10_000


def test_the_optimizer_is_measured_in_both_forms_if_it_has_them() -> None:
    model = build_model(load_config("nano").model, 3)
    both = optimizer_seconds(model, OptimConfig(), rounds=2)
    assert both.keys() == {
        f"optimizer/{name}" for name in ("plain_seconds", "fused_seconds", "fused_ratio", "same_bits")
    }
    alone = optimizer_seconds(model, OptimConfig(name="rmsprop"), rounds=1)
    assert alone.keys() == {"optimizer/plain_seconds"}
