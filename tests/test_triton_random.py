"""Random graphs through the Triton pipeline, under the harness that looks at every address.

Graphs are cut into kernels as the planner does it, by a random policy, or with all that is legal merged. Of each launch
the harness checks the address of every load and store, and that each element of an output is stored once; here follow
the bytes, and the numbers against the interpreter.

Each seed is a test of its own, with the same graphs each time; those marked slow are 500 more graphs of views and
reductions, and 1,800 more with products.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("triton")

from hypothesis import HealthCheck, given, seed, settings

import irc
from irc import interpreter
from irc.backends.triton import PIPELINE, Target
from irc.driver.pipelines import parse_pipeline
from irc.ir import Operation, Value
from irc.module import Module
from irc.pass_manager import PassContext, PassManager
from irc.passes.fuse import apply, find_policy, propose
from irc.policy import Merge, Policy, policy
from irc.verifier import verify
from tests import triton_harness as harness
from tests.fusing import everything
from tests.random_graphs import VIEWS, Family, Graph, graphs
from tests.random_products import PRODUCTS
from tests.triton_cases import GRAPH_BOUNDS

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

GRAPHS = 20  # of each seed


def seeds(quick: int, whole: int) -> list[object]:
    return [*range(quick), *(pytest.param(number, marks=pytest.mark.slow) for number in range(quick, whole))]


def at_random(numbers: int) -> Policy:
    """A policy that merges, or does not, by chance."""
    draw = random.Random(numbers)

    @policy
    def by_chance(merge: Merge) -> float:
        """Legal merges with random scores, of which one in three is rejected."""
        return draw.random() - 1 / 3

    return by_chance


def compiled(graph: Graph) -> Module:
    """A copy of the module in kernels."""
    module = graph.module.clone()
    if graph.cut in ("irc", "auto", "host"):
        return irc.opt(module, f"default{{fuse.products={graph.cut}}}", backend="triton")
    products = "irc" if graph.cut.startswith("irc") else "host"
    context = PassContext(target=Target(products=products), products=products, numerics="keeps_more_precision")
    chosen = {"planned": find_policy("greedy"), "random": at_random(graph.numbers), "merged": everything}
    before, _, after = PIPELINE.partition("fuse,")
    PassManager(parse_pipeline(before.rstrip(",")), context).run(module)
    apply(propose(module.main, chosen[graph.cut.split()[-1]], context, [], products=products == "irc"))
    PassManager(parse_pipeline(after), context).run(module)
    verify(module)
    return module


def check_numbers(graph: Graph, inputs: dict[str, np.ndarray], outputs: list[np.ndarray]) -> None:
    """The error against exact arithmetic is what rounding explains: a few times the interpreter's. Elements at which
    only the interpreter's narrow floats overflow are not compared: kernels keep more precision."""
    rounded = interpreter.run(graph.module, inputs)
    exact = interpreter.run(graph.module, inputs, precision="f64")
    coarsest = max(GRAPH_BOUNDS.get(str(value.dtype), 0.0) for value in values_of(graph.module))
    for actual, near, true in zip(outputs, rounded.values(), exact.values(), strict=True):
        if near.dtype.kind in "biu":
            np.testing.assert_array_equal(actual, near)
            continue
        assert (actual.dtype, actual.shape) == (near.dtype, near.shape)
        actual, near, true = (np.asarray(array, np.float64) for array in (actual, near, true))
        is_compared = np.isfinite(near) | ~np.isfinite(true)
        actual, near, true = actual[is_compared], near[is_compared], true[is_compared]
        np.testing.assert_array_equal(np.isnan(actual), np.isnan(near))
        np.testing.assert_array_equal(actual[np.isinf(near)], near[np.isinf(near)])
        finite = np.isfinite(near) & np.isfinite(true)
        if finite.any():
            allowed = 4 * np.abs(near - true)[finite].max() + coarsest * max(1.0, np.abs(true[finite]).max())
            assert np.abs(actual - true)[finite].max() <= allowed


def values_of(module: Module) -> list[Value]:
    return [*module.main.arguments, *(result for operation in module.main.block for result in operation.results)]


def is_gather(operation: Operation) -> bool:
    return operation.name in ("gather", "gather_nd", "gather_elements")


def check(graph: Graph) -> None:
    module, inputs = compiled(graph), harness.random_inputs(graph.module, graph.sizes, graph.numbers)
    with tempfile.TemporaryDirectory() as folder, np.errstate(all="ignore"):
        run = harness.run(module, folder=Path(folder) / "model", inputs=inputs, fuse=False)
        assert not run.program.rejected
        check_numbers(graph, inputs, list(run.outputs.values()))
    indirect = any(map(is_gather, graph.module.main.block))
    for launch in run.launches:
        assert launch.predicted is not None
        assert launch.predicted.exact or indirect, "bytes are bounded where an index is loaded, else exact"
    harness.check_bytes(run.launches)


def check_graphs(family: Family, number: int) -> None:
    quick = settings(max_examples=GRAPHS, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    seed(number)(quick(given(graphs(family))(check)))()


@pytest.mark.parametrize("number", seeds(4, 29))
def test_a_random_graph_runs_as_the_interpreter_says(number: int) -> None:
    check_graphs(VIEWS, number)


@pytest.mark.parametrize("number", seeds(10, 100))
def test_a_random_graph_with_products_runs_as_the_interpreter_says(number: int) -> None:
    check_graphs(PRODUCTS, number)
