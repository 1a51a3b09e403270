"""Small inputs that require much: each is rejected by a limit that its message names, and an option raises."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import irc
from irc.diagnostics import IrcError
from irc.limits import LIMITS, Limits, read_limit
from tests.command_line import TEXT, Result, irc_here

HUGE = 10**12


def model(nodes: list[onnx.NodeProto], inputs: dict[str, list[int | str]] | None = None,
          constants: dict[str, np.ndarray] | None = None, functions: list[onnx.FunctionProto] = ()) -> onnx.ModelProto:
    """A model of f32 inputs, whose output y has no stated shape."""
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
                     for name, dims in (inputs or {"x": [4]}).items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)


def node(operator: str, inputs: str, output: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], **attributes)


def function(name: str, *nodes: onnx.NodeProto) -> onnx.FunctionProto:
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]
    return helper.make_function("f", name, ["a"], ["b"], nodes, opsets)


def doubling(levels: int) -> list[onnx.FunctionProto]:
    """Functions that call the next one twice."""
    calls = [function(f"F{level}", node(f"F{level + 1}", "a", "t", domain="f"),
                      node(f"F{level + 1}", "t", "b", domain="f")) for level in range(levels)]  # fmt: skip
    return [*calls, function(f"F{levels}", node("Exp", "a", "b"))]


def nested_calls(levels: int) -> str:
    """The same in a text."""
    functions = [
        f"  func @f{level}(%x: f32[4]) -> f32[4] {{\n    %a = call @f{level + 1} %x : f32[4]\n"
        f"    %b = call @f{level + 1} %a : f32[4]\n    return %b\n  }}\n" for level in range(levels)
    ]  # fmt: skip
    last = f"  func @f{levels}(%x: f32[4]) -> f32[4] {{\n    %y = exp %x : f32[4]\n    return %y\n  }}\n"
    return "irc text 1\nmodule @m {\n" + "".join([*functions, last]) + "}\n"


def changing_branch(number: int) -> onnx.NodeProto:
    """An If whose branches give different ranks, so that what follows is read into each."""
    def graph(name: str, axes: str) -> onnx.GraphProto:
        return helper.make_graph([node("ReduceSum", f"t{number} {axes}", name, keepdims=0)] if axes else
                                 [node("Identity", f"t{number}", name)], name, [], [onnx.ValueInfoProto(name=name)])

    return helper.make_node("If", ["c"], [f"t{number + 1}"], then_branch=graph(f"p{number}", ""),
                            else_branch=graph(f"q{number}", "axes"))  # fmt: skip


def doubling_loop(depth: int) -> onnx.GraphProto:
    """The body of a loop whose extents change, so that it is read twice, and so is each of the loops in it."""
    value, again, inner = f"v{depth}", f"a{depth}", f"c{depth}"
    nodes = [node("Identity", inner, again), node("Concat", f"{value} {value}", f"w{depth}", axis=0) if not depth else
             node("Loop", f"n c {value}", f"w{depth}", body=doubling_loop(depth - 1))]  # fmt: skip
    inputs = [helper.make_tensor_value_info(f"i{depth}", TensorProto.INT64, []),
              helper.make_tensor_value_info(inner, TensorProto.BOOL, []),
              helper.make_tensor_value_info(value, TensorProto.FLOAT, None)]  # fmt: skip
    return helper.make_graph(nodes, f"b{depth}", inputs, [helper.make_tensor_value_info(again, TensorProto.BOOL, []),
                                                          onnx.ValueInfoProto(name=f"w{depth}")])


def splats(count: int, elements: int) -> str:
    """A text with constants of one number."""
    body = "".join(f"    %c{i} = const 0.5 : f32[{elements}]\n" for i in range(count))
    return ("irc text 1\nmodule @m {\n  func @main(%x: f32[4]) -> f32[4] {\n" + body
            + "    %y = exp %x : f32[4]\n    return %y\n  }\n}\n")  # fmt: skip


SHAPE = {"s": np.array([HUGE])}
CASES: dict[str, tuple[str, onnx.ModelProto | str, list[str]]] = {  # the limit, the input, the command
    "fill": ("memory", model([node("ConstantOfShape", "s")], constants=SHAPE), ["run"]),
    "fill, in ONNX Runtime": ("memory", model([node("ConstantOfShape", "s")], constants=SHAPE),
                              ["run", "--backend", "onnx"]),
    "fill beyond i64": ("memory", model([node("ConstantOfShape", "s")], constants={"s": np.array([2**62] * 2)}),
                        ["run"]),
    "fill of a size that is computed": ("memory", model(
        [node("Shape", "x", "n"), node("Mul", "n k", "s"), node("ConstantOfShape", "s")],
        constants={"k": np.array([HUGE])}), ["run"]),
    "expand": ("memory", model([node("Expand", "x s")], constants={"s": np.array([HUGE, 4])}), ["run"]),
    "tile": ("memory", model([node("Tile", "x s")], constants=SHAPE), ["run"]),
    "pad": ("memory", model([node("Pad", "x p")], constants={"p": np.array([0, HUGE])}), ["run"]),
    "range": ("memory", model([node("Range", "a b c", "r"), node("Gather", "x r")], constants={
        "a": np.array(0), "b": np.array(HUGE), "c": np.array(1)}), ["run"]),
    "outer sum": ("memory", model([node("Add", "x z")], {"x": [10**6, 1], "z": [1, 10**6]}), ["run"]),
    "doubling": ("memory", model([node("Concat", f"t{i} t{i}", f"t{i + 1}", axis=0) for i in range(40)]
                                 + [node("Neg", "t40")], {"t0": [4]}), ["run", "--limit", "memory=10M"]),
    "many alive": ("memory", model([node("Exp", f"t{i}", f"t{i + 1}") for i in range(30)]
                                   + [node("Sum", " ".join(f"t{i}" for i in range(30)))], {"t0": [10**5]}),
                   ["run", "--limit", "memory=9M"]),
    "random inputs": ("memory", model([node("Exp", "x")], {"x": [10**18]}), ["run"]),
    "random inputs, checked": ("memory", model([node("Exp", "x")], {"x": [HUGE]}), ["check"]),
    "rank": ("rank", model([node("Exp", "x")], {"x": [1] * 200}), ["print"]),
    "rank of a text": ("rank", TEXT.replace("%b: f32[8]", f"%b: f32[{', '.join(['1'] * 200)}]"), ["print"]),
    "rank of a result": ("rank", model([node("Reshape", "x s")], constants={"s": np.array([1] * 99 + [4])}), ["print"]),
    "functions": ("inlined", model([node("F0", "x", domain="f")], functions=doubling(40)), ["print"]),
    "functions with constants": ("inlined_bytes", model([node("F0", "x", domain="f")], functions=[
        *doubling(13)[:-1], function("F13", node("Identity", "a", "u"), helper.make_node(
            "Constant", [], ["k"], value=numpy_helper.from_array(np.zeros(10**5, np.float32))),
            node("Exp", "u", "b"))]), ["print"]),
    "calls": ("inlined", nested_calls(40), ["compile", "-o", "out.onnx"]),
    "branches": ("repeated", model([node("Cast", "x", "c", to=TensorProto.BOOL), *map(changing_branch, range(20)),
                                   node("Neg", "t20")], {"x": [], "t0": [*"ABCDEFGHIJKLMNOPQRSTUVWXY"]},
                                  {"axes": np.array([0])}), ["print", "--limit", "repeated=2k"]),
    "loops": ("repeated", model([node("Loop", "n c x", body=doubling_loop(14))], constants={
        "n": np.array(2), "c": np.array(True)}), ["print", "--limit", "repeated=2k"]),
    "one constant": ("literals", splats(1, 2**28), ["print"]),
    "many constants": ("literals", splats(99, 10**6), ["print"]),
    "a window": ("literals", model([node("AveragePool", "x", kernel_shape=[10**6] * 2, pads=[10**6] * 4)],
                                   {"x": [1, 1, 9, 9]}), ["compile", "-o", "out.onnx"]),
}  # fmt: skip


def command(folder: Path, content: onnx.ModelProto | str, arguments: list[str], *more: str) -> Result:
    """A command over the content as a file."""
    name = "m.irc" if isinstance(content, str) else "m.onnx"
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content.SerializeToString())
    return irc_here(arguments[0], name, *arguments[1:], *more, folder=folder)


@pytest.mark.parametrize("case", CASES)
def test_what_asks_for_much_is_refused(case: str, tmp_path: Path) -> None:
    name, content, arguments = CASES[case]
    result = command(tmp_path, content, arguments)
    assert result.code == 3 and "error[limit.exceeded]" in result.err, result
    assert f"--limit {name}=NUMBER" in result.err and re.search(r"expected: at most [0-9]+\n", result.err)
    assert {path.name for path in tmp_path.iterdir()} <= {"m.irc", "m.onnx"}


def test_every_limit_has_a_page_and_can_be_raised(tmp_path: Path) -> None:
    assert list(Limits.__annotations__) == list(LIMITS)  # what type checkers see
    page = irc_here("doc", "limits", folder=tmp_path).out
    for name, entry in LIMITS.items():
        assert re.search(rf"^{name} +{entry.value} {entry.unit}", page, re.MULTILINE)
    fill = model([node("ConstantOfShape", "s")], constants={"s": np.array([10**4])})
    assert command(tmp_path, fill, ["run"], "--limit", "memory=10k").code == 3
    assert command(tmp_path, fill, ["run"], "--limit", "memory=1M").code == 0
    assert command(tmp_path, splats(1, 10**5), ["print"], "--limit", "literals=399999").code == 3
    assert command(tmp_path, splats(1, 10**5), ["print"], "--limit", "literals=400k").code == 0
    assert command(tmp_path, CASES["functions"][1], ["print"], "--limit", "inlined=4").code == 3
    small = model([node("F0", "x", domain="f")], functions=doubling(4))
    assert command(tmp_path, small, ["print"], "--limit", "inlined=50").code == 0
    with irc.allow(memory=10**4), pytest.raises(IrcError, match=r"limit\.exceeded"):
        irc.run(write(tmp_path, fill))
    irc.run(write(tmp_path, fill))


def write(folder: Path, content: onnx.ModelProto) -> Path:
    (folder / "m.onnx").write_bytes(content.SerializeToString())
    return folder / "m.onnx"


def test_how_limits_are_written(tmp_path: Path) -> None:
    assert read_limit("memory=64G") == ("memory", 64 * 10**9) and read_limit("rank=7") == ("rank", 7)
    for text in ("memory", "memory=", "memory=-1", "memory=1e9", "=3", "memory=1Q", "memory=" + "9" * 99):
        result = irc_here("print", "m.irc", "--limit", text, folder=tmp_path)
        assert result.code == 2 and "error[usage.value]" in result.err, (text, result)
    result = irc_here("print", "m.irc", "--limit", "memry=3", folder=tmp_path)
    assert result.code == 2 and "did you mean memory?" in result.err


# -- arrays ----------------------------------------------------------------------------------------------------


def npz(path: Path, header: str, data: bytes = b"", name: str = "x.npy", compress: bool = False) -> Path:
    """An archive whose one array has this header."""
    written = header.encode().ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        archive.writestr(name, b"\x93NUMPY\x01\x00" + len(written).to_bytes(2, "little") + written + data)
    return path


def header(shape: object, descr: object = "<f4") -> str:
    return str({"descr": descr, "fortran_order": False, "shape": shape})


@pytest.mark.parametrize("content", [
    header((2**70,)), header((HUGE,)), header((2**62, 4)), header((-4,)), header((1,) * 200), header((True, 4)),
    header((HUGE,), "|V0"), header((4,), "|O"), header((4,), "<f99"), header((4,), [("a", "<f4")] * 2), "(" * 100,
    header((4.0,)), "{}", "__import__('os').mkdir('pwned')",
])  # fmt: skip
def test_arrays_whose_header_lies(content: str, tmp_path: Path) -> None:
    npz(tmp_path / "in.npz", content, bytes(16))
    (tmp_path / "m.irc").write_text(TEXT)
    result = irc_here("run", "m.irc", "--input", "in.npz", folder=tmp_path)
    assert result.code == 3 and "error[file.format]" in result.err, result
    assert not (tmp_path / "pwned").exists()


def test_arrays_that_unpack_to_much(tmp_path: Path) -> None:
    npz(tmp_path / "in.npz", header((10**7,), "|u1"), bytes(10**7), compress=True)
    assert (tmp_path / "in.npz").stat().st_size < 10**5
    (tmp_path / "m.irc").write_text(TEXT)
    result = irc_here("run", "m.irc", "--input", "in.npz", "--limit", "memory=9M", folder=tmp_path)
    assert result.code == 3 and "--limit memory=NUMBER" in result.err, result
    result = irc_here("run", "m.irc", "--input", "in.npz", "--limit", "memory=11M", folder=tmp_path)
    assert result.code == 3 and "run.input" in result.err  # it is read, and has nothing to do with the program


def twice(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning):
        archive.writestr("x.npy", b"")
        archive.writestr("x.npy", b"")


@pytest.mark.parametrize("write_file", [
    lambda path: path.write_bytes(b"\x93NUMPY\x01\x00v\x00" + header((HUGE,)).encode().ljust(117) + b"\n"),
    lambda path: path.write_bytes(b"PK\x05\x06" + b"\xff" * 18), twice, lambda path: path.write_bytes(b""),
    lambda path: npz(path, header((4,)), bytes(16), name="x"),
    lambda path: path.write_bytes(npz(path, header((4,)), bytes(16)).read_bytes().replace(b"NUMPY\x01", b"NUMPY\x09")),
])  # fmt: skip
def test_archives_that_are_none(write_file: Callable[[Path], object], tmp_path: Path) -> None:
    write_file(tmp_path / "in.npz")
    (tmp_path / "m.irc").write_text(TEXT)
    result = irc_here("run", "m.irc", "--input", "in.npz", folder=tmp_path)
    assert result.code == 3 and "error[file.format]" in result.err, result


# -- plans, strings, extents -----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [
    '{"groups": ' + "[" * 10**5 + "]" * 10**5 + "}", "[" * 10**5, '{"a":' * 10**5, "1" * 5000, '{"groups": 3}',
    '{"groups": [[]]}', '{"groups": [{"name": "k", "members": 3, "hash": ""}]}', '{"groups": [3]}', "\0", "",
], ids=lambda content: content[:20])  # fmt: skip
def test_a_plan_that_is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "m.irc").write_text(TEXT)
    (tmp_path / "plan.json").write_text(content)
    result = irc_here("opt", "m.irc", "-p", "fuse{plan=plan.json}", folder=tmp_path)
    assert result.code == 3 and "error[plan.format]" in result.err, result


def test_strings_of_a_model_are_text(tmp_path: Path) -> None:
    """Wherever a string stands in a model, one that is not UTF-8 is rejected, and so is a name with a NUL."""
    marked = helper.make_node("QQQQ1", ["x"], ["QQQQ2"], name="QQQQ3", domain="QQQQ4", QQQQ5=3, doc_string="QQQQ6")
    output = helper.make_tensor_value_info("QQQQ7", TensorProto.FLOAT, ["QQQQ9"])
    branches = {
        "then_branch": helper.make_graph([node("Exp", "x", "QQQQ7")], "QQQQ8", [], [output]),
        "else_branch": helper.make_graph([node("Exp", "x", "z")], "e", [], [onnx.ValueInfoProto(name="z")]),
    }
    called = helper.make_function("QQQA3", "QQQA4", ["a"], ["b"], [node("Exp", "a", "b")],
                                  [helper.make_opsetid("QQQA5", 1)])  # fmt: skip
    proto = model([marked, node("If", "c", **branches)], {"x": ["QQQA1"]}, {"QQQA2": np.zeros(4, np.float32)}, [called])
    proto.producer_name, proto.doc_string, proto.domain, proto.graph.name = "QQQA6", "QQQA7", "QQQA8", "QQQA9"
    proto.metadata_props.add(key="QQQB1", value="QQQB2")
    proto.graph.initializer[0].external_data.add(key="QQQB3", value="QQQB4")
    content = proto.SerializeToString()
    marks = sorted(set(re.findall(rb"QQQ[QAB][0-9]", content)))
    assert len(marks) == 22
    free = {b"QQQQ6", b"QQQA7", b"QQQB2", b"QQQB4"}
    for mark in marks:
        for bad in (b"\xff\xfe", b"\xed\xa0\x80", *((b"\0",) if mark not in free else ())):
            (tmp_path / "m.onnx").write_bytes(content.replace(mark, mark[: -len(bad)] + bad))
            result = irc_here("print", "m.onnx", folder=tmp_path)
            assert result.code == 3 and "error[onnx.invalid]: the string " in result.err, (mark, result)


@pytest.mark.parametrize("place", [
    'module @"X"', 'func @"X"', '%"X": f32', 'loc("X")', '"X" = 3', 'in {"X"}', '<"X">', '?"X" in', 'message = "X"',
])  # fmt: skip
def test_half_characters_in_a_text(place: str, tmp_path: Path) -> None:
    text = (
        "irc text 1\nmodule @m {\n  func @main(%x: f32[N], %c: bool[], %i: i64[]) -> f32[N] {\n"
        '    assert %c {message = "no"}\n    %y = exp %x : f32[N]\n    return %y\n  }\n}\n#1 = loc("m")\n'
    )
    changes = {
        'module @"X"': ("module @m", 'module @"X"'), 'func @"X"': ("func @main", 'func @"X"'),
        '%"X": f32': ("%c: bool[]", '%"X": bool[]'), 'loc("X")': ('loc("m")', 'loc("X")'),
        '"X" = 3': ('{message = "no"}', '{message = "no", "X" = 3}'), '<"X">': ("@main(", '@main<"X">('),
        'in {"X"}': ("{\n  func", '{weights = "X"} {\n  func'), 'message = "X"': ('"no"', '"X"'),
        '?"X" in': ("    return", '    bind %i {symbol = ?"X" in (0, 8)}\n    return'),
    }  # fmt: skip
    old, new = changes[place]
    text = text.replace("@main(", "@main<N>(") if place != '<"X">' else text.replace("f32[N]", "f32[4]")
    assert old in text
    for half in ("\\ud800", "\\udc80"):
        (tmp_path / "m.irc").write_text(text.replace(old, new.replace("X", half), 1))
        result = irc_here("compile", "m.irc", "-o", "out.onnx", folder=tmp_path)
        assert result.code == 3 and "error[text.syntax]" in result.err, (half, result)
    (tmp_path / "m.irc").write_text(text.replace(old, new.replace("X", "\\ud83d\\ude00"), 1))
    assert "half of a character" not in irc_here("print", "m.irc", folder=tmp_path).err


def test_extents_beyond_64_bits(tmp_path: Path) -> None:
    """They are an error of the model's, not of a policy; what has more bytes than that has kernels all the same."""
    result = command(tmp_path, model([node("Concat", "x x", axis=0)], {"x": [2**62]}), ["kernels"])
    assert result.code == 3 and "error[dim.range]" in result.err, result
    result = command(tmp_path, model([node("Exp", "x", "z"), node("Neg", "z")], {"x": [2**62, 2**62]}), ["kernels"])
    assert result.code == 0 and "1 launch" in result.out, result


