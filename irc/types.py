"""Types of values: a tensor's element type and its shape.

Shapes are part of types. A dim is an integer or an expression over the symbols of the function (`irc.dims`), so
that `f32[B, S + 1, 768]` says all that is known before a program runs. `f32[*]` is unranked: a last resort
for results that nothing describes, until a `refine` gives a rank. What is no tensor, a sequence or a map, is opaque and
has no rank: `opaque["sequence(f32)"]`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from irc import dims
from irc.diagnostics import fail
from irc.dims import Atom, Dim, Symbol
from irc.dtypes import DType, by_name, opaque
from irc.limits import check_limit


class TensorType:
    """`dtype[shape]`; `shape` is None when the rank is unknown. Immutable, compared by structure."""

    __slots__ = ("_hash", "dtype", "shape")

    def __init__(self, dtype: DType, shape: Iterable[Dim] | None) -> None:
        self.dtype = dtype
        self.shape: tuple[Dim, ...] | None = None if shape is None else tuple(shape)
        self._hash = hash((dtype, self.shape))

    @property
    def rank(self) -> int:
        """Number of dims; an unranked type has none and raises `type.rank`."""
        return len(self.dims)

    @property
    def dims(self) -> tuple[Dim, ...]:
        """The shape of a ranked type."""
        if self.shape is None:
            raise fail("type.rank", f"the rank of {self} is not known here", help="give it a shape with `refine`")
        return self.shape

    @property
    def is_ranked(self) -> bool:
        return self.shape is not None

    @property
    def is_static(self) -> bool:
        """Whether every dim is a plain integer."""
        return self.shape is not None and all(isinstance(dim, int) for dim in self.shape)

    @property
    def elements(self) -> Dim:
        """Number of elements."""
        return dims.product(self.dims)

    @property
    def nbytes(self) -> Dim:
        """Size in bytes when stored densely; sub-byte elements are packed."""
        return dims.ceil_divide(self.elements * self.dtype.bits, 8)

    def static_shape(self) -> tuple[int, ...]:
        """The shape as integers; raises `type.shape` when a dim is symbolic."""
        if not self.is_static:
            raise fail("type.shape", f"expected a static shape, not {self}")
        return tuple(dim for dim in self.dims if isinstance(dim, int))

    def with_shape(self, shape: Iterable[Dim] | None) -> TensorType:
        return TensorType(self.dtype, shape)

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    def substitute(self, mapping: Mapping[Atom, Dim]) -> TensorType:
        """Replace symbols in the shape."""
        if self.shape is None or self.is_static or not mapping:
            return self
        return TensorType(self.dtype, tuple(dims.substitute(dim, mapping) for dim in self.shape))

    def symbols(self) -> tuple[Symbol, ...]:
        """The symbols that the shape mentions, each once, in order of appearance."""
        if self.shape is None or self.is_static:
            return ()
        return tuple(dict.fromkeys(symbol for dim in self.shape for symbol in dims.free_symbols(dim)))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, TensorType) and self.dtype == other.dtype and self.shape == other.shape

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return format_type(self)

    def __repr__(self) -> str:
        return f"TensorType({self})"


def format_type(type_: TensorType, defined: Iterable[Symbol] = ()) -> str:
    """Text of a type. Symbols in `defined` are defined by the operation whose result this is, and are written
    with their range where they first appear: `f32[B, ?u in (0, 8)]`."""
    if type_.shape is None:
        return f'opaque["{type_.dtype}"]' if type_.dtype.kind == "opaque" else f"{type_.dtype}[*]"
    waiting = {symbol.expr: symbol for symbol in defined}
    parts = []
    for dim in type_.shape:
        symbol = waiting.pop(dim, None) if not isinstance(dim, int) else None
        parts.append(dims.format_dim(dim) if symbol is None else format_symbol_definition(symbol))
    return f"{type_.dtype}[{', '.join(parts)}]"


def list_types(listed: Iterable[TensorType]) -> str:
    """Types in a sentence."""
    return ", ".join(map(str, listed)) or "none"


def format_symbol_definition(symbol: Symbol) -> str:
    """`?u in (0, 8) % 4`: a symbol where an operation defines it; both bounds are included."""
    multiple = f" % {symbol.multiple}" if symbol.multiple != 1 else ""
    return f"?{dims.format_dim(symbol.expr)} in ({symbol.low}, {symbol.high}){multiple}"


LARGEST = 2**63 - 1  # sizes and indices are i64


def checked_size(type_: TensorType) -> TensorType:
    """The type; raises `dim.range` for an extent that no index reaches, and `limit.exceeded` for too many axes."""
    if type_.shape is not None:
        check_limit("rank", len(type_.shape), "a tensor type has {}")
        for axis, dim in enumerate(type_.shape):
            if (dim if isinstance(dim, int) else dims.bounds(dim)[0]) > LARGEST:
                raise fail("dim.range", f"axis {axis} of a tensor type is larger than {LARGEST}")
    return type_


QUOTED = r'"[^"\\]*(?:\\.[^"\\]*)*"'
BRACKET = re.compile(r'["([{]')
SYMBOL_DEFINITION = re.compile(
    rf'\?\s*({QUOTED}|[A-Za-z_][A-Za-z0-9_.]*)\s+in\s+\(\s*(-?\d+)\s*,\s*(-?\d+)\s*\)(?:\s*%\s*(\d+))?'
)
Declare = Callable[[str, int, int, int], Symbol]


def parse_symbol_definition(text: str, declare: Declare) -> Symbol:
    """Read `?u in (0, 8) % 4`, calling `declare(name, low, high, multiple)` for the new symbol."""
    match = SYMBOL_DEFINITION.fullmatch(text.strip())
    if match is None:
        raise dims.DimError(f"expected `?name in (low, high)`, not {text.strip()!r}")
    name, low, high, multiple = match.groups()
    return declare(json.loads(name) if name[0] == '"' else name, int(low), int(high), int(multiple or 1))


def parse_type(text: str, lookup: Callable[[str], Symbol], declare: Declare | None = None,
               definitions: Mapping[str, Dim] = MappingProxyType({})) -> TensorType:
    """Read a type as `format_type` writes it.

    `lookup(name)` finds a symbol; `declare` makes one that is defined here, and is None where none may be;
    `definitions` has the derived symbols. Raises `irc.dims.DimError` for a malformed dim, `dim.range` for one that is
    negative or does not fit into an i64, and `type.dtype` for an unknown element type.
    """
    dtype_name, bracket, rest = text.strip().partition("[")
    inside = rest[:-1].strip()
    if dtype_name == "opaque" and re.fullmatch(QUOTED, inside):
        return TensorType(opaque(json.loads(inside)), None)
    dtype = by_name(dtype_name.strip())
    if not bracket or not rest.endswith("]"):
        raise dims.DimError(f"expected a type such as f32[B, 4], not {text!r}")
    if inside == "*":
        return TensorType(dtype, None)
    if not inside:
        return TensorType(dtype, ())
    shape: list[Dim] = []
    for part in split_outside(inside, ","):
        if part.lstrip().startswith("?"):
            if declare is None:
                raise dims.DimError(f"a symbol cannot be defined here: {part.strip()!r}")
            shape.append(parse_symbol_definition(part, declare).expr)
        else:
            shape.append(int(part) if part.strip().isdecimal() else dims.parse_dim(part, lookup, definitions))
    if any(dims.bounds(dim)[1] < 0 for dim in shape):
        raise fail("dim.range", f"{text.strip()} has a negative dim")
    return checked_size(TensorType(dtype, shape))


def split_outside(text: str, mark: str) -> list[str]:
    """Split at marks that stand in no brackets and no quotes."""
    if not BRACKET.search(text):
        return str.split(text, mark)
    parts, depth, start = [], 0, 0
    for token in re.finditer(rf"{QUOTED}|[][(){{}}{mark}]", text):
        depth += (token.group() in "([{") - (token.group() in ")]}")
        if token.group() == mark and depth == 0:
            parts.append(text[start : token.start()])
            start = token.end()
    parts.append(text[start:])
    return parts
