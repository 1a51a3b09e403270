"""Operations of several operands: candidates by the skeleton of a form.

The skeleton of a form is what all its variants have in common: its hard operations (those that signatures count:
products, softmax, selections), and which of these and of the form's arguments each operand depends on. Soft operations
(arithmetic, casts, views, `SOFT`) may be anywhere between them. A skeleton is matched from a root towards its operands;
the values that match its arguments are the operands of a candidate, which `_raise_proof` proves or rejects. Start
reading at `matching_operation`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from irc.dims import DimError
from irc.ir import Operation, Value
from irc.op import OperationDefinition
from irc.ops import attention
from irc.passes._normal_form import Normalizer, Term
from irc.passes._raise_forms import Form, forms_of, signature
from irc.passes._raise_proof import Candidate, Operand, Proof, attribute_choices, prove
from irc.pattern import constant_of, tolerance_of

Q, K, V, SCORES = "f32[B, H, S, D]", "f32[B, H, T, D]", "f32[B, H, T, E]", "[B, H, S, T]"

# Operations that are raised, with sample types of their operands.
OPERATIONS: dict[OperationDefinition, tuple[tuple[str, ...], ...]] = {
    attention: ((Q, K, V), (Q, K, V, f"f32{SCORES}"), (Q, K, V, f"bool{SCORES}")),
}

MOST_SOFT = 40  # soft operations before an operand, and in all between the hard ones: terms are made by recursion

Permutation = tuple[int, ...]


# -- skeletons -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Region:
    """The hard operations and arguments, by number, on which an operand of a hard operation depends via soft ones."""

    operations: tuple[int, ...] = ()
    arguments: tuple[int, ...] = ()


@dataclass(frozen=True)
class Skeleton:
    """The hard operations of a form, the root first, and the region of each of their operands."""

    form: Form
    kinds: tuple[str, ...]
    regions: dict[tuple[int, int], Region]  # by hard operation and operand
    reads: tuple[Permutation | None, ...]  # the transpose through which the form reads each argument, if there is one


@lru_cache(maxsize=1)
def skeletons() -> dict[str, list[Skeleton]]:
    """The skeletons of all forms by the kind of their root, large ones first: they replace the most operations."""
    table: dict[str, list[Skeleton]] = {}
    for definition, samples in OPERATIONS.items():
        for form in (form for types in samples for form in forms_of(definition, types)):
            skeleton = skeleton_of(form)
            table.setdefault(skeleton.kinds[0], []).append(skeleton)
    return {root: sorted(known, key=lambda skeleton: -len(skeleton.kinds)) for root, known in table.items()}


def skeleton_of(form: Form) -> Skeleton:
    body = form.sample()
    (result,) = body.returned
    root = result.operation
    assert root is not None and kind_of(root) is not None, f"{form} has no hard operation as its root"
    numbers, regions = {root: 0}, {}
    operations = [root]
    for number, operation in enumerate(operations):  # which grows
        for position, value in enumerate(operation.operands):
            if value is None:
                continue
            seen = Surroundings(value)
            for each in seen.hard:
                if each not in numbers:
                    numbers[each] = len(operations)
                    operations.append(each)
            arguments = tuple(end.index for end in seen.ends)
            regions[number, position] = Region(tuple(numbers[each] for each in seen.hard), arguments)
    normalizer = Normalizer()
    leaves = [normalizer.bind(argument) for argument in body.arguments]
    reads = permutations(normalizer.term(result), leaves)
    return Skeleton(form, tuple(str(kind_of(each)) for each in operations), regions, tuple(reads))


def kind_of(operation: Operation) -> str | None:
    """The kind of a hard operation: a primitive's name, also of a named operation that is one primitive and soft
    operations, such as matmul; the name of any other. None for a soft operation. None of unknown rank is matched."""
    if not all(result.type.is_ranked for result in operation.results):
        return "unranked"
    if operation.regions or operation.symbols:
        return operation.name
    counted = signature(operation)
    if counted.total() == 1:
        return next(iter(counted))
    return operation.name if counted else None


class Surroundings:
    """The operations that a value is computed by, through soft operations of its block, the nearest first.

    `kinds` has them all, the hard ones at the boundary included; `ends` are values without a producer in the block.
    """

    def __init__(self, value: Value) -> None:
        self.kinds: dict[Operation, str | None] = {}
        self.readers: dict[Operation, Operation | None] = {}  # the soft operation that reads each; None for the first
        self.ends: dict[Value, None] = {}
        block = value.operation.block if value.operation is not None else None
        pending: list[tuple[Value, Operation | None]] = [(value, None)]
        for current, reader in pending:  # which grows
            operation = current.operation
            if operation is None or operation.block is not block:
                self.ends[current] = None
            elif operation not in self.kinds and len(self.kinds) < MOST_SOFT:
                self.kinds[operation], self.readers[operation] = kind_of(operation), reader
                if self.kinds[operation] is None:
                    pending += [(read, operation) for read in operation.inputs]

    @property
    def hard(self) -> Iterator[Operation]:
        return (operation for operation, kind in self.kinds.items() if kind is not None)

    def path_to(self, operation: Operation) -> list[Operation]:
        """The soft operations between the value and an operation."""
        path = []
        reader = self.readers[operation]
        while reader is not None:
            path.append(reader)
            reader = self.readers[reader]
        return path


def is_number(value: Value) -> bool:
    """Whether a value is one number everywhere: a constant, or computed from constants and dims."""
    if constant_of(value) is not None:
        return True
    if value.operation is None or not value.type.is_ranked or value.rank:
        return False
    seen = Surroundings(value)
    return not seen.ends and len(seen.kinds) < MOST_SOFT and next(seen.hard, None) is None


# -- matching --------------------------------------------------------------------------------------------------


@dataclass
class Match:
    """What is matched so far: the hard operations of a skeleton, by number, and the soft operations between them."""

    hard: dict[int, Operation]
    between: dict[Operation, None] = field(default_factory=dict)


class SkeletonMatcher:
    """Matches skeletons to what a root reads, remembering the surroundings of values."""

    def __init__(self, root: Operation) -> None:
        self.root = root
        self.surroundings: dict[Value, Surroundings] = {}

    def leaves(self, skeleton: Skeleton) -> Iterator[tuple[Value, ...]]:
        """The values of the graph that may stand for the arguments of the form."""
        match = Match({0: self.root})
        groups: list[tuple[tuple[int, ...], Sequence[Value]]] = []
        pending = [0]
        for number in pending:  # which grows
            for position, value in enumerate(match.hard[number].operands):
                region = skeleton.regions.get((number, position), Region())
                values = () if value is None else self._values_beside(region, value, skeleton, match)
                if values is None or len(values) != len(region.arguments) or len(match.between) > MOST_SOFT:
                    return
                groups.append((region.arguments, values))
                pending += [other for other in region.operations if other not in pending]
        for orders in itertools.product(*(itertools.permutations(values) for _, values in groups)):
            leaves: dict[int, Value] = {}
            pairs = (pair for (arguments, _), order in zip(groups, orders, strict=True)
                     for pair in zip(arguments, order, strict=True))  # fmt: skip
            if all(leaves.setdefault(argument, value) is value and value.type.is_ranked for argument, value in pairs):
                yield tuple(leaves[argument] for argument in range(len(leaves)))

    def _values_beside(self, region: Region, value: Value, skeleton: Skeleton, match: Match) -> Sequence[Value] | None:
        """The values that soft operations combine with the region's hard operations, which are added to the match; None
        where one of these is missing."""
        if not region.operations:
            return [value] if region.arguments or not is_number(value) else []
        if value not in self.surroundings:
            self.surroundings[value] = Surroundings(value)
        seen = self.surroundings[value]
        path: dict[Operation, None] = {}
        for number in region.operations:
            if number not in match.hard:
                alike = (each for each, kind in seen.kinds.items() if kind == skeleton.kinds[number])
                nearest = next((each for each in alike if each not in match.hard.values()), None)
                if nearest is None:
                    return None
                match.hard[number] = nearest
            if match.hard[number] not in seen.kinds:
                return None
            path |= dict.fromkeys(seen.path_to(match.hard[number]))
        match.between |= path
        inside = {*path, *(match.hard[number] for number in region.operations)}
        read = (each for operation in path for each in operation.inputs)
        return list(dict.fromkeys(each for each in read if each.operation not in inside and not is_number(each)))


# -- proving ---------------------------------------------------------------------------------------------------


def matching_operation(root: Operation, chosen: frozenset[OperationDefinition]) -> Proof | None:
    """The chosen operation of several operands that `root` computes."""
    if not root.result.dtype.is_float:
        return None
    matcher = SkeletonMatcher(root)
    for skeleton in skeletons().get(kind_of(root) or "", ()):
        if skeleton.form.definition in chosen:
            for leaves in matcher.leaves(skeleton):
                proof = _prove_on_leaves(skeleton, leaves, root)
                if proof is not None:
                    return _without_scalings(proof, skeleton, leaves, root)
    return None


def _prove_on_leaves(skeleton: Skeleton, leaves: Sequence[Value], root: Operation) -> Proof | None:
    """The form on these leaves, transposed so that it reads them as the graph does."""
    normalizer = Normalizer(tolerance_of(root.result.dtype.bits))
    terms = [normalizer.bind(leaf) for leaf in leaves]
    try:
        required = normalizer.term(root.result)
    except DimError:
        return None
    aligned = map(_alignment, skeleton.reads, permutations(required, terms))
    operands = tuple(Operand(leaf, permutation) for leaf, permutation in zip(leaves, aligned, strict=True))
    choices = attribute_choices(skeleton.form, coefficients(required))
    return prove(Candidate(skeleton.form, operands), choices, root, normalizer, required)


def _without_scalings(proof: Proof, skeleton: Skeleton, leaves: tuple[Value, ...], root: Operation) -> Proof:
    """The same operation on leaves before they are multiplied by numbers, where an attribute can express these."""
    for index in range(len(leaves)):
        unscaled = _unscaled(leaves[index])
        if unscaled is not leaves[index]:
            nearer = (*leaves[:index], unscaled, *leaves[index + 1 :])
            again = _prove_on_leaves(skeleton, nearer, root)
            if again is not None:
                proof, leaves = again, nearer
    return proof


def _unscaled(value: Value) -> Value:
    """The value that this one is a multiple of by numbers."""
    for _ in range(MOST_SOFT):
        operation = value.operation
        if operation is None or operation.name not in ("mul", "div"):
            break
        x, y = operation.inputs
        if constant_of(y) is not None and x.type == value.type:
            value = x
        elif operation.name == "mul" and constant_of(x) is not None and y.type == value.type:
            value = y
        else:
            break
    return value


def _alignment(form: Permutation | None, graph: Permutation | None) -> Permutation | None:
    """The transpose of a leaf after which the form's read of it is that of the graph."""
    if form is None or graph is None or form == graph or len(form) != len(graph):
        return None
    axes = dict(zip(form, graph, strict=True))
    return tuple(axes[axis] for axis in range(len(axes)))


