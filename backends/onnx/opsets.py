"""Requested opsets: nodes in the form of an older opset.

Rows write nodes as opset 21 has them (an operator that came later as it came, an extern as its own version has it). In
an older opset an attribute that says nothing new is left out, what was written otherwise is written so, and the rest is
rejected with the opset that it needs.

Source: onnx/docs/Changelog.md; the attributes and inputs below are all by which schemas differ from 13 on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, defs, helper, inliner, shape_inference

from irc.backends.onnx.runtime import LOWEST_OPSET, WRITTEN_OPSET
from irc.backends.onnx.schemas import find_schema, first_opset, type_text
from irc.backends.onnx.target import Target
from irc.diagnostics import Diagnostic, IrcError, Location, UnsupportedError
from irc.dtypes import I64, DType, from_onnx
from irc.types import TensorType


class NodeWriter(Protocol):
    """What rewriting a node may use of the graph that the node is in (`irc.backends.onnx.graph`)."""

    @property
    def target(self) -> Target: ...

    def node(self, op_type: str, *operands: str) -> Any:
        """Append a node; returns the name of its result."""

    def numbers(self, content: Any, dtype: DType = I64) -> str:
        """The name of a constant."""

    def content(self, name: str) -> np.ndarray[Any, Any] | None:
        """The content of a small constant, None of what is computed."""

    def type_of(self, name: str) -> TensorType | None:
        """The type of a tensor, where it is known."""


class NeedsOpset(UnsupportedError):
    """An operation that the requested opset cannot express."""


SMALL = 1 << 10  # bytes of a constant that may be a shape
ANY = object()  # an attribute that says nothing wherever the older operator may stand
REDUCE_OPERATORS = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
                    "ReduceMin", "ReduceProd", "ReduceSumSquare")  # fmt: skip
# The values with which attributes say what older operators do that lack them; None where only absence does.
NEUTRAL: dict[tuple[str, str], Any] = {
    ("Attention", "left_window_size"): -1, ("Attention", "right_window_size"): -1,
    ("AveragePool", "dilations"): 1, ("BatchNormalization", "training_mode"): 0,
    ("Cast", "saturate"): ANY, ("CastLike", "saturate"): ANY,  # of f8, which came with it
    ("Cast", "round_mode"): ANY, ("CastLike", "round_mode"): ANY,  # of f8e8m0
    ("DequantizeLinear", "block_size"): 0, ("DequantizeLinear", "output_dtype"): 0,
    ("GRU", "layout"): 0, ("LSTM", "layout"): 0, ("RNN", "layout"): 0,
    ("LpPool", "dilations"): 1, ("LpPool", "ceil_mode"): 0,
    ("QuantizeLinear", "block_size"): 0, ("QuantizeLinear", "output_dtype"): 0, ("QuantizeLinear", "precision"): 0,
    ("QuantizeLinear", "saturate"): ANY,
    ("Reshape", "allowzero"): 0, ("Resize", "antialias"): 0, ("Resize", "axes"): None,
    ("Resize", "keep_aspect_ratio_policy"): b"stretch", ("RoiAlign", "coordinate_transformation_mode"):
    b"output_half_pixel", ("ScatterElements", "reduction"): b"none", ("ScatterND", "reduction"): b"none",
    ("Shape", "start"): 0, ("Shape", "end"): None, ("Split", "num_outputs"): None,
    **{(name, "noop_with_empty_axes"): 0 for name in REDUCE_OPERATORS},
}  # fmt: skip
# Values of attributes that came later than the attributes, and the opset with which they came.
VALUES = {
    ("Pad", "mode", b"wrap"): 19, ("Resize", "coordinate_transformation_mode", b"half_pixel_symmetric"): 19,
    ("ScatterElements", "reduction", b"max"): 18, ("ScatterElements", "reduction", b"min"): 18,
    ("ScatterND", "reduction", b"max"): 18, ("ScatterND", "reduction", b"min"): 18,
}  # fmt: skip


def adapt(g: NodeWriter, node: NodeProto, written: int) -> None:
    """Make a node of the default domain, written for one opset, one of the requested opset, if that is older;
    what it needs on its way is appended to the graph. Raises `NeedsOpset`."""
    opset = g.target.newest_opset
    older, newer = find_schema(node.op_type, opset), find_schema(node.op_type, max(written, opset))
    if older is None:
        raise NeedsOpset(f"{node.op_type} needs {_first(node.op_type, opset)}")
    for attribute in node.attribute:
        needed = VALUES.get((node.op_type, attribute.name, attribute.s), 0)
        if needed > opset:
            raise NeedsOpset(f"{node.op_type} with {attribute.name} = {attribute.s.decode()} needs opset {needed}")
    if newer is None or newer.since_version == older.since_version:
        return
    if node.op_type in REWRITES:
        changed_in, rewrite = REWRITES[node.op_type]
        if opset < changed_in <= written:
            rewrite(g, node)
    if node.op_type != older.name:
        return
    for name, declared in newer.attributes.items():
        if name not in older.attributes:
            _leave_out(node, name, declared, opset)
    if len(node.input) > older.max_input or len(node.output) > older.max_output:
        inputs, outputs = len(node.input), len(node.output)
        required = _first(node.op_type, opset, lambda each: inputs <= each.max_input and outputs <= each.max_output)
        raise NeedsOpset(f"{node.op_type} with {inputs} inputs and {outputs} outputs needs {required}")


def least_opset(node: NodeProto) -> int:
    """The lowest opset, from the lowest that is chosen on, that has a node as rows write it."""
    written = find_schema(node.op_type, WRITTEN_OPSET)
    if written is None:
        return first_opset(node.op_type)
    for opset in range(LOWEST_OPSET, WRITTEN_OPSET):
        older = find_schema(node.op_type, opset)
        if older is not None and (older.since_version == written.since_version or _has(older, written, node, opset)):
            return opset
    return WRITTEN_OPSET


def _has(older: defs.OpSchema, written: defs.OpSchema, node: NodeProto, opset: int) -> bool:
    """Whether a node means the same by an older schema, element types apart."""
    defaults = {name: attribute.default_value for name, attribute in written.attributes.items()}
    added = {name: default for name, default in defaults.items() if name not in older.attributes}
    return (
        all(defaults.get(name) == attribute.default_value for name, attribute in older.attributes.items())
        and all(attribute.name not in added for attribute in node.attribute)
        and all(VALUES.get((node.op_type, attribute.name, attribute.s), 0) <= opset for attribute in node.attribute)
        and all(_is_neutral(node.op_type, name, helper.get_attribute_value(default) if default.name else None)
                for name, default in added.items())
        and len(node.input) <= older.max_input and len(node.output) <= older.max_output
    )  # fmt: skip


def _is_neutral(op_type: str, name: str, value: Any) -> bool:
    """Whether this value of an attribute, None for none, says what an operator does that lacks the attribute."""
    neutral, values = NEUTRAL.get((op_type, name)), value if isinstance(value, list) else [value]
    return value is None or neutral is ANY or all(each == neutral for each in values)


def _first(op_type: str, after: int, fits: Callable[[defs.OpSchema], bool] = lambda schema: True) -> str:
    """A description of the first opset after another one that has such an operator."""
    later = ((opset, find_schema(op_type, opset)) for opset in range(after + 1, defs.onnx_opset_version() + 1))
    needed = next((opset for opset, schema in later if schema is not None and fits(schema)), None)
    return "an older opset" if needed is None else f"opset {needed}"


def _leave_out(node: NodeProto, name: str, declared: defs.OpSchema.Attribute, opset: int) -> None:
    """Remove an attribute that an older opset lacks, if that changes nothing."""
    given = _attribute(node, name)
    value = helper.get_attribute_value(declared.default_value if given is None else given) \
        if given is not None or declared.default_value.name else None  # fmt: skip
    if not _is_neutral(node.op_type, name, value):
        text = value.decode() if isinstance(value, bytes) else value
        needed = _first(node.op_type, opset, lambda schema: name in schema.attributes)
        raise NeedsOpset(f"{node.op_type} with {name} = {text} needs {needed}")
    if given is not None:
        node.attribute.remove(given)


def check_types(model: onnx.ModelProto, opset: int) -> None:
    """Raise `backend.opset` with all nodes that have inputs of element types that the opset does not have there."""
    graph = shape_inference.infer_shapes(_outline(model)).graph
    known: dict[str, str] = {}
    waiting, nodes = [graph], list[NodeProto]()
    while waiting:
        inner = waiting.pop()
        nodes += inner.node
        values = (*inner.input, *inner.output, *inner.value_info)
        known.update((value.name, _text(value.type)) for value in values)
        known.update((tensor.name, type_text(from_onnx(tensor.data_type))) for tensor in inner.initializer)
        waiting += [attribute.g for node in inner.node for attribute in node.attribute if attribute.HasField("g")]
    problems: dict[str, Diagnostic] = {}
    for node in nodes:
        schema = None if node.domain else find_schema(node.op_type, opset)
        if schema is None:
            continue
        for position, name in enumerate(node.input):
            text = known.get(name, "")
            if text and not _takes(schema, position, text):
                needed = _first(node.op_type, opset, partial(_takes, position=position, text=text))
                what = f"{node.op_type} of {text} needs {needed}"
                problems.setdefault(what, Diagnostic("backend.opset", what, Location(name=node.name)))
    if problems:
        raise IrcError(problems.values())


def _text(type_: onnx.TypeProto) -> str:
    """What schemas call a type; nothing where it is not known, or one that no row makes."""
    kind = type_.WhichOneof("value")
    if kind == "tensor_type" and type_.tensor_type.elem_type:
        return type_text(from_onnx(type_.tensor_type.elem_type))
    if kind in ("sequence_type", "optional_type"):
        inner = _text(getattr(type_, kind).elem_type)
        return inner and f"{'seq' if kind == 'sequence_type' else 'optional'}({inner})"
    return ""


def _takes(schema: defs.OpSchema, position: int, text: str) -> bool:
    return text in schema.inputs[min(position, len(schema.inputs) - 1)].types


def _outline(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with types in place of large constants, so that it can be copied, and functions inlined."""
    graph = onnx.GraphProto(name=model.graph.name, node=model.graph.node, input=model.graph.input,
                            output=model.graph.output, value_info=model.graph.value_info)  # fmt: skip
    for tensor in model.graph.initializer:
        if tensor.ByteSize() <= SMALL:
            graph.initializer.append(tensor)
        else:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    outline = helper.make_model(graph, functions=model.functions, opset_imports=model.opset_import)
    return inliner.inline_local_functions(outline) if model.functions else outline


