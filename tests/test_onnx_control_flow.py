"""Control flow and local functions of ONNX models: If, Loop, Scan, squeezed and inlined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_models import NO_FOLDER, check_against_runtime, check_close, imported, in_runtime, model, operations

import irc
from irc.backends.onnx import emit
from irc.diagnostics import IrcError
from irc.driver.models import find_backend
from irc.frontends.onnx import from_model, load
from irc.interpreter import run
from irc.parser import parse
from irc.verifier import verify
from tests.importing import READERS, failure, floats, types

# -- control flow and functions ---------------------------------------------------------------------------------------

def test_a_decided_if_is_its_branch() -> None:
    module = imported("""(float[N, 3] x) => (y) {
        s = Shape(x) i = Constant<value_int = 1>() n = Gather(s, i) three = Constant<value_int = 3>()
        c = Equal(n, three)
        y = If(c) <then_branch = a () => (t) { t = Relu(x) }, else_branch = b () => (e) { e = NonZero(x) }> }""")
    assert operations(module) == ["relu"]


@pytest.mark.parametrize("condition", [True, False])
def test_an_open_if_is_an_if(condition: bool) -> None:
    """Branches capture values from outside; extents in which they disagree are symbols of the `if`."""
    graph = """(float[N, 3] x, bool c) => (y, z) { h = Neg(x)
        y, z = If(c) <
            then_branch = a () => (t, u) { t = Relu(h) k = Constant<value_floats = [1.0, 2.0]>() u = Neg(k) },
            else_branch = b () => (e, f) { e = Exp(h) f = Constant<value_floats = [3.0]>() }> }"""
    module = check_against_runtime(graph, {"x": floats(2, 3), "c": np.array(condition)})
    assert operations(module) == ["neg", "if"] and types(module) == ["f32[N, 3]", "f32[e]"]
    verify(module)
    assert parse(str(module)) == module


SIDES_OF_OTHER_RANKS = """(float[N, 3] x) => (y) { h = Neg(x) s = Shape(x) i = Constant<value_int = 0>()
    n = Gather(s, i) one = Constant<value_int = 1>() c = Equal(n, one) axis = Constant<value_ints = [0]>()
    m = If(c) <then_branch = a () => (t) { t = Squeeze(h, axis) }, else_branch = b () => (e) { e = Exp(h) }> """


@pytest.mark.parametrize("rows", [1, 2])
def test_an_if_of_other_ranks_has_what_follows_in_each_branch(rows: int) -> None:
    graph = SIDES_OF_OTHER_RANKS + "r = Relu(m) y = Add(r, x) }"
    module = check_against_runtime(graph, {"x": floats(rows, 3)})
    assert operations(module)[-1] == "if"
    branch = [operation.name for operation in module.walk() if operation.parent is not None]
    assert branch.count("relu") == branch.count("add") == 2
    verify(module)
    assert parse(str(module)) == module


def test_a_branch_that_nothing_can_follow_becomes_an_assertion() -> None:
    """A product with w fits rank 2 only, so the condition must be false."""
    graph = SIDES_OF_OTHER_RANKS + "w = Constant<value = float[3, 2] {1, 2, 3, 4, 5, 6}>() y = Gemm(m, w) }"
    module = check_against_runtime(graph, {"x": floats(2, 3)})
    assert "if" not in operations(module) and "assert" in operations(module)
    with pytest.raises(IrcError, match=r"run\.assert.*\n?.*the then branch does not fit what follows"):
        run(module, {"x": floats(1, 3)})


@pytest.mark.parametrize("rows", [1, 2])
def test_results_of_other_ranks(rows: int) -> None:
    """Nothing follows: the result has no rank."""
    module = check_against_runtime(SIDES_OF_OTHER_RANKS + "y = Relu(m) }", {"x": floats(rows, 3)})
    assert types(module) == ["f32[*]"]
    assert parse(str(module)) == module


@pytest.mark.parametrize("rows", [1, 2])
def test_squeezing_what_may_be_one(rows: int) -> None:
    """An `if` in irc, whose result has no rank, and in ONNX one Squeeze again."""
    graph = "(float[N, 1, 3] x) => (y) { s = Squeeze(x) y = Relu(s) }"
    module = check_against_runtime(graph, {"x": floats(rows, 1, 3)})
    assert types(module) == ["f32[*]"] and operations(module)[-2:] == ["if", "relu"]
    emitted = find_backend("onnx").emit(irc.opt(module, find_backend("onnx").PIPELINE, backend="onnx"))
    assert [node.op_type for node in emitted.graph.node] == ["Squeeze", "Relu"]


def test_branches_that_nothing_can_follow_are_an_error() -> None:
    text = failure(SIDES_OF_OTHER_RANKS + "w = Constant<value = float[5, 2] {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}>()"
                   " y = Gemm(m, w) }", "type.rank")
    assert "gemm" in text


def test_a_loop() -> None:
    graph = """(float[N, 3] x, int64 n, bool go) => (y, all) {
        y, all = Loop(n, go, x) <body = b (int64 i, bool c, float[N, 3] a) => (d, s, o) {
            s = Add(a, x) f = Cast<to = 1>(i) o = Mul(s, f) limit = Constant<value_float = 1000.0>()
            m = ReduceMax<keepdims = 0>(s) d = Less(m, limit) }> }"""
    inputs = {"x": floats(2, 3), "n": np.array(4), "go": np.array(True)}
    module = check_against_runtime(graph, inputs)
    stopped = run(module, inputs | {"go": np.array(False)})  # ONNX Runtime forgets N without an iteration
    np.testing.assert_array_equal(stopped["y"], inputs["x"])
    assert stopped["all"].shape == (0, 2, 3)
    assert types(module) == ["f32[N, 3]", "f32[e, N, 3]"]
    verify(module)
    assert parse(str(module)) == module


def test_a_loop_that_runs_through_has_a_known_count() -> None:
    module = check_against_runtime("""(float[3] x) => (y, all) <int64 n = {4}, bool go = {1}> {
        y, all = Loop(n, go, x) <body = b (int64 i, bool c, float[3] a) => (d, s, o) {
            d = Identity(c) s = Add(a, x) o = Identity(s) }> }""", {"x": floats(3)})
    assert types(module) == ["f32[3]", "f32[4, 3]"]


# What a body yields as its condition, and whether it is always true where the first is.
CONDITIONS = {
    "its own": ("d = Identity(c)", True),
    "true": ("d = Constant<value = bool {1}>()", True),
    "its own, read otherwise too": ("d = Identity(c) f = Cast<to = 1>(c) a = Mul(b, f)", True),
    "false": ("d = Constant<value = bool {0}>()", False),
    "its negation": ("d = Not(c)", False),
    "a comparison": ("limit = Constant<value_int = 1>() d = Less(i, limit)", False),
}


@pytest.mark.parametrize("trips", ["0", "1", "4", "n"])
@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_that_stays_true_is_dropped(name: str, trips: str) -> None:
    """Whatever the trip count; one that may become false ends the loop as before."""
    again, stays_true = CONDITIONS[name]
    carried = "a" if "Mul" in again else "b"
    graph = f"""(float[3] x, int64 n) => (y, all, went) <int64 k = {{{trips.replace("n", "7")}}}, bool go = {{1}}> {{
        y, all, went = Loop({"n" if trips == "n" else "k"}, go, x) <body = inner (int64 i, bool c, float[3] b)
            => (d, s, o, w) {{ {again} s = Tanh({carried}) o = Neg(s) w = Identity(c) }}> }}"""
    inputs = {"x": floats(3), "n": np.array(3)}
    module = check_against_runtime(graph, inputs)
    after = irc.opt(module, "canonicalize")
    verify(after)
    (before, loop) = (next(each for each in m.walk() if each.name == "loop") for m in (module, after))
    assert before.operands[1] is not None and (loop.operands[1] is None) == stays_true
    results = run(after, inputs)
    for key, expected in run(module, inputs).items():
        np.testing.assert_array_equal(results[key], expected)
    again_parsed = parse(str(after))
    assert again_parsed == after and parse(str(irc.opt(again_parsed, "canonicalize"))) == after


def test_loops_whose_condition_is_dropped_keep_the_symbols_that_they_define() -> None:
    graph = GROWING.replace("int64 n, bool go) => (y, z, w) {", "int64 n) => (y, z, w) <bool go = {1}> {")
    module = irc.opt(imported(graph), "canonicalize")
    (loop,) = (operation for operation in module.walk() if operation.name == "loop")
    assert loop.operands[1] is None and len(loop.symbols) == 5
    verify(module)
    inputs = {"x": floats(2, 3), "n": np.array(3)}
    for key, expected in run(imported(graph), inputs).items():
        np.testing.assert_array_equal(run(module, inputs)[key], expected)


def test_local_functions_are_inlined() -> None:
    functions = """<domain: "local", opset_import: ["" : 17]> twice (a) => (b) { c = Relu(a) b = Add(c, c) }"""
    graph = "(float[N] x) => (y) { h = local.twice(x) y = local.twice(h) }"
    module = check_against_runtime(graph, {"x": floats(3)}, functions=functions, domains={"local": 1})
    assert operations(module) == ["relu", "add", "relu", "add"]


def test_constants_of_functions_are_found_in_the_file_again(tmp_path: Path) -> None:
    functions = f"""<domain: "local", opset_import: ["" : 17]> shifted (a) => (b) {{
        k = Constant<value_floats = [{", ".join(f"{i}.0" for i in range(100))}]>() b = Add(a, k) }}"""
    proto = model("(float[100] x) => (y) { h = local.shifted(x) y = local.shifted(h) }", functions=functions,
                  domains={"local": 1})
    onnx.save(proto, tmp_path / "m.onnx")
    module = load(tmp_path / "m.onnx")
    again = parse(str(module), tmp_path / "m.irc", READERS)
    x = floats(100)
    np.testing.assert_array_equal(run(again, {"x": x})["y"], run(module, {"x": x})["y"])


GROWING = """(float[N, 3] x, int64 n, bool go) => (y, z, w) { y, z, w = Loop(n, go, x, x) <
    body = b (int64 i, bool c, float[k, l] a, float[k, l] bb) => (d, joined, kept, most) {
        d = Identity(c)  e = Tanh(a)  joined = Concat<axis = 0>(e, bb)  kept = Concat<axis = 0>(bb, bb)
        most = ReduceMax<keepdims = 0>(joined) }> }"""


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_loops_whose_carried_shapes_change(rounds: int) -> None:
    """An extent that an iteration changes is a symbol of that iteration; one that depends on it is another."""
    inputs = {"x": np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32), "n": np.array(rounds),
              "go": np.array(True)}  # fmt: skip
    module = check_against_runtime(GROWING, inputs)
    (loop,) = (operation for operation in module.walk() if operation.name == "loop")
    assert [str(value.type) for value in loop.regions[0].block.arguments[2:]] == ["f32[e, 3]", "f32[e_1, 3]"]
    assert [str(value.type) for value in loop.results] == ["f32[e_2, 3]", "f32[e_3, 3]", "f32[e_4]"]
    assert str(parse(str(module))) == str(module)
    expected = in_runtime(model(GROWING), inputs)
    for backend in ("onnx", "triton"):
        actual = irc.run(module, inputs, backend=backend).outputs
        for output, reference in zip(actual.values(), expected, strict=True):
            check_close(output, reference)
    assert irc.kernels(module).launches > 0


SCANS = [
    "s, y = Scan<num_scan_inputs = 1, body = b (float[3] a, float[3] r) => (t, o)"
    " { t = Add(a, r) o = Mul(t, r) }>(z, x)",
    "s, y = Scan<num_scan_inputs = 2, scan_input_axes = [1, -1], scan_input_directions = [1, 0],"
    " scan_output_axes = [1], scan_output_directions = [1], body = b (float[N] a, float[N] p, float[N] q) => (t, o)"
    " { t = Sub(a, p) u = Mul(t, q) o = Tanh(u) }>(m, x, x)",
    "y, s = Scan<num_scan_inputs = 1, body = b (float[3] r) => (o, k)"
    " { k = ReduceSum<keepdims = 0>(r) o = Exp(r) }>(x)",
]


@pytest.mark.parametrize("nodes", SCANS)
@pytest.mark.parametrize("rows", [1, 4])
def test_scans(nodes: str, rows: int) -> None:
    graph = f"(float[N, 3] x, float[3] z, float[N] m) => (y, s) {{ {nodes} }}"
    random = np.random.default_rng(0)
    inputs = {"x": random.standard_normal((rows, 3)), "z": random.standard_normal(3), "m": random.standard_normal(rows)}
    inputs = {name: array.astype(np.float32) for name, array in inputs.items()}
    module = check_against_runtime(graph, inputs)
    expected = in_runtime(model(graph), inputs)
    for backend in ("onnx", "triton"):
        for output, reference in zip(irc.run(module, inputs, backend=backend).outputs.values(), expected, strict=True):
            check_close(output, reference)


def test_a_loop_whose_carried_rank_changes() -> None:
    text = failure("""(float[3] x, int64 n, bool go) => (y) { y = Loop(n, go, x) <
        body = b (int64 i, bool c, float[k] a) => (d, s) { z = Constant<value_ints = [0]>() d = Identity(c)
                                                           s = Unsqueeze(a, z) }> }""", "onnx.unsupported")
    assert "it carries f32[3], which becomes f32[1, 3]" in text


# -- constants of subgraphs --------------------------------------------------------------------------------------


def test_constants_are_stored_in_the_subgraph_that_reads_them() -> None:
    """Alone: one that two branches read, or the main graph too, is one of the main graph's."""
    text = """(float[3] x, bool c, bool d) => (y, z) {
        z = Add(x, outside)
        y = If (c) <
            then_branch = one () => (float[3] a) { a0 = Mul(x, mine) a1 = Add(a0, both) a = Sub(a1, outside) },
            else_branch = two () => (float[3] b) {
                b0 = Mul(x, both)
                b = If (d) <
                    then_branch = three () => (float[3] e) { e = Mul(b0, inner) },
                    else_branch = four () => (float[3] f) { f = Add(b0, x) }> }> }"""
    weights = {name: np.random.default_rng(7).standard_normal(3).astype(np.float32) + index
               for index, name in enumerate(("mine", "both", "inner", "outside"))}  # fmt: skip
    proto = model(text)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    rewritten = emit(from_model(proto, NO_FOLDER))
    bodies = dict[str, list[str]]()

    def look(graph: onnx.GraphProto, place: str) -> None:
        for name, array in weights.items():
            if any(np.array_equal(onnx.numpy_helper.to_array(tensor), array) for tensor in graph.initializer):
                bodies.setdefault(name, []).append(place)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    look(attribute.g, f"{place}/{attribute.name}")

    look(rewritten.graph, "main")
    assert bodies == {"mine": ["main/then_branch"], "both": ["main"], "outside": ["main"],
                      "inner": ["main/else_branch/then_branch"]}  # fmt: skip
    x = np.array([1, -2, np.inf], np.float32)
    for c, d in ((True, True), (False, True), (False, False)):
        inputs = {"x": x, "c": np.array(c), "d": np.array(d)}
        for actual, expected in zip(in_runtime(rewritten, inputs), in_runtime(proto, inputs), strict=True):
            np.testing.assert_array_equal(actual, expected)
        again = emit(from_model(rewritten, NO_FOLDER))
        np.testing.assert_array_equal(in_runtime(again, inputs)[0], in_runtime(proto, inputs)[0])
