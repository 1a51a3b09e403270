"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""

import triton
import triton.language as tl


@triton.jit
def max_or_nan(x, axis: tl.constexpr, keep_dims: tl.constexpr):
    """The greatest element, or NaN if any element is NaN: tl.max ignores NaN."""
    nan = tl.max((x != x).to(tl.int32), axis=axis, keep_dims=keep_dims)
    return tl.where(nan != 0, float("nan"), tl.max(x, axis=axis, keep_dims=keep_dims))


@triton.jit
def max_columns(x_ptr, out_ptr, B, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, INDEX: tl.constexpr):
    """out f32[70] from x f32[B, 70]."""
    m = (tl.program_id(0).to(INDEX) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    m_inside = m < 70
    greatest_lanes = tl.full((BLOCK_M, BLOCK_N), float("-inf"), tl.float32)
    for start in range(0, B, BLOCK_N):
        n = (start + tl.arange(0, BLOCK_N)[None, :]).to(INDEX)
        n_inside = n < B
        x = tl.load(x_ptr + n * 70 + m, mask=m_inside & n_inside, other=float("-inf"))
        greatest_lanes = tl.maximum(greatest_lanes, x, propagate_nan=tl.PropagateNan.ALL)
    greatest = max_or_nan(greatest_lanes, axis=1, keep_dims=True)
    tl.store(out_ptr + m, greatest, mask=m_inside)
