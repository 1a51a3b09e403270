"""One case or more for every row of the ONNX backend's tables: an operation, operand types and element types."""

from __future__ import annotations

import math

from irc import ops
from irc.dtypes import F32, I8, I32, U8, by_name
from tests.onnx_backend_case_makers import (
    BS,
    FLOATS,
    IMAGE,
    INTEGERS,
    MOVED,
    NARROW_FLOATS,
    REALS,
    WITH_ZERO,
    B,
    Case,
    S,
    Z,
    binary,
    numbers,
    pooled,
    recurrent,
    reduction,
    same_upper,
    shift,
    unary,
)

CASES: dict[str, list[Case]] = {
    # Arithmetic.
    "add": [binary(ops.add), binary(lambda x: ops.add(x, 1), types=(Z,), sizes=WITH_ZERO)],
    "sub": [binary(ops.sub, low=0)],
    "mul": [binary(ops.mul, low=0, high=100)],
    "div": [
        binary(ops.div, f"{FLOATS} {INTEGERS}", low=1, high=100),
        binary(
            lambda x, y: ops.div(x, y, rounding="floor"),
            INTEGERS,
            ("$[3, 4]", "$[4]"),
            low=-7,
            high=7,
            given={1: [1, 2, 3, 5]},
        ),
        binary(
            lambda x, y: ops.div(x, y, rounding="floor"),
            "i64 i32 i16 i8 i4",
            ("$[3, 4]", "$[4]"),
            low=-7,
            high=7,
            given={1: [-1, 2, -3, 5]},
        ),
    ],
    "mod": [
        binary(
            lambda x, y, r=r: ops.mod(x, y, rounding=r), names, ("$[3, 4]", "$[4]"), low=-7, high=7, given={1: given}
        )
        for r in ("floor", "trunc")
        for names, given in ((f"f64 f32 bf16 {INTEGERS}", [1, 2, 3, 5]), ("f32 i64 i32 i16 i8 i4", [-1, 2, -3, 5]))
    ],
    "pow": [binary(ops.pow_, "f64 f32 f16 bf16", low=0.5, high=2), binary(ops.pow_, "i64 i32 i16 u8", low=0, high=3)],
    "minimum": [binary(ops.minimum, f"f64 f32 f16 bf16 {INTEGERS}")],
    "maximum": [binary(ops.maximum, f"f64 f32 f16 bf16 {INTEGERS}")],
    "neg": [unary(ops.neg, REALS)],
    "abs": [unary(ops.abs_, REALS)],
    "sign": [unary(ops.sign, REALS)],
    "floor": [unary(ops.floor, FLOATS)],
    "ceil": [unary(ops.ceil, FLOATS)],
    "round": [unary(ops.round_, FLOATS), Case(ops.round_, ("$[5]",), FLOATS, given={0: [0.5, 1.5, 2.5, -0.5, -1.5]})],
    "trunc": [
        unary(ops.trunc, FLOATS),
        Case(ops.trunc, ("$[5]",), FLOATS, given={0: [0.5, -1.5, math.inf, -math.inf, math.nan]}),
    ],
    "sqrt": [unary(ops.sqrt, FLOATS, low=0)],
    "exp": [unary(ops.exp, FLOATS)],
    "log": [unary(ops.log, FLOATS, low=0.1)],
    "sin": [unary(ops.sin, FLOATS)],
    "cos": [unary(ops.cos, FLOATS)],
    "tan": [unary(ops.tan, low=-1, high=1)],
    "asin": [unary(ops.asin, low=-1, high=1)],
    "acos": [unary(ops.acos, low=-1, high=1)],
    "atan": [unary(ops.atan)],
    "sinh": [unary(ops.sinh)],
    "cosh": [unary(ops.cosh)],
    "tanh": [unary(ops.tanh, FLOATS)],
    "asinh": [unary(ops.asinh)],
    "acosh": [unary(ops.acosh, low=1)],
    "atanh": [unary(ops.atanh, low=-0.9, high=0.9)],
    "erf": [unary(ops.erf)],
    "bitwise_and": [binary(ops.bitwise_and, f"{INTEGERS} bool", high=100)],
    "bitwise_or": [binary(ops.bitwise_or, f"{INTEGERS} bool", high=100)],
    "bitwise_xor": [binary(ops.bitwise_xor, f"{INTEGERS} bool", high=100)],
    "bitwise_not": [unary(ops.bitwise_not, f"{INTEGERS} bool")],
    "shift_left": shift(ops.shift_left),
    "shift_right": shift(ops.shift_right),
    **{
        name: [
            binary(
                getattr(ops, name),
                f"{REALS} bool" if ("equal" in name and "_" not in name) or name == "not_equal" else REALS,
            )
        ]
        for name in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
    },
    "is_nan": [Case(ops.is_nan, ("$[4]",), FLOATS, given={0: [1, math.nan, math.inf, -math.inf]})],
    "is_inf": [
        Case(
            lambda x, p=p, n=n: ops.is_inf(x, detect_positive=p, detect_negative=n),
            ("$[4]",),
            FLOATS,
            given={0: [1, math.nan, math.inf, -math.inf]},
        )
        for p, n in ((True, True), (True, False), (False, True))
    ],
    "select": [Case(ops.select, ("bool[B, S]", S, B), MOVED)],
    "cast": [
        Case(
            lambda x, to=to: ops.cast(x, to=by_name(to), saturate=False),
            (BS,),
            "f64 f32 f16 bf16 i64 i8 u8 bool",
            low=0,
        )
        for to in "f32 f16 bf16 i64 i32 i16 i8 u8 u32 bool i4 f8e4m3fn".split()
    ]
    + [
        Case(
            lambda x, to=to: ops.cast(x, to=by_name(to)),
            ("$[7]",),
            "f64 f32 f16 bf16",
            given={0: [-1e9, -1.5, 3.7, math.nan, math.inf, -math.inf, 300]},
        )
        for to in "i64 i32 i16 i8 u8 u16 u32 i4 u4 f8e4m3fn f8e5m2".split()
    ]
    + [Case(lambda x: ops.cast(ops.minimum(ops.maximum(x, 0), 255), to=U8), (BS,), "f32", low=-300, high=300)],
    "bitcast": [
        Case(lambda x: ops.bitcast(x, to=F32), ("i32[B]",)),
        Case(lambda x: ops.bitcast(x, to=I32), ("f32[B]",)),
        Case(lambda x: ops.bitcast(x, to=U8), ("i8[B]",)),
    ],
    # Reductions.
    "reduce_sum": reduction(ops.reduce_sum, REALS),
    "reduce_prod": reduction(ops.reduce_prod, f"f64 f32 {INTEGERS}"),
    "reduce_max": reduction(ops.reduce_max, "f64 f32 f16 bf16 i64 i32 i16 i8 u32 u8 bool"),
    "reduce_min": reduction(ops.reduce_min, "f64 f32 f16 bf16 i64 i32 i16 i8 u32 u8 bool"),
    "reduce_mean": reduction(ops.reduce_mean, "f64 f32 f16 bf16 i32 i64"),
    "reduce_l1": reduction(ops.reduce_l1, "f64 f32 bf16 i32 i64"),
    "reduce_l2": reduction(ops.reduce_l2, "f64 f32 bf16"),
    "reduce_sum_square": reduction(ops.reduce_sum_square, "f64 f32 bf16 i32 i64"),
    "reduce_log_sum": [Case(lambda x: ops.reduce_log_sum(x, axes=(1,)), (BS,), "f64 f32 bf16", low=1)],
    "log_sum_exp": reduction(ops.log_sum_exp, "f64 f32 bf16"),
    "argmax": [
        Case(lambda x, k=k: ops.argmax(x, axis=1, keep_dims=k), (BS,), "f64 f32 f16 bf16 i64 i32 i16 i8 u8 u32")
        for k in (False, True)
    ]
    + [Case(lambda x: ops.argmax(x, axis=0, select_last=True), (BS,), "f32 i32", low=0, high=1)],
    "argmin": [
        Case(lambda x, k=k: ops.argmin(x, axis=-1, keep_dims=k), (BS,), "f64 f32 i64 i32 u8") for k in (False, True)
    ],
    # Views.
    "reshape": [
        Case(lambda x: ops.reshape(x, shape=(x.shape[0] * x.shape[1],)), (Z,), MOVED, sizes=WITH_ZERO),
        Case(lambda x: ops.reshape(x, shape=(x.shape[0], 1, x.shape[1], 1)), (Z,), MOVED, sizes=WITH_ZERO),
        Case(lambda x: ops.reshape(x, shape=(x.shape[0], x.shape[2])), ("$[B, 1, S, 1]",), MOVED),
        Case(lambda x: ops.reshape(x, shape=(x.shape[0], 2, 3, x.shape[2])), ("$[B, 6, S]",)),
        Case(lambda x: ops.reshape(x, shape=(x.shape[0], x.shape[1] * 6)), ("$[B, S, 6]",)),
        Case(lambda x: ops.reshape(x, shape=(x.shape[0], x.shape[1] * 6)), ("$[B, ?S in (0, 9), 6]",), sizes=WITH_ZERO),
        Case(lambda x: ops.reshape(x, shape=(x.shape[1], x.shape[0])), (Z,), sizes=WITH_ZERO),
        Case(lambda x, y: ops.reshape(x, shape=(y.shape[1], y.shape[0], 2)), ("$[B, S, 2]", "$[B, S]")),
        Case(lambda x: ops.reshape(x, shape=(0, 7)), ("$[0, 4]",)),
        Case(lambda x: ops.reshape(x, shape=(x.shape[0], 0)), ("$[B, 0, 3]",)),
        Case(lambda x: ops.reshape(x, shape=(1, 1)), ("$[]",)),
        Case(lambda x: ops.reshape(x, shape=()), ("$[1, 1]",)),
        Case(lambda x: ops.reshape(x, shape=x.shape), (BS,)),
    ],
    "transpose": [Case(lambda x: ops.transpose(x, permutation=(2, 0, 1)), ("$[B, S, 3]",), f"{MOVED} f8e5m2")],
    "expand": [
        Case(lambda x, y: ops.expand(x, shape=(2, y.shape[0], y.shape[1], x.shape[2])), ("$[B, 1, T]", BS), MOVED),
        Case(lambda x: ops.expand(x, shape=(3, 4)), ("$[]",)),
        Case(lambda x: ops.expand(x, shape=x.shape), (BS,)),
    ],
    "slice": [
        Case(
            lambda x: ops.slice_(x, starts=(0, 1), stops=(x.shape[0], x.shape[1] - 1), steps=(1, 2)),
            (BS,),
            MOVED,
            sizes=({"B": 2, "S": 6}, {"B": 1, "S": 2}),
        ),
        Case(
            lambda x, y: ops.slice_(x, starts=(0, y.shape[0] - 1), stops=(x.shape[0], y.shape[0] + 1), steps=(1, 1)),
            ("$[B, 9]", "$[T]"),
        ),
        Case(lambda x: ops.slice_(x, starts=(0, 0), stops=x.shape, steps=(1, 1)), (BS,)),
    ],
    "reverse": [
        Case(lambda x: ops.reverse(x, axes=(0, -1)), (BS,), MOVED),
        Case(lambda x: ops.reverse(x, axes=()), (BS,)),
    ],
    "split": [
        Case(
            lambda x: ops.split(x, axis=1, sizes=(2, x.shape[1] - 2)),
            (BS,),
            MOVED,
            sizes=({"B": 2, "S": 5}, {"B": 1, "S": 2}),
        ),
        Case(lambda x: ops.split(x, axis=1, sizes=(x.shape[1],)), (BS,)),
    ],
    "concat": [
        Case(lambda x, y: ops.concat(x, y, axis=1), (BS, "$[B, T]"), MOVED),
        Case(lambda x: ops.concat(x, axis=0), (BS,)),
    ],
    "pad": [
        Case(lambda x: ops.pad(x, low=(1, 0), high=(0, 2)), (BS,), MOVED),
        Case(lambda x: ops.pad(x, 3, low=(1, 0), high=(0, 2)), (BS,), "f32 i32 bf16 i16"),
        Case(lambda x, y: ops.pad(x, low=(0, y.shape[0]), high=(0, 0)), (BS, "$[T]")),
        *(
            Case(
                lambda x, m=m: ops.pad(x, low=(1, 2), high=(1, 0), mode=m), (BS,), "f32 i64", sizes=({"B": 3, "S": 5},)
            )
            for m in ("edge", "reflect", "wrap")
        ),
        Case(lambda x: ops.pad(x, low=(0, 0), high=(0, 0)), (BS,)),
    ],
    "iota": [
        Case(lambda x, to=to: ops.add(ops.cast(ops.iota(shape=x.shape, axis=1, dtype=by_name(to)), to=F32), x), (BS,))
        for to in "f64 f32 f16 bf16 i64 i32 i16 i8 u8".split()
    ]
    + [
        Case(lambda x: ops.add(ops.iota(shape=(1, x.shape[1]), axis=1, dtype=F32), x), (BS,)),
        Case(lambda x: ops.add(ops.iota(shape=(3, 4), axis=0, dtype=F32), x), ("$[]",)),
        Case(lambda x: ops.add(ops.iota(shape=(3000,), axis=0, dtype=F32), x), ("$[]",)),
    ],
    "dim": [
        Case(lambda x: ops.dim(value=x.shape), (BS,)),
        Case(lambda x: ops.dim(value=(x.shape[1], 7, x.shape[0], x.shape[1], x.shape[2])), ("$[B, S, 3, T]",)),
        Case(lambda x: ops.dim(value=(x.shape[1] * 2 + 3 - x.shape[0], x.shape[0] // 2, x.shape[1] % 3)), (BS,)),
        Case(lambda x: (ops.dim(value=x.shape[0]), ops.dim(value=x.shape[0] * x.shape[1]), ops.dim(value=4)), (BS,)),
        Case(lambda x: ops.dim(value=(3, 4)), (BS,)),
    ],
    # Indexing.
    "gather": [
        Case(
            lambda x, i: ops.gather(x, i, axis=1),
            ("$[B, 5]", f"{index}[S, 2]"),
            MOVED if index == "i64" else "f32",
            low=0,
        )
        for index in ("i64", "i32", "u8")
    ]
    + [Case(lambda x, i: ops.gather(x, i, axis=-1), ("$[B, 5]", "i64[]"), given={1: -2})],
    "gather_elements": [Case(lambda x, i: ops.gather_elements(x, i, axis=1), ("$[B, 5]", "i64[B, S]"), MOVED, low=0)],
    "gather_nd": [
        Case(lambda x, i: ops.gather_nd(x, i), ("$[5, 6, S]", "i64[B, 2]"), MOVED, low=0),
        Case(lambda x, i: ops.gather_nd(x, i, batch_dims=1), ("$[B, 5, S]", "i32[B, 2, 1]"), low=0),
    ],
    "scatter": [
        Case(
            lambda x, i, u: ops.scatter(x, i, u),
            ("$[6, S]", "i64[3, 1]", "$[3, S]"),
            MOVED,
            given={1: [[0], [-1], [3]]},
        )
    ]
    + [
        Case(
            lambda x, i, u, r=r: ops.scatter(x, i, u, reduction=r),
            ("$[6, S]", "i64[3, 1]", "$[3, S]"),
            "f32 bf16 f16 i64 i8",
            given={1: [[0], [0], [3]]},
        )
        for r in ("add", "mul", "max", "min")
    ],
    "scatter_elements": [
        Case(
            lambda x, i, u: ops.scatter_elements(x, i, u, axis=0),
            ("$[6, 2]", "i64[3, 2]", "$[3, 2]"),
            MOVED,
            given={1: [[0, 1], [-1, 3], [3, 4]]},
        )
    ]
    + [
        Case(
            lambda x, i, u, r=r: ops.scatter_elements(x, i, u, axis=0, reduction=r),
            ("$[6, 2]", "i32[3, 2]", "$[3, 2]"),
            "f32 bf16 i64",
            given={1: [[0, 1], [0, 3], [3, 3]]},
        )
        for r in ("add", "mul", "max", "min")
    ],
    # Products.
    "dot": [
        Case(lambda x, y: ops.dot(x, y, contract=((1, 0),)), (BS, "$[S, T]"), f"f64 f32 f16 bf16 {INTEGERS}"),
        Case(lambda x, y: ops.dot(x, y, contract=((1, 1),)), (BS, "$[T, S]"), "f32 i32 f64 i8"),
        Case(lambda x, y: ops.dot(x, y, contract=((2, 0),)), ("$[B, 2, S]", "$[S, T]")),
        Case(lambda x, y: ops.dot(x, y, contract=((1, 0),)), (BS, S)),
        Case(lambda x, y: ops.dot(x, y, contract=((0, 0),)), (S, S)),
        Case(lambda x, y: ops.dot(x, y, contract=((0, 0),)), (S, "$[S, T]")),
        Case(
            lambda x, y: ops.dot(x, y, batch=((0, 0), (1, 1)), contract=((3, 3),)),
            ("$[B, 2, S, 4]", "$[B, 2, T, 4]"),
            "f32 bf16",
        ),
        Case(lambda x, y: ops.dot(x, y, batch=((1, 0),), contract=((0, 1),)), ("$[S, B, T]", "$[B, S, 3]")),
        Case(lambda x, y: ops.dot(x, y, contract=((1, 0), (2, 1))), ("$[B, S, 3]", "$[S, 3, T]"), "f32 i32 i8 bf16"),
        Case(lambda x, y: ops.dot(x, y, contract=()), (S, "$[T]")),
        Case(lambda x, y: ops.dot(x, y, batch=((0, 0),), contract=((2, 1),)), ("$[B, 2, S]", "$[B, S]")),
        Case(
            lambda x, y: ops.dot(
                ops.transpose(x, permutation=(0, 2, 1, 3)),
                ops.transpose(y, permutation=(0, 2, 1, 3)),
                batch=((0, 0), (1, 1)),
                contract=((3, 3),),
            ),
            ("$[B, S, 2, 4]", "$[B, T, 2, 4]"),
        ),
        Case(lambda x, y: ops.dot(x, y, contract=((1, 0),)), ("$[B, ?S in (0, 9)]", "$[S, 3]"), sizes=WITH_ZERO),
    ],
    "matmul": [
        Case(ops.matmul, ("$[B, 1, S, 4]", "$[2, 4, T]"), "f64 f32 f16 bf16 i32 i8"),
        Case(ops.matmul, (S, "$[B, S, T]")),
    ],
    "gemm": [
        Case(
            lambda a, b, c: ops.gemm(a, b, c, alpha=0.5, beta=2.0, transpose_a=True),
            ("$[S, B]", "$[S, T]", "$[T]"),
            "f64 f32 f16 bf16",
        ),
        Case(lambda a, b: ops.gemm(a, b, transpose_b=True), (BS, "$[T, S]"), "f32 i32"),
    ],
    "linear": [
        Case(ops.linear, (BS, "$[S, T]", "$[T]"), "f64 f32 f16 bf16"),
        Case(ops.linear, ("$[B, 2, S]", "$[S, T]", "$[T]")),
        Case(ops.linear, ("$[B, ?S in (0, 9)]", "$[S, 3]", "$[3]"), sizes=WITH_ZERO),
    ],
    "matmul_integer": [
        Case(ops.matmul_integer, (BS, "$[S, T]"), "u8 i8", low=0, high=100),
        Case(ops.matmul_integer, ("u8[B, S]", "$[S, 4]", "u8[]", "$[]"), "u8 i8", low=0, high=100),
        Case(ops.matmul_integer, ("u8[B, S]", "$[S, 4]", "u8[B]", "$[4]"), "i8", low=0, high=100),
    ],
    "conv": [
        Case(
            lambda x, w, b: ops.conv(x, w, b, strides=(2, 1), dilations=(1, 2), low=(1, 0), high=(0, 2), groups=2),
            (IMAGE, "$[6, 2, 2, 3]", "$[6]"),
            "f32 f16 bf16",
        ),
        Case(
            lambda x, w: ops.conv(x, w, strides=(1,), dilations=(1,), low=(0,), high=(0,)), ("$[B, 3, S]", "$[2, 3, 1]")
        ),
        Case(
            lambda x, w: ops.conv(x, w, strides=(2,), dilations=(1,), **same_upper(x.shape[2], 3, 2)),
            ("$[B, 3, S]", "$[2, 3, 3]"),
        ),
        Case(
            lambda x, w, y: ops.conv(x, w, strides=(1,), dilations=(1,), low=(y.shape[0],), high=(1,)),
            ("$[B, 3, S]", "$[2, 3, 2]", "$[T]"),
        ),
    ],
    "conv_transpose": [
        Case(
            lambda x, w, b: ops.conv_transpose(
                x, w, b, strides=(2, 1), dilations=(1, 2), low=(1, 0), high=(0, 1), output_padding=(1, 0), groups=2
            ),
            (IMAGE, "$[4, 3, 2, 3]", "$[6]"),
            "f32 f16 bf16",
            sizes=({"B": 2, "S": 3},),
        ),
    ],
    "window_reduce": [
        Case(
            lambda x, k=k: ops.window_reduce(
                x,
                kind=k,
                window=(1, 1, 3, 2),
                strides=(1, 1, 2, 1),
                dilations=(1, 1, 1, 2),
                low=(0, 0, 1, 3),
                high=(0, 0, 1, 0),
            ),
            (IMAGE,),
            names,
            sizes=({"B": 2, "S": 5},),
        )
        for k, names in (("max", "f64 f32 bf16 i32 i8 u8"), ("sum", "f32 bf16"))
    ]
    + [
        Case(
            lambda x, k=k: ops.window_reduce(
                x, kind=k, window=(2, 1, 3), strides=(1, 1, 1), dilations=(1, 1, 1), low=(0, 0, 1), high=(1, 0, 1)
            ),
            ("$[B, S, 6]",),
        )
        for k in ("max", "sum")
    ]
    + [
        Case(
            lambda x, k=k: ops.window_reduce(x, kind=k, window=(2,), strides=(1,), dilations=(1,), low=(1,), high=(0,)),
            ("$[S]",),
        )
        for k in ("max", "sum")
    ],
    "scan": [
        Case(
            lambda x, k=k, r=r, e=e: ops.scan(x, kind=k, axis=1, reverse=r, exclusive=e),
            ("$[B, S, 2]",),
            "f64 f32 bf16 i64 i32 i8 u8" if not r and not e else "f32",
            low=-2,
            high=2,
            again=k == "sum",
        )
        for k in ("sum", "prod", "max", "min")
        for r, e in ((False, False), (True, False), (False, True), (True, True))
    ],
    "sort": [
        Case(
            lambda x, d=d: ops.sort(x, axis=1, descending=d), (BS,), "f64 f32 f16 bf16 i64 i32 i16 u8 u32", again=False
        )
        for d in (False, True)
    ],
    # Named operations.
    **{
        name: [
            unary(
                getattr(ops, name),
                "f32 f16 bf16 f64" if name in ("sigmoid", "reciprocal", "relu") else NARROW_FLOATS,
                low=0.2,
            )
        ]
        for name in (
            "relu",
            "leaky_relu",
            "thresholded_relu",
            "elu",
            "selu",
            "celu",
            "sigmoid",
            "hard_sigmoid",
            "hard_swish",
            "softplus",
            "softsign",
            "mish",
            "reciprocal",
            "silu",
        )
    },
    "quick_gelu": [unary(ops.quick_gelu)],
    "gelu": [unary(ops.gelu), unary(lambda x: ops.gelu(x, approximate="tanh"))],
    "prelu": [binary(ops.prelu, NARROW_FLOATS)],
    "clip": [
        Case(lambda x: ops.clip(x, -1, 2), (BS,), "f64 f32 f16 bf16 i64 i32 i16 i8"),
        Case(ops.clip, (BS, S, "$[]"), "f32 i32"),
        Case(lambda x: ops.clip(x, None, 2), (BS,), "f32 u8"),
    ],
    "softmax": [
        Case(lambda x, a=a: ops.softmax(x, axis=a), (Z,), "f64 f32 f16 bf16", sizes=WITH_ZERO) for a in (-1, 0)
    ],
    "log_softmax": [Case(lambda x: ops.log_softmax(x, axis=1), (BS,), "f64 f32 f16 bf16")],
    "layer_norm": [
        Case(ops.layer_norm, ("$[B, S, 6]", "$[6]", "$[6]"), "f64 f32 f16 bf16"),
        Case(ops.layer_norm, ("$[B, S, 6]",)),
        Case(ops.layer_norm, (BS, S)),
        Case(ops.layer_norm, (BS,)),
        Case(lambda x, s: ops.layer_norm(x, s, axis=1), ("$[B, 2, 6]", "$[2, 6]")),
        Case(ops.layer_norm, ("$[B, S, 6]", "$[1]", "$[6]")),
    ],
    "rms_norm": [Case(ops.rms_norm, ("$[B, S, 6]", "$[6]"), "f64 f32 f16 bf16"), Case(ops.rms_norm, (BS,))],
    "batch_norm": [Case(ops.batch_norm, (IMAGE, *["$[4]"] * 4), "f64 f32 f16 bf16", low=0.5)],
    "instance_norm": [Case(ops.instance_norm, (IMAGE, "$[4]", "$[4]"), "f32 bf16"), Case(ops.instance_norm, (IMAGE,))],
    "group_norm": [
        Case(lambda *xs: ops.group_norm(*xs, groups=2), (IMAGE, "$[4]", "$[4]"), "f64 f32 bf16"),
        Case(lambda x: ops.group_norm(x, groups=2), (IMAGE,)),
    ],
    "lp_normalize": [
        Case(lambda x, p=p, e=e: ops.lp_normalize(x, p=p, epsilon=e), (BS,), "f64 f32 bf16")
        for p in (1, 2)
        for e in (0.0, 0.5)
    ],
    "max_pool": pooled(ops.max_pool, "f64 f32 bf16 i8"),
    "average_pool": pooled(ops.average_pool, "f32 bf16") + pooled(ops.average_pool, "f32", count_include_pad=True),
    "global_average_pool": [Case(ops.global_average_pool, (IMAGE,), "f64 f32 bf16")],
    "global_max_pool": [Case(ops.global_max_pool, (IMAGE,), "f64 f32 bf16 i32")],
    "quantize": [
        Case(
            lambda x, s, z, to=to: ops.quantize(x, s, z, to=by_name(to)),
            ("$[B, 4, S]", "$[4]", f"{to}[4]"),
            names,
            low=0.01,
            high=3,
        )
        for to, names in (("u8", "f32 f16 bf16"), ("i8", "f32"), ("i16", "f32"), ("i4", "f32"))
    ]
    + [
        Case(lambda x: ops.quantize(x, 0.02, to=I8), (BS,), "f32"),
        Case(lambda x: ops.quantize(x, 0.02, numbers(3, U8), to=U8), (BS,), "f32"),
        Case(lambda x: ops.quantize(x, 0.02, to=by_name("f8e4m3fn")), (BS,), "f32"),
    ],
    "matmul_packed": [
        Case(lambda x, w, s: ops.matmul_packed(x, w, s, bits=4, block=32), ("$[B, S, 64]", "u8[6, 2, 16]", "$[6, 2]"),
             "f32 f16 bf16", low=0),
        Case(lambda x, w, s, z: ops.matmul_packed(x, w, s, z, bits=4, block=16),
             ("$[B, 40]", "u8[6, 3, 8]", "$[6, 3]", "u8[6, 2]"), "f32", low=0),
        Case(lambda x, w, s: ops.matmul_packed(x, w, s, bits=2, block=8), ("$[B, 40]", "u8[6, 5, 2]", "$[6, 5]"),
             "f32", low=0),
    ],
    "dequantize": [
        Case(lambda x, s, z: ops.dequantize(x, s, z, axis=-2), ("$[B, 4, S]", "f32[4]", "$[4]"),
             "u8 i8 i16 u16 i4 u4 u32", low=0, high=90),
        Case(lambda x: ops.dequantize(x, numbers(0.02)), (BS,), "i8 i32 f8e4m3fn"),
        Case(lambda x, s: ops.dequantize(x, s, axis=0), ("$[3, S]", "f16[3]"), "i8"),
        Case(lambda x, s, z: ops.dequantize(x, s, z, axis=-1, block=4), ("$[B, 8]", "f32[B, 2]", "$[B, 2]"), "i8 u8",
             low=0, high=90),
        Case(lambda x, s: ops.dequantize(x, s, axis=0, block=4), ("$[6, S]", "f16[2, S]"), "i8"),
        Case(lambda x, s: ops.dequantize(x, s), ("i8[B, S]", "$[1]"), "f32 f64 bf16"),
    ],
    "dynamic_quantize": [Case(ops.dynamic_quantize, (BS,), "f32 f16")],
    "depth_to_space": [
        Case(lambda x, m=m: ops.depth_to_space(x, block=2, mode=m), ("$[B, 8, S, 3]",), "f32 i8 i32")
        for m in ("DCR", "CRD")
    ],
    "space_to_depth": [
        Case(lambda x, m=m: ops.space_to_depth(x, block=2, mode=m), ("$[B, S, 6, 4]",), "f32 i8 i32")
        for m in ("DCR", "CRD")
    ],
    "tile": [Case(lambda x, y: ops.tile(x, repeats=(2, y.shape[0])), (BS, "$[T]"), "f32 bool bf16 i16")],
    "trilu": [
        Case(lambda x, u=u, k=k: ops.trilu(x, upper=u, k=k), (BS,), "f64 f32 i64 bool i8")
        for u, k in ((True, 0), (False, 1), (True, -1))
    ],
    "one_hot": [
        Case(lambda i, v: ops.one_hot(i, v, depth=4), (f"{t}[B, S]", "$[2]"), "f32 i64 i32", low=-5, high=5)
        for t in ("i64", "i32", "u8")
    ]
    + [Case(lambda i, v: ops.one_hot(i, v, depth=i.shape[0], axis=0), ("i64[B]", "$[2]"))],
    "top_k": [
        Case(lambda x, a=a, big=big: ops.top_k(x, k=1, axis=a, largest=big), (BS,), "f64 f32 i64 i32 u32", again=False)
        for a, big in ((1, True), (0, False))
    ],
    "grid_sample": [
        Case(lambda x, g, m=m, p=p, a=a: ops.grid_sample(x, g, mode=m, padding=p, align_corners=a),
             (IMAGE, "$[B, 4, 5, 2]"), "f32 f16 bf16 f64", sizes=({"B": 2, "S": 5},))
        for m in ("linear", "nearest", "cubic") for p in ("zeros", "border", "reflection") for a in (False, True)
    ],
    "resize": [
        Case(
            lambda x, c=c, n=n: ops.resize(x, sizes=(x.shape[0], 4, 7, x.shape[3]), coordinates=c, nearest=n),
            (IMAGE,),
            "f32",
            sizes=({"B": 2, "S": 5},),
        )
        for c, n in (("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"), ("align_corners", "ceil"))
    ]
    + [
        Case(
            lambda x, m=m: ops.resize(x, scales=(1.0, 1.0, 2.0, 0.5), mode=m),
            (IMAGE,),
            "f32 f16 bf16",
            sizes=({"B": 2, "S": 5},),
        )
        for m in ("nearest", "linear", "cubic")
    ]
    + [
        Case(
            lambda x: ops.resize(
                x, sizes=(x.shape[0], 4, x.shape[2] * 2, 3), mode="linear", coordinates="pytorch_half_pixel"
            ),
            (IMAGE,),
            sizes=({"B": 2, "S": 5},),
        ),
        Case(lambda x: ops.resize(x, scales=(2.0, 1.0), mode="linear"), (BS,)),
        Case(lambda x: ops.resize(x, scales=(1.0, 1.0), mode="linear"), (BS,)),
        Case(lambda x: ops.resize(x, scales=(1.0, 3.0), mode="nearest"), (BS,), "f32 i32 u8 i64"),
    ],
    "attention": [
        Case(lambda q, k, v: ops.attention(q, k, v), ("$[B, 2, S, 4]", "$[B, 2, T, 4]", "$[B, 2, T, 3]"), "f32 bf16",
             low=-1, high=1),
        Case(lambda q, k, v: ops.attention(q, k, v, causal=True, scale=0.3),
             ("$[B, 4, S, 4]", "$[B, 2, T, 4]", "$[B, 2, T, 3]"), low=-1, high=1),
        Case(lambda q, k, v, m: ops.attention(q, k, v, m, masked_rows="zero"),
             ("$[B, 2, S, 4]", *["$[B, 2, T, 4]"] * 2, "bool[B, 1, S, T]"), low=-1, high=1),
        Case(lambda q, k, v, m: ops.attention(q, k, v, m), ("$[B, 2, S, 4]", *["$[B, 2, T, 4]"] * 2, "$[B, 1, 1, T]"),
             low=-1, high=1),
    ],
    "attention_rows": [
        Case(lambda q, k, v: ops.attention_rows(q, k, v, heads=4, groups=2),
             ("$[B, S, 16]", "$[B, T, 8]", "$[B, T, 6]"), low=-1, high=1),
        Case(lambda q, k, v, m: ops.attention_rows(q, k, v, m, heads=2, groups=2, masked_rows="zero"),
             ("$[B, S, 8]", "$[B, T, 8]", "$[B, T, 6]", "bool[B, 1, S, T]"), low=-1, high=1),
    ],
    "cached_attention": [
        Case(lambda q, k, v, a, b: ops.cached_attention(q, k, v, a, b, heads=4, groups=2),
             ("$[B, S, 16]", "$[B, T, 8]", "$[B, T, 6]", "$[B, 2, S, 4]", "$[B, 2, S, 3]"), "f32 f16", low=-1, high=1),
        Case(lambda q, k, v, a, b, m: ops.cached_attention(q, k, v, a, b, m, heads=2, groups=2, masked_rows="zero"),
             ("$[B, S, 8]", "$[B, 2, 8]", "$[B, 2, 6]", "$[B, 2, 3, 4]", "$[B, 2, 3, 3]", "bool[B, 1, S, 5]"),
             low=-1, high=1),
    ],
    "rotary_rows": [Case(lambda x, c, s: ops.rotary_rows(x, c, s, heads=2), ("$[B, S, 8]", *["$[B, S, 2]"] * 2))],
    "rnn": recurrent(ops.rnn, 1) + recurrent(ops.rnn, 1, activation="relu"),
    "lstm": recurrent(ops.lstm, 4),
    "gru": recurrent(ops.gru, 3) + recurrent(ops.gru, 3, reset_after=True),
}
