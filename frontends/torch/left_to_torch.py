"""Rows of operators that PyTorch computes: externs of `irc.ops.aten`, with the types that PyTorch says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils import _pytree as pytree

from irc import ops
from irc.dims import Dim, Expr
from irc.frontends.torch.reading import (
    check_call,
    converted,
    current_function,
    current_node,
    dims_of_torch,
    dtype_of,
    unsupported,
)
from irc.frontends.torch.table import Row, reads
from irc.ir import Value
from irc.op import Builder
from irc.ops import aten
from irc.types import TensorType

# Arguments that say where results are and how they lie in memory, and whose numbers those drawn are.
NOT_KEPT = ("device", "layout", "pin_memory", "memory_format", "generator", "dtype")
# Which make calls where irc does not compute the results.
BY_OTHER_ROWS = ("_conj", "native_dropout", "unique_consecutive")


def call(op_type: str, *arguments: Any, **options: Any) -> Any:
    """The results of an operator of ATen, of the types that PyTorch has noted at the node."""
    check_call(op_type)
    schema = aten.overload(torch.ops.aten, op_type)._schema
    given = dict(zip((each.name for each in schema.arguments), arguments, strict=False)) | options
    operands = [given.pop(name, None) for name in aten.tensors_of(op_type)]
    kept = {name: _plain(value) for name, value in given.items() if name not in NOT_KEPT and value is not None}
    symbols: dict[Any, Any] = {}
    types = [_type(example, dims_of_torch(), symbols) for example in pytree.tree_leaves(current_node().meta["val"])]
    operation = Builder.active().create(ops.extern, operands, aten.call_of(op_type, kept), types=types,
                                        symbols=list(symbols.values()))  # fmt: skip
    return operation.results[0] if isinstance(current_node().meta["val"], torch.Tensor) else tuple(operation.results)


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    if isinstance(value, (bool, int, float, str, Expr)):
        return value
    return unsupported(f"an argument is a {type(value).__name__}")


def _type(example: torch.Tensor, dim: Callable[[Any], Dim], symbols: dict[Any, Any]) -> TensorType:
    """The type of a result; a size that only a run determines is a symbol that the operation defines."""
    shape = []
    for size in example.shape:
        expression = size.node.expr if isinstance(size, torch.SymInt) else None
        if expression is not None and expression.is_Symbol and size.node.hint is None:
            if expression not in symbols:
                symbols[expression] = current_function().fresh_symbol("u")
            shape.append(symbols[expression].expr)
        else:
            shape.append(dim(size))
    return TensorType(dtype_of(example.dtype), shape)


ROWS = [Row(partial(call, op_type), (op_type if "." in op_type else f"{op_type}.default",))
        for op_type in aten.OPERATORS if op_type not in BY_OTHER_ROWS]  # fmt: skip


@reads("_conj")
def conjugate(self):
    """Of a Python number, too, as in the gradient of a product by one."""
    return call("_conj", self) if isinstance(self, Value) else complex(self).conjugate()


@reads("native_dropout")
def native_dropout(input, p, train):
    if train is False or not p:
        return input, ops.expand(converted(True, dtype_of(torch.bool)), shape=input.shape)
    return call("native_dropout", input, p, train)


@reads("_linalg_check_errors")
def linalg_check_errors(info: Value, api_name: str, *, is_matrix: bool) -> None:
    """PyTorch raises LinAlgError with LAPACK's number."""
    message = f"{api_name}: the matrix is singular, or not as LAPACK needs it"
    ops.assert_(ops.equal(info, converted(0, info.dtype)), message=message)
