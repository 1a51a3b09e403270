"""Structured control flow, kernels, and the bridges between dims and tensors.

What needs regions, symbols or other functions when it runs has an execution instead of a reference
(`irc.execution`). `if`, `loop`, `call` and `refine` have declared result types: the text or the builder states
them, the rule checks that nothing provably contradicts them, and the interpreter that the arrays keep to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from irc import dims
from irc.diagnostics import fail
from irc.dims import Dim, Symbol
from irc.dtypes import BOOL, I64
from irc.execution import Execution
from irc.index_map import Coordinates, Guard, Guards
from irc.interfaces import Trait
from irc.ir import FunctionName, Operation, Region, Value
from irc.op import AnythingType, AnyType, BooleanType, IntegerType, primitive
from irc.ops.numerics import Array
from irc.ops.rules import fits
from irc.scalar_builder import Scalar, ScalarBuilder
from irc.schedule_options import ScheduleOptions
from irc.types import TensorType

Declared = Sequence[TensorType] | None


def _require_declared(declared: Declared) -> tuple[TensorType, ...]:
    if declared is None:
        raise fail("type.operands", "its result types must be stated")
    return tuple(declared)


def _require_regions(regions: Sequence[Region], count: int) -> list[list[Value]]:
    """What each region yields."""
    if len(regions) != count:
        raise fail("type.region", f"has {len(regions)} regions", expected=str(count))
    return [region.block.terminator.inputs for region in regions]


def _check_scalar(what: str, type_: TensorType) -> None:
    if type_.shape is not None and type_.rank != 0:
        raise fail("type.rank", f"{what} is {type_}", expected="a scalar")


@primitive(Trait.CONTROL_FLOW, Trait.DECLARED_TYPES, Trait.REGIONS, Trait.HOST)
def if_(
    condition: BooleanType, /, *, declared: Declared = None, regions: Sequence[Region] = ()
) -> tuple[TensorType, ...]:
    """The results of the first region when the condition holds, else those of the second.

    Regions: two without arguments, each yielding the results; both may use values defined above.
    Shapes: the condition is a scalar; the result types are stated, and may be left out where both regions agree.
    Source: ONNX If; JAX cond.
    Edge cases: only the region taken runs; extents are checked against the stated types (`run.refine`).
    """
    _check_scalar("the condition", condition)
    branches = _require_regions(regions, 2)
    for region in regions:
        if region.block.arguments:
            raise fail("type.region", "a region of `if` has no arguments")
    if declared is None:
        declared = [value.type for value in branches[0]]
        if declared != [value.type for value in branches[1]]:
            raise fail("type.operands", "the regions yield different types, so the result types must be stated")
    for branch, yielded in zip(("then", "else"), branches, strict=True):
        _check_yield(f"the {branch} region", yielded, declared)
    return tuple(declared)


@if_.execution
def _if(execution: Execution) -> list[Array]:
    return execution.region(0 if _scalar(execution.present[0]) else 1)


def _scalar(array: Array) -> Any:
    """The one element of an array, as a Python number."""
    return np.asarray(array).reshape(()).item()


def _check_yield(what: str, yielded: Sequence[Value], promised: Sequence[TensorType]) -> None:
    if len(yielded) != len(promised):
        raise fail("type.region", f"{what} yields {len(yielded)} values", expected=f"{len(promised)}")
    for index, (value, type_) in enumerate(zip(yielded, promised, strict=True)):
        if not fits(value.type, type_):
            raise fail("type.region", f"{what} yields {value.type} for result {index}", expected=str(type_))


@primitive(Trait.CONTROL_FLOW, Trait.DECLARED_TYPES, Trait.REGIONS, Trait.HOST)
def loop(
    trip_count: IntegerType | None = None,
    condition: BooleanType | None = None,
    /,
    *carried: AnythingType,
    declared: Declared = None,
    regions: Sequence[Region] = (),
) -> tuple[TensorType, ...]:
    """Run the region again and again while the condition holds, at most `trip_count` times.

    Region: arguments iteration i64[], condition bool[] and the carried values; it yields the condition for the next
    iteration, the carried values, and any number of scanned ones. Results: the carried values after the last iteration,
    then each scanned value of all rounds, stacked along a new first axis. Shapes: the result types are stated; in the
    region's arguments new symbols may be defined, bound in each iteration. Source: ONNX Loop. Edge cases: an absent
    trip count means no limit, an absent condition true; without an iteration the carried values come out as they went
    in, and scanned results have extent 0 (in unknown dims too).
    """
    for what, type_ in (("the trip count", trip_count), ("the condition", condition)):
        if type_ is not None:
            _check_scalar(what, type_)
    promised = _require_declared(declared)
    (yielded,) = _require_regions(regions, 1)
    arguments = [argument.type for argument in regions[0].block.arguments]
    required = [TensorType(I64, ()), TensorType(BOOL, ()), *carried]
    if len(arguments) != len(required):
        raise fail("type.region", f"the region has {len(arguments)} arguments", expected=str(len(required)))
    for index, (argument, type_) in enumerate(zip(arguments, required, strict=True)):
        if not fits(type_, argument):
            raise fail("type.region", f"argument {index} of the region is {argument}", expected=str(type_))
    scanned = [
        type_ if type_.shape is None else type_.with_shape(type_.dims[1:]) for type_ in promised[len(carried) :]
    ]
    for type_ in promised[len(carried) :]:
        if type_.shape is not None and type_.rank == 0:
            raise fail("type.rank", f"a scanned result is {type_}", expected="a first axis for the iterations")
    _check_yield("the region", yielded, [TensorType(BOOL, ()), *promised[: len(carried)], *scanned])
    return promised


@loop.execution
def _loop(execution: Execution) -> list[Array]:
    """ONNX Loop: `for (i = 0; i < trip_count and condition; i++)`, either bound absent or not."""
    trip_count, condition = [*execution.arrays, None, None][:2]
    carried = [array for array in execution.arrays[2:] if array is not None]
    limit = None if trip_count is None else _scalar(trip_count)
    going = condition is None or _scalar(condition)
    scanned = execution.operation.results[len(carried) :]
    rows: list[list[Array]] = [[] for _ in scanned]
    number, before = 0, execution.run.held
    while going and (limit is None or number < limit):
        again, *yielded = execution.region(0, [np.asarray(number, np.int64), np.asarray(True), *carried])
        going, number = _scalar(again), number + 1
        for row, array in zip(rows, yielded[len(carried) :], strict=True):
            execution.run.hold(array.nbytes, execution.operation)
            row.append(array)
        carried = yielded[: len(carried)]
    execution.run.held = before
    return [*carried, *(_stacked(execution, result, row) for result, row in zip(scanned, rows, strict=True))]


def _stacked(execution: Execution, result: Value, rows: Sequence[Array]) -> Array:
    if rows:
        if len({row.shape for row in rows}) > 1:
            raise fail("run.shape", f"the iterations of a loop gave %{result.name} different shapes")
        return np.stack(rows)
    # No iteration determines the extents: those that the type does not state are 0, as in ONNX Runtime.
    known = [dims.at_sizes(dim, execution.environment) for dim in (result.type.shape or ())[1:]]
    return np.zeros((0, *(dim if isinstance(dim, int) else 0 for dim in known)), result.dtype.numpy)


@primitive(Trait.CONTROL_FLOW, Trait.DECLARED_TYPES, Trait.EFFECT, Trait.HOST)
def call(*xs: AnythingType, callee: FunctionName, declared: Declared = None) -> tuple[TensorType, ...]:
    """The results of another function of the module, applied to the operands.

    The callee's symbols are bound at each call. Calls are kept even when unused, since the callee may assert.
    Shapes: result types are stated, in the caller's symbols; the verifier compares them with the callee's signature.
    Source: func.call of MLIR; a function of an ONNX model.
    Edge cases: recursion is rejected by the verifier.
    """
    return _require_declared(declared)


@call.execution
def _call(execution: Execution) -> list[Array]:
    return execution.call(execution.operation.attributes["callee"])


@primitive(Trait.ISOLATED, Trait.REGIONS, Trait.EXACT)
def kernel(*xs: AnyType, name: str, kind: str, schedule: dict[str, int] | None = None, bundle: str | None = None,
           regions: Sequence[Region] = ()) -> tuple[TensorType, ...]:  # fmt: skip
    """Operations that run as one kernel; inlining the region does not change the results.

    `schedule` states blocks, warps, stages and parts of the kernel (`irc.schedule_options`); rules choose the rest.
    Kernels beside one another that state the same `bundle` are one launch (rule F20).

    Region: isolated; its arguments are the operands in order, and it yields the results.
    Shapes: the results have the types that the region yields.
    Source: a fusion of XLA's HLO.
    Edge cases: those of the operations inside.
    """
    ScheduleOptions.of(schedule)
    (yielded,) = _require_regions(regions, 1)
    arguments = [argument.type for argument in regions[0].block.arguments]
    if len(arguments) != len(xs):
        raise fail("type.region", f"the region has {len(arguments)} arguments", expected=str(len(xs)))
    for index, (argument, operand) in enumerate(zip(arguments, xs, strict=True)):
        if not fits(operand, argument):
            raise fail("type.region", f"argument {index} of the region is {argument}", expected=str(operand))
    return tuple(value.type for value in yielded)


@kernel.execution
def _kernel(execution: Execution) -> list[Array]:
    return execution.region(0, execution.present)


@primitive(Trait.HOST, Trait.FREE, Trait.NO_ALLOCATION)
def dim(*, value: Dim | tuple[Dim, ...]) -> TensorType:
    """The value of a dim expression as a tensor.

    Shapes: one dim gives i64[], a list of n gives i64[n].
    Source: ONNX Shape; `x.shape` of NumPy and torch.
    Edge cases: none: every symbol is bound where it may be used.
    """
    return TensorType(I64, (len(value),) if isinstance(value, tuple) else ())


@dim.reference
def _dim(*, value: int | tuple[int, ...]) -> Array:
    """Computed without bounds, and wrapped as 64 bits wrap."""
    values = value if isinstance(value, tuple) else (value,)
    wrapped = np.asarray([(each + 2**63) % 2**64 - 2**63 for each in values], np.int64)
    return wrapped if isinstance(value, tuple) else wrapped.reshape(())


@dim.on_dims
def _dim_of_dims(*, value: Dim | tuple[Dim, ...]) -> Dim | tuple[Dim, ...]:
    return value


@dim.element
def _dim_element(builder: ScalarBuilder[Scalar], operation: Operation, at: Coordinates, _: Guards) -> Scalar:
    sizes = operation.attributes["value"]
    if not isinstance(sizes, tuple):
        return builder.index(sizes)
    node = builder.index(sizes[-1] if sizes else 0)
    for position in range(len(sizes) - 2, -1, -1):
        node = builder.select((Guard(at[0] - position, 1),), builder.index(sizes[position]), node)
    return node


@primitive(Trait.EFFECT, Trait.HOST, Trait.NO_ALLOCATION)
def bind(scalar: IntegerType, /, *, symbol: Symbol) -> tuple[TensorType, ...]:
    """Give a new symbol the value of a scalar.

    Shapes: the operand is a scalar; there is no result.
    Source: torch's `item()` with an unbacked symbol.
    Edge cases: a value outside the symbol's range, or no multiple of its divisor, is `run.dim_range`.
    """
    _check_scalar("the operand", scalar)
    return ()


@bind.execution
def _bind(execution: Execution) -> tuple[()]:
    execution.bind(execution.operation.attributes["symbol"], _scalar(execution.present[0]))
    return ()


@primitive(Trait.DECLARED_TYPES, Trait.HOST, Trait.NO_ALLOCATION, Trait.EXACT)
def refine(x: AnyType, /, *, declared: Declared = None) -> TensorType:
    """x itself, promised to have the stated type, which is checked when it runs.

    Shapes: the stated type gives a rank, or dims that could not be proven equal; new symbols may be defined in it. The
    element type stays.
    Source: stablehlo shape assertions; `torch._check`.
    Edge cases: a shape that breaks the promise is `run.refine`; a new symbol out of range `run.dim_range`.
    """
    promised = _require_declared(declared)
    if len(promised) != 1 or not fits(x, promised[0]):
        raise fail("type.shape", f"cannot refine {x} to {', '.join(map(str, promised)) or 'nothing'}")
    return promised[0]


@refine.reference
def _refine(x: Array) -> Array:
    return x


@primitive(Trait.EFFECT, Trait.HOST)
def assert_(condition: BooleanType, /, *, message: str) -> tuple[TensorType, ...]:
    """Stop with `message` unless the condition holds, in every element where it has several.

    Shapes: any; there is no result.
    Source: ATen _assert_async.
    Edge cases: failing is `run.assert`; an empty condition holds.
    """
    return ()


@assert_.reference
def _assert(condition: Array, *, message: str = "an assumption does not hold") -> tuple[()]:
    if not np.all(condition):
        raise fail("run.assert", message)
    return ()


@primitive(Trait.EFFECT, Trait.HOST, Trait.NO_ALLOCATION)
def assume(condition: BooleanType, /) -> tuple[TensorType, ...]:
    """A promise that the condition holds, which passes may use and backends need not check.

    Shapes: any; there is no result.
    Source: llvm.assume.
    Edge cases: the interpreter checks it as it does `assert`; elsewhere a broken promise has no meaning.
    """
    return ()


assume.reference(_assert)


@primitive(Trait.DECLARED_TYPES, Trait.EFFECT, Trait.HOST)
def trap(*, message: str, declared: Declared = None) -> tuple[TensorType, ...]:
    """Stop with `message`: the end of a path that has no meaning.

    Shapes: any result types may be stated, so that a region which ends here can yield.
    Source: llvm.trap.
    Edge cases: reaching it is `run.trap`.
    """
    return () if declared is None else tuple(declared)


@trap.reference
def _trap(*, message: str) -> tuple[()]:
    raise fail("run.trap", message)

