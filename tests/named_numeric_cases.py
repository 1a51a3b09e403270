"""Cases of named operations: activations, reductions, normalizations, products, attention."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from irc.dtypes import BF16, F16, F32, F64, I8, I32, I64, U8
from tests.named_cases import FLOATS, INF, NAN, SPECIAL, Array, Case, integers, random

CASES: list[Case] = []
add = CASES.append


# -- activations -----------------------------------------------------------------------------------------------

def _activation(
    op: str, torch_function: Any, node: tuple[Any, ...] | None, special: Array = SPECIAL, **attributes: Any
) -> None:
    for inputs in (random(3, 5), random(0, 3), random(1)):
        add(Case(op, [inputs], attributes, torch_function, node))
    if torch_function is not None:
        add(Case(op, [special], attributes, torch_function, each=True, note="special"))
    if node is not None:
        coarse = special[~(np.abs(special) == 1e-3)]  # ONNX Runtime writes exp(x) - 1 and loses digits there
        add(Case(op, [coarse], attributes, None, node, (F32,), each=True, note="special-onnx"))


NO_NAN = SPECIAL[~np.isnan(SPECIAL)]
_activation("expm1", torch.expm1, None)
_activation("log1p", torch.log1p, None)
_activation("reciprocal", torch.reciprocal, ("Reciprocal", 13, {}))
_activation("rsqrt", torch.rsqrt, None)
_activation("square", torch.square, None)
_activation("relu", F.relu, ("Relu", 14, {}), special=NO_NAN)
_activation("relu", F.relu, None)
_activation("leaky_relu", partial(F.leaky_relu, negative_slope=0.3), ("LeakyRelu", 16, {"alpha": 0.3}), alpha=0.3)
_activation("elu", partial(F.elu, alpha=0.7), ("Elu", 6, {"alpha": 0.7}), alpha=0.7)
_activation("selu", F.selu, ("Selu", 6, {}))
_activation("celu", partial(F.celu, alpha=0.7), ("Celu", 12, {"alpha": 0.7}), alpha=0.7)
_activation("sigmoid", torch.sigmoid, ("Sigmoid", 13, {}))
_activation("silu", F.silu, None)
_activation("quick_gelu", lambda x: x * torch.sigmoid(1.702 * x), None)
_activation("hard_sigmoid", F.hardsigmoid, None, alpha=1 / 6)
_activation(
    "hard_sigmoid", lambda x: (0.3 * x.double() + 0.4).clamp(0, 1).to(x.dtype),
    ("HardSigmoid", 6, {"alpha": 0.3, "beta": 0.4}), alpha=0.3, beta=0.4,
)  # fmt: skip
_activation("hard_swish", F.hardswish, ("HardSwish", 14, {}))
_activation("hard_swish", F.hardswish, None, division="last")
_activation("softplus", F.softplus, ("Softplus", 1, {}))
_activation("softsign", F.softsign, ("Softsign", 1, {}))
_activation("mish", F.mish, ("Mish", 18, {}))
_activation("gelu", None, ("Gelu", 20, {}))
_activation("gelu", F.gelu, None, special=SPECIAL[SPECIAL != INF])  # torch's vectors give NaN at inf, its tails inf
_activation("gelu", partial(F.gelu, approximate="tanh"), ("Gelu", 20, {"approximate": "tanh"}), approximate="tanh")
_activation(
    "thresholded_relu", lambda x: torch.where(x > 0.5, x, 0), ("ThresholdedRelu", 10, {"alpha": 0.5}), alpha=0.5
)
# No digits are lost where the result is small.
TINY = np.array([1e-3, -1e-3, 1e-5, -1e-5, 0.3, -0.3, 0.49, 0.51, -0.51])
add(Case("expm1", [TINY], {}, torch.expm1, each=True, note="tiny"))
add(Case("log1p", [TINY], {}, torch.log1p, each=True, note="tiny"))
add(Case("elu", [TINY], {}, F.elu, each=True, note="tiny"))
add(Case("softplus", [np.array([-8.0, -12.0, -16.0, 3.0, 30.0])], {}, F.softplus, each=True, note="tails"))
add(Case("relu", [integers(-9, 9, 4, 3, dtype=I32)], {}, F.relu, ("Relu", 14, {}), (I32,), (I32,)))
add(Case("square", [integers(-9, 9, 4, 3)], {}, torch.square, None, (I64,)))
ROW = random(3, 5)
CLIP = ("Clip", 13, {})
add(Case("clip", [ROW, np.array(-0.5), np.array(0.7)], {}, torch.clamp, CLIP, onnx_dtypes=(F64, F32, F16)))
add(Case("clip", [ROW, np.array(0.7), np.array(-0.5)], {}, torch.clamp, CLIP))
add(Case("clip", [ROW, None, np.array(0.7)], {}, torch.clamp, CLIP))
add(Case("clip", [ROW, np.array(-0.5)], {}, torch.clamp, CLIP))
add(Case("clip", [SPECIAL, np.array(-0.5), np.array(50.0)], {}, torch.clamp, each=True))
add(Case("clip", [ROW, random(5) - 1, random(3, 1) + 2], {}, torch.clamp))
add(Case("clip", [integers(-9, 9, 4, 3), np.array(-2), np.array(5)], {}, torch.clamp, CLIP, (I64,), (I64,)))
add(Case("prelu", [random(2, 3, 4), random(3, 1)], {}, lambda x, s: F.prelu(x, s[:, 0]), ("PRelu", 16, {})))
add(Case("prelu", [random(2, 3, 4), random(1)], {}, F.prelu, ("PRelu", 16, {}), onnx_dtypes=(F64, F32)))
add(Case("prelu", [SPECIAL, np.array([0.25])], {}, F.prelu, ("PRelu", 16, {}), each=True, loose=2))


# -- reductions, softmax, norms --------------------------------------------------------------------------------

def _reduction(op: str, torch_function: Any, node: str, positive: bool = False) -> None:
    for shape, axes in (
        ((3, 5, 7), (1,)),
        ((3, 5, 7), (-1, 0)),
        ((2, 3), (0, 1)),
        ((4,), (0,)),
        ((0, 3), (1,)),
        ((1, 1), (1,)),
    ):
        for keep in (False, True):
            inputs = np.abs(random(*shape)) if positive else random(*shape)
            add(
                Case(
                    op, [inputs], {"axes": axes, "keep_dims": keep}, partial(torch_function, axes=axes, keep=keep),
                    (node, 18, {"keepdims": int(keep)}, lambda x, axes=axes: [x, np.array(axes)]),
                    onnx_dtypes=(F64, F32) if inputs.size else (), loose=2,
                )
            )  # fmt: skip


def _wide(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """In f64, rounded to the operand's type."""
    return lambda x, axes, keep: function(x.double(), axes, keep).to(x.dtype)


