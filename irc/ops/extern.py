"""Opaque operations: operators of the source that the op table does not have."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

from irc import dtypes
from irc.diagnostics import fail
from irc.dtypes import DType
from irc.execution import Execution
from irc.interfaces import Trait
from irc.ir import Operation, Value
from irc.onnx_runtime import onnx_runtime, start_session
from irc.op import AnythingType, OperationDefinition
from irc.ops import aten
from irc.types import TensorType
from irc.weights import Tensor

MOST_OUTPUTS = 10_000
DEFAULT_OPSET = 21  # of ai.onnx, beside an operator of another domain: for the casts at the border
# Operators of ai.onnx that draw random numbers, with the type of their attribute `seed`. Each node draws a sequence of
# its own: it is never merged with another, folded, or moved into or out of a loop.
RANDOM = {"RandomNormal": float, "RandomNormalLike": float, "RandomUniform": float, "RandomUniformLike": float,
          "Bernoulli": float, "Multinomial": float, "Dropout": int}  # fmt: skip
SEEDS = 1 << 24  # which a float holds exactly


def _extern(
    *xs: AnythingType | None,
    domain: str,
    op_type: str,
    version: int,
    attributes: dict[str, Any],
    outputs: tuple[int, ...] | None = None,
    declared: Sequence[TensorType] | None = None,
) -> tuple[TensorType, ...]:
    """An ONNX operator of `domain` in its opset `version`, with its own attributes.

    Operands may be absent. `attributes` hold integers, floats, strings, lists of these, and tensors. The results are
    the first outputs of the operator, or those at the positions in `outputs`, in order; the others are absent.
    In the domain `torch.ops.aten` an operator of ATen that PyTorch runs (`irc.ops.aten`); attributes may hold dims.
    Shapes: result types are stated; importers take them from ONNX's own inference for the node, or from PyTorch.
    Source: the ONNX operator named, or that of ATen.
    Edge cases: those of ONNX Runtime, which runs it as a model of one node, or PyTorch's; its failing is `run.extern`.
    """
    if declared is None:
        raise fail("type.operands", f"the result types of {domain or 'ai.onnx'}.{op_type} must be stated")
    if not 0 < version < 2**31:
        raise fail("type.attribute", f"version {version} of {domain or 'ai.onnx'}.{op_type}", expected="1, 2, ...")
    places = range(len(declared)) if outputs is None else outputs
    if len(places) != len(declared) or list(places) != sorted(set(places)) or not all(
            0 <= place < MOST_OUTPUTS for place in places):  # fmt: skip
        raise fail(
            "type.attribute",
            f"outputs {list(places)} of {domain or 'ai.onnx'}.{op_type}",
            expected=f"{len(declared)} positions in order, those of the results",
        )
    if domain == aten.DOMAIN:
        aten.check_call(op_type, len(xs), attributes)
    return tuple(declared)


extern = OperationDefinition(_extern, "extern", (Trait.DECLARED_TYPES, Trait.DECLARED_ARRAYS))


def is_random(operation: Operation) -> bool:
    """Whether an operation is an extern that draws random numbers."""
    if operation.definition is not extern:
        return False
    op_type, domain = operation.attributes["op_type"], operation.attributes["domain"]
    return (domain == "" and op_type in RANDOM) or (domain == aten.DOMAIN and op_type in aten.RANDOM)


def is_call_of_torch(operation: Operation) -> bool:
    """Whether an operation is an extern that PyTorch runs."""
    return operation.definition is extern and operation.attributes["domain"] == aten.DOMAIN


def is_seeded(operation: Operation) -> bool:
    """Whether a random extern states where its numbers begin, so that each session draws the same."""
    return operation.attributes["attributes"].get("seed") is not None


def output_names(names: Sequence[str], outputs: Sequence[int] | None) -> list[str]:
    """The outputs of a node whose results have these names: empty names stand for those that are absent."""
    if outputs is None:
        return list(names)
    by_position = [""] * (max(outputs, default=-1) + 1)
    for name, position in zip(names, outputs, strict=True):
        by_position[position] = name
    return by_position


# -- running one -----------------------------------------------------------------------------------------------


@extern.execution
def _run(execution: Execution) -> list[Any]:
    """In PyTorch, or as a model of one node in ONNX Runtime; there what is random has a session for the whole run."""
    import numpy as np

    operation = execution.operation
    if is_call_of_torch(operation):
        return aten.run_in_torch(execution)
    types = [None if operand is None else operand.dtype for operand in operation.operands]
    outputs = [result.dtype for result in operation.results]
    feeds = {
        f"i{i}": array.item() if dtype.kind == "opaque" else np.asarray(array, _carrier(dtype).numpy)
        for i, (array, dtype) in enumerate(zip(execution.arrays, types, strict=True))
        if dtype is not None and array is not None
    }
    try:
        if is_random(operation):
            if operation not in execution.run.sessions:
                attributes = _with_seed(operation, execution.run.draws)
                execution.run.sessions[operation] = _make_session(one_node_model(attributes, types, outputs))
            session = execution.run.sessions[operation]
        else:
            session = _session(one_node_model(operation.attributes, types, outputs))
        results = session.run(None, feeds)
    except runtime_errors() as error:
        name = f"{operation.attributes['domain'] or 'ai.onnx'}.{operation.attributes['op_type']}"
        raise fail("run.extern", f"ONNX Runtime could not run {name}", notes=[str(error)]) from None
    return [
        boxed(result) if dtype.kind == "opaque" else np.asarray(result).astype(dtype.numpy, copy=False)
        for result, dtype in zip(results, outputs, strict=True)
    ]


def _with_seed(operation: Operation, draws: int) -> Mapping[str, Any]:
    """The attributes of a random extern. Where it has no seed, one that follows from `draws` and the result's name:
    sessions of equal models would all draw the same numbers."""
    if is_seeded(operation):
        return operation.attributes
    function = operation.function
    place = f"{draws} {'' if function is None else function.name} {operation.results[0].name}"
    number = int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "big") % SEEDS
    seed = RANDOM[operation.attributes["op_type"]](number)
    return {**operation.attributes, "attributes": {**operation.attributes["attributes"], "seed": seed}}


def runtime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a model that it rejects or that fails: errors of its own, and Python's where a
    result has more axes or elements than an array of NumPy can have."""
    state = onnx_runtime().capi.onnxruntime_pybind11_state
    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NotImplemented,
        state.RuntimeException,
        state.NoSuchFile,
        ValueError,
        OverflowError,
        MemoryError,
        RuntimeError,
    )


