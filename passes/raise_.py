"""Raise: find named operations that a graph spells out."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Literal, get_args, get_origin

from irc.diagnostics import IrcError
from irc.dims import DimError
from irc.ir import Block, Operation, Value
from irc.module import Module
from irc.op import Builder, OperationDefinition, const, trace
from irc.ops import (
    attention,
    celu,
    dequantize,
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
    reshape,
    rms_norm,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    softsign,
    transpose,
)
from irc.pass_manager import Pass, PassContext
from irc.passes._normal_form import SOFT, Normalizer, Term, close_to
from irc.passes._raise_attention import spelled_attention
from irc.passes._raise_own import RaisingRule, raising_rules
from irc.passes.fold import Fold
from irc.pattern import constant_of, tolerance_of
from irc.rewrite import RuleStatistics, apply_rules, erase_dead
from irc.types import TensorType

# What is looked for. Of two that share a root the first one wins.
RAISED = (
    layer_norm, rms_norm, softmax, log_softmax, log_sum_exp, gelu, silu, quick_gelu, mish, softplus, sigmoid, selu, elu,
    celu, hard_swish, hard_sigmoid, softsign, leaky_relu, relu, reduce_mean,
)  # fmt: skip

EVERY = (dequantize, *RAISED, attention)

Finding = tuple[OperationDefinition, Value] | None  # what a subgraph spells, and the value that replaces its root

LARGEST_SLICE = 40  # operations; flax's layer norm has 17
MOVABLE = (layer_norm, rms_norm)  # may stand between transposes: their axis is the last


@dataclass
class Raise(Pass):
    """Replace subgraphs by the named operations that they spell out: gelu, softmax, layer_norm, attention and so on.

    A guess is made from few hints: which transcendental functions and reductions lie between a value and its root.
    It is then proven: the subgraph and the body (or a spelling) of the named operation, traced on the same values,
    must have the same normal form over the reals, with constants within 2e-6, of f64 1e-13 (passes/_normal_form.py).
    So nothing is raised by its looks, nor where a constant or an axis is wrong.

    Operations of files that `--load` brought are found, too, by their bodies: with any operands, and with the
    attributes that the graph has in their place. Of two that share a root the larger body wins.

    What a graph spells is taken for the function that it means, so roundings may differ within the operation: at
    `--numerics exact` only int8 weights with their scale are recognised, as `dequantize`, which is exact. A
    subgraph is left alone where another operation reads one of its transcendentals or reductions, which would then
    be computed twice, and where the target does not raise the operation: the portable target of ONNX raises none
    that would need a newer opset.
    """

    def run(self, module: Module, context: PassContext) -> bool:
        rules, notes = raising_rules(list(context.operations.values()), context.numerics)
        for note in notes:
            context.note(note)
        # Before irc's own, which may take a part of what a user's operation spells, and after: its body may hold them.
        raised = raise_own(module, rules)
        target = context.target
        chosen = frozenset(each for each in EVERY if target is None or target.raises(each))
        if context.numerics == "exact":
            chosen &= {dequantize}
        for function in module.functions.values():
            for block in [function.block, *(r.block for operation in function.walk() for r in operation.regions)]:
                raised += raise_block(block, chosen)
        raised += raise_own(module, rules)
        for name, count in sorted(raised.items()):
            context.count("raise", name, count)
        if raised:
            Fold().run(module, context)  # parameters that had to be reshaped
        return bool(raised)


def raise_own(module: Module, rules: Sequence[RaisingRule]) -> Counter[str]:
    """Raise a user's operations, those with large bodies first; returns how many of each."""
    raised: Counter[str] = Counter()
    for rule in rules:
        for function in module.functions.values():
            statistics: dict[str, RuleStatistics] = {}
            apply_rules(function, [rule], numerics="approximates", statistics=statistics, maker="raise")
            raised[rule.name] += statistics[rule.name].matched
    return +raised


def raise_block(block: Block, chosen: frozenset[OperationDefinition]) -> Counter[str]:
    """Raise the chosen operations within a block, from its end: what contains others comes first. Returns how many of
    each."""
    raised: Counter[str] = Counter()
    finders: list[Callable[[Operation], Finding]] = [spelled_dequantize] if dequantize in chosen else []
    if not chosen.isdisjoint(RAISED):
        finders.append(partial(spelled_function, chosen=chosen))
    if attention in chosen:
        finders.append(spelled_attention)
    for find in finders:
        for operation in list(block)[::-1]:
            if operation.block is block and len(operation.results) == 1 and operation.result.type.is_ranked:
                finding = find(operation)
                if finding is not None:
                    definition, value = finding
                    raised[definition.name] += 1
                    replace_with(operation, value)
    return raised


