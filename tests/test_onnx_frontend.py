"""The ONNX frontend beyond single operators: names, shapes, constants, control flow, externs, and bad models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from models import model_inputs, model_path, reference_outputs, relative_error
from onnx_models import NO_FOLDER, check_against_runtime, check_close, imported, in_runtime, model, operations

import irc
from irc.diagnostics import Exit, IrcError
from irc.driver.arrays import read_arrays, write_arrays
from irc.driver.models import find_backend
from irc.dtypes import by_name
from irc.frontends.onnx import from_model, load
from irc.frontends.onnx.weights import read_weights
from irc.interpreter import run
from irc.module import Module
from irc.parser import parse
from irc.verifier import verify

RANDOM = np.random.default_rng(0)
READERS = {".onnx": read_weights}


def floats(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype(np.float32)


def types(module: Module) -> list[str]:
    return [str(value.type) for value in module.main.returned]


def failure(graph: str, code: str, opset: int = 17, **options: Any) -> str:
    """The whole text of the error that importing this model gives."""
    with pytest.raises(IrcError) as caught:
        imported(graph, opset, **options)
    assert caught.value.code == code
    return str(caught.value)


# -- trained models -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["magika", "basic_pitch", "minilm_int8"])
def test_trained_models(name: str) -> None:
    """They import whole, ranked, no larger than they are, and compute what ONNX Runtime computes."""
    path = model_path(name)
    module = load(path)
    verify(module)
    results = [value for operation in module.walk() for value in operation.results]
    assert all(value.type.is_ranked for value in results)
    assert "extern" not in operations(module)
    nodes = sum(node.op_type != "Constant" for node in onnx.load(path, load_external_data=False).graph.node)
    assert len(operations(module)) <= nodes
    assert module.source == path.name and module.source_digest is not None
    inputs = model_inputs(name, seed=1)
    found = run(module, inputs)
    for output, wanted in reference_outputs(path, inputs).items():
        # basic-pitch takes logarithms of a spectrum near 0: ONNX Runtime itself is 2e-4 from f64 on such sound.
        assert relative_error(found[output], wanted) < (5e-4 if name == "basic_pitch" else 1e-4)


def test_int8_weights_stay_as_they_are() -> None:
    module = load(model_path("minilm_int8"))
    casts = [op for op in module.main.block if op.name == "cast" and op.operands[0] is not None
             and op.operands[0].dtype.name == "i8"]
    assert len(casts) == 38 and all(next(op.result.users()).name == "mul" for op in casts)


# -- names, locations, inputs and outputs -----------------------------------------------------------------------------


def test_values_are_named_by_tensors_and_operations_by_nodes(tmp_path: Path) -> None:
    proto = model("(float[N, 5] x) => (out) { h = Relu(x) out = Neg(h) }")
    proto.graph.node[0].name = "block/relu"
    proto.graph.node[0].output[0] = proto.graph.node[1].input[0] = "block/relu:0"
    path = tmp_path / "named.onnx"
    onnx.save(proto, path)
    module = load(path)
    relu, neg = (operation for operation in module.main.block if operation.name != "return")
    assert (relu.result.name, relu.location.name, relu.location.file) == ("block/relu:0", "block/relu", "named.onnx")
    assert (neg.result.name, neg.location.name) == ("out", "out")
    assert module.name == "named"
    assert str(tmp_path) not in str(module)
    assert parse(str(module), path, READERS) == module


def test_outputs_may_be_inputs_and_constants() -> None:
    module = imported("(float[N] x, float[N] y) => (b, y, c, b2) <float[2] c = {1, 2}> { b = Identity(x) b2 = Neg(x) }")
    assert module.main.output_names == ("b", "y", "c", "b2")
    found = run(module, {"x": floats(3), "y": floats(3)})
    assert list(found) == ["b", "y", "c", "b2"]
    np.testing.assert_array_equal(found["c"], np.float32([1, 2]))


def test_identity_gives_way_to_what_it_forwards() -> None:
    module = imported("(float[N] x) => (y) { a = Relu(x) b = Identity(a) c = Identity(b) y = Neg(c) }")
    assert operations(module) == ["relu", "neg"]
    assert module.main.find("a").operation is not None


def test_constants_by_name_and_inline(tmp_path: Path) -> None:
    """Scalars and shapes are literals, and so is all that is small where there is no file to find names in."""
    proto = model("(float[N, 4] x) => (y) <float[4] w = {1, 2, 3, 4}, float k = {2}, int64[2] s = {-1, 2}>"
                  " { a = Mul(x, w) b = Mul(a, k) y = Reshape(b, s) }")
    onnx.save(proto, tmp_path / "m.onnx")
    for module, name in ((from_model(proto, NO_FOLDER), None), (load(tmp_path / "m.onnx"), "w")):
        named = {op.result.name: op.attributes["value"].name for op in module.main.block if op.name == "const"}
        assert named == {"w": name, "k": None}


def test_float_attributes_are_written_as_people_do() -> None:
    module = imported("(float[N, 4] x) => (y) { y = LeakyRelu<alpha = 0.1>(x) }")
    assert "alpha = 0.1}" in str(module)


# -- shapes -----------------------------------------------------------------------------------------------------------


def test_symbols_of_the_signature() -> None:
    """One symbol for one name; `_`, nothing and -1 name nothing; anonymous names do not clash."""
    proto = model("(float[N, T, 3] x, float[N, d0] y, float[a, b, c] z) => (w) { w = Neg(x) }")
    extents = proto.graph.input[2].type.tensor_type.shape.dim
    extents[0].dim_param, extents[1].dim_value = "_", -1
    extents[2].ClearField("dim_param")
    module = from_model(proto, NO_FOLDER)
    assert [str(argument.type) for argument in module.main.arguments] == [
        "f32[N, T, 3]", "f32[N, d0]", "f32[d1, d2, d3]"]
    assert all((symbol.low, symbol.high) == (0, 10**9) for symbol in module.main.symbols.values())


def test_shape_arithmetic_leaves_nothing_behind() -> None:
    """Shape, Gather, Concat, Where(Equal(-1)) and the like become dims in attributes."""
    module = imported("""(float[N, S, 12] x) => (y, z) <int64 zero = {0}, int64 one = {1}, int64[1] at = {0},
        int64[1] rest = {-1}, int64[2] parts = {3, 4}, int64[4] minus = {-1, -1, -1, -1}, int64[4] ones = {1, 1, 1, 1}>
        { s = Shape(x) n = Gather(s, zero) t = Gather(s, one) nt = Mul(n, t) n1 = Unsqueeze(nt, at)
          target = Concat<axis = 0>(n1, parts) y = Reshape(x, target)
          i = Cast<to = 6>(s) j = Cast<to = 7>(i) wide = Concat<axis = 0>(at_n, j) is = Equal(wide, minus)
          given = Where(is, ones, wide) z = Expand(x, given) at_n = Constant<value_ints = [2]>() }""")
    assert operations(module) == ["reshape", "expand"]
    assert types(module) == ["f32[N*S, 3, 4]", "f32[2, N, S, 12]"]


def test_shapes_as_data_have_one_form() -> None:
    module = imported("(float[N, S] x) => (y, z) { s = Shape(x) y = Mul(s, s) a = Constant<value_ints = [1]>()"
                      " g = Gather(s, a) z = Squeeze(g) }")
    assert operations(module) == ["dim", "dim"]
    found = run(module, {"x": floats(3, 5)})
    assert found["y"].tolist() == [9, 25] and found["z"] == 5


def test_extents_known_only_at_run_time_are_bound() -> None:
    graph = "(float[1, S] x, int64[2] n, int64 k) => (y, z) { y = Expand(x, n) a = Constant<value_int = 0>()" \
            " d = Constant<value_int = 1>() z = Range(a, k, d) }"
    for extents, count in (([3, 5], 4), ([3, 1], 0)):
        inputs = {"x": floats(1, 5), "n": np.array(extents), "k": np.array(count)}
        module = check_against_runtime(graph, inputs)
    assert "bind" in operations(module) and "extern" not in operations(module)
    assert all(value.type.is_ranked for value in module.main.returned)


def test_slices_and_shapes_known_only_at_run_time_are_carried_with_their_rank() -> None:
    graph = "(float[N, S] x, int64[1] a, int64[3] s) => (y, z) { e = Constant<value_ints = [9]>()" \
            " i = Constant<value_ints = [1]>() y = Slice(x, a, e, i) z = Reshape(x, s) }"
    module = check_against_runtime(graph, {"x": floats(3, 4), "a": np.array([-3]), "s": np.array([2, -1, 3])})
    assert operations(module) == ["extern", "extern"]
    assert types(module) == ["f32[N, e]", "f32[e_1, e_2, e_3]"]


def test_one_extent_known_only_at_run_time_is_what_is_left() -> None:
    graph = "(float[N, 12] x, int64[1] n) => (y) <int64[2] parts = {3, 4}>" \
            " { s = Concat<axis = 0>(n, parts) y = Reshape(x, s) }"
    for given in (2, -1):
        module = check_against_runtime(graph, {"x": floats(2, 12), "n": np.array([given])})
    assert types(module) == ["f32[N, 3, 4]"]


# -- externs ----------------------------------------------------------------------------------------------------------


def test_an_unknown_operator_is_carried_and_typed_by_onnx() -> None:
    graph = "(float[N, S, 4] x, float[R, 4] rois, int64[R] batch, float[N, C, 5, 5] image) => (y, z) {" \
            " y = RoiAlign<output_height = 2, output_width = 3>(image, rois, batch) z = NonZero(x) }"
    rois = np.array([[0, 0, 3, 4], [1, 1, 2, 3], [0, 2, 4, 4]], np.float32)
    inputs = {"x": floats(2, 3, 4), "rois": rois, "batch": np.array([0, 1, 1]), "image": floats(2, 3, 5, 5)}
    module = check_against_runtime(graph, inputs)
    assert types(module) == ["f32[R, C, 2, 3]", "i64[3, e]"]
    extern = next(operation for operation in module.main.block if operation.name == "extern")
    assert {name: extern.attributes[name] for name in ("domain", "op_type", "version")} == {
        "domain": "", "op_type": "RoiAlign", "version": 16}
    assert parse(str(module)) == module


def test_what_our_operation_does_not_take_is_carried_too() -> None:
    """Strings compare in ONNX, and MaxPool accepts more element types than irc's."""
    module = check_against_runtime("(int8[N, 2, 6] x) => (y) { y = MaxPool<kernel_shape = [2]>(x) }",
                                   {"x": RANDOM.integers(-9, 9, (2, 2, 6)).astype(np.int8)})
    assert operations(module) in (["max_pool"], ["extern"])
    module = check_against_runtime("(float[N, 2, 6] x) => (y, i) { y, i = MaxPool<kernel_shape = [2]>(x) }",
                                   {"x": floats(2, 2, 6)})
    assert operations(module) == ["extern"]


