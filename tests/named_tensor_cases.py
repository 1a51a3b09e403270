"""Cases of named operations: quantization, shapes, sampling, pooling, recurrences."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from irc.dtypes import BF16, F16, F32, F64, I8, I16, I32, I64, U8, U16, DType
from tests.named_cases import FLOATS, INF, NAN, SPECIAL, Array, Case, integers, random

CASES: list[Case] = []
add = CASES.append

# -- quantization ----------------------------------------------------------------------------------------------

HALVES = np.array([[0.25, 0.75, 1.25, -0.25, -0.75, -1.25, 1000, -1000, 0, 63.4]]) * 2  # ties at scale 0.5 and 1
QUANTIZE = ("QuantizeLinear", 21, {})
for to, zero in ((U8, 3), (I8, -3), (U16, 700), (I16, -700)):
    for x in (HALVES, random(3, 5, scale=40), random(0, 3), random(1)):
        zero_point = np.array(zero, to.numpy)
        info = np.iinfo(to.numpy)

        def _quantize(x: Any, s: Any, z: Any, info: Any = info, to: DType = to) -> torch.Tensor:
            nearest = torch.round(x / s) + z.to(x.dtype)
            return torch.from_numpy(nearest.clamp(info.min, info.max).numpy().astype(to.numpy))

        add(Case("quantize", [x, np.array(0.5), zero_point], {"to": to}, _quantize, QUANTIZE, (F32,)))
    codes = integers(info.min, info.max + 1, 3, 5, dtype=to)
    node = ("DequantizeLinear", 21, {"axis": 1})
    for scale, zero_point in (
        (np.array(0.3), np.array(zero, to.numpy)), (np.abs(random(5)), integers(0, 9, 5, dtype=to)),
        (np.abs(random(5)), None), (np.array([0.3]), None), (np.array(0.3), None),
    ):  # fmt: skip

        def _dequantize(q: Any, s: Any, z: Any = None) -> torch.Tensor:
            return ((q.double() - (0 if z is None else z.double())) * s.double()).to(s.dtype)

        ready = node if scale.shape != (1,) else None
        add(
            Case(
                "dequantize",
                [codes, scale, zero_point],
                {"axis": 1},
                _dequantize,
                ready,
                (F32, F16, BF16),
                (F32, F16),
                note=to.name,
            )
        )
for axis in (0, 1, -1):
    x = random(3, 5, 4, scale=40)
    size = x.shape[axis]
    scale, zero_point = np.abs(random(size)) + 0.1, integers(0, 256, size, dtype=U8)
    shape = [size if i == axis % 3 else 1 for i in range(3)]

    def _per_axis(x: Any, s: Any, z: Any, shape: list[int] = shape) -> torch.Tensor:
        return (torch.round(x / s.reshape(shape)) + z.reshape(shape)).clamp(0, 255).to(torch.uint8)

    add(
        Case(
            "quantize",
            [x, scale, zero_point],
            {"axis": axis, "to": U8},
            _per_axis,
            ("QuantizeLinear", 21, {"axis": axis}),
            (F32,),
        )
    )
add(
    Case(
        "quantize",
        [random(3, 5), np.array([0.1])],
        {"to": U8},
        lambda x, s: torch.round(x / s).clamp(0, 255).to(torch.uint8),
        dtypes=(F32,),
    )
)
DYNAMIC = ("DynamicQuantizeLinear", 11, {})
for x in (np.abs(random(3, 5)) + 1, -np.abs(random(7)), *(random(size) for size in range(1, 9)), np.zeros((2, 3))):
    add(Case("dynamic_quantize", [x], {}, None, DYNAMIC, (F32,)))
for axis, block, depth in ((0, 4, 10), (1, 2, 6), (-1, 3, 3)):

    def _in_blocks(q: Any, s: Any, z: Any = None, axis: int = axis, block: int = block) -> torch.Tensor:
        def of_each(parameter: Any) -> Any:
            return parameter.double().repeat_interleave(block, axis).narrow(axis, 0, q.shape[axis])

        return ((q.double() - (0 if z is None else of_each(z))) * of_each(s)).to(s.dtype)

    shape = [5, 6, 3]
    shape[axis] = depth
    parameters = [-(-extent // block) if place == axis % 3 else extent for place, extent in enumerate(shape)]
    for zero_point in (integers(-8, 8, *parameters, dtype=I8), None):
        add(Case("dequantize", [integers(-128, 128, *shape, dtype=I8), np.abs(random(*parameters)), zero_point],
                 {"axis": axis, "block": block}, _in_blocks,
                 ("DequantizeLinear", 21, {"axis": axis, "block_size": block}), (F32, F16),
                 symbolic=False))  # fmt: skip


def _matmul_packed(bits: int, block: int) -> Callable[..., torch.Tensor]:
    def product(x: Any, weight: Any, scale: Any, points: Any = None) -> torch.Tensor:
        def unpacked(packed: Any) -> torch.Tensor:
            codes = torch.stack([(packed >> place) & 2**bits - 1 for place in range(0, 8, bits)], -1)
            return codes.flatten(-2).double()

        columns, blocks = scale.shape
        codes = unpacked(weight).reshape(columns, blocks, block)
        if points is None:
            points = torch.full((columns, blocks), 2.0 ** (bits - 1))
        elif points.dtype == torch.uint8:
            points = unpacked(points)[:, :blocks]
        values = ((codes - points.double()[..., None]) * scale.double()[..., None]).to(x.dtype)
        return (x.double() @ values.reshape(columns, -1)[:, : x.shape[-1]].double().T).to(x.dtype)

    return product


def packed_bytes(*shape: int) -> Array:
    return integers(0, 256, *shape, dtype=U8)


for bits, block, depth, points in ((4, 16, 37, None), (4, 16, 37, packed_bytes(5, 2)), (4, 16, 48, random(5, 3)),
                                   (2, 8, 40, packed_bytes(5, 2)), (8, 16, 37, packed_bytes(5, 3))):  # fmt: skip
    blocks = -(-depth // block)
    operands = [random(2, depth), packed_bytes(5, blocks, block * bits // 8), np.abs(random(5, blocks)), points]
    add(Case("matmul_packed", operands, {"bits": bits, "block": block}, _matmul_packed(bits, block),
             dtypes=(F32, F16, BF16), symbolic=False, loose=4))  # fmt: skip

# -- rearranging, selecting ------------------------------------------------------------------------------------

for shape, repeats in (((2, 3), (2, 3)), ((2, 1, 3), (1, 4, 2)), ((3,), (0,)), ((0, 2), (3, 2)), ((), ())):
    node = ("Tile", 13, {}, lambda x, repeats=repeats: [x, np.array(repeats, np.int64)])
    supported = (F64, F32) if shape else ()
    add(
        Case(
            "tile",
            [random(*shape)],
            {"repeats": repeats},
            lambda x, r=repeats: x.repeat(r),
            node,
            onnx_dtypes=supported,
        )
    )
for mode in ("DCR", "CRD"):
    node = ("DepthToSpace", 13, {"blocksize": 2, "mode": mode})
    shuffle = partial(F.pixel_shuffle, upscale_factor=2) if mode == "CRD" else None
    add(
        Case(
            "depth_to_space", [random(2, 12, 3, 5)], {"block": 2, "mode": mode}, shuffle, node, (F32,), static={0: (1,)}
        )
    )
    unshuffle = partial(F.pixel_unshuffle, downscale_factor=3) if mode == "CRD" else None
    node = ("SpaceToDepth", 13, {"blocksize": 3}) if mode == "DCR" else None
    add(
        Case(
            "space_to_depth",
            [random(2, 4, 6, 9)],
            {"block": 3, "mode": mode},
            unshuffle,
            node,
            (F32,),
            static={0: (2, 3)},
        )
    )
for upper in (False, True):
    for k in (-1, 0, 2):
        for x in (random(3, 5), random(2, 4, 4), random(0, 3), np.full((3, 3), NAN), integers(0, 9, 4, 3)):
            node = ("Trilu", 14, {"upper": int(upper)}, lambda x, k=k: [x, np.array(k)])
            function = partial(torch.triu if upper else torch.tril, diagonal=k)
            add(
                Case(
                    "trilu",
                    [x],
                    {"upper": upper, "k": k},
                    function,
                    node,
                    (F32,),
                    (F32,) if x.size else (),
                    note=x.dtype.name,
                )
            )
add(Case("trilu", [integers(0, 2, 4, 5).astype(bool)], {}, torch.triu, None, (F32,), note="bool"))
ON_OFF = np.array([-1.5, 2.5])
for indices in (integers(0, 7, 3, 5), np.array([[-1, 6, -7], [7, -8, 100]]), np.array(3), np.zeros((0, 2), np.int64)):
    for axis in range(-indices.ndim - 1, indices.ndim + 1):
        node = ("OneHot", 11, {"axis": axis}, lambda i, v: [i, np.array(7), v])

        def _one_hot(i: Any, v: Any, axis: int = axis) -> torch.Tensor:
            hot = torch.where(i < 0, i + 7, i).unsqueeze(-1) == torch.arange(7)
            return torch.where(hot, v[1], v[0]).movedim(-1, axis)

        add(
            Case(
                "one_hot",
                [indices, ON_OFF],
                {"depth": 7, "axis": axis},
                _one_hot,
                node,
                (F32,),
                (F32,) if indices.size and indices.ndim else (),
                static={1: (0,)},
            )
        )
add(
    Case(
        "one_hot",
        [np.array([2, 250], np.uint8), ON_OFF],
        {"depth": 300},
        lambda i, v: torch.where(i.long().unsqueeze(-1) == torch.arange(300), v[1], v[0]),
        dtypes=(F32,),
        static={1: (0,)},
    )
)
for shape, indices, batch in (
    ((3, 4, 5), integers(-3, 3, 6, 2), 0), ((3, 4), integers(-3, 3, 7, 1), 0), ((3, 4), integers(-3, 3, 2), 0),
    ((3, 4, 5), integers(-3, 3, 2, 6, 3), 0), ((3, 4, 5), integers(-4, 4, 3, 6, 1), 1),
    ((3, 4, 5), integers(-4, 4, 3, 2), 1), ((2, 3, 4, 5), integers(-4, 4, 2, 3, 7, 2), 2),
    ((3, 4), np.zeros((0, 2), np.int64), 0), ((3, 4), integers(-3, 3, 6, 2, dtype=I32), 0),
):  # fmt: skip

    def _gather_nd(x: Any, i: Any, batch: int = batch) -> torch.Tensor:
        if batch:
            return torch.stack([_gather_nd(a, b, batch - 1) for a, b in zip(x, i, strict=True)])
        return x[tuple(i.long().unbind(-1))]

    node = ("GatherND", 13, {"batch_dims": batch})
    supported = (F32,) if indices.size and indices.dtype == np.int64 else ()
    add(
        Case(
            "gather_nd",
            [random(*shape), indices],
            {"batch_dims": batch},
            _gather_nd,
            node,
            (F32,),
            supported,
            static={1: (indices.ndim - 1,)},
        )
    )
for largest in (True, False):
    for x, k, axis in (
        (random(3, 7), 4, -1),
        (random(7, 3), 4, 0),
        (random(5), 5, 0),
        (random(3, 1), 1, 1),
        (random(3, 5), 0, 1),
    ):
        node = ("TopK", 11, {"axis": axis, "largest": int(largest)}, lambda x, k=k: [x, np.array([k])])

        def _top_k(x: Any, k: int = k, axis: int = axis, largest: bool = largest) -> tuple[Any, Any]:
            return tuple(torch.topk(x, k, axis, largest))

        add(
            Case(
                "top_k",
                [x],
                {"k": k, "axis": axis, "largest": largest},
                _top_k,
                node,
                (F64, F32),
                (F64, F32),
                symbolic=k < 2,
            )
        )
TIES = np.array([[1, 3, 3, 2, 3, 1, 1]])
for largest in (True, False):
    node = ("TopK", 11, {"largest": int(largest)}, lambda x: [x, np.array([5])])
    add(Case("top_k", [TIES], {"k": 5, "largest": largest}, None, node, (I64,), (I64,), symbolic=False, note="ties"))
add(
    Case("top_k", [SPECIAL], {"k": 3}, lambda x: tuple(torch.topk(x, 3)), dtypes=(F32,), symbolic=False, note="special")
)
# -- resampling ------------------------------------------------------------------------------------------------

PLANES = [random(2, 3, 5, 7), 1.2 * random(2, 4, 6, 2)]
SOLIDS = [random(2, 2, 4, 5, 6), 1.2 * random(2, 3, 2, 4, 3)]
for image, places in (PLANES, SOLIDS, [random(1, 1, 1, 1), random(1, 3, 4, 2)],
                      [random(2, 3, 5, 7), random(2, 0, 6, 2)], [random(0, 3, 5, 7), random(0, 2, 6, 2)]):  # fmt: skip
    for mode, spelled in (("linear", "bilinear"), ("nearest", "nearest"), ("cubic", "bicubic")):
        for padding in ("zeros", "border", "reflection") if mode != "cubic" or image.ndim == 4 else ():
            for align in (False, True):
                settings = {"mode": mode, "padding": padding, "align_corners": align}
                attributes = {"mode": mode, "padding_mode": padding, "align_corners": int(align)}
                sample = partial(F.grid_sample, mode=spelled, padding_mode=padding, align_corners=align)
                add(Case("grid_sample", [image, places], settings, sample if image.size else None,
                         ("GridSample", 20, attributes), (F64, F32), (F64, F32), {1: (image.ndim - 1,)}, loose=40))


def _resize(
    shape: tuple[int, ...],
    settings: dict[str, Any],
    torch_function: Any = None,
    onnx_too: bool = True,
    loose: float = 4.0,
) -> None:
    def arrange(x: Array) -> list[Any]:
        scales = settings.get("scales")
        if scales is not None:
            return [x, None, np.array(scales, np.float32)]
        return [x, None, None, np.array(settings["sizes"], np.int64)]

    attributes = {
        "mode": settings.get("mode", "nearest"),
        "coordinate_transformation_mode": settings.get("coordinates", "half_pixel"),
        "nearest_mode": settings.get("nearest", "round_prefer_floor"),
        "cubic_coeff_a": settings.get("cubic_coefficient", -0.75),
    }
    node = ("Resize", 19, attributes, arrange) if onnx_too else None
    floats = FLOATS if torch_function is not None else (F32,)
    add(Case("resize", [random(*shape)], settings, torch_function, node, floats, loose=loose, static={0: (0, 1)}))


SCALES = ((1.0, 1.0, 2.0, 3.0), (1.0, 1.0, 0.6, 1.7), (1.0, 1.0, 1.0, 0.5))
SIZES = ((1, 2, 10, 3), (1, 2, 3, 14), (1, 2, 5, 1), (1, 2, 2, 2))
COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
for coordinates in COORDINATES:
    for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        symmetric = coordinates == "half_pixel_symmetric"  # ONNX Runtime rounds its positions in some other way
        for scales in SCALES:
            if not symmetric or scales != SCALES[1]:
                _resize((1, 2, 5, 7), {"scales": scales, "coordinates": coordinates, "nearest": nearest})
        for sizes in SIZES:
            if not symmetric or sizes != SIZES[1]:
                _resize((1, 2, 5, 7), {"sizes": sizes, "coordinates": coordinates, "nearest": nearest})
    for mode in ("linear", "cubic"):
        for scales in SCALES:
            _resize((1, 2, 5, 7), {"scales": scales, "mode": mode, "coordinates": coordinates}, loose=20)
        for sizes in SIZES:
            _resize((1, 2, 5, 7), {"sizes": sizes, "mode": mode, "coordinates": coordinates}, loose=20)
_resize((1, 2, 5, 7), {"sizes": (1, 2, 10, 3), "mode": "cubic", "cubic_coefficient": -0.5}, loose=20)
_resize((5, 7), {"sizes": (3, 9), "mode": "linear"}, loose=20)
_resize(
    (2, 3, 7),
    {"sizes": (2, 3, 13), "nearest": "floor", "coordinates": "asymmetric"},
    partial(F.interpolate, size=13),
    loose=0,
)
for sizes in ((10, 3), (5, 14), (1, 1)):
    whole = (1, 2, *sizes)
    for mode, spelled in (("linear", "bilinear"), ("cubic", "bicubic")):
        for coordinates, align in (("half_pixel", False), ("align_corners", True)):
            function = partial(F.interpolate, size=sizes, mode=spelled, align_corners=align)
            _resize(
                (1, 2, 5, 7),
                {"sizes": whole, "mode": mode, "coordinates": coordinates},
                function,
                onnx_too=False,
                loose=20,
            )


# -- pooling ---------------------------------------------------------------------------------------------------

def _pool(
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    low: tuple[int, ...],
    high: tuple[int, ...],
    dilations: tuple[int, ...],
) -> None:
    settings = {"kernel": kernel, "strides": strides, "low": low, "high": high, "dilations": dilations}
    node = {"kernel_shape": kernel, "strides": strides, "pads": (*low, *high), "dilations": dilations}
    rank = len(kernel)
    max_pool, average_pool = getattr(F, f"max_pool{rank}d"), getattr(F, f"avg_pool{rank}d")
    even = low == high
    x = random(*shape)
    dtypes_of_node = (F64, F32) if x.size else ()
    function = partial(max_pool, kernel_size=kernel, stride=strides, padding=low, dilation=dilations) if even else None
    floats = FLOATS if function is not None else (F32,)
    add(Case("max_pool", [x], settings, function, ("MaxPool", 12, node), floats, dtypes_of_node if even else (F32,)))
    for include in (False, True) if x.size else ():
        plain = even and set(dilations) == {1}
        function = (
            partial(average_pool, kernel_size=kernel, stride=strides, padding=low, count_include_pad=include)
            if plain
            else None
        )
        pooled = ("AveragePool", 19, {**node, "count_include_pad": int(include)})
        add(
            Case(
                "average_pool", [x], {**settings, "count_include_pad": include}, function, pooled,
                FLOATS if function is not None and rank < 3 else (F32,), (F32,), loose=2,
            )
        )  # fmt: skip


_pool((2, 3, 9), (3,), (2,), (1,), (1,), (1,))
_pool((2, 3, 9), (1,), (1,), (0,), (0,), (1,))
_pool((1, 2, 7, 9), (3, 2), (2, 1), (1, 1), (1, 1), (1, 1))
_pool((1, 2, 7, 9), (3, 2), (2, 3), (0, 1), (2, 0), (1, 1))
_pool((1, 2, 7, 9), (3, 2), (1, 2), (1, 1), (1, 1), (2, 3))
_pool((1, 2, 4, 5, 6), (2, 2, 3), (2, 1, 2), (0, 1, 1), (0, 1, 1), (1, 1, 1))
_pool((0, 2, 7, 9), (3, 3), (2, 2), (1, 1), (1, 1), (1, 1))
_pool((1, 1, 1, 1), (1, 1), (1, 1), (0, 0), (0, 0), (1, 1))
LOWEST = {"kernel": (3,), "strides": (2,), "low": (1,), "high": (1,), "dilations": (1,)}
add(
    Case(
        "max_pool",
        [integers(-128, 0, 1, 2, 9, dtype=I8)],
        LOWEST,
        None,
        ("MaxPool", 12, {"kernel_shape": (3,), "strides": (2,), "pads": (1, 1)}),
        (I8,),
        (I8,),
    )
)
add(
    Case(
        "max_pool",
        [np.array([[[NAN, 1, 2, -INF, -INF, -INF, INF]]])],
        LOWEST,
        lambda x: F.max_pool1d(x, 3, 2, 1),
        note="special",
    )
)
for shape in ((2, 3, 5), (2, 3, 5, 4), (0, 2, 3), (1, 1, 1)):
    supported = (F32,) if 0 not in shape else ()
    axes = tuple(range(2, len(shape)))
    add(
        Case(
            "global_average_pool",
            [random(*shape)],
            {},
            lambda x, axes=axes: x.mean(axes, keepdim=True),
            ("GlobalAveragePool", 1, {}),
            onnx_dtypes=supported,
            loose=2,
        )
    )
    add(
        Case(
            "global_max_pool",
            [random(*shape)],
            {},
            lambda x, axes=axes: x.amax(axes, keepdim=True),
            ("GlobalMaxPool", 1, {}),
            onnx_dtypes=supported,
        )
    )
# -- recurrent layers ------------------------------------------------------------------------------------------

GATES = {"rnn": (0,), "lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}  # where torch has each of our gates


def _recurrent(op: str, reset_after: bool = True) -> Callable[..., tuple[torch.Tensor, ...]]:
    """torch's layer with our operands."""

    def run(x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, *initial: Any) -> tuple[torch.Tensor, ...]:
        def rearranged(weights: torch.Tensor) -> torch.Tensor:
            parts = weights.chunk(len(GATES[op]))
            return torch.cat([parts[GATES[op].index(gate)] for gate in range(len(parts))])

        count, hidden = r.shape[0], r.shape[2]
        layer = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[op](
            x.shape[2], hidden, bias=b is not None, bidirectional=count == 2, dtype=x.dtype)
        for index, suffix in enumerate(("", "_reverse")[:count]):
            given = {"weight_ih": w[index], "weight_hh": r[index]}
            given |= {} if b is None else dict(zip(("bias_ih", "bias_hh"), b[index].chunk(2), strict=True))
            for name, weights in given.items():
                getattr(layer, f"{name}_l0{suffix}").data = rearranged(weights)
        packed = x if lengths is None else torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        with torch.no_grad():
            y, last = layer(packed, (initial if op == "lstm" else initial[0]) if initial else None)
        if lengths is not None:
            y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=x.shape[0])
        y = y.reshape(*y.shape[:2], count, hidden).transpose(1, 2)
        return (y, *last) if op == "lstm" else (y, last)

    return run


