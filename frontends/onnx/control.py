"""If and Loop, whose branches and bodies are graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from irc import dims, ops
from irc.diagnostics import IrcError, fail
from irc.dims import Symbol
from irc.dtypes import BOOL, I64, limits
from irc.frontends.onnx import foreign
from irc.frontends.onnx.graph_importer import GraphImporter
from irc.frontends.onnx.scope import UNSUPPORTED, Imported, Scope, TensorSequence
from irc.frontends.onnx.structure import label
from irc.frontends.regions import at_block, joined_type, stacked_type
from irc.ir import Block, Region, Value
from irc.op import literal, yield_
from irc.ops.rules import replaced
from irc.types import TensorType

if TYPE_CHECKING:
    import onnx



def read_if(importer: GraphImporter, node: onnx.NodeProto, path: tuple[str, ...], scope: Scope,
            operands: Sequence[Any]) -> Sequence[Imported]:
    """One branch where the condition is known; else `if`, or RanksDiffer."""
    graphs = {name: graph_of(importer, node, name) for name in ("then_branch", "else_branch")}
    condition = scalar(importer, node, operands, 0, BOOL)
    known = importer.analysis.elements(condition)
    if known is not None and isinstance(known.item(), bool):
        name = "then_branch" if known.item() else "else_branch"
        return importer.import_graph(graphs[name], inside(path, name), Scope(scope))
    defined_before = set(importer.function.defined_symbols.values())
    sides = []
    for name, graph in graphs.items():
        with at_block(importer, Block()) as block:
            sides.append((block, importer.import_graph(graph, inside(path, name), Scope(scope))))
    if len(sides[0][1]) != len(sides[1][1]):
        raise fail("onnx.invalid", f"the branches of {label(node)} differ in their number of outputs",
                   at=importer.structure.at(node), expected=f"{len(node.output)} outputs")
    return joined(importer, node, condition, sides, defined_before)


Side = tuple[Block, Sequence[Imported]]  # where a branch was read, and what it gives


class RanksDiffer(Exception):
    """The branches of an If give values of different ranks, which have no type in common."""

    def __init__(self, node: onnx.NodeProto, condition: Value, sides: Sequence[Side],
                 defined_before: set[Symbol]) -> None:  # fmt: skip
        super().__init__(label(node))
        self.node, self.condition, self.sides, self.defined_before = node, condition, sides, defined_before


def joined(importer: GraphImporter, node: onnx.NodeProto, condition: Value, sides: Sequence[Side],
           defined_before: set[Symbol], is_last: bool = False) -> Sequence[Imported]:
    """The results of an `if` over what two branches give; with `is_last` some may differ in rank, and have none."""
    pairs = list(zip(*(values for _, values in sides), strict=True))
    for index, (block, _) in enumerate(sides):
        with at_block(importer, block):
            pairs = [replaced(pair, index, foreign.whole(importer, pair[index])) for pair in pairs]
    present = [(one, other) for one, other in pairs if isinstance(one, Value) and isinstance(other, Value)]
    for one, other in present:
        if one.dtype is not other.dtype:
            raise fail("onnx.invalid", f"the branches of {label(node)} give {one.type} and {other.type}",
                       at=importer.structure.at(node))
        if not is_last and one.dtype.kind != "opaque" and (
            one.type.shape is None or other.type.shape is None or one.rank != other.rank
        ):
            raise RanksDiffer(node, condition, sides, defined_before)
    if len(present) < len(pairs):
        if any(value is None for pair in pairs for value in pair):
            unsupported(node, importer, "an optional is there or not as the data says")
        return [UNSUPPORTED] * len(pairs)
    types: list[TensorType] = []
    symbols: list[Symbol] = []
    for one, other in present:
        if one.type.shape is None or other.type.shape is None or one.rank != other.rank:
            types.append(TensorType(one.dtype, None))
        else:
            types.append(joined_type(importer, one, other, defined_before, symbols))
    for index, (block, _) in enumerate(sides):
        with at_block(importer, block):
            importer.builder.create(yield_, [pair[index] for pair in present])
    return importer.builder.create(ops.if_, [condition], types=types, symbols=symbols,
                                   regions=[Region(block) for block, _ in sides]).results


def continue_in_each(importer: GraphImporter, differing: RanksDiffer, scope: Scope,
                     rest: Callable[[Scope], list[Imported]]) -> list[Imported]:
    """What a graph gives whose nodes after an If are read by `rest` into each of its branches.

    A branch that the rest provably cannot follow, since it has no types there, is a path that no run takes: the other
    one stays, after an assertion that it is meant.
    """
    node, sides, errors = differing.node, [], []
    for block, values in differing.sides:
        inner, noted = Scope(scope), len(importer.unsupported)
        inner.values.update(zip(filter(None, node.output), values, strict=True))
        try:
            with at_block(importer, block):
                sides.append((block, rest(inner)))
        except IrcError as error:
            if not error.code.startswith("type."):
                raise
            errors.append(error)
            forget(importer, block, noted)
    if len(errors) == 2:
        raise errors[0]
    if not errors:
        return list(joined(importer, node, differing.condition, sides, differing.defined_before, is_last=True))
    ((block, results),) = sides
    is_then = block is differing.sides[0][0]
    meant = differing.condition if is_then else ops.bitwise_not(differing.condition)
    ops.assert_(meant, message=f"{label(node)}: the {'else' if is_then else 'then'} branch does not fit what follows")
    for operation in list(block):
        importer.builder.block.append(block.remove(operation))
    return list(results)


def read_loop(importer: GraphImporter, node: onnx.NodeProto, path: tuple[str, ...], scope: Scope,
              operands: Sequence[Any]) -> Sequence[Imported]:
    """`loop`; extents that change between iterations are symbols, bound in each."""
    body = graph_of(importer, node, "body")
    initial: list[Any] = [foreign.whole(importer, operand) for operand in operands[2:]]
    at = importer.structure.at(node)
    if len(body.input) != len(initial) + 2 or len(body.output) < len(initial) + 1 or None in initial:
        raise fail("onnx.invalid", f"the body of {label(node)} does not fit what it carries", at=at)
    forever = literal(limits(I64).largest, I64) if len(operands) < 1 or operands[0] is None else None
    trips = forever or scalar(importer, node, operands, 0, I64)
    always = literal(True, BOOL) if len(operands) < 2 or operands[1] is None else None
    condition = always or scalar(importer, node, operands, 1, BOOL)
    defined_before = set(importer.function.defined_symbols.values())
    changing: dict[tuple[int, int], Symbol] = {}  # by carried value and axis
    while True:
        noted, known = len(importer.unsupported), len(changing)
        carried_types = [with_symbols(value.type, index, changing) for index, value in enumerate(initial)]
        with at_block(importer, Block()) as block:
            inner = Scope(scope)
            types = [TensorType(I64, ()), TensorType(BOOL, ()), *carried_types]
            for formal, type_ in zip(body.input, types, strict=True):
                inner.values[formal.name] = block.add_argument(type_, formal.name)
            values = [foreign.whole(importer, value)
                      for value in importer.import_graph(body, inside(path, "body"), inner)]
        present = [value for value in values if isinstance(value, Value)]
        if len(present) < len(values):
            missing = any(value is None for value in values)
            return unsupported(node, importer if missing else None, "an optional is there or not as the data says")
        carried, scanned = present[1 : len(initial) + 1], present[len(initial) + 1 :]
        if any(value.dtype.kind == "opaque" for value in scanned):
            return unsupported(node, importer, "it stacks sequences")
        for index, (before, after) in enumerate(zip(carried_types, carried, strict=True)):
            axes = changed_axes(before, after.type)
            if axes is None:
                return unsupported(node, importer, f"it carries {before}, which becomes {after.type}")
            for axis in axes:
                if (index, axis) not in changing:
                    changing[index, axis] = importer.function.fresh_symbol("e")
        if len(changing) == known:
            break
        forget(importer, block, noted)
    with at_block(importer, block):
        present[0] = scalar(importer, node, present, 0, BOOL)
        importer.builder.create(yield_, present)
    behind = {place: importer.function.fresh_symbol("e") for place in changing}
    symbols = [*changing.values(), *behind.values()]
    count = importer.analysis.elements(trips)
    steps = count.item() if count is not None and runs_through(importer, condition, present[0], block) else None
    result_types = [with_symbols(value.type, index, behind) for index, value in enumerate(initial)]
    result_types += [stacked_type(importer, value, steps, defined_before, symbols) for value in scanned]
    return importer.builder.create(ops.loop, [trips, condition, *initial], types=result_types, symbols=symbols,
                                   regions=[Region(block)]).results


def with_symbols(type_: TensorType, index: int, changing: Mapping[tuple[int, int], Symbol]) -> TensorType:
    """The type of a carried value in the body, or after the loop: the extents that change are symbols."""
    if type_.shape is None:
        return type_
    extents = [changing[index, axis].expr if (index, axis) in changing else dim for axis, dim in enumerate(type_.shape)]
    return TensorType(type_.dtype, extents)


def forget(importer: GraphImporter, block: Block, noted: int) -> None:
    """Undo what was read into a block, and what was noted since there were so many notes."""
    del importer.unsupported[noted:]
    for operation in reversed(list(block)):
        operation.erase()


def changed_axes(before: TensorType, after: TensorType) -> list[int] | None:
    """The axes whose extent an iteration changes; None where it changes more than extents."""
    if before.shape is None or after.shape is None:
        return [] if before == after else None
    if before.dtype is not after.dtype or len(before.shape) != len(after.shape):
        return None
    return [axis for axis, (a, b) in enumerate(zip(before.shape, after.shape, strict=True)) if not dims.equal(a, b)]


def read_squeeze(importer: GraphImporter, node: onnx.NodeProto, path: tuple[str, ...], scope: Scope,
                 operands: Sequence[Any]) -> Sequence[Imported]:
    """By its row; without axes, where one extent may be 1 or not, `if` decides, and the result has no rank."""
    x, *axes = operands
    unknown = [axis for axis, dim in enumerate(x.type.shape or ()) if dims.equal(dim, 1) is None]
    if axes or node.attribute or len(unknown) != 1:
        return importer.read_row(node, operands)
    (place,) = unknown
    condition = ops.equal(ops.dim(value=x.shape[place]), literal(1, I64))
    sides: list[Side] = []
    for is_one in (True, False):
        with at_block(importer, Block()) as block:
            shape = tuple(1 if is_one and axis == place else dim for axis, dim in enumerate(x.shape))
            kept = tuple(dim for dim in shape if dims.equal(dim, 1) is not True)
            if is_one:
                promised = importer.builder.create(ops.refine, [x], types=[x.type.with_shape(shape)]).result
            sides.append((block, [ops.reshape(promised if is_one else x, shape=kept)]))
    return joined(importer, node, condition, sides, set(importer.function.defined_symbols.values()), is_last=True)


def read_sequence_map(importer: GraphImporter, node: onnx.NodeProto, path: tuple[str, ...], scope: Scope,
                      operands: Sequence[Any]) -> Sequence[Imported]:
    """The body, once for each element of the first sequence; by ONNX's own definition where the length is not known."""
    if any(isinstance(each, Value) and each.dtype.kind == "opaque" for each in operands):
        inner = Scope(scope)
        operands = [foreign.whole(importer, operand) for operand in operands]
        function = foreign.definition(importer, node, operands)
        inner.values.update(zip(function.input, operands, strict=True))
        for step in function.node:
            if step.op_type == "Loop":
                step.input[1] = ""  # a condition that is always true
            if step.op_type != "Constant":
                importer.import_node(step, path, inner)
        return [inner.find(name) for name in function.output]
    body = graph_of(importer, node, "body")
    first = operands[0]
    lengths = {len(each.values) for each in operands if isinstance(each, TensorSequence)}
    if not isinstance(first, TensorSequence) or len(lengths) > 1 or len(body.input) != len(operands):
        raise fail("onnx.invalid", f"the body of {label(node)} does not fit its inputs", at=importer.structure.at(node))
    rounds: list[list[Imported]] = []
    for index in range(len(first.values)):
        inner = Scope(scope)
        for formal, each in zip(body.input, operands, strict=True):
            inner.values[formal.name] = each.values[index] if isinstance(each, TensorSequence) else each
        rounds.append(importer.import_graph(body, inside(path, "body"), inner))
    columns = list(zip(*rounds, strict=True)) or [()] * len(node.output)
    if not all(isinstance(value, Value) for column in columns for value in column):
        return unsupported(node)
    return [TensorSequence(column, column[0].dtype if column else first.dtype) for column in columns]


