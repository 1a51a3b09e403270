"""Host calls: operations as calls of PyTorch, or, for externs, of ONNX Runtime."""

from __future__ import annotations

from irc.backends.triton.buffers import allocates
from irc.backends.triton.calls import TORCH_TYPES, UNTYPED, host_functions, in_range, is_narrow
from irc.backends.triton.externs import Extern, torch_attributes, torch_function
from irc.backends.triton.function_writer import FunctionWriter
from irc.backends.triton.text import quoted
from irc.dims import Expr
from irc.dtypes import STRING
from irc.ir import Operation, Value
from irc.ops import aten
from irc.ops.extern import is_call_of_torch


def write_host_call(writer: FunctionWriter, operation: Operation) -> None:
    definition = operation.definition
    dtypes = [value.dtype for value in (*operation.inputs, *operation.results)]
    is_text = STRING in dtypes
    unknown = [dtype for dtype in dtypes if dtype.name not in TORCH_TYPES and dtype is not STRING]
    known = host_functions("strings" if is_text else "host")
    if unknown or (operation.name not in known and not definition.is_named):
        reason = f"PyTorch has no {unknown[0]}" if unknown else "there is no host call for it"
        assignment = f"%{operation.results[0].name} = " if operation.results else ""
        writer.problem(f"{assignment}{operation.name}: {reason}", operation.location)
        return
    if operation.name not in known:
        writer.write_body(operation)
        return
    arguments = ["None" if value is None else writer.variable(value) for value in operation.operands]
    if operation.name == "pad" and len(arguments) == 2:
        arguments[1] = _number(writer, operation.operands[1])
    arguments += [
        f"{name}={writer.literal(value)}"
        for name, value in operation.attributes.items()
        if definition.attribute_specs[name].default != value or isinstance(value, Expr)
    ]
    if operation.name in ("iota", "dim") or (is_text and not any(each is STRING for each in dtypes[-1:])):
        arguments.append("device=device")
    if operation.name == "cast" and is_narrow(operation.result.dtype):
        arguments.append(f"bits={operation.result.dtype.bits}")
    results = [writer.variable(result) for result in operation.results]
    module = writer.builder.module_of("strings" if is_text else "host")
    call = in_range(operation, f"{module}.{operation.name}({', '.join(arguments)})")
    writer.line(f"{', '.join(results)}{',' if operation.name == 'split' and len(results) == 1 else ''} = {call}")
    if allocates(operation):
        writer.builder.program.host_calls.append(operation.name)


def _number(writer: FunctionWriter, value: Value | None) -> str:
    """A scalar, as Python's own where it is a constant, so that the host need not ask the device for it."""
    maker = None if value is None else value.operation
    if maker is None or maker.name != "const":
        return "None" if value is None else writer.variable(value)
    return writer.literal(maker.attributes["value"].array().item())


def write_extern(writer: FunctionWriter, operation: Operation) -> None:
    """Through ONNX Runtime, on the processor, but for what PyTorch does wherever the tensor is."""
    dtypes = [value.dtype for value in (*operation.inputs, *operation.results)]
    unknown = [dtype for dtype in dtypes if dtype.name not in TORCH_TYPES and dtype.kind not in UNTYPED]
    if unknown:
        writer.problem(f"%{operation.results[0].name} = extern: PyTorch has no {unknown[0]}", operation.location)
        return
    writer.builder.program.host_calls.append(f"extern {operation.attributes['op_type']}")
    arguments = ["None" if value is None else writer.variable(value) for value in operation.operands]
    results = ", ".join(writer.variable(result) for result in operation.results)
    if is_call_of_torch(operation):
        writer.line(f"{results} = {_call_of_torch(writer, operation, arguments)}")
        return
    function = torch_function(operation)
    if function is None:
        externs = writer.builder.program.externs
        externs.append(Extern.of(operation, writer.builder.extern_names, len(externs)))
        function, arguments = "host.extern", [f"externs[{quoted(externs[-1].name)}]", *arguments]
        types = [None if value.dtype.kind in UNTYPED else value.dtype for value in operation.results]
        arguments += [f"dtypes={writer.literal(tuple(types))}", "device=device"]
    else:
        arguments += [f"{name}={writer.literal(value)}" for name, value in torch_attributes(operation).items()]
        arguments += [] if operation.operands else ["device=device"]
        writer.builder.module_of(function.partition(".")[0])
    writer.line(f"{results} = {function}({', '.join(arguments)})")


def _call_of_torch(writer: FunctionWriter, operation: Operation, operands: list[str]) -> str:
    """The call of an operator of ATen, whose arguments are a dictionary: some are called as keywords of Python are."""
    op_type, attributes = operation.attributes["op_type"], operation.attributes["attributes"]
    arguments = dict(zip(aten.tensors_of(op_type), operands, strict=True))
    arguments |= {name: writer.literal(value) for name, value in attributes.items()}
    arguments |= {"dtype": writer.literal(operation.results[0].dtype)} if op_type in aten.TYPED else {}
    arguments |= {} if operands else {"device": "device"}
    pairs = ", ".join(f"{quoted(name)}: {text}" for name, text in arguments.items())
    return f"{writer.builder.module_of('aten')}.call({quoted(op_type)}, {{{pairs}}})"


def write_const(writer: FunctionWriter, operation: Operation) -> None:
    name = writer.builder.weight(operation.attributes["value"], operation.result.name)
    writer.values[operation.result] = f"weights[{quoted(name)}]"


def write_dim(writer: FunctionWriter, operation: Operation) -> None:
    """A tensor of sizes; those that only say how often loops run stay Python's."""
    if not all(user.name == "loop" and index == 0 for user, index in operation.result.uses):
        write_host_call(writer, operation)
