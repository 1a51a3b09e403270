"""The host calls of Triton artefacts: every primitive's PyTorch version against its NumPy reference."""

from __future__ import annotations

import importlib
import inspect
import sys
import tempfile
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import random_operands
import torch

from irc import dtypes, interpreter
from irc.backends.triton import emit
from irc.backends.triton.calls import TORCH_TYPES, host_functions, torch_type
from irc.diagnostics import IrcError
from irc.dtypes import DType, by_name
from irc.module import Module
from irc.op import const, trace
from irc.ops import lookup
from irc.ops.numerics import convert
from irc.parser import parse
from irc.types import TensorType
from irc.weights import Tensor
from tests.primitive_samples import sampled_dtypes, samples
from tests.test_primitives import PRIMITIVES
from tests.triton_harness import load_artefact
from tests.triton_harness import run as harness_run

pytestmark = pytest.mark.filterwarnings("ignore")
TEMPLATES = Path(__file__).parent.parent / "backends" / "triton" / "templates"
SAMPLES = 24  # of each operation and dtype
RANDOM_SAMPLES = 160  # of each operation
TYPES = tuple(name for name in TORCH_TYPES if not by_name(name).sub_byte)
LOOSE = {"f32": 2e-5, "f64": 1e-9, "f16": 4e-3, "bf16": 3e-2, "c64": 2e-5, "c128": 1e-9}
LOOSE_FLOAT8 = 0.13  # half a unit of two bits: sums of f32 round to either neighbor


def load_template(name: str) -> ModuleType:
    """A module of the templates, which import one another."""
    if "triton_templates" not in sys.modules:
        package = ModuleType("triton_templates")
        package.__path__ = [str(TEMPLATES)]
        sys.modules["triton_templates"] = package
    return importlib.import_module(f"triton_templates.{name}")


HOST_MODULE = load_template("host")
ERROR = load_template("errors").ArtefactError


def to_torch(array: np.ndarray | None) -> Any:
    if array is None:
        return None
    array = np.array(array)
    dtype = dtypes.from_numpy(array.dtype)
    if hasattr(np, dtype.numpy_name):
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(f"u{array.dtype.itemsize}")).view(getattr(torch, torch_type(dtype)))


def from_torch(tensor: Any) -> np.ndarray:
    tensor = tensor.resolve_conj().resolve_neg().contiguous()
    return np.asarray(tensor.double() if tensor.is_floating_point() else tensor)


def converted(value: Any) -> Any:
    return getattr(torch, torch_type(value)) if isinstance(value, DType) else value


@pytest.mark.parametrize("name", sorted(d.name for d in PRIMITIVES if d.name in host_functions()))
def test_host_call(name: str) -> None:
    definition, met = lookup(name), 0
    for dtype in sampled_dtypes(name):
        if dtype.name not in TYPES:
            continue
        for arrays, attributes in islice(samples(name, dtype), SAMPLES):
            normal = definition.normalize(attributes)
            if any(isinstance(value, DType) and value.name not in TYPES for value in normal.values()):
                continue
            try:
                expected = definition.evaluate(arrays, normal)
            except IrcError:
                continue
            check_call(name, arrays, normal, expected)
            met += 1
    assert met


@pytest.mark.parametrize("template", ["host", "strings"])
def test_templates_take_every_attribute(template: str) -> None:
    """Programs pass those that differ from their defaults."""
    module, missing = load_template(template), []
    for name in sorted(host_functions(template) - {"extern"}):
        attributes = lookup(name).attribute_specs
        if attributes:  # others may be functions of PyTorch without a signature
            parameters = inspect.signature(getattr(module, name)).parameters
            missing += [f"{name}.{attribute}" for attribute in attributes if attribute not in parameters]
    assert not missing


@pytest.mark.parametrize("name", random_operands.NAMES)
def test_random_host_calls(name: str) -> None:
    """What the operation's page says, for operands of any rank and extent; what it rejects is rejected."""
    definition, maker, met = lookup(name), random_operands.Operands(7, TYPES), 0
    for _ in range(RANDOM_SAMPLES):
        arrays, attributes = maker.of(name)
        normal = definition.normalize(attributes)
        try:
            definition.infer([TensorType(dtypes.from_numpy(array.dtype), array.shape) for array in arrays], normal)
        except IrcError:
            continue
        try:
            expected = definition.evaluate(arrays, normal)
        except IrcError:
            with pytest.raises(ERROR):
                getattr(HOST_MODULE, name)(*map(to_torch, arrays), **normal)
            continue
        check_call(name, arrays, normal, expected)
        met += 1
    assert met > RANDOM_SAMPLES // 4


@pytest.mark.parametrize("value", [5, (), (4,), (4, 3, 0)])
def test_sizes_as_tensors(value: int | tuple[int, ...]) -> None:
    check_call("dim", [], {"value": value}, lookup("dim").evaluate([], {"value": value}))


