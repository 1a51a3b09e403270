"""Reference execution: every stage of every module runs here, on NumPy arrays.

    run(module, {"x": array})                     -> {"y": array}
    run(module, inputs, precision="f64")          the yardstick: all floats, constants too, are f64
    evaluate_operation(operation, arrays, {})     one operation, for folding

A primitive runs its NumPy reference, a named operation its body, an extern a one-node model in ONNX Runtime or an
operator of PyTorch, and a kernel its region. Symbols are bound where they are defined and checked against their ranges;
dims in attributes are evaluated through them. A value is freed after its last use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, Literal, NamedTuple

import numpy as np

from irc import dims, dtypes
from irc.diagnostics import IrcError, fail
from irc.dims import Dim, DimError, Symbol
from irc.dtypes import C128, F64, DType
from irc.execution import Execution
from irc.interfaces import Trait
from irc.ir import Block, Function, Operation, Value
from irc.limits import check_limit
from irc.module import Module
from irc.ops.extern import opaque_input
from irc.ops.numerics import Array, narrow
from irc.stages import stage
from irc.types import LARGEST
from irc.user_code import is_user_code, place_of_code

TOO_LARGE = ("array is too big", "Maximum allowed dimension")  # NumPy's error for an array beyond the address space
Precision = Literal["declared", "f64"]
Observe = Callable[[Operation, Sequence[Array]], None]
Environment = dict[Symbol, int]
Values = dict[Value, Array]
Results = tuple[Array, ...]


class Invocation(NamedTuple):
    """An operation about to run: its operands, the values that its regions may use, and the symbols bound so far."""

    run: Interpreter
    operation: Operation
    arrays: Sequence[Array | None]
    values: Values
    environment: Environment

    @property
    def present(self) -> list[Array]:
        """The operands that are not absent."""
        return [array for array in self.arrays if array is not None]

    def region(self, index: int = 0, arrays: Sequence[Array] = ()) -> list[Array]:
        """What a region yields. Symbols defined in it are unknown outside, and in its next iteration."""
        block, environment = self.operation.regions[index].block, dict(self.environment)
        if self.operation.definition.is_isolated:
            return self.run.block(block, arrays, {}, environment)
        _bind(block.arguments, arrays, environment)
        return self.run.block(block, arrays, self.values, environment)

    def call(self, callee: str) -> list[Array]:
        """The results of another function of the module."""
        module = self.run.module
        if module is None or callee not in module.functions:
            raise fail("text.undefined_name", f"there is no function @{callee}")
        return self.run.call(module.functions[callee], self.present)

    def bind(self, symbol: Symbol, size: int) -> None:
        """Give a symbol a size from here on."""
        _check_range(symbol, size, f"%{self.operation.inputs[0].name}")
        self.environment[symbol] = size


def run(
    module: Module,
    inputs: Mapping[str, Any],
    *,
    precision: Precision = "declared",
    observe: Observe | None = None,
    draws: int = 0,
) -> dict[str, Array]:
    """Run a module's entry on arrays keyed by argument; results are keyed by output name.

    Sequences are lists, maps dictionaries. With precision "f64" floats of every width are f64 throughout, so that casts
    between them do nothing, and the results keep f64. `observe` is called with each operation of the module, those in
    regions too, after it ran. Random operators without a seed draw numbers that follow from `draws` and their results'
    names. Raises `run.*` for inputs that do not fit the signature and for checks that fail on the way.
    """
    arrays = checked_inputs(module.main, inputs, precision)
    with stage("run in NumPy", "" if precision == "declared" else f"in {precision}"):
        results = Interpreter(module, precision, observe, draws).call(module.main, arrays)
    named = zip(module.main.output_names, module.main.returned, results, strict=True)
    return {name: array.item() if value.dtype.kind == "opaque" else array for name, value, array in named}


def check_memory(function: Function, inputs: Mapping[str, Any]) -> None:
    """Raise `limit.exceeded` where an operation outside of kernels would need too much memory, by the sizes that these
    inputs have; what depends on more than their sizes is not known."""
    environment = _bind_arguments(function, checked_inputs(function, inputs, "declared"))
    for operation in function.walk():
        parent = operation.parent
        if operation.name not in ("const", "call") and (parent is None or parent.name != "kernel"):
            amount = predicted_bytes(operation, environment)
            check_limit("memory", amount, f"{operation.name} gives {{}}", operation.location)


def check_inputs(function: Function, inputs: Mapping[str, Any], called: Mapping[str, str] | None = None) -> Environment:
    """Check arrays against a signature without running: names, element types, shapes, ranges; raises `run.*`. Returns
    the sizes that they give to symbols.

    Errors name an input as `called` does, by the argument's name, where its caller knows it by another.
    """
    if called is None:
        return _bind_arguments(function, checked_inputs(function, inputs, "declared"))
    shown = {name: f"the argument {label}" for name, label in called.items()}
    environment: Environment = {}
    _bind(function.arguments, checked_inputs(function, inputs, "declared", shown), environment, shown)
    return environment


def with_defaults(function: Function, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs, and the defaults of arguments that are not among them."""
    return {
        **{
            argument.name: tensor.array()
            for argument, tensor in function.defaults.items()
            if argument.name not in inputs
        },
        **inputs,
    }


