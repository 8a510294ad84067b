"""The configs of configs/cifar follow the paper's recipe (He et al. 2015, section 4.2), and each makes a step."""

from pathlib import Path

import pytest
import torch

from resdet.config import load_config
from resdet.data.sets.labelled import shapes_patches
from resdet.engine.task.table import task_of
from resdet.engine.train.optim import build_optimizer, learning_rate
from resdet.models.build.classifier import build_classifier

FOLDER = Path(__file__).parents[1] / "configs/cifar"
PAPERS = ("plain20", "plain32", "plain44", "plain56", "resnet20", "resnet32", "resnet56", "resnet110")


def test_no_config_is_left_out():
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted([*PAPERS, "patches"])


@pytest.mark.parametrize("name", PAPERS)
def test_the_paper_s_recipe(name: str):
    config = load_config(FOLDER / f"{name}.yaml")
    optim, train = config.optim, config.train
    assert (config.task, config.data.train.name, config.data.val.name) == ("classification", "cifar10", "cifar10")
    assert (config.model.backbone.name, config.model.backbone.norm) == (f"{name}_cifar", "bn")
    assert (train.steps, train.batch_size, train.grad_clip) == (64000, 128, None)
    assert (optim.name, optim.momentum, optim.weight_decay, optim.norm_weight_decay) == ("sgd", 0.9, 1e-4, 1e-4)
    assert (config.data.augment.pad, config.data.augment.flip) == (4, 0.5)
    start = 0.01 if name == "resnet110" else 0.1
    rates = [learning_rate(step, optim, train) for step in (0, 400, 31999, 32000, 47999, 48000, 63999)]
    assert rates == pytest.approx([start, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


@pytest.mark.parametrize("name", [*PAPERS, "patches"])
def test_a_config_builds_and_makes_a_step(name: str):
    config = load_config(FOLDER / f"{name}.yaml", overrides=["train.batch_size=2"])
    dataset = shapes_patches("train", count=4, size=12, seed=0)
    _ = torch.manual_seed(0)
    model = build_classifier(config.model, len(dataset.class_names))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    batch = next(task_of(config).training_batches(dataset, config, start_step=0, rank=0, world_size=1)).batch
    loss = model(batch)["loss_classifier"]
    loss.backward()
    _ = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # a deep plain net's explode at the start
    _ = build_optimizer(model, config.optim).step()
    assert loss.isfinite()
    moved = [name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])]
    assert len(moved) == len(before)
    probabilities = model.eval().predict(batch)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(2))