def check_call(name: str, arrays: Any, attributes: dict[str, Any], expected: Any) -> None:
    given = {key: converted(value) for key, value in attributes.items()}
    if name in ("iota", "dim"):
        given["device"] = "cpu"
    label = (name, attributes, [None if array is None else (array.dtype, array.shape) for array in arrays])
    computed = getattr(HOST_MODULE, name)(*map(to_torch, arrays), **given)
    results = computed if isinstance(computed, tuple) else (computed,)
    for result, array in zip(results, expected, strict=True):
        dtype = dtypes.from_numpy(array.dtype)
        assert result.dtype == getattr(torch, torch_type(dtype)), label
        compare(from_torch(result), array, dtype, label)


def compare(actual: np.ndarray, expected: np.ndarray, dtype: DType, label: Any) -> None:
    assert actual.shape == expected.shape, label
    if not (dtype.is_float or dtype.is_complex):
        np.testing.assert_array_equal(actual, expected, err_msg=str(label))
        return
    wide = expected.astype(np.complex128 if dtype.is_complex else np.float64)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(wide), err_msg=str(label))
    scale, loose = np.abs(wide[np.isfinite(wide)]).max(initial=1.0), LOOSE.get(dtype.name, LOOSE_FLOAT8)
    sums = label[0] in ("dot", "conv", "conv_transpose", "reduce_sum", "scan", "window_reduce")
    least = loose * scale if sums else 1e-6 * min(scale, 1e6)
    np.testing.assert_allclose(actual, wide, rtol=loose, atol=least, err_msg=str(label))


# -- element types -------------------------------------------------------------------------------------------------


def bits(array: np.ndarray) -> np.ndarray:
    return np.asarray(array).view(f"u{array.dtype.itemsize}")


@pytest.mark.parametrize("saturate", [False, True])
@pytest.mark.parametrize("name", ["f8e4m3fn", "f8e5m2", "f8e4m3fnuz", "f8e5m2fnuz"])
def test_floats_of_a_byte_are_rounded_once(name: str, saturate: bool) -> None:
    """Every f16, and the neighbors of every f16 that is not infinite, in all types that they can come from."""
    dtype = by_name(name)
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    wide = every[np.isfinite(every)].astype(np.float32)
    near = np.concatenate([np.nextafter(wide, np.float32(end)) for end in (np.inf, -np.inf)])
    near_f64 = np.concatenate([np.nextafter(wide.astype(np.float64), end) for end in (np.inf, -np.inf)])
    integers = np.array([sign * (1 << power) + by for power in range(63) for by in (-1, 0, 1) for sign in (1, -1)])
    given = [every, wide, near, near_f64, integers, integers.astype(np.int32), integers.astype(np.uint64)]
    for array in given:
        expected = convert(array, dtype, saturate)
        actual = HOST_MODULE.cast(torch.from_numpy(array), to=getattr(torch, torch_type(dtype)), saturate=saturate)
        same = actual.view(torch.uint8).numpy() == bits(expected)
        both_nan = torch.isnan(actual.float()).numpy() & np.isnan(expected.astype(np.float32))
        assert (same | both_nan).all(), (name, array.dtype, array[~(same | both_nan)][:5])


@pytest.mark.parametrize("name", ["f16", "bf16", "f32"])
def test_wide_numbers_are_rounded_once(name: str) -> None:
    dtype = by_name(name)
    ties = np.array([1 + 2.0**-power for power in range(5, 26)])
    floats = np.concatenate([ties * (1 + by) for by in (0, 2.0**-45, -(2.0**-45))])
    integers = np.array([(1 << power) + (1 << (power - least)) + by
                         for power in range(26, 63) for least in (8, 9, 11, 12, 25) for by in (-1, 0, 1)])  # fmt: skip
    for array in (floats, -floats, integers, -integers, integers.astype(np.uint64), integers.astype(np.uint64) * 2 + 1):
        actual = HOST_MODULE.cast(torch.from_numpy(array), to=getattr(torch, torch_type(dtype)))
        np.testing.assert_array_equal(from_torch(actual), convert(array, dtype).astype(np.float64), str(array.dtype))


def test_the_last_of_many_updates_wins() -> None:
    random = np.random.default_rng(0)
    places, updates = random.integers(0, 50, (400_000, 1)), np.arange(400_000)
    expected = lookup("scatter").evaluate([np.zeros(60, np.int64), places, updates], {"reduction": "none"})[0]
    given = torch.zeros(60, dtype=torch.int64), torch.from_numpy(places), torch.from_numpy(updates)
    for _ in range(3):
        np.testing.assert_array_equal(HOST_MODULE.scatter(*given), expected)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64])
def test_products_of_integers_by_products_of_floats(dtype: torch.dtype) -> None:
    """What a GPU does, where PyTorch has no products of integers."""
    ends = torch.iinfo(dtype)
    x, y = (torch.randint(ends.min, ends.max, shape, dtype=dtype) for shape in ((7, 300), (300, 5)))
    x[0], y[:, 0] = ends.min, ends.max
    assert torch.equal(HOST_MODULE.in_limbs(torch.matmul, x, y), torch.matmul(x, y))


