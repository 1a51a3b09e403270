"""Random graphs through the Triton pipeline, under the harness that looks at every address.

Hypothesis draws a graph, the sizes of its symbols (0 and 1 among them), and how it is cut into kernels: as the planner
does it, or with all that is legal merged. Some results update arguments, whose memory kernels may then write. Of each
launch the harness checks the address of every load and store, and that each element of an output is stored once; here
follow the bytes, and the numbers against the interpreter.

Each seed is a test of its own, with the same graphs each time; those marked slow are 500 more.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("triton")

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from irc import dims, dtypes, interpreter, ops
from irc.backends.triton import PIPELINE, Target
from irc.dims import Dim
from irc.driver.pipelines import parse_pipeline
from irc.ir import Operation, Value
from irc.module import Module
from irc.op import const, trace
from irc.pass_manager import PassContext, PassManager
from irc.passes.fuse import apply, find_policy, propose
from irc.policy import Merge, policy
from irc.verifier import verify
from irc.weights import Tensor
from tests import triton_harness as harness
from tests.programs import broadcasts

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

GRAPHS = 20  # of each seed
SEEDS = [*range(4), *(pytest.param(number, marks=pytest.mark.slow) for number in range(4, 29))]
MOST_ELEMENTS = 1500
FLOATS = (dtypes.F32, dtypes.F32, dtypes.F32, dtypes.F64, dtypes.F16, dtypes.BF16)
TYPES = (*FLOATS, dtypes.I32, dtypes.I64, dtypes.U8)
EXTENTS = ("B", "S", "1", "2", "3", "5", "6", "7", "13")
SIZES = (0, 1, 2, 3, 5, 7)
SIMPLE = ("neg", "abs", "relu", "exp")
UNARY = (*SIMPLE, "tanh", "sigmoid", "gelu", "silu", "sin")  # not all of these are in Triton for f64
BINARY = ("add", "sub", "mul", "maximum", "minimum")
EPSILON = {"f64": 1e-13, "f32": 2e-6, "f16": 2e-3, "bf16": 2e-2}  # of an operation on what is about 1


@dataclass
class Graph:
    """A module, the sizes of its symbols, whether all that may be merged is merged, and a seed of its inputs."""

    module: Module
    sizes: dict[str, int]
    merged: bool
    numbers: int

    def __repr__(self) -> str:
        return f"sizes {self.sizes}, merged {self.merged}, numbers {self.numbers}\n{self.module}"


class Steps:
    """Each method makes one value of another, or gives back what it was given where it does not fit."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def _axis(self, x: Value) -> int:
        return int(self._draw(st.integers(0, x.rank - 1)))

    def _one_of(self, choices: Any) -> Any:
        return self._draw(st.sampled_from(choices))

    def unary(self, x: Value, pool: list[Value]) -> Value:
        if not x.dtype.is_float:
            return ops.maximum(x, 2)
        return ops.TABLE[self._one_of(SIMPLE if x.dtype == dtypes.F64 else UNARY)](x)

    def scalar(self, x: Value, pool: list[Value]) -> Value:
        number = self._one_of([0.5, -1.25, 1.0, 0.0]) if x.dtype.is_float else self._one_of([0, 1, 3])
        return ops.TABLE[self._one_of(BINARY)](x, number)

    def binary(self, x: Value, pool: list[Value]) -> Value:
        y = self._one_of([y for y in pool if broadcasts(x, y)])
        return ops.TABLE[self._one_of(BINARY)](x, y if x.dtype == y.dtype else ops.cast(y, to=x.dtype))

    def cast(self, x: Value, pool: list[Value]) -> Value:
        return ops.cast(x, to=self._one_of(FLOATS))

    def choose(self, x: Value, pool: list[Value]) -> Value:
        """By what is exact: an input, not what roundings have been at."""
        inputs = [y for y in pool if y.operation is None and broadcasts(x, y)]
        return ops.select(ops.less(self._one_of(inputs), 1), x, ops.neg(x)) if inputs and x.dtype.is_float else x

    def reduce(self, x: Value, pool: list[Value]) -> Value:
        if x.rank == 0:
            return x
        name = self._one_of(["reduce_mean", "reduce_sum", "reduce_max", "reduce_min"][not x.dtype.is_float :])
        axes = {self._axis(x) for _ in range(self._draw(st.integers(1, 2)))}
        return ops.TABLE[name](x, axes=tuple(sorted(axes)), keep_dims=self._draw(st.booleans()))

    def argument(self, x: Value, pool: list[Value]) -> Value:
        inputs = [y for y in pool if y.operation is None and y.rank and dims.bounds(y.shape[0])[0] > 0]
        return ops.TABLE[self._one_of(["argmax", "argmin"])](self._one_of(inputs), axis=0) if inputs else x

    def normalize(self, x: Value, pool: list[Value]) -> Value:
        if x.rank == 0 or not x.dtype.is_float:
            return x
        name = self._one_of(["softmax", "softmax", "log_softmax", "layer_norm"])
        return ops.TABLE[name](x, axis=self._axis(x) if name.endswith("softmax") else -1)

    def transpose(self, x: Value, pool: list[Value]) -> Value:
        return ops.transpose(x, permutation=tuple(self._draw(st.permutations(range(x.rank)))))

    def flatten(self, x: Value, pool: list[Value]) -> Value:
        if x.rank < 2:
            return x
        axis = self._draw(st.integers(0, x.rank - 2))
        return ops.reshape(x, shape=(*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :]))

    def unflatten(self, x: Value, pool: list[Value]) -> Value:
        factor, last = self._one_of([1, 2, 3]), x.shape[-1] if x.rank else 1
        if dims.equal(dims.modulo(last, factor), 0) is not True:
            return x
        return ops.reshape(x, shape=(*x.shape[:-1], dims.floor_divide(last, factor), factor))

    def expand(self, x: Value, pool: list[Value]) -> Value:
        return ops.expand(x, shape=(self._one_of([1, 2, 3]), *x.shape))

    def tile(self, x: Value, pool: list[Value]) -> Value:
        return ops.tile(x, repeats=tuple(self._one_of([1, 1, 2, 3]) for _ in range(x.rank))) if x.rank else x

    def slice(self, x: Value, pool: list[Value]) -> Value:
        if x.rank == 0 or dims.bounds(x.shape[axis := self._axis(x)])[0] < 2:
            return x
        starts, steps = [0] * x.rank, [1] * x.rank
        starts[axis], steps[axis] = self._draw(st.integers(0, 1)), self._draw(st.integers(1, 3))
        return ops.slice_(x, starts=tuple(starts), stops=x.shape, steps=tuple(steps))

    def pad(self, x: Value, pool: list[Value]) -> Value:
        mode = self._one_of(["constant", "constant", "edge", "reflect", "wrap"])
        least = 3 if mode != "constant" else 0
        fits = [dims.bounds(extent)[0] >= least for extent in x.shape]
        low, high = (tuple(self._draw(st.integers(0, 2)) if fit else 0 for fit in fits) for _ in range(2))
        return ops.pad(x, *([1] if mode == "constant" and x.dtype.is_float else []), low=low, high=high, mode=mode)

    def concat(self, x: Value, pool: list[Value]) -> Value:
        if x.rank == 0:
            return x
        axis = self._axis(x)

        def fits(y: Value) -> bool:
            others = [(a, b) for i, (a, b) in enumerate(zip(x.shape, y.shape, strict=False)) if i != axis]
            return y.rank == x.rank and x.dtype == y.dtype and all(dims.equal(a, b) is True for a, b in others)

        return ops.concat(x, self._one_of([y for y in pool if fits(y)]), axis=axis)

    def split(self, x: Value, pool: list[Value]) -> Value:
        if x.rank == 0 or dims.bounds(extent := x.shape[axis := self._axis(x)])[0] < 2:
            return x
        return ops.split(x, axis=axis, sizes=(1, extent - 1))[self._draw(st.integers(0, 1))]

    def reverse(self, x: Value, pool: list[Value]) -> Value:
        return ops.reverse(x, axes=(self._axis(x),)) if x.rank else x

    def gather(self, x: Value, pool: list[Value]) -> Value:
        if x.rank == 0 or dims.bounds(x.shape[axis := self._axis(x)])[0] < 3:
            return x
        places = [2, -1, 0, 0, -3] if self._draw(st.booleans()) else [[1, -2], [0, 2]]
        return ops.gather(x, const(value=Tensor.of(places, dtypes.I64)), axis=axis)

    def gather_loaded(self, x: Value, pool: list[Value]) -> Value:
        """By integers that are an input: they are below 5."""
        indices = [y for y in pool if y.operation is None and y.dtype in (dtypes.I32, dtypes.I64) and y.rank < 3]
        if x.rank == 0 or not indices or dims.bounds(x.shape[axis := self._axis(x)])[0] < 5:
            return x
        return ops.gather(x, self._one_of(indices), axis=axis)

    def positions(self, x: Value, pool: list[Value]) -> Value:
        return ops.add(x, ops.iota(shape=x.shape, axis=self._axis(x), dtype=x.dtype)) if x.rank else x

    def host(self, x: Value, pool: list[Value]) -> Value:
        """What no kernel computes: groups must not reach around it."""
        return ops.scan(x, kind="sum", axis=self._axis(x)) if x.rank and x.dtype == dtypes.F32 else x