def replace_with(root: Operation, result: Value) -> None:
    """Replace an operation by a value, and erase what only the operation used."""
    inputs = [value.operation for value in root.inputs if value.operation is not None]
    root.replace([result])
    erase_dead(inputs)


# -- functions of one value, with constant parameters ----------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """One way to spell a named operation: its body (index None) or a spelling, with some attributes fixed."""

    definition: OperationDefinition
    index: int | None
    fixed: tuple[tuple[str, Any], ...]

    def body(self, types: Sequence[TensorType], attributes: dict[str, Any]) -> Any:
        return self.definition.body(types, self.definition.normalize(attributes), self.index)


Signature = frozenset[tuple[str, int]]


@lru_cache(maxsize=1)
def forms() -> dict[Signature, list[Form]]:
    """Every form by its signature, read off a trace at sample types."""
    table: dict[Signature, list[Form]] = {}
    for definition in RAISED:
        choices = [
            (name, get_args(spec.annotation))
            for name, spec in definition.attribute_specs.items()
            if get_origin(spec.annotation) is Literal
        ]
        for fixed in itertools.product(*([(name, value) for value in values] for name, values in choices)):
            for index in (None, *range(len(definition.spellings))):
                form = Form(definition, index, fixed)
                required = {"axes": (1,)} if "axes" in definition.attribute_specs else {}
                module = trace(lambda x: x, "f32[B, 8]")
                body = form.body([module.main.arguments[0].type], {**required, **dict(fixed)})
                table.setdefault(frozenset(signature_of_body(body).items()), []).append(form)
    return table


def signature_of_body(body: Any) -> Counter[str]:
    total: Counter[str] = Counter()
    seen: set[Any] = set()
    for operation in body.block:
        key = (operation.definition, tuple(operation.operands), tuple(operation.attributes.items()))
        if operation.definition is const or key not in seen:
            seen.add(key)
            total += signature(operation)
    return total


def signature(operation: Operation) -> Counter[str]:
    """The operations that spellings share, counted; those in the body of a named one."""
    definition: Any = operation.definition
    if operation.name in SOFT:
        return Counter()
    if definition.is_named and operation.results[0].type.is_ranked:
        return signature_of_body(operation.body())
    return Counter({operation.name: 1})


@dataclass
class Slice:
    """What lies between a value `x` and a root: operations, constant arrays, and numbers."""

    x: Value
    operations: list[Operation]
    parameters: list[Value]
    numbers: list[Any]
    signature: Counter[str]
    named: frozenset[OperationDefinition]  # those that it holds, and those in their bodies


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
            made = value.operation
            if made is not None and made.definition is const:
                number = constant_of(value)
                if number is not None:
                    self.numbers.append(number)
                elif value not in self.parameters:
                    self.parameters.append(value)
            elif value not in self.open:
                self.open[value] = None
                if made is not None and made.block is self.root.block:
                    heapq.heappush(self.heap, (-made._order, made))


def slices(root: Operation) -> Iterator[Slice]:
    """The slices from `root` down to a single value, smallest first."""
    table = forms()
    frontier = Frontier(root)
    operations = [root]
    found, named = signature(root), _named_within([root])
    frontier.read(root)
    while len(operations) < LARGEST_SLICE:
        if not any(found <= Counter(dict(known)) for known in table):
            return
        if len(frontier.open) == 1:
            (x,) = frontier.open
            yield Slice(x, list(operations), list(frontier.parameters), list(frontier.numbers), found, frozenset(named))
        if not frontier.heap:
            return
        _, made = heapq.heappop(frontier.heap)
        if made.regions or made.has_effect or made.symbols or not all(r.type.is_ranked for r in made.results):
            return
        for result in made.results:
            frontier.open.pop(result, None)
        operations.append(made)
        found = found + signature(made)
        named |= _named_within([made])
        frontier.read(made)


