"""Scan: a loop that takes one slice of its inputs in each iteration, and stacks its results. Source: ONNX Scan, opset
9."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from irc import ops
from irc.diagnostics import fail
from irc.dtypes import BOOL, I64
from irc.frontends.onnx.control import changed_axes, graph_of, inside, unsupported
from irc.frontends.onnx.graph_importer import GraphImporter
from irc.frontends.onnx.scope import Imported, Scope
from irc.frontends.onnx.structure import label
from irc.frontends.regions import at_block, stacked_type
from irc.ir import Block, Region, Value
from irc.op import literal, yield_
from irc.ops.rules import normalize_axis
from irc.types import TensorType

if TYPE_CHECKING:
    import onnx

    from irc.dims import Symbol


def read_scan(importer: GraphImporter, node: onnx.NodeProto, path: tuple[str, ...], scope: Scope,
              operands: Sequence[Any]) -> Sequence[Imported]:
    """`loop`, whose body takes one slice of each scanned input; the slices that it gives are stacked."""
    if importer.opsets.get("", 0) < 9:
        return unsupported(node, importer, "before opset 9 it has a batch axis")
    body = graph_of(importer, node, "body")
    attributes = {each.name: importer.attribute(each, node)[1] for each in node.attribute if each.name != "body"}
    scanned_count = attributes.get("num_scan_inputs", 0)
    if not 0 < scanned_count <= len(operands):
        raise fail("onnx.invalid", f"{label(node)} scans {scanned_count} of {len(operands)} inputs",
                   at=importer.structure.at(node))
    states, scanned = list(operands[: len(operands) - scanned_count]), list(operands[len(operands) - scanned_count :])
    results = len(body.output) - len(states)
    if not scanned or None in operands or len(body.input) != len(operands) or results < 0:
        raise fail("onnx.invalid", f"the body of {label(node)} does not fit its inputs", at=importer.structure.at(node))
    if not all(isinstance(value, Value) and value.type.is_ranked for value in operands):
        return unsupported(node, importer, "the rank of an input is not known")
    axes = [normalize_axis(axis, value.rank)
            for axis, value in zip(listed(attributes, "scan_input_axes", scanned_count), scanned, strict=True)]
    rounds = scanned[0].shape[axes[0]]
    defined_before = set(importer.function.defined_symbols.values())
    with at_block(importer, Block()) as block:
        inner = Scope(scope)
        number = block.add_argument(TensorType(I64, ()), "round")
        going = block.add_argument(TensorType(BOOL, ()), "going")
        for formal, value in zip(body.input, states, strict=False):
            inner.values[formal.name] = block.add_argument(value.type, formal.name)
        last = ops.sub(ops.dim(value=rounds), literal(1, I64))
        backwards = listed(attributes, "scan_input_directions", scanned_count)
        for formal, value, axis, reverse in zip(body.input[len(states) :], scanned, axes, backwards, strict=True):
            place = ops.sub(last, number) if reverse else number
            inner.values[formal.name] = ops.gather(value, place, axis=axis, bounds="promised")
        values = importer.import_graph(body, inside(path, "body"), inner)
        present = [value for value in values if isinstance(value, Value)]
        if len(present) < len(values):
            return unsupported(node)
        importer.builder.create(yield_, [going, *present])
    for before, after in zip(states, present, strict=False):
        if changed_axes(before.type, after.type) != []:
            return unsupported(node, importer, f"its state {before.type} becomes {after.type}")
    symbols: list[Symbol] = []
    types = [value.type for value in states]
    types += [stacked_type(importer, value, rounds, defined_before, symbols) for value in present[len(states) :]]
    computed = importer.builder.create(ops.loop, [ops.dim(value=rounds), None, *states], types=types, symbols=symbols,
                                       regions=[Region(block)]).results
    stacked = []
    outputs = zip(computed[len(states) :], listed(attributes, "scan_output_axes", results),
                  listed(attributes, "scan_output_directions", results), strict=True)
    for value, axis, reverse in outputs:
        axis, ordered = normalize_axis(axis, value.rank), ops.reverse(value, axes=(0,)) if reverse else value
        order = [*range(1, axis + 1), 0, *range(axis + 1, value.rank)]
        stacked.append(ops.transpose(ordered, permutation=tuple(order)) if axis else ordered)
    return [*computed[: len(states)], *stacked]


def listed(attributes: dict[str, Any], name: str, count: int) -> Sequence[int]:
    """An attribute with a number for each input or output; 0 where it is left out."""
    return attributes.get(name) or (0,) * count
