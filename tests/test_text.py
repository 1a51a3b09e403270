"""Text: what is printed is read back equal, and what cannot be read is rejected with a place and advice."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import modules, tensors

from irc import dims, ops
from irc.diagnostics import UNKNOWN, IrcError, Location
from irc.driver.text_files import load_text, save_text
from irc.dtypes import ALL, F16, F32, F64, I64, STRING, by_name
from irc.ir import Function
from irc.literals import format_literal
from irc.module import Module, difference
from irc.op import Builder, const, return_
from irc.parser import parse
from irc.parser.attributes import DEEPEST
from irc.printer import format_attribute, print_operation
from irc.types import TensorType
from irc.weights import Tensor, load
from tests.growth import assert_linear_time
from tests.programs import static_type

BLOCK = """irc text 1
module @block {
  func @main<B in [1, 64], S in [16, 1024] % 16, T>(%x: f16[B, S, 768], %t: f16[T]) -> (y: f16[B, S, 768]) loc(#1) {
    %g = const 0.5 : f16[768]
    %h.0.ln_1 = layer_norm %x, %g, _ {axis = -1, epsilon = 1e-05} : f16[B, S, 768] loc(#2)
    %"odd name" = kernel @tanh_add (%n0 = %h.0.ln_1, %x0 = %x) {kind = "pointwise"} : f16[B, S, 768] {
      %/h/0/Tanh_output_0 = tanh %n0 : f16[B, S, 768]
      %1 = add %/h/0/Tanh_output_0, %x0 : f16[B, S, 768] loc(#1)
      yield %1
    }
    %a, %b = split %x {axis = 2, sizes = [256, 512]} : f16[B, S, 256], f16[B, S, 512]
    return %"odd name"
  }
}
#1 = loc("gpt.py")
#2 = loc("gpt.py":41:8, "h.0.ln_1", ["raise(gelu)", "fold"])
"""


def body(*lines: str, signature: str = "%x: f32[4]", result: str = "f32[4]", returned: str = "%x") -> str:
    inside = "".join(f"    {line}\n" for line in lines)
    return (
        f"irc text 1\nmodule @m {{\n  func @main({signature}) -> {result} {{\n{inside}    return {returned}\n  }}\n}}\n"
    )


def refusal(text: str) -> IrcError:
    with pytest.raises(IrcError) as caught:
        parse(text)
    return caught.value


def where(error: IrcError) -> str:
    """Code, line, column and what the caret underlines."""
    diagnostic = error.diagnostics[0]
    span = diagnostic.text
    assert span is not None and diagnostic.location != UNKNOWN
    return f"{diagnostic.code} {span.line}:{span.column} {span.source[span.column - 1 : span.column - 1 + span.length]}"


# -- what is written is read back ----------------------------------------------------------------------------------


def test_printing_is_stable():
    assert str(parse(BLOCK)) == BLOCK
    assert str(parse(BLOCK)) == BLOCK


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(modules())
def test_random_modules(module):
    text = str(module)
    again = parse(text)
    assert difference(module, again) is None
    assert str(again) == text
    assert difference(module.clone(), again) is None


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(tensors())
def test_literals_keep_every_bit(tensor):
    assert parse_constant(f"{format_literal(tensor)} : {TensorType(tensor.dtype, tensor.shape)}") == tensor


def parse_constant(literal: str) -> Tensor:
    constant = parse(body(f"%c = const {literal}")).main.block.first.attributes["value"]
    assert isinstance(constant, Tensor)
    return constant


@pytest.mark.parametrize("dtype", [dtype for dtype in ALL if 0 < dtype.bits <= 16], ids=str)
def test_all_patterns_of_narrow_types(dtype):
    codes = np.arange(2 ** (1 if dtype.name == "bool" else dtype.bits))
    array = codes.astype(np.uint16 if dtype.bits == 16 else np.uint8).view(dtype.numpy)
    tensor = Tensor.of(array, dtype)
    assert parse_constant(f"{format_literal(tensor)} : {TensorType(dtype, tensor.shape)}") == tensor


@pytest.mark.parametrize(
    ("bits", "text"),
    [(0x7FC00000, "nan"), (0x7FC00001, "0x7fc00001"), (0xFFC00000, "0xffc00000"), (0x7F800001, "0x7f800001"),
     (0x80000000, "-0.0"), (0x3DCCCCCD, "0.1"), (0x7F800000, "inf"), (0x00000001, "1e-45"),
     (0x7F7FFFFF, "3.4028235e+38")],
)  # fmt: skip
def test_floats_are_short_and_exact(bits, text):
    tensor = Tensor.of(np.array(bits, np.uint32).view(np.float32))
    assert format_literal(tensor) == text
    assert parse_constant(f"{text} : f32[]") == tensor


def test_literals():
    assert format_literal(Tensor.of([[1, 2], [3, 4]], I64)) == "[[1, 2], [3, 4]]"
    assert format_literal(Tensor.of(np.zeros((2, 0)), F32)) == "[[], []]"
    assert format_literal(Tensor.of(np.zeros((0, 2)), F32)) == "[]"
    assert format_literal(Tensor.of(np.full((3, 3), 0.5), F64)) == "0.5"
    assert format_literal(Tensor.of([1 - 2j], by_name("c64"))) == "[(1.0, -2.0)]"
    assert format_literal(Tensor.of(['a"\n', "é"], STRING)) == '["a\\"\\n", "é"]'


@pytest.mark.parametrize(
    ("attribute", "text"),
    [(None, "none"), (True, "true"), (1, "1"), (1.0, "1.0"), (1e-5, "1e-05"), (float("-inf"), "-inf"),
     ("a\t", '"a\\t"'),
     (F16, "f16"), ((1, (2, 3)), "[1, [2, 3]]"), ({"a": 1, "b c": (0.5,)}, '{a = 1, "b c" = [0.5]}'),
     (Tensor.of([1, 2], I64), "[1, 2] : i64[2]"), (Tensor.of(1.0, F32, "w"), '@"w" : f32[]'), (1 - 2j, "(1.0, -2.0)")],
)  # fmt: skip
def test_attributes(attribute, text):
    assert format_attribute(attribute) == text


def test_symbols_are_born_where_they_are_first_mentioned():
    text = """irc text 1
module @m {
  func @main<B>(%x: f32[*], %n: i64[]) -> (f32[u, B], f32[2*v]) {
    bind %n {symbol = ?s in (-4, 8)}
    %y = refine %x : f32[?u in (0, 8) % 2, B]
    %z = refine %x with ?v in (1, 9) : f32[2*v]
    %w = refine %x with ?"odd [\\"name\\"]" in (1, 9) : f32["odd [\\"name\\"]" + 1, s]
    return %y, %z
  }
}
"""
    module = parse(text)
    assert str(module) == text
    assert list(module.main.defined_symbols) == ["s", "u", "v", 'odd ["name"]']


def test_hand_written_forms():
    """Types may be left out, layout is free, comments are skipped, expressions are simplified."""
    text = """
// what follows was written by hand
irc text 1 module @m { func @main<S>(%x: f32[S + S]) -> f32[2*S] { // a comment
  %y = add %x,
       %x
  neg %y // an unnamed result
  %z = reshape %y { shape = [ (S + 3)//4*0 + 2 * S ] }
  return %z } }"""
    module = parse(text)
    assert [operation.name for operation in module.walk()] == ["add", "neg", "reshape", "return"]
    assert module.main.returned[0].type == module.main.arguments[0].type
    assert difference(module, parse(str(module))) is None


def test_bare_words_mean_what_the_declaration_allows():
    text = body(
        "%a = cast %x {to = bf16, saturate = true} : bf16[4]",
        '%b = extern %x, _, %x {domain = "d", op_type = "F", version = 1, attributes = '
        '{t = [1, 2] : i64[2], s = "f32", d = f32, b = true, n = none, f = -inf, i = -3, '
        "l = [[1], []], e = {}}} : f32[*]",
    )
    module = parse(text)
    extern = list(module.main.block)[1]
    assert extern.operands[1] is None
    assert extern.attributes["attributes"] == {
        "t": Tensor.of([1, 2], I64), "s": "f32", "d": F32, "b": True, "n": None, "f": float("-inf"), "i": -3,
        "l": ((1,), ()), "e": {},
    }  # fmt: skip
    assert str(module) == text


def test_symbols_may_be_called_like_other_words():
    names = ["f32", "true", "none", "inf", "in", "min", "loc", "_"]
    function = Function("main", [])
    dims_ = [function.symbol(name).expr for name in names]
    with Builder(function.block) as builder:
        ops.TABLE["dim"](value=tuple(dims_))
        builder.create(return_, [])
    module = Module("m", [function])
    assert difference(module, parse(str(module))) is None


def test_locations():
    function = Function("main", [static_type("f32[]")], ["x"])
    given_ = [
        Location("a", 1, 2, "n", ("p", "q")), Location(None, 0, 0, "n"), Location("a", 3), Location("a", 0, 4),
        Location("a", made_by=("p",)), Location("a", 1, 2, "n", ("p", "q")), UNKNOWN, Location('"\n', 0, 0, "é\u2028"),
    ]  # fmt: skip
    for location in given_:
        with Builder(function.block, location=location):
            ops.TABLE["neg"](function.arguments[0])
    with Builder(function.block) as builder:
        builder.create(return_, [])
    text = str(Module("m", [function]))
    assert [operation.location for operation in parse(text).walk()][:-1] == given_
    assert '#1 = loc("a":1:2, "n", ["p", "q"])\n#2 = loc(_, "n")\n#3 = loc("a":3)\n#4 = loc("a":0:4)\n' in text


def test_operations_print_alone():
    function = parse(BLOCK).main
    kernel = list(function.block)[2]
    assert print_operation(kernel).splitlines()[-1] == "}"


def test_text_does_not_depend_on_the_hash_seed():
    program = "import sys; from irc.parser import parse; print(parse(sys.stdin.read()))"
    outputs = {
        subprocess.run([sys.executable, "-c", program], input=BLOCK, capture_output=True, text=True, check=True,
                       env={**os.environ, "PYTHONHASHSEED": seed}).stdout for seed in ("0", "1")
    }  # fmt: skip
    assert outputs == {BLOCK + "\n"}


# -- weights -------------------------------------------------------------------------------------------------------


def with_weights() -> Module:
    function = Function("main", [])
    with Builder(function.block) as builder:
        values = [const(value=Tensor.of(data, F32, "w")) for data in ([1, 2], [3, 4], [1, 2])]
        values.append(const(value=Tensor.of(["a"], STRING, "words")))
        builder.create(return_, values[:3])
    return Module("m", [function])


def test_saving_with_weights(tmp_path):
    module = with_weights()
    save_text(module, tmp_path / "m.irc")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.irc", "m.safetensors"]
    assert {name: list(tensor.array()) for name, tensor in load(tmp_path / "m.safetensors").items()} == {
        "w": [1, 2],
        "w_1": [3, 4],
    }
    again = load_text(tmp_path / "m.irc")
    assert again == module
    assert again.source == "m.safetensors" and str(again.source_digest).startswith("sha256:")
    first = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    save_text(again, tmp_path / "m.irc")
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == first


def test_saving_without_weights(tmp_path):
    save_text(parse(BLOCK), tmp_path / "m.irc")
    assert [path.name for path in tmp_path.iterdir()] == ["m.irc"]
    assert load_text(tmp_path / "m.irc") == parse(BLOCK)


def test_weights_that_are_not_there(tmp_path):
    path = tmp_path / "m.irc"
    save_text(with_weights(), path)
    text = path.read_text()

    def code(changed: str) -> str:
        with pytest.raises(IrcError) as caught:
            parse(changed, path)
        assert caught.value.diagnostics[0].text is not None
        return caught.value.code

    unhashed = text.replace(text[text.index(", sha256") : text.index('"}') + 1], "")
    assert parse(unhashed, path).source_digest is None
    assert code(text.replace('const @"w"', 'const @"v"')) == "weights.absent"
    assert (
        code(text.replace(" : f32[2]", " : f32[3]").replace("-> (f32[2], f32[2], f32[2])", "-> ()")) == "weights.absent"
    )
    assert code(unhashed.replace("m.safetensors", "n.safetensors")) == "weights.missing"
    assert code(unhashed.replace("m.safetensors", "../m.safetensors")) == "weights.outside"
    assert code(text.replace("sha256:", "sha256:0")) == "weights.stale"
    assert code("irc text 1\nmodule @m {\n" + text.split("{\n", 1)[1]) == "weights.missing"


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "binary.irc").write_bytes(b"\xff\xfe")
    for name, code in (("none.irc", "file.missing"), ("binary.irc", "text.syntax"), (".", "file.unreadable")):
        with pytest.raises(IrcError) as caught:
            load_text(tmp_path / name)
        assert caught.value.code == code


# -- what cannot be read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "text.version 1:1 "),
        ("module @m {\n}\n", "text.version 1:1 m"),
        ("irc text 2\nmodule @m {\n}\n", "text.version 1:1 irc text 2"),
        ("irc text 1\nmodule @m {\n", "text.syntax 2:12 "),
        ("irc text 1\nmodule @m {colour = 1} {\n}\n", "text.syntax 2:21 1"),
        (body("%y = add %x %x : f32[4]"), "text.syntax 4:17 %x"),
        (body("%y = ad %x, %x : f32[4]"), "text.unknown_op 4:10 ad"),
        (body("%y = add %x, %yy : f32[4]"), "text.undefined_name 4:18 %yy"),
        (body("%x = add %x, %x : f32[4]"), "text.redefined_name 4:5 %x"),
        (body("%y = add %x, %x : f32[5]"), "text.type_mismatch 4:23 f32[5]"),
        (body("%y, %z = add %x, %x : f32[4]"), "type.operands 4:5 %y, %z ="),
        (body("%y = add %x, _ : f32[4]"), "type.operands 4:10 add"),
        (body("%y = softmax %x {axes = 1} : f32[4]"), "type.attribute 4:10 softmax"),
        (body("%y = softmax %x {axis = 1, axis = 1} : f32[4]"), "text.redefined_name 4:39 1"),
        (body("%y = reshape %x {shape = [B]} : f32[B]"), "dim.unbound 4:31 B"),
        (body("%y = reshape %x {shape = [2*]} : f32[4]"), "dim.syntax 4:31 2*"),
        (body("%y = refine %x : f32[-1]"), "dim.range 4:22 f32[-1]"),
        (body(f"%y = refine %x : f32[{2**63}]"), f"dim.range 4:22 f32[{2**63}]"),
        (body("%y = cast %x {to = f33} : f32[4]"), "type.dtype 4:24 f33"),
        (body("%y = cast %x {to = f16} : f33[4]"), "type.dtype 4:31 f33[4]"),
        (body("%y = const [1, 2] : i64[3]"), "type.shape 4:16 [1, 2]"),
        (body("%y = const [[1], 2] : i64[2, 1]"), "type.shape 4:22 2"),
        (body("%y = const 300 : u8[]"), "type.dtype 4:16 300"),
        (body("%y = const 1.5 : i64[]"), "text.syntax 4:16 1.5"),
        (body("%y = const 1.5"), "text.syntax 4:16 1.5"),
        (body("%y = const 0.0 : f32[1000000000000]"), "limit.exceeded 4:16 0.0"),
        (body('%y = const @"w" : f32[4]'), 'weights.missing 4:16 @"w"'),
        (body("%y = neg %x : f32[4] loc(#3)"), "text.undefined_name 4:26 loc(#3)"),
        (body("%y = call @other %x : f32[4]"), "text.undefined_name 4:15 @other"),
        (body(result="f32[5]"), "text.type_mismatch 3:29 f32[5]"),
        (body(returned="%x, %x"), "text.type_mismatch 3:29 f32[4]"),
        (body(signature="%x: f32[4], %x: f32[4]"), "text.redefined_name 3:26 %x"),
        (body("%y = refine %x : f32[?u in (9, 8)]"), "dim.range 4:22 f32[?u in (9, 8)]"),
        (body("bind %x {symbol = ?u in (0, 8)}", "bind %x {symbol = ?u in (0, 8)}"), "type.dtype 4:5 bind"),
        (body('%y = extern %x {domain = "\\q", op_type = "", version = 1, attributes = {}} : f32[4]'),
         'text.syntax 4:30 "\\q"'),
        (body("return %x"), None),
        (body() + "#1 = loc(1)\n", "text.syntax 7:6 loc(1)"),
        (body() + '#1 = loc("a")\n#1 = loc("b")\n', "text.redefined_name 8:2 1"),
        (body() + "func", "text.syntax 7:1 func"),
    ],
)  # fmt: skip
def test_errors_show_the_place(text, expected):
    if expected is None:
        parse(text)  # the verifier's matter
    else:
        assert where(refusal(text)) == expected


def test_error_text():
    error = refusal(body("%y = ad %x, %x : f32[4]"))
    assert str(error).splitlines()[:4] == [
        "error[text.unknown_op]: there is no operation `ad`", "  --> <text>:4:10",
        "   |  %y = ad %x, %x : f32[4]", "   |       ^^",
    ]  # fmt: skip
    assert "or add?" in str(error)
    located = (
        body("%z = const [1.0, 2.0] : f32[2]", "%y = add %x, %z : f32[4] loc(#1)") + '#1 = loc("gpt.py":52, "h.0")\n'
    )
    assert "  from: gpt.py:52 (h.0)" in str(refusal(located))


def test_regions_hide_what_they_define():
    text = body(
        "%c = const true : bool[]",
        "%y = if %c : f32[4] {", "  %t = neg %x : f32[4]", "  yield %t", "} else {", "  yield %t", "}",
    )  # fmt: skip
    assert where(refusal(text)) == "text.undefined_name 9:13 %t"
    captured = body('%k = kernel @k () {kind = "pointwise"} : f32[4] {', "  %t = neg %x : f32[4]", "  yield %t", "}")
    assert where(refusal(captured)) == "text.undefined_name 5:16 %x"
    unfinished = body(
        "%c = const true : bool[]", "%y = if %c : f32[4] {", "  %t = neg %x : f32[4]", "} else {", "  yield %x", "}"
    )
    assert where(refusal(unfinished)) == "text.syntax 6:12 neg"


@pytest.mark.parametrize("depth", [DEEPEST // 2, 3000])
@pytest.mark.parametrize("opening", ["(", "[", "{a = ", "min(1, ", "-"])
def test_deep_nesting_of_brackets(opening, depth):
    closing = {"(": ")", "[": "]", "{a = ": "}", "min(1, ": ")", "-": ""}[opening]
    nested = f"{opening * depth}1{closing * depth}"
    for line in (
        f"%y = reshape %x {{shape = [{nested}]}}", f"%y = refine %x : f32[{nested}]", f"%y = const {nested} : f32[1]",
        f'%y = extern %x {{domain = "", op_type = "", version = 1, attributes = {{a = {nested}}}}} : f32[4]',
    ):  # fmt: skip
        try:
            parse(body(line))
        except IrcError as error:
            assert where(error)


def test_deep_nesting_of_regions():
    def nest(depth: int) -> str:
        lines = ["%c = const true : bool[]"]
        lines += [f"%y{level} = if %c : f32[4] {{" for level in range(depth)]
        lines += ["yield %x"]
        lines += [f"}} else {{ yield %x }} yield %y{level}" for level in reversed(range(1, depth))]
        return body(*lines, "} else { yield %x }")

    module = parse(nest(DEEPEST))
    assert parse(str(module)) == module
    for depth in (DEEPEST + 1, 3000):
        assert where(refusal(nest(depth))).startswith("text.syntax")


PIECES = ['"', "{", "}", "[", "]", "(", ")", "%", "@", "#", ":", ",", "=", "?", "\\", "\n", "_", "0", "9" * 5000, "-",
          "nan", "f32", "f32[", "with", "else", "const", "loc(#1)", "//", "\x00", "é", "in", " ", "B",
          "\u2028", "\ud800"]  # fmt: skip


def mutated(text: str, random_: random.Random) -> str:
    for _ in range(random_.choice([1, 1, 2, 5])):
        start = random_.randrange(len(text) + 1)
        stop = min(len(text), start + random_.choice([0, 1, 2, 5, 30]))
        other = random_.randrange(len(text) + 1)
        piece = random_.choice([random_.choice(PIECES), "", text[start:stop] * 2, text[other : other + 30]])
        text = text[:start] + piece + text[stop:]
    return text[: random_.randrange(len(text) + 1)] if random_.random() < 0.2 else text


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(modules(), st.randoms(use_true_random=False))
def test_no_text_raises_anything_but_a_coded_error(module, random_):
    text = str(module)
    for _ in range(20):
        changed = mutated(text, random_)
        try:
            parse(changed)
        except IrcError as error:
            assert where(error) and str(error)


# -- speed ---------------------------------------------------------------------------------------------------------


def chain(length: int) -> str:
    lines = (f"%v{i + 1} = softmax %v{i} {{axis = -1}} : f16[B, S, 768] loc(#1)" for i in range(length))
    text = body(*lines, signature="%v0: f16[B, S, 768]", result="f16[B, S, 768]", returned=f"%v{length}")
    return text.replace("@main(", "@main<B, S>(") + '#1 = loc("a.py")\n'


def large_literal(elements: int) -> str:
    tensor = Tensor.of(np.arange(elements) / 7, F32)
    return body(f"%c = const {format_literal(tensor)} : f32[{elements}]")


@pytest.mark.parametrize("write", [chain, large_literal])
def test_parsing_takes_linear_time(write):
    texts = {size: write(size) for size in (1_000, 8_000)}
    assert_linear_time(lambda size: partial(parse, texts[size]), *texts)


@pytest.mark.slow
def test_long_chains():
    text = chain(100_000)
    assert str(parse(text)) == text


def test_dims_in_text():
    symbol = dims.symbol("S")
    assert format_attribute(((symbol.expr + 31) // 32, 4)) == "[(S + 31)//32, 4]"


def test_a_module_is_shown_in_one_line() -> None:
    module = parse(BLOCK)
    assert repr(module).startswith("<irc.Module block: @main(%x: f16[B, S, 768], %t: f16[T]), ")
    assert "\n" not in repr(module)
    assert repr(Module("empty")) == "<irc.Module empty without functions>"
