"""`resdet push` and hf:// names, against a stand-in for the Hugging Face Hub; no network is needed."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from exports import save_model, without_a_graph
from hub_stand_in import StandIn, commands, stand_in
from resdet.engine.run_folder import RunFiles
from resdet.errors import UserError
from resdet.weights.hub import HubName, hub_name

NOWHERE = "http://127.0.0.1:9"  # the port of discard, where nobody listens


@pytest.fixture
def hub() -> Iterator[StandIn]:
    with stand_in() as server:
        yield server


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose metrics have the figures of its checkpoint."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    checkpoint = save_model(folder)
    RunFiles(folder).write_best(checkpoint)
    _ = (folder / "config.yaml").write_text("task: detection\n")
    lines = [{"step": 2, "bbox/AP": 0.9}, {"step": 3, "bbox/AP": 0.25, "bbox/AP50": 0.5, "segm/AP": None}]
    _ = (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def found_in(folder: Path) -> object:
    return json.loads((folder / "predictions.json").read_text())


def test_a_detector_goes_to_the_hub_and_comes_back_as_it_was(
    hub: StandIn, run: Path, photo: Path, tmp_path: Path
) -> None:
    """Also by its commit, after another detector took its place; and without the Hub, from its cache."""
    (pushed,) = commands(["push", str(run), "me/circles", "--private"], address=hub.address, home=tmp_path / "a")
    assert pushed == (0, f"{hub.address}/me/circles: README.md, model.safetensors\n", "")
    assert hub.private == {"me/circles"}
    (files,) = hub.repositories["me/circles"]
    assert files["model.safetensors"] == (run / "checkpoints/step_00000003/model.safetensors").read_bytes()
    _ = hub.put("me/circles", **{"model.safetensors": b"another"})
    first = f"hf://me/circles@{1:040x}"
    lines = [["predict", name, str(photo), "--output", str(tmp_path / out)] for name, out in
             ((str(run), "local"), (first, "remote"), ("hf://me/circles", "other"))]  # fmt: skip
    local, remote, other = commands(*lines, address=hub.address, home=tmp_path / "b")
    assert (local[0], remote[0]) == (0, 0), remote
    assert found_in(tmp_path / "local") == found_in(tmp_path / "remote") != []
    assert other[0] == 2
    assert other[2].count("\n") == 1
    (again,) = commands([*lines[1][:-1], str(tmp_path / "again")], address=NOWHERE, home=tmp_path / "b")
    assert again[0] == 0, again[2]
    assert found_in(tmp_path / "again") == found_in(tmp_path / "local")


def test_the_card_says_what_it_is_and_has_no_markup_from_outside(hub: StandIn, run: Path, tmp_path: Path) -> None:
    once, twice = commands(
        ["push", str(run), "hf://me/circles"], ["push", str(run), "me/circles", "--measure"],
        address=hub.address, home=tmp_path,
    )  # fmt: skip
    assert (once[0], twice[0]) == (0, 0), twice
    recorded, measured = (files["README.md"].decode() for files in hub.repositories["me/circles"])
    _, front, text = recorded.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "resdet", "pipeline_tag": "object-detection", "tags": ["safetensors"],
    }  # fmt: skip
    assert "resdet predict hf://me/circles photo.jpg" in text
    assert "| boxes | AP | 25.0 |" in text
    assert "| boxes | AP50 | 50.0 |" in text
    assert "猫" in text
    assert "\x1b" not in text
    assert all(line.startswith("    ") for line in text.splitlines() if "javascript" in line)
    assert "with 95 % intervals over images:" in measured
    assert "| | model (float32) |" in measured
    assert "graph" not in measured


def test_an_export_is_uploaded_as_it_is_and_a_folder_of_other_things_is_not(
    hub: StandIn, run: Path, tmp_path: Path
) -> None:
    folder = without_a_graph(tmp_path / "exported")
    (pushed,) = commands(["push", str(folder), "me/graph"], address=hub.address, home=tmp_path / "home")
    assert pushed[0] == 0, pushed[2]
    assert hub.repositories["me/graph"] == [{path.name: path.read_bytes() for path in folder.iterdir()}]
    _ = (folder / "secret.txt").write_text("mine")
    (refused,) = commands(["push", str(folder), "me/graph"], address=hub.address, home=tmp_path / "home")
    assert refused[0] == 2
    assert "holds other files than resdet export writes" in refused[2]
    assert len(hub.repositories["me/graph"]) == 1


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('a pickle ran')",)


def test_nothing_but_tensors_is_read_from_a_repository(hub: StandIn, photo: Path, tmp_path: Path) -> None:
    """A pickle under another name is not fetched, and under the name of the tensors it is refused."""
    pickled = pickle.dumps(Hostile())
    _ = hub.put("evil/one", **{"model.pkl": pickled, "pytorch_model.bin": pickled, "model.py": b"raise SystemExit"})
    _ = hub.put("evil/two", **{"model.safetensors": pickled})
    _ = hub.put("evil/three", **{"model.safetensors": b"x" * 100})
    hub.sizes["model.safetensors"] = 10**15
    lines = [
        ["predict", f"hf://evil/{name}", str(photo), "--output", str(tmp_path / name)] for name in ("one", "three")
    ]
    one, three = commands(*lines, address=hub.address, home=tmp_path / "home")
    hub.sizes.clear()
    assert hub.fetched == []
    (two,) = commands([lines[0][0], "hf://evil/two", *lines[0][2:]], address=hub.address, home=tmp_path / "home")
    for answer, said in ((one, "has none of model.safetensors"), (three, "at most 8192 MiB"), (two, "safetensors")):
        assert answer[0] == 2
        assert said in answer[2]
        assert answer[2].count("\n") == 1


def test_what_is_not_there_and_who_may_not_write_is_one_line(
    hub: StandIn, run: Path, photo: Path, tmp_path: Path
) -> None:
    _ = hub.put("me/circles", **{"model.safetensors": b""})
    predict = [["predict", name, str(photo), "--output", str(tmp_path / "out")] for name in (
        "hf://me/nothing", "hf://me/circles@v9", "hf://me", "hf://me/circles/../..",
    )]  # fmt: skip
    answers = commands(*predict, address=hub.address, home=tmp_path / "home")
    unknown = commands(["push", str(run), "me/new"], address=hub.address, home=tmp_path / "home", HF_TOKEN="hf_wrong")
    offline = commands(predict[0], ["push", str(run), "me/new"], address=NOWHERE, home=tmp_path / "home")
    asked = commands(predict[0], address=hub.address, home=tmp_path / "home", HF_HUB_OFFLINE="1")
    for answer, said in zip(
        [*answers, *unknown, *offline, *asked],
        ("the download of model.safetensors failed", "the download of model.safetensors failed", "write hf://OWNER/NAME",
         "write hf://OWNER/NAME", "hf auth login", "is not in the Hugging Face cache", "try again with a network",
         "is not in the Hugging Face cache"),
        strict=True,
    ):  # fmt: skip
        assert answer[0] == 2
        assert said in answer[2]
        assert answer[2].count("\n") == 1, answer[2]
    assert "me/new" not in hub.repositories


def test_names_are_told_from_paths() -> None:
    assert hub_name("hf://me/circles") == hub_name(Path("hf://me/circles")) == HubName("me/circles")
    assert hub_name("hf://me/circles@refs/pr/1") == HubName("me/circles", "refs/pr/1")
    assert str(HubName("me/circles", "v1")) == "hf://me/circles@v1"
    assert hub_name("runs/quickstart") is None
    for wrong in ("hf://", "hf://me", "hf://me/a/b", "hf://../etc/passwd", "hf://me/a?b", "hf:me/a", "hf://me/a@"):
        with pytest.raises(UserError, match="is no name on the Hugging Face Hub"):
            _ = hub_name(wrong)
