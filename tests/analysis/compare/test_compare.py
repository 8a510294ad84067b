"""Who takes part, what is trained, what goes on, and what finished runs amount to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from fabricated_runs import FABRICATED, NANO, fabricate, report, request
from resdet import plugins
from resdet.analysis.compare.compare_backbones import compare_backbones, list_runs
from resdet.analysis.compare.comparison import AP, read_comparison
from resdet.analysis.compare.conclusions import differing_keys, training_speed
from resdet.analysis.compare.page import comparison_page
from resdet.analysis.compare.places import make_slots
from resdet.analysis.compare.plan import folder_name, planned_runs, read_contestants
from resdet.analysis.compare.schedule import alone_in
from resdet.analysis.compare.speed import kept_prediction_speed
from resdet.analysis.compare.summary import HE_2015
from resdet.analysis.compare.verdict import SIGNIFICANT
from resdet.config import to_yaml
from resdet.engine.run_folder import read_run
from resdet.errors import UserError
from resdet.models.build.conventions import completed


def test_a_file_that_is_no_comparison_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "compare.json"
    for content in (b"", b"{}", b'{"command": 3}', b"\xff"):
        _ = path.write_bytes(content)
        with pytest.raises(UserError, match=r"is no comparison .*--report-only writes it anew"):
            _ = read_comparison(path)
    with pytest.raises(UserError, match=r"missing.json: cannot be read"):
        _ = read_comparison(tmp_path / "missing.json")


# Contestants


def test_overrides_after_a_colon_are_the_contestants_own() -> None:
    text = "resnet18:model.backbone.norm=gn,model.anchors.sizes=[8, 16, 32, 48, 64],optim.lr=0.01"
    plain, special = read_contestants([NANO], ["optim.lr=0.5"], ["nano", text])
    assert (plain.config.model.backbone.name, plain.config.optim.lr) == ("nano", 0.5)
    assert special.overrides == ("model.backbone.norm=gn", "model.anchors.sizes=[8, 16, 32, 48, 64]", "optim.lr=0.01")
    assert (special.config.model.backbone.name, special.config.optim.lr) == ("resnet18", 0.01)


def test_a_contestant_may_have_a_shorter_name() -> None:
    short, plain = read_contestants([NANO], [], ["with GN=nano:model.backbone.norm=gn", "nano"])
    assert (short.name, short.backbone, short.overrides) == ("with GN", "nano", ("model.backbone.norm=gn",))
    assert (plain.name, plain.backbone) == ("nano", "nano")


def test_the_backbone_of_a_shorter_name_is_among_the_differences() -> None:
    assert differing_keys(read_contestants([NANO], [], ["nano", "vgg16"])) == {}
    assert differing_keys(read_contestants([NANO], [], ["nano", "classic=vgg16"])) == {
        "model.backbone.name": {"nano": "nano", "classic": "vgg16"}
    }


@pytest.mark.parametrize(
    ("overrides", "backbones", "hint"),
    [
        ([], ["nano:"], "write resnet18, or with overrides"),
        ([], ["nano:lr"], "'lr' is not key=value"),
        ([], ["nano:optim.lr=0.1,"], "optim.lr"),
        ([], ["nano:optim.lrr=0.1"], "did you mean 'lr'"),
        ([], ["model.backbone.name=nano"], "write resnet18"),
        ([], ["nano:train.seed=3"], "--seeds K"),
        ([], ["nano:model.backbone.name=vgg16"], "the backbone is nano"),
        ([], ["=nano"], "write resnet18"),
        ([], ["a=b=nano"], "write resnet18"),
        ([], ["a=nano", "a=vgg16"], "a takes part 2 times"),
        (["train.seed=1"], ["nano"], "--seeds K"),
        (["model.backbone.name=vgg16"], ["nano"], "with --backbones"),
        ([], ["nano", "nano"], "takes part 2 times"),
        ([], ["timm/x", "timm-x"], "timm-x takes part 2 times"),
        (["model.box_head=null"], ["nano", "vgg16"], "nano: a first stage alone .* has no AP to compare by"),
        ([], ["nano", "vgg16:data.shapes.val_images=9"], "scored on the same images"),
    ],
)
def test_what_is_no_comparison_is_one_line(overrides: list[str], backbones: list[str], hint: str) -> None:
    with pytest.raises(UserError, match=hint) as error:
        _ = read_contestants([NANO], overrides, backbones)
    assert "\n" not in str(error.value)


def test_runs_are_seed_after_seed_in_folders_with_safe_names(tmp_path: Path) -> None:
    runs = planned_runs(read_contestants([NANO], [], ["nano", "timm/convnext_atto"]), 2, tmp_path)
    assert [run.name for run in runs] == [
        "nano-seed0", "timm-convnext_atto-seed0", "nano-seed1", "timm-convnext_atto-seed1",
    ]  # fmt: skip
    assert [run.config.train.seed for run in runs] == [0, 0, 1, 1]
    assert folder_name("../../x:a=[1, 2]") == "x-a-1-2"


# Before anything is trained


def test_runs_with_another_config_are_refused_by_the_keys(tmp_path: Path) -> None:
    _ = fabricate(request(tmp_path, "nano"), {"nano": 0.1})
    with pytest.raises(UserError, match=r"nano-seed0: was trained with another config: train.steps=60 \(was 40\)"):
        _ = list_runs(request(tmp_path, "nano", overrides=[*FABRICATED, "train.steps=60"]))
    harmless = [*FABRICATED, "train.log_every=3", "train.device=auto"]
    assert "finished, box AP 0." in list_runs(request(tmp_path, "nano", overrides=harmless))[1]


def test_a_run_that_wrote_out_its_conventions_is_still_the_one_that_left_them_open(tmp_path: Path) -> None:
    masks = [*FABRICATED, "model.mask_head.name=fcn"]
    (run, *_) = fabricate(request(tmp_path, "nano", overrides=masks), {"nano": 0.1})
    completed_model, _ = completed(run.config.model, None, "")
    written = replace(completed_model, pixel_mean=[1.0, 2.0, 3.0], pixel_std=[1.0, 1.0, 1.0])
    assert (written.anchors.rounded, written.mask_head and written.mask_head.sampling_ratio) == (False, 2)
    _ = (run.folder / "config.yaml").write_text(to_yaml(replace(run.config, model=written)))
    assert "finished, box AP 0." in list_runs(request(tmp_path, "nano", overrides=masks))[1]
    with pytest.raises(UserError, match=r"model.anchors.rounded=true \(was false\)"):
        _ = list_runs(request(tmp_path, "nano", overrides=[*masks, "model.anchors.rounded=true"]))


def test_a_damaged_file_of_an_earlier_comparison_is_named(tmp_path: Path) -> None:
    (run, *_) = fabricate(request(tmp_path, "nano"), {"nano": 0.1})
    for damaged in ("[1", "[]", '{"contestants": {"nano": 5}}'):
        _ = (tmp_path / "prediction_speed.json").write_text(damaged)
        with pytest.raises(UserError, match=r"prediction_speed.json: is damaged .*; remove it"):
            _ = kept_prediction_speed(tmp_path / "prediction_speed.json", ["nano"])
    _ = (run.folder / "config.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"config.yaml: not a text file"):
        _ = list_runs(request(tmp_path, "nano"))


def test_a_backbone_that_does_not_fit_is_named_before_any_training(tmp_path: Path) -> None:
    wanted = request(tmp_path / "new", "nano", "resnet20_cifar")
    with pytest.raises(UserError, match="--backbones resnet20_cifar: "):
        _ = compare_backbones(wanted, jobs=1, devices=[], train=True, say=print)
    assert not wanted.output.exists()


def test_a_dry_run_lists_and_writes_nothing(tmp_path: Path) -> None:
    lines = list_runs(request(tmp_path / "new", "nano", "vgg16"))
    assert [line.strip() for line in lines[1:3]] == ["nano-seed0: not begun", "vgg16-seed0: not begun"]
    assert not (tmp_path / "new").exists()


def test_two_comparisons_do_not_share_a_folder(tmp_path: Path) -> None:
    with alone_in(tmp_path), pytest.raises(UserError, match="another compare is at work"), alone_in(tmp_path):
        pass


def test_slots_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    slots = make_slots(["cpu"], 2)
    assert [slot.device for slot in slots] == ["cpu", "cpu"]
    assert all(int(slot.environment["OMP_NUM_THREADS"]) >= 1 for slot in slots)
    assert make_slots([], 1)[0].environment == {}
    for device in ("gpu", "cuda:99", "cuda:-1"):
        with pytest.raises(UserError, match=f"--devices {device}"):
            _ = make_slots([device], 1)


# What finished runs amount to


def test_a_better_detector_is_found_better(tmp_path: Path) -> None:
    wanted = request(tmp_path, "nano", "resnet18:optim.lr=0.01")
    runs = fabricate(wanted, {"nano": 0.4, "resnet18:optim.lr=0.01": 0.1})
    first, other = report(wanted)["contestants"]
    seeds = {name: [read_run(run.folder).figures["bbox/AP"] or 0 for run in runs if run.contestant == name]
             for name in wanted.backbones}  # fmt: skip
    expected = {name: sum(values) / len(values) for name, values in seeds.items()}
    assert first["figures"]["bbox/AP"]["mean"] == pytest.approx(expected["nano"])
    difference = other["against_first"]["bbox/AP"]
    gain = expected["resnet18:optim.lr=0.01"] - expected["nano"]
    assert difference["difference"] == pytest.approx(gain)
    assert difference["relative"] == pytest.approx(gain / expected["nano"])
    assert difference["verdict"] == "significant"
    assert 0 < difference["low"] < gain < difference["high"]
    assert other["classes"]["circle"]["difference"] > 0
    assert other["training"]["seconds_per_step"] == pytest.approx(2 / 20)
    assert other["cost"]["multiply_adds"]["trunk"] > first["cost"]["multiply_adds"]["trunk"]


def test_the_command_to_type_again_names_the_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = request(tmp_path, "nano", seeds=1)
    _ = fabricate(wanted, {"nano": 0.1})
    monkeypatch.setattr(plugins, "_loaded", [Path("/my/nets.py")])
    assert " --plugin /my/nets.py --backbones nano --seeds 1 " in report(wanted)["command"]


def test_the_same_detections_do_not_differ(tmp_path: Path) -> None:
    wanted = request(tmp_path, "nano", "resnet18")
    _ = fabricate(wanted, {"nano": 0.2, "resnet18": 0.2})
    difference = report(wanted)["contestants"][1]["against_first"]["bbox/AP"]
    assert (difference["difference"], difference["verdict"]) == (0.0, "not significant")


def test_the_page_says_what_the_figures_are_worth(tmp_path: Path) -> None:
    wanted = request(tmp_path, "vgg16", "resnet101:optim.lr=0.01,model.backbone.norm=bn", seeds=1)
    _ = fabricate(wanted, {"vgg16": 0.4, wanted.backbones[1]: 0.1})
    _ = report(wanted)
    page = (tmp_path / "compare.html").read_text()
    assert "undecided: one seed" in page
    assert "significant.</p>" not in page
    assert str(HE_2015[:20]).replace("'", "&#39;") in page
    assert "model.backbone.norm" in page.replace("<wbr>", "")
    assert "://" not in page, "it reaches for nothing"


def test_of_many_backbones_the_page_counts_the_better_ones_and_folds_their_tables(tmp_path: Path) -> None:
    wanted = request(tmp_path, "nano", "resnet18", seeds=1)
    _ = fabricate(wanted, {"nano": 0.2, "resnet18": 0.2})
    _ = report(wanted)
    content = read_comparison(tmp_path / "compare.json")
    first, other = content.contestants
    better = structs.replace(other.against_first[AP], difference=0.1, verdict=SIGNIFICANT)
    many = [first, *(structs.replace(other, name=f"net{i}") for i in range(4))]
    many.append(structs.replace(other, name="best", against_first={**other.against_first, AP: better}))
    page = comparison_page(structs.replace(content, contestants=many))
    assert "Of 5 backbones compared with nano by box AP, 1 significantly more: best." in page
    assert page.count("<details><summary>net0: figures of boxes") == 1
    few = comparison_page(structs.replace(content, contestants=many[:3]))
    assert "<h3>net0: figures of boxes" in few


def test_the_papers_figure_stands_only_beside_its_nets(tmp_path: Path) -> None:
    wanted = request(tmp_path, "vgg16", "resnet18", seeds=1)
    _ = fabricate(wanted, {"vgg16": 0.2, "resnet18": 0.2})
    _ = report(wanted)
    assert "28 %" not in (tmp_path / "compare.html").read_text()


def test_missing_runs_are_named_and_the_rest_is_compared(tmp_path: Path) -> None:
    wanted = request(tmp_path, "nano", "resnet18")
    runs = fabricate(wanted, {"nano": 0.4, "resnet18": 0.1})
    for run in runs[1:3]:
        (run.folder / "predictions.json").unlink()
    content = report(wanted)
    assert content["missing"] == {"resnet18-seed0": "not begun", "nano-seed1": "not begun"}
    assert [len(one["runs"]) for one in content["contestants"]] == [1, 1]
    assert content["contestants"][1]["against_first"]["bbox/AP"]["verdict"] == "undecided: one seed"


def test_without_finished_runs_there_is_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished run"):
        _ = report(request(tmp_path / "new", "nano"))


def test_evaluations_do_not_slow_the_training_down(tmp_path: Path) -> None:
    """Speeds 10, 2, 10, where an evaluation came before the second."""
    run = fabricate(request(tmp_path, "nano", seeds=1), {"nano": 0.1})[0]
    records = [
        {"step": 10, "images_per_second": 10}, {"step": 10, "bbox/AP": 0.1},
        {"step": 20, "images_per_second": 2}, {"step": 30, "images_per_second": 12},
    ]  # fmt: skip
    _ = (run.folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert training_speed(read_run(run.folder)) == 11
