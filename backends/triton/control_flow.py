"""Control flow in the host program: calls of functions, branches, and loops."""

from __future__ import annotations

from irc import dims
from irc.backends.triton.calls import torch_type
from irc.backends.triton.function_writer import FunctionWriter
from irc.dims import Expr
from irc.dtypes import STRING
from irc.ir import FunctionName, Operation, Value


def is_counted_loop(loop: Operation) -> bool:
    """Whether its trip count alone ends a loop: the body yields its condition unchanged and has no other use of it."""
    (trip, first, *_), end = loop.operands, loop.regions[0].block.terminator
    is_kept = list(loop.regions[0].block.arguments[1].uses) == [(end, 0)]
    return trip is not None and first is None and is_kept


def write_call(writer: FunctionWriter, operation: Operation) -> None:
    callee = writer.builder.functions[str(FunctionName(operation.attributes["callee"]))]
    arguments = ["weights", "externs", "device", *(writer.variable(value) for value in operation.inputs)]
    results = [writer.variable(result) for result in operation.results]
    writer.line(f"{', '.join(results)}{',' if len(results) == 1 else ''} = {callee}({', '.join(arguments)})")


def write_if(writer: FunctionWriter, operation: Operation) -> None:
    results = [writer.variable(result) for result in operation.results]
    for head, region in zip((f"if {writer.variable(operation.inputs[0])}:", "else:"), operation.regions, strict=True):
        writer.line(head)
        writer.write_region(region.block)
        yielded = [writer.variable(value) for value in region.block.terminator.inputs]
        writer.inside(f"{', '.join(results)} = {', '.join(yielded)}" if results else "pass")


def write_loop(writer: FunctionWriter, operation: Operation) -> None:
    trip, condition, *carried = operation.operands
    block = operation.regions[0].block
    iteration, going, *held = [writer.variable(argument) for argument in block.arguments]
    names = [writer.variable(result) for result in operation.results[: len(carried)]]
    stacked = [writer.variable(result) for result in operation.results[len(carried) :]]
    starts = [writer.variable(value) for value in carried if value is not None]
    for name in stacked:
        writer.line(f"{name} = []")
    counted = is_counted_loop(operation)
    counter = "" if counted else writer.names.fresh("round_number")
    if counted:  # no copy from the device decides
        assert trip is not None
        if held:
            writer.line(f"{', '.join(held)} = {', '.join(starts)}")
        writer.line(f"for {iteration} in torch.arange({size_of(writer, trip)}, device=device):")
    else:
        first = "True" if condition is None else writer.variable(condition)
        writer.line(f"{', '.join([going, *held])} = {', '.join([first, *starts])}")
        writer.line(f"{counter} = 0")
        limit = "" if trip is None else f" and {counter} < {size_of(writer, trip)}"
        writer.line(f"while bool({going}){limit}:")
        writer.inside(f"{iteration} = torch.tensor({counter}, device=device)")
    writer.write_region(block, operation.symbols)
    again, *rest = [writer.variable(value) for value in block.terminator.inputs]
    for name, value in zip(stacked, rest[len(carried) :], strict=True):
        writer.inside(f"{name}.append({value})")
    before, after = ([], []) if counted else ([going], [again])
    before, after = [*before, *held], [*after, *rest[: len(carried)]]
    if before:
        writer.inside(f"{', '.join(before)} = {', '.join(after)}")
    elif not stacked and not any(not each.definition.is_terminator for each in block):
        writer.inside("pass")
    if not counted:
        writer.inside(f"{counter} += 1")
    if names:
        writer.line(f"{', '.join(names)} = {', '.join(held)}")
    for name, result in zip(stacked, operation.results[len(carried) :], strict=True):
        extents = result.shape[1:] if result.type.is_ranked else ()
        sizes = [writer.dim(extent) if writer.is_bound(extent) else "0" for extent in extents]
        if result.dtype is STRING:
            module = writer.builder.module_of("strings")
            writer.line(f"{name} = {module}.stacked({name}, ({', '.join(['0', *sizes])},))")
            continue
        empty = f"torch.empty(({', '.join(['0', *sizes])},), dtype=torch.{torch_type(result.dtype)}, device=device)"
        writer.line(f"{name} = torch.stack({name}) if {name} else {empty}")


def size_of(writer: FunctionWriter, value: Value) -> str:
    """An integer of one element as Python's, which the host knows where it is constant or made of sizes."""
    maker = value.operation
    if maker is not None and maker.name == "const":
        return str(max(0, int(maker.attributes["value"].array().item())))
    if maker is not None and maker.name == "dim" and isinstance(maker.attributes["value"], (int, Expr)):
        size = writer.dim(maker.attributes["value"])
        return size if dims.less_equal(0, maker.attributes["value"]) else f"max(0, {size})"
    return f"max(0, int({writer.variable(value)}))"
