"""Every primitive, from its declaration: what the type rule says is what the reference gives, for every element type
that an operand may have, for extents that are odd, 0 and 1; and the references against PyTorch and ONNX Runtime."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from oracles import onnx_result, torch_result

from irc import dims, dtypes
from irc.diagnostics import IrcError
from irc.dims import symbol
from irc.dtypes import ALL, BF16, BOOL, C64, C128, F16, F32, F64, I8, I32, I64, U8, DType
from irc.ops import TABLE, lookup
from irc.ops.numerics import convert, round_to_odd, widen
from irc.types import TensorType
from tests.primitive_samples import PRIMITIVES, STRUCTURAL, Array, generator, sampled_dtypes, samples
from tests.programs import static_type

pytestmark = pytest.mark.filterwarnings("error")


# -- the type rule against the reference -----------------------------------------------------------------------

def check_types(name: str, arrays: list[Array | None], attributes: dict[str, Any]) -> None:
    definition = lookup(name)
    attributes = definition.normalize(attributes)
    types = [None if a is None else TensorType(dtypes.from_numpy(a.dtype), a.shape) for a in arrays]
    results = definition.evaluate(arrays, attributes)
    assert all(isinstance(result, np.ndarray) for result in results), "a scalar is an array of rank 0"
    actual = [TensorType(dtypes.from_numpy(result.dtype), result.shape) for result in results]
    assert list(definition.infer(types, attributes)) == actual

    environment = {}
    symbolic: list[TensorType | None] = []
    for index, type_ in enumerate(types):
        if type_ is None or (name == "scatter" and index == 1):  # the length of index vectors is static
            symbolic.append(type_)
            continue
        defined = [symbol(f"d{index}_{axis}", 0) for axis in range(type_.rank)]
        environment.update(dict(zip(defined, type_.static_shape(), strict=True)))
        symbolic.append(type_.with_shape(s.expr for s in defined))
    inferred = definition.infer(symbolic, attributes)
    for said, type_ in zip(inferred, actual, strict=True):
        assert said.dtype == type_.dtype
        assert tuple(dims.evaluate(dim, environment) for dim in said.dims) == type_.shape

    unranked = [None if type_ is None else type_.with_shape(None) for type_ in types]
    for said, type_ in zip(definition.infer(unranked, attributes), actual, strict=True):
        assert said.dtype == type_.dtype and (said.shape is None or said.rank == type_.rank)


@pytest.mark.parametrize("name", [definition.name for definition in PRIMITIVES])
def test_the_type_rule_says_what_the_reference_gives(name: str) -> None:
    for dtype in sampled_dtypes(name):
        for arrays, attributes in samples(name, dtype):
            try:
                check_types(name, arrays, attributes)
            except Exception as error:
                shapes = [None if array is None else array.shape for array in arrays]
                raise AssertionError(f"{name} of {dtype}{shapes} with {attributes}") from error


def test_every_primitive_has_its_page() -> None:
    for definition in [*PRIMITIVES, *(TABLE[name] for name in STRUCTURAL - {"const", "return", "yield"})]:
        for part in ("Shapes:", "Source:", "Edge cases:"):
            assert part in definition.doc, f"the page of {definition.name} lacks {part}"
        assert definition.has_reference or definition.name in STRUCTURAL


# -- the reference against the oracles -------------------------------------------------------------------------

ORACLE_DTYPES = [F64, F32, F16, BF16, I64, I32, I8, U8, BOOL, C64, C128]
INEXACT = {
    "exp", "log", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh",
    "erf", "pow",
    "reduce_sum", "reduce_prod", "dot", "conv", "conv_transpose", "window_reduce", "scan", "scatter",
    "scatter_elements", "abs",
    "sqrt", "mod", "div", "mul",
}  # fmt: skip
SUMS = {"reduce_sum", "dot", "conv", "conv_transpose", "window_reduce", "scan", "scatter", "scatter_elements"}
TOLERANCE = {F64: 1e-12, F32: 3e-6, F16: 4e-3, BF16: 3e-2, C64: 1e-5, C128: 1e-12}


def comparable(name: str, arrays: list[Array | None], attributes: dict[str, Any], oracle: str) -> bool:
    """Leaves out what an oracle leaves open or does otherwise: irc/ops/edge_cases.py says it in words."""
    held = [array for array in arrays if array is not None]
    x = held[0]
    integers = x.dtype.kind in "iu"
    if name in ("div", "mod") and integers and (held[1] == 0).any():
        return False
    if name in ("div", "mod") and x.dtype.kind == "i" and (held[1] == -1).any():
        return False
    if name == "pow" and (oracle == "onnx" or x.dtype.kind == "c") and x.dtype.kind in "iuc":
        return False  # ONNX Runtime computes via double
    if name == "sign" and x.dtype.kind not in "iu" and np.isnan(x.astype(np.float64)).any():
        return False
    if name in ("reduce_max", "reduce_min") and any(extent == 0 for extent in x.shape):
        return False
    if name.startswith("shift") and oracle == "onnx":
        return bool((held[1] < x.dtype.itemsize * 8).all())
    if name == "cast":
        to = attributes["to"]
        if to.bits <= 8 and to.is_float:
            return False
        if to.is_integer and x.dtype.kind not in "iub" and not x.dtype.kind == "c":
            low, high = dtypes.limits(to)
            wide = x.astype(np.float64)
            return bool((np.isfinite(wide) & (wide > float(low)) & (wide < float(high))).all())
        if oracle == "onnx" and to.sub_byte:
            return False
        if to is BF16 and x.dtype in (np.dtype(np.float64), np.dtype(np.int64)):
            return False
    if oracle == "onnx":
        if (
            name in ("reduce_max", "reduce_min", "argmax", "argmin", "sort", "window_reduce", "minimum", "maximum")
            and not integers
        ):
            if x.dtype != np.bool_ and any(np.isnan(array.astype(np.float64)).any() for array in held):
                return False  # NaN is left open
        if name in ("reduce_sum", "reduce_prod", "scatter_elements", "scatter", "scan") and integers:
            return bool(
                all(np.abs(array.astype(np.float64)).max(initial=0) <= 5 for array in held) and name != "reduce_prod"
            )
        if name in ("scatter", "scatter_elements") and not integers and attributes["reduction"] in ("max", "min"):
            return not any(np.isnan(array.astype(np.float64)).any() for array in (held[0], held[2]))
        if any(0 in array.shape for array in held):
            return name not in ("sort", "conv", "conv_transpose", "window_reduce", "pad", "argmax", "argmin")
        if name == "transpose" and x.ndim == 0:
            return False
        if name == "slice" and x.ndim == 0:
            return False
    elif name in ("argmax", "argmin") and any(0 in array.shape for array in held):
        return False
    elif name == "conv_transpose" and 0 in x.shape:
        return False
    elif name == "gather" and 0 in x.shape:
        return False
    elif x.dtype.kind == "c" and name in ("asin", "acos", "atan", "asinh", "acosh", "atanh"):
        return True
    return True


def assert_close(name: str, ours: Array, theirs: Array, oracle: str) -> None:
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape, (
        f"{ours.dtype}{ours.shape} {theirs.dtype}{theirs.shape}"
    )
    dtype = dtypes.from_numpy(ours.dtype)
    if not (dtype.is_float or dtype.is_complex):
        assert np.array_equal(ours, theirs), f"{ours}\n{oracle}: {theirs}"
        return
    wide = np.complex128 if dtype.is_complex else np.float64
    a, b = ours.astype(wide), theirs.astype(wide)
    if name not in INEXACT:
        assert np.array_equal(a, b, equal_nan=True), f"{a}\n{oracle}: {b}"
        return
    tolerance = TOLERANCE[dtype] * (5 if oracle == "onnx" else 1)
    largest = np.abs(b[np.isfinite(b)]).max(initial=1.0) if name in SUMS else 1.0  # a sum errs by its largest term
    assert np.allclose(a, b, rtol=tolerance, atol=tolerance * largest, equal_nan=True), f"{a}\n{oracle}: {b}"


@pytest.mark.parametrize("name", [definition.name for definition in PRIMITIVES
                                  if definition.name not in ("iota", "philox")])
def test_the_reference_agrees_with_an_oracle(name: str) -> None:
    """With PyTorch and with ONNX's own reference, where they have the like; one of them has."""
    definition, compared = lookup(name), 0
    for oracle, dtype in itertools.product(("torch", "onnx"), sampled_dtypes(name)):
        if dtype not in ORACLE_DTYPES:
            continue
        chosen = list(samples(name, dtype))
        step = max(1, len(chosen) // 24)  # attributes multiply; a spread of them says as much
        for arrays, attributes in chosen[::step]:
            full = definition.normalize(attributes)
            if not comparable(name, arrays, full, oracle):
                continue
            ours = definition.evaluate(arrays, full)
            kinds = [dtypes.from_numpy(array.dtype) for array in ours]
            theirs = torch_result(name, arrays, full) if oracle == "torch" else onnx_result(name, arrays, full, kinds)
            if theirs is None:
                continue
            compared += 1
            for our, their in zip(ours, theirs, strict=True):
                try:
                    assert_close(name, our, their, oracle)
                except AssertionError as error:
                    raise AssertionError(f"{name} of {arrays} with {full}") from error
    assert compared


# -- conversions -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize(
    "target", [dtype for dtype in ALL if dtype.is_float and dtype.bits < 32 and dtype.name != "f8e8m0"], ids=str
)
def test_conversions_round_once_to_nearest_even(target: DType) -> None:
    """From every number to itself, and from between two neighbors to the right one of them."""
    bits = np.arange(1 << target.bits, dtype=np.uint16 if target.bits > 8 else np.uint8)
    with np.errstate(invalid="ignore"):  # signaling NaNs
        every = widen(bits.view(target.numpy)).astype(np.float64)
    finite, first = np.unique(every[np.isfinite(every)], return_index=True)
    odd = bits[np.isfinite(every)][first] % 2 == 1
    assert np.array_equal(convert(finite, target).astype(np.float64), finite)
    middle = (finite[:-1] + finite[1:]) / 2
    for given, expected in [
        (np.nextafter(middle, -np.inf), finite[:-1]),
        (np.nextafter(middle, np.inf), finite[1:]),
        (middle, np.where(odd[:-1], finite[1:], finite[:-1])),
    ]:
        assert np.array_equal(convert(given, target).astype(np.float64), expected)


