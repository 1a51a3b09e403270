"""What tests of fusion share: programs through the planner, and checks of the kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from irc import interpreter, ops
from irc.driver.pipelines import parse_pipeline
from irc.group import Group
from irc.ir import Operation, Value
from irc.kernel import LegalityFailure, count, kernel_of
from irc.module import Module
from irc.op import trace
from irc.pass_manager import PassContext, PassManager
from irc.passes.fuse import find_policy, propose
from irc.plan import Plan
from irc.policy import Merge, policy
from irc.verifier import verify
from tests.kernel_reference import evaluate
from tests.programs import arrays, environment

ROOT = Path(__file__).resolve().parent.parent


@policy
def everything(merge: Merge) -> float:
    """Whatever is legal, whether it saves anything or not."""
    return 1.0


def body_of(module: Module) -> list[Operation]:
    """The operations of the entry that a kernel could hold: all but named constants and the end."""
    return [
        operation for operation in module.main.block
        if not operation.definition.is_terminator
        and not (operation.name == "const" and operation.attributes["value"].size > 1)
    ]  # fmt: skip


def layers(number: int, *types: str) -> Module:
    """Layers of a norm, a product, a bias with an activation, and a residual."""
    def program(x: Value, w: Value, b: Value) -> Value:
        for _ in range(number):
            x = ops.add(x, ops.gelu(ops.add(ops.matmul(ops.layer_norm(x, b, b), w), b)))
        return x

    return trace(program, *types)


def fused(module: Module, options: str = "", context: PassContext | None = None) -> Module:
    """A copy after `fuse`, verified."""
    copy = module.clone()
    PassManager(parse_pipeline(f"fuse{{{options}}}" if options else "fuse"), context).run(copy)
    verify(copy)
    return copy


def kernels(module: Module) -> list[list[str]]:
    """The operations inside each kernel of the entry, by name."""
    return [
        [inner.name for inner in operation.regions[0].block if not inner.definition.is_terminator]
        for operation in module.main.block
        if operation.name == "kernel"
    ]


def planned(module: Module, chosen: str = "greedy", context: PassContext | None = None) -> Plan:
    context = context or PassContext()
    return propose(module.main, find_policy(chosen), context, [])


def same_results(first: Module, second: Module, inputs: dict[str, np.ndarray]) -> None:
    expected, actual = interpreter.run(first, inputs), interpreter.run(second, inputs)
    assert list(expected) == list(actual)
    for name in expected:
        np.testing.assert_array_equal(actual[name], expected[name])


def check_kernels(module: Module, chosen: str, inputs: dict[str, np.ndarray]) -> None:
    """The scalar DAG of each kernel, evaluated, against the operations of its region; counted bytes are sane."""
    PassManager(parse_pipeline(f"canonicalize,fuse{{policy={chosen}}}")).run(module)
    sizes, seen = environment(module), dict(zip(module.main.arguments, inputs.values(), strict=True))

    def observe(operation: Operation, results: Any) -> None:
        seen.update(zip(operation.results, results, strict=True))

    interpreter.run(module, inputs, observe=observe)
    for operation in module.main.block:
        if operation.name == "kernel":
            region, kernel = operation.regions[0].block, kernel_of(operation)
            read = {a.name: seen[value] for a, value in zip(region.arguments, operation.inputs, strict=True)}
            outputs = evaluate(kernel, read, sizes)
            for result, inner in zip(operation.results, region.terminator.inputs, strict=True):
                np.testing.assert_allclose(outputs[inner.name], seen[result], rtol=1e-7, atol=1e-9)
            moved = count(kernel, sizes)
            assert 0 <= moved.distinct_bytes and (moved.distinct_bytes <= moved.loaded_bytes or not moved.exact)


def check_group(module: Module, members: list[Operation]) -> None:
    """The kernel of these operations, where there is one, against what the interpreter says of their values."""
    group = Group(members)
    if isinstance(group.kernel, LegalityFailure) or not group.stored:
        return
    seen = dict(zip(module.main.arguments, arrays(module).values(), strict=True))

    def observe(operation: Operation, results: Any) -> None:
        seen.update(zip(operation.results, results, strict=True))

    interpreter.run(module, arrays(module), observe=observe)
    outputs = evaluate(group.kernel, {value.name: array for value, array in seen.items()}, environment(module))
    for value in group.stored:
        np.testing.assert_allclose(outputs[value.name], seen[value], rtol=1e-7, atol=1e-9)


def around_a_product(x: Value, w: Value) -> Value:
    """exp is read by the product and, by the addition after it."""
    grown = ops.exp(x, name="grown")
    return ops.add(grown, ops.matmul(grown, w, name="product"), name="y")
