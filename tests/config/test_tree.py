"""Every key is declared whole, and a value that does not fit is the same mistake by file, by override and in Python."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resdet.config import BackboneConfig, Config, MaskHeadConfig, SplitConfig, checked, load_config
from resdet.config.declare import Group, Key, Part, walked
from resdet.config.plain_yaml import as_yaml
from resdet.errors import UserError

DECLARED = list(walked(Config))
KEYS = [declared for declared in DECLARED if isinstance(declared, Key)]
PARTS = [declared for declared in DECLARED if isinstance(declared, Part)]


def number_of(kind: Any) -> type | None:
    """int or float for a number, or a list of (lists of) them."""
    while get_origin(kind) is list:
        (kind,) = get_args(kind)
    return kind if kind in (int, float) else None


NUMBERS = [key for key in KEYS if number_of(key.kind)]


def test_every_key_has_a_line_of_help() -> None:
    assert [key.path for key in KEYS if not 1 <= len(key.rules.help) <= 120 or "\n" in key.rules.help] == []


def test_every_number_has_bounds_on_both_sides() -> None:
    def is_bounded(key: Key) -> bool:
        return (math.isfinite(key.rules.ge) or key.rules.gt is not None) and math.isfinite(key.rules.le)

    assert len(NUMBERS) > 50
    assert [key.path for key in NUMBERS if not is_bounded(key)] == []


def test_every_part_says_in_a_line_what_it_is() -> None:
    """In its docstring, where `dataclass` writes a signature if nobody else wrote anything."""
    summaries = {part.path: (part.kind.__doc__ or "").partition("\n")[0] for part in PARTS}
    assert [path for path, summary in summaries.items() if not summary.endswith(".")] == []


def test_the_defaults_fit_their_own_declarations() -> None:
    assert checked(Config()) == Config()


def with_part(part: str) -> Config:
    """The defaults, with the optional parts on the way to a key present."""
    config: Any = Config()
    group = config
    for name in part.split(".") if part else []:
        if getattr(group, name) is None:
            declared = next(p for p in PARTS if p.path.endswith(f".{name}"))
            setattr(group, name, declared.kind())
        group = getattr(group, name)
    return config


def assigned(path: str, value: Any) -> Config:
    """The defaults with a value assigned in Python."""
    part, _, name = path.rpartition(".")
    config: Any = with_part(part)
    group = config
    for step in part.split(".") if part else []:
        group = getattr(group, step)
    setattr(group, name, value)
    return config


def refusals(path: str, value: Any, folder: Path) -> set[str]:
    """What each of the three ways says, without the name of the file."""
    text = f"{path}={as_yaml(value)}"
    nested = "".join(f"{'  ' * depth}{name}:\n" for depth, name in enumerate(path.split(".")[:-1]))
    name = path.rpartition(".")[2]
    file = folder / "config.yaml"
    _ = file.write_text(f"{nested}{'  ' * path.count('.')}{name}: {as_yaml(value)}\n", encoding="utf-8")
    said = set()
    for load in (
        lambda: load_config(overrides=[text]),
        lambda: load_config(file),
        lambda: checked(assigned(path, value)),
    ):
        with pytest.raises(UserError) as error:
            _ = load()
        said.add(str(error.value).removeprefix(f"{file}: "))
    return said


def numbers_outside(key: Key) -> st.SearchStrategy[Any]:
    """Numbers beyond the key's bounds; NaN and infinities are in none."""
    lowest = key.rules.gt if key.rules.gt is not None else key.rules.ge
    if number_of(key.kind) is int:
        return st.integers(max_value=int(lowest) - 1) | st.integers(min_value=int(key.rules.le) + 1, max_value=10**4000)
    below = st.floats(max_value=lowest, exclude_max=key.rules.gt is None, allow_nan=False)
    above = st.floats(min_value=key.rules.le, exclude_min=True, allow_nan=False)
    return below | above | st.just(math.nan)


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_number_out_of_bounds_is_one_and_the_same_line_whichever_way_it_comes(
    tmp_path: Path, data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from(NUMBERS))
    value = data.draw(numbers_outside(key))
    if get_origin(key.kind) is list:
        inside = 1 if key.rules.item_length is None else [1.0] * key.rules.item_length
        length = max(1, key.rules.length[0])
        value = value if key.rules.item_length is None else [value, *[1.0] * (key.rules.item_length - 1)]
        value = [value, *[inside] * (length - 1)]
    (said,) = refusals(key.path, value, tmp_path)
    assert said.startswith(f"{key.path}=")
    assert said.isprintable()
    assert len(said) < 400


