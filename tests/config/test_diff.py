"""Which changes of a config a resumed run and a comparison accept; it follows from the keys' declarations."""

from __future__ import annotations

from pathlib import Path

import pytest

from resdet.config import Config, load_config
from resdet.config.declare import Key, walked
from resdet.config.diff import check_same_run, check_scored_alike, differences, flat, resume_warnings
from resdet.errors import UserError

RUN = Path("runs/first")


def config_of(*overrides: str) -> Config:
    return load_config(overrides=overrides)


def test_a_config_is_flat_with_a_part_that_is_absent_as_one_key() -> None:
    leaves = flat(Config())
    assert leaves["train.steps"] == 90000
    assert leaves["model.mask_head"] is None
    assert flat(config_of("model.mask_head.name=fcn"))["model.mask_head.resolution"] == 14


def test_differences_name_the_keys_of_either_side() -> None:
    assert differences(Config(), Config()) == {}
    assert differences(Config(), config_of("train.seed=7")) == {"train.seed": (0, 7)}
    masked = config_of("model.mask_head.name=fcn")
    assert differences(Config(), masked)["model.mask_head.name"] == (None, "fcn")
    assert differences(masked, Config())["model.mask_head.name"] == ("fcn", None)


def test_a_resumed_run_changes_how_it_is_watched_without_a_word_and_where_it_computes_with_one() -> None:
    free = {key.path for key in walked(Config) if isinstance(key, Key) and key.rules.resume == "free"}
    assert {"train.log_every", "data.workers", "eval.every"} <= free
    assert resume_warnings(Config(), config_of("train.log_every=7", "data.workers=0", "eval.every=5"), RUN) == []
    assert resume_warnings(Config(), config_of("train.steps=5", "train.amp=off"), RUN) == [
        "train.steps was 90000 and is now 5",
        "train.amp was auto and is now off",
    ]


@pytest.mark.parametrize(
    "override", ["optim.lr=1.0", "model.neck.channels=8", "model.mask_head.name=fcn", "train.seed=1"]
)
def test_a_resumed_run_stays_the_same_experiment(override: str) -> None:
    for old, new in ((Config(), config_of(override)), (config_of(override), Config())):
        with pytest.raises(UserError, match="was trained with another config") as error:
            _ = resume_warnings(old, new, RUN)
        assert override.partition("=")[0] in str(error.value)


def test_runs_of_a_comparison_may_move_but_not_change() -> None:
    check_same_run(Config(), config_of("train.device=cpu", "data.root=elsewhere", "train.log_every=1"), RUN)
    with pytest.raises(UserError, match=r"train\.steps=5 \(was 90000\); compare with the same one"):
        check_same_run(Config(), config_of("train.steps=5"), RUN)


@pytest.mark.parametrize(
    "override",
    [
        "data.val.name=voc07",
        "data.root=elsewhere",
        "data.shapes.seed=1",
        "data.on_bad_image=skip",
        "data.sixteen_bit=scale",
    ],
)
def test_all_that_are_compared_are_scored_on_the_same_images(override: str) -> None:
    with pytest.raises(UserError, match=f"--backbones b: {override} is not a's; all are scored on the same images"):
        check_scored_alike([("a", Config()), ("b", config_of(override))])


def test_what_is_compared_may_differ_in_everything_else() -> None:
    check_scored_alike([("a", Config()), ("b", config_of("optim.lr=1.0", "data.train.name=voc0712", "eval.every=3"))])
