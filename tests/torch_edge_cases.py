"""PyTorch programs over edge inputs, for the rows of the ATen table: NaN, infinities, both zeros, denormals, numbers
at the ends of their types, nothing, and extents of 1. A case is several functions of the same tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

nan, inf = float("nan"), float("inf")


@dataclass(frozen=True)
class Case:
    """Functions of tensors, by name. Elements may differ by `rtol` of themselves and `atol` of the largest one;
    `zeros`: signs of zeros count. `unsupported` are paths that have no kernels for it."""

    functions: Mapping[str, Callable[..., Any]]
    inputs: tuple[torch.Tensor, ...]
    rtol: float = 2e-6
    atol: float = 0.0
    zeros: bool = False
    unsupported: tuple[str, ...] = ()


def each(x: torch.Tensor, y: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """All pairs of elements."""
    y = x if y is None else y
    return x.repeat_interleave(len(y)), y.repeat(len(x))


FLOATS = torch.tensor([
    nan, inf, -inf, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, 1e30, -1e30, 3e38, -3e38, 1e-30, -1e-30,
    100.0, -100.0, 88.7, -88.7, 16777216.0, 2.0**31, -(2.0**31), 1e10, 4.0, 9.5, -4.0, 0.99999994, 1.0000001, 3.1, 1e-4,
])  # fmt: skip
DENORMAL = torch.tensor([1e-40, -1e-45])
WIDE = torch.cat([FLOATS.double(), torch.tensor([1e300, -1e300, 1e-300, 700.0, 27.5], dtype=torch.float64)])
WIDE_ENDS = torch.cat([WIDE, torch.tensor([1.7e308, 3e307, 2e307, -1.7e308, 1e-309, -1e-309], dtype=torch.float64)])
NARROW = [nan, inf, -inf, 0.0, -0.0, 1.0, -1.0, 0.5, 300.0, -300.0, 2.5, 11.0]
HALVES = torch.tensor([*NARROW, 65504.0, -65504.0, 6e-8]).half()
BRAINS = torch.tensor([*NARROW, 3e38, -3e38, 2e-38]).bfloat16()
LONGS = torch.tensor([0, 1, -1, 2, -2, 3, 7, -7, 2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1, -(2**63), -(2**63) + 1])
INTS = torch.tensor([0, 1, -1, 2, -2, 3, 7, -7, 2**31 - 1, -(2**31), -(2**31) + 1], dtype=torch.int32)
SMALL = torch.tensor([0, 1, -1, 2, -2, 127, -127, -128], dtype=torch.int8)
BYTES = torch.tensor([0, 1, 2, 3, 127, 128, 254, 255], dtype=torch.uint8)
ROWS = torch.tensor([[1.0, nan, 3.0, 2.0, 1.0], [inf, -inf, 0.0, -0.0, 1.0], [nan, nan, nan, nan, 1.0],
                     [5.0, 4.0, nan, inf, 1.0], [-inf, -inf, -inf, -inf, -inf], [1e30, 2e30, -3e38, 1.5e38, 1e-30],
                     [2.0, 2.0, 7.0, -7.0, 7.0]])  # fmt: skip


def image() -> torch.Tensor:
    x = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    x[0, 0, 0, 0], x[0, 1, 2, 2], x[1, 0, 1, 1], x[1, 3] = nan, inf, -inf, -inf
    return x


IMAGE = image()
LAST = torch.zeros(2, 4, 5, 6, dtype=torch.int64)
WEIGHT = torch.randn(3, 4, 3, 3, generator=torch.Generator().manual_seed(1))

# -- one operand ------------------------------------------------------------------------------------------------------

REAL = {
    name: getattr(torch, name)
    for name in """sqrt rsqrt exp expm1 log log1p sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf erfc
    sigmoid reciprocal exp2 log2 log10""".split()
}
ROUNDING = {
    **{name: getattr(torch, name) for name in "sign sgn neg abs floor ceil round trunc square isnan isinf".split()},
    "logical_not": torch.logical_not,
    "clamp": lambda x: x.clamp(-1, 2), "clamp_min": lambda x: x.clamp(min=0.5), "clamp_max": lambda x: x.clamp(max=0.5),
    "clamp_nan": lambda x: x.clamp(nan, 1.0), "clamp_crossed": lambda x: x.clamp(2, -1),
    "round_1": lambda x: torch.round(x, decimals=1), "round_-1": lambda x: torch.round(x, decimals=-1),
    "nan_to_num": torch.nan_to_num, "angle": torch.angle, "frac": torch.frac,
    "int": lambda x: x.int(), "long": lambda x: x.long(), "int8": lambda x: x.to(torch.int8),
    "uint8": lambda x: x.to(torch.uint8), "short": lambda x: x.short(), "bool": lambda x: x.bool(),
    "half": lambda x: x.half(), "bfloat16": lambda x: x.bfloat16(), "double": lambda x: x.double(),
    "e4m3fn": lambda x: x.to(torch.float8_e4m3fn).float(), "e5m2": lambda x: x.to(torch.float8_e5m2).float(),
    "scaled": lambda x: x * 1e-3 + 7, "halved": lambda x: x / 3, "reversed": lambda x: 1 - x, "pow_3": lambda x: x**3,
    "pow_2": lambda x: x**2, "pow_half": lambda x: x**0.5, "pow_-1": lambda x: x**-1.0, "pow_0": lambda x: x**0,
    "floor_inf": lambda x: x // inf, "floor_-inf": lambda x: x // -inf, "floor_3": lambda x: x // 3,
    "remainder": lambda x: x.fmod(2.5), "masked": lambda x: x.masked_fill(x > 1, -inf), "eq": lambda x: x == 1,
    "where": lambda x: torch.where(x > 0, x, 0.0), "isfinite": torch.isfinite, "sum": lambda x: x.isnan().sum(),
}  # fmt: skip
SIGNS = {"signbit": torch.signbit, "neg": torch.neg, "floor": torch.floor, "ceil": torch.ceil, "round": torch.round,
         "trunc": torch.trunc, "where": lambda x: torch.where(x == 0, x, x + 1), "abs": torch.abs,
         "half": lambda x: x.half(), "copysign": lambda x: torch.copysign(torch.ones(()), x),
         "clone": lambda x: x.clone()}  # fmt: skip
ROUNDED = {
    "lost": lambda x: x - x.bfloat16().float(), "lost_f16": lambda x: x - x.half().float(),
    "twice": lambda x: x.half().bfloat16().float() * 3, "back": lambda x: x.bfloat16().float().half().float() + x,
    "narrow": lambda x: (x.bfloat16() * 3).float(), "sum": lambda x: x.bfloat16().float().sum(),
    "stored": lambda x: (x.bfloat16(), x.bfloat16().float() + 1), "of_int": lambda x: x.int().bfloat16().float() + 1,
    "of_byte": lambda x: x.to(torch.uint8).half().float() / 3, "double": lambda x: x.double().bfloat16().float() + 1,
    "select": lambda x: torch.where(x > 5, x.half().float(), x),
}  # fmt: skip
# Roundings before a cast to an integer type all of whose numbers the float has; each of other numbers, as ONNX Runtime
# leaves a cast alone that several nodes read.
NARROWED = [(narrow, to, view) for narrow in (torch.float16, torch.bfloat16, torch.float32)
            for to in (torch.int8, torch.uint8, torch.int16) for view in (lambda x: x, lambda x: x.flip(0)[None].t())]
ROUNDED_FIRST = {
    **{f"{n} {to} {i}".replace("torch.", ""): lambda x, y, n=n, to=to, view=view, i=i: view(x[i].to(n)).to(to)
       for i, (n, to, view) in enumerate(NARROWED)},
    **{f"i32 {n} {to}".replace("torch.", ""): lambda x, y, n=n, to=to, i=i: y[i].to(n).to(to)
       for i, (n, to, _) in enumerate(NARROWED)},
}  # fmt: skip
LABELS = torch.tensor([[1, -1, 0, 0], [3, 0, -1, 1], [-1, 0, 1, 2], [2, 2, 1, -1]])
CLASSES = torch.tensor([[0.1, 0.2, 0.4, 0.8], [1.0, nan, 2.0, -1.0], [nan, 1.0, inf, -inf], [0.0, 3e38, -3e38, 1.0]])
MARGINS = {
    **{f"labels {reduction}": lambda x, y, r=reduction: F.multilabel_margin_loss(x, y, reduction=r)
       for reduction in ("none", "mean", "sum")},
    **{f"label {p} {reduction}": lambda x, y, r=reduction, p=p: F.multi_margin_loss(
        x, y.amax(1), p=p, margin=0.7, weight=x[0], reduction=r)
       for reduction in ("none", "mean", "sum") for p in (1, 2)},
    "one row": lambda x, y: (F.multilabel_margin_loss(x[0], y[0], reduction="none"),
                             F.multi_margin_loss(x[0], y[0, 0], reduction="none"),
                             F.multi_margin_loss(x[0], y[0, :1], reduction="none")),
}  # fmt: skip
ACTIVATIONS = {
    **{name: getattr(F, name) for name in """relu relu6 silu mish hardsigmoid hardswish hardtanh elu selu celu
       leaky_relu softplus softsign logsigmoid""".split()},
    "sign_of_logsigmoid": lambda x: 1 / F.logsigmoid(x),
    "tanh": torch.tanh, "elu_2": lambda x: F.elu(x, 2.0), "leaky": lambda x: F.leaky_relu(x, 2.0),
    **{f"leaky_{slope}": lambda x, slope=slope: F.leaky_relu(x, slope)
       for slope in (0.0, -0.0, -2.0, float("inf"), -float("inf"), float("nan"))},
    **{f"prelu_{slope}": lambda x, slope=slope: F.prelu(x, torch.tensor([slope], dtype=x.dtype))
       for slope in (0.0, -0.0, -2.0, float("inf"), float("nan"))},
    "prelu_of_many": lambda x: F.prelu(x[:30].reshape(2, 3, 5), x[-3:].nan_to_num() - 1),
    "softplus_2": lambda x: F.softplus(x, 2, 5), "threshold": lambda x: F.threshold(x, 0.1, 20.0),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.25], dtype=x.dtype)), "glu": lambda x: F.glu(x[:34], 0),
}  # fmt: skip

# -- two operands -----------------------------------------------------------------------------------------------------

BINARY = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "fmax": torch.fmax, "fmin": torch.fmin,
    "maximum": torch.maximum, "minimum": torch.minimum, "floor": lambda a, b: torch.div(a, b, rounding_mode="floor"),
    "trunc": lambda a, b: torch.div(a, b, rounding_mode="trunc"), "pow": torch.pow, "eq": torch.eq, "ne": torch.ne,
    "lt": torch.lt, "le": torch.le, "gt": torch.gt, "ge": torch.ge, "and": torch.logical_and, "or": torch.logical_or,
    "xor": torch.logical_xor, "hypot": torch.hypot, "atan2": torch.atan2, "copysign": torch.copysign,
    "clamp": lambda a, b: torch.clamp(a, b, b + 1), "where": lambda a, b: torch.where(a > b, a, b),
}  # fmt: skip
INTEGERS = {
    **{name: BINARY[name] for name in "add sub mul div fmax maximum minimum eq lt ge and atan2 clamp where".split()},
    "bits_and": torch.bitwise_and, "bits_or": torch.bitwise_or, "bits_xor": torch.bitwise_xor, "rsub": torch.rsub,
    "left": torch.bitwise_left_shift, "right": torch.bitwise_right_shift,
    "alpha": lambda a, b: torch.add(a, b, alpha=3),
}  # fmt: skip
DIVISIONS = {"floor": lambda a, b: a // b, "remainder": lambda a, b: a % b, "fmod": torch.fmod,
             "mode": lambda a, b: torch.div(a, b, rounding_mode="floor")}  # fmt: skip
OF_INTEGERS = {
    **{name: getattr(torch, name) for name in """neg abs sign square bitwise_not logical_not relu sqrt exp2 isnan isinf
       any all sum prod amax amin argmax argmin""".split()},
    "pow_2": lambda x: x**2, "pow_3": lambda x: x**3, "pow_float": lambda x: x**2.0, "pow_half": lambda x: x**0.5,
    "pow_0": lambda x: x**0, "power_of": lambda x: 2 ** x.clamp(0, 5), "of_float": lambda x: 2.0**x,
    "clamp": lambda x: x.clamp(-1, 100), "clamp_float": lambda x: x.clamp(-1.5, 100.5), "plus": lambda x: x + 300,
    "eq": lambda x: x == 300, "eq_-1": lambda x: x == -1, "lt": lambda x: x < 300, "gt": lambda x: x > -5,
    "ne": lambda x: x != 256, "eq_float": lambda x: x == 1.5, "times": lambda x: x * 1.5, "halved": lambda x: x / 2,
    "floor": lambda x: x // 3, "floor_-3": lambda x: x // -3, "remainder": lambda x: x % -3, "right": lambda x: x >> 1,
    "fmod": lambda x: torch.fmod(x, 3), "left": lambda x: x << 3, "floor_float": lambda x: x // 2.5,
    "cumsum": lambda x: x.cumsum(0), "cumprod": lambda x: x.cumprod(0), "sorted": lambda x: x.sort(stable=True)[1],
    "float": lambda x: x.float(), "int8": lambda x: x.to(torch.int8), "uint8": lambda x: x.to(torch.uint8),
    "cummax": lambda x: x.cummax(0)[0], "cummin": lambda x: x.cummin(0)[0], "topk": lambda x: x.topk(3)[0],
    "masked": lambda x: x.masked_fill(x == 1, 7), "bucket": lambda x: torch.bucketize(x, torch.tensor([-5, 0, 5])),
}  # fmt: skip
# Integers that leave their type and are looked at before they are stored.
WRAPPING = {
    "add": lambda x: (x + 100) * 3 > 20, "rsub": lambda x: (3 - x) * 100 > 20, "neg": lambda x: (-x) * 100 > 20,
    "abs": lambda x: x.abs() * 100 > 20, "relu": lambda x: x.relu() * 100 > 20, "sign": lambda x: x.sign() * 300 > 20,
    "floor": lambda x: (x // 3) * 100 > 20, "remainder": lambda x: (x % 3) * 100 > 20, "pow": lambda x: x**3 > 50,
    "fmod": lambda x: torch.fmod(x, 7) * 100 > 20, "divided": lambda x: (100 // x.clamp(min=2)) * 3 > 50,
    "by_clamped": lambda x: x // x.clamp(min=2), "mod_clamped": lambda x: x % x.clamp(min=2),
    "and": lambda x: (x & 3) * 100 > 50, "not": lambda x: (~x) * 100 > 20, "left": lambda x: (x << 2) * 100 > 50,
    "right": lambda x: (x >> 2) * 100 > 50, "left_of": lambda x: (3 << (x & 3)) * 100 > 50,
    "left_far": lambda x: (x << 70) + 3 > 4, "right_far": lambda x: (x >> 70) * 100 > 4,
    "clamp": lambda x: x.clamp(1, 100) * 100 > 50, "clamp_min": lambda x: x.clamp(min=5) * 100 > 50,
    "maximum": lambda x: torch.maximum(x, torch.full_like(x, 3)) * 100 > 50,
    "where": lambda x: torch.where(x > 2, x, 3) * 100 > 50,
    "where_numbers": lambda x: torch.where(x > 2, torch.full_like(x, 50), torch.full_like(x, 60)) * 5 > 50,
    "cast": lambda x: x.long().to(x.dtype) * 100 > 50, "bool": lambda x: (x > 3).to(x.dtype) * 300 > 50,
    "amax": lambda x: x.view(2, -1).amax(1) * 100 > 50, "sum": lambda x: x.view(2, -1).sum(1, dtype=x.dtype) * 3 > 50,
    "prod": lambda x: x.view(2, -1).prod(1, dtype=x.dtype) > 50, "masked": lambda x: x.masked_fill(x > 3, 7) * 100 > 50,
    "pad": lambda x: F.pad(x, (1, 1), value=100) * 3 > 50, "iota": lambda x: torch.arange(8).to(x.dtype) * 100 > 50,
    "total": lambda x: x.sum(), "sum_of_own": lambda x: x.sum(0, keepdim=True, dtype=x.dtype),
}  # fmt: skip
ALPHAS = {
    **{name: lambda a, b, c, f=f: f(a, b, alpha=3) for name, f in {
        "add": torch.add, "sub": torch.sub, "rsub": torch.rsub}.items()},
    "of_number": lambda a, b, c: torch.sub(b, 3, alpha=200), "of_0d": lambda a, b, c: torch.add(a[0], b, alpha=3),
    "rsub_0d": lambda a, b, c: torch.rsub(b, a[0], alpha=3), "fraction": lambda a, b, c: torch.sub(a, b, alpha=2.5),
    "to_long": lambda a, b, c: torch.add(c, b, alpha=2), "half": lambda a, b, c: torch.sub(a, c.half(), alpha=2.5),
    "bool": lambda a, b, c: torch.add(b > 3, b < 9, alpha=False), "zero": lambda a, b, c: torch.add(a, a / 0, alpha=0),
    "addcmul": lambda a, b, c: torch.addcmul(a, c, a, value=0.5), "bytes": lambda a, b, c: torch.addcmul(a, b, b),
    "addcdiv": lambda a, b, c: torch.addcdiv(a, c, a, value=0.5),
    "index_add": lambda a, b, c: b.index_add(0, torch.tensor([1, 1]), b[:2], alpha=200),
}  # fmt: skip
HALF = torch.full((len(FLOATS),), 0.5)
POWERS = {
    **{str(number): lambda x, y, n=number: x**n for number in (0.5, -0.5, 3, 3.0, -2.0, -1, 0, nan, inf, 1.0, 1 / 3)},
    **{f"of {number}": lambda x, y, n=number: torch.pow(n, x) for number in (1.0, 0.0, -1.0, 0.5, -inf)},
    "tensor": lambda x, y: torch.pow(x, y), "minus": lambda x, y: torch.pow(x, -y), "0d": lambda x, y: x ** y[0],
    "constant": lambda x, y: torch.pow(x, HALF), "one": lambda x, y: torch.pow(x, torch.tensor(0.5)),
    "both_0d": lambda x, y: torch.pow(x[2], y[0]),
}  # fmt: skip

NORMS = {f"norm_{p}": lambda x, p=p: x.norm(p, dim=1) for p in (1, 2, 2.5, 3, 4, -3)}
MOMENTS = {"var": lambda x: x.var(1), "std": lambda x: x.std(1)}
LARGEST = torch.tensor([[3.4e38, -3.4e38, 3.4e38], [1e38, 1e38, -1e38], [1e-38, 2e-38, 0.0]])
SWISHES = {
    "swish": F.hardswish, "relu6": lambda x: x * F.relu6(x + 3) / 6, "sigmoid": lambda x: x * F.hardsigmoid(x),
    "divided": lambda x: x * (F.relu6(x + 3) / 6),
}  # fmt: skip

# -- along axes -------------------------------------------------------------------------------------------------------

REDUCTIONS = {
    "sum": lambda x: x.sum(1), "sum_all": lambda x: x.sum(), "mean": lambda x: x.mean(1), "prod": lambda x: x.prod(1),
    "prod_all": lambda x: x.prod(), "amax": lambda x: x.amax(1), "amin": lambda x: x.amin(0), "max": lambda x: x.max(),
    "min": lambda x: x.min(), "max_1": lambda x: x.max(1), "min_0": lambda x: x.min(0), "argmax": lambda x: x.argmax(1),
    "argmin": lambda x: x.argmin(), "argmax_all": lambda x: x.argmax(), "kept": lambda x: x.argmin(1, keepdim=True),
    "aminmax": lambda x: torch.aminmax(x, dim=1), "var": lambda x: x.var(1), "var_0": lambda x: x.var(1, correction=0),
    "std": lambda x: x.std(1), "std_all": lambda x: x.std(), "std_0": lambda x: x.std(1, correction=0),
    "std_mean": lambda x: torch.std_mean(x, 1)[0], "var_mean": lambda x: torch.var_mean(x, 1)[0],
    "logsumexp": lambda x: x.logsumexp(1), "logsumexp_all": lambda x: torch.logsumexp(x, (0, 1)),
    "norm": lambda x: x.norm(dim=1), "norm_1": lambda x: x.norm(1, dim=1), "norm_inf": lambda x: x.norm(inf, dim=1),
    "norm_-inf": lambda x: x.norm(-inf, dim=1), "norm_0": lambda x: x.norm(0, dim=1), "any": lambda x: x.any(1),
    "norm_3": lambda x: x.norm(3, dim=1), "all": lambda x: x.all(1), "any_all": lambda x: x.any(),
    "softmax": lambda x: x.softmax(1), "log_softmax": lambda x: x.log_softmax(1), "softmin": lambda x: F.softmin(x, 1),
    "cumsum": lambda x: x.cumsum(1), "cumprod": lambda x: x.cumprod(1), "cummax": lambda x: x.cummax(1),
    "cummin": lambda x: x.cummin(1), "sort": lambda x: x.sort(dim=1, stable=True),
    "sort_down": lambda x: x.sort(dim=1, descending=True, stable=True),
    "argsort": lambda x: x.argsort(dim=1, stable=True),
    "nansum": lambda x: x.nansum(1), "nonzero": lambda x: x.count_nonzero(1),
    "normalize": lambda x: F.normalize(x, dim=1),
    "diff": lambda x: x.diff(dim=1), "median": lambda x: x.median(1)[0], "median_all": lambda x: x.median(),
    "cosine": lambda x: F.cosine_similarity(x, x + 1, 1), "safe": lambda x: torch.ops.aten._safe_softmax(x, 1),
}  # fmt: skip
WITHIN = {
    "topk": lambda x: x.topk(2)[0], "topk_down": lambda x: x.topk(2, largest=False)[0],
    "kth": lambda x: x.kthvalue(2, dim=1)[0],
}  # fmt: skip
QUANTILES = {"quantile": lambda x: torch.quantile(x, 0.4, dim=1),
             "nanquantile": lambda x: torch.nanquantile(x, 0.6, dim=1)}  # fmt: skip
if torch.__version__ < "2.12":  # which does not export those of one number
    QUANTILES = {}
CUMULATIVE = {"cumprod": lambda x: x.cumprod(0), "cumsum": lambda x: x.cumsum(0), "std": torch.std, "norm": torch.norm}
OF_NOTHING = {
    "sum": lambda x: x.sum(0), "mean": lambda x: x.mean(0), "mean_all": lambda x: x.mean(), "prod": lambda x: x.prod(0),
    "median_all": lambda x: x.median(), "median_of_integers": lambda x: x.int().median(),
    "var": lambda x: x.var(0), "std": lambda x: x.std(0), "var_mean": lambda x: torch.var_mean(x, 0),
    "std_mean": lambda x: torch.std_mean(x, 0), "var_0": lambda x: x.var(0, correction=0),
    "logsumexp": lambda x: x.logsumexp(0), "norm": lambda x: x.norm(dim=0), "any": lambda x: x.any(0),
    "all": lambda x: (x > 0).all(0), "softmax": lambda x: x.softmax(0), "cumsum": lambda x: x.cumsum(0),
    "cumprod": lambda x: x.cumprod(0), "cummax": lambda x: x.cummax(0), "sort": lambda x: x.sort(0),
    "topk": lambda x: x.topk(0, 0), "amax": lambda x: x.amax(1), "argmax": lambda x: x.argmax(1),
    "flip": lambda x: x.flip(0), "cat": lambda x: torch.cat([x, x], 0), "mm": lambda x: x @ x.t(),
    "outer": lambda x: x.t() @ x, "linear": lambda x: F.linear(x.t(), torch.ones(4, 0), torch.ones(4)),
    "matmul": lambda x: x.t()[None, None].expand(2, 2, 3, 0) @ x[None, None].expand(2, 2, 0, 3),
    "bmm": lambda x: torch.bmm(x[None].expand(2, 0, 3).transpose(1, 2), x[None].expand(2, 0, 3)),
    "addmm": lambda x: torch.addmm(torch.ones(3, 3), x.t(), x), "mv": lambda x: torch.mv(x.t(), x[:, 0]),
    "dot": lambda x: torch.dot(x[:, 0], x[:, 1]), "einsum": lambda x: torch.einsum("ab,ac->bc", x, x),
    "norms": lambda x: F.layer_norm(x, (3,)), "view": lambda x: x.view(3, 0), "pad": lambda x: F.pad(x, (1, 1, 1, 1)),
    "index": lambda x: x[torch.empty(0, dtype=torch.int64)], "cdist": lambda x: torch.cdist(x, x),
    "attention": lambda x: F.scaled_dot_product_attention(
        torch.ones(1, 2, 4, 3), x[None, None].expand(1, 2, 0, 3), x[None, None].expand(1, 2, 0, 3)),
    "none_ask": lambda x: F.scaled_dot_product_attention(x[None, None], torch.ones(1, 1, 2, 3), torch.ones(1, 1, 2, 5)),
    "bucketize": lambda x: torch.bucketize(x, torch.tensor([0.0, 1.0])),
    "one_hot": lambda x: F.one_hot(x[:, 0].long(), 3),
    "search": lambda x: torch.searchsorted(x[:, 0].contiguous(), torch.tensor([1.0, 2.0])),
    "scatter": lambda x: x.scatter(0, torch.empty(0, 3, dtype=torch.int64), x), "repeat": lambda x: x.repeat(2, 2),
    "conv": lambda x: F.conv1d(torch.empty(0, 2, 5), torch.ones(3, 2, 2)),
    "pool": lambda x: F.max_pool1d(torch.empty(0, 2, 5), 2),
    "embedding": lambda x: F.embedding(x.long(), torch.ones(4, 3)),
}  # fmt: skip

# -- images, indices, attention ---------------------------------------------------------------------------------------

IMAGES = {
    "conv": lambda x: F.conv2d(x, WEIGHT, padding=1),
    "strided": lambda x: F.conv2d(x, WEIGHT, stride=2, dilation=2, padding=2),
    "transposed": lambda x: F.conv_transpose2d(x, WEIGHT.transpose(0, 1).contiguous(), stride=2, output_padding=1),
    "depthwise": lambda x: F.conv2d(x, torch.ones(4, 1, 3, 3), groups=4),
    "max": lambda x: F.max_pool2d(x, 3, 2, 1), "max_up": lambda x: F.max_pool2d(x, 2, 2, ceil_mode=True),
    "max_1": lambda x: F.max_pool1d(x[:, :, 0], 2), "max_wide": lambda x: F.max_pool2d(x, 2, 1, dilation=2),
    "max_3": lambda x: F.max_pool3d(x[None], 2, 1), "mean": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "mean_inside": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, (2, 3)), "adaptive_max": lambda x: F.adaptive_max_pool2d(x, (2, 3)),
    "global_max": lambda x: F.adaptive_max_pool2d(x, 1), "global": lambda x: F.adaptive_avg_pool2d(x, 1),
    "batch": lambda x: F.batch_norm(x, torch.zeros(4), torch.ones(4)), "layer": lambda x: F.layer_norm(x, (6,)),
    "group": lambda x: F.group_norm(x, 2), "instance": lambda x: F.instance_norm(x),
    "rms": lambda x: F.rms_norm(x, (6,)), "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "reflect": lambda x: F.pad(x, (1, 2, 1, 0), mode="reflect"),
    "replicate": lambda x: F.pad(x, (1, 2, 1, 0), mode="replicate"), "cut": lambda x: F.pad(x, (-1, 1), value=nan),
    "unfold": lambda x: F.unfold(x, 2), "shuffle": lambda x: F.pixel_shuffle(x, 2), "roll": lambda x: x.roll(1, 2),
    "product": lambda x: x @ x.transpose(2, 3), "distance": lambda x: torch.cdist(x[:, :, 0], x[:, :, 1]),
    "distance_1": lambda x: torch.cdist(x[:, :, 0], x[:, :, 1], p=1), "flip": lambda x: x.flip(3),
    "tril": lambda x: x.tril(),
    "distance_inf": lambda x: torch.cdist(x[:, :, 0], x[:, :, 1], p=inf),
    "gather": lambda x: x.gather(3, LAST), "scatter": lambda x: x.scatter(3, LAST, 1.0),
    "scatter_add": lambda x: torch.zeros_like(x).scatter_add(3, LAST, x),
    "scatter_max": lambda x: torch.zeros_like(x).scatter_reduce(3, LAST, x, "amax"),
    "scatter_min": lambda x: torch.zeros_like(x).scatter_reduce(3, LAST, x, "amin"),
    "index_put": lambda x: x.index_put((torch.tensor([0, 0]),), x[:1].expand(2, 4, 5, 6), accumulate=True),
}  # fmt: skip
REDUCED = {
    f"{reduce} {include}": lambda x, i, y, reduce=reduce, include=include:
        x.scatter_reduce(1, i, y, reduce, include_self=include)
    for reduce in ("sum", "mean", "prod", "amax", "amin") for include in (True, False)
}  # fmt: skip
SLICES = {
    f"{reduce} {include}": lambda x, i, y, reduce=reduce, include=include:
        x.index_reduce(1, i[0], y, reduce, include_self=include)
    for reduce in ("mean", "prod", "amax", "amin") for include in (True, False)
}  # fmt: skip
FIVE, SIX = torch.tensor([[nan, inf, -inf, 0.0, 5.0]]), torch.tensor([[1.0, nan, 2.0, 3.0, -inf, inf]])
TO_FIVE = torch.tensor([[0, 1, 1, 2, 3, 3]])
SORTED = {
    "sort": lambda x: (x > 0).sort(dim=1, stable=True),
    "down": lambda x: torch.sort(x > 0, stable=True, dim=1, descending=True),
    "argsort": lambda x: (x > 0).argsort(dim=0, stable=True), "logcumsumexp": lambda x: x.logcumsumexp(1),
    "logcumsumexp_0": lambda x: x.logcumsumexp(0), "0d": lambda x: x[0, 0].logcumsumexp(0),
    "none": lambda x: x[:, :0].logcumsumexp(1),
}  # fmt: skip
PLANE = torch.randn(1, 2, 4, 5, generator=torch.Generator().manual_seed(2))
POSITIONS = torch.tensor([[nan, 0.1], [1e7, 0.2], [-1e7, -0.5], [0.3, inf], [-inf, 0.4], [0.0, 0.0], [-0.999, 0.999],
                          [1.1, -1.1], [nan, nan], [2.0**31, 0.0], [1e10, 0.1], [0.2, nan]])[None, None]  # fmt: skip
SAMPLED, SPATIAL = ({
    f"{mode} {padding} {align}": lambda x, grid, m=mode, p=padding, a=align: F.grid_sample(x, grid, m, p, a)
    for mode in modes for padding in ("zeros", "border", "reflection") for align in (False, True)
} for modes in (("bilinear", "nearest", "bicubic"), ("bilinear", "nearest")))  # fmt: skip
SPACE = torch.arange(1.0, 9.0).reshape(1, 1, 2, 2, 2)
IN_SPACE = torch.tensor([[nan, 0.1, 0.2], [inf, 0.1, 0.1], [0.0, 0.0, 3e8], [-inf, 0.5, 0.5], [0.2, nan, nan],
                         [-1e4, 1.0, 1.0], [0.2, 0.1, inf], [0.3, -0.4, 0.9]])[None, None, None]  # fmt: skip
RESIZED = {
    **{f"{name} {size} {align}": lambda x, i=i, m=mode, s=size, a=align: F.interpolate(
        x[i], s, mode=m, align_corners=a)
       for name, i, mode, sizes in (("lines", (slice(None), 0), "linear", (4, 9, 12)), ("planes", slice(None),
       "bilinear", ((5, 9), (9, 6), (9, 9), (2, 9))), ("spaces", None, "trilinear", ((2, 4, 9), (4, 5, 8), (3, 4, 6),
       (2, 9, 6), (4, 4, 12)))) for size in sizes for align in (False, True)},
    "shares": lambda x: F.interpolate(x, scale_factor=(2, 0.5), mode="bilinear"),
    "shares_1": lambda x: F.interpolate(x[:, 0], scale_factor=1.5, mode="linear"),
}  # fmt: skip
OUTER = {
    **{f"{beta} {alpha}": lambda x, a, b, beta=beta, alpha=alpha: torch.addr(x, a, b, beta=beta, alpha=alpha)
       for beta in (0, 1, 0.5) for alpha in (1, 0.25, 3)},
    "bool": lambda x, a, b: torch.addr(x > 0, a > 1, b > 0), "long": lambda x, a, b: torch.addr(
        torch.arange(4), torch.arange(3), torch.arange(4), beta=2, alpha=3),
    "no_bool": lambda x, a, b: torch.addr(x > 0, a > 1, b > 0, beta=0, alpha=0),
}  # fmt: skip


def attention(*, masked: bool = False, **options: Any) -> Callable[..., Any]:
    if masked:
        return lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v, mask, **options)
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options)


def attended(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(*shape, generator=generator).to(dtype) for shape in shapes)


def masked(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """With rows of the least number, of -inf, and of both."""
    mask, least = torch.zeros(4, 5, dtype=dtype), torch.finfo(dtype).min
    mask[1], mask[2], mask[3], mask[3, 1] = least, -inf, least, -inf
    mask[0, 1], mask[0, 2] = least, -inf
    return *attended((1, 2, 4, 4), (1, 2, 5, 4), (1, 2, 5, 3), dtype=dtype), mask


QKV = (2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4)
CASES: dict[str, Case] = {
    "real": Case(REAL, (torch.cat([FLOATS, DENORMAL]),)),
    "real f16": Case(REAL, (HALVES,), 2e-3), "real bf16": Case(REAL, (BRAINS,), 1.6e-2),
    "real i64": Case(REAL, (torch.tensor([0, 1, -1, 2, 3, 7, -7, 2**40]),), 1e-5),
    "real f64": Case(REAL, (WIDE,), 1e-12, unsupported=("onnx", "optimized")),
    "rounding": Case(ROUNDING, (FLOATS,)), "rounding f16": Case(ROUNDING, (HALVES,), 2e-3),
    "rounding bf16": Case(ROUNDING, (BRAINS,), 1.6e-2), "rounding f64": Case(ROUNDING, (WIDE,), 1e-12),
    "signs": Case(SIGNS, (FLOATS,), zeros=True), "signs f64": Case(SIGNS, (WIDE,), 1e-12, zeros=True),
    "rounded": Case(ROUNDED, (torch.linspace(0.1, 255.9, 77),)),
    "rounded before": Case(ROUNDED_FIRST, (
        torch.tensor([0.99999, 1.9999, 3.9999, 5.9999999999, 6.5], dtype=torch.float64).expand(18, 5).contiguous(),
        torch.tensor([257, 2049, 16777217, 300, 1], dtype=torch.int32).expand(18, 5).contiguous())),
    "margins": Case(MARGINS, (CLASSES, LABELS)),
    "activations": Case(ACTIVATIONS, (FLOATS,), 1e-5, 1e-37),
    "hardswish": Case(SWISHES, (FLOATS,)), "hardswish f64": Case(SWISHES, (WIDE_ENDS,), 1e-12),
    "hardswish bf16": Case(SWISHES, (BRAINS,), 1.6e-2), "hardswish f16": Case({"swish": F.hardswish}, (HALVES,), 2e-3),
    "largest": Case(MOMENTS, (LARGEST,)), "largest f64": Case(MOMENTS, (LARGEST.double() * 5e269,), 1e-12),
    "norms f16": Case(NORMS, (torch.tensor([[6e-5, 3e-5, -6e-5], [20000.0, 100.0, -15872.0]]).half(),), 2e-3),
    "norms bf16": Case(NORMS, (torch.tensor([[1e-15, 2e-15, -1e-15], [1e10, 3e10, -1e10]]).bfloat16(),), 1.6e-2),
    "gamma": Case({"lgamma": torch.lgamma},
                  (torch.cat([WIDE_ENDS[-6:], torch.tensor([-3.0, -2.5, 0.0, -0.0, inf, nan])]),), 1e-12),
    "binary": Case(BINARY, each(FLOATS), 1e-5), "binary f16": Case(BINARY, each(HALVES), 2e-3),
    "binary bf16": Case(BINARY, each(BRAINS), 1.6e-2),
    "remainders": Case({"remainder": torch.remainder, "fmod": torch.fmod}, each(FLOATS, torch.tensor([
        nan, inf, -inf, 0.0, -0.0, 2.5, -2.5, 1.0, 7.0]))),
    "ldexp": Case({"ldexp": torch.ldexp}, each(FLOATS, torch.tensor([
        0, 1, -1, 100, -100, 127, 128, 200, -200, 300, -300]))),
    "ldexp of floats": Case({"ldexp": torch.ldexp}, each(FLOATS, torch.tensor([
        0.0, 1.5, -100.0, 127.5, 128.0, -300.0, inf, -inf, nan])), 1e-5),
    **{f"pairs {x.dtype}"[6:]: Case(INTEGERS, each(x)) for x in (LONGS, INTS, SMALL, BYTES)},
    **{f"of {x.dtype}": Case(OF_INTEGERS, (x,)) for x in (LONGS, INTS, SMALL, BYTES)},
    **{f"divisions of {x.dtype}": Case(DIVISIONS, each(x, x[(x != 0) & (x != -1) if x.dtype.is_signed else x != 0]))
       for x in (LONGS, INTS, SMALL, BYTES)},
    "wrapping bytes": Case(WRAPPING, (BYTES,)), "wrapping signed bytes": Case(WRAPPING, (SMALL,)),
    "wrapping shorts": Case(WRAPPING, (torch.tensor([0, 1, -1, 32767, -32768, 300, 2, 7], dtype=torch.int16),)),
    "wrapping words": Case(WRAPPING, (INTS[-8:],)), "wrapping long": Case(WRAPPING, (LONGS[-8:],)),
    "alphas": Case(ALPHAS, (torch.tensor([1.5, -2.0, nan, inf]), torch.tensor([255, 1, 0, 128], dtype=torch.uint8),
                            torch.tensor([2**63 - 1, 5, -(2**63), -7]))),
    "powers": Case(POWERS, (FLOATS, HALF), 1e-5, zeros=True),
    "reduced": Case(REDUCED, (FIVE, TO_FIVE, SIX)), "reduced f16": Case(REDUCED, (FIVE.half(), TO_FIVE, SIX.half())),
    "reduced long": Case(REDUCED, (torch.tensor([[-7, 5, -1, 2**62, 3]]), TO_FIVE,
                                   torch.tensor([[0, -1, 7, 2, 2**62, -9]]))),
    "reduced bytes": Case(REDUCED, (BYTES[None, :5], TO_FIVE, BYTES[None, 2:])),
    "reduced infinities": Case(REDUCED | SLICES, (torch.zeros(1, 5), TO_FIVE, torch.tensor([[
        inf, -inf, -inf, -inf, inf, inf]]))),
    "reduced slices": Case(SLICES, (FIVE, TO_FIVE, SIX)),
    "reduced slices of halves": Case(SLICES, tuple(x.expand(3, -1).contiguous().half() if x.is_floating_point() else x
                                                   for x in (FIVE, TO_FIVE, SIX)), 2e-3),
    "sorted": Case(SORTED, (ROWS,), 1e-5),
    "rows": Case({**REDUCTIONS, **WITHIN, **QUANTILES}, (ROWS,), 1e-5),
    "rows f16": Case({**REDUCTIONS, **WITHIN}, (ROWS.half(),), 3e-3),
    "rows f64": Case({**REDUCTIONS, **WITHIN, **QUANTILES}, (ROWS.double(),), 1e-12),
    "rows of one": Case(REDUCTIONS, (ROWS[:, :1].contiguous(),), 1e-5),
    "one row": Case({**REDUCTIONS, **WITHIN}, (ROWS[3:4].contiguous(),), 1e-5),
    "beyond the range": Case(CUMULATIVE, (torch.tensor([1e30, 1e30, 2e30, 1e-30, 0.0, 3e30]),), 1e-5),
    "nothing": Case(OF_NOTHING, (torch.empty(0, 3),)),
    "images": Case(IMAGES, (IMAGE,), 1e-5, 1e-6),
    "positions": Case(SAMPLED, (PLANE, POSITIONS), 1e-4, 1e-5),
    "positions in space": Case(SPATIAL, (SPACE, IN_SPACE), 1e-5),
    "resized": Case(RESIZED, (torch.where(IMAGE.isfinite(), IMAGE, nan),), 1e-4, 1e-5),
    "resized to twice": Case({"planes": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
                              "lines": lambda x: F.interpolate(x[0], scale_factor=2, mode="linear")},
                             (IMAGE,), 1e-5, 1e-6),
    "outer": Case(OUTER, (torch.tensor([1.0, nan, 1e38, 2.0]), torch.tensor([3e38, inf, 1.0]),
                          torch.tensor([0.1, nan, 0.0, 2.0])), 1e-5),
    "normalized": Case({"rows": F.normalize}, (ROWS,), 1e-5),
    "at least": Case({"all": lambda x: x.clamp(min=1e-9)}, (FLOATS,)),
    "at most": Case({"all": lambda x: x.clamp(max=1e9)}, (FLOATS,)),
    "masks": Case({"attention": attention(masked=True)}, masked(torch.float32), 1e-5, 1e-6),
    "masks f16": Case({"attention": attention(masked=True)}, masked(torch.float16), 2e-3, 2e-3),
    "masks bf16": Case({"attention": attention(masked=True)}, masked(torch.bfloat16), 2e-2, 2e-2),
    "scales": Case({str(scale): attention(scale=scale) for scale in (-0.5, 0.0, 2.0)}, attended(*QKV), 1e-5, 1e-6),
    "causal": Case({"attention": attention(is_causal=True)}, attended(*QKV), 1e-5, 1e-6),
    **{f"attention of {shapes}": Case({"attention": attention()}, attended(*shapes), 1e-5, 1e-6) for shapes in (
        ((1, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4)), ((2, 4, 3, 4), (2, 1, 5, 4), (2, 1, 5, 7)),
        ((3, 4), (5, 4), (5, 4)), ((2, 4, 3, 4), (4, 5, 4), (4, 5, 4)),
        ((2, 3, 2, 3, 4), (3, 2, 5, 4), (1, 3, 2, 5, 4)), ((0, 2, 3, 4),) * 3)},
    "shared heads": Case({"attention": attention(enable_gqa=True)}, attended((2, 4, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4)),
                         1e-5, 1e-6),
}  # fmt: skip