ODD = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["???", "${a}", "on"])
)
ANYTHING = st.recursive(
    ODD, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner), max_leaves=6
)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_value_of_any_key_is_taken_as_its_type_or_refused_in_one_line(data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(KEYS))
    config = assigned(key.path, data.draw(ANYTHING))
    try:
        taken = checked(config)
    except UserError as error:
        said = str(error)
    else:
        said = ""
        assert checked(taken) == taken
    assert not said or (said.startswith(f"{key.path}=") and said.isprintable())


@pytest.mark.parametrize("key", [k for k in KEYS if get_origin(k.kind) is Literal][::6], ids=lambda key: key.path)
def test_a_choice_that_is_not_known_gets_a_suggestion(key: Key, tmp_path: Path) -> None:
    choice = get_args(key.kind)[0]
    (said,) = refusals(key.path, f"{choice}x", tmp_path)
    assert said.startswith(f"{key.path}={choice}x is not known; did you mean ")
    assert len(refusals(key.path, 3, tmp_path)) == 1


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.anchors.sizes", [[8], [16], [32], [48], [64]]),
        ("model.anchors.ratios", [0]),
        ("model.pixel_mean", [1, 2]),
        ("model.pixel_std", [-58, -57, -57]),
        ("model.pixel_std", [0, 1, 1]),
        ("model.cascade.delta_weights", [[10, 10, 5]]),
        ("train.seed", 99999999999999999999),
        ("train.grad_clip", 0),
        ("train.batch_size", 0),
        ("train.steps", True),
        ("data.workers", 300),
        ("data.augment.short_side", {"a": 1}),
        ("data.root", "a\0b"),
        ("train.compile", "yes"),
    ],
)
def test_values_no_run_could_mean_are_refused_by_file_override_and_in_python(
    path: str, value: Any, tmp_path: Path
) -> None:
    (said,) = refusals(path, value, tmp_path)
    assert said.startswith(f"{path}=")
    assert " must be " in said


def test_python_may_hand_over_numpys_numbers_and_tuples() -> None:
    config = Config()
    config.optim.lr, config.train.steps = np.float32(0.5), np.int64(4)  # pyright: ignore[reportAttributeAccessIssue]
    config.optim.milestones = (0.5, 1)  # pyright: ignore[reportAttributeAccessIssue]
    taken = checked(config)
    assert (type(taken.optim.lr), type(taken.train.steps)) == (float, int)
    assert taken.optim.milestones == [0.5, 1.0]


def test_what_is_checked_is_a_copy() -> None:
    config = Config()
    taken = checked(config)
    config.optim.milestones.append(7.0)
    config.model.backbone.name = "vgg16"
    assert taken == Config()


@pytest.mark.parametrize(
    ("group", "name", "message"),
    [
        (Config().train, "step", "TrainConfig has no key 'step'; did you mean 'steps'"),
        (Config().optim, "learning_rate", "OptimConfig has no key 'learning_rate'; known: name, lr"),
        (Config(), "optm", "Config has no key 'optm'; did you mean 'optim'"),
    ],
)
def test_a_misspelt_attribute_is_a_mistake_where_it_is_assigned(group: Group, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        setattr(group, name, 1)
    assert not hasattr(group, name)


def test_a_part_is_checked_at_its_own_place_in_the_tree() -> None:
    with pytest.raises(UserError, match=r"model\.backbone\.frozen_stages=-1 must be"):
        _ = checked(BackboneConfig(frozen_stages=-1))
    with pytest.raises(UserError, match=r"model\.mask_head\.resolution=0 must be"):
        _ = checked(MaskHeadConfig(resolution=0))
    with pytest.raises(UserError, match=r"model=3: model is a group of keys \(backbone, neck"):
        _ = checked(assigned("model", 3))
    assert checked(SplitConfig()) == SplitConfig()
