"""`resdet predict`: what it writes, what it refuses, and that one bad image costs no other."""

import csv
import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from clips import StandIn, write_clip
from resdet.cli.main import main
from resdet.config import load_config
from resdet.data.images.decode import read_image
from resdet.engine.checkpoint import model_metadata, save_checkpoint
from resdet.engine.run_folder import RunFiles
from resdet.models.build.detector import build_model
from resdet.predict.prediction import Prediction
from resdet.predict.video import Video

ROOT = Path(__file__).parents[2]
NAMES = ("cat", "猫", "[red]\x1b[31mdog")
CATEGORY_IDS = (5, 17, 90)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights, which finds something everywhere."""
    run = tmp_path_factory.mktemp("run")
    config = load_config(ROOT / "configs/nano.yaml")
    _ = torch.manual_seed(0)
    model = build_model(config.model, len(NAMES))
    metadata = model_metadata(config, NAMES, CATEGORY_IDS, model.normalization)
    return save_checkpoint(run, step=1, weights=model.state_dict(), metadata=metadata, state={})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in {"b.jpg": (30, 40, 3), "a.png": (50, 40, 3), "a.jpg": (64, 64, 3)}.items():
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(folder / name)
    return folder


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def test_a_folder_gives_drawings_and_coco_results(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "out"
    assert main(["predict", str(checkpoint), str(photos), "--output", str(output), "--score", "0.2"]) == 0
    assert sorted(path.name for path in output.iterdir()) == [
        "a.jpg", "a_2.jpg", "b.jpg", "images.json", "predictions.json"
    ]  # fmt: skip
    images = read(output, "images.json")
    assert [(image["id"], Path(image["file_name"]).name, image["drawing"]) for image in images["images"]] == [
        (1, "a.jpg", "a.jpg"), (2, "a.png", "a_2.jpg"), (3, "b.jpg", "b.jpg")
    ]  # fmt: skip
    assert [(image["height"], image["width"]) for image in images["images"]] == [(64, 64), (50, 40), (30, 40)]
    assert images["categories"] == [{"id": n, "name": name} for n, name in zip(CATEGORY_IDS, NAMES, strict=True)]
    results = read(output, "predictions.json")
    assert {result["image_id"] for result in results} == {1, 2, 3}
    assert {result["category_id"] for result in results} <= set(CATEGORY_IDS)
    sizes = {image["id"]: (image["width"], image["height"], image["file_name"]) for image in images["images"]}
    for result in results:
        x, y, width, height = result["bbox"]
        limit_x, limit_y, file_name = sizes[result["image_id"]]
        assert result["file_name"] == file_name
        assert x >= 0 <= y
        assert x + width <= limit_x + 1e-4
        assert y + height <= limit_y + 1e-4
        assert 0.05 < result["score"] <= 1
    assert read_image(output / "b.jpg").shape == (8 * 30, 8 * 40, 3)


def test_the_score_decides_what_is_drawn_and_not_what_is_written(
    checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    for score in ("0", "1"):
        command = ["predict", str(checkpoint), str(photos), "--output", str(tmp_path / score), "--score", score]
        assert main(command) == 0
    assert read(tmp_path / "0", "predictions.json") == read(tmp_path / "1", "predictions.json") != []
    assert (tmp_path / "0" / "b.jpg").read_bytes() != (tmp_path / "1" / "b.jpg").read_bytes()


def test_a_bad_image_is_named_and_costs_no_other(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _ = (photos / "a.jpg").write_bytes((photos / "a.jpg").read_bytes()[:900])
    _ = (photos / "c\x1b[2J.png").write_bytes(b"")
    output = tmp_path / "out"
    assert main(["predict", str(checkpoint), str(photos), "--output", str(output)]) == 2
    printed = capsys.readouterr()
    assert "a.jpg: is truncated or damaged" in printed.out
    assert "the file is empty" in printed.out
    assert "\x1b" not in printed.out + printed.err
    assert printed.err.startswith("error: 2 of 4 images could not be read")
    assert printed.err.count("\n") == 1
    images = read(output, "images.json")
    assert [image["id"] for image in images["images"]] == [2, 3]
    assert [image["id"] for image in images["skipped"]] == [1, 4]
    assert {result["image_id"] for result in read(output, "predictions.json")} == {2, 3}


def test_an_earlier_prediction_is_replaced(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert main(["predict", str(checkpoint), str(photos), "--output", str(output)]) == 0
    assert main(["predict", str(checkpoint), str(photos / "b.jpg"), "--output", str(output)]) == 0
    assert sorted(path.name for path in output.iterdir()) == ["b.jpg", "images.json", "predictions.json"]


def test_an_interruption_keeps_what_was_predicted(
    checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resdet.predict.prediction_folder import PredictionFolder

    add = PredictionFolder.add

    def interrupted(self: PredictionFolder, prediction: Prediction) -> None:
        if prediction.path is not None and prediction.path.name == "b.jpg":
            raise KeyboardInterrupt
        add(self, prediction)

    monkeypatch.setattr(PredictionFolder, "add", interrupted)
    output = tmp_path / "out"
    assert main(["predict", str(checkpoint), str(photos), "--output", str(output)]) == 143
    assert {result["image_id"] for result in read(output, "predictions.json")} == {1, 2}
    assert [image["id"] for image in read(output, "images.json")["images"]] == [1, 2]
    monkeypatch.undo()
    assert main(["predict", str(checkpoint), str(photos), "--output", str(output)]) == 0


@pytest.mark.parametrize("content", ["{}", "[]", '{"images": [{"id": 1}]}', "no json", '{"images": [{"drawing": 3}]}'])
def test_a_folder_of_other_things_is_left_alone(
    checkpoint: Path, photos: Path, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "mine"
    output.mkdir()
    _ = (output / "images.json").write_text(content)
    _ = (output / "b.jpg").write_text("mine")
    assert main(["predict", str(checkpoint), str(photos), "--output", str(output)]) == 2
    assert "choose another --output" in capsys.readouterr().err
    assert (output / "images.json").read_text() == content
    assert (output / "b.jpg").read_text() == "mine"


def test_mistakes_are_one_line_and_leave_no_folder(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, empty, broken = tmp_path / "out", tmp_path / "empty", tmp_path / "model.safetensors"
    empty.mkdir()
    _ = broken.write_bytes(b"no weights")
    cases = {
        "no such file or folder": [tmp_path / "absent", photos],
        "not a valid safetensors": [broken, photos],
        "neither a run nor a checkpoint": [empty, photos],
        "has no images": [checkpoint, empty],
        "absent.jpg: no such file": [checkpoint, photos / "absent.jpg"],
        "must lie between 0 and 1": [checkpoint, photos, "--score", "1.5"],
    }
    for message, arguments in cases.items():
        assert main(["predict", *map(str, arguments), "--output", str(output)]) == 2
        printed = capsys.readouterr().err
        assert message in printed
        assert printed.startswith("error: ")
        assert printed.count("\n") == 1
        assert not output.exists()


def test_the_output_must_be_a_folder_beside_the_images(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(photos.iterdir())
    assert main(["predict", str(checkpoint), str(photos), "--output", str(photos)]) == 2
    assert "holds the images themselves" in capsys.readouterr().err
    assert sorted(photos.iterdir()) == before
    for output in (photos / "a.jpg", photos / "a.jpg" / "below"):
        assert main(["predict", str(checkpoint), str(photos), "--output", str(output)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_help_imports_no_torch() -> None:
    code = (
        "import sys\nfrom resdet.cli.main import main\n"
        "try:\n    main(['predict', '--help'])\nexcept SystemExit:\n    print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.rstrip().endswith("False")
    assert "--score" in done.stdout


def test_a_detector_of_masks_writes_them_and_draws_them(photos: Path, tmp_path: Path) -> None:
    config = load_config(ROOT / "configs/nano.yaml", overrides=["model.mask_head.channels=8"])
    _ = torch.manual_seed(0)
    model = build_model(config.model, len(NAMES))
    metadata = model_metadata(config, NAMES, CATEGORY_IDS, model.normalization)
    checkpoint = save_checkpoint(tmp_path / "run", step=1, weights=model.state_dict(), metadata=metadata, state={})
    output = tmp_path / "out"
    assert main(["predict", str(checkpoint), str(photos), "--output", str(output), "--score", "0.2"]) == 0
    sizes = {image["id"]: [image["height"], image["width"]] for image in read(output, "images.json")["images"]}
    results = read(output, "predictions.json")
    assert len(results) > 0
    for result in results:
        assert result["segmentation"]["size"] == sizes[result["image_id"]]
        assert isinstance(result["segmentation"]["counts"], str)


def output_of(checkpoint: Path, folder: Path, *arguments: str) -> Path:
    assert main(["predict", str(checkpoint), *arguments, "--output", str(folder), "--score", "0.2"]) == 0
    return folder


def test_extras_have_the_objects_that_are_drawn(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    extras = ["--csv", "--json", "--txt", "--crops", "--labels"]
    output = output_of(checkpoint, tmp_path / "out", str(photos), *extras)
    drawn = [result for result in read(output, "predictions.json") if result["score"] >= 0.2]
    assert len(drawn) > 3
    images = read(output, "images.json")["images"]
    for image in images:
        stem, mine = Path(image["drawing"]).stem, [one for one in drawn if one["image_id"] == image["id"]]
        assert [one["box"][:2] for one in read(output, f"json/{stem}.json")["objects"]] == [
            pytest.approx(one["bbox"][:2]) for one in mine
        ]
        lines = [line.split() for line in (output / f"txt/{stem}.txt").read_text().splitlines()]
        assert [CATEGORY_IDS[int(line[0])] for line in lines] == [one["category_id"] for one in mine]
        for line, one in zip(lines, mine, strict=True):
            x, y, width, height = one["bbox"]
            centre = [(x + width / 2) / image["width"], (y + height / 2) / image["height"]]
            assert [float(word) for word in line[1:3]] == pytest.approx(centre, abs=1e-5)
        crops = [output / f"crops/{stem}.{number}.jpg" for number in range(1, len(mine) + 1)]
        assert sorted((output / "crops").glob(f"{stem}.*")) == sorted(crops)
        with Image.open(output / f"labels/{stem}.png") as labels:
            pixels = np.asarray(labels)
        assert (pixels.dtype, pixels.shape) == (np.uint16, (image["height"], image["width"]))
        assert pixels.max() <= len(mine)
    rows = list(csv.DictReader((output / "objects.csv").read_text(encoding="utf-8").splitlines()))
    assert [float(row["score"]) for row in rows] == pytest.approx([one["score"] for one in drawn], abs=1e-6)
    assert [float(row["area"]) for row in rows] == pytest.approx(
        [one["bbox"][2] * one["bbox"][3] for one in drawn], abs=0.1
    )
    counts = list(csv.DictReader((output / "counts.csv").read_text(encoding="utf-8").splitlines()))
    assert sum(int(row["objects"]) for row in counts) == len(drawn)
    assert all(int(row["objects"]) == sum(int(row[name]) for name in NAMES) for row in counts)


def test_extras_of_an_earlier_prediction_are_replaced_and_other_files_are_left_alone(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = output_of(checkpoint, tmp_path / "out", str(photos), "--crops", "--txt", "--csv")
    _ = output_of(checkpoint, output, str(photos / "b.jpg"), "--txt")
    assert sorted(path.relative_to(output).as_posix() for path in output.rglob("*")) == [
        "b.jpg", "images.json", "predictions.json", "txt", "txt/b.txt"
    ]  # fmt: skip
    _ = (output / "txt/mine.txt").write_text("mine")
    assert main(["predict", str(checkpoint), str(photos), "--output", str(output)]) == 2
    assert "holds 'txt/mine.txt', which resdet predict did not write" in capsys.readouterr().err
    assert (output / "txt/b.txt").is_file()


def test_only_the_chosen_classes_and_the_best_objects_are_kept(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    everything = read(output_of(checkpoint, tmp_path / "all", str(photos)), "predictions.json")
    cats = read(output_of(checkpoint, tmp_path / "cats", str(photos), "--classes", "cat", "猫"), "predictions.json")
    assert cats == [one for one in everything if one["category_id"] in (5, 17)]
    best = read(output_of(checkpoint, tmp_path / "best", str(photos), "--max", "2"), "predictions.json")
    by_image = [[one for one in everything if one["image_id"] == number] for number in (1, 2, 3)]
    assert best == [one for those in by_image for one in those[:2]]
    for arguments, message in ((["--classes", "cats"], "did you mean 'cat'"), (["--max", "0"], "--max 0 must be")):
        assert main(["predict", str(checkpoint), str(photos), *arguments]) == 2
        assert message in capsys.readouterr().err


def test_the_output_has_a_default_that_replaces_nothing(
    checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("predictions", "predictions-2"):
        assert main(["predict", str(checkpoint), str(photos)]) == 0
        assert (tmp_path / name / "predictions.json").is_file()
        assert f"drawings: {name} " in capsys.readouterr().out


def test_a_list_of_paths_comes_from_the_standard_input(
    checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{photos}/b.jpg\n\n{photos}/a.png\r\n"))
    output = output_of(checkpoint, tmp_path / "out", "-")
    names = [Path(image["file_name"]).name for image in read(output, "images.json")["images"]]
    assert names == ["b.jpg", "a.png"]
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["predict", str(checkpoint), "-", "--output", str(output)]) == 2
    assert "no PATH given" in capsys.readouterr().err


def test_a_run_is_its_best_checkpoint_and_the_command_says_so(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = checkpoint.parents[1]
    for which in ("newest", "best"):
        _ = output_of(run, tmp_path / which, str(photos / "**/*.jpg"), "--recursive")
        assert f"step 1, the {which} checkpoint, 3 classes" in capsys.readouterr().out
        RunFiles(run).write_best(checkpoint)
    (run / "best").unlink()


def test_no_cell_of_a_table_is_a_formula(
    checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    _ = (photos / "a.jpg").rename("=cmd().jpg")
    output = output_of(checkpoint, tmp_path / "out", "=cmd().jpg", "--csv")
    (row,) = csv.reader((output / "counts.csv").read_text().splitlines()[1:])
    assert row[1] == "'=cmd().jpg"


def test_a_video_gives_one_video_and_its_frames_are_images(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "b.avi", frames=4, noise=True)
    extras = ["--csv", "--txt", "--labels", "--every", "2"]
    output = output_of(checkpoint, tmp_path / "out", str(photos), str(clip), *extras)
    assert sorted(path.relative_to(output).as_posix() for path in output.rglob("b*")) == [
        "b.jpg", "b_2.webm", "labels/b.png", "labels/b_2.000000.png", "labels/b_2.000002.png",
        "txt/b.txt", "txt/b_2.000000.txt", "txt/b_2.000002.txt",
    ]  # fmt: skip
    images = read(output, "images.json")["images"]
    assert [image["id"] for image in images] == [1, 2, 3, 40_000_000, 40_000_002]
    assert [(image["frame"], image["seconds"]) for image in images[3:]] == [(0, 0.0), (2, 0.2)]
    drawn = list(Video(output / "b_2.webm").frames())
    assert [(frame.pixels.shape, frame.rate) for frame in drawn] == [((8 * 48, 8 * 64, 3), 5.0)] * 2
    results = [one for one in read(output, "predictions.json") if one["image_id"] > 3]
    assert {(one["file_name"], one["frame"]) for one in results} == {(str(clip), 0), (str(clip), 2)}
    rows = list(csv.DictReader((output / "objects.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["frame"] for row in rows} == {"", "0", "2"}
    again = output_of(checkpoint, output, str(photos / "b.jpg"))
    assert sorted(path.name for path in again.iterdir()) == ["b.jpg", "images.json", "predictions.json"]


def test_a_video_that_is_cut_off_is_named_and_its_frames_are_kept(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_clip(tmp_path / "b.avi", frames=40)
    _ = clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    output = tmp_path / "out"
    assert main(["predict", str(checkpoint), str(tmp_path / "*.avi"), "--output", str(output)]) == 2
    assert "it is cut off" in capsys.readouterr().out
    images = read(output, "images.json")
    assert len(list(Video(output / "b.webm").frames())) == len(images["images"]) > 0
    assert [image["id"] for image in images["skipped"]] == [1]


def test_a_camera_is_predicted_until_its_frames_are_taken(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda *given: StandIn() if given == (0,) else real(*given))
    output = tmp_path / "out"
    assert main(["predict", str(checkpoint), "--camera", "0", "--frames", "2", "--output", str(output)]) == 0
    assert "images: 2, " in capsys.readouterr().out
    assert [image["file_name"] for image in read(output, "images.json")["images"]] == ["camera 0"] * 2
    assert len(list(Video(output / "camera_0.webm").frames())) >= 2
    assert main(["predict", str(checkpoint), "a.jpg", "--frames", "2"]) == 2
    assert "--frames is for a camera" in capsys.readouterr().err


def test_an_interruption_keeps_the_frames_of_a_video(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = Video.frames

    def interrupted(video: Video) -> Any:
        for frame in frames(video):
            if frame.number == 12:
                raise KeyboardInterrupt
            yield frame

    monkeypatch.setattr(Video, "frames", interrupted)
    output, clip = tmp_path / "out", write_clip(tmp_path / "b.avi", frames=20)
    assert main(["predict", str(checkpoint), str(clip), "--output", str(output)]) == 143
    monkeypatch.undo()
    kept = read(output, "images.json")["images"]
    assert 0 < len(kept) == len(list(Video(output / "b.webm").frames())) < 12


def test_the_pages_of_a_tiff_are_told(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages = [Image.fromarray(np.full((40, 60, 3), value, np.uint8)) for value in (10, 20, 30)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "one.tif")
    _ = output_of(checkpoint, tmp_path / "out", str(tmp_path / "*.tif"))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert "stack.tif: has 3 pages, of which the first is read" in line


def test_objects_of_a_class_have_colours_of_their_own_if_asked(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    by_class, by_object = (
        read_image(output_of(checkpoint, tmp_path / name, str(photos / "b.jpg"), "--colors", name) / "b.jpg")
        for name in ("class", "object")
    )
    assert (by_class != by_object).any()


SHARE = "import sys, torch; torch.set_num_threads(1); from resdet.cli.main import main; sys.exit(main(sys.argv[1:]))"


def in_processes(count: int, arguments: list[str]) -> list[tuple[int, str, str]]:
    """The exit code, output and errors of each process; they find each other as under torchrun."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SHARE, *arguments],
            env={**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(count)
    ]  # fmt: skip
    done = [process.communicate(timeout=300) for process in processes]
    return [(process.returncode, *said) for process, said in zip(processes, done, strict=True)]


