"""Constants' storage: every dtype by every reader, the same bytes each time, and hostile files rejected."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import irc
from irc import dtypes, files, weights
from irc.diagnostics import IrcError
from irc.dtypes import ALL, BF16, BOOL, C64, F16, F32, F64, I4, I8, I64, STRING, U8, U64, DType
from irc.frontends.onnx import weights as onnx_weights
from irc.weights import Tensor

STORED = [dtype for dtype in ALL if dtype is not STRING]
NARROW = [dtype for dtype in STORED if dtype.sub_byte]


def random_tensor(dtype: DType, shape: tuple[int, ...], name: str | None = None, seed: int = 0) -> Tensor:
    """Any bit pattern at all: NaN payloads, infinities, subnormals."""
    rng = np.random.default_rng([seed, dtype.onnx, *shape])
    size = dtype.packed_bytes(int(np.prod(shape)))
    return Tensor.packed(dtype, shape, rng.integers(0, 256, size, np.uint8).tobytes(), name)


def code_of(action: Callable[[], Any]) -> str:
    with pytest.raises(IrcError) as caught:
        action()
    assert str(caught.value)
    return caught.value.code


def mapped(array: np.ndarray[Any, Any]) -> bool:
    """Whether the array's memory is a mapped file."""
    link: Any = array
    while isinstance(link, np.ndarray):
        link = link.base
    return type(link).__name__ == "mmap" or type(getattr(link, "obj", None)).__name__ == "mmap"


# --- tensors ---

def test_of_takes_numbers_lists_and_arrays() -> None:
    assert (Tensor.of(2.5).dtype, Tensor.of(2.5).shape) == (F64, ())
    assert Tensor.of([1, 2]).dtype is I64 and Tensor.of(True).dtype is BOOL and Tensor.of(2**63).dtype is U64
    half = Tensor.of([[1, 2, 3]], BF16, "w")
    assert half.shape == (1, 3) and half.array().dtype == ml_dtypes.bfloat16 and half.nbytes == 6
    assert repr(half) == "Tensor(bf16[1, 3], name='w')"
    assert Tensor.of(np.arange(3, dtype=">i2")).array().tolist() == [0, 1, 2]
    assert Tensor.of(np.arange(6).reshape(2, 3).T).array().tolist() == [[0, 3], [1, 4], [2, 5]]


def test_of_converts_to_integers_only_what_they_hold() -> None:
    assert Tensor.of([1.0, -8.0], I4).array().astype(int).tolist() == [1, -8]
    assert Tensor.of([0, 1], BOOL).array().tolist() == [False, True]
    assert np.isposinf(Tensor.of(1e6, F16).array())
    for value, dtype in [(1.5, I64), (8, I4), (-1, U64), (2**63, I64), (float("nan"), I8), (2, BOOL), (1j, F32),
                         ("a", F32), (1, STRING), ([object()], None), (2**64, None), (1e19, I64),
                         (np.array(300, ml_dtypes.bfloat16), U8)]:
        assert code_of(partial(Tensor.of, value, dtype)) == "type.dtype"


def test_data_cannot_be_changed() -> None:
    source = np.arange(4.0)
    tensor, view = Tensor.of(source), Tensor.of(source.view())
    source[0] = 9
    assert tensor.array()[0] == 0 == view.array()[0]
    with pytest.raises(ValueError, match="read-only"):
        tensor.array()[0] = 1
    fresh = np.arange(4.0)
    fresh.flags.writeable = False
    assert np.shares_memory(Tensor.of(fresh).array(), fresh)


def test_a_source_is_asked_once_and_late() -> None:
    asked = []

    def source() -> Any:
        asked.append(1)
        return np.zeros((2, 3), np.float32)

    tensor = Tensor(F32, (2, 3), source, "w")
    other = tensor.renamed("v")
    assert not asked and tensor.nbytes == 24 and tensor.size == 6 and hash(Tensor(F32, [99], source, "w"))
    assert not asked
    assert other.array() is tensor.array() and other.digest() == tensor.digest() and len(asked) == 1
    assert tensor != other and other.renamed("w") == tensor


