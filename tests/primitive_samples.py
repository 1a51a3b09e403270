"""Samples for every primitive: arrays and attributes that its declaration admits."""

from __future__ import annotations

import itertools
import typing
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from irc import dtypes
from irc.dtypes import ALL, BOOL, STRING, DType
from irc.ops import TABLE, lookup
from irc.ops.numerics import narrow

Array = NDArray[Any]
Sample = tuple[list[Array | None], dict[str, Any]]
STRUCTURAL = {
    "const", "return", "yield", "if", "loop", "call", "kernel", "dim", "bind", "refine", "assert", "assume", "trap",
    "extern",
}  # fmt: skip
PRIMITIVES = [
    definition for definition in TABLE.values() if not definition.is_named and definition.name not in STRUCTURAL
]
POINTWISE = [definition for definition in PRIMITIVES if definition.pointwise is not None]
SHAPES = [
    [(3, 5), (5,), (1, 5)], [(), (), ()], [(0,), (1,), (0,)], [(1,), (7,), ()], [(2, 1, 3), (4, 1), (1,)],
    [(1, 0, 2), (3, 1, 1), (2,)],
]  # fmt: skip


def generator(*key: object) -> np.random.Generator:
    """The same numbers in every run, and other ones for every key."""
    return np.random.default_rng(zlib.crc32(repr([str(part) for part in key]).encode()))


def values(rng: np.random.Generator, dtype: DType, shape: tuple[int, ...], special: bool = True) -> Array:
    """Random elements; with `special`, some of them NaN, infinities, zeros of both signs and the ends of the range."""
    size = int(np.prod(shape))
    if dtype is BOOL:
        return np.asarray(rng.random(shape) < 0.5)
    if dtype.is_complex:
        return np.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape), dtype.numpy)
    if dtype.is_integer:
        low, high = (int(limit) for limit in dtypes.limits(dtype))
        small = rng.integers(max(low, -5), min(high, 5), size=size, endpoint=True)
        if special:
            edges = np.array([low, high, high - 1, 0, 1], dtype=object)
            small = np.where(rng.random(size) < 0.3, rng.choice(edges, size), small)
        return (
            np.array([int(v) for v in small], np.uint64 if dtype.kind == "uint" else np.int64)
            .astype(dtype.numpy)
            .reshape(shape)
        )
    array = rng.normal(size=size) * 3
    if special:
        edges_of_floats = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -2.5])
        array = np.where(rng.random(size) < 0.3, rng.choice(edges_of_floats, size), array)
    return narrow(array, dtype.numpy).reshape(shape)


def admitted(name: str, operand: int = 0) -> list[DType]:
    specs = lookup(name).operand_specs
    return [d for d in ALL if specs[min(operand, len(specs) - 1)].constraint.admits(d) and d is not STRING]


def choices(name: str, dtype: DType) -> Iterator[dict[str, Any]]:
    """Every combination of the attributes that have few values."""
    options: dict[str, list[Any]] = {}
    for attribute in lookup(name).attribute_specs.values():
        if attribute.annotation is bool:
            options[attribute.name] = [True, False]
        elif attribute.annotation is DType:
            options[attribute.name] = [
                to for to in ALL if to is not STRING and not (dtype.is_complex and not to.is_complex)
            ]
            if name == "bitcast":
                options[attribute.name] = [
                    to for to in ALL if to is dtype or (to.bits == dtype.bits and BOOL not in (to, dtype))
                ]
        elif name == "philox" and attribute.name == "stream":
            options["stream"] = [0, 5]
        elif attribute.default is None:  # what it says besides is tested with its examples
            options[attribute.name] = [None]
        else:
            assert typing.get_origin(attribute.annotation) is Literal, attribute
            options[attribute.name] = list(typing.get_args(attribute.annotation))
    for combination in itertools.product(*options.values()):
        yield dict(zip(options, combination, strict=True))


# -- samples of operations that are not pointwise --------------------------------------------------------------