def test_other_domains_are_carried_where_the_model_states_their_types() -> None:
    proto = model("(float[N, 4] x) => (float[N, 4] y) { y = local.Foo<k = 2>(x) }", domains={"local": 1})
    module = from_model(proto, NO_FOLDER)
    assert types(module) == ["f32[N, 4]"]
    assert next(iter(module.main.block)).attributes["attributes"] == {"k": 2}


def test_what_meets_an_unranked_value_is_carried() -> None:
    module = imported("(float[] x, int64[n] s) => (y) { a = Reshape(x, s) y = Softmax(a) }")
    assert operations(module) == ["extern", "extern"] or operations(module) == ["extern", "softmax"]


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
    stopped = run(module, inputs | {"go": np.array(False)})  # ONNX Runtime forgets N where there is no round
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


# -- external data ----------------------------------------------------------------------------------------------------


def external(folder: Path, location: str = "weights.bin") -> Path:
    """A model whose weights lie in another file."""
    proto = model("(float[N, 4] x) => (y) { y = Mul(x, w) }")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(floats(4), "w"))
    onnx.save(proto, folder / "m.onnx", save_as_external_data=True, size_threshold=0, location="weights.bin")
    if location != "weights.bin":
        proto = onnx.load(folder / "m.onnx", load_external_data=False)
        next(entry for entry in proto.graph.initializer[0].external_data if entry.key == "location").value = location
        onnx.save(proto, folder / "m.onnx")
    return folder / "m.onnx"


