"""The dtype table: whole with respect to ONNX, one object per dtype, and right about numbers."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import ml_dtypes
import numpy as np
import onnx
import pytest

from irc import dtypes
from irc.diagnostics import IrcError
from irc.dtypes import ALL, DType

NUMERIC = [dtype for dtype in ALL if dtype.kind in ("float", "int", "uint")]


def test_every_onnx_dtype_has_a_name() -> None:
    codes = set(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED}
    assert {dtype.onnx for dtype in ALL} == codes
    assert len({dtype.name for dtype in ALL}) == len(ALL)


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_round_trips(dtype: DType) -> None:
    assert dtypes.by_name(str(dtype)) is dtype
    assert dtypes.from_onnx(dtype.onnx) is dtype
    assert dtypes.from_numpy(dtype.numpy) is dtype
    assert dtype.numpy == onnx.helper.tensor_dtype_to_np_dtype(dtype.onnx)
    assert getattr(dtypes, dtype.name.upper()) is dtype
    assert copy.deepcopy(dtype) is dtype and pickle.loads(pickle.dumps(dtype)) is dtype
    assert hash(dtype) == dtype.onnx


@pytest.mark.parametrize("dtype", NUMERIC, ids=str)
def test_bits_and_limits_agree_with_the_array_library(dtype: DType) -> None:
    info = (ml_dtypes.finfo if dtype.is_float else ml_dtypes.iinfo)(dtype.numpy)
    assert dtype.bits == info.bits
    assert dtypes.limits(dtype) == (info.min, info.max)
    assert dtype.itemsize == dtype.numpy.itemsize
    assert dtype.sub_byte == (dtype.bits < 8)
    assert dtype.is_signed == (dtypes.limits(dtype).smallest < 0)
    assert np.array(dtypes.limits(dtype).largest).astype(dtype.numpy) == info.max


def test_packed_bytes_round_up() -> None:
    assert [dtypes.I4.packed_bytes(n) for n in range(4)] == [0, 1, 1, 2]
    assert [dtypes.F6E2M3.packed_bytes(n) for n in range(5)] == [0, 1, 2, 3, 3]
    assert dtypes.F32.packed_bytes(3) == 12


def test_accumulators() -> None:
    narrow = {dtype for dtype in ALL if dtypes.accumulator_of(dtype) is not dtype}
    assert narrow == {dtype for dtype in ALL if dtype.is_float} - {dtypes.F32, dtypes.F64}
    assert {dtypes.accumulator_of(dtype) for dtype in narrow} == {dtypes.F32}


def test_arrays_of_any_byte_order_and_text_are_recognized() -> None:
    assert dtypes.from_numpy(np.dtype(">f4")) is dtypes.F32
    assert dtypes.from_numpy(np.dtype(np.longlong)) is dtypes.I64
    assert dtypes.from_numpy(np.dtype("U3")) is dtypes.STRING
    assert dtypes.from_numpy(np.dtype(object)) is dtypes.STRING


def test_unknown_dtypes_are_coded_errors() -> None:
    with pytest.raises(IrcError, match=r"error\[type.dtype\]: there is no dtype 'f23'\n  expected: .*f32") as caught:
        dtypes.by_name("f23")
    assert caught.value.exit_code == 3
    for attempt in (lambda: dtypes.from_onnx(0), lambda: dtypes.from_numpy(np.dtype("datetime64[s]")),
                    lambda: dtypes.from_numpy(np.dtype(ml_dtypes.float8_e3m4)),
                    lambda: dtypes.limits(dtypes.C64), lambda: dtypes.limits(dtypes.STRING)):
        with pytest.raises(IrcError, match=r"error\[type.dtype\]"):
            attempt()


def test_naming_a_dtype_loads_no_array_library() -> None:
    program = "import sys, irc.dtypes as d; d.by_name('bf16'); assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
