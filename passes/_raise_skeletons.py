"""Raising operations of several operands, such as attention: candidates from skeletons of forms.

A form (`_raise_forms`) is one way to write a named operation in primitives. Its *hard* operations (products, softmax,
selections) are in every equivalent way to write it; *soft* operations (arithmetic, casts, views: `SOFT`) differ. The
skeleton of a form has its hard operations, and for each operand of these the hard operations and arguments of the form
from which soft operations compute the operand.

A skeleton is matched in a graph from a root operation, the last of the form, against the operations that compute its
operands. The values of the graph that take the place of the form's arguments are the operands of a candidate, which
`_raise_proof` proves or rejects: a match need not be correct. Start at `matching_operation`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from irc.dims import DimError
from irc.ir import Block, Operation, Value
from irc.op import OperationDefinition
from irc.ops import attention
from irc.passes._normal_form import Normalizer, Term
from irc.passes._raise_forms import Form, forms_of, signature
from irc.passes._raise_proof import Candidate, Operand, Proof, attribute_choices, prove
from irc.pattern import constant_of, tolerance_of

Q, K, V, SCORES = "f32[B, H, S, D]", "f32[B, H, T, D]", "f32[B, H, T, E]", "[B, H, S, T]"

# The operations that are matched, each with sample types of its operands: without a mask, with a float, a bool mask.
OPERATIONS: dict[OperationDefinition, tuple[tuple[str, ...], ...]] = {
    attention: ((Q, K, V), (Q, K, V, f"f32{SCORES}"), (Q, K, V, f"bool{SCORES}")),
}

# Limit on the soft operations before one operand, and on those between all hard ones: terms are built recursively.
MOST_SOFT = 40

Permutation = tuple[int, ...]


# -- skeletons -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Region:
    """The hard operations, by number, and the arguments, by position, from which soft operations compute an operand of
    a hard operation."""

    operations: tuple[int, ...] = ()
    arguments: tuple[int, ...] = ()


@dataclass(frozen=True)
class Skeleton:
    """The hard operations of a form, numbered from the root, which is 0.

    kinds: the kind of each hard operation (`kind_of`).
    regions: by hard operation and position of an operand, what that operand is computed from.
    """

    form: Form
    kinds: tuple[str, ...]
    regions: dict[tuple[int, int], Region]

    @cached_property
    def reads(self) -> tuple[Permutation | None, ...]:
        """For each argument the transpose through which the form reads it; None where there is no single one."""
        body, normalizer = self.form.sample(), Normalizer()
        leaves = [normalizer.bind(argument) for argument in body.arguments]
        return tuple(permutations(normalizer.term(*body.returned), leaves))


@lru_cache(maxsize=1)
def skeletons() -> dict[str, list[Skeleton]]:
    """The skeletons of all forms by the kind of their root, those of most hard operations first: what they prove
    replaces the most operations."""
    table: dict[str, list[Skeleton]] = {}
    for definition, samples in OPERATIONS.items():
        for form in (form for types in samples for form in forms_of(definition, types)):
            skeleton = skeleton_of(form)
            root, before = first_kinds(definition)
            assert skeleton.kinds[0] == root and before <= {*skeleton.kinds[1:]}, f"{form} lacks some of these"
            table.setdefault(skeleton.kinds[0], []).append(skeleton)
    return {root: sorted(group, key=lambda skeleton: -len(skeleton.kinds)) for root, group in table.items()}


@lru_cache(maxsize=64)
def first_kinds(definition: OperationDefinition) -> tuple[str, frozenset[str]]:
    """The kind of the root of an operation's first form, and the kinds of the hard operations before it: those that
    every other form has too."""
    first, *_ = forms_of(definition, OPERATIONS[definition][0])
    root, *others = skeleton_of(first).kinds
    return root, frozenset(others)


def possible_operations(block: Block, chosen: frozenset[OperationDefinition]) -> frozenset[OperationDefinition]:
    """Those of the chosen operations whose hard operations lie before a possible root in the block. In a block with
    none of these the forms need not be traced, which takes longer than all else for a small model."""
    return frozenset(each for each in OPERATIONS if each in chosen and _has_chain(block, *first_kinds(each)))


def _has_chain(block: Block, root: str, others: frozenset[str]) -> bool:
    """Whether the block computes the operand of an operation of kind `root` from operations of all other kinds."""
    computed_from: dict[Operation, frozenset[str]] = {}
    for operation in block:
        reads = (value.operation for value in operation.inputs)
        before = frozenset[str]().union(*(computed_from.get(each, ()) for each in reads if each is not None))
        kind = kind_of(operation)
        if kind == root and others <= before:
            return True
        computed_from[operation] = before | {kind} if kind in others else before
    return False


def skeleton_of(form: Form) -> Skeleton:
    """The skeleton of a form, which must end in a hard operation."""
    body = form.sample()
    (result,) = body.returned
    root = result.operation
    assert root is not None and kind_of(root) is not None, f"{form} has no hard operation as its root"
    numbers, regions = {root: 0}, {}
    operations = [root]
    for number, operation in enumerate(operations):  # the loop appends to the list
        for position, value in enumerate(operation.operands):
            if value is None:
                continue
            sources = Surroundings(value)
            for each in sources.hard:
                if each not in numbers:
                    numbers[each] = len(operations)
                    operations.append(each)
            arguments = tuple(end.index for end in sources.ends)
            regions[number, position] = Region(tuple(numbers[each] for each in sources.hard), arguments)
    return Skeleton(form, tuple(str(kind_of(each)) for each in operations), regions)


def kind_of(operation: Operation) -> str | None:
    """The kind of a hard operation, None for a soft one.

    The kind is the operation's name, but for a named operation whose body has one hard primitive besides soft
    operations, such as matmul, the name of that primitive. An operation with a result of unknown rank has the kind
    "unranked", which no skeleton has.
    """
    if not all(result.type.is_ranked for result in operation.results):
        return "unranked"
    if operation.regions or operation.symbols:
        return operation.name
    counted = signature(operation)
    if counted.total() == 1:
        return next(iter(counted))
    return operation.name if counted else None


class Surroundings:
    """The operations of its block that compute a value, the nearest first, up to and including the first hard one on
    each path; at most `MOST_SOFT` of them.

    kinds: the kind of each (`kind_of`). readers: for each the operation that reads it on the path from the value, None
        for the value's producer. ends: the values on these paths that the block does not compute.
    """

    def __init__(self, value: Value) -> None:
        self.kinds: dict[Operation, str | None] = {}
        self.readers: dict[Operation, Operation | None] = {}
        self.ends: dict[Value, None] = {}
        block = value.operation.block if value.operation is not None else None
        pending: list[tuple[Value, Operation | None]] = [(value, None)]
        for current, reader in pending:  # the loop appends to the list
            operation = current.operation
            if operation is None or operation.block is not block:
                self.ends[current] = None
            elif operation not in self.kinds and len(self.kinds) < MOST_SOFT:
                self.kinds[operation], self.readers[operation] = kind_of(operation), reader
                if self.kinds[operation] is None:
                    pending += [(read, operation) for read in operation.inputs]

    @property
    def hard(self) -> Iterator[Operation]:
        """The hard operations."""
        return (operation for operation, kind in self.kinds.items() if kind is not None)

    def path_to(self, operation: Operation) -> list[Operation]:
        """The soft operations on the path from the value to one of the operations, the nearest to this first."""
        path = []
        reader = self.readers[operation]
        while reader is not None:
            path.append(reader)
            reader = self.readers[reader]
        return path


def is_number(value: Value) -> bool:
    """Whether a value is a number of the form rather than an operand: a constant of one repeated element, or a scalar
    that soft operations compute from constants and dims."""
    if constant_of(value) is not None:
        return True
    if value.operation is None or not value.type.is_ranked or value.rank:
        return False
    sources = Surroundings(value)
    return not sources.ends and len(sources.kinds) < MOST_SOFT and next(sources.hard, None) is None


# -- matching --------------------------------------------------------------------------------------------------


@dataclass
class Match:
    """A partial match of a skeleton: the graph's operations that match its hard operations, by number, and the soft
    operations on paths between these."""

    hard: dict[int, Operation]
    between: dict[Operation, None] = field(default_factory=dict)


class SkeletonMatcher:
    """Matches skeletons against the operations before one root; caches the surroundings of values."""

    def __init__(self, root: Operation) -> None:
        self.root = root
        self.surroundings: dict[Value, Surroundings] = {}

    def leaves(self, skeleton: Skeleton) -> Iterator[tuple[Value, ...]]:
        """The values of the graph that may take the place of the form's arguments, in the order of these: for each
        match of the skeleton every assignment, since soft operations may combine arguments in any order."""
        match = Match({0: self.root})
        groups: list[tuple[tuple[int, ...], Sequence[Value]]] = []
        pending = [0]
        for number in pending:  # the loop appends to the list
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
        """The values that take the place of a region's arguments: those, other than numbers, that the soft operations
        on the paths from an operand, `value`, to the region's hard operations also read.

        The matched hard operations and the soft ones on these paths are added to the match. None where a hard operation
        of the region is missing.
        """
        if not region.operations:
            return [value] if region.arguments or not is_number(value) else []
        if value not in self.surroundings:
            self.surroundings[value] = Surroundings(value)
        sources = self.surroundings[value]
        path: dict[Operation, None] = {}
        for number in region.operations:
            if number not in match.hard:
                same_kind = (each for each, kind in sources.kinds.items() if kind == skeleton.kinds[number])
                nearest = next((each for each in same_kind if each not in match.hard.values()), None)
                if nearest is None:
                    return None
                match.hard[number] = nearest
            if match.hard[number] not in sources.kinds:
                return None
            path |= dict.fromkeys(sources.path_to(match.hard[number]))
        match.between |= path
        inside = {*path, *(match.hard[number] for number in region.operations)}
        read = (each for operation in path for each in operation.inputs)
        return list(dict.fromkeys(each for each in read if each.operation not in inside and not is_number(each)))


# -- proving ---------------------------------------------------------------------------------------------------


def matching_operation(root: Operation, chosen: frozenset[OperationDefinition]) -> Proof | None:
    """The proof that `root` computes one of the `chosen` operations on values of the graph; None where there is none.

    The first skeleton, and the first assignment of values to its arguments, that is proven is the result.
    """
    if not root.result.dtype.is_float:
        return None
    matcher = SkeletonMatcher(root)
    for skeleton in skeletons().get(kind_of(root) or "", ()):
        if skeleton.form.definition in chosen:
            for leaves in matcher.leaves(skeleton):
                unscaled = tuple(map(_unscaled, leaves))  # at once, as most models scale them
                proof = _prove_on_leaves(skeleton, unscaled, root) if unscaled != leaves else None
                if proof is not None:
                    return proof
                proof = _prove_on_leaves(skeleton, leaves, root)
                if proof is not None:
                    return _without_scalings(proof, skeleton, leaves, root)
    return None


def _prove_on_leaves(skeleton: Skeleton, leaves: Sequence[Value], root: Operation) -> Proof | None:
    """The proof that the root computes the skeleton's form of these values, the leaves; None where there is none.

    A leaf that the graph and the form read through different transposes becomes a transposed operand.
    """
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
    """The proof of the same operation on the leaves before they are multiplied by numbers, where an attribute of the
    operation (such as the scale of attention) can express the numbers; else the proof as it is."""
    for index in range(len(leaves)):
        unscaled = _unscaled(leaves[index])
        if unscaled is not leaves[index]:
            candidates = (*leaves[:index], unscaled, *leaves[index + 1 :])
            unscaled_proof = _prove_on_leaves(skeleton, candidates, root)
            if unscaled_proof is not None:
                proof, leaves = unscaled_proof, candidates
    return proof


def _unscaled(value: Value) -> Value:
    """The value before it is multiplied or divided by constants; the value itself where it is not."""
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
    """The transpose of a leaf after which the form's transpose of it (`form`) equals the graph's (`graph`); None where
    no transpose is required or one of them is not known."""
    if form is None or graph is None or form == graph or len(form) != len(graph):
        return None
    axes = dict(zip(form, graph, strict=True))
    return tuple(axes[axis] for axis in range(len(axes)))


# -- terms -----------------------------------------------------------------------------------------------------


def permutations(term: Term, leaves: Sequence[Term]) -> list[Permutation | None]:
    """For each leaf the transpose through which a term reads it; None where it reads it through several, through
    another view, or not at all."""
    reads: dict[Term, set[Permutation | None]] = {leaf: set() for leaf in leaves}
    for part in subterms(term, leaves):
        base, view = part.parts if part.kind == "view" else (part, None)
        if base in reads:
            reads[base].add(tuple(range(len(base.shape))) if view is None else view.permutation)
    return [next(iter(reads[leaf])) if len(reads[leaf]) == 1 else None for leaf in leaves]


def coefficients(term: Term) -> list[float]:
    """The distinct coefficients of the sums in a term."""
    sums = (part.parts[1] for part in subterms(term) if part.kind == "add")
    return list(dict.fromkeys(coefficient for parts in sums for _, coefficient in parts))


def subterms(term: Term, leaves: Sequence[Term] = ()) -> Iterator[Term]:
    """A term and all terms in it, each once, but not those in leaves; a view of a leaf is not divided further."""
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
