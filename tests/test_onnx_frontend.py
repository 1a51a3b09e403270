"""The ONNX frontend beyond single operators: names, shapes, constants, control flow, externs, and bad models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import model_inputs, model_path, reference_outputs, relative_error
from onnx_models import NO_FOLDER, check_against_runtime, check_close, imported, in_runtime, model, operations

from irc.diagnostics import Exit, IrcError
from irc.frontends.onnx import from_model, load
from irc.interpreter import run
from irc.parser import parse
from irc.verifier import verify
from tests.importing import RANDOM, READERS, failure, floats, types

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
    actual = run(module, inputs)
    for output, expected in reference_outputs(path, inputs).items():
        # basic-pitch takes logarithms of a spectrum near 0: ONNX Runtime itself is 2e-4 from f64 on such sound.
        assert relative_error(actual[output], expected) < (5e-4 if name == "basic_pitch" else 1e-4)


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
    actual = run(module, {"x": floats(3), "y": floats(3)})
    assert list(actual) == ["b", "y", "c", "b2"]
    np.testing.assert_array_equal(actual["c"], np.float32([1, 2]))


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
    actual = run(module, {"x": floats(3, 5)})
    assert actual["y"].tolist() == [9, 25] and actual["z"] == 5


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
