"""Programs that tests of the Triton backend share, and how one is checked under Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irc import ops
from irc.backends.triton import compile_artefact
from irc.backends.triton.compile import TARGETS, Resources
from irc.ir import Operation, Value
from irc.kernel import Kernel, kernel_of
from irc.module import Module
from tests import triton_harness as harness

triton = pytest.importorskip("triton")
AS_3_9 = tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 9)
# Bytes that the code of Triton 3.9 spills at most, where that of earlier versions spills none.
SPILLED = {("attention", "sm_100"): 8, ("f32", "sm_100"): 8} if AS_3_9 else {}
LOCAL = {("relu_3", "sm_90"): 8, ("relu_3", "sm_100"): 8} if AS_3_9 else {}  # bytes on its stack without a spill
WIDE = (0, 128)  # no stores that are narrower than 128 bits
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

# Bounds of `harness.relative_error`. Kernels compute in f32 what is f16 or bf16, and round a result once: these are two
# units in the last place, 2**-9 and 2**-6.
ROUNDED = {"f16": 2e-3, "bf16": 1.6e-2}
PRODUCT_BOUNDS = {"f32": 1e-5, **ROUNDED}  # sums in another order
ATTENTION_BOUNDS = {"f32": 2e-6, **ROUNDED}  # means, weighted by a softmax: they grow with no length
ROW_BOUNDS = {"f64": 1e-13, "f32": 3e-6, **ROUNDED}  # sums of rows in another order, and another library's exp
GRAPH_BOUNDS = {"f64": 1e-13, "f32": 2e-6, "f16": 2e-3, "bf16": 2e-2}  # of operations of a graph, on what is about 1


@dataclass(frozen=True)
class Case:
    name: str
    function: Callable[..., Any]
    types: tuple[str, ...]
    sizes: dict[str, int] = field(default_factory=dict)
    tolerance: float = 1e-6


def tiled_softmax(x: Value) -> tuple[Value, ...]:
    y = ops.softmax(x, axis=1)
    return ops.reduce_sum(ops.exp(x), axes=(1,)), ops.tile(y, repeats=(2, 3)), y


def stretched_along_a_part_of_an_axis(x: Value, y: Value) -> tuple[Value, ...]:
    rows, columns = x.shape
    wide = ops.add(ops.reshape(ops.softmax(x, axis=1), shape=(rows, 1, columns)), y)
    return ops.reshape(wide, shape=(rows, 5 * columns)), ops.exp(x)


def the_operation(module: Module) -> Operation:
    """The one kernel of a module's main function."""
    (operation,) = (each for each in module.main.block if each.name == "kernel")
    return operation


def the_kernel(module: Module) -> Kernel:
    return kernel_of(the_operation(module))


def check_text(folder: Path, name: str, update: bool) -> str:
    """Compare an artefact's kernels with tests/golden/NAME.py, which `update` rewrites; the text is returned."""
    text = (folder / "kernels.py").read_text()
    golden = Path(__file__).parent / "golden" / f"{name}.py"
    if update:
        golden.write_text(text)
    assert text == golden.read_text()
    return text


def check(run: harness.Run, tolerance: float) -> None:
    assert not run.program.rejected, run.program.rejected
    for name, expected in run.expected.items():
        actual = run.outputs[name]
        if expected.dtype.kind in "biu":
            np.testing.assert_array_equal(actual, expected)
        else:
            assert harness.relative_error(actual, expected) <= tolerance
    harness.check_bytes(run.launches)


def check_one_launch(run: harness.Run, tolerance: float) -> None:
    """A run of one kernel: results as interpreted, and exactly the bytes of the model. Errors state the shapes."""
    assert not run.program.rejected
    shapes = {name: result.shape for name, result in run.outputs.items()}
    for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
        assert harness.relative_error(actual, expected) <= tolerance, shapes
    (launch,) = run.launches
    assert launch.predicted is not None and launch.predicted.exact
    assert launch.counted == launch.predicted.loaded_bytes


def check_widths(resources: Resources, narrow_loads: int = 0, narrow_stores: tuple[int, int] = WIDE) -> None:
    """Aligned accesses are 128 bits wide, all but these numbers of them.

    narrow_stores: how many there are on gfx942, and the bits that a thread stores at once. What matrix instructions
        compute is stored from the registers in which these leave it, where a thread has 4 neighbors of a row, or one
        where channels are stored before the image's axes: Triton exchanges them through shared memory for NVIDIA's GPUs
        only.
    """
    stores, bits = narrow_stores if resources.target == "gfx942" else WIDE
    assert resources.narrow_stores == stores, resources
    assert not stores or min(map(int, resources.stores)) == bits, resources
    assert resources.wide_accesses == resources.aligned_accesses - narrow_loads - stores, resources


def check_compiled(folder: Path, multiplied: str | None, narrow_loads: Collection[str] = (),
                   narrow_stores: tuple[int, int] = WIDE) -> None:  # fmt: skip
    """Compile an artefact's kernels for each target: no spills (but `SPILLED`), within shared memory, and aligned
    accesses 128 bits wide.

    multiplied: what they multiply, if anything: types of 8 and 16 bits by matrix instructions, f32 by those of
        gfx942 alone.
    narrow_loads: targets for which Triton loads one operand, elements of 8 bits, in 64 bits: of those that are
        converted to 16 bits, and of those that lie along the columns, it exchanges rows and columns in registers.
    narrow_stores: of `check_widths`.
    """
    for resources in compile_artefact(folder, TARGETS):
        assert not resources.error and resources.fits, resources
        most = SPILLED.get((resources.kernel, resources.target), 0)
        assert resources.spilled_bytes == resources.local_bytes <= most, resources
        is_exact = multiplied == "f32" and resources.target == "gfx942"
        has_matrix_instructions = multiplied in ("8 bits", "16 bits") or is_exact
        assert (resources.matrix_instructions > 0) == has_matrix_instructions, resources
        check_widths(resources, 1 if resources.target in narrow_loads else 0, narrow_stores)