def test_external_data_is_read(tmp_path: Path) -> None:
    path = external(tmp_path)
    x = floats(2, 4)
    check_close(run(load(path), {"x": x})["y"], in_runtime(onnx.load(path), {"x": x})[0])


def test_missing_external_data(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(IrcError, match=r"onnx\.external_missing"):
        load(path)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "link.bin"])
def test_external_data_must_not_leave_the_folder(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(16))
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(IrcError, match=r"onnx\.external_outside"):
        load(external(folder, location))


# -- bad models -------------------------------------------------------------------------------------------------------


def test_a_truncated_file(tmp_path: Path) -> None:
    data = model_path("magika").read_bytes()
    for length in (0, 10, 1000, len(data) - 1000):
        (tmp_path / "m.onnx").write_bytes(data[:length])
        with pytest.raises(IrcError, match=r"onnx\.truncated"):
            load(tmp_path / "m.onnx")
    with pytest.raises(IrcError, match=r"file\.missing"):
        load(tmp_path / "none.onnx")


def test_a_cycle_names_its_nodes() -> None:
    proto = model("(float[N] x) => (y) { a = Add(x, c) b = Neg(a) c = Relu(b) y = Exp(x) }")
    for node, name in zip(proto.graph.node, ("first", "second", "third", "apart"), strict=True):
        node.name = name
    with pytest.raises(IrcError) as caught:
        from_model(proto, NO_FOLDER)
    assert caught.value.code == "onnx.cycle"
    message = caught.value.diagnostics[0].message
    assert all(name in message for name in ("first", "second", "third")) and "apart" not in message


