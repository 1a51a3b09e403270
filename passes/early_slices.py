"""Early slices: of results that are read in parts alone, these parts are computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from irc import dims
from irc.dims import Dim
from irc.disjoint_sets import DisjointSets
from irc.index_map import is_empty
from irc.ir import Block, Operation, Value
from irc.module import Module
from irc.op import Builder, is_constant
from irc.ops import reshape
from irc.pass_manager import Pass, PassContext, pays
from irc.passes._blocks import blocks
from irc.passes._parts import Part, are_disjoint, computed, cut, inside, is_whole, operand_parts, part_within, shape_of
from irc.rewrite import erase_dead

MOVEMENT = ("concat", "reshape", "transpose")  # a region of these alone stays as it is
MOST_PARTS = 8  # of one value, which are compared with each other


@dataclass
class EarlySlices(Pass):
    """Slice what an operation reads, in place of its result, where each reader of the result takes a part of it.

    Slices, splits and elements at constant positions are taken through views, pointwise operations, norms, products
    and the queries of attention, as long as no element is computed twice. So a network that reads its first token
    alone computes its last block for that token, and a product that is split has a product for each part: constant
    weights are cut when the model is compiled.

    Benefit: of DeiT-tiny, whose classifier reads one token of 197, 7 percent of all products are not computed; where
    queries, keys and values are one product, `attention_rows` needs no transposes to take them apart. A region is
    changed as a whole, where the kernels that remain and the slices take less time than before.

    Before: %0 = matmul %x, %w : f32[1, 197, 64]; %1 = layer_norm %0; %y = slice %1 : f32[1, 1, 64]
    After:  %2 = slice %x : f32[1, 1, 32]; %0 = matmul %2, %w : f32[1, 1, 64]; %y = layer_norm %0
    """

    def run(self, module: Module, context: PassContext) -> bool:
        count = 0
        for function in module.functions.values():
            for block in list(blocks(function.block)):
                demand = Demand.of(block)
                for region in demand.regions():
                    count += _rewritten(region, demand, context)
        context.count("early_slices", "cut", count)
        return count > 0


# -- what is read of each value ----------------------------------------------------------------------------------


def cut_of(operation: Operation) -> dict[Value, Part]:
    """Of a slice, a split or an element at a constant position: which part of the operand each result is."""
    if not all(value.type.is_ranked for value in (*operation.inputs, *operation.results)):
        return {}
    name, attributes = operation.name, operation.attributes
    if name == "slice" and set(attributes["steps"]) <= {1}:
        return {operation.result: part_within(operation.inputs[0].shape, attributes["starts"], attributes["stops"])}
    if name == "split":
        axis, parts = attributes["axis"], dict[Value, Part]()
        shape, start = operation.inputs[0].shape, 0
        for result, size in zip(operation.results, attributes["sizes"], strict=True):
            parts[result] = _along(axis, start, start + size, shape)
            start = start + size
        return parts
    if name == "gather":
        x, indices = operation.inputs
        position = _position(indices, x.shape[attributes["axis"]]) if attributes.get("bounds") is None else None
        if position is not None:
            return {operation.result: _along(attributes["axis"], position, position + 1, x.shape)}
    return {}


def _along(axis: int, start: Dim, stop: Dim, shape: Sequence[Dim]) -> Part:
    axis %= len(shape)
    starts: list[Dim] = [0] * len(shape)
    stops = list(shape)
    starts[axis], stops[axis] = start, stop
    return part_within(shape, starts, stops)


def _in_source(operation: Operation, part: Part) -> Part:
    """A part of the result of a cut, with the axis that a gather at a scalar position has taken away."""
    if operation.name != "gather" or operation.inputs[1].rank:
        return part
    axis = operation.attributes["axis"] % operation.inputs[0].rank
    return (*part[:axis], None, *part[axis:])


def _position(indices: Value, extent: Dim) -> Dim | None:
    """The one constant position that a gather reads, within the extent."""
    maker = indices.operation
    if maker is None or not is_constant(indices) or indices.rank > 1 or indices.type.elements != 1:
        return None
    index = int(maker.attributes["value"].array().reshape(-1)[0])
    position = index if index >= 0 else extent + index
    return position if dims.less(position, extent) is True and dims.less(-1, position) is True else None


@dataclass
class Demand:
    """Which parts of the results of a block's operations are read: those of which parts alone are, in `parts`."""

    block: Block
    parts: dict[Value, dict[Part, None]] = field(default_factory=dict)
    cuts: dict[Operation, dict[Value, Part]] = field(default_factory=dict)
    narrowed: dict[Operation, dict[Part, list[Part]]] = field(default_factory=dict)

    @classmethod
    def of(cls, block: Block) -> Demand:
        demand = cls(block)
        for operation in reversed(list(block)):
            demand._visit(operation)
        return demand

    def _visit(self, operation: Operation) -> None:
        for result in operation.results:
            if any(user.block is not self.block for user in result.users()):
                self.parts[result] = {(): None}
        cuts = cut_of(operation)
        if cuts:
            self.cuts[operation] = cuts
            for result, selected in cuts.items():
                for part in self.read(result) if result.uses else ():
                    self._require(operation.inputs[0], inside(_in_source(operation, part), selected))
            return
        parts = self._operand_parts(operation)
        if parts:
            self.narrowed[operation] = parts
        for listed in parts.values():
            for operand, part in zip(operation.operands, listed, strict=True):
                if operand is not None:
                    self._require(operand, part)
        if not parts:
            for operand in operation.inputs:
                self.parts[operand] = {(): None}

    def read(self, value: Value) -> list[Part]:
        """The parts of a value that are read; the whole of it where readers need all, or parts that overlap."""
        whole: Part = (None,) * value.rank
        parts = list(self.parts.get(value, {(): None}))
        if len(parts) > MOST_PARTS or () in parts or any(map(is_whole, parts)):
            return [whole]
        overlap = any(not are_disjoint(one, other) for index, one in enumerate(parts) for other in parts[:index])
        return [whole] if overlap else parts

    def _require(self, value: Value, part: Part) -> None:
        self.parts.setdefault(value, {})[part] = None

    def _operand_parts(self, operation: Operation) -> dict[Part, list[Part]]:
        """For each part of the result that is read, those of the operands; nothing where all of the result is."""
        if len(operation.results) != 1 or not operation.result.uses or not operation.result.type.is_ranked:
            return {}
        parts = self.read(operation.result)
        if is_whole(parts[0]) or is_empty(operation.result.shape):
            return {}
        needed = {part: operand_parts(operation, part) for part in parts}
        known = {part: operands for part, operands in needed.items() if operands is not None}
        return known if len(known) == len(needed) else {}

    def regions(self) -> list[list[Operation]]:
        """Operations that compute parts alone, with the cuts that read them, connected by their values."""
        sets, members = DisjointSets[Operation](), dict[Operation, None]()
        for operation in self.narrowed:
            members[operation] = None
            for user in operation.result.users():
                members[user] = None
                sets.join(user, operation)
            for maker in (value.operation for value in operation.inputs):
                if maker in self.cuts and maker is not None:
                    members[maker] = None
                    sets.join(maker, operation)
        for operation in reversed(self.cuts):  # in program order: cuts of cuts, which would keep the first cut
            maker = operation.inputs[0].operation
            if maker in self.cuts and maker in members:
                members[operation] = None
                sets.join(operation, maker)
        regions: dict[Operation, list[Operation]] = {}
        for operation in sorted(members, key=lambda each: each.order_label):
            regions.setdefault(sets.find(operation), []).append(operation)
        return list(regions.values())


