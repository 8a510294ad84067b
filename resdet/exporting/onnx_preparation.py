"""The preparation of images (`Preparation`) before a detector's ONNX graph, and its boxes in their pixels after it.

It is written in ONNX itself, with sizes as values: torch's exporter would have to prove, for all image sizes, what the
sizes of the detector's maps are.
"""

from __future__ import annotations

from string import Template

import onnx  # pyright: ignore[reportMissingImports]
from onnx import compose, parser  # pyright: ignore[reportMissingImports]

from resdet.exporting.preparation import SMALLEST_SIDE, Preparation

OPSET = 18

# The weights of an axis: see `preparation.area_weights` and `linear_weights`.
AXIS = """
  ${a}_old = Slice (sides, ${start}, ${end})
  ${a}_new = Slice (resized, ${start}, ${end})
  ${a}_old_one = Squeeze (${a}_old)
  ${a}_new_one = Squeeze (${a}_new)
  ${a}_old_range = Range (nought, ${a}_old_one, unit)
  ${a}_new_range = Range (nought, ${a}_new_one, unit)
  ${a}_start_row = Mul (${a}_new_range, ${a}_old)
  ${a}_start = Unsqueeze (${a}_start_row, one)
  ${a}_old_start = Mul (${a}_old_range, ${a}_new)
  ${a}_end = Add (${a}_start, ${a}_old)
  ${a}_old_end = Add (${a}_old_start, ${a}_new)
  ${a}_first_end = Min (${a}_end, ${a}_old_end)
  ${a}_last_start = Max (${a}_start, ${a}_old_start)
  ${a}_common = Sub (${a}_first_end, ${a}_last_start)
  ${a}_positive = Max (${a}_common, zero)
  ${a}_common_float = Cast <to = 1> (${a}_positive)
  ${a}_old_float = Cast <to = 1> (${a}_old)
  ${a}_areas = Div (${a}_common_float, ${a}_old_float)
  ${a}_unit = Mul (${a}_new, two)
  ${a}_twice = Mul (${a}_new_range, two)
  ${a}_odd = Add (${a}_twice, one)
  ${a}_odd_old = Mul (${a}_odd, ${a}_old)
  ${a}_centres_free = Sub (${a}_odd_old, ${a}_new)
  ${a}_centres_low = Max (${a}_centres_free, zero)
  ${a}_old_last = Sub (${a}_old, one)
  ${a}_last = Mul (${a}_unit, ${a}_old_last)
  ${a}_centres_row = Min (${a}_centres_low, ${a}_last)
  ${a}_centres = Unsqueeze (${a}_centres_row, one)
  ${a}_old_centres = Mul (${a}_old_range, ${a}_unit)
  ${a}_away = Sub (${a}_centres, ${a}_old_centres)
  ${a}_distance = Abs (${a}_away)
  ${a}_near = Sub (${a}_unit, ${a}_distance)
  ${a}_near_positive = Max (${a}_near, zero)
  ${a}_near_float = Cast <to = 1> (${a}_near_positive)
  ${a}_unit_float = Cast <to = 1> (${a}_unit)
  ${a}_linear = Div (${a}_near_float, ${a}_unit_float)
  ${a}_weights = Where (shrinks, ${a}_areas, ${a}_linear)
"""

