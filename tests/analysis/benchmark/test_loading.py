"""The loader beside torchvision's: the same images in the same shape, and figures with the right names."""

from pathlib import Path

import pytest
import torch

from miniature import write_miniature
from resdet.analysis.benchmark.loading import benchmark_loading, torchvision_batches
from resdet.cli.main import main
from resdet.config import Config, load_config
from resdet.errors import UserError

CONFIG = Path(__file__).parents[3] / "configs/imagenet/miniature.yaml"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    _ = write_miniature(tmp_path, train=2, val=2, size=80)
    return load_config(CONFIG, overrides=[f"data.root={tmp_path}", "data.workers=0", "train.batch_size=4"])


def test_images_a_second_of_both(config: Config) -> None:
    results = benchmark_loading(config, against="torchvision", pairs=2)
    assert results["images"] == 12
    assert min(results["load/images_per_second"], results["load/peer_images_per_second"], results["load/ratio"]) > 0
    alone = benchmark_loading(config, against=None, pairs=1)
    assert set(alone) == {"images", "pairs", "workers", "load/images_per_second"}


def test_the_peer_makes_squares_of_the_same_folder(config: Config) -> None:
    batches = torchvision_batches(Path(config.data.root) / "ILSVRC/Data/CLS-LOC/train", config)
    images = [next(batches) for _ in range(6)]  # more than an epoch
    assert {tuple(batch.shape) for batch in images} == {(4, 3, 64, 64)}
    assert images[0].dtype == torch.uint8


def test_images_in_memory_have_no_loader_to_measure() -> None:
    patches = load_config(CONFIG, overrides=["data.train.name=shapes_patches", "data.patches.train_images=4"])
    with pytest.raises(UserError, match="its images are in memory, so there is no loader to measure"):
        _ = benchmark_loading(patches, against=None, pairs=1)


def test_the_command(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [f"data.root={config.data.root}", "data.workers=0", "train.batch_size=4"]
    assert main(["benchmark", str(CONFIG), *overrides, "--against", "torchvision", "--pairs", "1"]) == 0
    assert "times as fast" in capsys.readouterr().out