def evaluate_operation(
    operation: Operation, arrays: Sequence[Array | None], environment: Mapping[Symbol, int] | None = None
) -> Results:
    """The results of one operation for arrays in operand order (None for an absent operand).

    `environment` has the symbols that its attributes mention. The operation must not be a call, nor have a region
    that uses values from outside.
    """
    run = Interpreter(None, "declared", None)
    return run.execute(Invocation(run, operation, arrays, {}, dict(environment or {})))


def _shown(function: Function) -> dict[str, str]:
    return {argument.name: f"input `{argument.name}` of @{function.name}" for argument in function.arguments}


def checked_inputs(
    function: Function, inputs: Mapping[str, Any], precision: Precision, shown: Mapping[str, str] | None = None
) -> list[Array]:
    """The arrays in argument order; names and element types are checked here, shapes when symbols are bound."""
    names = [argument.name for argument in function.arguments]
    shown = {name: f"input `{name}`" for name in names} if shown is None else shown
    for name in inputs:
        if name not in names:
            raise fail("run.input_unknown", f"@{function.name} has no input `{name}`", expected=", ".join(names))
    arrays = []
    inputs = with_defaults(function, inputs)
    for argument in function.arguments:
        if argument.name not in inputs:
            raise fail("run.input_missing", f"{shown[argument.name]} is missing", expected=str(argument.type))
        if argument.dtype.kind == "opaque":
            arrays.append(opaque_input(argument, inputs[argument.name]))
            continue
        array = np.asarray(inputs[argument.name])
        given = dtypes.from_numpy(array.dtype)
        if given is not argument.dtype and given is not _dtype_at(argument.dtype, precision):
            raise fail("run.input_dtype", f"{shown[argument.name]} holds {given}", expected=str(argument.type))
        arrays.append(_array_at(np.asarray(array, given.numpy), precision))  # of any byte order
    return arrays