def run_program(module: Module, inputs: dict[str, Any]) -> list[Any]:
    with tempfile.TemporaryDirectory() as folder:
        emit(module, Path(folder) / "artefact")
        return list(load_artefact(Path(folder) / "artefact").load().run(inputs).values())


@pytest.mark.parametrize("name", ["i4", "u4", "i2", "u2"])
def test_integers_narrower_than_a_byte_stay_in_range(name: str) -> None:
    """All primitives of such integers in one program: PyTorch holds them in bytes."""
    dtype, cases = by_name(name), []
    for definition in PRIMITIVES:
        if definition.name not in host_functions() or dtype not in sampled_dtypes(definition.name):
            continue
        for arrays, attributes in islice(samples(definition.name, dtype), 0, None, 5):
            normal = definition.normalize(attributes)
            if all(value.name in TORCH_TYPES for value in normal.values() if isinstance(value, DType)):
                cases.append((definition, [array for array in arrays if array is not None], normal))
    floats = np.array([-1e9, -9.0, -8.5, 0.0, 3.9, 7.5, 15.5, 16.0, 300.0, np.nan, np.inf], np.float32)
    cases += [(lookup("cast"), [floats], {"to": dtype, "saturate": saturate}) for saturate in (False, True)]

    def function(*values: Any) -> Any:
        waiting, results = iter(values), []
        for definition, arrays, attributes in cases:
            returned = definition(*[next(waiting) for _ in arrays], **attributes)
            results += returned if isinstance(returned, tuple) else [returned]
        return tuple(results)

    given = [array for _, arrays, _ in cases for array in arrays]
    module = trace(function, *[TensorType(dtypes.from_numpy(array.dtype), array.shape) for array in given])
    inputs = dict(zip([argument.name for argument in module.main.arguments], given, strict=True))
    labels = [(definition.name, attributes) for definition, _, attributes in cases for _ in range(
        2 if definition.name == "sort" else len(attributes["sizes"]) if definition.name == "split" else 1)]
    expected = interpreter.run(module, inputs).values()
    for label, actual, array in zip(labels, run_program(module, inputs), expected, strict=True):
        element = dtypes.from_numpy(array.dtype)
        whole = element.is_integer or element is dtypes.BOOL
        result = from_torch(actual)
        compare(result, array.astype(result.dtype) if whole else array, element, label)


@pytest.mark.parametrize("name", TORCH_TYPES)
def test_constants_and_inputs_of_every_type(name: str) -> None:
    dtype = by_name(name)
    content = (np.arange(90).reshape(9, 10) % 2).astype(dtype.numpy)
    stored = Tensor.of(content, dtype, name="stored")
    module = trace(lambda x: (const(value=stored), const(value=Tensor.of(content[0, 0], dtype)), x), f"{name}[9, 10]")
    for actual, array in zip(run_program(module, {"x": content}), (content, content[0, 0], content), strict=True):
        assert str(actual.dtype) == f"torch.{torch_type(dtype)}"
        np.testing.assert_array_equal(from_torch(actual), array.astype(from_torch(actual).dtype))


@pytest.mark.parametrize("code", ["Q", "q", ">u8", ">i2", ">f4"])
def test_arrays_of_numpy_that_torch_does_not_take(code: str) -> None:
    """The second type of 64-bit integers, and the other byte order."""
    array = np.arange(6, dtype=code).reshape(2, 3)
    name = dtypes.from_numpy(array.dtype).name
    actual, = run_program(trace(lambda x: x, f"{name}[2, 3]"), {"x": array})  # fmt: skip
    assert actual.tolist() == array.tolist()


def test_externs_give_integers_of_64_bits() -> None:
    class Session:
        def run(self, names: None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            return [feeds["i0"].astype(np.ulonglong)]

    actual = HOST_MODULE.extern(Session(), torch.tensor([1, 2]), dtypes=[torch.uint64], device="cpu")
    assert actual.dtype is torch.uint64 and actual.tolist() == [1, 2]


def test_a_size_that_an_empty_input_does_not_determine(tmp_path: Path) -> None:
    """S is read where B*S + 1 is an extent; where B is 0 it may be any size of its range."""
    module = parse("""irc text 1
module @m { func @main<B in [0, 8], S in [2, 8]>(%x: f32[B], %y: f32[B*S + 1]) -> (f32[B], f32[B*S + 1]) {
  %z = neg %y : f32[B*S + 1]
  return %x, %z } }""")
    for size in (0, 2):
        x, y = np.ones(size, np.float32), np.arange(size * 3 + 1, dtype=np.float32)
        run = harness_run(module, folder=tmp_path / str(size), inputs={"x": x, "y": y})
        for outputs in (run.outputs, run.expected):
            first, second = outputs.values()
            np.testing.assert_array_equal(first, x)
            np.testing.assert_array_equal(second, -y)
