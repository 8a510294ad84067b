"""Configs are data: merged, checked and written back, and nothing in them runs or surprises."""

from dataclasses import asdict
from pathlib import Path

import pytest

from resdet.config import Config, MaskHeadConfig, checked, config_from_yaml, load_config, to_yaml
from resdet.errors import UserError

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def written(folder: Path, text: str, name: str = "config.yaml") -> Path:
    path = folder / name
    _ = path.write_text(text)
    return path


def test_no_file_gives_the_defaults():
    assert load_config() == Config()


def test_files_are_merged_left_to_right_and_overrides_come_last(tmp_path: Path):
    first = written(tmp_path, "train: {steps: 1, batch_size: 2}\noptim: {lr: 1.0}", "a.yaml")
    second = written(tmp_path, "train: {steps: 3}", "b.yaml")
    config = load_config(first, second, overrides=["optim.lr=0.5", "model.backbone.name=vgg16"])
    assert (config.train.steps, config.train.batch_size, config.optim.lr) == (3, 2, 0.5)
    assert config.model.backbone.name == "vgg16"
    assert load_config(second, first).train.steps == 1


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("optim.lr=1e-3", ("optim", "lr"), 0.001),
        ("train.grad_clip=null", ("train", "grad_clip"), None),
        ("data.augment.short_side=[480, 512]", ("data", "augment", "short_side"), [480, 512]),
        ("train.compile=true", ("train", "compile"), True),
    ],
)
def test_overrides_are_read_as_yaml(override: str, key: tuple[str, ...], value: object):
    found = asdict(load_config(overrides=[override]))
    for name in key:
        found = found[name]
    assert found == value


def test_a_config_written_is_read_back_the_same():
    config = load_config(overrides=["optim.lr=0.1", "optim.milestones=[0.1, 0.30000000000000004]"])
    assert config_from_yaml(to_yaml(config), "a run") == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.bakbone.name=x", r"unknown key 'model.bakbone'; did you mean 'backbone'\?"),
        ("train.stepz=3", r"unknown key 'train.stepz'; did you mean 'steps'\?"),
        ("train.steps=many", r"train.steps=many must be a whole number of at least 1 and at most 1000000000"),
        ("train.steps=0", r"train.steps=0 must be a whole number of at least 1"),
        ("optim.lr=.nan", r"optim.lr=.nan must be a number of at least 0"),
        ("optim.lr=.inf", r"optim.lr=.inf must be a number of at least 0"),
        ("optim.momentum=1.5", r"optim.momentum=1.5 must be a number of at least 0 and at most 1"),
        ("optim.schedule=cosin", r"optim.schedule=cosin is not known; did you mean 'cosine'\?"),
        ("train=3", r"train is a group of keys \(steps, "),
        ("train.steps", r"'train.steps' is not an override; write key=value"),
        ("train.steps=[", r"not readable as YAML"),
        (
            "data.augment.short_side=[]",
            r"data.augment.short_side=\[\] is empty; give a list of 1 to 1000 whole numbers of at least 1",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(override: str, message: str):
    with pytest.raises(UserError, match=message) as error:
        _ = load_config(overrides=[override])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n- 2", r"a config is a mapping of keys to values, this is a list"),
        ("train: {steps: 3", r"not readable as YAML in line 1"),
        ("!!python/object/apply:os.system ['touch canary']", r"not readable as YAML"),
        ("a: &a [1, 2]\nb: *a", r"aliases are not allowed"),
        ("model: {backbone: {name: !!python/name:os.system }}", r"not readable as YAML"),
        ("[" * 20_000, r"not readable as YAML"),
        ("train: {steps: 5}\noptim: {lr: 1.0}\ntrain: {seed: 3}", r"'train' stands in line 1 and again in line 3"),
        ("train:\n  steps: 5\n  seed: 1\n  steps: 6", r"'steps' stands in line 2 and again in line 4"),
        ("? [a, b]\n: 1", r"a key must be a word"),
    ],
)
def test_a_file_that_is_no_config_is_refused_in_one_line(tmp_path: Path, text: str, message: str):
    path = written(tmp_path, text)
    with pytest.raises(UserError, match=message) as error:
        _ = load_config(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "canary").exists()
    assert not Path("canary").exists()


def test_files_that_cannot_be_read_are_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"nowhere.yaml: No such file or directory; give a config"):
        _ = load_config(tmp_path / "nowhere.yaml")
    with pytest.raises(UserError, match=r"Is a directory"):
        _ = load_config(tmp_path)
    _ = (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"not a text file"):
        _ = load_config(tmp_path / "binary.yaml")
    with pytest.raises(UserError, match=r"larger than a megabyte"):
        _ = load_config(written(tmp_path, "#" * 1_000_001))


