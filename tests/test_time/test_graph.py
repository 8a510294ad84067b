"""Everything that is added at test time is one graph, whatever the images hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# In a process of its own, without the type-checking import hook: its wrappers are not part of the package.
SCRIPT = """
import torch
from resdet.config import load_config
from resdet.test_time.build import build_detector
from resdet.models.build.detector import build_model
from resdet.structures import Batch

torch.manual_seed(0)
config = load_config("configs/nano.yaml", overrides=["model.box_head.score_threshold=0.0", "test.voting.iou=0.5",
    "test.refinement.nms_iou=0.3", "test.scales=[48, 64, 96]", "test.augmentation.flip=true",
    "model.box_head.global_context=true", *{stages}])
model = build_model(config.model, 5).eval()
with torch.no_grad():
    for name, parameter in model.named_parameters():
        if "cls_score.weight" in name:
            parameter.normal_(std=0.5)
detector = build_detector([model], config)
images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
batch = Batch(images, torch.tensor([[64, 64], [50, 60]]))
found = detector.predict(batch)
compiled = torch.compile(detector.predict, fullgraph=True, backend="aot_eager")(batch)
torch.testing.assert_close(compiled.boxes, found.boxes, atol=1e-2, rtol=1e-3)
assert found.valid.any()
"""


@pytest.mark.slow
@pytest.mark.parametrize("stages", [[], ["model.cascade={}"]], ids=["plain", "cascade"])
def test_refinement_voting_maxout_and_flip_are_one_graph(stages: list[str]) -> None:
    script = SCRIPT.replace("{stages}", repr(stages))
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