_reduction("reduce_mean", lambda x, axes, keep: x.mean(axes, keepdim=keep), "ReduceMean")
_reduction("reduce_sum_square", _wide(lambda x, axes, keep: (x * x).sum(axes, keepdim=keep)), "ReduceSumSquare")
_reduction("reduce_l1", _wide(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)), "ReduceL1")
_reduction("reduce_l2", _wide(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep)), "ReduceL2")
_reduction(
    "reduce_log_sum", _wide(lambda x, axes, keep: x.sum(axes, keepdim=keep).log()), "ReduceLogSum", positive=True
)
_reduction("log_sum_exp", lambda x, axes, keep: torch.logsumexp(x, axes, keep), "ReduceLogSumExp")
add(Case("reduce_mean", [random(3, 0)], {"axes": (1,)}, lambda x: x.mean(1), note="empty"))
add(
    Case(
        "reduce_mean",
        [integers(-9, 9, 3, 5, dtype=I32)],
        {"axes": (1,)},
        None,
        ("ReduceMean", 18, {"keepdims": 0}, lambda x: [x, np.array([1])]),
        (I32,),
        (I32,),
    )
)
ROWS = np.array([[-INF] * 3, [-INF, 0, 1], [INF, 0, 1], [NAN, 0, 1], [1e4, -1e4, 1e4], [-60000, 0, 1]])
add(Case("log_sum_exp", [ROWS], {"axes": (1,)}, lambda x: x.logsumexp(1), note="rows"))
add(Case("log_sum_exp", [random(3, 0)], {"axes": (1,)}, lambda x: x.logsumexp(1), note="empty"))
for name, function, node in (("softmax", F.softmax, "Softmax"), ("log_softmax", F.log_softmax, "LogSoftmax")):
    for shape, axis in (
        ((3, 7), -1),
        ((3, 5, 2), 1),
        ((4, 1), -1),
        ((5,), 0),
        ((0, 3), 1),
        ((3, 0), 1),
        ((33, 1000), -1),
    ):
        add(
            Case(
                name, [random(*shape)], {"axis": axis}, partial(function, dim=axis), (node, 13, {"axis": axis}),
                onnx_dtypes=(F64, F32) if 0 not in shape else (), loose=2,
            )
        )  # fmt: skip
    add(Case(name, [ROWS], {"axis": -1}, partial(function, dim=-1), (node, 13, {"axis": -1}), note="rows"))


