"""Bad input: each mistake gets a coded error with a place and a remedy, the right exit code, and leaves no output."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import irc
from irc.diagnostics import IrcError
from irc.driver.models import Settings
from tests.bad_input import working_folder
from tests.command_line import TEXT, Result, irc_here, irc_process, model_proto


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield from working_folder(tmp_path)


def refused(result: Result, code: str, exit_code: int, *words: str, place: str | None = None) -> None:
    """The command failed with this code and exit status, naming a place, with a remedy, and printed no result."""
    assert result.code == exit_code, result.err or result.out
    assert result.out == "" and f"error[{code}]: " in result.err
    assert re.search(r"^  help: \S", result.err, re.MULTILINE)
    if place is not None:
        assert re.search(rf"(?:-->|from:|: ) *.*{re.escape(place)}", result.err), result.err
    for word in words:
        assert word in result.err, result.err


def save_graph(path: Path, nodes: list[onnx.NodeProto], *, initializers: list[TensorProto] | None = None) -> None:
    """A model from f32[4] x to y, whether it makes sense or not."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        initializers or [],
    )
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    )


# -- ONNX files ------------------------------------------------------------------------------------------------

def test_truncated_protobuf(folder: Path) -> None:
    content = (folder / "model.onnx").read_bytes()
    (folder / "half.onnx").write_bytes(content[: len(content) // 2])
    result = irc_process("compile", "half.onnx", "-o", "out.onnx", folder=folder)
    refused(result, "onnx.truncated", 3, place="half.onnx")
    (folder / "pointer.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    refused(irc_here("print", "pointer.onnx", folder=folder), "file.format", 3, place="pointer.onnx")
    (folder / "empty.onnx").write_bytes(b"")
    refused(irc_here("print", "empty.onnx", folder=folder), "onnx.truncated", 3, place="empty.onnx")


def test_cyclic_graph(folder: Path) -> None:
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"], name="first"),
        helper.make_node("Neg", ["a"], ["b"], name="second"),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    save_graph(folder / "cycle.onnx", nodes)
    refused(irc_process("print", "cycle.onnx", folder=folder), "onnx.cycle", 3, "first", "second", place="cycle.onnx")


def test_undefined_and_redefined_names(folder: Path) -> None:
    save_graph(folder / "undefined.onnx", [helper.make_node("Add", ["x", "nowhere"], ["y"], name="sum")])
    result = irc_here("print", "undefined.onnx", folder=folder)
    refused(result, "onnx.undefined_name", 3, "nowhere", place="undefined.onnx")
    save_graph(folder / "twice.onnx", [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["y"])])
    refused(irc_here("print", "twice.onnx", folder=folder), "onnx.redefined_name", 3, place="twice.onnx")


def test_wrong_types_in_a_model(folder: Path) -> None:
    mask = numpy_helper.from_array(np.ones(4, bool), "mask")
    save_graph(folder / "types.onnx", [helper.make_node("Add", ["x", "mask"], ["y"], name="sum")], initializers=[mask])
    result = irc_here("run", "types.onnx", "--output", "out.npz", folder=folder)
    assert re.search(r"error\[(type\.dtype|onnx\.invalid)\]", result.err)
    refused(result, re.findall(r"error\[([\w.]+)\]", result.err)[0], 3, place="types.onnx")
    five = numpy_helper.from_array(np.ones(5, np.float32), "five")
    save_graph(folder / "shapes.onnx", [helper.make_node("Add", ["x", "five"], ["y"], name="sum")], initializers=[five])
    refused(irc_here("print", "shapes.onnx", folder=folder), "type.broadcast", 3, "4", "5", place="sum")


def external_model(folder: Path, location: str) -> Path:
    """A model whose weight lies in a file."""
    model = model_proto(64)
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": str(64 * 32 * 4)}.items():
        weight.external_data.add(key=key, value=value)
    path = folder / "external.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_missing_external_file(folder: Path) -> None:
    path = external_model(folder, "weights.bin")
    result = irc_process("compile", path.name, "-o", "out.onnx", folder=folder)
    refused(result, "onnx.external_missing", 3, "from: external data of 'w'", place="weights.bin")
    (folder / "weights.bin").write_bytes(bytes(100))
    result = irc_here("run", path.name, "--output", "out.npz", folder=folder)
    assert result.code == 3 and "weights.bin" in result.err and result.out == ""


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "sub/../../secret.bin"])
def test_external_path_out_of_the_folder(folder: Path, location: str) -> None:
    path = external_model(folder, location)
    result = irc_here("print", path.name, "-o", "out.irc", folder=folder)
    refused(result, "onnx.external_outside", 3, location, "from: external data of 'w'")


