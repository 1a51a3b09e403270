"""Symbols and conditions in the host program: sizes that tensors hold, declared shapes, and assertions."""

from __future__ import annotations

from irc import dims
from irc.backends.triton.function_writer import FunctionWriter
from irc.backends.triton.text import identifier, quoted
from irc.ir import Operation


def write_bind(writer: FunctionWriter, operation: Operation) -> None:
    symbol = operation.attributes["symbol"]
    name = writer.symbols[symbol] = writer.names.fresh(identifier(symbol.name), "size")
    size = f"int({writer.variable(operation.inputs[0])})"
    writer.line(f"{name} = check_dim({quoted(symbol.name)}, {size}, {symbol.low}, {symbol.high}, {symbol.multiple})")


def write_refine(writer: FunctionWriter, operation: Operation) -> None:
    result = operation.result
    if not result.type.is_ranked:
        writer.values[result] = writer.variable(operation.inputs[0])
        return
    known = ["None" if set(dims.free_symbols(d)) & set(operation.symbols) else writer.dim(d) for d in result.shape]
    shape = f"({', '.join(known)}{',' if len(known) == 1 else ''})"
    writer.line(f"{writer.variable(result)} = refine({writer.variable(operation.inputs[0])}, {shape})")


def write_assert(writer: FunctionWriter, operation: Operation) -> None:
    writer.line(f"check({writer.variable(operation.inputs[0])}, {quoted(operation.attributes['message'])})")


def write_assume(writer: FunctionWriter, operation: Operation) -> None:
    """A promise needs no code."""


def write_trap(writer: FunctionWriter, operation: Operation) -> None:
    writer.line(f"check(False, {quoted(operation.attributes['message'])})")
    for result in operation.results:
        writer.line(f"{writer.variable(result)} = None")