def test_round_to_odd_keeps_what_a_second_rounding_needs() -> None:
    exact = np.array([0.0, -0.0, 1.5, -3.25, np.inf, -np.inf], np.float64)
    assert np.array_equal(round_to_odd(exact), exact.astype(np.float32))
    assert np.isnan(round_to_odd(np.array([np.nan]))).all()
    inexact = np.array([1 + 2.0**-30, -(1 + 2.0**-30), 1e300, 2.0**-200])
    assert (round_to_odd(inexact).view(np.int32) % 2 != 0).all()
    integers = np.array([2**62 + 1, -(2**62) - 1, 2**63 - 1, -(2**63), 2**53 + 1, 0, 7], np.int64)
    rounded = round_to_odd(integers)
    for integer, number in zip(integers.tolist(), rounded.tolist(), strict=True):
        assert abs(int(number) - integer) <= abs(integer) * 2.0**-23
        assert int(number) == integer or np.float32(number).view(np.int32) % 2 != 0


# -- errors ----------------------------------------------------------------------------------------------------

ERRORS: list[tuple[str, list[str | None], dict[str, Any], str, str]] = [
    ("add", ["f16[2, 8, 768]", "f16[770]"], {}, "type.broadcast",
     "add: cannot broadcast .* with f16.770.: dim 2: 768 vs 770"),
    ("add", ["f32[2]", "f16[2]"], {}, "type.dtype", "element types of f32.2. and f16.2. differ"),
    ("add", ["bool[2]", "bool[2]"], {}, "type.dtype", "operand `x` is bool"),
    ("add", ["f32[2]"], {}, "type.operands", "1 operands given"),
    ("select", ["bool[2]", "f32[2]", "f32[3]"], {}, "type.broadcast", "select: .*dim 0"),
    ("cast", ["c64[2]"], {"to": F32}, "type.dtype", "cannot cast"),
    ("bitcast", ["f32[2]"], {"to": I64}, "type.dtype", "types of 32 bits"),
    ("cast", ["f32[2]"], {"to": 3}, "type.attribute", "`to` cannot be 3"),
    ("div", ["i32[2]", "i32[2]"], {"rounding": "up"}, "type.attribute", "'trunc' or 'floor'"),
    ("reduce_sum", ["f32[2, 3]"], {"axes": (2,)}, "type.rank", "axis 2"),
    ("reduce_sum", ["f32[2, 3]"], {"axes": (1, -1)}, "type.attribute", "twice"),
    ("argmax", ["f32[0, 3]"], {"axis": 0}, "type.shape", "no element"),
    ("reshape", ["f32[2, 3]"], {"shape": (7,)}, "type.shape", "6 elements against 7"),
    ("reshape", ["f32[2, 3]"], {"shape": (-1,)}, "type.attribute", "-1"),
    ("transpose", ["f32[2, 3]"], {"permutation": (0, 0)}, "type.attribute", "twice"),
    ("transpose", ["f32[2, 3]"], {"permutation": (0,)}, "type.attribute", "2 axes"),
    ("expand", ["f32[2, 3]"], {"shape": (2, 4)}, "type.broadcast", "dim 1: 3 vs 4"),
    ("expand", ["f32[2, 3]"], {"shape": (3,)}, "type.rank", "to 1 dims"),
    ("slice", ["f32[5]"], {"starts": (0,), "stops": (6,), "steps": (1,)}, "type.attribute", "beyond the extent 5"),
    ("slice", ["f32[5]"], {"starts": (3,), "stops": (2,), "steps": (1,)}, "type.attribute", "before its start"),
    ("slice", ["f32[5]"], {"starts": (0,), "stops": (5,), "steps": (-1,)}, "type.attribute", "1 or more"),
    ("pad", ["f32[5]"], {"low": (-1,), "high": (0,)}, "type.attribute", "0 or more"),
    ("pad", ["f32[5]"], {"low": (5,), "high": (0,), "mode": "reflect"}, "type.shape", "reflect 5"),
    ("pad", ["f32[5]", "f32[1]"], {"low": (1,), "high": (0,)}, "type.rank", "scalar"),
    ("concat", ["f32[2, 3]", "f32[2, 4]"], {"axis": 0}, "type.shape", "dim 1: 3 vs 4"),
    ("concat", ["f32[2]", "f32[2, 4]"], {"axis": 0}, "type.rank", "different ranks"),
    ("split", ["f32[5]"], {"axis": 0, "sizes": (2, 2)}, "type.shape", "sum to 4"),
    ("iota", [], {"shape": (3,), "axis": 0, "dtype": BOOL}, "type.dtype", "count in bool"),
    ("gather", ["f32[5]", "f32[5]"], {"axis": 0}, "type.dtype", "indices"),
    ("gather", ["f32[5]", "i64[]"], {"axis": 1}, "type.rank", "axis 1"),
    ("gather_elements", ["f32[5, 2]", "i64[2, 3]"], {"axis": 0}, "type.shape", "dim 1: 3 vs 2"),
    ("scatter", ["f32[5]", "i64[2, 2]", "f32[2]"], {}, "type.shape", "index vectors of length 2"),
    ("scatter", ["f32[5]", "i64[2, 1]", "f32[3]"], {}, "type.shape", "updates"),
    ("scatter_elements", ["f32[5]", "i64[2]", "f32[3]"], {"axis": 0}, "type.shape", "updates"),
    ("dot", ["f32[2, 3]", "f32[4, 2]"], {"contract": ((1, 0),)}, "type.shape", "3 vs 4"),
    ("dot", ["f32[2, 3]", "f32[3, 2]"], {"contract": ((1, 0),), "accumulate": I32}, "type.dtype", "accumulate"),
    ("conv", ["f32[1, 2, 5]", "f32[4, 3, 1]"], {"strides": (1,), "dilations": (1,), "low": (0,), "high": (0,)},
     "type.shape", "axis 1"),
    ("conv", ["f32[1, 2, 2]", "f32[4, 2, 5]"], {"strides": (1,), "dilations": (1,), "low": (1,), "high": (0,)},
     "type.shape", "larger"),
    ("conv", ["f32[1, 2, 5]", "f32[4, 2, 1]"], {"strides": (1, 1), "dilations": (1,), "low": (0,), "high": (0,)},
     "type.attribute", "strides"),
    ("conv", ["f32[1, 2, 5]", "f32[4, 2, 1]", "f32[3]"], {"strides": (1,), "dilations": (1,), "low": (0,),
     "high": (0,)}, "type.shape", "bias"),
    ("window_reduce", ["f32[5]"], {"window": (0,), "strides": (1,), "dilations": (1,), "low": (0,), "high": (0,)},
     "type.attribute", "window"),
    ("scan", ["f32[5]"], {"axis": 1}, "type.rank", "axis 1"),
    ("sort", ["f32[5]"], {"axis": 0, "ascending": True}, "type.attribute", "no attribute `ascending`"),
    ("refine", ["f32[5]"], {}, "type.operands", "stated"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "operands", "attributes", "code", "message"),
    ERRORS,
    ids=[f"{e[0]}-{e[3]}-{i}" for i, e in enumerate(ERRORS)],
)
def test_errors_are_coded_and_precise(
    name: str, operands: list[str | None], attributes: dict[str, Any], code: str, message: str
) -> None:
    definition = lookup(name)
    types = [None if text is None else static_type(text) for text in operands]
    with pytest.raises(IrcError, match=message) as caught:
        definition.infer(types, definition.normalize(attributes))
    assert caught.value.code == code
    assert name in str(caught.value)