def test_external_link_out_of_the_folder(folder: Path) -> None:
    path, location = external_model(folder, "link.bin"), "link.bin"
    (folder / "link.bin").symlink_to(folder.parent / "secret.bin")
    result = irc_process("run", path.name, "--output", "out.npz", folder=folder)
    refused(result, "onnx.external_outside", 3, location, "from: external data of 'w'")


# -- text ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("softmax %scaled {", "softmax %scaled [", "text.syntax", ["small.irc:6:", "^"]),
        ("= mul %x, %half", "= mul %x, %halve", "text.undefined_name", ["small.irc:5:", "half", "^"]),
        ("= mul %x", "= mull %x", "text.unknown_op", ["small.irc:5:", "mul", "^"]),
        ("%scaled = mul %x, %half : f32[N, 8]", "%scaled = mul %x, %half : f32[N, 9]", "text.type_mismatch",
         ["small.irc:5:", "f32[N, 8]"]),
        ("%b: f32[8]", "%b: f32[7]", "type.broadcast", ["small.irc:7:", "8", "7", "^"]),
        ("{axis = -1}", "{axis = 5}", "type.rank", ["small.irc:6:"]),
        ("{axis = -1}", "{axes = -1}", "type.attribute", ["small.irc:6:", "axis"]),
        ("%p = softmax", "%scaled = softmax", "text.redefined_name", ["small.irc:6:"]),
        ("irc text 1", "irc text 99", "text.version", ["small.irc:1:", "99"]),
        ("irc text 1\n", "", "text.version", ["small.irc:1:"]),
        ("N in [1, 4096]", "N in [9, 4]", "dim.range", ["small.irc"]),
    ],
)  # fmt: skip
def test_mistakes_in_a_text(folder: Path, old: str, new: str, code: str, words: list[str]) -> None:
    assert old in TEXT
    (folder / "small.irc").write_text(TEXT.replace(old, new, 1))
    refused(irc_here("opt", "small.irc", "-p", "fuse", "-o", "out.irc", folder=folder), code, 3, *words)


def test_text_from_standard_input_and_text_that_is_none(folder: Path) -> None:
    broken = TEXT.replace("yield", "").replace("return %y", "return %z").encode()
    result = irc_process("run", "-", "--output", "out.npz", folder=folder, stdin=broken)
    refused(result, "text.undefined_name", 3, "%z", ":8:")
    refused(irc_here("run", "-", folder=folder, stdin=b"\xff\xfe\x00"), "text.syntax", 3, "UTF-8")
    (folder / "binary.irc").write_bytes(b"irc text 1\n\xff")
    refused(irc_here("run", "binary.irc", folder=folder), "text.syntax", 3, place="binary.irc")
    refused(irc_here("run", "-", folder=folder), "text.version", 3)


def test_stale_and_missing_weights(folder: Path) -> None:
    (folder / "m.irc").write_text(irc_here("print", "model.onnx", folder=folder).out)
    onnx.save(model_proto(64), folder / "copy.onnx")
    changed = model_proto(64)
    changed.producer_name = "someone else"
    onnx.save(changed, folder / "model.onnx")
    result = irc_process("run", "m.irc", "--output", "out.npz", folder=folder)
    refused(result, "weights.stale", 3, "expected: sha256:", "restore the file", place="m.irc")
    (folder / "model.onnx").unlink()
    refused(irc_here("run", "m.irc", folder=folder), "weights.missing", 3, "-o", place="m.irc")
    text = (folder / "m.irc").read_text()
    away = re.sub(r'weights = "model.onnx", sha256 = "[^"]*"', 'weights = "../secret.onnx"', text)
    (folder / "m.irc").write_text(away)
    refused(irc_here("run", "m.irc", folder=folder), "weights.outside", 3, place="m.irc")
    (folder / "m.irc").write_text(re.sub(r'weights = "model.onnx", sha256 = "[^"]*"', 'weights = "copy.onnx"', text)
                                  .replace('@"w"', '@"v"').replace("@w ", "@v "))  # fmt: skip
    refused(irc_here("run", "m.irc", folder=folder), "weights.absent", 3, "v", place="m.irc")


