"""`resdet train --help-config` lists every key once, fits a terminal, and needs no torch."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from resdet.cli.main import main
from resdet.config import Config
from resdet.config.declare import Key, walked
from resdet.config.help import config_help
from resdet.errors import UserError

KEYS = [key.path for key in walked(Config) if isinstance(key, Key)]


def listed(text: str) -> list[str]:
    """The keys of a help, in its order."""
    return re.findall(r"^([a-z][\w.]*)=", text, re.MULTILINE)


def test_every_key_is_listed_once_in_the_order_of_the_tree() -> None:
    assert listed(config_help()) == KEYS


def test_a_key_has_its_default_its_type_with_bounds_and_its_help() -> None:
    name, kind, *help_lines = config_help("train.grad_clip").splitlines()
    assert name == "train.grad_clip=35.0"
    assert kind == "    float above 0 and at most 1e+38, or null"
    assert help_lines
    assert all(line.startswith("    ") for line in help_lines)
    assert "\n    step | cosine | poly | " in config_help("optim.schedule")


def test_it_fits_80_columns() -> None:
    assert max(map(len, config_help().splitlines())) <= 80


@pytest.mark.parametrize("prefix", ["model", "model.rpn", "model.mask_head", "train.steps", "task"])
def test_a_prefix_lists_what_is_below_it(prefix: str) -> None:
    wanted = [key for key in KEYS if key == prefix or key.startswith(f"{prefix}.")]
    assert listed(config_help(prefix)) == wanted


def test_a_prefix_that_is_not_known_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"--help-config model\.rnp: no such key; did you mean 'model\.rpn'"):
        _ = config_help("model.rnp")


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help-config"]) == 0
    assert listed(capsys.readouterr().out) == KEYS
    assert main(["train", "--help-config", "optim"]) == 0
    assert listed(capsys.readouterr().out)[0] == "optim.name"


def test_it_needs_no_torch_and_answers_at_once() -> None:
    script = (
        "import sys, time\n"
        "from resdet.cli.main import main\n"
        "main(['train', '--help-config', 'model'])\n"
        "heavy = {'torch', 'numpy', 'rich', 'cv2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "print(time.process_time(), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stderr) < 1.0, "seconds of processor time"
