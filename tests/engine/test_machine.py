"""What a machine lacks is one line that says what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from resdet.config import Config, load_config
from resdet.engine import machine
from resdet.engine.compilation import compiled
from resdet.engine.distributed import World, autocast, choose_device
from resdet.engine.machine import check_bf16, check_compiler, enough_memory, unusable_driver
from resdet.engine.train import train
from resdet.errors import UserError
from resdet.models.build.detector import build_model

GPU = torch.device("cuda")


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)


@pytest.fixture
def old_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "Tesla T4")
    properties = SimpleNamespace(total_memory=16 * 2**30)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: properties)


def test_train_compile_without_a_compiler_ends_before_anything_is_written(
    tmp_path: Path, nano: Config, no_compiler: None
) -> None:
    nano.train.compile = True
    with pytest.raises(UserError, match=r"train.compile=true needs a C\+\+ compiler, and there is no g\+\+ or clang"):
        _ = train(nano, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_test_compile_without_a_compiler_is_refused(nano: Config, no_compiler: None) -> None:
    model = build_model(nano.model, 3)
    with pytest.raises(UserError, match=r"test.compile=true needs a C\+\+ compiler.*set test.compile=false"):
        _ = compiled(model, replace(nano.test, compile=True))
    assert compiled(model, nano.test) is model


def test_a_compiler_that_cxx_names_and_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/none/g++")
    with pytest.raises(UserError, match=r"there is no CXX=/none/g\+\+; install g\+\+"):
        check_compiler("train.compile")


def test_a_gpu_without_bfloat16_names_what_it_can(old_gpu: None) -> None:
    check_bf16(torch.device("cpu"))
    with pytest.raises(UserError, match=r"Tesla T4 has no bfloat16 products.* set train.amp=fp16, or train.amp=off"):
        _ = autocast(load_config("nano", overrides=["train.amp=auto"]).train, GPU)


def test_a_gpu_whose_memory_is_too_small_says_what_to_lower(old_gpu: None) -> None:
    with (
        pytest.raises(UserError, match=r"^the memory of Tesla T4 \(16 GiB\) is too small; lower train.batch_size$"),
        enough_memory(GPU, "lower train.batch_size"),
    ):
        raise torch.OutOfMemoryError
    with pytest.raises(RuntimeError, match="another"), enough_memory(GPU, ""):
        raise RuntimeError("another error")


def test_a_driver_that_torch_cannot_use_is_named_instead_of_no_gpu(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "version"
    monkeypatch.setattr(machine, "DRIVER", file)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert unusable_driver() is None
    _ = file.write_text("NVRM version: 470.1\nGCC\n")
    with pytest.raises(
        UserError, match=r"no CUDA device: there is a driver \(NVRM version: 470.1\).*update the driver"
    ):
        _ = choose_device("cuda", World())
    nano.train.steps = 1
    _ = train(nano, tmp_path / "run")
    assert "warning: there is a driver (NVRM version: 470.1)" in (tmp_path / "run/log.txt").read_text()
