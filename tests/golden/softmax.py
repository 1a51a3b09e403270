"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""

import triton
import triton.language as tl


@triton.jit
def softmax(x_ptr, out_ptr, B, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, INDEX: tl.constexpr):
    """out f32[B, 100] from x f32[B, 100]."""
    m = (tl.program_id(0).to(INDEX) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    n = tl.arange(0, BLOCK_N)[None, :]
    m_inside = m < B
    n_inside = n < 100
    inside = m_inside & n_inside
    x = tl.load(x_ptr + m * 100 + n, mask=inside, other=float("-inf"))
    greatest = tl.max(x, axis=1, keep_dims=True)
    exp = tl.exp(x - greatest)
    total = tl.sum(exp, axis=1, keep_dims=True)
    tl.store(out_ptr + m * 100 + n, exp / total, mask=inside)
