"""Reference execution: every stage of every module runs here, on NumPy arrays.

    run(module, {"x": array})                     -> {"y": array}
    run(module, inputs, precision="f64")          the yardstick: all floats, constants too, are f64
    evaluate_operation(operation, arrays, {})     one operation, for folding

A primitive runs its NumPy reference, a named operation its body, an extern a one-node model in ONNX Runtime, and
a kernel its region. Symbols are bound where they are born and checked against their ranges; dims in attributes
are evaluated through them. A value is freed after its last use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

import numpy as np

from irc import dims, dtypes
from irc.diagnostics import IrcError, fail
from irc.dims import Dim, DimError, Symbol
from irc.dtypes import C128, F64, DType
from irc.ir import Block, Function, Module, Operation, Value
from irc.ops.extern import opaque_input, run_extern
from irc.ops.numerics import Array, narrow

Precision = Literal["declared", "f64"]
Observe = Callable[[Operation, Sequence[Array]], None]
Environment = dict[Symbol, int]
Values = dict[Value, Array]
Results = tuple[Array, ...]


class Step(NamedTuple):
    """An operation about to run: its operands, the values that its regions may use, and the symbols bound so far."""

    operation: Operation
    arrays: Sequence[Array | None]
    values: Values
    environment: Environment

    @property
    def present(self) -> list[Array]:
        """The operands that are not absent."""
        return [array for array in self.arrays if array is not None]


def run(module: Module, inputs: Mapping[str, Any], *, precision: Precision = "declared",
        observe: Observe | None = None) -> dict[str, Array]:
    """Run a module's entry on arrays keyed by argument; results are keyed by output name.

    Sequences are lists, maps dictionaries. With precision "f64" floats of every width are f64 throughout, so that casts
    between them do nothing, and the results keep f64. `observe` is called with each operation of the module, those in
    regions too, after it ran. Raises `run.*` for inputs that do not fit the signature and for checks that fail on the
    way.
    """
    arrays = _checked_inputs(module.main, inputs, precision)
    results = Interpreter(module, precision, observe).call(module.main, arrays)
    named = zip(module.main.output_names, module.main.returned, results, strict=True)
    return {name: array.item() if value.dtype.kind == "opaque" else array for name, value, array in named}


def check_inputs(function: Function, inputs: Mapping[str, Any]) -> None:
    """Check arrays against a signature without running: names, element types, shapes, ranges; raises `run.*`."""
    _bind_arguments(function, _checked_inputs(function, inputs, "declared"))


def evaluate_operation(operation: Operation, arrays: Sequence[Array | None],
                       environment: Mapping[Symbol, int] | None = None) -> Results:
    """The results of one operation for arrays in operand order (None for an absent operand).

    `environment` has the symbols that its attributes mention. The operation must not be a call, nor have a region
    that uses values from outside.
    """
    return Interpreter(None, "declared", None).execute(Step(operation, arrays, {}, dict(environment or {})))


def _checked_inputs(function: Function, inputs: Mapping[str, Any], precision: Precision) -> list[Array]:
    """The arrays in argument order; names and element types are checked here, shapes when symbols are bound."""
    names = [argument.name for argument in function.arguments]
    for name in inputs:
        if name not in names:
            raise fail("run.input_unknown", f"@{function.name} has no input `{name}`", expected=", ".join(names))
    arrays = []
    for argument in function.arguments:
        if argument.name not in inputs:
            raise fail("run.input_missing", f"input `{argument.name}` is missing", expected=str(argument.type))
        if argument.dtype.kind == "opaque":
            arrays.append(opaque_input(argument, inputs[argument.name]))
            continue
        array = np.asarray(inputs[argument.name])
        given = dtypes.from_numpy(array.dtype)
        if given is not argument.dtype and given is not _dtype_at(argument.dtype, precision):
            raise fail("run.input_dtype", f"input `{argument.name}` holds {given}", expected=str(argument.type))
        arrays.append(_array_at(np.asarray(array, given.numpy), precision))  # of any byte order
    return arrays


def _bind_arguments(function: Function, arrays: Sequence[Array]) -> Environment:
    """The symbols of a signature with the values that the extents of arrays give them."""
    environment: Environment = {}
    _bind(function.arguments, arrays, environment, signature=function)
    return environment


def _dtype_at(dtype: DType, precision: Precision) -> DType:
    """The element type in which values of `dtype` are held."""
    if precision == "f64":
        return F64 if dtype.is_float else C128 if dtype.is_complex else dtype
    return dtype


def _array_at(array: Array, precision: Precision) -> Array:
    if precision == "declared":
        return array
    return array.astype(_dtype_at(dtypes.from_numpy(array.dtype), precision).numpy, copy=False)


class Interpreter:
    """One run: the module, the precision, the observer, and when each value dies."""

    def __init__(self, module: Module | None, precision: Precision, observe: Observe | None) -> None:
        self.module = module
        self.precision: Precision = precision
        self.observe = observe
        self._schedules: dict[Block, list[tuple[Operation, list[Value]]]] = {}

    def call(self, function: Function, arrays: Sequence[Array]) -> list[Array]:
        """The results of a function, its symbols bound anew from the arrays."""
        return self.block(function.block, arrays, {}, _bind_arguments(function, arrays))

    def block(self, block: Block, arrays: Sequence[Array], values: Values, environment: Environment) -> list[Array]:
        """What a block returns or yields. `values` holds what is visible from outside."""
        values.update(zip(block.arguments, arrays, strict=True))
        ending = block.terminator
        for operation, dying in self._schedule(block):
            if operation is ending:
                break
            operands = [None if operand is None else values[operand] for operand in operation.operands]
            try:
                results = self.execute(Step(operation, operands, values, environment))
            except IrcError as error:
                raise error.placed(operation.location) from error.__cause__
            if self.observe is not None:
                self.observe(operation, results)
            values.update(zip(operation.results, results, strict=True))
            for value in dying:
                del values[value]
        return [values[value] for value in ending.inputs]

    def _schedule(self, block: Block) -> list[tuple[Operation, list[Value]]]:
        """The operations of a block, each with the values of this block that nothing uses after it."""
        schedule = self._schedules.get(block)
        if schedule is None:
            schedule, alive = [], set[Value]()
            for operation in reversed(block):
                used = [value for inner in operation.walk() for value in inner.inputs if value.block is block]
                dying = [value for value in dict.fromkeys([*operation.results, *used]) if value not in alive]
                alive.update(dying)
                schedule.append((operation, dying))
            schedule.reverse()
            self._schedules[block] = schedule
        return schedule

    # -- operations --------------------------------------------------------------------------------------------

    def execute(self, step: Step) -> Results:
        """The results of one operation: by the method `run_NAME` where there is one, a body, or a reference."""
        operation, arrays, _, environment = step
        definition = operation.definition
        method: Callable[[Step], Results] | None = getattr(self, f"run_{operation.name}", None)
        if method is not None:
            return method(step)
        if definition.is_named:
            return self._named(step)
        attributes = {name: self._attribute(value, environment) for name, value in operation.attributes.items()}
        try:
            return definition.evaluate(arrays, attributes)
        except ValueError:
            if not definition.is_pointwise:
                raise
            shapes = " with ".join(str(list(array.shape)) for array in arrays if array is not None)
            raise fail("run.shape", f"{operation.name}: cannot broadcast {shapes}") from None

    def _attribute(self, attribute: Any, environment: Environment) -> Any:
        if isinstance(attribute, dims.Expr):
            return _evaluate(attribute, environment)
        if isinstance(attribute, tuple):
            return tuple([self._attribute(part, environment) for part in attribute])
        if isinstance(attribute, DType):
            return _dtype_at(attribute, self.precision)
        return attribute

    def _named(self, step: Step) -> Results:
        operation = step.operation
        types = [None if operand is None else operand.type for operand in operation.operands]
        body = operation.definition.body(types, operation.attributes)
        observe, self.observe = self.observe, None  # a body's operations are not the module's
        try:
            return tuple(self.block(body.block, step.present, {}, dict(step.environment)))
        finally:
            self.observe = observe

    def run_const(self, step: Step) -> Results:
        return (_array_at(step.operation.attributes["value"].array(), self.precision),)

    def run_bitcast(self, step: Step) -> Results:
        """Bits are those of the declared types, whatever the precision of the run."""
        bits = narrow(step.arrays[0], step.operation.inputs[0].dtype.numpy)
        (result,) = step.operation.definition.evaluate([bits], step.operation.attributes)
        return (_array_at(result, self.precision),)

    def run_extern(self, step: Step) -> Results:
        pairs = zip(step.operation.operands, step.arrays, strict=True)
        declared = [None if x is None or array is None else narrow(array, x.dtype.numpy) for x, array in pairs]
        results = run_extern(step.operation, declared)
        return self._promised(step, [_array_at(result, self.precision) for result in results])

    # -- control flow ------------------------------------------------------------------------------------------

    def run_if(self, step: Step) -> Results:
        taken = step.operation.regions[0 if _scalar(step.arrays[0]) else 1]
        # A copy, so that what is born in the region is not seen outside; its values die with it.
        return self._promised(step, self.block(taken.block, (), step.values, dict(step.environment)))

    def run_loop(self, step: Step) -> Results:
        """ONNX Loop: `for (i = 0; i < trip_count and condition; i++)`, either bound absent or not."""
        operation, arrays, values, environment = step
        block = operation.regions[0].block
        trip_count, condition, *_ = [*arrays, None, None]
        limit = None if trip_count is None else _scalar(trip_count)
        going = condition is None or _scalar(condition)
        carried = [cast(Array, array) for array in arrays[2:]]
        rounds: list[list[Array]] = []
        while going and (limit is None or len(rounds) < limit):
            inner = dict(environment)  # what is born in one round is unknown to the next
            arguments = [np.asarray(len(rounds), np.int64), np.asarray(True), *carried]
            _bind(block.arguments, arguments, inner)
            again, *yielded = self.block(block, arguments, values, inner)
            going = _scalar(again)
            rounds.append(yielded[len(carried) :])
            carried = yielded[: len(carried)]
        scans = operation.results[len(carried) :]
        stacked = [self._stacked(scan, [row[i] for row in rounds], environment) for i, scan in enumerate(scans)]
        return self._promised(step, [*carried, *stacked])

    def _stacked(self, result: Value, rows: Sequence[Array], environment: Environment) -> Array:
        if rows:
            if len({row.shape for row in rows}) > 1:
                raise fail("run.shape", f"the rounds of a loop gave %{result.name} different shapes")
            return np.stack(rows)
        # No round tells the extents: those that the type leaves open are 0, as in ONNX Runtime.
        rest = (result.type.shape or ())[1:]
        shape = [_evaluate(dim, environment) if environment.keys() >= {*dims.free_symbols(dim)} else 0 for dim in rest]
        return np.zeros((0, *shape), _dtype_at(result.dtype, self.precision).numpy)

    def run_call(self, step: Step) -> Results:
        callee = step.operation.attributes["callee"]
        if self.module is None or callee not in self.module.functions:
            raise fail("text.undefined_name", f"there is no function @{callee}")
        return self._promised(step, self.call(self.module.functions[callee], step.present))

    def run_kernel(self, step: Step) -> Results:
        return tuple(self.block(step.operation.regions[0].block, step.present, {}, dict(step.environment)))

    # -- bridges and checks ------------------------------------------------------------------------------------

    def run_dim(self, step: Step) -> Results:
        return (np.asarray(self._attribute(step.operation.attributes["value"], step.environment), np.int64),)

    def run_bind(self, step: Step) -> Results:
        symbol, size = step.operation.attributes["symbol"], _scalar(step.arrays[0])
        _check_range(symbol, size, f"%{step.operation.inputs[0].name}")
        step.environment[symbol] = size
        return ()

    def run_refine(self, step: Step) -> Results:
        return self._promised(step, step.present)

    def run_assert(self, step: Step) -> Results:
        if not all(map(np.all, step.present)):
            raise fail("run.assert", step.operation.attributes.get("message", "an assumption does not hold"))
        return ()

    run_assume = run_assert

    def run_trap(self, step: Step) -> Results:
        raise fail("run.trap", step.operation.attributes["message"])

    def _promised(self, step: Step, results: Sequence[Array]) -> Results:
        """The results of an operation with stated types, checked against them; binds the symbols born there."""
        operation, _, _, environment = step
        if len(results) != len(operation.results):
            raise fail("run.refine", f"{operation.name}: {len(results)} results", expected=str(len(operation.results)))
        for value, array in zip(operation.results, results, strict=True):
            if array.dtype != _dtype_at(value.dtype, self.precision).numpy:
                message = f"{operation.name}: %{value.name} holds {array.dtype}"
                raise fail("run.refine", message, expected=str(value.type))
        _bind(operation.results, results, environment)
        return tuple(results)


def _scalar(array: Any) -> Any:
    """The one element of an array, as a Python number."""
    return np.asarray(array).reshape(()).item()


# -- symbols ---------------------------------------------------------------------------------------------------


def _evaluate(dim: Dim, environment: Mapping[Symbol, int]) -> int:
    try:
        return dims.evaluate(dim, environment)
    except DimError as error:
        unbound = [symbol for symbol in dims.free_symbols(dim) if symbol not in environment]
        raise fail("dim.unbound" if unbound else "run.shape", f"the dim {dim} has no value here: {error}") from None


def _check_range(symbol: Symbol, size: int, where: str) -> None:
    if not symbol.low <= size <= symbol.high or size % symbol.multiple:
        multiple = f", a multiple of {symbol.multiple}" if symbol.multiple != 1 else ""
        expected = f"{symbol.low} to {symbol.high}{multiple}"
        raise fail("run.dim_range", f"{where}: {symbol.expr} is {size}", expected=expected)


def _bind(values: Sequence[Value], arrays: Sequence[Array], environment: Environment,
          signature: Function | None = None) -> None:
    """Give the unbound symbols in the types of values the sizes that their arrays have, and check all other dims.

    Dims that cannot be solved (`(S + 31)//32` before S is known) wait until others have bound their symbols, and are
    left alone when nothing does. What does not fit is `run.refine`; the inputs of a `signature` are a person's, and
    tell shapes that are wrong (`run.input_shape`) from those that contradict one another (`run.dim_conflict`).
    """
    code, conflict = ("run.input_shape", "run.dim_conflict") if signature else ("run.refine", "run.refine")
    waiting: list[tuple[Dim, int, str]] = []
    for value, array in zip(values, arrays, strict=True):
        name = f"input `{value.name}` of @{signature.name}" if signature else f"%{value.name}"
        if value.type.is_ranked and array.ndim != value.type.rank:
            raise fail(code, f"{name} has shape {list(array.shape)}", expected=str(value.type))
        extents = zip(value.type.shape or (), array.shape, strict=False)
        waiting += [(dim, size, f"{name}, dim {axis}") for axis, (dim, size) in enumerate(extents)]
    while waiting:
        postponed = []
        for dim, size, name in waiting:
            unbound = [symbol for symbol in dims.free_symbols(dim) if symbol not in environment]
            line = dims.linear_in(dims.substitute(dim, environment), unbound[0]) if len(unbound) == 1 else None
            solution = None if line is None else dims.evaluate(dims.floor_divide(size - line[1], line[0]), {})
            if unbound and solution is None:
                postponed.append((dim, size, name))
                continue
            actual = _evaluate(dim, environment if solution is None else {**environment, unbound[0]: solution})
            if isinstance(dim, int) and dim != size:
                raise fail(code, f"{name} is {size}", expected=str(dim))
            if actual != size:
                wanted = f"{dim}, which is {actual}" if solution is None else f"a value of {dim}"
                raise fail(conflict, f"{name} is {size}", expected=wanted)
            if solution is not None:
                _check_range(unbound[0], solution, name)
                environment[unbound[0]] = solution
        if len(postponed) == len(waiting):
            return
        waiting = postponed
