"""The command line: what it accepts, how it answers mistakes, and that help needs no torch."""

import argparse
import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import resdet
from resdet.cli.inputs import split_inputs
from resdet.cli.main import COMMANDS, main, parser_of
from resdet.errors import UserError

ROOT = Path(__file__).parents[2]
OPTIONS = {
    "train": ["inputs", "--output", "--resume", "--dry-run", "--find-lr", "--overfit", "--help-config", "--plugin"],
    "evaluate": ["inputs", "--output", "--plugin"],
    "compare": [
        "inputs", "--backbones", "--seeds", "--output", "--jobs", "--devices", "--engine", "--address",
        "--figure", "--report-only", "--dry-run", "--resamples", "--rounds", "--plugin",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_the_options_are_frozen(name: str):
    parser = parser_of(name, importlib.import_module(COMMANDS[name]))
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    assert [(action.option_strings or [action.dest])[-1] for action in actions] == OPTIONS[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches_and_exits_0(name: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as leaving:
        _ = main([name, "--help"])
    assert leaving.value.code == 0
    assert f"usage: resdet {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_no_torch_and_answers_at_once(name: str):
    script = (
        "import sys, time\n"
        "from resdet.cli.main import main\n"
        "try: main([sys.argv[1], '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'yaml', 'rich', 'cv2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "print(time.process_time(), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stderr) < 2, "seconds of processor time"


def test_the_overview_lists_every_command_with_a_summary(capsys: pytest.CaptureFixture[str]):
    assert main([]) == main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in COMMANDS:
        assert any(line.split()[:1] == [name] and len(line.split()) > 3 for line in lines)


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == resdet.__version__


def answered(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a mistake is answered with."""
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    return errors


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["trian"], "did you mean 'train'"),
        (["train", "nowhere.yaml", "--output", "x"], "nowhere.yaml"),
        (["train", str(ROOT / "configs/nano.yaml")], "--output DIR is missing"),
        (["train", "--output", "x"], "no CONFIG given"),
        (["train", str(ROOT / "configs/nano.yaml"), "model.bakbone.name=vgg16", "--output", "x"], "'backbone'"),
        (["train", str(ROOT / "configs/nano.yaml"), "train.steps=many", "--output", "x"], "train.steps"),
        (["train", "--output", "x", "--resume", "configs/nano.yaml"], "write the config before --resume"),
        (["train", str(ROOT / "configs/nano.yaml"), "--output", "x", "--resume", "gone"], "gone: no such file"),
        (["evaluate", "nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_a_mistake_is_one_line_with_a_remedy_and_exit_code_2(
    arguments: list[str],
    hint: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    assert hint in answered(arguments, capsys)
    assert list(tmp_path.iterdir()) == [], "and leaves nothing behind"


LONG = "a" * 300  # no file system of Linux has such a name


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "nano", "--output", LONG],
        ["train", "nano", "--output", "x", "--resume", LONG],
        ["train", LONG, "--output", "x"],
        ["train", "nano", f"data.train.images={LONG}", "--output", "x"],
        ["train", "nano", f"model.weights={LONG}", "--output", "x"],
        ["train", "nano", f"model.box_head.class_weights=[{', '.join(['1.0'] * 82)}]", "--output", "x"],
        ["train", "nano", "--plugin", LONG, "--output", "x"],
        ["evaluate", LONG],
        ["predict", LONG, "x.jpg"],
        ["score", LONG, LONG],
        ["report", LONG],
        ["probe", "--runs", LONG, "--output", "x"],
        ["compare", "nano", "--backbones", "nano", "--output", LONG, "--dry-run"],
        ["benchmark", "nano", "--json", LONG],
        ["convert-weights", LONG, "--format", "torchvision", "--output", "x.safetensors"],
    ],
)
def test_an_argument_too_long_for_a_file_name_is_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert "error: " in answered(arguments, capsys)
    assert list(tmp_path.iterdir()) == []


def test_weights_of_80_classes_are_an_override_and_no_file():
    override = f"model.box_head.class_weights=[{', '.join(['1.0'] * 81)}]"
    assert split_inputs(["nano", override]) == (["nano"], [override])


def test_names_from_outside_do_not_steer_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def fail(_: argparse.Namespace) -> int:
        raise UserError("class \x1b[2Jcat\nis wrong")

    monkeypatch.setattr("resdet.cli.train.run", fail)
    assert answered(["train"], capsys) == "error: class \\x1b[2Jcat\\nis wrong\n"


def test_an_interrupt_is_143(monkeypatch: pytest.MonkeyPatch):
    def interrupt(_: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("resdet.cli.train.run", interrupt)
    assert main(["train"]) == 143


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_ends_every_command_in_one_line_and_143(
    name: str, number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(f"{COMMANDS[name]}.add_arguments", lambda _: None)
    monkeypatch.setattr(f"{COMMANDS[name]}.run", lambda _: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    assert main([name]) == 143
    assert capsys.readouterr().err == f"stopped by {number.name}\n"
    assert signal.getsignal(number) == before


def test_files_and_overrides_may_be_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    _ = Path("lr=1.yaml").write_text("")
    assert split_inputs(["a.yaml", "train.steps=3", "lr=1.yaml"]) == (["a.yaml", "lr=1.yaml"], ["train.steps=3"])


@pytest.mark.parametrize("name", OPTIONS)
def test_the_tools_are_the_commands(name: str):
    done = subprocess.run(
        [sys.executable, str(ROOT / f"tools/{name}.py"), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"usage: resdet {name}" in done.stdout


def test_the_folder_that_holds_a_clone_does_not_hide_the_package(tmp_path: Path):
    """A clone is a folder named resdet, too; an editable installation names it in the path, as here."""
    (tmp_path / "resdet").symlink_to(ROOT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    script = "import resdet; assert callable(resdet.load_config)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_door_is_lazy_and_complete():
    script = "import resdet, sys; assert 'torch' not in sys.modules; assert callable(resdet.load_config)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    for name in resdet.__all__:
        assert getattr(resdet, name)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = resdet.trian  # pyright: ignore[reportAttributeAccessIssue]
