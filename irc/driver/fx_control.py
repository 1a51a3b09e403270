"""Branches and loops of `to_fx`: PyTorch's higher-order operators `cond`, `scan` and `while_loop`.

`WRITERS` write each region as a Python function inside the host program. `branched` and `looped`, which the program
calls, pass these functions to PyTorch. Its operators demand that a function reads nothing but its arguments and that
its results share no memory with them: `_lifted` and `_copies`. Source: torch/_higher_order_ops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import CellType, FunctionType
from typing import Any

from irc.backends.triton import host_calls
from irc.backends.triton.calls import host_functions, torch_type
from irc.backends.triton.control_flow import size_of
from irc.backends.triton.function_writer import FunctionWriter
from irc.cloning import Cloner
from irc.diagnostics import fail
from irc.dtypes import I32, limits
from irc.ir import Block, Operation, Value
from irc.module import Module
from irc.passes.legalize import expand

# -- writing ------------------------------------------------------------------------------------------------------


def hoist_constants(module: Module) -> None:
    """Move the constants in regions to the beginning of their functions, so that regions read them as other values.
    Those in the bodies of named operations that the host program would write out are such constants, too."""
    called = host_functions() | host_functions("strings")
    pending = [each for each in module.walk() if each.parent is not None and each.definition.is_named]
    while pending:
        operation = pending.pop()
        if operation.name not in called:
            pending += expand(operation)
    for function in module.functions.values():
        for operation in list(function.walk()):
            if operation.name == "const" and operation.block is not function.block:
                copy = Cloner({}).operation(operation)
                function.block.insert(copy, function.block.first)
                operation.replace(copy.results)


def write_const(writer: FunctionWriter, operation: Operation) -> None:
    """A variable, which functions of regions read without the dictionary of all weights."""
    host_calls.write_const(writer, operation)
    weight = writer.values.pop(operation.result)
    writer.line(f"{writer.variable(operation.result)} = {weight}")


def write_if(writer: FunctionWriter, operation: Operation) -> None:
    branches = [_write_function(writer, "branch", region.block) for region in operation.regions]
    condition = writer.variable(operation.inputs[0])
    writer.line(f"{_variables(writer, operation.results)} = branched({condition}, {', '.join(branches)})")


def write_loop(writer: FunctionWriter, operation: Operation) -> None:
    trip, condition, *carried = operation.operands
    stacked = operation.results[len(carried) :]
    limit = "None" if trip is None else size_of(writer, trip)
    is_counted = trip is not None and _is_always_true(operation)
    if stacked:
        _check_stacked(writer, operation, stacked, is_counted)
    rows = [f"({writer.shape(row.shape[1:])}, torch.{torch_type(row.dtype)})" for row in stacked]
    body = _write_function(writer, "body", operation.regions[0].block, operation)
    first = "None" if is_counted or condition is None else writer.variable(condition)
    starts = _variables(writer, [value for value in carried if value is not None])
    call = f"looped({body}, {limit}, {first}, {starts}, [{', '.join(rows)}], counted={is_counted})"
    writer.line(f"{_variables(writer, operation.results)} = {call}")


WRITERS = {"const": write_const, "if": write_if, "loop": write_loop}


def _is_always_true(loop: Operation) -> bool:
    """Whether the condition of a loop is true before each iteration."""
    block = loop.regions[0].block
    first, again = loop.operands[1], block.terminator.inputs[0]
    return (first is None or _is_true(first)) and (again is block.arguments[1] or _is_true(again))


def _is_true(value: Value) -> bool:
    maker = value.operation
    return maker is not None and maker.name == "const" and bool(maker.attributes["value"].array().item())


def _check_stacked(writer: FunctionWriter, loop: Operation, stacked: Sequence[Value], is_counted: bool) -> None:
    """Raise `fx.unsupported` where the memory of stacked results is not known before the loop runs."""
    trip = loop.operands[0]
    maker = None if trip is None else trip.operation
    is_limit = trip is not None and (
        maker is None or maker.name != "const" or maker.attributes["value"].array().item() <= limits(I32).largest)
    reason = "" if is_limit or is_counted else "no trip count bounds the number of rows"
    for row in stacked:
        if not row.type.is_ranked or not all(map(writer.is_bound, row.shape[1:])):
            reason = f"the extents of a row of %{row.name} {row.type} are not known before the loop"
    if reason:
        raise fail("fx.unsupported", f"%{loop.results[0].name} = loop, which stacks results, has no graph: {reason}",
                   at=loop.location)  # fmt: skip


def _write_function(writer: FunctionWriter, name: str, block: Block, loop: Operation | None = None) -> str:
    """Write a region as a Python function of its arguments; returns its name."""
    name, known = writer.names.fresh(name), set(writer.symbols)
    writer.line(f"def {name}({', '.join(map(writer.variable, block.arguments))}):")
    writer.write_region(block, () if loop is None else loop.symbols)
    writer.inside(f"return {_variables(writer, block.terminator.inputs)}")
    for symbol in set(writer.symbols) - known:
        del writer.symbols[symbol]  # a variable of that function
    return name


def _variables(writer: FunctionWriter, values: Sequence[Value]) -> str:
    """Values as a tuple of Python."""
    return f"({''.join(f'{writer.variable(value)}, ' for value in values)})"


# -- what the host program calls -------------------------------------------------------------------------------------


def branched(condition: Any, then: FunctionType, otherwise: FunctionType) -> Any:
    """The results of one of two functions without arguments."""
    import torch

    branches, operands = _lifted([lambda: _copies(then()), lambda: _copies(otherwise())])
    return torch.ops.higher_order.cond(condition, *branches, operands)


def looped(body: FunctionType, trip: Any, condition: Any, starts: Sequence[Any], rows: Sequence[tuple[Any, Any]], *,
           counted: bool) -> Any:  # fmt: skip
    """What a loop carries after its last iteration, then its stacked results.

    body: of the iteration, the condition and what is carried; gives the condition, what is carried, and rows. trip: the
    most iterations, an integer that may be symbolic, or None. rows: the shape and the dtype of each. counted: whether
    `trip` alone ends the loop.
    """
    import torch
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    operators, count = torch.ops.higher_order, len(starts)
    if counted and rows and statically_known_true(trip >= 1):

        def step(*state: Any) -> Any:
            *carried, iteration = state
            return _copies(body(iteration, torch.full((), True), *carried)[1:])

        (step,), operands = _lifted([step], [*starts, None])
        return operators.scan(step, _copies(starts), (torch.arange(trip),), operands)

    limit = None if trip is None else torch.full((), trip, dtype=torch.int64)

    def cond_fn(iteration: Any, going: Any, *_: Any) -> Any:
        return going.clone() if limit is None else going & (iteration < limit)

    def advance(iteration: Any, going: Any, *state: Any) -> Any:
        again, *given = body(iteration, going, *state[:count])
        stacked = [buffer.index_copy(0, iteration.reshape(1), row.unsqueeze(0))
                   for buffer, row in zip(state[count:], given[count:], strict=True)]
        return _copies([iteration + 1, again, *given[:count], *stacked])

    # `scan` needs an iteration, and cannot end early: rows are written into buffers that the loop carries.
    buffers = [torch.zeros((trip, *shape), dtype=dtype) for shape, dtype in rows]
    first = torch.full((), True) if condition is None else condition
    states = (*_copies([torch.full((), 0), first, *starts]), *buffers)
    functions, operands = _lifted([cond_fn, advance], states)
    iterations, _, *results = operators.while_loop(*functions, states, operands)
    if rows and not counted and not statically_known_true(trip == 0):
        length = iterations.item()
        results[count:] = [buffer.narrow(0, 0, length) for buffer in results[count:]]
    return results


def _copies(tensors: Sequence[Any]) -> tuple[Any, ...]:
    """Copies in memory of their own, with the strides that each branch and each iteration gives."""
    import torch

    return tuple(tensor.clone(memory_format=torch.contiguous_format) for tensor in tensors)


def _lifted(functions: Sequence[Any],
            leading: Sequence[Any] = ()) -> tuple[list[Callable[..., Any]], tuple[Any, ...]]:  # fmt: skip
    """The functions with the tensors and sizes that they read from outside as last arguments, and these arguments.

    leading: for each argument that the functions have already a tensor of its shape, or None. A size that is the extent
    of an argument is read from it, since torch.export gives no name to an operand that is an integer.
    """
    import torch
    from torch.multiprocessing.reductions import StorageWeakRef
    from torch.utils import _pytree as pytree

    tensors: dict[int, Any] = {}
    sizes: dict[int, Any] = {}

    def visit(value: Any) -> None:
        for leaf in pytree.tree_leaves(value):
            if isinstance(leaf, torch.Tensor):
                tensors[id(leaf)] = leaf
            elif isinstance(leaf, torch.SymInt):
                sizes[id(leaf)] = leaf
            elif isinstance(leaf, FunctionType):
                visit([cell.cell_contents for cell in leaf.__closure__ or ()])

    visit(functions)
    places = {extent.node.expr: (index, axis) for index, tensor in enumerate([*leading, *tensors.values()])
              if tensor is not None for axis, extent in enumerate(tensor.shape) if isinstance(extent, torch.SymInt)
    }  # fmt: skip
    known = {key: places[size.node.expr] for key, size in sizes.items() if size.node.expr in places}
    outside = tensors | {key: size for key, size in sizes.items() if key not in known}

    def replaced(value: Any, given: Mapping[int, Any]) -> Any:
        def of(leaf: Any) -> Any:
            if not isinstance(leaf, FunctionType) or not leaf.__closure__:
                return given.get(id(leaf), leaf)
            cells = tuple(CellType(replaced(cell.cell_contents, given)) for cell in leaf.__closure__)
            return FunctionType(leaf.__code__, leaf.__globals__, closure=cells)

        return pytree.tree_map(of, value)

    def lift(function: Any) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            given = dict(zip(outside, arguments[len(leading) :], strict=True))
            given |= {key: arguments[index].shape[axis] for key, (index, axis) in known.items()}
            return replaced(function, given)(*arguments[: len(leading)])

        return call

    storages = [StorageWeakRef(tensor.untyped_storage()) for tensor in tensors.values()]
    apart = [tensor.clone() if storage in storages[:index] else tensor  # operands may not share memory
             for index, (tensor, storage) in enumerate(zip(tensors.values(), storages, strict=True))]  # fmt: skip
    return [lift(function) for function in functions], (*apart, *(outside[key] for key in outside if key in sizes))