def _layer_norm(x: Any, scale: Any = None, bias: Any = None, axis: int = -1, epsilon: float = 1e-5) -> torch.Tensor:
    return F.layer_norm(x, x.shape[axis:], scale, bias, epsilon)


NORM = ("LayerNormalization", 17, {"axis": -1, "epsilon": 1e-5})
for x in (random(2, 3, 8), random(5, 7), random(0, 4), random(3, 1), random(4) + 1000, random(2, 3, 999)):
    parameters = random(x.shape[-1], scale=1), random(x.shape[-1], scale=0.5)
    offset = 30.0 if abs(x.mean() if x.size else 0) > 500 else 1.0  # f32 keeps few digits of 1000 ± 2
    exact = FLOATS if offset == 1 and x.shape[-1] > 1 else (F64, F32)  # torch's f16 and bf16 do not give 0 for one
    add(Case("layer_norm", [x, *parameters], {}, _layer_norm, NORM, exact, (F32,) if x.size else (), loose=4 * offset))
    add(Case("layer_norm", [x], {}, _layer_norm, dtypes=exact, loose=4 * offset))
    add(
        Case(
            "layer_norm",
            [x, parameters[0]],
            {},
            _layer_norm,
            NORM,
            exact,
            (F64, F32) if x.size else (),
            loose=4 * offset,
        )
    )
add(
    Case(
        "layer_norm", [random(2, 3, 5), random(3, 5), random(3, 5, scale=1)], {"axis": 1, "epsilon": 0.1},
        partial(_layer_norm, axis=1, epsilon=0.1), ("LayerNormalization", 17, {"axis": 1, "epsilon": 0.1}), loose=4,
    )
)  # fmt: skip
add(Case("layer_norm", [np.array([[1.0, 1, 1], [NAN, 1, 2], [INF, 1, 2]])], {}, _layer_norm, note="rows"))


def _rms_norm(x: Any, scale: Any = None, axis: int = -1, epsilon: float = 1e-5) -> torch.Tensor:
    return F.rms_norm(x, x.shape[axis:], scale, epsilon)


for x in (random(2, 3, 8), random(0, 4), random(3, 1)):
    node = ("RMSNormalization", 23, {"axis": -1, "epsilon": 1e-5})
    add(Case("rms_norm", [x, random(x.shape[-1])], {}, _rms_norm, node, onnx_dtypes=(F32,) if x.size else (), loose=3))
    add(Case("rms_norm", [x], {"epsilon": 0.1}, partial(_rms_norm, epsilon=0.1), loose=3))