# -- rewriting ---------------------------------------------------------------------------------------------------


def _rewritten(region: list[Operation], demand: Demand, context: PassContext) -> int:
    """Build the parts of a region's values, and keep them where they pay; returns how many operations compute less."""
    parts, replacements = _Parts(), list[tuple[Value, Value]]()
    for operation in region:
        with Builder.before_operation(operation, operation.location.by("early_slices")):
            for part, operands in demand.narrowed.get(operation, {}).items():
                values = [None if value is None else parts.of(value, each)
                          for value, each in zip(operation.operands, operands, strict=True)]  # fmt: skip
                parts.add(operation.result, part, computed(operation, part, values))
            for result, selected in demand.cuts.get(operation, {}).items():
                replacements += _cut_again(operation, result, selected, demand, parts)
    narrowed = [each for each in region if each in demand.narrowed and each.name not in MOVEMENT]
    if not narrowed or not pays(context, "early_slices", region, parts.built):
        erase_dead(reversed(parts.built))
        return 0
    for result, value in replacements:
        result.replace_uses(value)
    erase_dead(reversed(region))
    return len(narrowed)


def _cut_again(operation: Operation, result: Value, selected: Part, demand: Demand, parts: _Parts
               ) -> Iterator[tuple[Value, Value]]:  # fmt: skip
    """What replaces the result of a cut: a part of its operand, as the parts of the result are."""
    source = operation.inputs[0]
    for part in demand.read(result) if result.uses else ():
        needed = inside(_in_source(operation, part), selected)
        if is_whole(part) and (source, needed) not in parts.values:
            continue
        value = parts.of(source, needed)
        if value.rank > result.rank:
            value = parts.add(result, part, reshape(value, shape=shape_of(part, result.shape)))
        parts.values[result, part] = value
        if is_whole(part):
            yield result, value


class _Parts:
    """Values that are parts of others, each built once."""

    def __init__(self) -> None:
        self.values: dict[tuple[Value, Part], Value] = {}
        self.built: list[Operation] = []

    def add(self, value: Value, part: Part, new: Value) -> Value:
        """Note what has been built for a part."""
        if new.operation is not None:
            self.built.append(new.operation)
        self.values[value, part] = new
        return new

    def of(self, value: Value, part: Part) -> Value:
        """The part of a value, by a slice where it has not been built."""
        if is_whole(part):
            return value
        known = self.values.get((value, part))
        return known if known is not None else self.add(value, part, cut(value, part))