# -- what was written otherwise --------------------------------------------------------------------------------


def _attribute(node: NodeProto, name: str) -> AttributeProto | None:
    return next((attribute for attribute in node.attribute if attribute.name == name), None)


def _axes_as_attribute(g: NodeWriter, node: NodeProto) -> None:
    """Reductions had their axes as an attribute before 18; without any they reduced all."""
    noop = _attribute(node, "noop_with_empty_axes")
    if len(node.input) < 2 or not node.input[1]:
        return
    axes = g.content(node.input[1])
    if axes is None:
        raise NeedsOpset(f"{node.op_type} with axes that are computed needs opset 18")
    if axes.size:
        node.attribute.append(helper.make_attribute("axes", axes.reshape(-1).tolist()))
        if noop is not None:
            node.attribute.remove(noop)
    del node.input[1:]


def _shape_in_part(g: NodeWriter, node: NodeProto) -> None:
    """Shape gave all extents before 15."""
    start, end = (_attribute(node, name) for name in ("start", "end"))
    if start is None and end is None:
        return
    whole = g.node("Shape", node.input[0])
    ends = (g.numbers([0 if start is None else start.i]), g.numbers([np.iinfo(np.int64).max if end is None else end.i]))
    node.op_type = "Slice"
    del node.attribute[:], node.input[:]
    node.input.extend([whole, *ends])