add(Case("rms_norm", [random(2, 3, 5), random(3, 5)], {"axis": 1}, partial(_rms_norm, axis=1), loose=3))
for shape in ((2, 3), (2, 3, 5, 4), (0, 3, 2), (1, 1, 1)):
    four = [random(shape[1], scale=i + 1) for i in range(3)]
    add(
        Case(
            "batch_norm", [random(*shape), *four, np.abs(random(shape[1])) + 0.1], {"epsilon": 2**-7},
            lambda x, s, b, m, v: F.batch_norm(x, m, v, s, b, eps=2**-7),
            ("BatchNormalization", 15, {"epsilon": 2**-7}),
            onnx_dtypes=(F64, F32) if 0 not in shape else (), loose=4,
        )
    )  # fmt: skip
for shape in ((2, 3, 5), (2, 3, 5, 4), (2, 1, 3, 2, 2)):
    parameters = random(shape[1]), random(shape[1], scale=1)
    node = ("InstanceNormalization", 6, {"epsilon": 1e-5})
    add(
        Case(
            "instance_norm",
            [random(*shape), *parameters],
            {},
            lambda x, s, b: F.instance_norm(x, weight=s, bias=b),
            node,
            loose=6,
        )
    )
    add(Case("instance_norm", [random(*shape)], {"epsilon": 0.1}, lambda x: F.instance_norm(x, eps=0.1), loose=4))
for shape, groups in (((2, 6, 5), 3), ((2, 6, 5, 4), 2), ((3, 4), 2), ((2, 4, 3), 1), ((2, 4, 3), 4), ((0, 4, 3), 2)):
    parameters = random(shape[1]), random(shape[1], scale=1)
    node = ("GroupNormalization", 21, {"epsilon": 0.01, "num_groups": groups})
    add(
        Case(
            "group_norm", [random(*shape), *parameters], {"groups": groups, "epsilon": 0.01},
            lambda x, s, b, groups=groups: F.group_norm(x, groups, s, b, 0.01), node,
            onnx_dtypes=(F32,) if 0 not in shape and len(shape) > 2 else (), static={0: (1,)}, loose=6,
        )
    )  # fmt: skip
add(Case("group_norm", [random(2, 6, 5)], {"groups": 3}, lambda x: F.group_norm(x, 3), static={0: (1,)}, loose=4))
WITH_ZEROS = np.array([[3.0, -4, 0], [0, 0, 0], [1, 1, 1]])
for p in (1, 2):
    node = ("LpNormalization", 22, {"p": p, "axis": -1})
    add(
        Case(
            "lp_normalize",
            [random(3, 5)],
            {"p": p},
            lambda x, p=p: F.normalize(x, p, -1),
            node,
            onnx_dtypes=(F64, F32),
            loose=2,
        )
    )
    add(Case("lp_normalize", [random(3, 5)], {"p": p, "axis": 0}, lambda x, p=p: F.normalize(x, p, 0), loose=2))
    add(
        Case(
            "lp_normalize",
            [WITH_ZEROS],
            {"p": p},
            lambda x, p=p: F.normalize(x, p, -1),
            node,
            (F64, F32, BF16),
            loose=2,
        )
    )
    add(
        Case("lp_normalize", [WITH_ZEROS], {"p": p, "epsilon": 4.5}, lambda x, p=p: F.normalize(x, p, -1, 4.5), loose=2)
    )
# -- products --------------------------------------------------------------------------------------------------