def over_axes(name: str, rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, axes in [
        ((3, 5), (1,)),
        ((3, 5), (0, -1)),
        ((2, 1, 3), ()),
        ((0, 4), (0,)),
        ((4, 0), (0,)),
        ((), ()),
        ((1, 7), (-1,)),
    ]:
        for keep in (True, False):
            yield [values(rng, dtype, shape)], {"axes": axes, "keep_dims": keep}


def finding(name: str, rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, axis in [((3, 5), 1), ((3, 5), -2), ((1,), 0), ((0, 4), 1)]:
        for keep, last in itertools.product((True, False), repeat=2):
            yield [values(rng, dtype, shape)], {"axis": axis, "keep_dims": keep, "select_last": last}


def viewing(name: str, rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    cases: dict[str, list[tuple[list[tuple[int, ...]], dict[str, Any]]]] = {
        "reshape": [
            ([(3, 4)], {"shape": (2, 6)}),
            ([()], {"shape": (1, 1)}),
            ([(0, 4)], {"shape": (2, 0)}),
            ([(1,)], {"shape": ()}),
        ],
        "transpose": [
            ([(2, 3, 4)], {"permutation": (2, 0, 1)}),
            ([()], {"permutation": ()}),
            ([(0, 3)], {"permutation": (-1, 0)}),
        ],
        "expand": [
            ([(3, 1)], {"shape": (2, 3, 4)}),
            ([()], {"shape": (3,)}),
            ([(1,)], {"shape": (0,)}),
            ([(2, 3)], {"shape": (2, 3)}),
        ],
        "slice": [
            ([(7, 5)], {"starts": (1, 0), "stops": (6, 5), "steps": (2, 3)}),
            ([()], {"starts": (), "stops": (), "steps": ()}),
            ([(3,)], {"starts": (3,), "stops": (3,), "steps": (1,)}),
            ([(0,)], {"starts": (0,), "stops": (0,), "steps": (4,)}),
        ],
        "pad": [
            ([(3, 4), ()], {"low": (1, 0), "high": (2, 3), "mode": "constant"}),
            ([(0, 1)], {"low": (2, 0), "high": (0, 1), "mode": "constant"}),
            ([(3, 4)], {"low": (2, 1), "high": (1, 3), "mode": "reflect"}),
            ([(3, 4)], {"low": (4, 0), "high": (1, 6), "mode": "edge"}),
            ([(3, 4)], {"low": (2, 1), "high": (1, 3), "mode": "wrap"}),
        ],
        "concat": [([(2, 3), (0, 3), (1, 3)], {"axis": 0}), ([(2, 1)], {"axis": -1}), ([(2, 3), (2, 5)], {"axis": -1})],
        "split": [
            ([(7, 2)], {"axis": 0, "sizes": (3, 0, 4)}),
            ([(2, 5)], {"axis": -1, "sizes": (5,)}),
            ([(0,)], {"axis": 0, "sizes": (0, 0)}),
        ],
        "reverse": [([(3, 4)], {"axes": (0, -1)}), ([(0,)], {"axes": (0,)}), ([(3, 2)], {"axes": ()})],
    }
    for shapes, attributes in cases[name]:
        yield [values(rng, dtype, shape) for shape in shapes], attributes


def counting(name: str, rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, axis in [((5,), 0), ((2, 300, 1), 1), ((0, 3), -1), ((3, 0), -1)]:
        yield [], {"shape": shape, "axis": axis, "dtype": dtype}


def indexing(name: str, rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    def indices(shape: tuple[int, ...], extent: int) -> Array:
        return rng.integers(-extent, extent, shape) if extent else np.zeros(shape, np.int64)

    combine = ["none", "add", "mul", "max", "min"] if not (dtype.is_complex or dtype is BOOL) else ["none"]
    for shape, axis, count in [
        ((3, 5), 1, (2, 4)),
        ((3,), 0, ()),
        ((3, 5), -2, ()),
        ((4, 0), 0, (3,)),
        ((1,), 0, (0,)),
        ((3, 2), 0, (1, 0)),
    ]:
        x = values(rng, dtype, shape)
        if name == "gather":
            yield [x, indices(count, shape[axis])], {"axis": axis}
    for shape, axis, count in [((3, 5), 1, (3, 4)), ((3, 5), 0, (7, 2)), ((1,), 0, (0,)), ((4, 0), 0, (3, 0))]:
        x, places = values(rng, dtype, shape), indices(count, shape[axis])
        if name == "gather_elements":
            yield [x, places], {"axis": axis}
        if name == "scatter_elements":
            for reduction in combine:
                yield [x, places, values(rng, dtype, count)], {"axis": axis, "reduction": reduction}
    if name == "scatter":
        for shape, front, depth in [
            ((3, 5), (4,), 1),
            ((3, 5), (2, 3), 2),
            ((5,), (0,), 1),
            ((2, 0), (3,), 1),
            ((2, 2), (1,), 0),
        ]:
            where = (
                np.stack([indices(front, shape[k]) for k in range(depth)], -1)
                if depth
                else np.zeros((*front, 0), np.int64)
            )
            for reduction in combine:
                updates = values(rng, dtype, (*front, *shape[depth:]))
                yield [values(rng, dtype, shape), where, updates], {"reduction": reduction}


def multiplying(name: str, rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    cases: list[tuple[tuple[int, ...], tuple[int, ...], Any, Any]] = [
        ((3, 5), (5, 7), (), ((1, 0),)), ((2, 3, 5), (2, 5, 4), ((0, 0),), ((2, 1),)), ((5,), (5,), (), ((0, 0),)),
        ((3,), (4,), (), ()),
        ((2, 0), (0, 3), (), ((1, 0),)), ((0, 4), (4, 3), (), ((1, 0),)),
        ((4, 2, 3), (3, 5, 2), ((1, -1),), ((-1, 0),)),
        ((2, 3, 4), (3, 4, 2), (), ((1, 0), (2, 1))), ((1, 1), (1, 1), (), ((1, 0),)),
    ]  # fmt: skip
    for left, right, batch, contract in cases:
        x, y = values(rng, dtype, left, special=False), values(rng, dtype, right, special=False)
        yield [x, y], {"batch": batch, "contract": contract, "accumulate": None}


def convolving(name: str, rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    cases: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
        ((2, 3, 7), (4, 3, 3), {}),
        ((1, 4, 9, 5), (6, 2, 3, 1), {"strides": (2, 1), "dilations": (2, 1), "low": (1, 0), "high": (2, 1),
         "groups": 2}),
        ((2, 3, 5, 6), (3, 1, 2, 3), {"strides": (1, 3), "low": (0, 2), "high": (1, 0), "groups": 3}),
        ((0, 2, 4), (3, 2, 1), {}), ((1, 1, 1, 1), (1, 1, 1, 1), {}),
        ((1, 2, 3, 4, 5), (2, 2, 2, 1, 3), {"strides": (1, 2, 2)}),
    ]  # fmt: skip
    for shape, weight, more in cases:
        rank = len(shape) - 2
        attributes = {
            "strides": (1,) * rank,
            "dilations": (1,) * rank,
            "low": (0,) * rank,
            "high": (0,) * rank,
            "groups": 1,
            **more,
        }
        if name == "conv_transpose":
            groups = attributes["groups"]
            weight = (shape[1], weight[0] // groups, *weight[2:])
            attributes["output_padding"] = tuple(stride - 1 for stride in attributes["strides"])
        features = weight[0] if name == "conv" else weight[1] * attributes["groups"]
        operands: list[Array | None] = [values(rng, dtype, s, special=False) for s in (shape, weight, (features,))]
        yield operands, attributes
        yield operands[:2], attributes


def windowing(name: str, rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    cases: list[tuple[tuple[int, ...], dict[str, Any]]] = [
        ((1, 2, 7, 5), {"window": (1, 1, 3, 2), "strides": (1, 1, 2, 1), "low": (0, 0, 1, 0), "high": (0, 0, 0, 1)}),
        ((1, 1, 9, 4), {"window": (1, 1, 3, 1), "dilations": (1, 1, 2, 1)}),
        ((5,), {"window": (5,)}), ((1,), {"window": (1,)}), ((0, 4), {"window": (1, 2)}),
        ((3, 4), {"window": (2, 2), "strides": (2, 3)}),
    ]  # fmt: skip
    for shape, more in cases:
        ones, none = (1,) * len(shape), (0,) * len(shape)
        for kind in ("max", "sum"):
            attributes = {
                "kind": kind,
                "window": ones,
                "strides": ones,
                "dilations": ones,
                "low": none,
                "high": none,
                **more,
            }
            yield [values(rng, dtype, shape, special=kind == "max")], attributes


def scanning(name: str, rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, axis in [((3, 5), 1), ((4, 2), -2), ((1,), 0), ((0, 3), 0), ((3, 0), 0)]:
        for kind, reverse, exclusive in itertools.product(("sum", "prod", "max", "min"), (False, True), (False, True)):
            x = values(rng, dtype, shape, special=kind in ("max", "min") or dtype.is_integer)
            yield [x], {"kind": kind, "axis": axis, "reverse": reverse, "exclusive": exclusive}
        if dtype.is_float:
            attributes = {"kind": "log_sum_exp", "axis": axis, "reverse": True, "exclusive": False}
            yield [values(rng, dtype, shape)], attributes


def sorting(name: str, rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, axis in [((3, 9), 1), ((5, 2), -2), ((1,), 0), ((0, 3), 0), ((3, 0), 0)]:
        for descending in (False, True):
            yield [values(rng, dtype, shape)], {"axis": axis, "descending": descending}


MAKERS: dict[str, Callable[[str, np.random.Generator, DType], Iterator[Sample]]] = {
    **dict.fromkeys(("reduce_sum", "reduce_prod", "reduce_max", "reduce_min"), over_axes),
    **dict.fromkeys(("argmax", "argmin"), finding),
    **dict.fromkeys(("reshape", "transpose", "expand", "slice", "pad", "concat", "split", "reverse"), viewing),
    "iota": counting,
    **dict.fromkeys(("gather", "gather_elements", "scatter", "scatter_elements"), indexing),
    "dot": multiplying, "conv": convolving, "conv_transpose": convolving, "window_reduce": windowing, "scan": scanning,
    "sort": sorting,
}  # fmt: skip


def samples(name: str, dtype: DType) -> Iterator[Sample]:
    rng = generator(name, dtype)
    if name in MAKERS:
        yield from MAKERS[name](name, rng, dtype)
        return
    specs = lookup(name).operand_specs
    for shapes, attributes in itertools.product(SHAPES, choices(name, dtype)):
        yield (
            [values(rng, BOOL if name == "select" and i == 0 else dtype, shapes[i]) for i in range(len(specs))],
            attributes,
        )


def sampled_dtypes(name: str) -> list[DType]:
    if name == "iota":
        return [dtype for dtype in ALL if dtype.is_float or dtype.is_integer]
    return admitted(name, 1) if name == "select" else admitted(name)
