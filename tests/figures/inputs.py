"""Counts how annotation files, images, configs and weights end that are damaged or hostile by seeded mutation.

python tests/figures/inputs.py [annotations|images|configs|weights|all] [CASES]
"""

from __future__ import annotations

import io
import os
import pickle
import random
import subprocess
import sys
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from annotations import annotation_files
from attack import attacked, damaged, failed
from safetensors.torch import save

from resdet.config import load_config
from resdet.config.load import to_yaml
from resdet.data.images.decode import read_image
from resdet.engine.checkpoint import read_model_file, read_state
from resdet.weights import read_weights

ROOT = Path(__file__).parents[2]
Attempt = Callable[[int], None]


def images(folder: Path, canary: Path) -> Attempt:
    """JPEG, PNG, WebP, BMP and TIFF files of three and one channels, damaged by byte."""
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC)
    files = [
        (suffix, cv2.imencode(suffix, image)[1].tobytes())
        for suffix in (".jpg", ".png", ".webp", ".bmp", ".tiff")
        for image in (smooth, smooth[..., 0])
    ]

    def attempt(case: int) -> None:
        suffix, data = files[case % len(files)]
        file = folder / f"a{suffix}"
        _ = file.write_bytes(damaged(data, random.Random(case)))
        image = read_image(file)
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert image.dtype == np.uint8

    return attempt


def configs(folder: Path, canary: Path) -> Attempt:
    """Config files damaged by byte and by line, and one to three overrides of any key by any value."""
    whole = to_yaml(load_config(ROOT / "configs/nano.yaml"))
    keys = [line.partition(":")[0] for line in paths_of(whole)]
    values = [
        "0", "-1", "1e-3", "1e308", "nan", ".inf", "99999999999999999999", "010", "1:30", "null", "~", "true", "no",
        "''", "[]", "[1, 2]", "[[1]]", "{}", "{a: 1}",
        "${oc.env:HOME}", "${a}", "!!python/object/apply:os.system ['true']",
        "&a [*a]", "???", "a" * 5000, "../x", "\0", "\u202e", "[" * 3000, "{" * 3000, "os.system", "2020-01-01", "0x10",
    ]  # fmt: skip

    def attempt(case: int) -> None:
        rng = random.Random(case)
        file, overrides = folder / "a.yaml", []
        lines = whole.splitlines(keepends=True)
        if case % 3 == 0:
            _ = file.write_bytes(damaged(whole.encode(), rng))
        elif case % 3 == 1:
            place = rng.randrange(len(lines))
            lines[place] = f"{lines[place].partition(':')[0]}: {rng.choice(values)}\n"
            _ = file.write_text("".join(lines), errors="surrogatepass")
        else:
            _ = file.write_text(whole)
            overrides = [f"{rng.choice(keys)}={rng.choice(values)}" for _ in range(rng.randint(1, 3))]
        _ = to_yaml(load_config(file, overrides=overrides))

    return attempt


def paths_of(text: str) -> list[str]:
    """The dotted path of every line of a config."""
    paths, stack = [], []
    for line in text.splitlines():
        name, colon, _ = line.strip().partition(":")
        if colon and not name.startswith("-"):
            depth = (len(line) - len(line.lstrip())) // 2
            stack = [*stack[:depth], name]
            paths.append(".".join(stack))
    return paths


class Planted:
    """Unpickling runs a function that leaves a file."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


def weights(folder: Path, canary: Path) -> Attempt:
    """Pickles that leave a canary by several functions, in each kind of file and under each name; and damaged files."""
    plant = f"touch {canary}"
    planted = [
        Planted(os.system, plant),
        Planted(eval, f"__import__('os').system({plant!r})"),
        Planted(exec, f"open({str(canary)!r}, 'w')"),
        Planted(subprocess.call, plant, None, None, None, None, None, None, True, True),
        Planted(open, str(canary), "w"),
        Planted(Path.touch, canary),
    ]
    tensors = OrderedDict(conv=torch.zeros(2, 3), bias=torch.zeros(2))
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    plain = {"safetensors": save(dict(tensors)), "pt": buffer.getvalue()}
    plain["pkl"] = pickle.dumps({name: tensor.numpy() for name, tensor in tensors.items()})
    names = ("a.safetensors", "a.pth", "a.pkl", "model.safetensors", "state.pt")

    def hostile(rng: random.Random) -> bytes:
        bad, protocol = rng.choice(planted), rng.choice((0, 1, 2, 4, 5))
        tree = rng.choice((bad, {"conv": bad}, {"model": {"conv": bad}}, OrderedDict(a=[bad]), {bad: 1}, (bad, 1)))
        data = pickle.dumps(tree, protocol) if type(tree) is not dict or bad not in tree else pickle.dumps([bad])
        if rng.random() < 0.5:
            return data
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/byteorder", "little")
        return packed.getvalue()

    def attempt(case: int) -> None:
        rng = random.Random(case)
        data = hostile(rng) if case % 2 else damaged(plain[rng.choice(sorted(plain))], rng)
        file = folder / rng.choice(names)
        _ = file.write_bytes(data)
        if file.name == "state.pt":
            _ = read_state(folder)
        elif file.name == "model.safetensors":
            _ = read_model_file(file)
        else:
            _ = read_weights(file)

    return attempt


ATTEMPTS = {"annotations": annotation_files, "images": images, "configs": configs, "weights": weights}
WANTED = {"annotations": 3000, "images": 1000, "configs": 2000, "weights": 500}


def main(kind: str = "all", count: str = "") -> int:
    """Prints a line of counts for each kind of input; the exit code is 1 if any must not be."""
    bad = False
    for name in WANTED if kind == "all" else [kind]:
        with tempfile.TemporaryDirectory(prefix="resdet-attack-") as place:
            folder, canary = Path(place) / "inputs", Path(place) / "canary"
            folder.mkdir()
            attempt = ATTEMPTS[name](folder, canary)
            bad |= failed(name, attacked(range(int(count or WANTED[name])), attempt, canary))
    return int(bad)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