def test_unsorted_nodes_are_sorted() -> None:
    assert operations(imported("(float[N] x) => (y) { y = Neg(b) b = Relu(a) a = Exp(x) }")) == ["exp", "relu", "neg"]


def test_undefined_names_are_reported_together() -> None:
    text = failure("(float[N] x) => (y, nowhere) { a = Add(x, lost) y = Add(a, gone) }", "onnx.undefined_name")
    assert all(f"'{name}'" in text for name in ("lost", "gone", "nowhere"))


def test_a_name_with_two_definitions() -> None:
    assert "'a'" in failure("(float[N] x) => (y) { a = Relu(x) a = Neg(x) y = Exp(a) }", "onnx.redefined_name")
    failure("(float[N] x) => (y) { x = Relu(x) y = Exp(x) }", "onnx.redefined_name")


@pytest.mark.parametrize(("graph", "code", "words"), [
    ("(float[N] x, int64[N] i) => (y) { y = Add(x, i) }", "type.dtype", ["add", "f32[N]", "i64[N]", "--> y"]),
    ("(float[N, 3] x, float[4] w) => (y) { y = Add(x, w) }", "type.broadcast", ["f32[N, 3]", "f32[4]", "--> y"]),
    ("(float[N, 3] x, float[4, N] w) => (y) { y = MatMul(x, w) }", "type.shape", ["3", "4"]),
    ("(float[N, 3] x) => (y) { y = Softmax<axis = 5>(x) }", "type.rank", ["5"]),
    ("(float[N, 3] x) => (y) { y = Transpose<perm = [0, 7]>(x) }", "type.rank", ["7"]),
    ("(float[N, 3] x) => (y) { y = Softmax<axis = 1.5>(x) }", "onnx.invalid", ["axis", "FLOAT", "INT"]),
    ("(float[N, 3] x) => (y) { y = Concat(x, x) }", "onnx.invalid", ["axis", "missing"]),
    ("(float[N, 3] x) => (y) { y = Add(x) }", "onnx.invalid", ["input `y` is missing"]),
    ("(float[N, 3] x) => (y) { y = Relu(x, x) }", "onnx.invalid", ["2 inputs"]),
    ("(float[N, 3] x) => (y, z) { y, z = Relu(x) }", "onnx.invalid", ["2 outputs"]),
    ("(float[N, 3] x) => (y) { y = Relu<bogus = 3>(x) }", "onnx.invalid", ["bogus"]),
    ("(float[6] x) => (y) { s = Constant<value_ints = [-1, -1]>() y = Reshape(x, s) }", "onnx.invalid", ["-1"]),
    ("(float[6] x) => (y) { s = Constant<value_ints = [4]>() y = Reshape(x, s) }", "type.shape", ["6", "4"]),
    ("(float[N, 3] x) => (y) { s = Constant<value_ints = [-1, 7]>() y = Unsqueeze(x, s) }", "type.rank", ["7"]),
    ("(float[N, 3] x) => (y) { y = Einsum<equation = \"ij,jk\">(x) }", "onnx.invalid", ["ij,jk"]),
    ("(float[N, 3, 5] x) => (y) { y = MaxPool<kernel_shape = [2, 2]>(x) }", "onnx.invalid", ["kernel_shape"]),
])  # fmt: skip
def test_nodes_that_break_their_schema(graph: str, code: str, words: list[str]) -> None:
    text = failure(graph, code)
    assert all(word in text for word in words), text


def test_opsets() -> None:
    for opset in (6, 999):
        with pytest.raises(IrcError, match=r"onnx\.opset") as caught:
            imported("(float[N] x) => (y) { y = Relu(x) }", opset)
        assert caught.value.exit_code == Exit.UNSUPPORTED
    proto = model("(float[N] x) => (y) { y = Relu(x) }")
    del proto.opset_import[:]
    with pytest.raises(IrcError, match=r"onnx\.opset"):
        from_model(proto, NO_FOLDER)