for a, b in (
    ((4,), (4,)), ((4,), (4, 5)), ((3, 4), (4,)), ((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)),
    ((4,), (2, 6, 4, 5)), ((2, 6, 3, 4), (4,)), ((2, 6, 3, 4), (2, 6, 4, 5)), ((2, 1, 3, 4), (1, 6, 4, 5)),
    ((2, 6, 3, 4), (6, 4, 5)), ((2, 6, 3, 4), (2, 1, 4, 5)), ((7, 1, 2, 3, 4), (6, 1, 4, 5)), ((1, 3, 4), (1, 4, 5)),
    ((3, 0), (0, 5)), ((0, 4), (4, 5)), ((2, 0, 3, 4), (4, 5)), ((1, 1), (1, 1)), ((9, 301), (301, 7)),
):  # fmt: skip
    supported = (F64, F32) if 0 not in (*a, *b) else ()
    add(Case("matmul", [random(*a), random(*b)], {}, torch.matmul, ("MatMul", 13, {}), onnx_dtypes=supported, loose=3))
for pair in ((integers(-99, 99, 2, 3, 4), integers(-99, 99, 4, 5)), (integers(-99, 99, 4), integers(-99, 99, 4))):
    add(Case("matmul", pair, {}, torch.matmul, ("MatMul", 13, {}), (I64,), (I64,)))
for ta, tb, alpha, beta in (
    (False, False, 1.0, 1.0),
    (True, False, 0.5, 1.0),
    (False, True, 1.0, 0.25),
    (True, True, 0.5, 2.0),
):
    a, b = random(*((4, 3) if ta else (3, 4))), random(*((5, 4) if tb else (4, 5)))
    settings = {"alpha": alpha, "beta": beta, "transpose_a": ta, "transpose_b": tb}
    node = ("Gemm", 13, {"alpha": alpha, "beta": beta, "transA": int(ta), "transB": int(tb)})

    def _gemm(a: Any, b: Any, c: Any = None, alpha=alpha, beta=beta, ta=ta, tb=tb) -> torch.Tensor:
        product = alpha * ((a.T if ta else a).double() @ (b.T if tb else b).double())
        return (product if c is None else product + beta * c.double()).to(a.dtype)

    for c in (None, random(5), random(3, 1), random(3, 5), np.array(0.5)):
        add(Case("gemm", [a, b, c], settings, _gemm, node, onnx_dtypes=(F64, F32), loose=3))
add(Case("gemm", [random(3, 0), random(0, 5), random(5)], {}, lambda a, b, c: torch.addmm(c, a, b)))
for shape in ((4,), (3, 4), (2, 0, 4), (2, 3, 4), (2, 3, 0)):
    operands = [random(*shape), random(shape[-1], 5), random(5)]
    add(Case("linear", operands, {}, lambda x, w, b: F.linear(x, w.mT, b), loose=3))
    for bias in (None, operands[2]):
        add(Case("split_linear", [*operands[:2], bias], {"sizes": (2, 0, 3)}, lambda x, w, b=None: torch.split(
            F.linear(x, w.mT, b), (2, 0, 3), -1), loose=3))
MATMUL_INTEGER = ("MatMulInteger", 10, {})
for x, y, x_zero, y_zero in (
    (integers(0, 128, 3, 4, dtype=U8), integers(-128, 128, 4, 5, dtype=I8), None, None),
    (integers(0, 128, 3, 4, dtype=U8), integers(-128, 128, 4, 5, dtype=I8), np.uint8(7), integers(-9, 9, 5, dtype=I8)),
    (integers(0, 256, 3, 4, dtype=U8), integers(-128, 128, 4, 5, dtype=I8), None, None),
    (integers(0, 256, 2, 3, 4, dtype=U8), integers(0, 256, 4, 5, dtype=U8), np.uint8(117), np.uint8(3)),
    (integers(0, 256, 3, 4, dtype=U8), integers(-128, 128, 4, 5, dtype=I8), np.uint8(7), integers(-9, 9, 5, dtype=I8)),
    (integers(0, 256, 3, 4, dtype=U8), integers(0, 256, 4, 5, dtype=U8), integers(0, 9, 3, dtype=U8), np.uint8(255)),
):

    def _matmul_integer(x: Any, y: Any, x_zero: Any = None, y_zero: Any = None) -> torch.Tensor:
        x, y = x.to(torch.int32), y.to(torch.int32)
        if x_zero is not None:
            x = x - (x_zero.to(torch.int32)[:, None] if x_zero.ndim else x_zero.to(torch.int32))
        return x @ (y if y_zero is None else y - y_zero.to(torch.int32))

    # ONNX Runtime's CPU kernel takes a zero point of x for the whole of x only. On processors without VNNI it adds two
    # products of u8 and i8 in 16 bits, and saturates where they do not fit: PyTorch alone is asked there.
    saturates = y.dtype == np.int8 and int(x.max()) > 127
    node = None if saturates or (x_zero is not None and np.ndim(x_zero)) else MATMUL_INTEGER
    add(Case("matmul_integer", [x, y, x_zero, y_zero], {}, _matmul_integer, node, (I32,), (I32,)))