def test_the_defaults_pass_their_own_check():
    assert checked(Config()) == Config()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_short_and_says_what_it_is_and_how_to_run_it(path: Path):
    _ = load_config(path)
    lines = path.read_text().splitlines()
    assert len(lines) <= 25
    header = "\n".join(line for line in lines if line.startswith("#"))
    assert f"tools/train.py configs/{path.name}" in header


def test_off_is_a_word():
    assert load_config(overrides=["train.amp=off"]).train.amp == "off"


@pytest.mark.parametrize("word", ["no", "on", "yes"])
def test_a_word_that_older_yaml_takes_for_a_truth_value_is_named_as_written(word: str):
    with pytest.raises(UserError, match=f"train.amp={word} "):
        _ = load_config(overrides=[f"train.amp={word}"])


def test_true_and_false_stay_truth_values():
    assert not load_config(overrides=["train.channels_last=false"]).train.channels_last


def test_a_part_that_is_absent_appears_with_any_of_its_keys_and_goes_with_null() -> None:
    assert load_config().model.mask_head is None
    present = load_config(overrides=["model.mask_head.class_agnostic=true"])
    assert present.model.mask_head == MaskHeadConfig(class_agnostic=True)
    assert config_from_yaml(to_yaml(present), "a run") == present
    assert load_config(overrides=["model.mask_head.convs=2", "model.mask_head=null"]).model.mask_head is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.mask_head.nme=fcn", "did you mean 'name'"),
        ("model.mask_head.name=fc", "did you mean 'fcn'"),
        ("model.mask_head=3", "is a group of keys"),
        ("model.mask_head.resolution=0", "at least 1"),
    ],
)
def test_a_part_that_may_be_absent_is_checked_like_any_other(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _ = load_config(overrides=[override])


@pytest.mark.parametrize("text", ["010", "0640", "1:30", "0x10", "0o10", "0b1", "1_000", "+5", "1e", "-", "1e3", "3.0"])
def test_a_number_that_yaml_1_1_would_read_as_another_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"train\.steps=.* must be a whole number") as error:
        _ = load_config(overrides=[f"train.steps={text}"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["010", "1:30", "2017", "2017-01-01", "on", "no", "1_000", "0x10", "1e", "+5", ".", "="]
)
def test_a_name_stays_as_it_is_written(text: str) -> None:
    config = load_config(overrides=[f"data.root={text}"])
    assert config.data.root == text
    assert config_from_yaml(to_yaml(config), "a run").data.root == text


@pytest.mark.parametrize("text", ["true", "null", "1.5", "1e3", "~", "[a]", "{a: 1}", ""])
def test_a_value_that_is_no_name_must_be_quoted_to_be_one(text: str) -> None:
    with pytest.raises(UserError, match=r"data\.root=.* must be text"):
        _ = load_config(overrides=[f"data.root={text}"])
    config = load_config(overrides=[f'data.root="{text}"'])
    assert config_from_yaml(to_yaml(config), "a run").data.root == text


@pytest.mark.parametrize(
    ("key", "group"),
    [("data.root", "data"), ("model.weights", "model"), ("train.amp", "train"), ("train.steps", "train")],
)
def test_nothing_refers_to_another_value_or_to_the_environment(key: str, group: str, tmp_path: Path) -> None:
    name = key.rpartition(".")[2]
    text = "${oc.env:HOME}"
    changed = Config()
    setattr(getattr(changed, group), name, text)
    for load in (
        lambda: load_config(overrides=[f"{key}={text}"]),
        lambda: load_config(written(tmp_path, f"{group}: {{{name}: '{text}'}}")),
        lambda: config_from_yaml(f"{group}: {{{name}: '{text}'}}", "a header"),
        lambda: checked(changed),
    ):
        with pytest.raises(UserError, match="refers to another value or to the environment"):
            _ = load()


def test_a_file_names_itself_before_the_key_that_it_gets_wrong(tmp_path: Path) -> None:
    good, bad = written(tmp_path, "train: {steps: 5}", "good.yaml"), written(tmp_path, "train: {steps: 0}", "bad.yaml")
    with pytest.raises(UserError, match=r"bad\.yaml: train\.steps=0 must be"):
        _ = load_config(good, bad, good)


def test_the_header_of_a_checkpoint_from_before_is_read() -> None:
    """As OmegaConf wrote it: block lists, words of YAML 1.1 in quotes, floats with a point before the exponent."""
    text = "train:\n  amp: 'off'\n  grad_clip: null\noptim:\n  weight_decay: 1.0e-05\n  milestones:\n  - 0.5\n  - 1.0\n"
    config = config_from_yaml(text, "a checkpoint")
    assert (config.train.amp, config.train.grad_clip, config.optim.weight_decay) == ("off", None, 1e-5)
    assert config.optim.milestones == [0.5, 1.0]
