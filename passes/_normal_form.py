"""A normal form of primitive float arithmetic: decompositions of one function that differ in form get the same term.

    add(c, {term: coefficient})      sub, neg and multiplication by numbers are sums, too
    mul({base: exponent})            div, sqrt, pow, reciprocal and square are products, too
    reductions keep their dims and run over the last axes; numbers are moved out of sums, dots and views
    a dot is a product of transposed views
    views (reshapes, transposes) are moved to the leaves, expansions to the root
    casts between f16, bf16, f32 and f64 are removed, which keeps more precision; a cast to a
        narrower type whose result is only cast back stays, since the rounding is its purpose

Terms are interned, and numbers within 2e-6 of one another are one number: two values compute the same function over
the reals if their terms are one object. Simplifications that change the domain are not made: x*x/x is
not x, sqrt(x*x) is not x, sqrt(x)*sqrt(x) is not x, x - x is not 0. Only infinities and NaN of intermediate
overflow may differ.

A normalizer computes the terms of values that depend on given leaves, which are opaque: call `bind` first, then `term`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from irc import dims, dtypes
from irc.dims import Dim
from irc.equality import attribute_key
from irc.index_map import IndexMap, compose, identity_map, is_empty, reshape_map, transpose_map
from irc.ir import Operation, Value
from irc.op import const
from irc.pattern import TOLERANCE, constant_of

Shape = tuple[Dim, ...]
ROUNDED = ("f16", "bf16", "f32", "f64")

# Operations in which decompositions of one function differ; the counts of all others must be equal.
SOFT = frozenset(
    ("add", "sub", "mul", "div", "neg", "sqrt", "pow", "cast", "reshape", "transpose", "expand", "const", "dim",
     "return", "yield")
)  # fmt: skip


class Term:
    """A node of the normal form; `parts` has the content of its kind. Identity is equality within a normalizer."""

    __slots__ = ("kind", "parts", "serial", "shape")

    def __init__(self, kind: str, parts: tuple[Any, ...], shape: Shape, serial: int) -> None:
        self.kind, self.parts, self.shape, self.serial = kind, parts, shape, serial

    def __repr__(self) -> str:
        return f"{self.kind}{self.parts}:{list(self.shape)}"


class Normalizer:
    """Creates terms, interned per normalizer: only terms of one normalizer can be compared."""

    def __init__(self, tolerance: float = TOLERANCE) -> None:
        self.tolerance = tolerance  # numbers closer than this are one
        self._terms: dict[Hashable, Term] = {}
        self._numbers: list[float] = []
        self._values: dict[Value, Term] = {}
        self._outlines: dict[Term, Hashable] = {}

    # -- terms -------------------------------------------------------------------------------------------------

    def bind(self, value: Value, term: Term | None = None) -> Term:
        """Make a value opaque, or let it stand for a term."""
        self._values[value] = self.make("leaf", (value,), value.shape) if term is None else term
        return self._values[value]

    def make(self, kind: str, parts: tuple[Any, ...], shape: Shape) -> Term:
        key = (kind, parts, shape)
        term = self._terms.get(key)
        if term is None:
            term = self._terms[key] = Term(kind, parts, shape, len(self._terms))
        return term

    def outline(self, term: Term) -> Hashable:
        """What is left of a term without its numbers, but for exponents: a function has the same one for all its
        attributes that are not 0, so that another outline needs no trial of theirs."""
        if term not in self._outlines:
            if term.kind == "number":
                outline: Hashable = "number"
            elif term.kind == "add":
                constant, parts = term.parts
                bases = [self.outline(base) for base, _ in parts]
                is_scaled = not constant and len(bases) == 1
                outline = bases[0] if is_scaled else ("add", bool(constant), frozenset(Counter(bases).items()))
            else:
                outline = term.kind, term.shape, self._outlined(term.parts)
            self._outlines[term] = outline
        return self._outlines[term]

    def _outlined(self, part: Any) -> Hashable:
        """Without regard to order: that of terms is by age."""
        if isinstance(part, tuple):
            return frozenset(Counter(map(self._outlined, part)).items())
        return self.outline(part) if isinstance(part, Term) else part

    def snap(self, number: float) -> float:
        """The number that stands for all within the tolerance."""
        for known in self._numbers:
            if known == number and math.copysign(1, known) == math.copysign(1, number):
                return known
            if math.isfinite(known) and known and abs(known - number) <= self.tolerance * abs(known):
                return known
        self._numbers.append(number)
        return number

    def number(self, number: float) -> Term:
        return self.make("number", (self.snap(number),), ())

    def linear(self, term: Term) -> tuple[float, dict[Term, float]]:
        """A term as constant + sum of coefficient * term."""
        if term.kind == "number":
            return term.parts[0], {}
        if term.kind == "add":
            return term.parts[0], dict(term.parts[1])
        return 0.0, {term: 1.0}

    def add(self, terms: Iterable[tuple[float, Term]]) -> Term:
        constant, sums, zeros = 0.0, dict[Term, float](), dict[Term, None]()
        for factor, term in terms:
            summand, parts = self.linear(self.stripped(term))
            constant += factor * summand
            for part, coefficient in parts.items():
                if factor * coefficient == 0.0:
                    zeros[part] = None
                else:
                    sums[part] = sums.get(part, 0.0) + factor * coefficient
        for part in zeros:  # x + 0 * x is not x where x is infinite
            zero = part if sums.get(part, 0.0) == 0.0 else self.make("zero of", (part,), part.shape)
            sums[zero] = 0.0
        return self._sum(constant, sums)

    def _sum(self, constant: float, sums: dict[Term, float]) -> Term:
        if not sums:
            return self.number(constant)
        constant = self.snap(constant) if constant else 0.0
        parts = tuple(sorted(((t, self.snap(c)) for t, c in sums.items()), key=lambda part: part[0].serial))
        if not constant and len(parts) == 1 and parts[0][1] == 1.0:
            return parts[0][0]
        return self.make("add", (constant, parts), broadcast(term.shape for term, _ in parts))

    def factors(self, term: Term) -> tuple[float, dict[Term, float]]:
        """A term as coefficient * product of base ** exponent."""
        if term.kind == "number":
            return term.parts[0], {}
        if term.kind == "mul":
            return 1.0, dict(term.parts)
        if term.kind == "add":
            constant, parts = term.parts
            first = parts[0][1]
            if len(parts) == 1 and not constant:
                coefficient, bases = self.factors(parts[0][0])
                return first * coefficient, bases
            if first not in (0.0, 1.0) and math.isfinite(first):
                return first, {self._sum(constant / first, {t: c / first for t, c in parts}): 1.0}
        return 1.0, {term: 1.0}

    def mul(self, terms: Iterable[Term]) -> Term:
        coefficient, product = 1.0, dict[Term, float]()
        for term in terms:
            factor, bases = self.factors(self.stripped(term))
            coefficient *= factor
            for base, exponent in bases.items():
                if base not in product:
                    product[base] = exponent
                elif _may_add(product[base], exponent):
                    product[base] += exponent
                else:  # x * 1/x is 1 only where x is neither 0 nor infinite: they stay two factors
                    apart = self.make("power", (base, exponent), base.shape)
                    product[apart] = product.get(apart, 0.0) + 1.0
        return self.scaled(coefficient, self._product(product))

    def _product(self, product: dict[Term, float]) -> Term | None:
        if not product:
            return None
        parts = tuple(sorted(((b, self.snap(e)) for b, e in product.items()), key=lambda part: part[0].serial))
        if len(parts) == 1 and parts[0][1] == 1.0:
            return parts[0][0]
        return self.make("mul", parts, broadcast(base.shape for base, _ in parts))

    def scaled(self, coefficient: float, term: Term | None) -> Term:
        """coefficient * term."""
        if term is None:
            return self.number(coefficient)
        constant, parts = self.linear(term)
        return self._sum(coefficient * constant, {part: coefficient * inner for part, inner in parts.items()})

    def power(self, term: Term, exponent: float) -> Term:
        """term ** exponent; exponents merge where that keeps the domain and the sign."""
        coefficient, bases = self.factors(self.stripped(term))
        if float(exponent).is_integer() and (coefficient or exponent > 0):
            powers = {base: inner * exponent for base, inner in bases.items()}
            return self.scaled(_raised(coefficient, exponent), self._product(powers))
        if coefficient > 0 and len(bases) == 1:
            ((base, inner),) = bases.items()
            merges = not float(inner).is_integer() or inner % 2 == 1
            if merges:
                powers = {base: inner * exponent}
            else:
                powers = {self.make("mul", ((base, inner),), base.shape): exponent}
            return self.scaled(_raised(coefficient, exponent), self._product(powers))
        if coefficient > 0 and bases:
            product = self._product(bases)
            assert product is not None
            return self.scaled(_raised(coefficient, exponent), self._product({product: exponent}))
        whole = self.stripped(term)
        return self.make("power", (whole, self.snap(exponent)), whole.shape)

    def pointwise(self, name: str, operands: Sequence[Term], attributes: Hashable, commutative: bool) -> Term:
        parts = [self.stripped(operand) for operand in operands]
        if commutative:
            parts.sort(key=lambda part: part.serial)
        return self.make("pointwise", (name, attributes, *parts), broadcast(part.shape for part in parts))

    # -- views -------------------------------------------------------------------------------------------------

    def stripped(self, term: Term) -> Term:
        """An operand of a pointwise operation: without expansion and without leading axes of size 1."""
        while term.kind == "expand":
            term = term.parts[0]
        lead = 0
        while lead < len(term.shape) and term.shape[lead] == 1:
            lead += 1
        return self.reshaped(term, term.shape[lead:]) if lead else term

    def expanded(self, term: Term, shape: Shape) -> Term:
        if term.kind == "expand":
            term = term.parts[0]
        lacking = len(shape) - len(term.shape)
        if term.kind == "view" and lacking > 0 and shape == (1,) * lacking + term.shape:
            base, _ = term.parts  # pointwise terms view it without leading axes of 1
            if base.shape == shape and self._viewed(term, reshape_map(term.shape, shape), ("reshape",)) is base:
                return base
        return term if term.shape == shape else self.make("expand", (term,), shape)

    def reshaped(self, term: Term, shape: Shape) -> Term:
        if term.shape == shape:
            return term
        if shape == (1,) * (len(shape) - len(term.shape)) + term.shape:
            return self.expanded(term, shape)
        if term.kind == "expand":
            (inner,) = term.parts
            if term.shape == (1,) * (len(term.shape) - len(inner.shape)) + inner.shape:
                return self.reshaped(inner, shape)
        plan = _insertion(term.shape, shape)
        if plan is not None:
            inward = self._inward(term, lambda part, aligned: self.reshaped(part, _inserted(aligned, plan)))
            if inward is not None:
                return self.expanded(inward, shape)
        elif term.kind in ("add", "mul", "pointwise") and self._same_shape(term):
            inward = self._inward(term, lambda part, _: self.reshaped(part, shape))
            assert inward is not None
            return self.expanded(inward, shape)
        return self._viewed(term, reshape_map(term.shape, shape), ("reshape",))

    def transposed(self, term: Term, permutation: tuple[int, ...]) -> Term:
        if permutation == tuple(range(len(permutation))):
            return term
        shape = tuple(term.shape[axis] for axis in permutation)
        inward = self._inward(term, lambda part, aligned: self.transposed(self.reshaped(part, aligned), permutation))
        if inward is not None:
            return self.expanded(inward, shape)
        return self._viewed(term, transpose_map(term.shape, permutation), ("transpose", permutation))

    def _inward(self, term: Term, change: Any) -> Term | None:
        """Apply a view to the parts of a pointwise term; `change` gets each with its shape at the term's rank."""
        rank = len(term.shape)

        def at(part: Term) -> Term:
            aligned = (1,) * (rank - len(part.shape)) + part.shape
            return part if not part.shape else change(part, aligned)

        if term.kind == "add":
            constant, parts = term.parts
            return self.add([(constant, self.number(1.0)), *((c, at(part)) for part, c in parts)])
        if term.kind == "mul":
            return self.mul([self.power(at(base), exponent) for base, exponent in term.parts])
        if term.kind == "power":
            return self.power(at(term.parts[0]), term.parts[1])
        if term.kind == "pointwise":
            name, attributes, *parts = term.parts
            return self.pointwise(name, [at(part) for part in parts], attributes, name in COMMUTATIVE)
        return None

    def _same_shape(self, term: Term) -> bool:
        if term.kind == "pointwise":
            parts = list(term.parts[2:])
        else:
            parts = [part for part, _ in (term.parts[1] if term.kind == "add" else term.parts)]
        return all(not part.shape or part.shape == term.shape for part in parts)

    def _viewed(self, term: Term, step: IndexMap, otherwise: Hashable) -> Term:
        """A view of a term: of the term's base, where it is known. `otherwise` distinguishes other views."""
        whole, inner = term.shape, term
        if term.kind == "expand" and whole == (1,) * (len(whole) - len(term.parts[0].shape)) + term.parts[0].shape:
            (inner,) = term.parts  # it only adds axes of size 1, as a reshape would
        base, view = inner.parts if inner.kind == "view" else (inner, identity_map(inner.shape))
        view = None if is_empty(base.shape) else compose(reshape_map(inner.shape, whole), view)
        composed = None if view is None else compose(step, view)
        if composed is None:
            return self.make("moved", (term, otherwise), step.shape)
        if composed.is_reshape and base.shape == step.shape:
            return base
        return self.make("view", (base, composed), step.shape)

    # -- reductions and products -------------------------------------------------------------------------------

    def reduced(self, name: str, term: Term, axes: tuple[int, ...]) -> Term:
        """A reduction that keeps dims, over the last axes of a transposed operand; numbers leave a sum."""
        rank = len(term.shape)
        order = (*(axis for axis in range(rank) if axis not in axes), *axes)
        if order != tuple(range(rank)):
            last = self.reduced(name, self.transposed(term, order), tuple(range(rank - len(axes), rank)))
            return self.transposed(last, tuple(order.index(axis) for axis in range(rank)))
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(term.shape))
        if name == "reduce_sum":
            whole = term.parts[0] if term.kind == "expand" else term
            coefficient, inner = self._content(whole)
            return self._times(coefficient, self.make(name, (self.expanded(inner, term.shape), axes), shape))
        return self.make(name, (term, axes), shape)

    def _content(self, term: Term) -> tuple[float, Term]:
        """The number that a term of one summand is multiplied by, and the rest."""
        if term.kind == "add" and not term.parts[0] and len(term.parts[1]) == 1:
            ((inner, coefficient),) = term.parts[1]
            return coefficient, inner
        return 1.0, term

    def dot(self, x: Term, y: Term, batch: tuple[tuple[int, int], ...], contract: tuple[tuple[int, int], ...]) -> Term:
        sides, coefficients = [], []
        for side, term, last in ((0, x, True), (1, y, False)):
            both = [pair[side] for pair in batch]
            summed = [pair[side] for pair in contract]
            free = [axis for axis in range(len(term.shape)) if axis not in both and axis not in summed]
            order = tuple([*both, *free, *summed] if last else [*both, *summed, *free])
            whole = term.parts[0] if term.kind == "expand" else term
            coefficient, inner = self._content(whole)
            coefficients.append(coefficient)
            sides.append(self.transposed(self.expanded(inner, term.shape), order))
        counts = len(batch), len(contract)
        shape = sides[0].shape[: len(sides[0].shape) - counts[1]] + sides[1].shape[counts[0] + counts[1] :]
        return self._times(math.prod(coefficients), self.make("dot", (*sides, *counts), shape))

    def _times(self, coefficient: float, term: Term) -> Term:
        """A term multiplied by a number, as a product of two terms is written."""
        if coefficient == 1.0:
            return term
        return self.expanded(self.scaled(coefficient, self.stripped(term)), term.shape)

    # -- from operations ---------------------------------------------------------------------------------------

    def term(self, value: Value) -> Term:
        """The normal form of a value, down to the bound ones."""
        term = self._values.get(value)
        if term is None:
            term = self._values[value] = self._of_result(value)
        return term

    def _of_result(self, value: Value) -> Term:
        operation = value.operation
        if operation is None or operation.regions or not all(result.type.is_ranked for result in operation.results):
            return self.make("leaf", (value,), value.shape)
        definition: Any = operation.definition
        if definition is const:
            number = constant_of(value)
            if number is None or value.dtype.kind == "complex":
                return self.make("leaf", (value,), value.shape)
            return self.expanded(self.number(float(number)), value.shape)
        if definition.is_named:
            return self.of_body(operation.body(), [self.term(operand) for operand in operation.inputs])[value.index]
        if definition.pointwise is not None:
            return self.expanded(self._of_pointwise(operation), value.shape)
        return self._of_other(operation, value)

    def of_body(self, body: Any, operands: Sequence[Term]) -> list[Term]:
        """The terms that a body returns on these operands. Bodies are shared, so nothing of it is kept."""
        inner = Normalizer(self.tolerance)
        inner._terms, inner._numbers = self._terms, self._numbers
        for argument, operand in zip(body.arguments, operands, strict=True):
            inner.bind(argument, operand)
        return [inner.term(value) for value in body.returned]

    def _of_pointwise(self, operation: Operation) -> Term:
        name, result = operation.name, operation.results[0]
        terms = [self.term(operand) for operand in operation.inputs]
        is_float = all(value.dtype.is_float for value in (*operation.inputs, result))
        if name == "cast" and is_float and {operation.inputs[0].dtype.name, result.dtype.name} <= set(ROUNDED):
            narrow = operation.inputs[0].dtype
            return self.pointwise("round", terms, (narrow.name,), False) if rounds(operation) else terms[0]
        if is_float:
            if name in ("add", "sub"):
                return self.add([(1.0, terms[0]), (1.0 if name == "add" else -1.0, terms[1])])
            if name == "neg":
                return self.add([(-1.0, terms[0])])
            if name == "mul":
                return self.mul(terms)
            if name == "div":
                return self.mul([terms[0], self.power(terms[1], -1.0)])
            if name == "sqrt":
                return self.power(terms[0], 0.5)
            if name == "pow" and self.stripped(terms[1]).kind == "number":
                return self.power(terms[0], self.stripped(terms[1]).parts[0])
        attributes = (result.dtype.name, attribute_key(operation.attributes))
        return self.pointwise(name, terms, attributes, name in COMMUTATIVE)

    def _of_other(self, operation: Operation, value: Value) -> Term:
        name, attributes = operation.name, operation.attributes
        terms = [self.term(operand) for operand in operation.inputs]
        if name == "reshape":
            return self.reshaped(terms[0], value.shape)
        if name == "expand":
            return self.expanded(terms[0], value.shape)
        if name == "transpose":
            rank = value.rank
            return self.transposed(terms[0], tuple(axis % rank for axis in attributes["permutation"]))
        reduction = operation.definition.reduction
        if reduction is not None and not reduction.finds_index and operation.inputs[0].dtype.is_float:
            rank = max(operation.inputs[0].rank, 1)
            axes = tuple(sorted(axis % rank for axis in attributes["axes"]))
            return self.reshaped(self.reduced(name, terms[0], axes), value.shape)
        if name == "iota":  # one along an axis of its own is that of a vector, as torch.arange gives, in a view
            axis = attributes["axis"] % value.rank
            counting = self.make("other", (name, value.dtype.name), (value.shape[axis],))
            along = tuple(size if each == axis else 1 for each, size in enumerate(value.shape))
            return self.expanded(self.reshaped(counting, along), value.shape)
        if name == "dot" and value.dtype.is_float:
            return self.dot(terms[0], terms[1], attributes["batch"], attributes["contract"])
        absent = tuple(operand is None for operand in operation.operands)
        parts = (name, attribute_key(attributes), absent, value.index, value.dtype.name, *terms)
        return self.make("other", parts, value.shape)