OFTEN = ["normalize", "reduce", "tile", "expand", "flatten", "flatten", "binary"]
METHODS = [*OFTEN, *(name for name in vars(Steps) if not name.startswith("_"))]


@st.composite
def signatures(draw: st.DrawFn) -> list[str]:
    """Types of two to four inputs whose shapes fit: parts of one shape, with dims of 1."""
    shape = draw(st.lists(st.sampled_from(EXTENTS), min_size=1, max_size=4))
    types = [f"{draw(st.sampled_from(FLOATS))}[{', '.join(shape)}]"]
    for _ in range(draw(st.integers(1, 3))):
        part = shape[draw(st.integers(0, len(shape))) :]
        part = ["1" if draw(st.integers(0, 3)) == 0 else extent for extent in part]
        types.append(f"{draw(st.sampled_from(TYPES))}[{', '.join(part)}]")
    return types


def with_ranges(types: list[str]) -> list[str]:
    """Symbols with their ranges, where they first appear."""
    text = "; ".join(types)
    for name in "BS":
        text = text.replace(name, f"?{name} in (0, 9)", 1)
    return text.split("; ")


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    sizes = {name: draw(st.sampled_from(SIZES)) for name in "BS"}
    steps, types = Steps(draw), draw(signatures())

    def elements(value: Value) -> int:
        extents: list[Dim] = list(value.shape)
        known = {symbol: sizes[symbol.name] for symbol in value.type.symbols()}
        return prod(dims.evaluate(extent, known) for extent in extents)

    def body(*inputs: Value) -> tuple[Value, ...]:
        pool = list(inputs)
        for _ in range(draw(st.integers(6, 16))):
            method: Callable[[Value, list[Value]], Value] = getattr(steps, draw(st.sampled_from(METHODS)))
            created = method(draw(st.sampled_from([pool[0], *pool[-3:]])), pool)
            if created.rank <= 5 and elements(created) <= MOST_ELEMENTS:
                pool.append(created)
        made_here = [value for value in pool if value.operation is not None] or [ops.neg(pool[0])]
        results = draw(st.lists(st.sampled_from(made_here[-5:]), min_size=1, max_size=3))
        if draw(st.booleans()):  # something that may update an argument
            old = draw(st.sampled_from(inputs))
            results.insert(0, ops.sub(old, draw(st.sampled_from([value for value in pool if value.type == old.type]))))
        return tuple(results)

    names = "xyzw"[: len(types)]
    signature: Callable[..., Any] = eval(f"lambda {', '.join(names)}: body({', '.join(names)})", {"body": body})
    module = trace(signature, *with_ranges(types))
    for position, value in enumerate(module.main.returned):
        taken = module.main.updates.values()
        fitting = [each for each in module.main.arguments if each.type == value.type and each not in taken]
        if fitting and draw(st.booleans()):
            module.main.updates[position] = draw(st.sampled_from(fitting))
    return Graph(module, sizes, draw(st.booleans()), draw(st.integers(0, 9)))