def spelled_function(root: Operation, chosen: frozenset[OperationDefinition]) -> Finding:
    """The chosen function of one value, with constant parameters, that `root` computes; built before it."""
    if not root.result.dtype.is_float or root.name in ("const", "transpose", "expand", "return", "yield"):
        return None
    if root.definition in RAISED:
        return None
    table = forms()
    best: Proof | None = None
    for part in slices(root):
        known = table.get(frozenset(part.signature.items()), ())
        candidates = [form for form in known if form.definition in chosen]
        if not candidates or not part.x.dtype.is_float or not part.x.type.is_ranked or _is_shared(part):
            continue
        normalizer = Normalizer(tolerance_of(root.result.dtype.bits))
        leaves = {value: normalizer.bind(value) for value in (part.x, *part.parameters)}
        try:
            wanted = normalizer.term(root.result)
        except DimError:
            continue
        worth = (form for form in candidates if not (form.definition.is_pointwise and form.definition in part.named))
        proofs = (_prove(form, root, part, normalizer, leaves, wanted) for form in worth)
        best = next((proof for proof in proofs if proof is not None), best)  # the largest slice leaves least behind
    return None if best is None else (best.definition, _build(root, best))


def _named_within(operations: Iterable[Operation]) -> set[OperationDefinition]:
    """The named operations among these, and those in their bodies. A slice that holds a pointwise function already is
    not tried as that function: only its attributes could take in more, such as a scaling."""
    found: set[OperationDefinition] = set()
    for operation in operations:
        if operation.definition.is_named:
            found |= {operation.definition, *_named_within(operation.body().block)}
    return found


def _is_shared(part: Slice) -> bool:
    """Whether something outside reads an operation that is worth raising, so that it would be computed twice."""
    inner = part.operations[1:]
    own = set(part.operations)
    return any(
        user not in own for operation in inner if signature(operation) for r in operation.results for user in r.users()
    )


@dataclass
class Arrangement:
    """The operands of a guess: x, perhaps transposed so that the reduced axis is last, and the parameters."""

    permutation: tuple[int, ...] | None
    parameters: Sequence[Value]
    rank: int

    def types(self, x: Value) -> list[TensorType]:
        first = x.type if self.permutation is None else x.type.with_shape(x.shape[axis] for axis in self.permutation)
        return [first, *(value.type.with_shape(self.shape(value)) for value in self.parameters)]

    def shape(self, value: Value) -> tuple[Any, ...]:
        """A parameter's shape beside x: transposed with it, and without leading axes of size 1."""
        shape = (1,) * (self.rank - value.rank) + value.shape
        if self.permutation is not None:
            shape = tuple(shape[axis] for axis in self.permutation)
        return tuple(itertools.dropwhile(lambda size: size == 1, shape))

    def is_possible(self) -> bool:
        """Parameters are reshaped, never moved: only one axis may be larger than 1 where x is transposed."""
        fits = all(value.rank <= self.rank for value in self.parameters)
        moved = self.permutation is not None
        return fits and not (moved and any(sum(size != 1 for size in value.shape) > 1 for value in self.parameters))


@dataclass
class Proof:
    """A named operation on operands and attributes that is proven to compute what a slice does."""

    definition: OperationDefinition
    part: Slice
    arrangement: Arrangement
    attributes: dict[str, Any]


def _prove(
    form: Form, root: Operation, part: Slice, normalizer: Normalizer, leaves: dict[Value, Term], wanted: Term
) -> Proof | None:
    """The first operands and attributes for which the form has the normal form of the slice."""
    definition, x = form.definition, part.x
    if len(part.parameters) > len(definition.operand_specs) - 1:
        return None
    for arrangement in _arrangements(definition, part):
        types = arrangement.types(x)
        rejected: set[Hashable] = set()  # attributes, but for floats, for which no floats will do
        for attributes in _attributes(form, part, arrangement):
            plain = tuple(item for item in attributes.items() if not isinstance(item[1], float))
            if plain in rejected:
                continue
            try:
                body = form.body(types, attributes)
                terms = [leaves[x]]
                if arrangement.permutation is not None:
                    terms = [normalizer.transposed(leaves[x], arrangement.permutation)]
                terms += [normalizer.reshaped(leaves[p], arrangement.shape(p)) for p in arrangement.parameters]
                (found,) = normalizer.of_body(body, terms)
                if arrangement.permutation is not None:
                    found = normalizer.transposed(found, inverse(arrangement.permutation))
            except (IrcError, DimError):
                continue  # these operands or attributes have no meaning here
            if found is wanted and body.returned[0].dtype is root.result.dtype:
                return Proof(definition, part, arrangement, attributes)
            if normalizer.outline(found) != normalizer.outline(wanted):
                rejected.add(plain)
    return None


