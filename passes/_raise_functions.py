"""Functions of one value: subgraphs that compute a named operation from one value and constant parameters.

`slices` walks from a root towards what it reads until one value is left that is no constant. Each slice whose
signature is that of a form is a candidate: with the value, and the constants in every order, as operands, and the
numbers and reduced axes of the slice as attributes. Start reading at `matching_function`.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from irc.dims import Dim, DimError
from irc.index_map import inverse
from irc.ir import Definition, Operation, Value
from irc.op import const
from irc.ops import (
    celu,
    elu,
    gelu,
    hard_sigmoid,
    hard_swish,
    layer_norm,
    leaky_relu,
    log_softmax,
    log_sum_exp,
    mish,
    quick_gelu,
    reduce_mean,
    relu,
    rms_norm,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    softsign,
)
from irc.passes._normal_form import Normalizer
from irc.passes._raise_forms import Form, forms_of, named_within, signature, signature_of_body
from irc.passes._raise_proof import Candidate, Operand, Proof, attribute_choices, prove
from irc.pattern import constant_of, tolerance_of

# Of two that have the same root the first one is chosen.
FUNCTIONS = (
    layer_norm, rms_norm, softmax, log_softmax, log_sum_exp, gelu, silu, quick_gelu, mish, softplus, sigmoid, selu, elu,
    celu, hard_swish, hard_sigmoid, softsign, leaky_relu, relu, reduce_mean,
)  # fmt: skip

LARGEST_SLICE = 40  # operations; flax's layer norm has 17
MOVABLE = (layer_norm, rms_norm)  # may stand between transposes: their axis is the last

Signature = frozenset[tuple[str, int]]


@lru_cache(maxsize=1)
def forms() -> dict[Signature, list[Form]]:
    """Every form of a function by its signature, at a sample type (a static one: proofs of symbols take time)."""
    table: dict[Signature, list[Form]] = {}
    for definition in FUNCTIONS:
        for form in forms_of(definition, ["f32[7, 8]"]):
            table.setdefault(frozenset(signature_of_body(form.sample()).items()), []).append(form)
    return table


# -- slices ----------------------------------------------------------------------------------------------------


@dataclass
class Slice:
    """What lies between a value `x` and a root: operations, constant arrays, and numbers."""

    x: Value
    operations: list[Operation]
    parameters: list[Value]
    numbers: list[Any]
    signature: Counter[str]
    named: frozenset[Definition]  # those that it contains, and those in their bodies

    def is_shared(self) -> bool:
        """Whether something outside reads an operation that is worth raising, so that it would be computed twice."""
        inside, (_, *inner) = set(self.operations), self.operations
        results = [result for each in inner if signature(each) for result in each.results]
        return any(user not in inside for result in results for user in result.users())

    def reduced_axes(self) -> list[tuple[int, ...]]:
        """The axes over which the slice reduces, counted from the front, each choice once."""
        reduced = []
        for operation in self.operations:
            axes = operation.attributes.get("axes")
            if axes is not None and operation.inputs:
                rank = max(operation.inputs[0].rank, 1)
                reduced.append(tuple(sorted(axis % rank for axis in axes)))
        return list(dict.fromkeys(reduced))


@dataclass
class Frontier:
    """The values that a growing slice reads, producers in program order, last first."""

    root: Operation
    open: dict[Value, None] = field(default_factory=dict)
    heap: list[tuple[int, Operation]] = field(default_factory=list)
    parameters: list[Value] = field(default_factory=list)
    numbers: list[Any] = field(default_factory=list)

    def read(self, operation: Operation) -> None:
        for value in operation.inputs:
            producer = value.operation
            if producer is not None and producer.definition is const:
                number = constant_of(value)
                if number is not None:
                    self.numbers.append(number)
                elif value not in self.parameters:
                    self.parameters.append(value)
            elif value not in self.open:
                self.open[value] = None
                if producer is not None and producer.block is self.root.block:
                    heapq.heappush(self.heap, (-producer.order_label, producer))


def slices(root: Operation) -> Iterator[Slice]:
    """The slices from `root` down to a single value, smallest first."""
    signatures = [dict(known) for known in forms()]
    frontier = Frontier(root)
    operations = [root]
    total, named = signature(root), named_within([root])
    frontier.read(root)
    while len(operations) < LARGEST_SLICE:
        if not any(all(known.get(name, 0) >= count for name, count in total.items()) for known in signatures):
            return
        if len(frontier.open) == 1:
            (x,) = frontier.open
            yield Slice(x, list(operations), list(frontier.parameters), list(frontier.numbers), total, frozenset(named))
        if not frontier.heap:
            return
        _, producer = heapq.heappop(frontier.heap)
        if producer.regions or producer.has_effect or producer.symbols:
            return
        if not all(result.type.is_ranked for result in producer.results):
            return
        for result in producer.results:
            frontier.open.pop(result, None)
        operations.append(producer)
        total = total + signature(producer)
        named |= named_within([producer])
        frontier.read(producer)


# -- candidates ------------------------------------------------------------------------------------------------


def matching_function(root: Operation, chosen: frozenset[Definition]) -> Proof | None:
    """The chosen function of one value, with constant parameters, that `root` computes."""
    if not root.result.dtype.is_float or root.name in ("const", "transpose", "expand", "return", "yield"):
        return None
    if root.definition in FUNCTIONS:
        return None
    table = forms()
    best: Proof | None = None
    for part in slices(root):
        known = table.get(frozenset(part.signature.items()), ())
        candidates = [form for form in known if form.definition in chosen]
        if not candidates or not part.x.dtype.is_float or not part.x.type.is_ranked or part.is_shared():
            continue
        normalizer = Normalizer(tolerance_of(root.result.dtype.bits))
        for value in (part.x, *part.parameters):
            normalizer.bind(value)
        try:
            required = normalizer.term(root.result)
        except DimError:
            continue
        # Of a slice that contains a pointwise function already only the attributes could differ, by a scaling, say.
        named = part.named
        worth = (form for form in candidates if form.definition.pointwise is None or form.definition not in named)
        proofs = (_prove_on_slice(form, part, root, normalizer, required) for form in worth)
        best = next((proof for proof in proofs if proof is not None), best)  # the largest slice
    return best


def _prove_on_slice(form: Form, part: Slice, root: Operation, normalizer: Normalizer, required: Any) -> Proof | None:
    if len(part.parameters) > len(form.definition.operand_specs) - 1:
        return None
    last = part.x.rank - 1
    for candidate in _candidates(form, part):
        axes = part.reduced_axes() if candidate.permutation is None else [(last,)]
        proof = prove(candidate, attribute_choices(form, part.numbers, axes, last), root, normalizer, required)
        if proof is not None:
            return proof
    return None


def _candidates(form: Form, part: Slice) -> Iterator[Candidate]:
    """The form on `x`, perhaps transposed so that the reduced axis is the last, and on the parameters in any order."""
    rank = part.x.rank
    permutations: list[tuple[int, ...] | None] = [None]
    if form.definition in MOVABLE:
        for axis in part.reduced_axes():
            if len(axis) == 1 and axis[0] != rank - 1 and axis[0] < rank:
                rest = [other for other in range(rank) if other != axis[0]]
                permutations.append((*rest, axis[0]))
    for permutation in permutations:
        for parameters in itertools.permutations(part.parameters):
            # They are reshaped, never moved: where x is transposed only one axis may be larger than 1.
            moves = permutation is not None and any(sum(size != 1 for size in p.shape) > 1 for p in parameters)
            if not moves and all(value.rank <= rank for value in parameters):
                operands = (Operand(value, None, _beside(value, rank, permutation)) for value in parameters)
                back = None if permutation is None else inverse(permutation)
                yield Candidate(form, (Operand(part.x, permutation), *operands), back)


def _beside(parameter: Value, rank: int, permutation: Sequence[int] | None) -> tuple[Dim, ...]:
    """A parameter's shape beside x of this rank: transposed with it, and without leading axes of size 1."""
    shape = (1,) * (rank - parameter.rank) + parameter.shape
    if permutation is not None:
        shape = tuple(shape[axis] for axis in permutation)
    return tuple(itertools.dropwhile(lambda size: size == 1, shape))