def _bind_arguments(function: Function, arrays: Sequence[Array]) -> Environment:
    """The symbols of a signature with the values that the extents of arrays give them."""
    environment: Environment = {}
    _bind(function.arguments, arrays, environment, _shown(function))
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
    """One run: the module, the precision, the observer, what draws random numbers, and when each value dies."""

    def __init__(self, module: Module | None, precision: Precision, observe: Observe | None, draws: int = 0) -> None:
        self.module = module
        self.precision: Precision = precision
        self.observe = observe
        self.draws = draws
        self.sessions: dict[Operation | str, Any] = {}  # of random externs, which go on drawing where they stopped
        self.held = 0  # bytes of the values that are alive, constants aside
        self._schedules: dict[Block, list[tuple[Operation, list[Value]]]] = {}

    def call(self, function: Function, arrays: Sequence[Array]) -> list[Array]:
        """The results of a function, with its symbols bound from the arrays."""
        return self.block(function.block, arrays, {}, _bind_arguments(function, arrays))

    def block(self, block: Block, arrays: Sequence[Array], values: Values, environment: Environment) -> list[Array]:
        """What a block returns or yields. `values` holds what is visible from outside."""
        values.update(zip(block.arguments, arrays, strict=True))
        ending, before, sizes = block.terminator, self.held, dict[Value, int]()
        for operation, dying in self._schedule(block):
            if operation is ending:
                break
            operands = [None if operand is None else values[operand] for operand in operation.operands]
            try:
                results = self.execute(Invocation(self, operation, operands, values, environment))
                if operation.name != "const":
                    sizes.update(zip(operation.results, map(_bytes_of, results), strict=True))
                    self.hold(sum(sizes[result] for result in operation.results), operation)
            except IrcError as error:
                raise error.placed(operation.location) from error.__cause__
            if self.observe is not None:
                self.observe(operation, results)
            values.update(zip(operation.results, results, strict=True))
            for value in dying:
                del values[value]
                self.held -= sizes.pop(value, 0)
        self.held = before
        return [values[value] for value in ending.inputs]

    def hold(self, amount: int, operation: Operation) -> None:
        """Count bytes that an operation's results take; raises `limit.exceeded`."""
        name = f"%{operation.results[0].name} = {operation.name}" if operation.results else operation.name
        check_limit("memory", self.held + amount, f"{name}: the values alive at a time take {{}}")
        self.held += amount

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

    def execute(self, invocation: Invocation) -> Results:
        """The results of one operation: by its body, by its execution, or by its reference."""
        operation, definition, arrays = invocation.operation, invocation.operation.definition, invocation.arrays
        if definition.is_named:
            return self._named(invocation)
        if not operation.regions and definition.name not in ("const", "call"):
            before = self.held
            self.hold(predicted_bytes(operation, invocation.environment, self.precision), operation)
            self.held = before
        precision = "declared" if Trait.DECLARED_ARRAYS in definition.traits else self.precision
        if precision != self.precision:
            pairs = zip(operation.operands, arrays, strict=True)
            arrays = [None if x is None or array is None else narrow(array, x.dtype.numpy) for x, array in pairs]
            invocation = invocation._replace(arrays=arrays)
        try:
            if definition.execute is not None:
                execution: Execution = invocation
                computed = definition.execute(execution)
            else:
                attributes = operation.attributes.items()
                known = {name: _attribute(value, invocation.environment, precision) for name, value in attributes}
                computed = definition.evaluate(arrays, known)
        except MemoryError:
            raise fail("run.memory", f"{operation.name}: the system lacks memory for its results") from None
        except ValueError as error:
            if str(error).startswith(TOO_LARGE):
                raise fail("run.memory", f"{operation.name}: {error}") from None
            if definition.pointwise is None:
                raise
            shapes = " with ".join(str(list(array.shape)) for array in arrays if array is not None)
            raise fail("run.shape", f"{operation.name}: cannot broadcast {shapes}") from None
        if is_user_code(definition.source_function):
            self._check_reference(invocation, computed)
        results = [_array_at(array, self.precision) for array in computed]
        if definition.has_declared_types:
            self._check_promise(invocation, results)
        return tuple(results)

    def _check_reference(self, invocation: Invocation, arrays: Sequence[Any]) -> None:
        """What the reference of a user's primitive returned, against the types of its results. Raises
        `op.declaration`."""
        operation, at = invocation.operation, place_of_code(invocation.operation.definition.reference_function)
        what, types = f"the reference of `{operation.name}` returned", ", ".join(str(x.type) for x in operation.results)
        if len(arrays) != len(operation.results):
            raise fail("op.declaration", f"{what} {len(arrays)} arrays", at=at, expected=types)
        for value, array in zip(operation.results, arrays, strict=True):
            if not isinstance(array, (np.ndarray, np.generic)):
                raise fail("op.declaration", f"{what} {array!r}", at=at, expected=f"an array, of {value.type}")
            if self.precision == "declared" and array.dtype != value.dtype.numpy:
                raise fail("op.declaration", f"{what} elements of {array.dtype}", at=at, expected=str(value.type))
        try:
            _bind(operation.results, arrays, dict(invocation.environment))
        except IrcError as error:
            raise fail("op.declaration", f"{what} another shape: {error.diagnostics[0].message}", at=at,
                       expected=types) from None  # fmt: skip

    def _named(self, invocation: Invocation) -> Results:
        operation = invocation.operation
        body = operation.body()
        observe, self.observe = self.observe, None  # a body's operations are not the module's
        try:
            return tuple(self.block(body.block, invocation.present, {}, dict(invocation.environment)))
        finally:
            self.observe = observe

    def _check_promise(self, invocation: Invocation, results: Sequence[Array]) -> None:
        """Results against the types that are stated; binds the symbols defined there."""
        operation = invocation.operation
        if len(results) != len(operation.results):
            raise fail("run.refine", f"{operation.name}: {len(results)} results", expected=str(len(operation.results)))
        for value, array in zip(operation.results, results, strict=True):
            if array.dtype != _dtype_at(value.dtype, self.precision).numpy:
                message = f"{operation.name}: %{value.name} holds {array.dtype}"
                raise fail("run.refine", message, expected=str(value.type))
        _bind(operation.results, results, invocation.environment)


