"""Copies of operations, blocks and functions."""

from __future__ import annotations

from collections.abc import Mapping

from irc import dims
from irc.dims import Dim, Symbol
from irc.ir import Attribute, Block, Function, Operation, Region, Value, with_dims


class Cloner:
    """Copies operations, mapping values (`values`) and symbols (`symbols`) as it goes; what is not mapped is shared."""

    def __init__(self, values: Mapping[Value, Value] | None = None,
                 symbols: Mapping[dims.Atom, Dim] | None = None) -> None:
        self.values: dict[Value, Value] = dict(values or {})
        self.symbols: dict[dims.Atom, Dim] = dict(symbols or {})

    def symbol(self, symbol: Symbol) -> Symbol:
        """What stands for a symbol where it is made, which must be a symbol."""
        (copy,) = dims.free_symbols(self.symbols.get(symbol, symbol.expr))
        return copy

    def dim(self, dim: dims.Expr | Symbol) -> Attribute:
        return self.symbol(dim) if isinstance(dim, Symbol) else dims.substitute(dim, self.symbols)

    def block(self, block: Block, copy: Block) -> Block:
        """Fill the new block with copies of another one's arguments and operations."""
        for argument in block.arguments:
            type_ = argument.type.substitute(self.symbols)
            self.values[argument] = copy.add_argument(type_, argument.name)
        for operation in block:
            copy.append(self.operation(operation))
        return copy

    def operation(self, operation: Operation) -> Operation:
        """A detached copy."""
        copy = Operation(
            operation.definition,
            [None if operand is None else self.values.get(operand, operand) for operand in operation.operands],
            with_dims(operation.attributes, self.dim) if self.symbols else operation.attributes,
            [result.type.substitute(self.symbols) for result in operation.results],
            [Region(self.block(region.block, Block())) for region in operation.regions],
            names=[result.name for result in operation.results],
            symbols=map(self.symbol, operation.symbols),
            location=operation.location,
        )
        self.values.update(zip(operation.results, copy.results, strict=True))
        return copy


def cloned(function: Function, sizes: Mapping[str, int]) -> Function:
    """A copy with symbols of its own, or with integers for those that `sizes` names."""
    copy = Function(function.name, location=function.location)
    cloner = Cloner()
    for name, symbol in (*function.symbols.items(), *function.defined_symbols.items()):
        defined = name in function.defined_symbols
        if name in sizes and not defined:
            cloner.symbols[symbol] = sizes[name]
        else:
            cloner.symbols[symbol] = copy.symbol(name, symbol.low, symbol.high, symbol.multiple, defined=defined).expr
    cloner.block(function.block, copy.block)
    copy.result_names = function.result_names
    copy.updates = {position: cloner.values[argument] for position, argument in function.updates.items()}
    copy.defaults = {cloner.values[argument]: tensor for argument, tensor in function.defaults.items()}
    return copy
