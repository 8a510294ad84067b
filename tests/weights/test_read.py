"""Weights files are told by their content; what is damaged, hostile or misnamed is one clear line."""

import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from resdet.errors import UserError
from resdet.weights import WeightContract, read_weights, save_weights

STATE = {"conv1.weight": torch.arange(12.0).view(4, 3, 1, 1), "bn1.bias": torch.zeros(4)}
CONTRACT = WeightContract((1.0, 2.0, 3.0), (1.0, 1.0, 1.0), source="a test")


def refused(file, *words):
    with pytest.raises(UserError) as caught:
        _ = read_weights(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_safetensors_come_back_with_their_contract(tmp_path):
    save_weights(tmp_path / "w.safetensors", STATE, CONTRACT)
    weights = read_weights(tmp_path / "w.safetensors")
    torch.testing.assert_close(weights.state, STATE)
    assert weights.contract == CONTRACT
    assert weights.notes == ()
    assert os.listdir(tmp_path) == ["w.safetensors"]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["w.pth", "w.pkl", "w"])
def test_torch_files_are_known_by_content(tmp_path, zipped, name):
    torch.save(STATE, tmp_path / name, _use_new_zipfile_serialization=zipped)
    weights = read_weights(tmp_path / name)
    torch.testing.assert_close(weights.state, STATE)
    assert weights.contract is None


def test_wrappers_and_prefixes_are_taken_off_and_reported(tmp_path):
    inner = {f"module.model.{name}": torch.nn.Parameter(value) for name, value in STATE.items()}
    torch.save({"epoch": 3, "state_dict": inner, "optimizer": {}}, tmp_path / "w.pth")
    weights = read_weights(tmp_path / "w.pth")
    torch.testing.assert_close(weights.state, STATE)
    assert not any(value.requires_grad for value in weights.state.values())
    assert weights.notes == (
        "taken from its entry 'state_dict'",
        "prefix 'module.' taken off every name",
        "prefix 'model.' taken off every name",
    )


def test_a_prefix_that_only_some_names_have_stays(tmp_path):
    torch.save({"model.a": torch.ones(1), "head.b": torch.ones(1)}, tmp_path / "w.pth")
    assert list(read_weights(tmp_path / "w.pth").state) == ["model.a", "head.b"]


def test_what_is_no_tensor_is_left_out_and_reported(tmp_path):
    torch.save(STATE | {"epoch": 3}, tmp_path / "w.pth")
    weights = read_weights(tmp_path / "w.pth")
    assert weights.state.keys() == STATE.keys()
    assert weights.notes == ("not tensors, left out: 'epoch'",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html>", "not a weights file"),
        (b"version https://git-lfs.github.com/spec/v1", "not a weights file"),
        (b"PK\x03\x04" + b"\0" * 100, "archive"),
    ],
)
def test_other_files_are_refused(tmp_path, content, words):
    file = tmp_path / "w.pth"
    _ = file.write_bytes(content)
    refused(file, words)


def test_folders_and_missing_files_are_refused(tmp_path):
    refused(tmp_path, "a folder")
    refused(tmp_path / "none.pth", "no such file")


@pytest.mark.parametrize(
    "tree", [[torch.ones(1)], {}, {"model": {}}, {"epoch": 3}, {"model": {"model": {"model": {}}}}]
)
def test_files_without_tensors_by_name_are_refused(tmp_path, tree):
    torch.save(tree, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "tensors")


def test_a_pickle_named_safetensors_is_refused_and_not_run(tmp_path):
    class Touch:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'canary'}",)

    file = tmp_path / "w.safetensors"
    _ = file.write_bytes(pickle.dumps({"w": Touch()}))
    refused(file, "not a safetensors file but a pickle")
    torch.save(STATE, file)
    refused(file, "not a safetensors file but a torch.save archive")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_runs_nothing(tmp_path, zipped):
    class Touch:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'canary'}",)

    torch.save({"w": Touch()}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    refused(tmp_path / "w.pth", "refused or damaged")
    assert not (tmp_path / "canary").exists()


def test_a_torch_file_with_a_numpy_global_is_refused(tmp_path):
    torch.save({"w": torch.ones(1), "lr": np.float64(0.1)}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "refused or damaged", "Unsupported global: GLOBAL numpy")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("part", [0.2, 0.6, 0.95])
def test_a_truncated_torch_file_is_refused(tmp_path, zipped, part):
    torch.save({"w": torch.randn(100, 100)}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "w.pth").read_bytes()
    _ = (tmp_path / "w.pth").write_bytes(whole[: int(part * len(whole))])
    refused(tmp_path / "w.pth")


def test_a_compressed_archive_is_refused(tmp_path):
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(10**6)}, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
    refused(tmp_path / "w.pth", "compressed")


def test_an_archive_of_another_kind_is_refused(tmp_path):
    with (tmp_path / "w.pth").open("wb") as file:
        np.savez(file, w=np.ones(3))
    refused(tmp_path / "w.pth", "not one of torch.save")


def safetensors_file(path, header, data=b"\0" * 16, *, size=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    _ = path.write_bytes(struct.pack("<Q", len(text) if size is None else size) + text + data)
    return path


def entry(begin, end, shape=(2,)):
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"a": entry(0, 8), "b": entry(4, 12)}, "not a valid safetensors file"),  # overlapping
        ({"a": entry(0, 8), "b": entry(12, 20)}, "not a valid safetensors file"),  # a hole
        ({"a": entry(0, 8)}, "not a valid safetensors file"),  # bytes that belong to nothing
        ({"a": entry(0, 16, (2,))}, "not a valid safetensors file"),  # more bytes than numbers
        ({"a": entry(0, 16, (2**62, 2**62))}, "not a valid safetensors file"),
        (b'{"a": [', "not a valid safetensors file"),
    ],
)
def test_a_crooked_safetensors_header_is_refused(tmp_path, header, words):
    refused(safetensors_file(tmp_path / "w.safetensors", header), words)


def test_a_safetensors_header_of_200_mb_is_refused(tmp_path):
    file = safetensors_file(tmp_path / "w.safetensors", {"a": entry(0, 8)}, size=200_000_000)
    with file.open("r+b") as sparse:
        _ = sparse.truncate(200_001_000)
    refused(file, "its header claims 200000000 bytes")


def test_a_truncated_safetensors_file_is_refused(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    for length in (20, len(whole) - 1):
        _ = (tmp_path / "w.safetensors").write_bytes(whole[:length])
        refused(tmp_path / "w.safetensors", "fetch it again")


@pytest.mark.filterwarnings("ignore:Validating sparse")
def test_sparse_tensors_are_refused(tmp_path):
    torch.save({"w": torch.eye(3).to_sparse()}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "sparse or quantized")
