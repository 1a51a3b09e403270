"""Operators without a row: kept as `extern` operations, typed by ONNX's own inference for that one node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import shape_inference

from irc import dims
from irc.diagnostics import IrcError, fail
from irc.dims import Dim
from irc.dtypes import F32, F64, STRING, DType, by_name, from_onnx, opaque
from irc.frontends.onnx import contrib_types
from irc.frontends.onnx.graph_importer import GraphImporter
from irc.frontends.onnx.scope import OLDEST_OPSET, UNSUPPORTED, Imported, TensorSequence, normal_domain
from irc.frontends.onnx.structure import label
from irc.ir import Value
from irc.limits import check_limit
from irc.ops.extern import extern, plain_type
from irc.types import TensorType

# Operands that have an element for each axis of a result.
SHAPES = {"Reshape": 1, "Expand": 1, "ConstantOfShape": 0, "Unsqueeze": 1, "Col2Im": 1, "MaxUnpool": 2}
# The operand with the weights of operators of whose result ONNX Runtime 1.31 writes nothing where these are empty.
WEIGHTS = {("", "ConvInteger"): 1, ("", "QLinearConv"): 3, ("com.microsoft", "QLinearConv"): 3}
CARRIED_ATTRIBUTES = {"FLOAT", "INT", "STRING", "FLOATS", "INTS", "STRINGS", "TENSOR"}


def carry(importer: GraphImporter, node: onnx.NodeProto, operands: Sequence[Any],
          attributes: Mapping[str, tuple[str, Any]], shapes: Sequence[Sequence[Dim | None]]) -> Sequence[Imported]:
    """An `extern` for the node, or a note among the unsupported ones. `shapes` is what the node's row knows."""
    operands = [whole(importer, operand) for operand in operands]
    domain = normal_domain(node.domain)
    version = importer.opsets.get(domain, 1)
    plain = {name: value for name, (_, value) in attributes.items()}
    rejected = next((name for name, (kind, _) in attributes.items() if kind not in CARRIED_ATTRIBUTES), None)
    described = None
    if rejected is None:
        described = _describe(importer, node, operands, plain, domain, version)
        reason = f"{domain or 'ai.onnx'} {version} has no such operator, and the model does not state its types"
    else:
        reason = f"attribute `{rejected}` is of kind {attributes[rejected][0]}"
    used_outputs = [position for position, name in enumerate(node.output) if name]
    if described is not None and any(described.types[position] is None for position in used_outputs):
        described = None
    if described is not None and any(each is not None and each.WhichOneof("value") == "sparse_tensor_type"
                                     for each in described.types):  # fmt: skip
        reason, described = "its results are sparse", None
    weights = operands[WEIGHTS[domain, node.op_type]] if (domain, node.op_type) in WEIGHTS else None
    if isinstance(weights, Value) and weights.type.shape is not None and any(
            dims.less(0, extent) is not True for extent in weights.shape[1:]):  # fmt: skip
        reason, described = f"ONNX Runtime writes no result where its weights, {weights.type}, are empty", None
    if described is None:
        importer.unsupported.append((f"{domain or 'ai.onnx'} {node.op_type}", label(node), reason))
        return [UNSUPPORTED] * len(node.output)
    types, symbols = described.results(importer, used_outputs, shapes)
    schema = _schema(node, version)
    if schema is not None and not domain:  # the operator's own version, in which more runtimes know it
        version = max(schema.since_version, OLDEST_OPSET)
    known = {"domain": domain, "op_type": node.op_type, "version": version, "attributes": plain}
    if used_outputs != list(range(len(used_outputs))):
        known["outputs"] = tuple(used_outputs)
    results = iter(importer.builder.create(extern, operands, known, types=types, symbols=symbols).results)
    return [next(results) if name else None for name in node.output]


def whole(importer: GraphImporter, value: Imported) -> Imported:
    """A sequence of known length as one value, made where the builder stands; anything else as it is."""
    if not isinstance(value, TensorSequence):
        return value
    known = {"domain": "", "version": 11}
    if value.values:
        known |= {"op_type": "SequenceConstruct", "attributes": {}}
    else:
        known |= {"op_type": "SequenceEmpty", "attributes": {"dtype": value.dtype.onnx}}
    types = [TensorType(opaque(f"sequence({value.dtype})"), None)]
    return importer.builder.create(extern, value.values, known, types=types).result