def _build(root: Operation, proof: Proof) -> Value:
    """The named operation, before `root`."""
    definition, arrangement, x = proof.definition, proof.arrangement, proof.part.x
    permutation = arrangement.permutation
    with Builder.before_operation(root, root.location.by(f"raise({definition.name})")):
        operands = [x if permutation is None else transpose(x, permutation=permutation)]
        for value in arrangement.parameters:
            shape = arrangement.shape(value)
            operands.append(value if value.shape == shape else reshape(value, shape=shape))
        name = "" if permutation is None else root.result.name  # the transpose back may cancel with another one
        result: Value = definition(*operands, name=name, **proof.attributes)
        return result if permutation is None else transpose(result, permutation=inverse(permutation))


def inverse(permutation: Sequence[int]) -> tuple[int, ...]:
    return tuple(permutation.index(axis) for axis in range(len(permutation)))


def _arrangements(definition: OperationDefinition, part: Slice) -> Iterator[Arrangement]:
    rank = part.x.rank
    permutations: list[tuple[int, ...] | None] = [None]
    if definition in MOVABLE:
        for axis in _reduced_axes(part):
            if len(axis) == 1 and axis[0] != rank - 1 and axis[0] < rank:
                rest = [other for other in range(rank) if other != axis[0]]
                permutations.append((*rest, axis[0]))
    for permutation in permutations:
        for parameters in itertools.permutations(part.parameters):
            arrangement = Arrangement(permutation, parameters, rank)
            if arrangement.is_possible():
                yield arrangement


def _reduced_axes(part: Slice) -> list[tuple[int, ...]]:
    """The axes over which the slice reduces, counted from the front, each choice once."""
    found = []
    for operation in part.operations:
        axes = operation.attributes.get("axes")
        if axes is not None and operation.inputs:
            rank = max(operation.inputs[0].rank, 1)
            found.append(tuple(sorted(axis % rank for axis in axes)))
    return list(dict.fromkeys(found))


def _attributes(form: Form, part: Slice, arrangement: Arrangement) -> Iterator[dict[str, Any]]:
    """Attributes to try: floats from the numbers of the slice, axes from its reductions."""
    fixed = dict(form.fixed)
    choices: list[list[tuple[str, Any]]] = []
    axes = _reduced_axes(part)
    for name, spec in form.definition.attribute_specs.items():
        if name in fixed:
            continue
        if name == "axis":
            last = arrangement.rank - 1
            values: list[Any] = [last] if arrangement.permutation is not None else [a[0] for a in axes if a] or [last]
        elif name == "axes":
            values = list(axes)
        elif name == "keep_dims":
            values = [False, True]
        elif spec.annotation is float:
            values = close_to(float(spec.default), part.numbers)
        else:
            values = [spec.default]
        choices.append([(name, value) for value in dict.fromkeys(values)])
    for combination in itertools.product(*choices):
        yield {**fixed, **dict(combination)}


# -- int8 weights ----------------------------------------------------------------------------------------------


def spelled_dequantize(root: Operation) -> Finding:
    """cast(weight) * scale, both constant -> dequantize(weight, scale): the weight stays small, the result exact."""
    if root.name != "mul" or root.result.dtype.name not in ("f32", "f64"):
        return None
    for widened, scale in (root.inputs, root.inputs[::-1]):
        made = widened.operation
        if made is None or made.name != "cast" or not _is_constant(scale) or widened.type != root.result.type:
            continue
        (weight,) = made.inputs
        if not _is_constant(weight) or not weight.dtype.is_integer or weight.dtype.bits > 16:
            continue
        shape = (1,) * (weight.rank - scale.rank) + scale.shape
        large = [axis for axis, size in enumerate(shape) if size != 1]
        if len(large) > 1 or (large and shape[large[0]] != weight.shape[large[0]]):
            continue
        with Builder.before_operation(root, root.location.by("raise(dequantize)")):
            flat = tuple(shape[axis] for axis in large)
            vector = scale if scale.shape == flat else reshape(scale, shape=flat)
            result = dequantize(weight, vector, axis=large[0] if large else 0)
        return dequantize, result
    return None


def _is_constant(value: Value) -> bool:
    return value.operation is not None and value.operation.definition is const