def test_two_processes_predict_what_one_does(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    _ = (photos / "broken.jpg").write_bytes(b"no image")
    clip = write_clip(tmp_path / "b.avi", frames=3, noise=True)
    wanted = [str(photos), str(clip), "--score", "0.2", "--csv", "--txt", "--crops"]
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert main(["predict", str(checkpoint), *wanted, "--output", str(alone)]) == 2
    both = in_processes(2, ["predict", str(checkpoint), *wanted, "--output", str(together)])
    assert [code for code, _, _ in both] == [2, 2]
    assert both[0][2].splitlines()[-1].startswith("error: 1 of 5 images could not be read")
    assert both[1][2] == ""
    files = sorted(path.relative_to(alone) for path in alone.rglob("*") if path.is_file())
    assert sorted(path.relative_to(together) for path in together.rglob("*") if path.is_file()) == files
    assert read(together, "images.json") == read(alone, "images.json")
    same = [one["image_id"] for one in read(alone, "predictions.json")]
    assert [one["image_id"] for one in read(together, "predictions.json")] == same
    assert (together / "counts.csv").read_text() == (alone / "counts.csv").read_text()
    ours, theirs = (
        [row for row in csv.DictReader((folder / "objects.csv").read_text(encoding="utf-8").splitlines())]
        for folder in (together, alone)
    )
    assert [row["image_id"] for row in ours] == [row["image_id"] for row in theirs]
    for name in ("score", "x1", "y2"):  # batches of other sizes round differently
        assert [float(row[name]) for row in ours] == pytest.approx([float(row[name]) for row in theirs], abs=0.02)
    assert sorted(path.name for path in tmp_path.glob(".*part*")) == [], "nothing is left of the parts"


def test_image_by_image_two_processes_write_the_bytes_of_one(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    """With one image in a batch nothing depends on how the images are shared out."""
    _ = (photos / "broken.jpg").write_bytes(b"no image")
    wanted = [str(photos), "--score", "0.2", "--csv", "--json", "--txt", "--crops", "eval.batch_size=1"]
    alone, together = tmp_path / "alone", tmp_path / "together"
    for count, folder in ((1, alone), (2, together)):
        done = in_processes(count, ["predict", str(checkpoint), *wanted, "--output", str(folder)])
        assert [code for code, _, _ in done] == [2] * count, done
    files = sorted(path.relative_to(alone) for path in alone.rglob("*") if path.is_file())
    assert len(files) > 10
    assert sorted(path.relative_to(together) for path in together.rglob("*") if path.is_file()) == files
    for file in files:
        assert (together / file).read_bytes() == (alone / file).read_bytes(), file


def test_two_processes_leave_a_folder_of_other_things_alone(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    both = in_processes(2, ["predict", str(checkpoint), str(photos), "--output", str(photos)])
    assert [code for code, _, _ in both] == [2, 2]
    assert "which resdet predict did not write" in both[0][2]
    assert sorted(path.name for path in photos.iterdir()) == ["a.jpg", "a.png", "b.jpg"]
