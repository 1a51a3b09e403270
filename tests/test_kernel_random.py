"""Random small graphs as kernels, evaluated without tiles: what `derive` says is computed at one point of the axes.

Graphs are dense in what has gone wrong: axes of extent 1, values read at several places (a reduction beside its own
argument), slices, pads and concatenations of what is reduced. Each graph is one group if that is legal, and is
planned with every legal merge taken; kernels are compared with the interpreter, and the module must stay in order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from irc import dims, dtypes, interpreter, ops
from irc.dims import Dim, Symbol
from irc.driver.pipelines import parse_pipeline
from irc.dtypes import F16, F32, I64
from irc.group import Group
from irc.ir import Operation, Value
from irc.kernel import LegalityFailure
from irc.legality import legal
from irc.module import Module
from irc.op import const, trace
from irc.pass_manager import PassContext, PassManager
from irc.passes.fuse import apply, propose
from irc.planner import Unit
from irc.sizes import representative_sizes
from irc.verifier import verify
from irc.weights import Tensor
from tests.fusing import everything
from tests.kernel_reference import evaluate
from tests.test_planners import graph_of

GRAPHS = 150  # of each seed
MOST_ELEMENTS = 400  # of a value, at the largest sizes
EXTENTS = ("1", "1", "1", "2", "3", "4", "B", "S")
RANGES = {"B": (1, 5), "S": (0, 4)}
REDUCTIONS = ("reduce_sum", "reduce_max", "reduce_min", "reduce_mean", "reduce_prod")


class Generator:
    """Operations on the values made so far; each method makes one of the value `x`, or gives back None."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def module(self) -> Module:
        rank = int(self.random.integers(1, 4))
        shape = [str(extent) for extent in self.random.choice(EXTENTS, rank)]
        other = [extent if self.random.random() < 0.6 else "1" for extent in shape[int(self.random.integers(rank)) :]]
        first, second = (f"f64[{', '.join(each)}]" for each in (shape, other))
        for name in "BS":
            first = first.replace(name, f"?{name} in {RANGES[name]}", 1)
        return trace(self.body, first, second)

    def body(self, x: Value, y: Value) -> tuple[Value, ...]:
        self.values = [x, y]
        methods: list[Callable[[Value], Value | None]] = [
            getattr(self, name) for name in vars(Generator) if name not in ("module", "body") and name[0] != "_"
        ]
        for _ in range(int(self.random.integers(3, 11))):
            created = self._one_of(methods)(self._one_of([x, *self.values[-4:]]))
            if created is not None and created.rank <= 4 and dims.bounds(created.type.elements)[1] <= MOST_ELEMENTS:
                self.values.append(created)
        results = [value for value in self.values if value.operation is not None][-4:] or [ops.neg(x)]
        count = int(self.random.integers(1, 4))
        return tuple(results[int(index)] for index in self.random.integers(0, len(results), count))

    def _one_of(self, choices: Any) -> Any:
        return choices[int(self.random.integers(0, len(choices)))]

    def _axis(self, x: Value) -> int:
        return int(self.random.integers(0, x.rank))

    def reduce(self, x: Value) -> Value | None:
        if not x.rank:
            return None
        chosen = [axis for axis in range(x.rank) if self.random.random() < 0.5] or [self._axis(x)]
        axes = () if self.random.random() < 0.05 else tuple(chosen)
        keep = bool(self.random.integers(0, 2))
        return ops.TABLE[self._one_of(REDUCTIONS)](x, axes=axes, keep_dims=keep)

    def relate(self, x: Value) -> Value | None:
        """A reduction and its argument, or what broadcasts with it, in one operation."""
        reduced = self.reduce(x)
        return None if reduced is None else self._combined(reduced, x)

    def combine(self, x: Value) -> Value | None:
        return self._combined(x, self._one_of(self.values))

    def _combined(self, x: Value, y: Value) -> Value | None:
        pairs = zip(reversed(x.shape), reversed(y.shape), strict=False)
        if any(a != b and 1 not in (a, b) for a, b in pairs):  # such extents may broadcast, or may not
            return None
        return ops.TABLE[self._one_of(["add", "sub", "mul", "maximum"])](x, y)

    def unary(self, x: Value) -> Value:
        return ops.TABLE[self._one_of(["neg", "abs", "tanh"])](x)

    def argument(self, x: Value) -> Value | None:
        if not x.rank or least(x.shape[axis := self._axis(x)]) < 1:
            return None
        index = ops.TABLE[self._one_of(["argmax", "argmin"])](x, axis=axis, keep_dims=True)
        return ops.cast(index, to=x.dtype)

    def concat(self, x: Value) -> Value | None:
        if not x.rank:
            return None
        axis = self._axis(x)

        def fits(y: Value) -> bool:
            agree = [a == b for a, b in zip(x.shape, y.shape, strict=False)]
            return y.rank == x.rank and all(agree[:axis] + agree[axis + 1 :])

        parts = [x, self._one_of([y for y in self.values if fits(y)] or [x])]
        return ops.concat(*(parts if self.random.random() < 0.5 else parts[::-1]), axis=axis)

    def spread(self, x: Value) -> Value | None:
        """To the shape of a value that it broadcasts to."""
        def fits(y: Value) -> bool:
            pairs = zip(reversed(x.shape), reversed(y.shape), strict=False)
            return y.rank >= x.rank and all(a in (1, b) for a, b in pairs)

        shapes: list[tuple[Dim, ...]] = [y.shape for y in self.values if fits(y)]
        return ops.expand(x, shape=self._one_of([*shapes, (2, *x.shape)]))

    def slice(self, x: Value) -> Value | None:
        if not x.rank:
            return None
        starts, stops, steps = [0] * x.rank, list(x.shape), [1] * x.rank
        axis = self._axis(x)
        starts[axis] = int(self.random.integers(0, least(x.shape[axis]) + 1))
        if self.random.random() < 0.7:
            stops[axis] = int(self.random.integers(starts[axis], least(x.shape[axis]) + 1))
        steps[axis] = int(self.random.integers(1, 4))
        return ops.slice_(x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))

    def pick(self, x: Value) -> Value | None:
        """One element of an axis, without the axis: `x[..., 1]`."""
        if not x.rank or least(x.shape[axis := self._axis(x)]) < 1:
            return None
        at = int(self.random.integers(0, least(x.shape[axis])))
        starts = tuple(at if i == axis else 0 for i in range(x.rank))
        stops = tuple(at + 1 if i == axis else extent for i, extent in enumerate(x.shape))
        one = ops.slice_(x, starts=starts, stops=stops, steps=(1,) * x.rank)
        return ops.reshape(one, shape=(*x.shape[:axis], *x.shape[axis + 1 :]))

    def pad(self, x: Value) -> Value | None:
        if any(least(extent) < 1 for extent in x.shape):
            return None
        low, high = ([int(self.random.integers(0, 3)) for _ in x.shape] for _ in range(2))
        mode = self._one_of(["constant", "constant", "edge", "wrap"])
        return ops.pad(x, *([0.5] if mode == "constant" else []), low=tuple(low), high=tuple(high), mode=mode)

    def split(self, x: Value) -> Value | None:
        axis = self._axis(x) if x.rank else 0
        if not x.rank or least(x.shape[axis]) < 1:
            return None
        return ops.split(x, axis=axis, sizes=(1, x.shape[axis] - 1))[int(self.random.integers(0, 2))]

    def reshape(self, x: Value) -> Value | None:
        shape: list[Any] = [extent for extent in x.shape if extent != 1 or self.random.random() < 0.5]
        if self.random.random() < 0.3:
            shape.insert(int(self.random.integers(0, len(shape) + 1)), 1)
        if len(shape) > 1 and self.random.random() < 0.5:
            at = int(self.random.integers(0, len(shape) - 1))
            shape[at : at + 2] = [shape[at] * shape[at + 1]]
        elif shape and shape[-1] == 4:
            shape[-1:] = [2, 2]
        return ops.reshape(x, shape=tuple(shape))

    def transpose(self, x: Value) -> Value:
        return ops.transpose(x, permutation=tuple(int(axis) for axis in self.random.permutation(x.rank)))

    def reverse(self, x: Value) -> Value | None:
        return ops.reverse(x, axes=(self._axis(x),)) if x.rank else None

    def tile(self, x: Value) -> Value | None:
        return ops.tile(x, repeats=tuple(int(n) for n in self.random.integers(1, 3, x.rank))) if x.rank else None

    def gather(self, x: Value) -> Value | None:
        if not x.rank or least(x.shape[axis := self._axis(x)]) < 1:
            return None
        return ops.gather(x, const(value=Tensor.of(self._one_of([0, -1, [0, 0], [-1, 0]]), I64)), axis=axis)