def test_equality_is_of_bytes() -> None:
    zero, minus = Tensor.of([0.0]), Tensor.of([-0.0])
    assert zero != minus and zero == Tensor.of([0.0]) and hash(zero) == hash(Tensor.of([0.0]))
    nans = [Tensor.packed(F32, (), struct.pack("<I", bits)) for bits in (0x7FC00000, 0x7FC00001)]
    assert nans[0] != nans[1] and nans[0] == Tensor.packed(F32, (), struct.pack("<I", 0x7FC00000))
    assert Tensor.of([1, 2, 3, 4]) != Tensor.of([[1, 2], [3, 4]]) and Tensor.of([1]) != Tensor.of([1], dtypes.I32)
    assert Tensor.of([1]) != Tensor.of([1], name="w") and Tensor.of([1]) != [1]
    # Unused bits of a last byte do not count.
    assert Tensor.packed(I4, (1,), b"\xf3") == Tensor.of([3], I4)
    assert len({Tensor.of(float(i)) for i in range(50)} | {Tensor.of(3.0)}) == 50


def test_copies_and_pickles() -> None:
    for tensor in (random_tensor(I4, (3, 5), "w"), Tensor.of(["a", "b"]), Tensor.of(1.5)):
        assert copy.deepcopy(tensor) is tensor and copy.copy(tensor) == tensor
        assert pickle.loads(pickle.dumps(tensor)) == tensor


def test_splats() -> None:
    assert Tensor.of(1.0).is_splat() and Tensor.of(np.full((3, 4), np.nan)).is_splat()
    assert not Tensor.of(np.zeros((0, 3))).is_splat() and not Tensor.of([0.0, -0.0]).is_splat()
    late = np.zeros(1000)
    late[-1] = 1
    assert not Tensor.of(late).is_splat()
    assert Tensor.of(["a", "a"]).is_splat() and not Tensor.of(["a", "b"]).is_splat()
    assert Tensor.of([3, 3, 3], I4).is_splat()


def test_strings() -> None:
    tensor = Tensor.of([["a", b"\xc3\xa9"], [b"\xff", "b\0"]], STRING)
    assert tensor.array().tolist() == [["a", "é"], ["\udcff", "b\0"]]
    assert tensor.dtype is STRING and tensor == Tensor.of(tensor.array()) and tensor.nbytes > 0


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 8, 33])
def test_packing_is_that_of_onnx(dtype: DType, size: int) -> None:
    tensor = random_tensor(dtype, (size,))
    proto = numpy_helper.from_array(tensor.array())
    assert tensor.stored().tobytes() == proto.raw_data and proto.data_type == dtype.onnx
    assert numpy_helper.to_array(proto).view(np.uint8).tolist() == tensor.array().view(np.uint8).tolist()
    assert Tensor.of(tensor.array()) == tensor


# --- safetensors ---

AWKWARD = ["w", "h.0/attn:weight", "", "irc.dtype:w", "名前\n\"\\", "a" * 300, "\u202e", "W"]


def test_every_dtype_survives_a_file(tmp_path: Path) -> None:
    path = tmp_path / "all.safetensors"
    shapes: list[tuple[int, ...]] = [(), (0,), (3, 5), (2, 0, 4), (7,)]
    tensors = {f"{dtype}{list(shape)}": random_tensor(dtype, shape) for dtype in STORED for shape in shapes}
    weights.save(path, tensors)
    loaded = weights.load(path)
    assert list(loaded) == sorted(tensors)
    for name, tensor in tensors.items():
        assert loaded[name] == tensor.renamed(name) and loaded[name].name == name
        if tensor.size and tensor.dtype is not BOOL and not tensor.dtype.sub_byte:
            assert mapped(loaded[name].array())
            assert loaded[name].array().flags.aligned or tensor.dtype is dtypes.C128


