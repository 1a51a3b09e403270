"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""

import triton
import triton.language as tl


@triton.jit
def transpose(x_ptr, out_ptr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """out f32[3, 70, 50] from x f32[3, 50, 70]."""
    m = ((tl.program_id(0) // tl.cdiv(50, BLOCK_N)) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    i_1 = m // 70
    j = m % 70
    n = ((tl.program_id(0) % tl.cdiv(50, BLOCK_N)) * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    m_inside = m < 210
    n_inside = n < 50
    inside = m_inside & n_inside
    x = tl.load(x_ptr + (i_1 * 50 + n) * 70 + j, mask=inside, other=0.0)
    tl.store(out_ptr + (i_1 * 70 + j) * 50 + n, x + 1.0, mask=inside)
