"""Rows of sequences and optionals.

Where lengths are known while importing, as exporters write them, a sequence is several values, and nothing of it is
left in the module. Where only a run determines it, the sequence is an opaque value, and its users are opaque
operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from irc import ops
from irc.diagnostics import fail
from irc.dtypes import BOOL, I64, from_onnx, opaque_parts
from irc.frontends.onnx.reading import carry, entries, integer
from irc.frontends.onnx.scope import TensorSequence
from irc.frontends.onnx.table import reads
from irc.frontends.onnx.tensor import parted
from irc.ir import Value
from irc.limits import limit
from irc.op import literal
from irc.ops.rules import normalize_axis

if TYPE_CHECKING:
    from onnx import TypeProto


def elements_of(sequence: TensorSequence | Value) -> tuple[Value, ...]:
    return sequence.values if isinstance(sequence, TensorSequence) else carry("the length of the sequence is not known")


def place(position: Value | None, length: int, what: str) -> int:
    """A position from the front or, below 0, from the end."""
    index = length if position is None else integer(position, what)
    index = index + length if index < 0 else index
    return index if 0 <= index <= length else carry(f"{what} {index} is not among {length} elements")


@reads("SequenceConstruct", since=11)
def sequence_construct(*values: Value):
    return TensorSequence(values, values[0].dtype)


@reads("SequenceEmpty", since=11)
def sequence_empty(*, dtype: int = 1):
    return TensorSequence((), from_onnx(dtype))


@reads("SequenceInsert", since=11)
def sequence_insert(sequence, tensor: Value, position: Value | None = None, /):
    values = elements_of(sequence)
    if tensor.dtype is not sequence.dtype:
        raise fail("onnx.invalid", f"{tensor.type} is put into a sequence", expected=f"elements of {sequence.dtype}")
    index = place(position, len(values), "the position")
    return TensorSequence((*values[:index], tensor, *values[index:]), tensor.dtype)


@reads("SequenceErase", since=11)
def sequence_erase(sequence, position: Value | None = None, /):
    values = elements_of(sequence)
    index = len(values) - 1 if position is None else place(position, len(values), "the position")
    return TensorSequence((*values[:index], *values[index + 1 :]), sequence.dtype)


@reads("SequenceAt", since=11)
def sequence_at(sequence, position: Value, /):
    values = elements_of(sequence)
    index = place(position, len(values), "the position")
    return values[index] if index < len(values) else carry(f"the sequence has {len(values)} elements")


@reads("SequenceLength", since=11)
def sequence_length(sequence, /):
    return literal(len(elements_of(sequence)), I64)


@reads("SplitToSequence", since=11)
def split_to_sequence(x: Value, split: Value | None = None, /, *, axis: int = 0, keepdims: int = 1):
    axis = normalize_axis(axis, x.rank)
    whole = x.shape[axis]
    sizes: Sequence[object] | None = None if split is None else entries(split, "the sizes")
    if sizes is None or (split is not None and split.rank == 0):
        (size,) = sizes or (1,)
        if not isinstance(whole, int) or not isinstance(size, int) or size < 1:
            carry("how many parts there are is known only when it runs")
        if -(-whole // size) > limit("unrolled"):
            carry("it has more parts than the limit `unrolled` allows to separate")
        sizes = [min(size, whole - start) for start in range(0, whole, size)]
    if None in sizes:
        carry("the sizes are not constant")
    parts = parted(x, tuple(sizes), axis) if sizes else ()  # type: ignore[arg-type]
    parts = parts if isinstance(parts, (tuple, list)) else (parts,)
    if split is None and not keepdims:
        shape = (*x.shape[:axis], *x.shape[axis + 1 :])
        parts = [ops.reshape(part, shape=shape) for part in parts]
    return TensorSequence(tuple(parts), x.dtype)


@reads("ConcatFromSequence", since=11)
def concat_from_sequence(sequence, /, *, axis: int, new_axis: int = 0):
    values = elements_of(sequence) or carry("the sequence is empty")
    if new_axis:
        rank = values[0].rank + 1
        axis = normalize_axis(axis, rank)
        values = tuple(ops.reshape(x, shape=(*x.shape[:axis], 1, *x.shape[axis:])) for x in values)
    return ops.concat(*values, axis=normalize_axis(axis, values[0].rank))


@reads("Optional", since=15)
def optional(x=None, /, *, type: TypeProto | None = None):
    """What is there is itself, and what is not is an operand that is absent."""
    return x


@reads("OptionalGetElement", since=15)
def optional_get_element(x=None, /):
    if x is None:
        raise fail("onnx.invalid", "the element of an optional that is not there", expected="one that is")
    return carry("whether it is there is not known") if is_optional(x) else x


def is_optional(x) -> bool:
    return isinstance(x, Value) and x.dtype.kind == "opaque" and opaque_parts(x.dtype.name)[0] == "optional"


@reads("OptionalHasElement", since=15)
def optional_has_element(x=None, /):
    return carry("whether it is there is not known") if is_optional(x) else literal(x is not None, BOOL)