def test_bytes_do_not_depend_on_order(tmp_path: Path) -> None:
    tensors = {name: random_tensor(dtype, (3, 3), seed=i)
               for i, (name, dtype) in enumerate(zip(AWKWARD, [F32, I4, BF16, U8, F64, I4, BOOL, F16], strict=True))}
    weights.save(tmp_path / "a", tensors)
    weights.save(tmp_path / "b", dict(reversed(tensors.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert {name: tensor.renamed(None) for name, tensor in weights.load(tmp_path / "a").items()} == tensors
    program = ("import sys; from pathlib import Path; from irc import weights; p = Path(sys.argv[1]);"
               "weights.save(p / 'c', {n: t for n, t in {*weights.load(p / 'a').items()}})")
    for seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, env=environment)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "c").read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_the_safetensors_package_reads_ours(tmp_path: Path) -> None:
    path = tmp_path / "ours.safetensors"
    standard = {str(dtype): random_tensor(dtype, (3, 2)) for dtype in STORED
                if dtype.numpy.isbuiltin == 1 and dtype is not dtypes.C128}
    weights.save(path, standard)
    for name, array in safetensors.numpy.load_file(path).items():
        assert Tensor.of(array) == standard[name]
    weights.save(path, {str(dtype): random_tensor(dtype, (4, 2)) for dtype in STORED})
    with safetensors.safe_open(path, "np") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}
        assert {name for name, part in slices.items() if part.get_dtype() == "U8"} == {
            "u8", "c128", *(dtype.name for dtype in NARROW)}
        assert slices["bf16"].get_dtype() == "BF16" and slices["f8e4m3fn"].get_shape() == [4, 2]
        assert file.metadata()["irc.dtype:i4"] == "i4" and file.metadata()["irc.shape:i4"] == "[4, 2]"


def test_ours_reads_the_safetensors_package(tmp_path: Path) -> None:
    path = tmp_path / "theirs.safetensors"
    shared = [dtype for dtype in STORED if dtype.numpy.isbuiltin == 1 and dtype is not dtypes.C128]
    arrays = {dtype.name: random_tensor(dtype, (3, 2)).array() for dtype in
              [*shared, BF16, dtypes.F8E4M3FN, dtypes.F8E5M2]}
    safetensors.numpy.save_file(arrays, path, metadata={"format": "np"})
    assert weights.load(path) == {name: Tensor.of(array, name=name) for name, array in arrays.items()}