COMMUTATIVE = ("minimum", "maximum", "equal", "not_equal", "bitwise_and", "bitwise_or", "bitwise_xor", "add", "mul")


def rounds(cast: Operation) -> bool:
    """Whether a cast to a wider float reads a cast from one, between which nothing computes."""
    inner = cast.inputs[0].operation
    while inner is not None and inner.name in ("reshape", "transpose", "expand"):
        inner = inner.inputs[0].operation
    if inner is None or inner.name != "cast" or not inner.inputs[0].dtype.is_float:
        return False
    wide, narrow, origin = cast.result.dtype, inner.result.dtype, inner.inputs[0].dtype
    return dtypes.holds(wide, narrow) and not dtypes.holds(narrow, origin)


def broadcast(shapes: Iterable[Shape]) -> Shape:
    """The common shape of terms, aligned at the last axis."""
    result: Shape = ()
    for shape in shapes:
        if shape == result or not shape:
            continue
        rank = max(len(result), len(shape))
        pairs = zip((1,) * (rank - len(result)) + result, (1,) * (rank - len(shape)) + shape, strict=True)
        result = tuple(dims.broadcast(a, b) for a, b in pairs)
    return result


def _may_add(a: float, b: float) -> bool:
    """Whether x**a * x**b is x**(a + b) on the same domain."""
    if (a < 0) != (b < 0):
        return False
    return (a.is_integer() and b.is_integer()) or not float(a + b).is_integer()


def _raised(number: float, exponent: float) -> float:
    try:
        return float(number**exponent)
    except OverflowError:
        return math.inf


Plan = tuple["int | None", ...]


def _insertion(before: Shape, after: Shape) -> Plan | None:
    """Which axis of `before` each axis of `after` is, None for a new axis of size 1; None unless only axes of size 1
    come and go."""
    if [size for size in before if size != 1] != [size for size in after if size != 1]:
        return None
    large = iter(axis for axis, size in enumerate(before) if size != 1)
    return tuple(None if size == 1 else next(large) for size in after)


def _inserted(shape: Shape, plan: Plan) -> Shape:
    return tuple(1 if axis is None else shape[axis] for axis in plan)
