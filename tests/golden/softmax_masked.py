"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""

import triton
import triton.language as tl


@triton.jit
def softmax_masked(x_ptr, mask_ptr, out_ptr, v9_B, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, INDEX: tl.constexpr):
    """out f32[B, 4, 9, 9] from x f32[B, 4, 9, 9], mask bool[B, 1, 9, 9]."""
    m = (tl.program_id(0).to(INDEX) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    b = m // 36
    k = m % 9
    n = tl.arange(0, BLOCK_N)[None, :]
    m_inside = m < tl.cast(v9_B, INDEX) * 4
    n_inside = n < 9
    j = m // 9 % 4
    inside = m_inside & n_inside
    mask = tl.load(mask_ptr + (b * 9 + k) * 9 + n, mask=inside, other=False)
    x = tl.load(x_ptr + ((b * 4 + j) * 9 + k) * 9 + n, mask=inside, other=0.0)
    select = tl.where(mask, x * 0.125, float("-inf"))
    greatest = tl.max(select, axis=1, keep_dims=True)
    exp = tl.exp(select - greatest)
    total = tl.sum(exp, axis=1, keep_dims=True)
    tl.store(out_ptr + ((b * 4 + j) * 9 + k) * 9 + n, exp / total, mask=inside)
