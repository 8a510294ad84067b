"""`resdet push` and hf:// names, against a stand-in for the Hugging Face Hub; no network is needed."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import constants
from PIL import Image

import resdet
from exports import save_model, without_a_graph
from hub_stand_in import StandIn, environment, stand_in, take
from resdet.cli.main import main
from resdet.engine.run_folder import RunFiles
from resdet.errors import UserError
from resdet.exporting.runtime import ExportedDetector
from resdet.weights.hub import HubName, hub_name

# The Hub's client uses a form of its HTTP library that goes out of use.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
NOWHERE = "http://127.0.0.1:9"  # the port of discard, where nobody listens
# In a process of its own, whose client reads the environment.
PUSH = "import sys; from resdet.cli.main import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with stand_in() as server:
        take(server.address, tmp_path / "home", monkeypatch)
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


def refusal(line: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    _ = capsys.readouterr()
    assert main(line) == 2
    said = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(said) == 1
    return said[0]


def test_a_detector_goes_to_the_hub_and_comes_back_as_it_was(
    hub: StandIn, run: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by its commit, after another detector took its place; and without the Hub, from its cache."""

    def predicted(name: str, folder: str) -> object:
        assert main(["predict", name, str(photo), "--output", str(tmp_path / folder)]) == 0
        return found_in(tmp_path / folder)

    pushed = resdet.push(run, "me/circles", private=True)
    assert (pushed.address, pushed.files) == (f"{hub.address}/me/circles", ("README.md", "model.safetensors"))
    assert hub.private == {"me/circles"}
    (files,) = hub.repositories["me/circles"]
    assert files["model.safetensors"] == (run / "checkpoints/step_00000003/model.safetensors").read_bytes()
    local = predicted(str(run), "local")
    assert predicted("hf://me/circles", "remote") == local != []
    _ = hub.put("me/circles", **{"model.safetensors": b"another"})
    assert predicted(f"hf://me/circles@{1:040x}", "first") == local
    with pytest.raises(UserError, match=r"safetensors"):
        _ = resdet.load("hf://me/circles")
    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    assert predicted(f"hf://me/circles@{1:040x}", "again") == local


def test_the_command_takes_the_hub_from_the_environment(hub: StandIn, run: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PUSH, "push", str(run), "hf://me/circles"], stdout=subprocess.PIPE, text=True,
        check=True, env={**os.environ, **environment(hub.address, tmp_path)},
    )  # fmt: skip
    assert done.stdout == f"{hub.address}/me/circles: README.md, model.safetensors\n"
    assert hub.private == set()


def test_the_card_says_what_it_is_and_has_no_markup_from_outside(hub: StandIn, run: Path) -> None:
    for measure in (False, True):
        _ = resdet.push(run, "me/circles", measure=measure)
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
    assert "| model (float32) |\n" in measured
    assert "graph" not in measured


def test_an_export_is_uploaded_as_it_is_and_a_folder_of_other_things_is_not(
    hub: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = without_a_graph(tmp_path / "exported")
    assert resdet.push(folder, "me/graph").files == ("contract.json", "model.onnx")
    assert hub.repositories["me/graph"] == [{path.name: path.read_bytes() for path in folder.iterdir()}]
    assert "the card of an export has its figures" in refusal(["push", str(folder), "me/graph", "--measure"], capsys)
    _ = (folder / "secret.txt").write_text("mine")
    assert "holds other files than resdet export writes" in refusal(["push", str(folder), "me/graph"], capsys)
    assert len(hub.repositories["me/graph"]) == 1


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('a pickle ran')",)


def test_an_export_is_run_from_the_hub_unless_its_reader_would_run_code(hub: StandIn, tmp_path: Path) -> None:
    _ = pytest.importorskip("onnxruntime")
    folder = without_a_graph(tmp_path / "exported")
    _ = resdet.push(folder, "me/graph")
    with pytest.raises(UserError, match=r"home/hub/.*model.onnx: cannot be run .* Export it again"):
        _ = ExportedDetector("hf://me/graph")
    assert hub.fetched == ["contract.json", "model.onnx"]
    contract = (folder / "contract.json").read_bytes()
    _ = hub.put("me/graph", **{"contract.json": contract.replace(b"model.onnx", b"model.pt2"), "model.pt2": b""})
    with pytest.raises(UserError, match=r"'model.pt2' is not taken from the Hub"):
        _ = ExportedDetector("hf://me/graph")
    assert "model.pt2" not in hub.fetched


def test_nothing_but_tensors_is_read_from_a_repository(hub: StandIn) -> None:
    """A pickle under another name is not fetched, and under the name of the tensors it is refused."""
    pickled = pickle.dumps(Hostile())
    _ = hub.put("evil/one", **{"model.pkl": pickled, "pytorch_model.bin": pickled, "model.py": b"raise SystemExit"})
    _ = hub.put("evil/two", **{"model.safetensors": pickled})
    with pytest.raises(UserError, match=r"has none of model.safetensors"):
        _ = resdet.load("hf://evil/one")
    hub.sizes["model.safetensors"] = 10**15
    with pytest.raises(UserError, match=r"at most 8192 MiB are fetched"):
        _ = resdet.load("hf://evil/two")
    assert hub.fetched == []
    hub.sizes.clear()
    with pytest.raises(UserError, match=r"safetensors"):
        _ = resdet.load("hf://evil/two")
    assert hub.fetched == ["model.safetensors"]


def test_what_is_not_there_and_who_may_not_write_is_one_line(
    hub: StandIn, run: Path, photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def predict(name: str) -> list[str]:
        return ["predict", name, str(photo)]

    _ = hub.put("me/circles", **{"model.safetensors": b""})
    for name, said in (
        ("hf://me/nothing", "the download of model.safetensors failed"),
        ("hf://me/circles@v9", "the download of model.safetensors failed"),
        ("hf://me", "write hf://OWNER/NAME"),
    ):
        assert said in refusal(predict(name), capsys)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "log in with `hf auth login`" in refusal(["push", str(run), "me/new"], capsys)
    assert "leave @v1 out" in refusal(["push", str(run), "me/new@v1"], capsys)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "is not in the Hugging Face cache" in refusal(predict("hf://me/circles"), capsys)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    assert "is not in the Hugging Face cache" in refusal(predict("hf://me/circles"), capsys)
    assert "try again with a network" in refusal(["push", str(run), "me/new"], capsys)
    assert "me/new" not in hub.repositories


def test_names_are_told_from_paths() -> None:
    assert hub_name("hf://me/circles") == hub_name(Path("hf://me/circles")) == HubName("me/circles")
    assert hub_name("hf://me/circles@refs/pr/1") == HubName("me/circles", "refs/pr/1")
    assert str(HubName("me/circles", "v1")) == "hf://me/circles@v1"
    assert hub_name("runs/quickstart") is None
    for wrong in ("hf://", "hf://me", "hf://me/a/b", "hf://../etc/passwd", "hf://me/a?b", "hf:me/a", "hf://me/a@"):
        with pytest.raises(UserError, match="is no name on the Hugging Face Hub"):
            _ = hub_name(wrong)