def test_all_that_is_unsupported_is_listed_at_once() -> None:
    with pytest.raises(IrcError) as caught:
        imported("""(float[N, 3] x, bool c) => (y, z, v) {
            a = foreign.Strange(x) b = foreign.Strange(x) z = Neg(a) s = SequenceConstruct(x, x) v = Nonsense(s)
            y = If(c) <then_branch = t () => (e) { e = Relu(x) },
                       else_branch = f () => (g) { g = ReduceSum<keepdims = 0>(x) }> }""", domains={"foreign": 1})
    assert caught.value.exit_code == Exit.UNSUPPORTED and caught.value.code == "onnx.unsupported"
    text = str(caught.value)
    assert "2 of foreign Strange" in text and ": a, b" in text and "Nonsense" in text


GROWING = """(float[N, 3] x, int64 n, bool go) => (y, z, w) { y, z, w = Loop(n, go, x, x) <
    body = b (int64 i, bool c, float[k, l] a, float[k, l] bb) => (d, joined, kept, most) {
        d = Identity(c)  e = Tanh(a)  joined = Concat<axis = 0>(e, bb)  kept = Concat<axis = 0>(bb, bb)
        most = ReduceMax<keepdims = 0>(joined) }> }"""


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_loops_whose_carried_shapes_change(rounds: int) -> None:
    """An extent that a round changes is a symbol of that round; one that this changes in turn is another."""
    inputs = {"x": np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32), "n": np.array(rounds),
              "go": np.array(True)}  # fmt: skip
    module = check_against_runtime(GROWING, inputs)
    (loop,) = (operation for operation in module.walk() if operation.name == "loop")
    assert [str(value.type) for value in loop.regions[0].block.arguments[2:]] == ["f32[e, 3]", "f32[e_1, 3]"]
    assert [str(value.type) for value in loop.results] == ["f32[e_2, 3]", "f32[e_3, 3]", "f32[e_4]"]
    assert str(parse(str(module))) == str(module)
    wanted = in_runtime(model(GROWING), inputs)
    for backend in ("onnx", "triton"):
        found = irc.run(module, inputs, backend=backend).outputs
        for output, truth in zip(found.values(), wanted, strict=True):
            check_close(output, truth)
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
    wanted = in_runtime(model(graph), inputs)
    for backend in ("onnx", "triton"):
        for output, truth in zip(irc.run(module, inputs, backend=backend).outputs.values(), wanted, strict=True):
            check_close(output, truth)


SEQUENCES = [
    "p = Constant<value_int = -1>() s = SequenceConstruct(x, x) t = SequenceInsert(s, e, p) y = SequenceAt(t, p)",
    "s = SplitToSequence<axis = 1, keepdims = 0>(x) y = ConcatFromSequence<axis = 0, new_axis = 1>(s)",
    "k = Constant<value_int = 2>() s = SplitToSequence<axis = 1>(x, k) t = SequenceErase(s)"
    " y = ConcatFromSequence<axis = 1>(t)",
    "k = Constant<value_ints = [1, 2]>() s = SplitToSequence<axis = 1>(x, k) n = SequenceLength(s) f = Cast<to = 1>(n)"
    " i = Identity(s) o = Constant<value_int = 1>() z = SequenceAt(i, o) y = Mul(z, f)",
    "s = SequenceEmpty() p = Constant<value_int = 0>() t = SequenceInsert(s, x, p) y = SequenceAt(t, p)",
    "o = Optional(x) h = OptionalHasElement(o) g = OptionalGetElement(o) y = Where(h, g, e)",
]  # fmt: skip


@pytest.mark.parametrize("nodes", SEQUENCES)
def test_sequences_of_known_length_are_several_values(nodes: str) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    module = check_against_runtime(f"(float[N, 3] x) => (y) {{ e = Exp(x) {nodes} }}", {"x": x}, 18)
    assert "extern" not in {operation.name for operation in module.walk()}


def test_a_body_for_each_element_of_a_sequence() -> None:
    module = imported("""(float[N, 3] x) => (y) { e = Exp(x) s = SequenceConstruct(x, e)
        t = SequenceMap<body = b (float[N, 3] a, float[N, 3] c) => (d) { d = Sub(a, c) }>(s, x)
        y = ConcatFromSequence<axis = -1>(t) }""", 18)
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    np.testing.assert_array_equal(run(module, {"x": x})["y"], np.concatenate([x - x, np.exp(x) - x], 1))


