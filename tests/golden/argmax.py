"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""

import triton
import triton.language as tl


@triton.jit
def max_or_nan(x, axis: tl.constexpr, keep_dims: tl.constexpr):
    """The greatest element, or NaN if any element is NaN: tl.max ignores NaN."""
    nan = tl.max((x != x).to(tl.int32), axis=axis, keep_dims=keep_dims)
    return tl.where(nan != 0, float("nan"), tl.max(x, axis=axis, keep_dims=keep_dims))


@triton.jit
def argmax(x_ptr, out_ptr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """out i64[2, 5] from x f32[2, 16, 5]."""
    m = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    i_1 = m // 5
    n = tl.arange(0, BLOCK_N)[None, :]
    k = m % 5
    m_inside = m < 10
    x = tl.load(x_ptr + (i_1 * 16 + n) * 5 + k, mask=m_inside, other=0.0)
    greatest = max_or_nan(x, axis=1, keep_dims=True)
    select = tl.where(tl.where(greatest != greatest, x != x, x == greatest), n.to(tl.int64), 9223372036854775807)
    least = tl.min(select, axis=1, keep_dims=True)
    tl.store(out_ptr + i_1 * 5 + k, least, mask=m_inside)
