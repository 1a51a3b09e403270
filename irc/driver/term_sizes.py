"""How large the terms are that a program adds up: what the rounding of its results is judged by.

Where terms cancel, a result is small and its rounding is not: of (1e4 + x) - 1e4 in f32, x keeps three digits. So
rounding is compared with the size of the terms rather than of the result. That size is measured: every term of a sum,
and every result that is rounded, is changed by a random relative amount, and what the outputs move by is divided by it.
It is the first-order part of a forward error analysis (Higham, Accuracy and Stability of Numerical Algorithms, 2002,
chapter 3), with random signs.

Decisions (comparisons, indices, rounding to integers) stay those of the run without changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from irc.interpreter import Interpreter, Results, Step, checked_inputs
from irc.module import Module

RUNS = 3  # of which the largest movement counts
CHANGE = 2.0**-24
# Operations whose operands are terms, of which some may cancel.
SUMS = frozenset({"add", "sub", "dot", "conv", "conv_transpose", "reduce_sum", "window_reduce", "scan", "scatter",
                  "scatter_elements"})  # fmt: skip
# Operations of floats that round nothing, besides views.
UNROUNDED = frozenset({"neg", "abs", "minimum", "maximum", "select", "cast", "reduce_max", "reduce_min", "gather",
                       "gather_elements", "sort", "const", "refine", "call", "if", "loop", "kernel"})  # fmt: skip
DECISIONS = frozenset({"sign", "floor", "ceil", "round", "trunc", "mod"})


class _Run(Interpreter):
    """A run in f64. With a generator terms and results are changed, and decisions are those of the run before."""

    def __init__(self, module: Module, decisions: list[Results], generator: np.random.Generator | None) -> None:
        super().__init__(module, "f64", None)
        self.generator = generator
        self.decisions = decisions
        self.taken = 0

    def execute(self, step: Step) -> Results:
        definition = step.operation.definition
        if definition.is_named:
            return super().execute(step)
        if self.generator is not None and definition.name in SUMS:
            step = step._replace(arrays=[None if array is None else self.changed(array) for array in step.arrays])
        results = super().execute(step)
        rounded = not definition.is_view and definition.name not in UNROUNDED | SUMS
        is_decision = definition.name in DECISIONS or not any(array.dtype.kind in "fc" for array in results)
        if is_decision and not step.operation.regions:
            return self.decided(results)
        return tuple(self.changed(array) for array in results) if rounded else results

    def changed(self, array: Any) -> Any:
        if self.generator is None or array.dtype.kind not in "fc":
            return array
        return array * (1 + CHANGE * self.generator.uniform(-1, 1, array.shape))

    def decided(self, results: Results) -> Results:
        if self.generator is None:
            self.decisions.append(results)
            return results
        self.taken += 1
        return self.decisions[self.taken - 1]


def term_sizes(module: Module, inputs: Mapping[str, Any], seed: int) -> list[float]:
    """For each output the size of the terms of its elements, at its largest; 0 where none is finite.

    The module has no random operators. Raises what running it raises.
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
