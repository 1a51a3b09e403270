"""Families of ATen operators that irc lowers to several operations, on every path against eager PyTorch.

Each program computes a family at once, on inputs with the edges at which the operators differ from the obvious formula.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

import torch
import torch.ao.quantization.fx._decomposed
import torch.nn.functional as F
from test_torch_gradients import PATHS, check
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import irc
from irc.diagnostics import IrcError

pytestmark = pytest.mark.filterwarnings("ignore")
aten, special, nan, inf = torch.ops.aten, torch.special, torch.nan, torch.inf
decomposed = torch.ops.quantized_decomposed
REALS = torch.tensor([0.0, -0.0, 1, -1, 0.5, 2, -2.5, 1e-3, 20, -20.3, 100, nan, inf, -inf, 3, 0.999999, -0.9999, 7.5])
FINITE = torch.tensor([1.0, 0.5, 2, -2.5, 1e-3, 20, -20.3, 3, 0.999999, -0.9, 7.5])
PARTS = torch.tensor([0.0, 1, 0.5, 1e-30, 0.999999, 1e-40, 0.3, nan, 2, -1])


def seeded(function: Callable[..., torch.Tensor], *arguments: Any, **options: Any) -> torch.Tensor:
    return function(*arguments, generator=torch.Generator().manual_seed(0), **options)


def random(*shape: int) -> torch.Tensor:
    return seeded(torch.randn, shape)


def whole(low: int, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return seeded(torch.randint, low, high, shape, dtype=dtype)


def gamma(x: torch.Tensor, y: torch.Tensor) -> Any:
    orders = torch.tensor([2.0, 3, 1, 0.5, 2.5, 4, 5, 6, nan, inf, inf, inf, inf, -inf])
    places = torch.tensor([1, 0.1, 2, 2, -1.5, -3.5, -2, 1e-3, 1, 1, 0.5, -0.5, 0, 1])
    return (torch.lgamma(x), torch.digamma(x), *(torch.polygamma(order, y) for order in range(4)),
            torch.polygamma(171, y[:2].double()), special.zeta(orders, places))


def bessel(x: torch.Tensor) -> Any:
    kinds = (torch.i0, special.i0e, special.i1, special.i1e, special.modified_bessel_k0, special.modified_bessel_k1,
             special.scaled_modified_bessel_k0, special.scaled_modified_bessel_k1, special.spherical_bessel_j0)
    return tuple(kind(x) for kind in kinds)


def parts(x: torch.Tensor) -> Any:
    return (torch.nextafter(x, x.flip(0)), *torch.frexp(x), *torch.frexp(x.half()), *torch.frexp(x.double() * 1e-310))


def bags(table: torch.Tensor, shares: torch.Tensor) -> Any:
    indices, offsets = torch.tensor([0, 1, 1, 3, 2]), torch.tensor([0, 2, 2, 4])
    return (F.embedding_bag(indices, table, offsets), F.embedding_bag(indices, table, offsets, mode="max",
            padding_idx=2), F.embedding_bag(indices, table, offsets, mode="sum", per_sample_weights=shares),
            F.embedding_bag(indices.reshape(1, 5), table, padding_idx=1),
            F.embedding_bag(indices, table, torch.tensor([0, 5]), include_last_offset=True))  # fmt: skip


def strided(x: torch.Tensor, source: torch.Tensor, diagonal: torch.Tensor) -> Any:
    return (torch.as_strided(x, (2, 3), (1, 2), 1), torch.as_strided(x, (3, 4), (2, 1)),
            torch.as_strided(x.t() + 0, (2, 3), (1, 2), 1), torch.as_strided_scatter(x, source, (2, 3), (1, 2), 1),
            torch.diagonal_scatter(x, diagonal, -1), torch.slice_scatter(x, source, 0, 0, 4, 2),
            torch.slice_scatter(x, source[:0], 0, 3, 1), torch.select_scatter(x, diagonal, 0, -1),
            x.put(torch.tensor([0, -1, 3, 3]), torch.tensor([1.0, 2, 3, 4]), accumulate=True))


def counts(x: torch.Tensor, numbers: torch.Tensor, weights: torch.Tensor, repeats: torch.Tensor) -> Any:
    return (torch.histc(x, 7), torch.histc(x, 5, -1, 1), torch.histc(x[:1], 4), torch.histc(x[:0], 3),
            torch.bincount(numbers), torch.bincount(numbers, weights, 9), torch.bincount(numbers[:0], minlength=2),
            weights.repeat_interleave(repeats, 0), *numbers.reshape(4, 5).mode(0),
            torch.nonzero_static(numbers.reshape(4, 5), size=6), torch.nonzero_static(numbers, size=99, fill_value=7))


def singles(numbers: torch.Tensor) -> Any:
    options = {"return_inverse": True, "return_counts": True}
    return (*torch.unique(numbers.reshape(4, 5), **options), *torch.unique_consecutive(numbers // 3, **options),
            torch.unique(numbers > 2), torch.unique(numbers[:0]))


def medians(x: torch.Tensor) -> Any:
    return x.nanmedian(), *x.nanmedian(0), *x.nanmedian(1, keepdim=True), x[:, 0].nanmedian()


def rounding(x: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor) -> Any:
    return (torch.fake_quantize_per_tensor_affine(x, 0.1, 3, -8, 7),
            torch.fake_quantize_per_tensor_affine(x, scales[0], zeros[0], -8, 7),
            torch.fake_quantize_per_channel_affine(x, scales, zeros, 1, 0, 255))


def quantization(x: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor) -> Any:
    whole = decomposed.quantize_per_tensor(x, 0.1, 3, -8, 7, torch.int8)
    columns = decomposed.quantize_per_channel(x, scales, zeros, 1, 0, 255, torch.uint8)
    return (whole, columns, decomposed.dequantize_per_tensor(whole, 0.1, 3, -8, 7, torch.int8),
            decomposed.dequantize_per_channel(columns, scales, zeros, 1, 0, 255, torch.uint8))


def experts(x: torch.Tensor, weights: torch.Tensor, y: torch.Tensor, ends: torch.Tensor) -> Any:
    return aten._grouped_mm(x, weights, ends), aten._grouped_mm(y, x.mT, ends)


def distance(score: torch.Tensor, b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return score + (q - k) * 0.1 * h


def flex(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, slopes: torch.Tensor) -> Any:
    """Scores that depend on places and on a captured tensor, a mask with a row that sees nothing, and shared heads."""
    mask = create_block_mask(lambda b, h, q, k: (q >= k) & (k > 0), None, None, 8, 8, device="cpu")
    return (flex_attention(query, query, query, score_mod=distance, block_mask=mask),
            flex_attention(query, key, value, enable_gqa=True, scale=0.3),
            flex_attention(query, query, query, score_mod=lambda score, b, h, q, k: score * slopes[h]))


def antialiased(x: torch.Tensor) -> Any:
    linear, cubic = {"mode": "bilinear", "antialias": True}, {"mode": "bicubic", "antialias": True}
    return (F.interpolate(x, size=(3, 4), **linear), F.interpolate(x, size=(5, 4), align_corners=True, **linear),
            F.interpolate(x, size=(9, 3), **cubic), F.interpolate(x, scale_factor=0.6, **cubic))


def widths(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> Any:
    return (x.view(torch.int8), x.view(torch.int16), x.view(torch.int64), y.view(torch.float32),
            z.view(torch.int32), z.view(torch.bfloat16), (y % 2).view(torch.bool), (y % 3 == 0).view(torch.uint8),
            (x > 0).view(torch.float32), (x > 0).view(torch.int16))


def wide_numbers(z: torch.Tensor, x: torch.Tensor) -> Any:
    """Views of complex numbers as others, and of others as these."""
    return (z.view(torch.float32), z.view(torch.int64), z.view(torch.uint8), z[0, 0].view(torch.int64) + 1,
            x.view(torch.complex64) * 2, x.double().view(torch.complex128), x.double().view(torch.complex64) + 1,
            x.view(torch.int16).view(torch.complex64) + 1)


def all_and_any(x: torch.Tensor) -> Any:
    return (*(aten._is_all_true(x > low) for low in (-99, 0)), *(aten._is_any_true(x > low) for low in (0, 99)))


def stated_types(x: torch.Tensor, y: torch.Tensor) -> Any:
    """Results of a wider type, in which the computation is, too: in f16 it would overflow or round."""
    norms = [torch.linalg.vector_norm(x, order, dim, dtype=dtype)
             for order in (2, 1, 3, 0, 0.5, inf, -inf) for dim in (None, 0) for dtype in (torch.float32, torch.float64)]
    wide = torch.float64
    return (*norms, torch.linalg.vector_norm(x[:1, :1], 3, dtype=wide), torch.norm(x, 3, 0, dtype=wide),
            torch.linalg.matrix_norm(x, dtype=wide), x.sum(dtype=wide), x.mean(0, dtype=wide), x.nansum(dtype=wide),
            x.prod(dtype=wide), x.prod(1, dtype=wide), x.cumsum(0, dtype=wide), x.cumprod(0, dtype=wide),
            x.softmax(0, dtype=wide), x.log_softmax(0, dtype=wide), F.softmin(x, 1, dtype=wide),
            torch.full_like(x, 0.1, dtype=wide), torch.ones_like(x, dtype=wide), x.new_full((2,), 0.1, dtype=wide),
            y.sum(dtype=torch.float16), y.cumsum(0, dtype=torch.float16), y.prod(dtype=torch.int8))  # fmt: skip


FAMILIES: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    "quantiles": (lambda x, p: (torch.erfinv(x), special.ndtri(p), special.log_ndtr(x), special.erfcx(x.clamp(-8))),
                  (REALS, PARTS)),
    "gamma": (gamma, (REALS, FINITE)),
    "bessel": (bessel, (REALS,)),
    "parts of numbers": (parts, (REALS,)),
    "divisors": (lambda x, y, z: (torch.gcd(x, y), torch.lcm(x, y), torch.gcd(x.int(), y.int()),
                                  torch.gcd(z, z.flip(0)), torch.lcm(z, z.flip(0)), torch.lcm(z, z.roll(1))),
                 (whole(-99, 99, 20), whole(-9, 99, 20).flip(0),
                  torch.tensor([1, 12, 100, 0, -4, -128, 18, 127, -128, -128], dtype=torch.int8))),
    "bags": (bags, (random(5, 3), random(5))),
    "short rows": (lambda table: tuple(F.embedding(torch.tensor([0, 1, 1]), table.clone(), max_norm=1.0, norm_type=p)
                                       for p in (0.0, 1.0, 2.0, 3.0, inf, -inf)), (random(5, 3),)),
    "scalar indices": (lambda x, i, y: (x.gather(0, i), x.scatter(0, i, y), x.scatter_add(0, i, y),
                                        x[0].gather(0, i * 0)),
                       (random(5), torch.tensor(2), torch.tensor(7.0))),
    "strides": (strided, (random(4, 3), random(2, 4)[:, :3].contiguous(), random(3))),
    "counts": (counts, (random(50), whole(0, 6, 20), random(20), whole(0, 4, 20))),
    "without repetitions": (singles, (whole(0, 6, 20),)),
    "functions of scores": (flex, (random(2, 4, 8, 16), random(2, 2, 8, 16), random(2, 2, 8, 16), random(4))),
    "antialiased": (antialiased, (random(2, 3, 8, 7),)),
    "widths": (widths, (random(3, 4), whole(0, 90, 2, 8, dtype=torch.uint8), random(2, 2).double())),
    "wide numbers": (wide_numbers, (torch.complex(random(3, 4), random(3, 4)), random(3, 4))),
    "all and any": (all_and_any, (random(3, 4),)),
    "medians": (medians, (torch.where(random(7, 3) > 0.4, nan, random(7, 3)),)),
    "stated types": (stated_types, (random(30, 40).half() * 300 + 1, whole(1, 9, 5))),
    "rounding": (rounding, (random(4, 3), random(3).abs() * 0.1, whole(0, 9, 3, dtype=torch.int32))),
    "quantization": (quantization, (random(4, 3), random(3).abs() * 0.1, whole(0, 9, 3))),
    "products of integers": (torch._int_mm, (whole(-9, 9, 20, 8, dtype=torch.int8),
                                             whole(-9, 9, 8, 16, dtype=torch.int8))),
    "experts": (experts, (random(8, 16).bfloat16(), random(3, 16, 8).bfloat16(), random(8, 16).bfloat16(),
                          torch.tensor([2, 2, 8], dtype=torch.int32))),
}  # fmt: skip


SLOW = "quantiles", "gamma", "bessel", "divisors"  # to interpret, as kernels


@pytest.mark.parametrize(("name", "path"), [
    pytest.param(name, path, marks=[pytest.mark.slow] if name in SLOW and path == "triton" else [])
    for name in FAMILIES for path in PATHS])  # fmt: skip
def test_families(name: str, path: str) -> None:
    function, tensors = FAMILIES[name]
    check(path, function, *tensors)


def test_strides_beyond_the_operand() -> None:
    def program(x: torch.Tensor) -> torch.Tensor:
        return torch.as_strided(x[:, :2], (2, 2), (1, 1))

    with pytest.raises(IrcError, match=r"torch\.unsupported[^$]*elements that the operand has not"):
        irc.from_torch(program, (random(3, 4),))