BEFORE = """<ir_version: $ir, opset_import: ["" : $opset]>
prepare (uint8[images_count, height, width, 3] images)
  => (uint8[images_count, 3, rows, columns] batch, int64[images_count, 2] sizes, float[4] scale, float[4] limits)
{
  nought = Constant <value = int64 {0}> ()
  unit = Constant <value = int64 {1}> ()
  zero = Constant <value = int64[1] {0}> ()
  one = Constant <value = int64[1] {1}> ()
  two = Constant <value = int64[1] {2}> ()
  three = Constant <value = int64[1] {3}> ()
  twice_short_side = Constant <value = int64[1] {$twice_short_side}> ()
  twice_max_side = Constant <value = int64[1] {$twice_max_side}> ()
  smallest = Constant <value = int64[1] {$smallest}> ()
  divisor = Constant <value = int64[1] {$divisor}> ()
  shape = Shape (images)
  sides = Slice (shape, one, three)
  short = ReduceMin (sides)
  long = ReduceMax (sides)
  short_numerator_free = Mul (sides, twice_short_side)
  short_numerator = Add (short_numerator_free, short)
  short_denominator = Mul (short, two)
  by_short = Div (short_numerator, short_denominator)
  long_numerator_free = Mul (sides, twice_max_side)
  long_numerator = Add (long_numerator_free, long)
  long_denominator = Mul (long, two)
  by_long = Div (long_numerator, long_denominator)
  smaller = Min (by_short, by_long)
  resized = Max (smaller, one)
  area = ReduceProd (sides)
  resized_area = ReduceProd (resized)
  shrinks = Less (resized_area, area)
$down
$across
  planes = Transpose <perm = [0, 3, 1, 2]> (images)
  pixels = Cast <to = 1> (planes)
  fewer_rows = MatMul (down_weights, pixels)
  across_turned = Transpose <perm = [1, 0]> (across_weights)
  values = MatMul (fewer_rows, across_turned)
  rounded = Round (values)
  black = Constant <value = float {0.0}> ()
  white = Constant <value = float {255.0}> ()
  clipped = Clip (rounded, black, white)
  large_enough = Max (resized, smallest)
  more = Add (large_enough, divisor)
  more_but_one = Sub (more, one)
  multiples = Div (more_but_one, divisor)
  padded = Mul (multiples, divisor)
  missing = Sub (padded, resized)
  six_zeros = Constant <value = int64[6] {0, 0, 0, 0, 0, 0}> ()
  pads = Concat <axis = 0> (six_zeros, missing)
  with_padding = Pad (clipped, pads)
  batch = Cast <to = 2> (with_padding)
  count = Slice (shape, zero, one)
  sizes_shape = Concat <axis = 0> (count, two)
  resized_row = Unsqueeze (resized, zero)
  sizes = Expand (resized_row, sizes_shape)
  turned = Constant <value = int64[4] {1, 0, 1, 0}> ()
  sides_float = Cast <to = 1> (sides)
  resized_float = Cast <to = 1> (resized)
  scales = Div (resized_float, sides_float)
  scale = Gather (scales, turned)
  limits = Gather (sides_float, turned)
}
"""

AFTER = """<ir_version: $ir, opset_import: ["" : $opset]>
restore (float[images_count, detections, 4] found, float[4] scale_in, float[4] limits_in)
  => (float[images_count, detections, 4] boxes)
{
  zero = Constant <value = float {0.0}> ()
  in_given = Div (found, scale_in)
  positive = Max (in_given, zero)
  boxes = Min (positive, limits_in)
}
"""


def with_preparation(detector: onnx.ModelProto, preparation: Preparation) -> onnx.ModelProto:
    """The model whose input is `images` (N, H, W, 3) uint8, and whose boxes are in their pixels.

    `detector` has the inputs `images` and `sizes` and the output `boxes`, of opset `OPSET`.
    """
    values = {"ir": detector.ir_version, "opset": OPSET}
    axes = {
        name: Template(AXIS).substitute(a=name, start=start, end=end)
        for name, start, end in (("down", "zero", "one"), ("across", "one", "two"))
    }
    before = parser.parse_model(
        Template(BEFORE).substitute(
            values,
            **axes,
            twice_short_side=2 * preparation.short_side,
            twice_max_side=2 * preparation.max_side,
            smallest=SMALLEST_SIDE,
            divisor=preparation.divisor,
        )
    )
    after = parser.parse_model(Template(AFTER).substitute(values))
    before, after = compose.add_prefix(before, "prepare/"), compose.add_prefix(after, "restore/")
    inner = compose.add_prefix(detector, "detector/")
    kept = ["prepare/scale", "prepare/limits"]
    names = [output.name for output in inner.graph.output]
    joined = compose.merge_models(
        before, inner, [("prepare/batch", "detector/images"), ("prepare/sizes", "detector/sizes")],
        outputs=[*names, *kept],
    )  # fmt: skip
    joined = compose.merge_models(
        joined,
        after,
        [
            ("detector/boxes", "restore/found"),
            ("prepare/scale", "restore/scale_in"),
            ("prepare/limits", "restore/limits_in"),
        ],
        outputs=["restore/boxes", *[name for name in names if name != "detector/boxes"]],
    )
    order = ["restore/boxes", *(name for name in names if name != "detector/boxes")]
    named = {output.name: output for output in joined.graph.output}
    del joined.graph.output[:]
    joined.graph.output.extend(named[name] for name in order)
    return _renamed(joined)


def _renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Inputs and outputs under their own names, without the part of the graph before the /."""
    names = [value.name for value in (*model.graph.input, *model.graph.output)]
    short = {name: name.rpartition("/")[2] for name in names}
    for node in model.graph.node:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                field[index] = short.get(name, name)
    for value in (*model.graph.input, *model.graph.output):
        value.name = short[value.name]
    return model
