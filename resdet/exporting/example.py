"""The Python example in an exported folder: it needs the runtime and numpy, and about 20 lines."""

from __future__ import annotations

from resdet.exporting.contract import CLASS_NAMES, Contract

HEAD = '''"""Objects in an image, by {runtime} and numpy alone: python example.py photo.npy

np.save("photo.npy", np.asarray(PIL.Image.open("photo.jpg").convert("RGB"))) makes such a file of a photo."""
import json, sys
from pathlib import Path
import numpy as np
{imports}

here = Path(__file__).parent
names = json.loads((here / "{names}").read_text(encoding="utf-8"))
image = np.load(sys.argv[1])  # uint8 (height, width, 3): red, green, blue
'''

INSIDE = 'given = {"images": image[None]}  # the graph resizes; several images of one size may be stacked\n'

WEIGHTS = '''

def weights(old, new, enlarges):
    """Of each old pixel in each new one: bilinear to enlarge, averages over areas to reduce."""
    places, step = np.arange(old), old / new
    if enlarges:
        centres = np.clip((np.arange(new)[:, None] + 0.5) * step - 0.5, 0, old - 1)
        return np.maximum(1 - abs(centres - places), 0)
    start = np.arange(new)[:, None] * step
    return np.maximum(np.minimum(start + step, places + 1) - np.maximum(start, places), 0) / step

'''

SIZES = """
size = np.array(image.shape[:2])
scale = min({short_side} / size.min(), {max_side} / size.max())
resized = np.maximum(1, np.floor(size * scale + 0.5).astype(np.int64))
down, across = (weights(old, new, resized.prod() >= size.prod()) for old, new in zip(size, resized))
pixels = np.rint(down @ image.transpose(2, 0, 1) @ across.T).astype(np.uint8)
padded = -(-np.maximum(resized, {smallest}) // {divisor}) * {divisor}
pixels = np.pad(pixels, [(0, 0), (0, padded[0] - resized[0]), (0, padded[1] - resized[1])])
given = {{"images": pixels[None], "sizes": resized[None]}}
"""

IMPORTS = {
    "onnxruntime": "import onnxruntime",
    "openvino": "import openvino",
    "torch and torchvision": "import torch, torchvision",
}
SESSIONS = {
    "onnxruntime": '''session = onnxruntime.InferenceSession(here / "{file}", providers=["CPUExecutionProvider"])
found = dict(zip([output.name for output in session.get_outputs()], session.run(None, given)))
''',
    "openvino": '''model = openvino.Core().compile_model(here / "{file}", "CPU")
found = {{output.any_name: value for output, value in model(given).items()}}
''',
    "torch and torchvision": '''model = torch.export.load(here / "{file}").module(check_guards=False)
found = dict(zip({outputs}, (value.numpy() for value in model(*map(torch.from_numpy, given.values())))))
''',
}  # fmt: skip

PRINT = """for index in np.flatnonzero(found["valid"][0] & (found["scores"][0] >= 0.5)):
    x1, y1, x2, y2 = found["boxes"][0, index]{back}
    name, score = names[found["labels"][0, index]], found["scores"][0, index]
    print(f"{{name}} {{score:.3f}}: {{x1:.1f}} {{y1:.1f}} {{x2:.1f}} {{y2:.1f}}")
"""
MASK = """    cells = found["masks"][0, index]
    at = [((np.arange(side) + 0.5 - low) * len(cells) / (high - low) - 0.5)[:, None]
          for side, low, high in ((image.shape[0], y1, y2), (image.shape[1], x1, x2))]
    rows, columns = (np.maximum(1 - abs(where - np.arange(len(cells))), 0) for where in at)
    print("  pixels of its mask:", np.count_nonzero(rows @ cells @ columns.T >= 0.5))
"""


def example(contract: Contract) -> str:
    """The example's code."""
    head = HEAD.format(runtime=contract.runtime, imports=IMPORTS[contract.runtime], names=CLASS_NAMES)
    given, back = INSIDE, ""
    if contract.preprocessing == "outside":
        sides = {name: getattr(contract, name) for name in ("short_side", "max_side", "divisor")}
        given, back = WEIGHTS + SIZES.format(smallest=16, **sides), " * np.tile((size / resized)[::-1], 2)"
    outputs = [port.name for port in contract.outputs]
    session = SESSIONS[contract.runtime].format(file=contract.file, outputs=outputs)
    return head + given + session + PRINT.format(back=back) + (MASK if contract.masks else "")