# -- the command -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize(
    ("arguments", "code", "exit_code", "words"),
    [
        (["print", "nowhere.onnx"], "file.missing", 3, ["nowhere.onnx"]),
        (["print", "."], "usage.model", 2, ["FILE.py:NAME"]),
        (["print", "model.pt"], "usage.model", 2, ["model.pt", ".onnx"]),
        (["print", "model.py"], "usage.model", 2, ["model.py:NAME"]),
        (["print", "model.py:made"], "file.missing", 3, ["model.py"]),
        (["prnt", "model.onnx"], "usage.arguments", 2, ["prnt", "irc --help"]),
        (["print"], "usage.arguments", 2, ["MODEL", "irc print --help"]),
        (["print", "model.onnx", "--sumary"], "usage.arguments", 2, ["--sumary", "--summary"]),
        (["print", "model.onnx", "--around", "%nope"], "text.undefined_name", 3, ["%nope"]),
        (["opt", "model.onnx"], "usage.arguments", 2, ["--pipeline"]),
        (["opt", "model.onnx", "-p", "fold,cze", "-o", "out.irc"], "pass.unknown", 2, ["pipeline:1:6", "cse", "^^^"]),
        (["opt", "model.onnx", "-p", "fold,,cse", "-o", "out.irc"], "pass.syntax", 2, ["pipeline:1:6", "^"]),
        (["opt", "model.onnx", "-p", "fuse{policy=none", "-o", "out.irc"], "pass.syntax", 2, ["not closed", "^"]),
        (["opt", "model.onnx", "-p", "fuse{polcy=none}", "-o", "out.irc"], "pass.option", 2, ["polcy", "policy", "^"]),
        (["opt", "model.onnx", "-p", "fuse{policy=best}", "-o", "out.irc"], "pass.option", 2, ["best", "greedy"]),
        (["opt", "model.onnx", "-p", "default{fold.x=1}", "-o", "out.irc"], "pass.option", 2, ["x"]),
        (["opt", "model.onnx", "-p", "dce", "--load", "nope.py"], "file.missing", 3, ["nope.py"]),
        (["opt", "model.onnx", "-p", "fuse{plan=nope.json}", "-o", "out.irc"], "file.missing", 3, ["nope.json"]),
        (["opt", "model.onnx", "-p", "fuse{policy=nope.py:best}"], "file.missing", 3, ["nope.py"]),
        (["opt", "model.onnx", "-p", "dce", "--numerics", "fast"], "usage.arguments", 2, ["fast", "exact"]),
        (["run", "small.irc", "--dim", "N"], "usage.dim", 2, ["--dim N", "NAME=SIZE"]),
        (["run", "small.irc", "--dim", "N=many"], "usage.dim", 2, ["N=many"]),
        (["run", "small.irc", "--dim", "M=3"], "dim.unbound", 3, ["M", "N"]),
        (["run", "small.irc", "--dim", "N=5000"], "run.dim_range", 3, ["N = 5000", "[1, 4096]"]),
        (["print", "small.irc", "--specialize", "N=0"], "run.dim_range", 3, ["N = 0", "[1, 4096]"]),
        (["kernels", "small.irc", "--dim", "N=5000"], "run.dim_range", 3, ["N = 5000", "4096"]),
        (["compile", "small.irc", "--backend", "cuda", "-o", "out.onnx"], "usage.arguments", 2, ["onnx", "triton"]),
        (["compile", "small.irc", "--target", "tpu", "-o", "out.onnx"], "usage.backend", 2, ["tpu", "portable"]),
        (["compile", "small.irc", "--backend", "triton", "--target", "sm_9", "-o", "out.triton"], "usage.backend", 2,
         ["sm_9", "sm_90"]),
        (["kernels", "small.irc", "--target", "sm_90,mi300"], "usage.backend", 2, ["mi300", "gfx942"]),
        (["compile", "small.irc", "--target", "cpu,portable", "-o", "out.onnx"], "usage.backend", 2, ["one target"]),
        (["compile", "small.irc", "--backend", "triton", "--keep-kernels"], "usage.arguments", 2, ["ONNX"]),
        (["explain", "no.such"], "usage.unknown_code", 2, []),
        (["explain", "model.onnx", "%nope"], "text.undefined_name", 3, ["%nope"]),
        (["doc", "sofmax"], "usage.unknown_name", 2, ["softmax"]),
        (["check", "small.irc", "--input", "nope.npz"], "file.missing", 3, ["nope.npz"]),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else str(part),
)  # fmt: skip
def test_mistakes_in_a_command(
    folder: Path, arguments: list[str], code: str, exit_code: int, words: list[str]
) -> None:
    refused(irc_here(*arguments, folder=folder), code, exit_code, *words)