def safetensors_file(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


HOSTILE = {
    "empty file": b"",
    "short length": b"\1\0\0",
    "huge header": struct.pack("<Q", 2**63) + b"{}",
    "header past the end": struct.pack("<Q", 3) + b"{}",
    "no JSON": safetensors_file(b"{]"),
    "no UTF-8": safetensors_file(b'{"\xff": 1}'),
    "deep JSON": safetensors_file(b"[" * 100_000),
    "huge number": safetensors_file(b'{"w": ' + b"9" * 10_000 + b"}"),
    "a list": safetensors_file([]),
    "twice": safetensors_file(b'{"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
                              b'"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    "entry is a number": safetensors_file({"w": 1}),
    "entry is empty": safetensors_file({"w": {}}),
    "unknown dtype": safetensors_file({"w": entry("F7")}, bytes(8)),
    "dtype is a list": safetensors_file({"w": entry(["F32"])}, bytes(8)),
    "negative extent": safetensors_file({"w": entry(shape=[-2])}, bytes(8)),
    "bool extent": safetensors_file({"w": entry(shape=[True, 2])}, bytes(8)),
    "fractional extent": safetensors_file({"w": entry(shape=[2.0])}, bytes(8)),
    "huge extents": safetensors_file({"w": entry(shape=[2**40, 2**40, 0], offsets=[0, 0])}),
    "many dims": safetensors_file({"w": entry(shape=[1] * 99 + [2])}, bytes(8)),
    "one offset": safetensors_file({"w": entry(offsets=[0])}, bytes(8)),
    "backward offsets": safetensors_file({"w": entry(offsets=[8, 0])}, bytes(8)),
    "wrong size": safetensors_file({"w": entry(offsets=[0, 4])}, bytes(4)),
    "past the end": safetensors_file({"w": entry()}, bytes(7)),
    "overlap": safetensors_file({"v": entry(), "w": entry(offsets=[4, 12])}, bytes(12)),
    "hole": safetensors_file({"v": entry(), "w": entry(offsets=[12, 20])}, bytes(20)),
    "same bytes": safetensors_file({"v": entry(), "w": entry()}, bytes(8)),
    "unused bytes": safetensors_file({"w": entry()}, bytes(9)),
    "metadata is a list": safetensors_file({"__metadata__": [], "w": entry()}, bytes(8)),
    "our dtype unknown": safetensors_file({"__metadata__": {"irc.dtype:w": "i3"}, "w": entry()}, bytes(8)),
    "our dtype a string": safetensors_file({"__metadata__": {"irc.dtype:w": "string"}, "w": entry()}, bytes(8)),
    "our shape missing": safetensors_file({"__metadata__": {"irc.dtype:w": "i4"}, "w": entry()}, bytes(8)),
    "our shape wrong": safetensors_file(
        {"__metadata__": {"irc.dtype:w": "i4", "irc.shape:w": "[3]"}, "w": entry()}, bytes(8)),
    "our shape hostile": safetensors_file(
        {"__metadata__": {"irc.dtype:w": "i4", "irc.shape:w": "[" * 100_000}, "w": entry()}, bytes(8)),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_is_a_coded_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(IrcError) as caught:
        weights.load(path)
    assert (caught.value.code, caught.value.exit_code) == ("weights.format", 3)
    assert caught.value.diagnostics[0].location.file == str(path)
    assert str(caught.value).isascii() and len(str(caught.value)) < 1000


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_is_read_or_is_a_coded_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    weights.save(path, {"w": random_tensor(F32, (2, 3)), "q": random_tensor(I4, (5,)), "e": Tensor.of(np.zeros(0))})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[:data.draw(st.integers(0, len(content)))])
    try:
        for tensor in weights.load(path).values():
            tensor.digest()
    except IrcError as error:
        assert error.code == "weights.format"


def test_what_safetensors_cannot_hold_is_refused_without_output(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    assert code_of(lambda: weights.save(path, {"__metadata__": Tensor.of(1)})) == "weights.format"
    assert code_of(lambda: weights.save(path, {"w": Tensor.of("a")})) == "weights.format"
    assert code_of(lambda: weights.save(tmp_path / "no" / "w", {})) == "file.unreadable"

    def broken() -> Any:
        raise RuntimeError("source")

    path.write_bytes(b"before")
    with pytest.raises(RuntimeError):
        weights.save(path, {"w": Tensor(F32, (1,), broken)})
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == [path.name]


def test_a_file_can_replace_the_one_that_it_is_read_from(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights.save(path, {"w": random_tensor(F32, (99,))})
    before = weights.load(path)
    weights.save(path, {"v": before["w"]})
    assert weights.load(path)["v"] == before["w"].renamed("v")


# --- files ---

def test_paths_are_confined(tmp_path: Path) -> None:
    folder, outside = tmp_path / "model", tmp_path / "secret"
    (folder / "data").mkdir(parents=True)
    outside.mkdir()
    (outside / "key").write_text("key")
    (folder / "weights").write_text("w")
    (folder / "link").symlink_to(outside / "key")
    (folder / "data" / "up").symlink_to("..")
    (folder / "folder").symlink_to(outside)
    (folder / "inner").symlink_to("weights")
    (folder / "loop").symlink_to("loop")
    (tmp_path / "model2").mkdir()
    (folder / "sibling").symlink_to(tmp_path / "model2")
    assert files.resolve_inside(folder, "weights") == (folder / "weights").resolve()
    assert files.resolve_inside(folder, "inner") == (folder / "weights").resolve()
    assert files.resolve_inside(folder, "data/up/weights") == (folder / "weights").resolve()
    assert files.resolve_inside(folder, "data/..b/...") == (folder / "data/..b/...").resolve()
    (tmp_path / "alias").symlink_to(folder)
    assert files.resolve_inside(tmp_path / "alias", "weights") == (folder / "weights").resolve()
    for relative in ("../secret/key", "/etc/passwd", str(outside / "key"), "data/../../secret/key", "data/..", "..",
                     "link", "folder/key", "data/up/folder/key", "sibling/w", "C:\\key", "\\\\host\\key", "\\key",
                     "data\\..\\..\\secret", "a\0b"):
        assert code_of(partial(files.resolve_inside, folder, relative)) == "weights.outside"
    assert code_of(lambda: files.resolve_inside(folder, "link", "onnx.external_outside")) == "onnx.external_outside"
    for relative in ("loop", "a" * 5000, "", "data"):
        assert code_of(partial(files.open_file, files.resolve_inside(folder, relative))) == "file.missing"
        assert code_of(partial(files.open_inside, folder, relative)) == "file.missing"


def test_only_plain_files_are_mapped(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert code_of(lambda: files.open_file(tmp_path / "pipe")) == "file.missing"
    assert code_of(lambda: weights.load(tmp_path / "none.safetensors")) == "weights.missing"
    (tmp_path / "empty").touch()
    assert files.open_file(tmp_path / "empty").data.size == 0


def test_opening_checks_the_digest(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights.save(path, {"w": Tensor.of(1.0)})
    digest = files.open_file(path).digest
    assert digest == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    opened = [weights.open_weights(tmp_path, path.name, expected) for expected in (digest, None)]
    assert opened == [weights.load(path)] * 2
    weights.save(path, {"w": Tensor.of(2.0)})
    with pytest.raises(IrcError, match=digest) as caught:
        weights.open_weights(tmp_path, path.name, digest)
    assert caught.value.code == "weights.stale" and files.open_file(path).digest[7:] not in str(caught.value)
    (tmp_path / "w.bin").touch()
    for name, code in {"x.safetensors": "weights.missing", "w.bin": "weights.format", "x.onnx": "weights.format",
                       "../w.safetensors": "weights.outside"}.items():  # fmt: skip
        for expected in (digest, None):
            assert code_of(partial(weights.open_weights, tmp_path, name, expected)) == code
    (tmp_path / "inner").mkdir()
    with irc.allow(tmp_path):
        for name in ("../w.safetensors", str(path)):
            assert weights.open_weights(tmp_path / "inner", name) == weights.load(path)


# --- ONNX ---

def model_of(initializers: list[TensorProto], nodes: list[onnx.NodeProto] | None = None) -> onnx.ModelProto:
    return helper.make_model(helper.make_graph(nodes or [], "main", [], [], initializers))


@pytest.mark.parametrize("dtype", STORED, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 3)], ids=str)
def test_every_dtype_is_read_raw_and_typed(dtype: DType, shape: tuple[int, ...]) -> None:
    tensor = random_tensor(dtype, shape, "w")
    if dtype in (F32, C64):  # a protobuf float may not keep the payload of a signaling NaN
        tensor = Tensor.of(np.nan_to_num(tensor.array()), name="w")
    raw = numpy_helper.from_array(tensor.array(), "w")
    if dtype is BOOL and shape:
        raw.raw_data = bytes([7 * byte for byte in raw.raw_data])  # any byte but 0 is true
    assert onnx_weights.onnx_tensor(raw) == tensor
    typed = helper.make_tensor("w", dtype.onnx, shape, tensor.array().reshape(-1).tolist())
    assert not typed.HasField("raw_data")
    again = onnx_weights.onnx_tensor(typed)
    np.testing.assert_array_equal(again.array(), numpy_helper.to_array(typed))
    assert again.dtype is dtype and again.shape == shape


def test_strings_are_read() -> None:
    proto = TensorProto(name="s", data_type=TensorProto.STRING, dims=[2], string_data=[b"a", "é".encode()])
    assert onnx_weights.onnx_tensor(proto).array().tolist() == ["a", "é"]


def test_negative_numbers_in_int32_data() -> None:
    for dtype in (I8, dtypes.I16, dtypes.I32, I64):
        proto = helper.make_tensor("w", dtype.onnx, [3], [-1, -128, 127])
        assert onnx_weights.onnx_tensor(proto).array().tolist() == [-1, -128, 127]
    assert onnx_weights.onnx_tensor(helper.make_tensor("w", TensorProto.INT4, [3], [-1, -8, 7])) == Tensor.of(
        [-1, -8, 7], I4, "w")


def proto_of(**fields: Any) -> TensorProto:
    proto = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    for field, value in fields.items():
        if isinstance(value, list):
            del getattr(proto, field)[:]
            getattr(proto, field).extend(value)
        else:
            setattr(proto, field, value)
    return proto


@pytest.mark.parametrize("proto", [
    proto_of(), proto_of(raw_data=bytes(7)), proto_of(raw_data=bytes(9)), proto_of(float_data=[1.0]),
    proto_of(int32_data=[1, 2]), proto_of(data_type=0), proto_of(data_type=99), proto_of(dims=[-2], raw_data=bytes(8)),
    proto_of(dims=[2**62, 2**62]), proto_of(dims=[2**40, 2**40, 0]), proto_of(dims=[1] * 70, float_data=[1.0]),
    proto_of(data_type=TensorProto.STRING, raw_data=bytes(8)), proto_of(data_type=TensorProto.STRING),
    proto_of(data_type=TensorProto.COMPLEX64, float_data=[1.0, 2.0]),
    proto_of(data_type=TensorProto.INT4, dims=[3], int32_data=[1, 2, 3]),
    proto_of(data_location=TensorProto.EXTERNAL),
])
def test_a_malformed_tensor_is_a_coded_error(proto: TensorProto) -> None:
    with pytest.raises(IrcError) as caught:
        onnx_weights.onnx_tensor(proto)
    assert caught.value.code == "onnx.invalid" and caught.value.diagnostics[0].location.name == "w"


def test_segments_are_unsupported() -> None:
    proto = proto_of(raw_data=bytes(8))
    proto.segment.begin = 0
    assert code_of(lambda: onnx_weights.onnx_tensor(proto)) == "onnx.unsupported"


def constant(output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [output], **attributes)


def test_constants_of_every_attribute(tmp_path: Path) -> None:
    nodes = [constant("a", value=numpy_helper.from_array(np.ones((2, 2), np.float16))),
             constant("b", value_float=0.1), constant("c", value_floats=[0.1, 2.0]), constant("d", value_int=-3),
             constant("e", value_ints=[1, 2**40]), constant("f", value_string="x"),
             constant("g", value_strings=["x\0", ""])]
    tensors = onnx_weights.onnx_tensors(model_of([], nodes), tmp_path)
    expected = {"a": Tensor.of(np.ones((2, 2), np.float16)), "b": Tensor.of(0.1, F32), "c": Tensor.of([0.1, 2], F32),
                "d": Tensor.of(-3), "e": Tensor.of([1, 2**40]), "f": Tensor.of("x"),
                "g": Tensor.of(["x\0", ""], STRING)}
    assert tensors == {name: tensor.renamed(name) for name, tensor in expected.items()}
    empty = constant("e", value_ints=[1])
    del empty.attribute[0].ints[:]
    assert onnx_weights.onnx_tensors(model_of([], [empty]), tmp_path)["e"] == Tensor.of([], I64, "e")
    for node in (constant("x"), constant("x", value_int=1, value_float=2.0), constant("x", other=1), constant("")):
        assert code_of(partial(onnx_weights.onnx_tensors, model_of([], [node]), tmp_path)) == "onnx.invalid"


def test_names_are_unique_and_deterministic(tmp_path: Path) -> None:
    def weight(name: str, value: int) -> TensorProto:
        return numpy_helper.from_array(np.array(value), name)

    inner = helper.make_graph([constant("w", value_int=5)], "inner", [], [], [weight("v", 6)])
    then = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)],
                             "then", [], [], [weight("w", 3)])
    other = helper.make_graph([constant("w", value_int=4)], "else", [], [])
    branch = helper.make_node("If", ["c"], ["z"], then_branch=then, else_branch=other)
    model = model_of([weight("w", 1), weight("w.1", 7)], [branch, constant("v", value_int=2)])
    function = helper.make_function("my", "F", ["x"], ["w"], [constant("w", value_int=8)], [], ["p"])
    taken = constant("p")
    taken.attribute.append(onnx.AttributeProto(name="value_int", ref_attr_name="p", type=onnx.AttributeProto.INT))
    function.node.append(taken)
    model.functions.append(function)
    constants = onnx_weights.onnx_constants(model, tmp_path)
    assert [(c.key, c.scope, c.name, int(c.tensor.array())) for c in constants] == [
        ("w", (), "w", 1), ("w.1", (), "w.1", 7), ("v", (), "v", 2),
        ("w.2", ("function 0",), "w", 8),
        ("w.3", ("0.else_branch",), "w", 4), ("w.4", ("0.then_branch",), "w", 3),
        ("v.1", ("0.then_branch", "0.else_branch"), "v", 6), ("w.5", ("0.then_branch", "0.else_branch"), "w", 5),
        ("v.2", ("0.then_branch", "0.then_branch"), "v", 6), ("w.6", ("0.then_branch", "0.then_branch"), "w", 5)]
    assert onnx_weights.onnx_tensors(model, tmp_path) == {c.key: c.tensor for c in constants}
    assert all(c.tensor.name == c.key for c in constants)
    twice = model_of([weight("w", 1)], [constant("w", value_int=1)])
    assert code_of(lambda: onnx_weights.onnx_tensors(twice, tmp_path)) == "onnx.redefined_name"


def external(location: str | None = "data.bin", name: str = "w", **fields: str) -> TensorProto:
    proto = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **fields}.items():
        if value is not None:
            proto.external_data.add(key=key, value=value)
    return proto