OPAQUE = {  # graphs over sequences of which only a run knows how long they are, and what else they take
    "given and returned": ("(seq(float[N]) s, int64 n) => (t, y) { a = SequenceAt(s, n) y = Exp(a)"
                           " t = SequenceInsert(s, y, n) }", ["SequenceAt", "SequenceInsert"]),
    "constructed": ("(float[N, 3] x) => (s, e) { y = Neg(x) s = SequenceConstruct(x, y) e = SequenceEmpty() }",
                    ["SequenceConstruct", "SequenceEmpty"]),
    "split": ("(float[N, 3] x) => (y, k) { s = SplitToSequence(x) y = ConcatFromSequence<axis = 0>(s)"
              " k = SequenceLength(s) }", ["SplitToSequence", "ConcatFromSequence", "SequenceLength"]),
    "chosen": ("(float[N, 3] x, int64 n) => (y) { e = Exp(x) s = SequenceConstruct(x, e) a = SequenceAt(s, n)"
               " y = Neg(a) }", ["SequenceConstruct", "SequenceAt"]),
    "collected": ("(float[N, 3] x, int64 n) => (y, s) { e = SequenceEmpty() s = Loop(n, , e) <body = b (int64 i,"
                  " bool c, seq(float[M]) q) => (d, r) { d = Identity(c) g = Gather<axis = 1>(x, i) h = Tanh(g)"
                  " r = SequenceInsert(q, h) }> y = ConcatFromSequence<axis = 0, new_axis = 1>(s) }",
                  ["SequenceEmpty", "SequenceInsert", "ConcatFromSequence"]),
    "branches": ("(float[N, 3] x, bool go) => (y) { s = If(go) <then_branch = a () => (p)"
                 " { p = SequenceConstruct(x, x) }, else_branch = b () => (q) { q = SequenceConstruct(x) }>"
                 " y = ConcatFromSequence<axis = 0>(s) }",
                 ["SequenceConstruct", "SequenceConstruct", "ConcatFromSequence"]),
    "mapped": ("(seq(float[N]) s, float[2] z) => (t) { t = SequenceMap<body = b (float[N] a, float[2] c)"
               " => (float[M] d) { k = Constant<value_float = 2.0>() e = Mul(a, k)"
               " d = Concat<axis = 0>(e, c) }>(s, z) }",
               ["SequenceLength", "SequenceEmpty", "SequenceAt", "SequenceInsert"]),
    "stacked": ("(seq(float[2]) t, bool go) => (y) { k = SequenceLength(t) y = Loop(k, go) <body = b (int64 i, bool c)"
                " => (d, e) { d = Identity(c) e = SequenceAt(t, i) }> }", ["SequenceLength", "SequenceAt"]),
    "text": ("(string[N] text) => (s, k) { s = SplitToSequence(text) k = SequenceLength(s) }",
             ["SplitToSequence", "SequenceLength"]),
    "optional": ("(optional(float[N]) o, optional(seq(float[N])) p, optional(float[N]) q) => (y, s, h, k) {"
                 " g = OptionalGetElement(o) y = Exp(g) s = OptionalGetElement(p) h = OptionalHasElement(q)"
                 " k = OptionalHasElement(p) }",
                 ["OptionalGetElement", "OptionalGetElement", "OptionalHasElement", "OptionalHasElement"]),
    "keyed": ("(map(string, float[N]) m) => (y) { v = ai.onnx.ml.DictVectorizer<string_vocabulary = [\"a\", \"b\"]>(m)"
              " y = Neg(v) }", ["DictVectorizer"]),
    "classes": ("(float[N, 3] x) => (m) { p = Softmax(x) m = ai.onnx.ml.ZipMap<classlabels_int64s = [3, 5, 7]>(p) }",
                ["ZipMap"]),
}  # fmt: skip


@pytest.mark.parametrize(("name", "go"), [*((name, True) for name in OPAQUE), ("branches", False)])
def test_sequences_that_only_a_run_knows(name: str, go: bool, tmp_path: Path) -> None:
    """They are opaque values, and what takes them is carried: printed and read back, interpreted, compiled."""
    graph, carried = OPAQUE[name]
    random = np.random.default_rng(0)
    rows = [random.standard_normal(size).astype(np.float32) for size in ((2, 3), 4, 0, 2)]
    everything = {"x": rows[0], "s": rows[1:], "n": np.array(1), "go": np.array(go), "z": rows[3], "o": rows[1],
                  "p": [rows[1], rows[3]], "q": None, "t": [rows[3], -rows[3]], "m": {"b": 2.0, "a": 0.5},
                  "text": np.array(["a", "bc", ""], object)}  # fmt: skip
    proto = model(graph, 18, domains={"ai.onnx.ml": 3})
    inputs = {value.name: everything[value.name] for value in proto.graph.input}
    wanted = in_runtime(proto, inputs)
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    module = irc.load(path)
    assert parse(str(module), path) == module
    assert [op.attributes["op_type"] for op in module.walk() if op.name == "extern"] == carried
    write_arrays(tmp_path / "in.npz", inputs)
    for backend in (None, "onnx", "triton"):
        found = irc.run(path, tmp_path / "in.npz", backend=backend).outputs
        for output, truth in zip(found.values(), wanted, strict=True):
            check_close(output, truth)
    assert irc.check(path, inputs=inputs).passed