for op, gates in (("rnn", 1), ("lstm", 4), ("gru", 3)):
    for count, steps in ((1, 1), (1, 5), (2, 4)):
        direction = {"direction": "bidirectional"} if count == 2 else {}
        after = {"reset_after": True} if op == "gru" else {}
        node = (op.upper(), 22, {"hidden_size": 6, **direction, **({"linear_before_reset": 1} if after else {})})
        x, w, r = random(steps, 3, 2), random(count, gates * 6, 2, scale=0.7), random(count, gates * 6, 6, scale=0.5)
        b, states = random(count, gates * 12, scale=0.3), [random(count, 3, 6, scale=i) for i in range(1, 3)]
        states = states if op == "lstm" else states[:1]
        whole = [x, w, r, b, np.array([1, steps, max(1, steps - 1)], np.int32), *states]
        for operands in ([x, w, r], [x, w, r, b], whole):
            add(Case(op, operands, {**direction, **after}, _recurrent(op), node, (F64, F32), (F32,), loose=10,
                     static={index: (0, 1, 2) for index in range(1, 7)}))
        if op == "gru":
            plain = ("GRU", 22, {"hidden_size": 6, **direction})
            add(Case(op, whole, direction, None, plain, (F32,), (F32,), loose=10, symbolic=False))
        backwards = {"direction": "reverse"}
        if count == 1:
            back = (op.upper(), 22, {**node[2], **backwards})
            add(Case(op, whole, {**backwards, **after}, None, back, (F32,), loose=10))
    one = [random(4, 3, 2), random(1, 6, 2), random(1, 6, 6)]
add(Case("rnn", one, {"activation": "relu"}, None, ("RNN", 22, {"hidden_size": 6, "activations": ["Relu"]}), (F32,)))
