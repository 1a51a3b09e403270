"""Forms: the ways to write a named operation, which `raise` recognizes in a graph.

A form is the body of the operation, or one of its spellings, with the attributes fixed that decide on its structure
(those with a list of values, and bools). The signature of a form, or of a subgraph, counts the operations that differ
between functions, not between spellings of one. Subgraphs and forms of equal signature are worth comparing.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args, get_origin

from irc.ir import Definition, Function, Operation
from irc.op import OperationDefinition, const, trace
from irc.passes._normal_form import SOFT
from irc.types import TensorType


@dataclass(frozen=True)
class Form:
    """The body of a named operation (`spelling` is None) or a spelling of it, with some attributes fixed, at sample
    types of its operands."""

    definition: OperationDefinition
    spelling: int | None
    fixed: tuple[tuple[str, Any], ...]
    samples: tuple[str, ...]

    def body(self, types: Sequence[TensorType], attributes: dict[str, Any]) -> Function:
        """The form, traced. Raises an IrcError where the operation does not accept these types or attributes."""
        normalized = self.definition.normalize(attributes)
        self.definition.infer(types, normalized)  # a body may assume what the type rule checks
        return self.definition.body(types, normalized, self.spelling)

    def sample(self) -> Function:
        """The form at its sample types, with a default for each attribute that is not fixed."""
        arguments = trace(lambda *values: values, *self.samples).main.arguments
        required = {"axes": (1,)} if "axes" in self.definition.attribute_specs else {}
        return self.body([argument.type for argument in arguments], {**required, **dict(self.fixed)})


def forms_of(definition: OperationDefinition, samples: Sequence[str]) -> Iterator[Form]:
    """Every form of an operation on operands of these types."""
    choices = [
        (name, (False, True) if spec.annotation is bool else get_args(spec.annotation))
        for name, spec in definition.attribute_specs.items()
        if spec.annotation is bool or get_origin(spec.annotation) is Literal
    ]
    for fixed in itertools.product(*([(name, value) for value in values] for name, values in choices)):
        for spelling in (None, *range(len(definition.spellings))):
            yield Form(definition, spelling, fixed, tuple(samples))


@lru_cache(maxsize=1024)  # bodies are shared by all operations of the same types and attributes
def signature_of_body(body: Function) -> Counter[str]:
    """The signature of a body, in which an operation that is written twice counts once. Do not edit it."""
    total: Counter[str] = Counter()
    seen: set[Any] = set()
    for operation in body.block:
        key = (operation.definition, tuple(operation.operands), tuple(operation.attributes.items()))
        if operation.definition is const or key not in seen:
            seen.add(key)
            total += signature(operation)
    return total


def signature(operation: Operation) -> Counter[str]:
    """The signature of one operation: that of the body, where it is a named one."""
    if operation.name in SOFT:
        return Counter()
    if operation.definition.is_named and operation.results[0].type.is_ranked:
        return signature_of_body(operation.body())
    return Counter({operation.name: 1})


def named_within(operations: Iterable[Operation]) -> set[Definition]:
    """The named operations among these, and those in their bodies."""
    named: set[Definition] = set()
    for operation in operations:
        if operation.definition.is_named:
            named |= {operation.definition, *named_within(operation.body().block)}
    return named