def definition(importer: GraphImporter, node: onnx.NodeProto, operands: Sequence[Imported]) -> onnx.FunctionProto:
    """The function by which ONNX defines an operator, for operands of these types."""
    version = importer.opsets.get(normal_domain(node.domain), 1)
    names: dict[Dim, str] = {}
    types = [_type_proto(x.type, names).SerializeToString() for x in operands if isinstance(x, Value)]
    schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    serialized = schema.get_context_dependent_function(node.SerializeToString(), types)  # type: ignore[attr-defined]
    return onnx.FunctionProto.FromString(serialized)


def type_name(described: onnx.TypeProto) -> str:
    """What we call the type of a tensor's elements, or of what is no tensor; raises `type.dtype` for other things."""
    kind = described.WhichOneof("value")
    if kind == "tensor_type":
        return from_onnx(described.tensor_type.elem_type).name
    if kind == "map_type":
        return f"map({from_onnx(described.map_type.key_type)}, {type_name(described.map_type.value_type)})"
    if kind not in ("sequence_type", "optional_type"):
        raise fail("type.dtype", f"values of the kind {kind} are not read")
    return f"{kind.removesuffix('_type')}({type_name(getattr(described, kind).elem_type)})"


def takes(error: IrcError, node: onnx.NodeProto, operands: Sequence[Value | None], opset: int) -> bool:
    """Whether a node that a row rejected is valid ONNX nevertheless: irc's operation has fewer element types, or needs
    a rank that is not known."""
    if error.code == "type.rank":
        return any(isinstance(operand, Value) and not operand.type.is_ranked for operand in operands)
    schema = _schema(node, opset)
    if error.code != "type.dtype" or schema is None or len(operands) > schema.max_input:
        return False
    if not all(operand is None or isinstance(operand, Value) for operand in operands):
        return False  # a sequence
    bound: dict[str, Value] = {}
    for index, operand in enumerate(operands):
        formal = schema.inputs[min(index, len(schema.inputs) - 1)]
        if operand is None:
            continue
        same = bound.setdefault(formal.type_str, operand)
        if _in_schemas(operand.dtype) not in formal.types:
            return False
        if formal.is_homogeneous and same.dtype is not operand.dtype:
            return False
    return True


def _in_schemas(dtype: DType) -> str:
    """What schemas call a tensor of the dtype: NumPy's name, but for some floats."""
    if dtype.kind == "float" and dtype.bits <= 8:
        return f"tensor(float{dtype.name.removeprefix('f')})"
    word = {F32: "float", F64: "double", STRING: "string"}.get(dtype, dtype.numpy_name)
    return f"tensor({word})"


def _schema(node: onnx.NodeProto, version: int) -> onnx.defs.OpSchema | None:
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        return None
    return None if schema.deprecated else schema


class Description:
    """What is known of a node's outputs: types, with shapes where a model or ONNX states them, how the names of dims in
    these are to be read, and shapes by a rule of irc."""

    def __init__(self, types: Sequence[onnx.TypeProto | None], names: Mapping[str, Dim],
                 shapes: Sequence[Sequence[Dim | None] | None] = ()) -> None:
        self.types = types
        self.names = names
        self.shapes = shapes

    def results(self, importer: GraphImporter, used_outputs: Sequence[int], shapes: Sequence[Sequence[Dim | None]]
                ) -> tuple[list[TensorType], list[Any]]:
        """irc's types of the outputs at these positions, and the symbols defined for dims without a name."""
        types, symbols = [], []
        for index in used_outputs:
            described = self.types[index]
            assert described is not None
            tensor = described.tensor_type
            shape: list[Dim | None] | None = None
            if described.WhichOneof("value") != "tensor_type":
                types.append(TensorType(by_name(type_name(described)), None))
                continue
            if tensor.HasField("shape"):
                shape = [self._dim(dim) for dim in tensor.shape.dim]
            for source in (self.shapes, shapes):
                known = source[index] if index < len(source) else None
                if known is not None and (shape is None or len(shape) == len(known)):
                    shape = list(known) if shape is None else [
                        ours if ours is not None else theirs for ours, theirs in zip(known, shape, strict=True)]
            for axis, dim in enumerate(shape or ()):
                if dim is None and shape is not None:
                    symbols.append(importer.function.fresh_symbol("e"))
                    shape[axis] = symbols[-1].expr
            types.append(TensorType(from_onnx(tensor.elem_type), shape))  # type: ignore[arg-type]
        return types, symbols

    def _dim(self, dim: onnx.TensorShapeProto.Dimension) -> Dim | None:
        if dim.HasField("dim_value"):
            return dim.dim_value if dim.dim_value >= 0 else None
        return self.names.get(dim.dim_param)