def boxed(value: Any) -> Any:
    """An array of no axes that holds a sequence, a map or what is optional as an object."""
    import numpy as np

    box = np.empty((), object)
    box[()] = value
    return box


def opaque_input(argument: Value, value: Any) -> Any:
    """What is given for an argument of an opaque type, boxed; raises `run.input_dtype` for anything else."""
    if not holds(value, argument.dtype):
        raise fail("run.input_dtype", f"input `{argument.name}` is not of its type", expected=str(argument.type))
    return boxed(value)


def holds(value: Any, dtype: DType) -> bool:
    """Whether a Python value is of an opaque type, or an array of an element type: lists are sequences, dictionaries
    maps, None an optional value that is not there."""
    if dtype.kind != "opaque":
        return hasattr(value, "dtype") and hasattr(value, "ndim") and dtypes.from_numpy(value.dtype) is dtype
    word, _, element = dtypes.opaque_parts(dtype.name)
    if word == "map":
        return isinstance(value, dict)
    if word == "optional":
        return value is None or holds(value, element)
    return isinstance(value, list) and all(holds(each, element) for each in value)


def plain_type(dtype: DType) -> Any:
    """The type in ONNX of what is opaque, or of tensors of these elements, without a shape."""
    from onnx import helper

    if dtype.kind != "opaque":
        return helper.make_tensor_type_proto(dtype.onnx, None)
    word, key, element = dtypes.opaque_parts(dtype.name)
    if key is not None:
        return helper.make_map_type_proto(key.onnx, plain_type(element))
    make = helper.make_sequence_type_proto if word == "sequence" else helper.make_optional_type_proto
    return make(plain_type(element))


