"""What the templates of an artefact compute: element types that PyTorch has, and operations with a function there."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from threading import Lock

from irc import ops
from irc.dtypes import DType
from irc.interfaces import Trait
from irc.ir import Operation

TEMPLATES = Path(__file__).resolve().parent / "templates"

TORCH_TYPES = {
    "f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "i64": "int64", "i32": "int32",
    "i16": "int16", "i8": "int8", "u64": "uint64", "u32": "uint32", "u16": "uint16", "u8": "uint8", "bool": "bool",
    "c64": "complex64", "c128": "complex128", "i4": "int8", "i2": "int8", "u4": "uint8", "u2": "uint8",
    "f8e4m3fn": "float8_e4m3fn", "f8e5m2": "float8_e5m2", "f8e4m3fnuz": "float8_e4m3fnuz",
    "f8e5m2fnuz": "float8_e5m2fnuz",
}  # fmt: skip
PARSING = Lock()
UNTYPED = frozenset({"opaque", "string"})  # kinds of values that are no tensors of PyTorch


def statements_of(source: str) -> list[ast.stmt]:
    """Those of a template, parsed by one thread at a time: CPython 3.11 counts the depth of all of them together, and
    raises SystemError where one begins within another's (python/cpython#106905)."""
    with PARSING:
        return ast.parse(source).body


@cache
def host_functions(template: str = "host") -> frozenset[str]:
    """The operations that templates/host.py, or strings.py there, has a function for. A named operation without one is
    expanded into its body."""
    names: set[str] = set()
    for statement in statements_of((TEMPLATES / f"{template}.py").read_text("utf-8")):
        if isinstance(statement, ast.FunctionDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign):
            names.update(node.id for target in statement.targets for node in ast.walk(target)
                         if isinstance(node, ast.Name))  # fmt: skip
    return frozenset(names.intersection(ops.TABLE))


def torch_type(dtype: DType) -> str:
    return TORCH_TYPES[dtype.name]


def is_narrow(dtype: DType) -> bool:
    """Whether PyTorch holds elements in more bits than they have."""
    return dtype.sub_byte and dtype.is_integer


def in_range(operation: Operation, call: str) -> str:
    """The text of a host call whose integers have the bits that they should have."""
    if Trait.WRAPS not in operation.definition.traits or not is_narrow(operation.result.dtype):
        return call
    by_order = operation.name in ("reduce_max", "reduce_min") or operation.attributes.get("kind") in ("max", "min")
    return f"host.narrowed({call}, {operation.result.dtype.bits}{', ends=True' if by_order else ''})"