def _describe(importer: GraphImporter, node: onnx.NodeProto, operands: Sequence[Value | None],
              attributes: Mapping[str, Any], domain: str, version: int) -> Description | None:
    """By ONNX's inference; of operators that ONNX does not know, by a rule of irc and by what the model states."""
    schema = _schema(node, version)
    if schema is None:
        return _foreign_description(importer, node, operands, attributes, domain)
    alone = onnx.NodeProto()
    alone.CopyFrom(node)
    del alone.input[:], alone.output[:]
    alone.input.extend("" if operand is None else f"in{index}" for index, operand in enumerate(operands))
    alone.output.extend(f"out{index}" for index in range(len(node.output)))
    names: dict[Dim, str] = {}
    types = {f"in{index}": _type_proto(operand.type, names)
             for index, operand in enumerate(operands) if operand is not None}
    described = dict(enumerate(operands)).get(SHAPES.get(node.op_type, -1))
    length = described.shape[0] if described is not None and described.type.is_ranked and described.rank == 1 else 0
    if isinstance(length, int):  # ONNX makes a list of so many dims
        check_limit("rank", length, f"{node.op_type} gives {{}}", importer.structure.at(node))
    data = {}
    for index, operand in enumerate(operands):
        held = None if operand is None else importer.analysis.elements(operand)
        if operand is not None and held is not None and all(isinstance(each, (int, float)) for each in held.flat):
            data[f"in{index}"] = onnx.numpy_helper.from_array(held.astype(operand.dtype.numpy))
    opsets = [onnx.helper.make_opsetid(*each) for each in importer.opsets.items()]
    try:
        inferred = shape_inference.infer_node_outputs(
            schema, alone, types, data, opset_imports=opsets,
            ir_version=importer.model.ir_version)
    except (shape_inference.InferenceError, onnx.checker.ValidationError, ValueError) as error:
        raise fail("onnx.invalid", f"ONNX finds no types for {node.op_type}", at=importer.structure.at(node),
                   notes=str(error).splitlines()[:3]) from None
    inferred_types = [inferred.get(name) for name in alone.output]
    return Description([each if each is not None and each.WhichOneof("value") else None for each in inferred_types],
                       {name: dim for dim, name in names.items()})


def _foreign_description(importer: GraphImporter, node: onnx.NodeProto, operands: Sequence[Value | None],
                         attributes: Mapping[str, Any], domain: str) -> Description | None:
    """Types that the model states count, and of shapes what our rule says, then what the model states."""
    seen = contrib_types.Node(node.op_type, operands, attributes, importer.analysis)
    rule = contrib_types.described(domain, seen)
    if rule is None and not domain:
        return None  # rather a name that was misspelt than an operator of some runtime
    rule = rule or ()
    types: list[onnx.TypeProto | None] = []
    for index, name in enumerate(node.output):
        stated = importer.declared.get(name) if name else None
        if stated is not None and stated.WhichOneof("value"):
            types.append(stated)
        else:
            types.append(plain_type(rule[index][0]) if index < len(rule) else None)
    symbols = {name: symbol.expr for name, symbol in importer.function.symbols.items()}
    return Description(types, symbols, [shape for _, shape in rule])


def _type_proto(type_: TensorType, names: dict[Dim, str]) -> onnx.TypeProto:
    """The type in ONNX; each different expression over symbols gets a name."""
    if type_.shape is None:
        return plain_type(type_.dtype)
    shape = [dim if isinstance(dim, int) else names.setdefault(dim, f"dim{len(names)}") for dim in type_.shape]
    return onnx.helper.make_tensor_type_proto(type_.dtype.onnx, shape)