def _carrier(dtype: DType) -> DType:
    """The type in which elements cross the border to ONNX Runtime: NumPy arrays have no bf16, fp8 or int4 there."""
    if dtype.sub_byte or dtype.name.startswith(("bf", "f8")):
        return dtypes.F32 if dtype.is_float else dtypes.I8 if dtype.is_signed else dtypes.U8
    return dtype


def check_attributes(attributes: Mapping[str, Any]) -> None:
    """Raise `type.attribute` where an attribute of an operator is nothing that ONNX has."""
    for name, value in attributes["attributes"].items():
        parts = value if isinstance(value, tuple) else (value,)
        kinds = {type(part) for part in parts}
        fits = len(kinds) <= 1 and (kinds <= {str, float} or (kinds == {Tensor} and not isinstance(value, tuple)))
        if not name or not (fits or (kinds <= {int, bool} and all(-(2**63) <= part < 2**63 for part in parts))):
            operator = f"{attributes['domain'] or 'ai.onnx'}.{attributes['op_type']}"
            raise fail(
                "type.attribute",
                f"attribute {name!r} of {operator}: {value!s:.80}",
                expected="an integer of 64 bits, a float, a string, a list of these, or a tensor",
            )


def one_node_model(attributes: Mapping[str, Any], types: Sequence[DType | None], outputs: Sequence[DType]) -> bytes:
    """The operator as an ONNX model of one node, with casts at the border where arrays need a carrier."""
    from onnx import defs, helper

    check_attributes(attributes)
    domain, op_type, version = attributes["domain"], attributes["op_type"], attributes["version"]
    operands = ["" if dtype is None else f"i{i}" for i, dtype in enumerate(types)]
    inputs = [helper.make_value_info(f"i{i}", plain_type(_carrier(dtype))) for i, dtype in enumerate(types) if dtype]
    results = [helper.make_value_info(f"o{i}", plain_type(_carrier(dtype))) for i, dtype in enumerate(outputs)]
    produced = [f"o{i}" for i in range(len(outputs))]
    before, after = [], []
    for i, dtype in enumerate(types):
        if dtype is not None and _carrier(dtype) is not dtype:
            before.append(helper.make_node("Cast", [f"i{i}"], [f"c{i}"], to=dtype.onnx))
            operands[i] = f"c{i}"
    for i, dtype in enumerate(outputs):
        if _carrier(dtype) is not dtype:
            after.append(helper.make_node("Cast", [f"r{i}"], [f"o{i}"], to=_carrier(dtype).onnx))
            produced[i] = f"r{i}"
    node = helper.make_node(op_type, operands, output_names(produced, attributes.get("outputs")), domain=domain)
    schema = defs.get_schema(op_type, version, domain) if defs.has(op_type, domain) else None
    for name, value in attributes["attributes"].items():
        # An empty list says nothing of its type: the schema does.
        described = None if schema is None else cast(Any, schema.attributes.get(name))
        known = None if described is None else described.type.value
        node.attribute.append(helper.make_attribute(name, _plain(value), attr_type=known))
    opsets = {domain: version} if domain == "" else {domain: version, "": DEFAULT_OPSET}
    imports = [helper.make_opsetid(name, number) for name, number in opsets.items()]
    graph = helper.make_graph([*before, node, *after], "extern", inputs, results)
    ir_version = helper.find_min_ir_version_for(imports, ignore_unknown=True)
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
    return bytes(model.SerializeToString(deterministic=True))


def _plain(value: Any) -> Any:
    from onnx import numpy_helper

    if isinstance(value, Tensor):
        return numpy_helper.from_array(value.array(), value.name or "")
    return list(value) if isinstance(value, tuple) else value


@lru_cache(maxsize=64)
def _session(model: bytes) -> Any:
    return _make_session(model)


def _make_session(model: bytes) -> Any:
    onnxruntime = onnx_runtime()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # what is wrong comes back as an error
    return start_session(model, options)