def test_sizes_that_do_not_broadcast(folder: Path) -> None:
    """They are an error where both are given; a size that is not given is the one that it broadcasts against."""
    (folder / "two.irc").write_text(
        "irc text 1\nmodule @m {\n  func @main<A, B>(%x: f32[A, 4], %y: f32[B, 4]) -> f32[bcast(A, B), 4] {\n"
        "    %z = add %x, %y : f32[bcast(A, B), 4]\n    %u = exp %z : f32[bcast(A, B), 4]\n    return %u\n  }\n}\n"
    )
    result = irc_here("kernels", "two.irc", "--dim", "A=3", "--dim", "B=4", folder=folder)
    refused(result, "run.dim_range", 3, "A = 3", "B = 4", "broadcast")
    for sizes in ({"A": 3}, {"B": 3}, {"A": 1, "B": 3}):
        actual = irc.kernels(folder / "two.irc", settings=Settings(dims=sizes))
        assert actual.sizes == {"A": 3, "B": 3, **sizes}
        assert actual.distinct_bytes == 4 * 4 * (actual.sizes["A"] + actual.sizes["B"] + 3)


def test_sizes_that_nothing_makes_agree(folder: Path) -> None:
    """Where neither side is a symbol alone the larger one counts, in kernels and host calls alike."""
    extent = "f32[bcast(A//2, B//3), 4]"
    (folder / "two.irc").write_text(
        "irc text 1\nmodule @m {\n  func @main<A in [2, 99], B in [3, 99]>(%x: f32[A//2, 4], %y: f32[B//3, 4],"
        f" %w: f32[4, 4]) -> {extent} {{\n    %z = add %x, %y : {extent}\n    %u = matmul %z, %w : {extent}\n"
        f"    %v = exp %u : {extent}\n    return %v\n  }}\n}}\n"
    )
    actual = irc.kernels(folder / "two.irc")
    assert actual.label == "estimated" and "cannot be inferred" in actual.not_counted
    assert [call.distinct_bytes for call in actual.calls] == [4 * 4 * (64 // 2 + 4 + 64 // 2)]
    assert actual.peak_bytes == 2 * 4 * 4 * (64 // 2)


@pytest.mark.parametrize(
    ("text", "code"),
    [("f32[S", "dim.syntax"), ("f32[S+]", "dim.syntax"), ("f32[S//0]", "dim.syntax"), ("f32[?u]", "dim.syntax"),
     ("f32[-3]", "dim.range"), ("f32[9223372036854775808]", "dim.range"), ("float[3]", "type.dtype")],
)  # fmt: skip
def test_mistakes_in_a_type_to_trace(text: str, code: str) -> None:
    with pytest.raises(IrcError, match=rf"\[{code}\]"):
        irc.trace(lambda x: x, text)


@pytest.mark.parametrize("command", [("print",), ("kernels",), ("experiment", "-p", "a=default")])
def test_a_policy_is_no_model(folder: Path, command: tuple[str, ...]) -> None:
    (folder / "own.py").write_text(
        "from irc.policy import policy\n@policy\ndef small(merge):\n    return 1\ndef plain(x):\n    return x\n"
    )
    for name in ("small", "plain"):
        refused(irc_here(command[0], f"own.py:{name}", *command[1:], folder=folder), "file.format", 3, "fuse.policy=")


def test_a_plan_that_is_none(folder: Path) -> None:
    incomplete = [{"groups": [{"name": "a"}]}, {"groups": [{"name": "a", "members": 5, "hash": ""}]}]
    for content in (b"{}", b"\xff\xfe", b"[1, 2]", *(json.dumps(plan).encode() for plan in incomplete)):
        (folder / "bad.json").write_bytes(content)
        result = irc_here("opt", "small.irc", "-p", "fuse{plan=bad.json}", "-o", "out.irc", folder=folder)
        refused(result, "plan.format", 3, "irc plan")


# -- arrays ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("backend", [None, "onnx", "triton"])
@pytest.mark.parametrize(
    ("arrays", "code", "words"),
    [
        ({"x": np.zeros((3, 7), np.float32), "b": np.zeros(8, np.float32)}, "run.input_shape", ["`x`", "7", "8"]),
        ({"x": np.zeros(8, np.float32), "b": np.zeros(8, np.float32)}, "run.input_shape", ["`x`", "f32[N, 8]"]),
        ({"x": np.zeros((3, 8)), "b": np.zeros(8, np.float32)}, "run.input_dtype", ["`x`", "f64", "f32"]),
        ({"x": np.zeros((3, 8), np.float32)}, "run.input_missing", ["`b`", "f32[8]"]),
        ({"x": np.zeros((3, 8), np.float32), "b": np.zeros(8, np.float32), "c": np.zeros(1)}, "run.input_unknown",
         ["`c`", "x, b"]),
        ({"x": np.zeros((5000, 8), np.float32), "b": np.zeros(8, np.float32)}, "run.dim_range", ["N", "4096"]),
        ({}, "run.input_missing", ["`x`"]),
    ],
    ids=["extent", "rank", "dtype", "missing", "unknown", "range", "empty"],
)  # fmt: skip
def test_arrays_that_do_not_fit(
    folder: Path, backend: str | None, arrays: dict[str, np.ndarray], code: str, words: list[str]
) -> None:
    np.savez(folder / "in.npz", **arrays)
    how = [] if backend is None else ["--backend", backend]
    result = irc_here("run", "small.irc", "--input", "in.npz", "--output", "out.npz", *how, folder=folder)
    refused(result, code, 3, *words)


def test_two_inputs_that_disagree(folder: Path) -> None:
    (folder / "pair.irc").write_text(
        "irc text 1\nmodule @pair {\n  func @main<N>(%x: f32[N], %y: f32[N]) -> f32[N] {\n"
        "    %z = add %x, %y : f32[N]\n    return %z\n  }\n}\n"
    )
    np.savez(folder / "in.npz", x=np.zeros(3, np.float32), y=np.zeros(4, np.float32))
    result = irc_here("run", "pair.irc", "--input", "in.npz", "--output", "out.npz", folder=folder)
    refused(result, "run.dim_conflict", 3, "`y`", "4", "N, which is 3")


def test_files_that_hold_no_arrays(folder: Path) -> None:
    class Hostile:
        def __reduce__(self) -> object:
            return os.system, ("touch harmed",)

    np.savez(folder / "pickled.npz", x=np.array([Hostile()], object))
    np.save(folder / "single.npy", np.zeros(3))
    (folder / "text.npz").write_text("not a zip")
    (folder / "empty.npz").write_bytes(b"")
    whole = (folder / "pickled.npz").read_bytes()
    (folder / "half.npz").write_bytes(whole[: len(whole) // 2])
    with zipfile.ZipFile(folder / "member.npz", "w") as archive:
        archive.writestr("x.txt", "hello")
    for name in ("pickled.npz", "single.npy", "text.npz", "empty.npz", "half.npz", "member.npz"):
        result = irc_here("run", "small.irc", "--input", name, "--output", "out.npz", folder=folder)
        refused(result, "file.format", 3, ".npz", place=name)
    assert not (folder / "harmed").exists()


def test_numbers_beyond_a_narrow_type(folder: Path) -> None:
    (folder / "narrow.irc").write_text(
        "irc text 1\nmodule @n {\n  func @main<N>(%x: i4[N]) -> i4[N] {\n"
        "    %y = reverse %x {axes = [0]} : i4[N]\n    return %y\n  }\n}\n"
    )
    np.savez(folder / "in.npz", x=np.array([1, 9], np.int8))
    result = irc_here("run", "narrow.irc", "--input", "in.npz", "--output", "out.npz", folder=folder)
    refused(result, "run.input_dtype", 3, "`x`", "-8 to 7", place="in.npz")


def test_an_index_that_is_out_of_range(folder: Path) -> None:
    (folder / "lookup.irc").write_text(
        "irc text 1\nmodule @l {\n  func @main<N>(%table: f32[3], %ids: i64[N]) -> f32[N] {\n"
        "    %row = gather %table, %ids {axis = 0} : f32[N]\n    return %row\n  }\n}\n"
    )
    np.savez(folder / "in.npz", table=np.zeros(3, np.float32), ids=np.array([0, 7]))
    arguments = ["run", "lookup.irc", "--input", "in.npz", "--output", "out.npz"]
    refused(irc_here(*arguments, folder=folder), "run.index", 3, "7")
    refused(irc_here(*arguments, "--backend", "onnx", folder=folder), "backend.failed", 3, "idx=7")


# -- a user's own files ---------------------------------------------------------------------------------------

USER = {
    "policy.py": """from irc.policy import policy
@policy
def raises(merge):
    return merge.no_such_thing
@policy
def nonsense(merge):
    return "yes"
@policy
def nothing(merge):
    if merge is None:
        return 1
@policy
def unordered(merge):
    return float("nan")
plain = 5
""",
    "passes.py": """from dataclasses import dataclass
from irc.diagnostics import fail
from irc.pass_manager import Pass
@dataclass
class Polite(Pass):
    \"\"\"Rejects.\"\"\"
    def run(self, module, context):
        raise fail("usage.value", "this module is not accepted", help="take another")
@dataclass
class Rude(Pass):
    \"\"\"Divides by zero.\"\"\"
    def run(self, module, context):
        return 1 / 0
@dataclass
class Careless(Pass):
    \"\"\"Leaves a use of a removed operation.\"\"\"
    def run(self, module, context):
        block = module.main.block
        block.remove(next(iter(block)))
        return True
""",
    "rules.py": """from irc.ops import add, mul, neg
from irc.rewrite import rewrite
@rewrite(numerics="exact")
def halves(x, y):
    return mul(x, y), add(x, y)
@halves.when
def late(x):
    return x.no_such_thing
""",
    "guard.py": """from irc.ops import add, mul
from irc.rewrite import rewrite
@rewrite(numerics="exact")
def swapped(x, y):
    return mul(x, y), mul(y, x)
@swapped.when
def odd(x):
    return 3
""",
    "pattern.py": """from irc.ops import add
from irc.rewrite import rewrite
@rewrite(numerics="exact")
def broken(x, y):
    return add(x, y), undefined(x)
""",
    "loading.py": "import irc\nraise RuntimeError('no')\n",
    "syntax.py": "def oops(:\n",
    "making.py": "def made():\n    return {}['key']\ndef other():\n    return 5\n",
}


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code", "words"),
    [
        (["-p", "fuse{policy=policy.py:raises}"], "policy.raised", 3, ["policy.py:4", "no_such_thing"]),
        (["-p", "fuse{policy=policy.py:nonsense}"], "policy.result", 3, ["nonsense", "'yes'", "reject"]),
        (["-p", "fuse{policy=policy.py:nothing}"], "policy.result", 3, ["nothing", "None", "reject"]),
        (["-p", "fuse{policy=policy.py:unordered}"], "policy.result", 3, ["unordered", "nan"]),
        (["-p", "fuse{policy=policy.py:plain}"], "pass.option", 2, ["plain", "@policy"]),
        (["-p", "fuse{policy=policy.py:raise}"], "load.missing_name", 3, ["raises"]),
        (["-p", "fuse{groups=policy.py:raises}"], "pass.option", 2, ["@group"]),
        (["-p", "polite", "--load", "passes.py"], "usage.value", 2, ["not accepted", "take another"]),
        (["-p", "rude", "--load", "passes.py"], "pass.raised", 3, ["passes.py:13", "ZeroDivisionError"]),
        (["-p", "careless", "--verify-each", "--load", "passes.py"], "pass.raised", 3, ["careless", "V1", "%half"]),
        (["-p", "rewrite{rules=rules.py}"], "rule.raised", 3, ["rules.py:8", "no_such_thing"]),
        (["-p", "rewrite{rules=guard.py}"], "rule.guard", 3, ["odd", "3"]),
        (["-p", "rewrite{rules=pattern.py}"], "rule.raised", 3, ["pattern.py:5", "undefined"]),
        (["-p", "rewrite{rules=policy.py}"], "pass.option", 2, ["@rewrite"]),
        (["-p", "dce", "--load", "loading.py"], "load.raised", 3, ["loading.py:2", "RuntimeError: no"]),
        (["-p", "dce", "--load", "syntax.py"], "load.raised", 3, ["syntax.py:1", "SyntaxError"]),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else str(part),
)
def test_mistakes_in_a_file_of_ones_own(
    folder: Path, arguments: list[str], code: str, exit_code: int, words: list[str]
) -> None:
    for name, content in USER.items():
        (folder / name).write_text(content)
    refused(irc_here("opt", "small.irc", *arguments, "-o", "out.irc", folder=folder), code, exit_code, *words)
    assert not (folder / "irc-reproducer").exists()  # not a bug of irc


def test_mistakes_in_a_model_of_ones_own(folder: Path) -> None:
    for name, content in USER.items():
        (folder / name).write_text(content)
    refused(irc_here("print", "making.py:made", folder=folder), "load.raised", 3, "making.py:2", "KeyError")
    refused(irc_here("print", "making.py:other", folder=folder), "file.format", 3, "int", "irc.trace")
    refused(irc_here("print", "making.py:mad", folder=folder), "load.missing_name", 3, "made")
    refused(irc_here("check", "policy.py", folder=folder), "usage.value", 2, "@rewrite")


# -- outputs ---------------------------------------------------------------------------------------------------

def test_a_folder_that_irc_did_not_write_stays(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").write_text("years of work")
    result = irc_process("compile", "small.irc", "--backend", "triton", "-o", "mine", folder=folder)
    refused(result, "file.exists", 2, place="mine")
    assert [path.name for path in (folder / "mine").iterdir()] == ["thesis.txt"]
    assert (folder / "mine" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    "arguments",
    [
        ["print", "model.onnx", "-o"],
        ["opt", "model.onnx", "-p", "dce", "-o"],
        ["compile", "model.onnx", "-o"],
        ["run", "model.onnx", "--output"],
        ["opt", "model.onnx", "-p", "fuse", "--plan"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_an_output_that_cannot_be_written(folder: Path, arguments: list[str]) -> None:
    (folder / "file").write_text("a file, not a folder")
    for place in ("nowhere/out.onnx", "file/out.onnx"):
        result = irc_here(*arguments, place, folder=folder)
        assert re.search(r"error\[file\.(missing|unreadable)\]", result.err), result.err
        assert result.code == 3 and result.out == "" and place.split("/")[0] in result.err


def test_a_folder_that_cannot_be_written(folder: Path) -> None:
    (folder / "file").write_text("a file, not a folder")
    result = irc_here("compile", "small.irc", "--backend", "triton", "-o", "file/out.triton", folder=folder)
    refused(result, "file.unreadable", 3, place="file/out.triton")


def test_a_failure_leaves_the_output_that_was_there(folder: Path) -> None:
    for name in ("kept.npz", "kept.irc", "kept.onnx"):
        (folder / name).write_text("before")
    np.savez(folder / "in.npz", x=np.zeros((3, 7), np.float32))
    assert irc_here("run", "small.irc", "--input", "in.npz", "--output", "kept.npz", folder=folder).code == 3
    assert irc_here("opt", "small.irc", "-p", "fuse{policy=best}", "-o", "kept.irc", folder=folder).code == 2
    assert irc_here("compile", "nowhere.onnx", "-o", "kept.onnx", folder=folder).code == 3
    assert {(folder / name).read_text() for name in ("kept.npz", "kept.irc", "kept.onnx")} == {"before"}


def test_what_a_backend_cannot_express(folder: Path) -> None:
    (folder / "complex.irc").write_text(
        "irc text 1\nmodule @c {\n  func @main<N>(%x: f6e2m3[N]) -> f6e2m3[N] {\n"
        "    %y = reverse %x {axes = [0]} : f6e2m3[N]\n    return %y\n  }\n}\n"
    )
    result = irc_here("compile", "complex.irc", "--backend", "triton", "-o", "out.triton", folder=folder)
    refused(result, "backend.unsupported", 4, "%y = reverse", "f6e2m3")