READERS: dict[str, Callable[..., Sequence[Any]]] = {
    "If": read_if, "Loop": read_loop, "Squeeze": read_squeeze, "SequenceMap": read_sequence_map}


def graph_of(importer: GraphImporter, node: onnx.NodeProto, name: str) -> onnx.GraphProto:
    """The graph in an attribute."""
    for attribute in node.attribute:
        if attribute.name == name and attribute.HasField("g"):
            return attribute.g
    raise fail("onnx.invalid", f"{node.op_type} has no graph `{name}`", at=importer.structure.at(node))


def inside(path: tuple[str, ...], attribute: str) -> tuple[str, ...]:
    """The path of a subgraph, as in OnnxConstant.scope."""
    return (*path[:-1], f"{path[-1]}.{attribute}")


def unsupported(node: onnx.NodeProto, importer: GraphImporter | None = None, reason: str = "") -> Sequence[Imported]:
    """Note that irc cannot read the node; without a reason, something inside it was already noted."""
    if importer is not None:
        importer.unsupported.append((f"ai.onnx {node.op_type}", label(node), reason))
    return [UNSUPPORTED] * len(node.output)


def scalar(importer: GraphImporter, node: onnx.NodeProto, operands: Sequence[Any], index: int, dtype: Any) -> Value:
    """An operand that is a scalar, or a vector of one element, as a scalar."""
    value = operands[index] if index < len(operands) else None
    if value is None or value.dtype is not dtype or value.type.shape not in ((), (1,)):
        actual = "missing" if value is None else f"{value.type}"
        raise fail("onnx.invalid", f"{node.op_type} {label(node)}: operand {index} is {actual}",
                   at=importer.structure.at(node), expected=f"{dtype}[]")
    return value if not value.shape else ops.reshape(value, shape=())


def runs_through(importer: GraphImporter, start: Value, again: Value, block: Block) -> bool:
    """Whether a loop never ends before its trip count: its condition is true, and stays true."""
    def is_true(value: Value) -> bool:
        elements = importer.analysis.elements(value)
        return elements is not None and elements.item() is True

    return is_true(start) and (again is block.arguments[1] or is_true(again))
