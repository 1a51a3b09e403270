"""Control flow of PyTorch: `torch.cond`, `while_loop`, `scan` and `map`, whose branches and bodies are graphs.

A reader takes the importer, the node and its arguments, among them GraphModules. What a graph of theirs takes from
outside, parameters too, it is given as operands; regions of irc simply read it. Source: torch/_higher_order_ops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from irc import ops
from irc.dims import Expr, Symbol
from irc.dtypes import BOOL, I64
from irc.frontends.regions import at_block, joined_type, stacked_type
from irc.frontends.torch.attention import read_flex_attention
from irc.frontends.torch.graph_importer import GraphImporter
from irc.frontends.torch.pointwise import as_bool
from irc.frontends.torch.reading import UNSUPPORTED, converted, scalar, unsupported
from irc.ir import Block, Region, Value
from irc.op import yield_
from irc.types import TensorType


def read_cond(importer: GraphImporter, node: torch.fx.Node, condition: Any, then: Any, otherwise: Any,
              operands: Sequence[Any] = ()) -> Any:
    """`if`; extents that the branches give differently, or that only one of them knows, are new symbols."""
    if isinstance(condition, bool):
        return importer.import_graph(then if condition else otherwise, operands)
    defined_before = set(importer.function.defined_symbols.values())
    regions, is_read = [], True
    for graph in (then, otherwise):
        with at_block(importer, Block()) as block:
            given = importer.import_graph(graph, operands)
            if UNSUPPORTED in given:
                is_read = False  # the other branch is read as well, for its errors
            else:
                importer.builder.create(yield_, as_values(given))
        regions.append(Region(block))
    if not is_read:
        return UNSUPPORTED
    sides = [region.block.terminator.inputs for region in regions]
    symbols: list[Symbol] = []
    types = [joined_type(importer, one, other, defined_before, symbols) for one, other in zip(*sides, strict=True)]
    values = importer.builder.create(ops.if_, [scalar(as_bool(condition))], types=types, regions=regions,
                                     symbols=symbols, names=[node.name] * len(types)).results
    return results(importer, node, values)


def read_while_loop(importer: GraphImporter, node: torch.fx.Node, condition: Any, body: Any, carried: Sequence[Any],
                    captured: Sequence[Any] = ()) -> Any:
    """`loop`, whose condition is evaluated before the first iteration and at the end of each."""
    initial, going = as_values(carried), importer.import_graph(condition, [*carried, *captured])[0]
    with at_block(importer, Block()) as block:
        _, _, *states = loop_arguments(block, initial)
        yielded = importer.import_graph(body, [*states, *captured])
        if UNSUPPORTED in yielded or going is UNSUPPORTED:
            return UNSUPPORTED
        given = as_values(yielded)
        again = importer.import_graph(condition, [*given, *captured])[0]
        importer.builder.create(yield_, [scalar(as_bool(again)), *given])
    return looped(importer, node, block, [None, scalar(as_bool(going))], initial, [], [])


def read_scan(importer: GraphImporter, node: torch.fx.Node, body: Any, initial: Sequence[Any], scanned: Sequence[Value],
              captured: Sequence[Any] = ()) -> Any:
    """`loop`, whose body takes one slice of each scanned operand and gives one of each stacked result."""
    rounds, defined_before = scanned[0].shape[0], set(importer.function.defined_symbols.values())
    carried = as_values(initial)
    with at_block(importer, Block()) as block:
        number, going, *states = loop_arguments(block, carried)
        slices = [ops.gather(value, number, axis=0, bounds="promised") for value in scanned]
        yielded = importer.import_graph(body, [*states, *slices, *captured])
        if UNSUPPORTED in yielded:
            return UNSUPPORTED
        given = as_values(yielded)
        importer.builder.create(yield_, [going, *given])
    symbols: list[Symbol] = []
    stacked = [stacked_type(importer, value, rounds, defined_before, symbols) for value in given[len(carried) :]]
    return looped(importer, node, block, [ops.dim(value=rounds), None], carried, stacked, symbols)


def read_map(importer: GraphImporter, node: torch.fx.Node, body: Any, mapped: Sequence[Value],
             captured: Sequence[Any] = ()) -> Any:
    return read_scan(importer, node, body, (), mapped, captured)


READERS: dict[str, Callable[..., Any]] = {
    "cond": read_cond, "while_loop": read_while_loop, "scan": read_scan, "map_impl": read_map,
    "flex_attention": read_flex_attention}


def reader(target: Any) -> Callable[..., Any] | None:
    """The reader of a higher-order operation, or None."""
    is_higher = isinstance(target, torch._ops.HigherOrderOperator)
    return READERS.get(target.name()) if is_higher else None


def loop_arguments(block: Block, initial: Sequence[Value]) -> list[Value]:
    """The number of the iteration, the condition, and the carried values."""
    number, going = block.add_argument(TensorType(I64, ()), "round"), block.add_argument(TensorType(BOOL, ()), "going")
    return [number, going, *(block.add_argument(value.type, value.name) for value in initial)]


def looped(importer: GraphImporter, node: torch.fx.Node, block: Block, bounds: list[Value | None], initial: list[Value],
           stacked: list[TensorType], symbols: list[Symbol]) -> Any:  # fmt: skip
    """The results of a `loop` with this body: what it carries, which keeps its types, and what it stacks."""
    for before, after in zip(block.arguments[2:], block.terminator.inputs[1:], strict=False):  # stacked ones follow
        if before.type != after.type:
            unsupported(f"it carries {before.type}, which becomes {after.type}")
    types = [*(value.type for value in initial), *stacked]
    values = importer.builder.create(ops.loop, [*bounds, *initial], types=types, regions=[Region(block)],
                                     symbols=symbols, names=[node.name] * len(types)).results
    return results(importer, node, values)


def results(importer: GraphImporter, node: torch.fx.Node, values: Sequence[Value]) -> list[Any]:
    """What the node gives: values for tensors, dims for integers."""
    pairs = zip(node.meta["val"], values, strict=True)
    return [importer.number(example, value, carried=True) for example, value in pairs]


def as_values(given: Sequence[Any]) -> list[Value]:
    """What is carried or yielded, integers as scalars."""
    for each in given:
        if not isinstance(each, (Value, int, Expr)):
            unsupported("it gives more than tensors and integers")
    return [each if isinstance(each, Value) else converted(each, I64) for each in given]