@policy
def everything(merge: Merge) -> float:
    """Whatever is legal, whether it saves anything or not."""
    return 1.0


def compiled(graph: Graph) -> Module:
    """A copy of the module in kernels."""
    module, context = graph.module.clone(), PassContext(target=Target(), numerics="keeps_more_precision")
    before, _, after = PIPELINE.partition("fuse,")
    PassManager(parse_pipeline(before.rstrip(",")), context).run(module)
    apply(propose(module.main, everything if graph.merged else find_policy("greedy"), context, []))
    PassManager(parse_pipeline(after), context).run(module)
    verify(module)
    return module


def check_numbers(graph: Graph, inputs: dict[str, np.ndarray], outputs: list[np.ndarray]) -> None:
    """The error against exact arithmetic is what rounding explains: a few times the interpreter's."""
    rounded = interpreter.run(graph.module, inputs)
    exact = interpreter.run(graph.module, inputs, precision="f64")
    coarsest = max(EPSILON.get(str(value.dtype), 0.0) for value in values_of(graph.module))
    for actual, near, true in zip(outputs, rounded.values(), exact.values(), strict=True):
        if near.dtype.kind in "biu":
            np.testing.assert_array_equal(actual, near)
            continue
        assert (actual.dtype, actual.shape) == (near.dtype, near.shape)
        actual, near, true = (np.asarray(array, np.float64) for array in (actual, near, true))
        np.testing.assert_array_equal(np.isnan(actual), np.isnan(near))
        np.testing.assert_array_equal(actual[np.isinf(near)], near[np.isinf(near)])
        finite = np.isfinite(near) & np.isfinite(true)
        if finite.any():
            allowed = 4 * np.abs(near - true)[finite].max() + coarsest * max(1.0, np.abs(true[finite]).max())
            assert np.abs(actual - true)[finite].max() <= allowed


def values_of(module: Module) -> list[Value]:
    return [*module.main.arguments, *(result for operation in module.main.block for result in operation.results)]


def is_gather(operation: Operation) -> bool:
    return operation.name in ("gather", "gather_nd", "gather_elements")


def check(graph: Graph) -> None:
    module, inputs = compiled(graph), harness.random_inputs(graph.module, graph.sizes, graph.numbers)
    with tempfile.TemporaryDirectory() as folder, np.errstate(all="ignore"):
        run = harness.run(module, folder=Path(folder) / "model", inputs=inputs, fuse=False)
        assert not run.program.rejected
        check_numbers(graph, inputs, list(run.outputs.values()))
    indirect = any(map(is_gather, graph.module.main.block))
    for launch in run.launches:
        assert launch.predicted is not None
        assert launch.predicted.exact or indirect, "bytes are bounded where an index is loaded, else exact"
        assert launch.counted <= launch.predicted.loaded_bytes
        assert launch.counted == launch.predicted.loaded_bytes or not launch.predicted.exact


@pytest.mark.parametrize("number", SEEDS)
def test_a_random_graph_runs_as_the_interpreter_says(number: int) -> None:
    quick = settings(max_examples=GRAPHS, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    seed(number)(quick(given(graphs())(check)))()