# -- texts that nest, repeat, or compute ------------------------------------------------------------------------


def text(body: str = "", shape: str = "4", symbols: str = "") -> str:
    """A text with one argument of this shape."""
    return (f"irc text 1\nmodule @m {{\n  func @main{symbols}(%x: f32[{shape}]) -> f32[{shape}] {{\n{body}"
            "    return %x\n  }\n}\n")  # fmt: skip


def value(expression: str) -> str:
    return text(f"    %y = dim {{value = {expression}}} : i64[]\n", "N", "<N>")


N = 100_000


@pytest.mark.parametrize(("code", "content"), [
    ("text.syntax", value("(" * N + "N" + ")" * N)), ("text.syntax", value("[" * N + "1" + "]" * N)),
    ("text.syntax", value("{a = " * N + "1" + "}" * N)), ("dim.syntax", value("-" * N + "1")),
    ("dim.syntax", text(shape="(" * N + "4" + ")" * N)), ("dim.syntax", text(shape="min(1, " * N + "4" + ")" * N)),
    ("dim.syntax", text(shape="*".join(["9" * 4000] * 99))), ("dim.syntax", text(shape="9" * N)),
    ("type.dtype", text().replace("f32[4]", f'opaque["{"sequence(" * N}f32{")" * N}"]')),
    ("text.syntax", text("    %y = if %x : f32[4] {\n" * 200)), ("text.syntax", text('    %y = "' + "a" * 10**6)),
    ("text.syntax", text('    %y = extern %x {op_type = "' + "\\\\" * N)), ("text.undefined_name", text(
        "".join(f"    %{'ab' * 999}{i} = neg %x : f32[4]\n" for i in range(99)) + f"    neg %{'ba' * 999}\n")),
], ids=lambda part: part if len(part) < 20 else part[60:80])  # fmt: skip
def test_texts_that_nest_or_compute(code: str, content: str, tmp_path: Path) -> None:
    """They are rejected, in time and memory that is linear in them."""
    (tmp_path / "m.irc").write_text(content)
    result = irc_here("print", "m.irc", "-o", "out.irc", folder=tmp_path)
    assert result.code == 3 and f"error[{code}]" in result.err, result.err[:999]