# -- terms -----------------------------------------------------------------------------------------------------


def permutations(term: Term, leaves: Sequence[Term]) -> list[Permutation | None]:
    """For each leaf the one transpose through which a term reads it, None where it is read otherwise."""
    reads: dict[Term, set[Permutation | None]] = {leaf: set() for leaf in leaves}
    for part in subterms(term, leaves):
        base, view = part.parts if part.kind == "view" else (part, None)
        if base in reads:
            reads[base].add(tuple(range(len(base.shape))) if view is None else view.permutation)
    return [next(iter(reads[leaf])) if len(reads[leaf]) == 1 else None for leaf in leaves]


def coefficients(term: Term) -> list[float]:
    """The numbers by which a term multiplies others."""
    sums = (part.parts[1] for part in subterms(term) if part.kind == "add")
    return list(dict.fromkeys(coefficient for parts in sums for _, coefficient in parts))


def subterms(term: Term, leaves: Sequence[Term] = ()) -> Iterator[Term]:
    """A term and those in it, each once; views of leaves count as one."""
    pending: list[Any] = [term]
    seen: set[Term] = set()
    while pending:
        part = pending.pop()
        if isinstance(part, tuple):
            pending += part
        elif isinstance(part, Term) and part not in seen:
            seen.add(part)
            yield part
            if part not in leaves and not (part.kind == "view" and part.parts[0] in leaves):
                pending += part.parts