def test_unknown_equality_is_accepted_and_written_into_the_type() -> None:
    s, t = symbol("S", 1), symbol("T", 1)
    x, y = TensorType(F32, (s.expr, 4)), TensorType(F32, (t.expr, 4))
    (both,) = lookup("add").infer([x, y], {})
    assert str(both) == "f32[bcast(S, T), 4]"
    (flat,) = lookup("reshape").infer([x], {"shape": (t.expr, 2)})
    assert str(flat) == "f32[T, 2]"
    attributes = lookup("concat").normalize({"axis": 1})
    (joined,) = lookup("concat").infer([x, y], attributes)
    assert str(joined) == "f32[S, 8]"
    more, most = (TensorType(F32, (s.expr + extra, 4)) for extra in (1, 2))  # neither can be 1
    with pytest.raises(IrcError, match=r"cannot broadcast f32\[S \+ 1, 4\] with f32\[S \+ 2, 4\]: dim 0"):
        lookup("add").infer([more, most], {})


def test_unknown_names_suggest_the_known() -> None:
    with pytest.raises(IrcError, match="reduce_sum") as caught:
        lookup("reduce_sun")
    assert caught.value.code == "text.unknown_op"


def test_large_convolutions_are_cut_into_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    from irc.ops import products

    rng = generator("pieces")
    x, weight = rng.normal(size=(2, 3, 17, 9)), rng.normal(size=(4, 3, 3, 2))
    attributes = {"strides": (2, 1), "dilations": (1, 1), "low": (1, 0), "high": (0, 1), "groups": 1}
    (whole,) = lookup("conv").evaluate([x, weight], attributes)
    monkeypatch.setattr(products, "PATCH_BYTES", 1)
    (pieces,) = lookup("conv").evaluate([x, weight], attributes)
    assert np.allclose(whole, pieces, rtol=1e-14)


@pytest.mark.parametrize("size", [1, 3])
def test_integer_products_are_exact(size: int) -> None:
    """By f64 where that is exact, and wrapping where it is not."""
    rng = generator("exact", size)
    for high in (127, 2**31 - 1):
        x, y = (rng.integers(-high, high, (size, 5, 5)) for _ in range(2))
        (result,) = lookup("dot").evaluate([x, y], {"batch": ((0, 0),), "contract": ((2, 1),), "accumulate": None})
        assert np.array_equal(result, np.einsum("bij,bjk->bik", x, y))