# -- attention -------------------------------------------------------------------------------------------------

def attention(
    q: Any, k: Any, v: Any, mask: Any = None, scale: float | None = None, causal: bool = False, masked_rows: str = "nan"
) -> torch.Tensor:
    """In f64, decomposed."""
    shared = q.shape[1] // k.shape[1]
    wide_k, wide_v = (t.double().repeat_interleave(shared, dim=1) for t in (k, v))
    scores = q.double() @ wide_k.mT * (q.shape[3] ** -0.5 if scale is None else scale)
    if mask is not None:
        scores = torch.where(mask, scores, -INF) if mask.dtype is torch.bool else scores + mask.double()
    if causal:
        scores = torch.where(torch.ones(scores.shape[2:], dtype=torch.bool).tril(), scores, -INF)
    weights = scores.softmax(-1)
    if masked_rows == "zero":
        weights = torch.where(scores.amax(-1, keepdim=True) == -INF, 0, weights)
    elif masked_rows == "nan_as_zero":
        weights = weights.nan_to_num(0)
    return (weights @ wide_v).to(q.dtype)


def _attend(
    heads: int, groups: int, queries: int, keys: int, mask: Any = None, onnx_too: bool = True, **attributes: Any
) -> None:
    q, k, v = random(2, heads, queries, 8), random(2, groups, keys, 8, scale=1), random(2, groups, keys, 5)
    node = None
    if onnx_too:
        settings = {"is_causal": int(attributes.get("causal", False))}
        if attributes.get("scale") is not None:
            settings["scale"] = attributes["scale"]
        node = ("Attention", 23, settings)
    function = partial(attention, **attributes)
    add(Case("attention", [q, k, v, mask], attributes, function, node, static={0: (1,), 1: (1,), 2: (1,)}, loose=4))


def _attend_to_rows(heads: int, groups: int, queries: int, keys: int, mask: Any = None, **attributes: Any) -> None:
    q, k, v = random(2, queries, heads * 8), random(2, keys, groups * 8, scale=1), random(2, keys, groups * 5)
    settings = {"q_num_heads": heads, "kv_num_heads": groups, "is_causal": int(attributes.get("causal", False))}
    node = ("Attention", 23, settings) if mask is None else None

    def function(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any = None) -> torch.Tensor:
        apart = (x.unflatten(2, (count, -1)).transpose(1, 2) for x, count in ((q, heads), (k, groups), (v, groups)))
        return attention(*apart, mask, **attributes).transpose(1, 2).flatten(2)

    add(Case("attention_rows", [q, k, v, mask], {"heads": heads, "groups": groups, **attributes}, function, node,
             static={0: (2,), 1: (2,), 2: (2,)}, loose=4))  # fmt: skip


_attend_to_rows(3, 3, 7, 11)
_attend_to_rows(6, 2, 7, 7, causal=True)
_attend_to_rows(3, 3, 7, 11, random(2, 1, 7, 11), scale=0.25)