def _pads_of_all_axes(g: NodeWriter, node: NodeProto) -> None:
    """Pad had no axes before 18: those that are not named are padded by nothing."""
    if len(node.input) < 4 or not node.input[3]:
        return
    axes, pads, type_ = g.content(node.input[3]), g.content(node.input[1]), g.type_of(node.input[0])
    if axes is None or pads is None or type_ is None or not type_.is_ranked:
        raise NeedsOpset("Pad with axes needs opset 18")
    whole = np.zeros((2, type_.rank), np.int64)
    whole[:, axes] = pads.reshape(2, -1)
    node.input[1] = g.numbers(whole.reshape(-1), I64)
    del node.input[3:]
    if not node.input[2]:
        del node.input[2:]


def _modes_by_older_names(g: NodeWriter, node: NodeProto) -> None:
    """What GridSample calls linear and cubic was bilinear and bicubic before 20, of images alone."""
    type_, mode = g.type_of(node.input[0]), _attribute(node, "mode")
    if type_ is None or not type_.is_ranked or type_.rank != 4:
        raise NeedsOpset("GridSample of other than four axes needs opset 20")
    if mode is not None:
        mode.s = {b"linear": b"bilinear", b"cubic": b"bicubic"}.get(mode.s, mode.s)


def _axis_as_attribute(g: NodeWriter, node: NodeProto) -> None:
    """DFT had its axis as an attribute before 20, the second axis where there was none, and no inverse of half a
    spectrum."""
    type_ = g.type_of(node.input[0])
    onesided, inverse = _attribute(node, "onesided"), _attribute(node, "inverse")
    if onesided is not None and onesided.i and inverse is not None and inverse.i:
        raise NeedsOpset("DFT that is onesided and inverse needs opset 20")
    axis = g.content(node.input[2]) if len(node.input) > 2 and node.input[2] else np.asarray(-2)
    if axis is None or type_ is None or not type_.is_ranked:
        raise NeedsOpset("DFT over an axis that is computed, or of unknown rank, needs opset 20")
    del node.input[2:]
    node.attribute.append(helper.make_attribute("axis", int(axis) % type_.rank))


def _split_equally(g: NodeWriter, node: NodeProto) -> None:
    """Before 18 the number of parts was that of outputs, and the parts were equal."""
    count, type_ = _attribute(node, "num_outputs"), g.type_of(node.input[0])
    if count is None:
        return
    axis = _attribute(node, "axis")
    extent = None if type_ is None or not type_.is_ranked else type_.dims[0 if axis is None else axis.i]
    if isinstance(extent, int) and extent % count.i == 0:
        node.attribute.remove(count)


# By operator, the opset since which it is written as now, and what older ones take.
REWRITES: dict[str, tuple[int, Callable[[NodeWriter, NodeProto], None]]] = {
    **dict.fromkeys(REDUCE_OPERATORS, (18, _axes_as_attribute)), "Shape": (15, _shape_in_part),
    "Pad": (18, _pads_of_all_axes), "DFT": (20, _axis_as_attribute), "GridSample": (20, _modes_by_older_names),
    "Split": (18, _split_equally),
}  # fmt: skip
