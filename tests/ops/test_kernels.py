"""The kernels for a GPU: run by Triton's interpreter on the CPU, and compiled to machine code without a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_ = pytest.importorskip("triton", reason="this torch came without Triton, as builds for the CPU alone do")

COMPILED = """
import itertools, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from resdet.ops.kernels import nms, roi_align

def compiled(kernel, capability, types, constants, **options):
    signature = types | dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, signature, constants)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)

capability = 90  # Hopper
for number in ("fp32", "fp64"):
    pointers = dict(boxes_ptr="*" + number, groups_ptr="*i64", list_ptr="*" + number, kept_ptr="*i32",
        threshold_ptr="*" + number, count="i32", keep="i32")
    constants = dict(NO_GROUP=nms.NO_GROUP, BLOCK=nms.BLOCK)
    kernel = compiled(nms._greedy, capability, pointers, constants, num_warps=nms.WARPS, enable_fp_fusion=False)
    assert kernel.asm["cubin"]
    assert "fma.rn." not in kernel.asm["ptx"], "another rounding than the CPU's"
    assert "div.rn.f" + number[2:] in kernel.asm["ptx"]
    assert "div.full" not in kernel.asm["ptx"]

for number, kernel in itertools.product(("fp32", "bf16"), ("_forward", "_backward")):
    regions = dict(out_ptr="*" + number) if kernel == "_forward" else dict(grad_ptr="*" + number)
    table = number if kernel == "_forward" else "fp32"
    along = dict(start_ptr="*i64", width_ptr="*i64", y_ptr="*i64", y_weight_ptr="*fp32", x_ptr="*i64",
        x_weight_ptr="*fp32", channels="i32")
    types = {"table_ptr": "*" + table, **regions, **along}
    constants = dict(BINS=7, TAPS=4, BLOCK=256)
    assert compiled(getattr(roi_align, kernel), capability, types, constants).asm["cubin"]
"""


def test_the_tests_for_a_gpu_pass_under_the_interpreter() -> None:
    """In a process of its own: Triton reads the variable when it is imported."""
    files = ("tests/gpu/test_nms.py", "tests/gpu/test_roi_align.py")
    command = [sys.executable, "-m", "pytest", *files, "-m", "gpu", "-q", "-W", "default", "-p", "no:cacheprovider"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "RESDET_GPU_TESTS_DEVICE": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    summary = done.stdout.splitlines()[-1]
    assert re.search(r"\b[1-9]\d+ passed", summary)
    assert "skipped" not in summary


def test_the_kernels_compile_for_a_gpu_that_is_not_there() -> None:
    """And NMS without fused operations and with exact division, so that its bits are those of a CPU."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
