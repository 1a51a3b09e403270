"""Raise: replace decompositions by named operations.

The order in which operations are raised is here. What is looked for and how it is proven is in `_raise_functions`
(functions of one value), `_raise_skeletons` (operations of several operands, such as attention), `_raise_dequantize`
and, for the operations of a user's files, `_raise_user_operations`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from irc.ir import Block, Operation, Value
from irc.module import Module
from irc.op import OperationDefinition
from irc.ops import dequantize
from irc.pass_manager import Pass, PassContext
from irc.passes._raise_dequantize import dequantized
from irc.passes._raise_functions import FUNCTIONS, matching_function
from irc.passes._raise_proof import Proof, build
from irc.passes._raise_skeletons import OPERATIONS, matching_operation, possible_operations
from irc.passes._raise_user_operations import RaisingRule, raising_rules
from irc.rewrite import RuleStatistics, apply_rules, erase_dead

RAISED = (dequantize, *FUNCTIONS, *OPERATIONS)

Raised = tuple[OperationDefinition, Value] | None  # the operation, and the value that replaces the root's result
Matcher = Callable[[Operation, frozenset[OperationDefinition]], Proof | None]


@dataclass
class Raise(Pass):
    """Replace subgraphs by the named operations that they are decompositions of: gelu, softmax, layer_norm, attention
    and so on.

    Candidates come from few hints: which transcendental functions, reductions and products lie between values and a
    root. Each is then proven: the subgraph and the body (or a spelling) of the named operation, traced on the same
    values, must have the same normal form over the reals, with constants within 2e-6, of f64 1e-13
    (passes/_normal_form.py). A subgraph with another constant or another axis is never raised.

    Operations of files of `--load` are raised, too, by their bodies: with any operands, and with the
    attributes that the graph has in their place. Of two that share a root the larger body is chosen.

    What a graph spells is taken for the function that it means, so roundings may differ within the operation: at
    `--numerics exact` only int8 weights with their scale are raised, to `dequantize`, which is exact. A function of one
    value is left alone where another operation reads one of its transcendentals or reductions, which would then be
    computed twice. Nothing is raised to an operation that the target does not raise: the portable target of ONNX raises
    none that would need a newer opset. Constants that an operation needs in another shape are reshaped: `fold` folds
    them.
    """

    def run(self, module: Module, context: PassContext) -> bool:
        rules, notes = raising_rules(list(context.operations.values()), context.numerics)
        for note in notes:
            context.note(note)
        # Before irc's operations, which may replace a part of a user's operation, and after: its body may contain them.
        raised = raise_user_operations(module, rules)
        target = context.target
        chosen = frozenset(each for each in RAISED if target is None or target.raises(each))
        if context.numerics == "exact":
            chosen &= {dequantize}
        for function in module.functions.values():
            for block in [function.block, *(r.block for operation in function.walk() for r in operation.regions)]:
                raised += raise_block(block, chosen)
        raised += raise_user_operations(module, rules)
        for name, count in sorted(raised.items()):
            context.count("raise", name, count)
        return bool(raised)


def raise_user_operations(module: Module, rules: Sequence[RaisingRule]) -> Counter[str]:
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

    def dequantize_of(root: Operation) -> Raised:
        value = dequantized(root)
        return None if value is None else (dequantize, value)

    def proven_by(match: Matcher, definitions: frozenset[OperationDefinition], root: Operation) -> Raised:
        proof = match(root, definitions)
        return None if proof is None else (proof.definition, build(root, proof))

    def steps() -> Iterator[Callable[[Operation], Raised]]:
        """Each is prepared when those before it are done: attention contains a softmax that they may raise."""
        if dequantize in chosen:
            yield dequantize_of
        if not chosen.isdisjoint(FUNCTIONS):
            yield partial(proven_by, matching_function, chosen)
        possible = possible_operations(block, chosen)
        if possible:
            yield partial(proven_by, matching_operation, possible)

    raised: Counter[str] = Counter()
    for step in steps():
        for operation in list(block)[::-1]:
            if operation.block is block and len(operation.results) == 1 and operation.result.type.is_ranked:
                replacement = step(operation)
                if replacement is not None:
                    definition, value = replacement
                    raised[definition.name] += 1
                    replace_with(operation, value)
    return raised


def replace_with(root: Operation, result: Value) -> None:
    """Replace an operation by a value, and erase what only the operation used."""
    inputs = [value.operation for value in root.inputs if value.operation is not None]
    root.replace([result])
    erase_dead(inputs)