def test_external_data_is_mapped(tmp_path: Path) -> None:
    data = np.arange(10, dtype=np.float32)
    data.tofile(tmp_path / "data.bin")
    tensors = onnx_weights.onnx_tensors(model_of([
        external(name="a", offset="0", length="16"), external(name="b", offset="24"),
        external(name="c", offset="3", length="16"), external("./data.bin", name="d", length="16")]), tmp_path)
    assert all(mapped(tensor.array()) for tensor in tensors.values())
    assert tensors["a"].array().tolist() == [0, 1, 2, 3] and tensors["b"].array().tolist() == [6, 7, 8, 9]
    assert tensors["c"].array().tobytes() == data.tobytes()[3:19] and tensors["d"] == tensors["a"].renamed("d")
    assert float(tensors["c"].array().sum()) == float(tensors["c"].array().copy().sum())


def test_external_data_is_confined_and_checked(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in (tmp_path / "secret", folder / "data.bin"):
        path.write_bytes(bytes(16))
    (folder / "link").symlink_to(tmp_path / "secret")
    cases = {
        "onnx.external_missing": [external("none.bin"), external(".")],
        "onnx.external_outside": [external("../secret"), external(str(tmp_path / "secret")), external("link"),
                                  external("\\secret"), external("a/../data.bin")],
        "onnx.invalid": [external(offset="1"), external(offset="1", length="16"), external(length="15"),
                         external(offset="-1"), external(length="-16"), external(offset="x"), external(offset="1e1"),
                         external(offset="٣"), external(length="9" * 5000), external(offset="9" * 18), external(""),
                         external(None), external(offset="17", length="0")],
    }
    for code, protos in cases.items():
        for proto in protos:
            assert code_of(partial(onnx_weights.onnx_tensors, model_of([proto]), folder)) == code
    assert code_of(lambda: onnx_weights.onnx_tensor(external())) == "onnx.invalid"


def test_all_that_is_wrong_is_reported_at_once(tmp_path: Path) -> None:
    protos = [external("a.bin", "a"), external("a.bin", "b"), external("b.bin", "c"), proto_of(), external("../x", "e")]
    with pytest.raises(IrcError) as caught:
        onnx_weights.onnx_tensors(model_of(protos), tmp_path)
    assert [d.code for d in caught.value.diagnostics] == [
        "onnx.external_missing", "onnx.external_missing", "onnx.invalid", "onnx.external_outside"]


@pytest.mark.parametrize("content", [
    b"", bytes(99), b"\x08\x07",
    model_of([numpy_helper.from_array(np.ones(99), "w")]).SerializeToString()[:-50],
])
def test_what_is_no_model_is_a_coded_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert code_of(lambda: onnx_weights.read_weights(files.open_file(path))) == "onnx.truncated"
    assert code_of(lambda: files.open_file(tmp_path / "none.onnx")) == "file.missing"


def test_a_model_file_with_external_data_opens(tmp_path: Path) -> None:
    array = np.arange(2000, dtype=np.float32)
    model = model_of([numpy_helper.from_array(array, "w")])
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="model.data", size_threshold=0)
    readers = {".onnx": onnx_weights.read_weights}
    opened = weights.open_weights(tmp_path, path.name, files.open_file(path).digest, readers)
    assert opened == {"w": Tensor.of(array, name="w")} and mapped(opened["w"].array())
    assert code_of(lambda: weights.open_weights(tmp_path, path.name)) == "weights.format"  # no reader was given