@pytest.mark.parametrize("attributes", [
    "version = 0", "version = -1", "version = 9999999999", "outputs = [9999999999]", "attributes = {a = [1, 2.5]}",
    'attributes = {"" = 1}', "attributes = {a = 99999999999999999999}", "attributes = {a = none}",
    "attributes = {a = {b = 1}}", "attributes = {a = [[1]]}",
])  # fmt: skip
def test_externs_that_no_operator_has(attributes: str, tmp_path: Path) -> None:
    given = {"domain": '""', "op_type": '"Exp"', "version": "13", "attributes": "{}"}
    name, _, written = attributes.partition(" = ")
    given[name] = written
    listed = ", ".join(f"{name} = {written}" for name, written in given.items())
    written = text(f"    %y = extern %x {{{listed}}} : f32[4]\n").replace("return %x", "return %y")
    (tmp_path / "m.irc").write_text(written)
    for arguments in (["run", "m.irc"], ["compile", "m.irc", "-o", "out.onnx"],
                      ["compile", "m.irc", "--backend", "triton", "-o", "out.triton"]):  # fmt: skip
        result = irc_here(*arguments, folder=tmp_path)
        assert result.code == 3 and "error[type.attribute]" in result.err, (arguments, result)


def test_an_extern_of_a_version_that_is_far_ahead(tmp_path: Path) -> None:
    (tmp_path / "m.irc").write_text(text(
        '    %y = extern %x {domain = "", op_type = "Exp", version = 2000000000, attributes = {}} : f32[4]\n'
    ).replace("return %x", "return %y"))
    assert irc_here("compile", "m.irc", "-o", "out.onnx", folder=tmp_path).code in (0, 3, 4)


