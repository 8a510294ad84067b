"""The scripts of datasets/, which are no package, for the tests of ImageNet's tracks."""

import runpy
from collections.abc import Callable
from pathlib import Path

DATASETS = Path(__file__).parents[1] / "datasets"
write_miniature: Callable[..., Path] = runpy.run_path(str(DATASETS / "miniature_ilsvrc.py"))["write"]
crops_of_coco: Callable[..., dict[str, int]] = runpy.run_path(str(DATASETS / "imagenet_crops_of_coco.py"))["write"]