@pytest.mark.parametrize(
    ("arrays", "code"),
    [
        ({}, "run.input_missing"),
        ({"s": [1.0]}, "run.input_dtype"),
        ({"s.0": [1.0], "s.2": [1.0]}, "run.input_unknown"),
        ({"s.0.0": [1.0]}, "run.input_unknown"),
        ({"s.length": 2, "s.0": [1.0]}, "file.format"),
        ({"s.length": [2]}, "file.format"),
        ({"s.length": 10**15}, "file.format"),
        ({"s.0": np.float64([1.0])}, "run.input_dtype"),
        ({"s.0": ["a"]}, "run.input_dtype"),
    ],
)
@pytest.mark.parametrize("backend", [None, "onnx"])
def test_sequences_that_a_file_does_not_hold(arrays: Any, code: str, backend: str | None, tmp_path: Path) -> None:
    onnx.save(model("(seq(float[N]) s, int64 n) => (y) { y = SequenceAt(s, n) }"), tmp_path / "m.onnx")
    given = {name: np.asarray(array, np.float32 if array == [1.0] and not hasattr(array, "dtype") else None)
             for name, array in arrays.items()}  # fmt: skip
    np.savez(tmp_path / "in.npz", n=0, **given)
    with pytest.raises(IrcError) as caught:
        irc.run(tmp_path / "m.onnx", tmp_path / "in.npz", backend=backend)
    assert caught.value.code == code


