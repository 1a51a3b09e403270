"""The prover: whether a form, on operands of a graph, computes what an operation of the graph computes.

A candidate names the operands; `prove` looks for attributes with which both have one normal form over the reals
(`_normal_form`), and `build` creates the named operation that was proven. Where candidates come from is up to
`_raise_functions` and `_raise_skeletons`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args

from irc.diagnostics import IrcError
from irc.dims import Dim, DimError
from irc.ir import Operation, Value
from irc.op import Builder, OperationDefinition
from irc.ops import reshape, transpose
from irc.passes._normal_form import Normalizer, Term
from irc.passes._raise_forms import Form
from irc.types import TensorType


@dataclass(frozen=True)
class Operand:
    """A value of the graph as an operand of the form: transposed, where there is a permutation, then reshaped."""

    value: Value
    permutation: tuple[int, ...] | None = None
    shape: tuple[Dim, ...] | None = None

    @property
    def type(self) -> TensorType:
        shape = self.value.shape
        if self.permutation is not None:
            shape = tuple(shape[axis] for axis in self.permutation)
        return self.value.type.with_shape(shape if self.shape is None else self.shape)

    def term(self, normalizer: Normalizer) -> Term:
        term = normalizer.term(self.value)
        if self.permutation is not None:
            term = normalizer.transposed(term, self.permutation)
        return term if self.shape is None else normalizer.reshaped(term, self.shape)

    def build(self) -> Value:
        value = self.value if self.permutation is None else transpose(self.value, permutation=self.permutation)
        return value if self.shape is None or value.shape == self.shape else reshape(value, shape=self.shape)


@dataclass(frozen=True)
class Candidate:
    """A form on operands. Its result, transposed by `permutation` where there is one, may be what a root computes."""

    form: Form
    operands: tuple[Operand, ...]
    permutation: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Proof:
    """A candidate and attributes with which it computes what the root does."""

    candidate: Candidate
    attributes: dict[str, Any]

    @property
    def definition(self) -> OperationDefinition:
        return self.candidate.form.definition


def prove(
    candidate: Candidate, choices: Iterable[dict[str, Any]], root: Operation, normalizer: Normalizer, required: Term
) -> Proof | None:
    """The first of these attributes with which the candidate has the root's normal form, `required`."""
    types = [operand.type for operand in candidate.operands]
    rejected: set[Hashable] = set()  # attributes, but for floats, with which no floats will do
    for attributes in choices:
        plain = tuple(item for item in attributes.items() if not isinstance(item[1], float))
        if plain in rejected:
            continue
        try:
            body = candidate.form.body(types, attributes)
            (term,) = normalizer.of_body(body, [operand.term(normalizer) for operand in candidate.operands])
            if candidate.permutation is not None:
                term = normalizer.transposed(term, candidate.permutation)
        except (IrcError, DimError):
            continue  # the operation does not accept these operands or attributes
        if term is required and body.returned[0].dtype is root.result.dtype:
            return Proof(candidate, attributes)
        if normalizer.outline(term) != normalizer.outline(required):
            rejected.add(plain)
    return None


def build(root: Operation, proof: Proof) -> Value:
    """The value that replaces the root's result, computed by the named operation before the root."""
    definition, permutation = proof.definition, proof.candidate.permutation
    with Builder.before_operation(root, root.location.by(f"raise({definition.name})")):
        operands = [operand.build() for operand in proof.candidate.operands]
        name = "" if permutation is None else root.result.name  # the transpose back may cancel with another one
        result: Value = definition(*operands, name=name, **proof.attributes)
        return result if permutation is None else transpose(result, permutation=permutation)


def attribute_choices(
    form: Form, numbers: Sequence[Any], axes: Sequence[tuple[int, ...]] = (), last: int = -1
) -> Iterator[dict[str, Any]]:
    """Attributes to try: floats among `numbers`, axes among `axes`, and `last` for an axis where there are none."""
    fixed = dict(form.fixed)
    choices: list[list[tuple[str, Any]]] = []
    for name, spec in form.definition.attribute_specs.items():
        if name in fixed:
            continue
        if name == "axis":
            values: list[Any] = [each[0] for each in axes if each] or [last]
        elif name == "axes":
            values = list(axes)
        elif spec.annotation is float:
            values = close_to(float(spec.default), numbers)
        elif set(get_args(spec.annotation)) == {float, NoneType}:
            values = [None, *close_to(1.0, [1.0, *numbers])]
        else:
            values = [spec.default]
        choices.append([(name, value) for value in dict.fromkeys(values)])
    for combination in itertools.product(*choices):
        yield {**fixed, **dict(combination)}


def close_to(default: float, numbers: Iterable[Any]) -> list[float]:
    """The default, then the numbers, the nearest in magnitude first, with the fewest digits that denote them."""
    distinct = {float(str(number)) for number in numbers if float(number) and math.isfinite(float(number))}
    if not default:
        return [default, *sorted(distinct)]
    return [default, *sorted(distinct, key=lambda n: (abs(math.log(abs(n) / abs(default))), n))]
