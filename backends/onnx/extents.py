"""Dims as tensors: nodes that compute, at run time, the sizes that other nodes take as operands.

Every emitted value provides the dims of its type. A dim is read from a value that has it as an extent (by `Shape`), or
else computed from its symbols, as vectors of one element. A computed dim is reused in its graph and in the graphs
nested in it. Start at `Extents.shape`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from irc import dims
from irc.backends.onnx.target import Target
from irc.diagnostics import fail
from irc.dims import Derived, Dim, Expr, Symbol
from irc.dtypes import I8
from irc.types import TensorType

REMEMBERED = 8  # sources that are recorded for one dim


@dataclass(frozen=True)
class Source:
    """A tensor that provides dims: by its shape, or if `is_content` by its elements, some of which may be unknown."""

    name: str
    dims: Sequence[Dim | None]
    is_content: bool
    has_shape: bool  # whether the operator Shape accepts its element type
    is_image: bool = False  # one more reader of what a Conv makes keeps ONNX Runtime from fusing and from its layout

    @property
    def rank(self) -> int:
        """The order of preference: elements need no node, a shape a Shape, another element type a Cast too."""
        return 2 if self.is_content else int(self.has_shape)


class Extents(ABC):
    """The sources of dims in a graph. `irc.backends.onnx.graph.Graph` implements the nodes and constants."""

    def __init__(self, outer: Extents | None) -> None:
        self.outer = outer
        self.sources: dict[Dim, list[tuple[Source, int]]] = {}  # with the axis, or the element, of each
        self.contents_of: dict[str, Source] = {}
        self.scalars: dict[Dim, str] = {}  # dims that a scalar of i64 holds
        self.vectors: dict[tuple[Dim, ...], str] = {}  # i64 vectors that the graph computes, by their dims
        self.shared: set[str] = set()  # tensors that may be reused, and so keep their names

    @property
    @abstractmethod
    def target(self) -> Target: ...

    @abstractmethod
    def node(self, op_type: str, *operands: Any, **attributes: Any) -> Any:
        """Append a node; returns the name of its result."""

    @abstractmethod
    def numbers(self, content: Any) -> str:
        """The name of an i64 constant."""

    @abstractmethod
    def symbol_input(self, symbol: Symbol) -> str | None:
        """The input, a vector of one element, by which a function receives a symbol; None in other graphs."""

    # -- recording sources -------------------------------------------------------------------------------------

    def carry(self, name: str, type_: TensorType, is_computed: bool = False) -> None:
        """Record that the tensor `name` provides the dims of its type."""
        if type_.shape is None or type_.is_static:
            return
        is_image = is_computed and type_.dtype.is_float and type_.rank >= 4
        source = Source(name, type_.shape, False, self.target.runs("Shape", type_.dtype), is_image)
        for axis, dim in enumerate(type_.shape):
            if not isinstance(dim, int):
                self._add(source, axis, dim)

    def contain(self, name: str, length: int, index: int, dim: Dim) -> None:
        """Record that element `index` of the i64 vector `name` is `dim`."""
        source = self.contents_of.setdefault(name, Source(name, [None] * length, True, True))
        assert isinstance(source.dims, list)
        source.dims[index] = dim
        self._add(source, index, dim)
        self.shared.add(name)

    def _add(self, source: Source, axis: int, dim: Dim) -> None:
        sources = self.sources.setdefault(dim, [])
        if len(sources) < REMEMBERED:
            sources.append((source, axis))

    def hold(self, name: str, dim: Dim) -> None:
        """Record that the i64 scalar `name` is `dim`."""
        self.scalars.setdefault(dim, name)
        self.shared.add(name)

    def scopes(self) -> Iterator[Extents]:
        scope: Extents | None = self
        while scope is not None:
            yield scope
            scope = scope.outer

    # -- queries -----------------------------------------------------------------------------------------------

    def shape(self, extents: Sequence[Dim]) -> str:
        """The name of an i64 vector with these dims."""
        extents = tuple(extents)
        if all(isinstance(dim, int) for dim in extents):
            return self.numbers(np.asarray(extents, np.int64))
        vector = self._known_vector(extents)
        if vector is None:
            pieces = list(self._pieces(extents))
            vector = pieces[0] if len(pieces) == 1 else self.node("Concat", *pieces, axis=0)
            self.vectors[extents] = vector
            self.shared.add(vector)
        return vector

    def extent(self, dim: Dim) -> str:
        """The name of an i64 scalar with this dim."""
        if isinstance(dim, int):
            return self.numbers(dim)
        for scope in self.scopes():
            if dim in scope.scalars:
                return scope.scalars[dim]
        name: str = self.node("Squeeze", self.shape((dim,)))
        self.hold(name, dim)
        return name

    def is_shared(self, name: str) -> bool:
        """Whether a tensor may be reused as dims, so that it keeps its name."""
        return any(name in scope.shared for scope in self.scopes())

    # -- reading -----------------------------------------------------------------------------------------------

    def _known_vector(self, extents: tuple[Dim, ...]) -> str | None:
        return next((scope.vectors[extents] for scope in self.scopes() if extents in scope.vectors), None)

    def _pieces(self, extents: tuple[Dim, ...]) -> Iterator[str]:
        """Vectors that concatenated give `extents`: runs of constants, of one value's dims, and single dims."""
        start = 0
        while start < len(extents):
            best = self._run_of_a_source(extents, start)
            if best is not None:
                source, first, stop = best
                take = partial(self._taken, source, first, first + stop - start)
                yield self._remembered(extents[start:stop], take)
            elif isinstance(extents[start], int):
                stop = start + 1
                while (stop < len(extents) and isinstance(extents[stop], int)
                       and not self._run_of_a_source(extents, stop)):  # fmt: skip
                    stop += 1
                yield self.numbers(np.asarray(extents[start:stop], np.int64))
            else:
                stop = start + 1
                yield self._single(extents[start])
            start = stop

    def _run_of_a_source(self, extents: tuple[Dim, ...], start: int) -> tuple[Source, int, int] | None:
        """The longest run of `extents` from `start` on that is a run of one source's dims: the source, the start of the
        run in it, and its end in `extents`. A run may begin with integers, but must contain a symbolic dim.
        """
        symbolic = next((i for i in range(start, len(extents)) if not isinstance(extents[i], int)), None)
        if symbolic is None:
            return None
        best = None
        for scope in self.scopes():
            for source, axis in scope.sources.get(extents[symbolic], ()):
                whole, first = source.dims, axis - (symbolic - start)
                if first < 0 or tuple(whole[first:axis]) != extents[start:symbolic]:
                    continue
                stop, last = symbolic + 1, axis + 1
                while stop < len(extents) and last < len(whole) and whole[last] == extents[stop]:
                    stop, last = stop + 1, last + 1
                gain = not source.is_image, stop, source.rank
                if best is None or gain > (not best[0].is_image, best[2], best[0].rank):
                    best = (source, first, stop)
        return best

    def _taken(self, source: Source, first: int, last: int) -> str:
        """A part of a source, or all of it, as a vector."""
        is_whole = last - first == len(source.dims)
        if source.is_content:
            ends = (self.numbers([first]), self.numbers([last]))
            return source.name if is_whole else self.node("Slice", source.name, *ends)
        name = source.name if source.has_shape else self.node("Cast", source.name, to=I8.onnx)
        part: dict[str, Any] = {} if is_whole else {"start": first, "end": last}
        return self.node("Shape", name, **part)

    def _remembered(self, extents: tuple[Dim, ...], make: Any) -> str:
        vector = self._known_vector(extents)
        if vector is None:
            vector = self.vectors[extents] = make()
            self.shared.add(vector)
        return vector

    def _single(self, dim: Dim) -> str:
        """A vector of one dim that no value has as an extent."""
        scalar = next((scope.scalars[dim] for scope in self.scopes() if dim in scope.scalars), None)
        if scalar is not None:
            return self._remembered((dim,), lambda: self.node("Unsqueeze", scalar, self.numbers([0])))
        assert isinstance(dim, Expr)
        for derived in dims.derived_below([dim], self._has):
            self._remembered((derived.expr,), partial(self._vector, derived.definition))
        return self._remembered((dim,), lambda: self._computed(dim))

    def _has(self, derived: Derived) -> bool:
        """Whether a value has a derived symbol as an extent, or it has been computed."""
        dim = derived.expr
        return any(dim in scope.sources or dim in scope.scalars or (dim,) in scope.vectors for scope in self.scopes())

    def _vector(self, dim: Dim) -> str:
        return self.shape((dim,))

    # -- computing ---------------------------------------------------------------------------------------------

    def _computed(self, expr: Expr) -> str:
        """A polynomial over symbols and functions of dims, as arithmetic on vectors of one element."""
        (first, coefficient), *others = expr.terms
        if coefficient == 1 and len(first) == 1 and first[0][1] == 1 and not others:
            return self._atom(first[0][0])
        positive = [term for term in expr.terms if term[1] > 0]
        negative = [(monomial, -count) for monomial, count in expr.terms if count < 0]
        total = self._sum(positive) if positive else self.numbers([0])
        return self.node("Sub", total, self._sum(negative)) if negative else total

    def _sum(self, terms: Sequence[tuple[dims.Monomial, int]]) -> str:
        total = None
        for monomial, coefficient in terms:
            factors = [self.numbers([coefficient])] if coefficient != 1 or not monomial else []
            factors += [self._vector(atom.expr) for atom, power in monomial for _ in range(power)]
            part, *rest = factors
            for factor in rest:
                part = self.node("Mul", part, factor)
            total = part if total is None else self.node("Add", total, part)
        assert total is not None
        return total

    def _atom(self, atom: dims.Atom) -> str:
        if isinstance(atom, Symbol):
            return self._symbol(atom)
        assert isinstance(atom, dims.Function), "a dim of a value has no indices of kernels"
        first, *rest = atom.args
        result = self._vector(first)
        for arg in rest:
            result = self._function(atom.kind, result, first, self._vector(arg), arg)
        return result

    def _function(self, kind: str, x: str, left: Dim, y: str, right: Dim) -> str:
        if kind == "min":
            return self.node("Min", x, y)
        if kind == "max":
            return self.node("Max", x, y)
        if kind in ("//", "%"):
            y = self._divisor(y, right)
        if kind == "%":
            return self.node("Mod", x, y)
        if kind == "//":
            if dims.bounds(left)[0] < 0 or dims.bounds(right)[0] <= 0:  # Div truncates
                x = self.node("Sub", x, self.node("Mod", x, y))
            return self.node("Div", x, y)
        assert kind == "bcast", kind
        if min(dims.bounds(left)[0], dims.bounds(right)[0]) >= 1:
            return self.node("Max", x, y)
        return self.node("Where", self.node("Equal", x, self.numbers([1])), y, x)

    def _divisor(self, name: str, dim: Dim) -> str:
        """A divisor, with 1 in place of 0: division by 0 would end the process of the runtime."""
        low, high = dims.bounds(dim)
        if low > 0 or high < 0:
            return name
        if low == 0:
            return self.node("Max", name, self.numbers([1]))
        return self.node("Where", self.node("Equal", name, self.numbers([0])), self.numbers([1]), name)

    def _symbol(self, symbol: Symbol) -> str:
        """A symbol as a vector: solved from a dim that is linear in it (`2*S + 1`), or an input of a function."""
        for scope in self.scopes():
            for dim in scope.sources:
                slope, rest = dims.linear_in(dim, symbol) or (0, 0)
                if isinstance(slope, int) and slope and isinstance(rest, int):
                    carried = self._vector(dim)
                    shifted = self.node("Sub", carried, self.numbers([rest])) if rest else carried
                    return self.node("Div", shifted, self.numbers([slope])) if slope != 1 else shifted
        given = self.symbol_input(symbol)
        if given is not None:
            return given
        raise fail("dim.unbound", f"no value carries the dim {symbol.expr}")