def test_empty_sequences_and_names_that_collide(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", {"s": [[np.ones(2)], [], [np.zeros(1)]], "t": [], "m": {}})
    found = read_arrays(tmp_path / "a.npz", {"s": by_name("sequence(sequence(f64))"), "t": by_name("sequence(f32)"),
                                             "m": by_name("map(i64, f32)")})  # fmt: skip
    assert [len(part) for part in found["s"]] == [1, 0, 1] and found["t"] == [] and found["m"] == {}
    with pytest.raises(IrcError, match=r"two arrays would be called `t.0`"):
        write_arrays(tmp_path / "b.npz", {"t": [np.ones(1)], "t.0": np.ones(1)})
    assert not (tmp_path / "b.npz").exists()


def test_a_part_of_a_program_of_sequences(tmp_path: Path) -> None:
    graph = """(seq(float[N]) s, int64 n) => (y) { a = SequenceAt(s, n) t = SequenceInsert(s, a) b = SequenceAt(t, n)
               y = Exp(b) }"""
    onnx.save(model(graph), tmp_path / "m.onnx")
    inputs = {"s": [np.ones(3, np.float32), np.zeros(2, np.float32)], "n": np.array(1)}
    irc.extract(tmp_path / "m.onnx", ["t"], ["y"], tmp_path / "part.irc", inputs)
    assert 'opaque["sequence(f32)"]' in (tmp_path / "part.irc").read_text()
    (output,) = irc.run(tmp_path / "part.irc", tmp_path / "part.npz").outputs.values()
    check_close(output, np.ones(2, np.float32))


def test_optionals_that_are_known_to_be_absent() -> None:
    graph = """(float[N] x) => (y) { o = Optional<type = float[N]>() h = OptionalHasElement(o)
               y = If(h) <then_branch = a () => (p) { p = Exp(x) }, else_branch = b () => (q) { q = Neg(x) }> }"""
    assert operations(imported(graph.replace("<type = float[N]>", ""), 18)) == ["neg"]
    text = failure("(float[N] x) => (y) { y = Optional() }", "onnx.unsupported", 18)
    assert "an output that is not there" in text
    text = failure("(float[N] x, bool c) => (y) { o = If(c) <then_branch = a () => (p) { p = Optional(x) },"
                   " else_branch = b () => (q) { q = Optional() }> y = OptionalHasElement(o) }", "onnx.unsupported", 18)
    assert "an optional is there or not as the data says" in text


def test_opaque_types_are_checked() -> None:
    text = failure("(float[N] x) => (y) { s = SequenceEmpty<dtype = 7>() y = SequenceInsert(s, x) }", "onnx.invalid")
    assert "f32[N] is put into a sequence" in text
    text = failure("(sparse_tensor(float[2]) x) => (y) { y = Neg(x) }", "onnx.invalid")
    assert "values of the kind sparse_tensor_type are not read" in text
    text = failure("(seq(float[N]) s) => (y) { y = foreign.Strange(s) }", "onnx.unsupported", domains={"foreign": 1})
    assert "foreign Strange" in text
    text = failure("(seq(float[N]) s) => (y) { y = Neg(s) }", "type.dtype")
    assert "sequence(f32)" in text


@pytest.mark.parametrize("layout", [0, 1])
def test_the_batch_of_an_initial_state_is_that_of_the_sequence(layout: int) -> None:
    """Where it is a number, so that what follows knows it, too."""
    shape, state = ("B, 3, 4", "1, 1, 5") if layout else ("3, B, 4", "1, 1, 5")
    graph = f"""(float[{shape}] x, float[1, 15, 4] w, float[1, 15, 5] r, float[{state}] h) => (y, z)
                {{ y, z = GRU<hidden_size = 5, layout = {layout}>(x, w, r, , , h) }}"""
    module = imported(graph, 17)
    assert types(module) == (["f32[1, 3, 1, 5]", "f32[1, 1, 5]"] if layout else ["f32[3, 1, 1, 5]", "f32[1, 1, 5]"])
    arrays = [floats(*value.type.substitute({symbol: 2 for symbol in value.type.symbols()}).static_shape())
              for value in module.main.arguments]  # fmt: skip
    with pytest.raises(IrcError, match=r"run\.refine"):
        run(module, dict(zip("xwrh", arrays, strict=True)))


def test_a_loop_whose_carried_rank_changes() -> None:
    text = failure("""(float[3] x, int64 n, bool go) => (y) { y = Loop(n, go, x) <
        body = b (int64 i, bool c, float[k] a) => (d, s) { z = Constant<value_ints = [0]>() d = Identity(c)
                                                           s = Unsqueeze(a, z) }> }""", "onnx.unsupported")
    assert "it carries f32[3], which becomes f32[1, 3]" in text


def test_huge_extents_cost_nothing() -> None:
    """Nothing of the size that a model claims is made while importing."""
    module = imported("(float[4611686018427387904, 4611686018427387904] x) => (y, z) { z = Transpose(x)"
                      " s = Constant<value_ints = [1000000000, 1000000000]>() y = ConstantOfShape(s) }")
    assert types(module)[0] == "f32[1000000000, 1000000000]"


def test_deep_and_long_models() -> None:
    """Neither a chain of nodes nor a reversed one meets a limit of recursion."""
    for order in (1, -1):
        proto = model("(float[N] x) => (y) { y = Neg(t4999) }")
        chain = [onnx.helper.make_node("Relu", [f"t{i - 1}" if i else "x"], [f"t{i}"]) for i in range(5000)][::order]
        nodes = [*chain, *proto.graph.node]
        del proto.graph.node[:]
        proto.graph.node.extend(nodes)
        assert len(operations(from_model(proto, NO_FOLDER))) == 5001


# -- cost and determinism ---------------------------------------------------------------------------------------------


def test_importing_loads_neither_onnxruntime_nor_torch_and_is_deterministic() -> None:
    program = (
        "import sys; from pathlib import Path; from irc.frontends.onnx import load; import irc.printer;"
        "text = str(load(Path(sys.argv[1])));"
        "assert not {'torch', 'triton', 'sympy', 'onnxruntime'} & set(sys.modules);"
        "print(text)"
    )
    texts = {
        subprocess.run([sys.executable, "-c", program, str(model_path("minilm_int8"))], capture_output=True, text=True,
                       check=True, env={"PYTHONHASHSEED": seed}).stdout
        for seed in ("0", "1")
    }
    assert len(texts) == 1


@pytest.mark.parametrize("start, end, step", [
    (2**63 - 1, -(2**63), -1), (0, 2**63 - 1, 1), (-(2**63), 2**63 - 1, 2), (-(2**63), -(2**63), -1),
    (-1, -(2**63), -2),
])  # fmt: skip
def test_ends_beyond_every_tensor(start: int, end: int, step: int) -> None:
    """They leave no numbers in extents, however large those may be."""
    values = "".join(f"{name} = Constant<value_ints = [{number}]>() " for name, number in {
        "m": -1, "a": 0, "s": start, "e": end, "t": step}.items())
    graph = f"(float[A, B, C] x) => (y) {{ {values} r = Reshape(x, m) z = Concat<axis = 0>(r, r, r, r, r, r, r)"
    x = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    module = check_against_runtime(f"{graph} y = Slice(z, s, e, a, t) }}", {"x": x}, 18)
    assert "9223372036854775" not in str(module.main.returned[0].type)