def least(extent: Dim) -> int:
    return dims.bounds(extent)[0]


def values_of(module: Module, inputs: dict[str, np.ndarray]) -> dict[Value, np.ndarray]:
    """Every value of the entry, as the interpreter computes it."""
    seen = dict(zip(module.main.arguments, inputs.values(), strict=True))

    def observe(operation: Operation, results: Any) -> None:
        seen.update(zip(operation.results, results, strict=True))

    interpreter.run(module, inputs, observe=observe)
    return seen


def check_group(group: Group, seen: dict[Value, np.ndarray], sizes: dict[Symbol, int]) -> None:
    assert not isinstance(group.kernel, LegalityFailure)
    inputs = {value.name: np.asarray(array) for value, array in seen.items()}
    outputs = evaluate(group.kernel, inputs, sizes)
    for value in group.stored:
        np.testing.assert_allclose(outputs[value.name], seen[value], rtol=1e-9, atol=1e-12, err_msg=f"%{value.name}")


def check(module: Module, seed: int) -> None:
    generator = np.random.default_rng(seed)
    context = PassContext(numerics="keeps_more_precision")
    PassManager(parse_pipeline("canonicalize,fold,dce"), context).run(module)
    members = [each for each in module.main.block if not each.definition.is_terminator
               and not (each.name == "const" and each.attributes["value"].size > 1)]  # fmt: skip
    whole = Group(members)
    plan = propose(module.main, everything, context, [])
    is_kernel = members and whole.stored and not isinstance(whole.kernel, LegalityFailure)
    groups = [*plan.groups, *([whole] if is_kernel else [])]
    runs = []
    for bound in range(2):
        sizes = {symbol: symbol.interval[bound] for symbol in module.main.symbols.values()}
        inputs = {each.name: generator.standard_normal([dims.evaluate(d, sizes) for d in each.shape])
                  for each in module.main.arguments}  # fmt: skip
        seen = values_of(module, inputs)
        for group in groups:
            check_group(group, seen, sizes)
        runs.append((inputs, interpreter.run(module, inputs)))
    apply(plan)
    verify(module)
    for inputs, expected in runs:
        for actual, required in zip(interpreter.run(module, inputs).values(), expected.values(), strict=True):
            np.testing.assert_array_equal(actual, required)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", range(8))