@pytest.mark.parametrize("change", [
    lambda proto: proto.opset_import.add(domain="other", version=2**40),
    lambda proto: proto.opset_import.add(domain="other", version=-1), lambda proto: setattr(proto, "ir_version", 2**40),
    lambda proto: setattr(proto, "ir_version", -(2**63)),
    lambda proto: setattr(proto.opset_import[0], "version", 2**62),
])  # fmt: skip
def test_versions_that_there_are_not(change: Callable[[onnx.ModelProto], object], tmp_path: Path) -> None:
    proto = model([node("Shrink", "x")])
    change(proto)
    result = command(tmp_path, proto, ["print"])
    assert result.code in (3, 4) and re.search(r"error\[onnx\.(invalid|opset)\]", result.err), result


def test_a_shape_of_many_elements_is_counted_before_onnx_makes_dims_of_it(tmp_path: Path) -> None:
    """ONNX's inference gives a result as many axes as the vector of its shape is long."""
    for operator in ("Expand", "Reshape", "ConstantOfShape"):
        proto = model([node(operator, "s" if operator == "ConstantOfShape" else "x s")])
        proto.graph.input.append(helper.make_tensor_value_info("s", TensorProto.INT64, [2**31]))
        result = command(tmp_path, proto, ["print"])
        assert result.code == 3 and "--limit rank=NUMBER" in result.err, result


@pytest.mark.parametrize("shape", [", ".join([str(2**62)] * 20), "*".join("N" * 600)])
def test_figures_past_what_floats_hold(shape: str, tmp_path: Path) -> None:
    """Nothing can run at such sizes, but what is counted is reported."""
    content = text("    %y = exp %x : f32[S]\n    %z = neg %y : f32[S]\n", "S", "<N>").replace("return %x", "return %z")
    (tmp_path / "m.irc").write_text(content.replace("f32[S]", f"f32[{shape}]"))
    for arguments in (["kernels", "m.irc"], ["kernels", "m.irc", "--json"], ["print", "m.irc", "--summary"],
                      ["explain", "m.irc", "%y", "%z"]):  # fmt: skip
        result = irc_here(*arguments, "--dim", "N=1000000000", folder=tmp_path)
        assert result.code == 0, (arguments, result)
    for arguments in (["run", "m.irc"], ["compile", "m.irc", "--backend", "triton", "-o", "out.triton"],
                      ["print", "m.irc", "--specialize", "N=1000000000"]):  # fmt: skip
        result = irc_here(*arguments, "--dim", "N=1000000000", folder=tmp_path)
        assert result.code in (0, 3, 4), (arguments, result)