def _attend_to_cache(heads: int, groups: int, queries: int, past: int, keys: int, mask: Any = None,
                     **attributes: Any) -> None:  # fmt: skip
    q, k, v = random(2, queries, heads * 8), random(2, keys, groups * 8, scale=1), random(2, keys, groups * 5)
    caches = random(2, groups, past, 8), random(2, groups, past, 5)
    settings = {"q_num_heads": heads, "kv_num_heads": groups}
    node = ("Attention", 23, settings, lambda q, k, v, past_k, past_v, _: (q, k, v, None, past_k, past_v))

    def function(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, past_k: torch.Tensor, past_v: torch.Tensor,
                 mask: Any = None) -> tuple[torch.Tensor, ...]:  # fmt: skip
        q, k, v = (x.unflatten(2, (n, -1)).transpose(1, 2) for x, n in ((q, heads), (k, groups), (v, groups)))
        k, v = torch.cat((past_k, k), 2), torch.cat((past_v, v), 2)
        return attention(q, k, v, mask, **attributes).transpose(1, 2).flatten(2), k, v

    add(Case("cached_attention", [q, k, v, *caches, mask], {"heads": heads, "groups": groups, **attributes}, function,
             node if mask is None else None, static={0: (2,), 1: (2,), 2: (2,), 3: (1, 3), 4: (1, 3)},
             loose=4))  # fmt: skip


_attend_to_cache(6, 2, 1, 11, 1)
_attend_to_cache(3, 3, 2, 0, 5)
_attend_to_cache(3, 3, 4, 7, 4, random(2, 1, 4, 11), scale=0.25)


def _turn_rows(heads: int, depth: int) -> None:
    def function(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        apart, (c, s) = x.double().unflatten(2, (heads, depth)), (t.double().unsqueeze(2) for t in (cos, sin))
        first, second = apart.chunk(2, dim=-1)
        return torch.cat((first * c - second * s, second * c + first * s), -1).flatten(2).to(x.dtype)

    angles = random(2, 7, depth // 2), random(2, 7, depth // 2)
    node = ("RotaryEmbedding", 23, {"num_heads": heads})
    add(Case("rotary_rows", [random(2, 7, heads * depth), *angles], {"heads": heads}, function, node,
             static={0: (2,), 1: (2,), 2: (2,)}))  # fmt: skip


_turn_rows(3, 8)
_turn_rows(1, 2)
_attend(3, 3, 7, 7)
_attend(3, 3, 7, 11, scale=0.25)
_attend(6, 2, 7, 11)
_attend(6, 1, 4, 11, causal=True)
_attend(3, 3, 7, 7, causal=True)
_attend(3, 3, 9, 4, causal=True)
_attend(3, 3, 1, 1, causal=True)
_attend(3, 3, 7, 11, random(2, 1, 1, 11), onnx_too=False)  # ONNX Runtime wants a mask of all 7 rows
_attend(3, 3, 7, 11, random(7, 11), causal=True)
_attend(6, 2, 7, 11, random(2, 6, 7, 11))
_attend(3, 3, 7, 11, integers(0, 2, 2, 1, 7, 11).astype(bool), masked_rows="zero")
SOME_ROWS = np.ones((7, 11), bool)
SOME_ROWS[2] = SOME_ROWS[5] = False
_attend(3, 3, 7, 11, SOME_ROWS, onnx_too=False, masked_rows="nan")
_attend(3, 3, 7, 11, SOME_ROWS, onnx_too=False, masked_rows="zero")
_attend(6, 2, 7, 11, np.where(SOME_ROWS, 0.0, -INF), onnx_too=False, masked_rows="zero")
_attend(6, 2, 7, 11, np.where(SOME_ROWS, 0.0, NAN), onnx_too=False, masked_rows="zero")
_attend(6, 2, 7, 11, np.where(SOME_ROWS, 0.0, NAN), onnx_too=False, masked_rows="nan_as_zero")
_attend(3, 3, 7, 11, SOME_ROWS, onnx_too=False, masked_rows="nan_as_zero")
_attend(3, 3, 0, 11, onnx_too=False)
_attend(3, 3, 7, 0, onnx_too=False)