def test_kernels_of_random_graphs_compute_what_they_enclose(seed: int) -> None:
    for number in range(GRAPHS):
        module = Generator(seed * GRAPHS + number).module()
        text = str(module)
        try:
            check(module, number)
        except Exception as error:
            raise AssertionError(f"graph {seed * GRAPHS + number}: {error}\n{text}") from error


INTEGERS = (dtypes.I8, dtypes.U8, dtypes.I16, dtypes.U16, dtypes.I32, dtypes.U32, dtypes.I64)


def integer_program(random: np.random.Generator) -> Module:
    """Positions, and arithmetic on them that leaves the range of its type: compared, cast, and used as indices."""

    def one_of(choices: Any) -> Any:
        return choices[int(random.integers(0, len(choices)))]

    def number(dtype: dtypes.DType) -> int:
        least, most = dtypes.limits(dtype)
        return int(one_of([0, 1, 3, most, least, most // 2, most // 3, int(random.integers(least, most))]))

    def body(x: Value) -> tuple[Value, ...]:
        value, results = ops.iota(shape=(300,), axis=0, dtype=one_of(INTEGERS)), list[Value]()
        for _ in range(int(random.integers(1, 6))):
            kind = one_of(["add", "sub", "mul", "cast", "compare"])
            if kind == "cast":
                value = ops.cast(value, to=one_of(INTEGERS))
            elif kind == "compare":
                condition = ops.TABLE[one_of(["less", "less_equal", "greater", "equal"])](value, number(value.dtype))
                results.append(condition)
                value = ops.select(condition, value, ops.mul(value, value))
            else:
                value = ops.TABLE[kind](value, number(value.dtype))
        return *results, value, ops.gather(x, ops.cast(value, to=one_of([dtypes.U8, dtypes.I8])), axis=0)

    return trace(body, "f64[300]")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", range(4))
def test_integers_wrap_around_in_kernels(seed: int) -> None:
    for number in range(GRAPHS):
        random = np.random.default_rng((seed, number))
        module = integer_program(random)
        seen = values_of(module, {"x": random.standard_normal(300)})
        group = Group([each for each in module.main.block if not each.definition.is_terminator])
        assert not isinstance(group.kernel, LegalityFailure), module
        try:
            check_group(group, seen, {})
        except AssertionError as error:
            raise AssertionError(f"program {seed}, {number}: {error}\n{module}") from error


# -- sets that are judged one after another --------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(12))
def test_sets_are_judged_as_kernels_that_are_derived_alone(seed: int) -> None:
    """Random sets of random graphs, in an order in which most extend others: a rule is broken, and bytes are counted,
    as by a kernel that is derived without what is remembered of other sets."""
    random = np.random.default_rng(seed)
    for module in (Generator(seed).module(), products_of_rows(random)):
        graph = graph_of(module, calls=frozenset())
        sets: list[frozenset[Unit]] = [frozenset([unit]) for unit in graph.units]
        for _ in range(40 if sets else 0):
            some = sets[random.integers(len(sets))]
            others = graph.frontier(some)
            grown = graph.hull(some | {others[random.integers(len(others))]}) if others else None
            sets += [] if grown is None else [grown]
        for units in dict.fromkeys(sets):
            alone = Group(sorted((unit.operation for unit in units), key=lambda each: each.order_label))
            failure = legal(alone)
            judged = graph.legal(units)
            assert (judged and (judged.rule, judged.message)) == (failure and (failure.rule, failure.message)), units
            if failure is None:
                counted, cost = alone.bytes(representative_sizes(module.main, {})), graph.cost(units)
                assert (cost.bytes, cost.loaded, cost.programs) == (counted.distinct_bytes, counted.loaded_bytes,
                                                                    counted.programs)  # fmt: skip
                assert sum(cost.flops.values()) == counted.flops


def products_of_rows(random: np.random.Generator) -> Module:
    """Layers of products, norms, softmax, gates, halves and residuals, in a random order."""
    def program(x: Value, w: Value, v: Value, b: Value) -> list[Value]:
        values = [x]
        for _ in range(7):
            y, other = values[-1], values[random.integers(len(values))]
            match random.integers(9):
                case 0 | 1:
                    y = ops.matmul(y, w if random.random() < 0.5 else v)
                case 2:
                    y = ops.layer_norm(y, b, b)
                case 3:
                    y = ops.matmul(ops.softmax(ops.matmul(y, ops.transpose(other, permutation=(1, 0)))), other)
                case 4:
                    y = ops.mul(ops.gelu(y), other)
                case 5:
                    halves = [ops.slice_(y, starts=(0, at), stops=(32, at + 16), steps=(1, 1)) for at in (16, 0)]
                    y = ops.concat(*halves, axis=1)
                case 6:
                    y = ops.cast(ops.cast(y, to=F16), to=F32)
                case _:
                    y = ops.add(y, other if random.random() < 0.7 else b)
            values.append(y)
        return [values[-1], values[random.integers(1, len(values))]]

    return trace(program, "f32[32, 32]", "f32[32, 32]", "f32[32, 32]", "f32[32]")
