"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""

import triton
import triton.language as tl


@triton.jit
def add_bias(x_ptr, b_ptr, out_ptr, B_S, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, INDEX: tl.constexpr):
    """out f32[B, S, 65] from x f32[B, S, 65], b f32[65]."""
    n = ((tl.program_id(0).to(INDEX) % tl.cdiv(65, BLOCK_N)) * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    m = ((tl.program_id(0).to(INDEX) // tl.cdiv(65, BLOCK_N)) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    m_inside = m < B_S
    n_inside = n < 65
    inside = m_inside & n_inside
    x = tl.load(x_ptr + m * 65 + n, mask=inside, other=0.0)
    b = tl.load(b_ptr + n, mask=n_inside, other=0.0)
    tl.store(out_ptr + m * 65 + n, tl.maximum(x + b, 0.0, propagate_nan=tl.PropagateNan.ALL), mask=inside)
