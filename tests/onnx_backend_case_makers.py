"""How the cases of the ONNX backend's rows are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from irc import dims, ops
from irc.dtypes import F32, DType
from irc.op import const
from irc.weights import Tensor

FLOATS = "f64 f32 f16 bf16"
NARROW_FLOATS = "f32 f16 bf16"
INTEGERS = "i64 i32 i16 i8 i4 u64 u32 u16 u8 u4"
REALS = f"{FLOATS} {INTEGERS}"
MOVED = f"{REALS} bool f8e4m3fn"


@dataclass(frozen=True)
class Case:
    """One operation at operand types such as "$[B, S]"; `$` is each of `dtypes`, and dims take `sizes`."""

    function: Callable[..., Any]
    types: tuple[str, ...]
    dtypes: str = "f32"
    low: float = -4
    high: float = 4
    sizes: tuple[Mapping[str, int], ...] = ({"B": 3, "S": 5, "T": 4}, {"B": 1, "S": 1, "T": 1})
    given: Mapping[int, Any] = field(default_factory=dict)  # operands that are not random
    again: bool = True


BS, B, S = "$[B, S]", "$[B, 1]", "$[S]"
WITH_ZERO = ({"B": 3, "S": 5}, {"B": 1, "S": 1}, {"B": 2, "S": 0})
Z = "$[B, ?S in (0, 9)]"
IMAGE = "$[B, 4, S, 6]"
WINDOWS = {"kernel": (3, 2), "strides": (2, 1), "low": (1, 0), "high": (1, 1), "dilations": (1, 1)}


def unary(definition: Any, names: str = NARROW_FLOATS, **options: Any) -> Case:
    return Case(definition, (Z,), names, sizes=WITH_ZERO, **options)


def binary(definition: Any, names: str = REALS, types: tuple[str, ...] = (BS, S), **options: Any) -> Case:
    return Case(definition, types, names, **options)


def reduction(definition: Any, names: str) -> list[Case]:
    return [
        Case(lambda x: definition(x, axes=(1,)), (BS,), names, low=-2, high=3),
        Case(lambda x: definition(x, axes=(0, -1), keep_dims=True), ("$[B, 2, S]",), names, low=1, high=2),
        Case(lambda x: definition(x, axes=()), (BS,), "f32", low=1),
    ]


def shift(definition: Any) -> list[Case]:
    amounts = np.array([0, 1, 7, 3, 2, -1, 64, 200])
    names = "i64 i32 i16 i8 u64 u32 u16 u8"
    return [
        Case(definition, ("$[3, 8]", "$[8]"), names, low=-100, high=100, given={1: np.clip(amounts, 0, 100)}),
        Case(lambda x: definition(x, 3), (BS,), names, low=-100, high=100),
        Case(
            definition, ("$[3, 8]", "$[8]"), "i64 i32 i16 i8", low=-100, high=100, given={1: np.clip(amounts, -1, 100)}
        ),
    ]


def pooled(definition: Any, names: str, **attributes: Any) -> list[Case]:
    sizes = ({"B": 2, "S": 5}, {"B": 1, "S": 3})
    return [
        Case(lambda x: definition(x, **{**WINDOWS, **attributes}), (IMAGE,), names, sizes=sizes),
        Case(lambda x: definition(x, **{**WINDOWS, **attributes, "low": (0, 4)}), (IMAGE,), "f32", sizes=sizes),
        Case(lambda x: definition(x, kernel=(2,), strides=(1,), low=(0,), high=(0,), dilations=(2,), **attributes),
             ("$[B, 2, S]",), names, sizes=sizes),
    ]  # fmt: skip


def recurrent(definition: Any, gates: int, **attributes: Any) -> list[Case]:
    """A layer of 5 units over T steps of B sequences: bare, and in both directions with all operands."""
    rows, states = 5 * gates, 2 if definition is ops.lstm else 1
    sizes = ({"T": 4, "B": 3}, {"T": 1, "B": 1})
    whole = ("$[T, 2, 3]", f"$[2, {rows}, 3]", f"$[2, {rows}, 5]", f"$[2, {2 * rows}]", "i32[2]",
             *["$[2, 2, 5]"] * states)
    return [
        Case(lambda *xs: definition(*xs, **attributes), ("$[T, B, 3]", f"$[1, {rows}, 3]", f"$[1, {rows}, 5]"),
             "f64 f32 f16", low=-1, high=1, sizes=sizes),
        Case(lambda *xs: definition(*xs, direction="bidirectional", **attributes), whole, "f32", low=-1, high=1,
             sizes=({"T": 4},), given={4: [4, 2]}),
        Case(lambda *xs: definition(*xs, direction="reverse", **attributes),
             ("$[T, 2, 3]", f"$[1, {rows}, 3]", f"$[1, {rows}, 5]", f"$[1, {2 * rows}]", "i64[2]"),
             "f32", low=-1, high=1, sizes=({"T": 4},), given={4: [1, 3]}),
    ]  # fmt: skip


def numbers(content: Any, dtype: DType = F32) -> Any:
    return const(value=Tensor.of(np.asarray(content), dtype))


def same_upper(extent: Any, window: int, stride: int) -> dict[str, Any]:
    both = dims.maximum((dims.ceil_divide(extent, stride) - 1) * stride + window - extent, 0)
    return {"low": (dims.floor_divide(both, 2),), "high": (both - dims.floor_divide(both, 2),)}