# -- memory ----------------------------------------------------------------------------------------------------


def _bytes_of(array: Array) -> int:
    """Bytes that an array keeps alive: of a view, all that it is a view of; nothing of what a file holds."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.nbytes if array.flags.owndata else 0


def predicted_bytes(operation: Operation, environment: Environment, precision: Precision = "declared") -> int:
    """A lower bound of the bytes of an operation's results, from their types, before it runs."""
    total = 0
    for result in operation.results:
        try:
            extents = [d if isinstance(d, int) else dims.evaluate(d, environment) for d in result.type.shape or (0,)]
        except DimError:  # a symbol that the operation defines
            continue
        if min(extents, default=0) < 0:
            raise fail("run.shape", f"{operation.name}: the result {result} has the shape {extents}",
                       expected="sizes of 0 or more")  # fmt: skip
        size = prod(extents)
        if not size and prod(max(1, extent) for extent in extents) > LARGEST:
            raise fail("run.shape", f"NumPy has no array of shape {extents}")
        total += size * _dtype_at(result.dtype, precision).itemsize
    return total


# -- symbols ---------------------------------------------------------------------------------------------------


def _attribute(attribute: Any, environment: Environment, precision: Precision) -> Any:
    """An attribute with its dims evaluated, and an element type as the run has it."""
    if isinstance(attribute, dims.Expr):
        return _evaluate(attribute, environment)
    if isinstance(attribute, tuple):
        return tuple([_attribute(part, environment, precision) for part in attribute])
    return _dtype_at(attribute, precision) if isinstance(attribute, DType) else attribute


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


def _bind(
    values: Sequence[Value], arrays: Sequence[Array], environment: Environment, shown: Mapping[str, str] | None = None
) -> None:
    """Give the unbound symbols in the types of values the sizes that their arrays have, and check all other dims.

    Dims that cannot be solved (`(S + 31)//32` before S is known) wait until others have bound their symbols, and are
    left alone when nothing does. What does not fit is `run.refine`; the inputs of a function, which `shown` names, are
    a user's: shapes that are wrong (`run.input_shape`) differ from those that contradict one another
    (`run.dim_conflict`).
    """
    code, conflict = ("run.refine", "run.refine") if shown is None else ("run.input_shape", "run.dim_conflict")
    waiting: list[tuple[Dim, int, str]] = []
    for value, array in zip(values, arrays, strict=True):
        name = f"%{value.name}" if shown is None else shown[value.name]
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
                expected = f"{dim}, which is {actual}" if solution is None else f"a value of {dim}"
                raise fail(conflict, f"{name} is {size}", expected=expected)
            if solution is not None:
                _check_range(unbound[0], solution, name)
                environment[unbound[0]] = solution
        if len(postponed) == len(waiting):
            return
        waiting = postponed
