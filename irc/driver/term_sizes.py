"""The size of the terms of a program's sums, by which rounding errors of its results are measured.

Where terms cancel, a result is small and its rounding error is not: in (1e4 + x) - 1e4 in f32, x keeps three digits. So
errors are compared with the size of the terms rather than of the result. This size is measured: every term of a sum,
and every rounded result, is perturbed by a random relative amount, and the change of the outputs is divided by that
amount. It is the first-order part of a forward error analysis (Higham, Accuracy and Stability of Numerical Algorithms,
2002, chapter 3), with random signs.

Decisions (comparisons, indices, rounding to integers) are those of the unperturbed run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from irc.interfaces import Contraction, Scan, Scatter, Trait, Window
from irc.interpreter import Interpreter, Invocation, Observe, Results, checked_inputs
from irc.ir import Definition
from irc.module import Module

RUNS = 3  # the largest change counts
CHANGE = 2.0**-24


def adds_terms(definition: Definition) -> bool:
    """Whether the elements of operands are terms, of which some may cancel."""
    if definition.reduction is not None:
        return definition.reduction.combine == "sum"
    kinds = (Contraction, Window, Scan, Scatter)
    return Trait.CANCELS in definition.traits or any(isinstance(each, kinds) for each in definition.interfaces)


def is_exact(definition: Definition) -> bool:
    """Whether floats of the results are floats of operands, so that nothing is rounded."""
    if definition.reduction is not None:
        return definition.reduction.combine in ("max", "min")
    moved = definition.movement is not None or definition.gather is not None
    return moved or not definition.traits.isdisjoint({Trait.EXACT, Trait.CONTROL_FLOW})


class PerturbedRun(Interpreter):
    """A run in f64. With a generator it is perturbed, and its decisions are those of the run without one."""

    def __init__(self, module: Module, decisions: list[Results], generator: np.random.Generator | None,
                 observe: Observe | None = None, draws: int = 0) -> None:  # fmt: skip
        super().__init__(module, "f64", observe, draws)
        self.generator = generator
        self.decisions = decisions
        self.taken = 0

    def decided(self, results: Results) -> Results:
        if self.generator is None:
            self.decisions.append(results)
            return results
        self.taken += 1
        return self.decisions[self.taken - 1]


class _Run(PerturbedRun):
    """Perturbs terms and results."""

    def execute(self, invocation: Invocation) -> Results:
        definition = invocation.operation.definition
        if definition.is_named:
            return super().execute(invocation)
        if self.generator is not None and adds_terms(definition):
            arrays = [None if array is None else self.changed(array) for array in invocation.arrays]
            invocation = invocation._replace(arrays=arrays)
        results = super().execute(invocation)
        rounded = not (is_exact(definition) or adds_terms(definition))
        is_decision = Trait.DISCONTINUOUS in definition.traits or not any(array.dtype.kind in "fc" for array in results)
        if is_decision and not invocation.operation.regions:
            return self.decided(results)
        return tuple(self.changed(array) for array in results) if rounded else results

    def changed(self, array: Any) -> Any:
        if self.generator is None or array.dtype.kind not in "fc":
            return array
        return array * (1 + CHANGE * self.generator.uniform(-1, 1, array.shape))


def term_sizes(module: Module, inputs: Mapping[str, Any], seed: int) -> list[float]:
    """For each output the largest size of the terms of its elements; 0 where none is finite.

    The module has no random operators. Raises the errors of running it.
    """
    arrays = checked_inputs(module.main, inputs, "f64")
    decisions: list[Results] = []
    with np.errstate(all="ignore"):
        exact = _Run(module, decisions, None).call(module.main, arrays)
        sizes = [0.0] * len(exact)
        for run in range(RUNS):
            moved = _Run(module, decisions, np.random.default_rng((seed, run))).call(module.main, arrays)
            for index, (one, other) in enumerate(zip(moved, exact, strict=True)):
                if getattr(other, "dtype", None) is not None and other.dtype.kind in "fc":
                    distance = np.abs(one - other)
                    largest = float(np.max(distance, where=np.isfinite(distance), initial=0.0))
                    sizes[index] = max(sizes[index], largest / CHANGE)
    return sizes
