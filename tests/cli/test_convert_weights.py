"""The command writes a file with its contract and the names of its classes; a mistake is one line."""

import pickle

import numpy as np
import pytest
import torch
import torchvision

from resdet.errors import UserError
from resdet.weights import read_weights
from resdet.weights.convert_file import convert_file
from torchvision_oracle import small_torchvision


def run(*arguments):
    from argparse import ArgumentParser

    from resdet.cli import convert_weights

    parser = ArgumentParser()
    convert_weights.add_arguments(parser)
    return convert_weights.run(parser.parse_args(arguments))


def test_the_command_writes_a_file_with_its_contract(tmp_path, capsys):
    blobs = {
        "conv1_w": np.arange(64 * 3 * 49, dtype=np.float32).reshape(64, 3, 7, 7),
        "res_conv1_bn_s": np.ones(64, np.float32),
        "res_conv1_bn_b": np.zeros(64, np.float32),
        "fc1000_w": np.ones((2, 2), np.float32),
    }
    _ = (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    output = tmp_path / "r50.safetensors"
    assert (
        run(str(tmp_path / "R-50.pkl"), "--format", "msra", "--output", str(output), "--architecture", "resnet50_caffe")
        == 0
    )
    weights = read_weights(output)
    torch.testing.assert_close(weights.state["conv1.weight"], torch.from_numpy(blobs["conv1_w"]).flip(1))
    assert weights.contract is not None
    assert (weights.contract.channel_order, weights.contract.architecture) == ("RGB", "resnet50_caffe")
    printed = capsys.readouterr().out
    assert "4 tensors read from" in printed
    assert "5 under resdet's names" in printed
    assert "left out, resdet has no place for them: fc1000_w" in printed
    assert "BGR weights: the input channels of conv1.weight were reversed" in printed
    assert "stride in the 1x1" in printed


def test_the_command_names_the_classes(tmp_path):
    torch.save(small_torchvision(3), tmp_path / "tv.pth")
    _ = (tmp_path / "names.txt").write_text("cat\nN/A\ndog\n")
    options = ["--format", "torchvision", "--class-names", str(tmp_path / "names.txt")]
    assert run(str(tmp_path / "tv.pth"), *options, "--output", str(tmp_path / "out.safetensors")) == 0
    contract = read_weights(tmp_path / "out.safetensors").contract
    assert contract is not None
    assert contract.class_names == ("cat", "dog")


def test_a_wrong_architecture_is_contradicted(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "r18.pth")
    assert convert_file(str(tmp_path / "r18.pth"), "torchvision").contract.architecture == "resnet18"
    with pytest.raises(UserError, match=r"said to be resnet34, but its tensors are those of resnet18"):
        _ = convert_file(str(tmp_path / "r18.pth"), "torchvision", architecture="resnet34")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.pkl", "--format", "msra", "--output", "{}/o.safetensors"], "none.pkl: no such file"),
        (["{}/tv.pth", "--format", "torchvision", "--output", "{}/o.pth"], "must end in .safetensors"),
        (["{}/tv.pth", "--format", "torchvision", "--output", "{}/old.safetensors"], "exists already"),
        (["{}/tv.pth", "--format", "torchvision", "--output", "{}/no/o.safetensors"], "folder does not exist"),
        (["{}/tv.pth", "--format", "msra", "--output", "{}/o.safetensors"], "not of this format"),
        (["{}/tv.pth", "--format", "timm", "--output", "{}/o.safetensors"], "--architecture timm/MODEL"),
        (
            ["{}/tv.pth", "--format", "msra", "--channel-order", "RGB", "--output", "{}/o.safetensors"],
            "only detectron2",
        ),
        (
            ["{}/tv.pth", "--format", "torchvision", "--class-names", "none.txt", "--output", "{}/o.safetensors"],
            "none.txt",
        ),
        (["No_Weights.V1", "--format", "torchvision", "--output", "{}/o.safetensors"], "no weights of this name"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(tmp_path, arguments, words):
    torch.save(small_torchvision(3), tmp_path / "tv.pth")
    _ = (tmp_path / "old.safetensors").write_text("precious")
    with pytest.raises(UserError) as caught:
        _ = run(*(argument.format(tmp_path) for argument in arguments))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "old.safetensors").read_text() == "precious"
    assert not (tmp_path / "o.safetensors").exists()
