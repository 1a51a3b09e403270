"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""

import triton
import triton.language as tl


@triton.jit
def layer_norm(x_ptr, s_ptr, b_ptr, out_ptr, B_S, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, INDEX: tl.constexpr):
    """out f32[B, S, 48] from x f32[B, S, 48], s f32[48], b f32[48]."""
    n = tl.arange(0, BLOCK_N)[None, :]
    m = (tl.program_id(0).to(INDEX) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    m_inside = m < B_S
    n_inside = n < 48
    inside = m_inside & n_inside
    x = tl.load(x_ptr + m * 48 + n, mask=inside, other=0.0)
    total = tl.sum(x, axis=1, keep_dims=True)
    sub = x - total / 48.0
    total_1 = tl.sum(tl.where(n_inside, sub * sub, 0.0), axis=1, keep_dims=True)
    s = tl.load(s_ptr + n, mask=n_inside, other=0.0)
    b = tl.load(b_ptr + n, mask=n_inside, other=0.0)
    tl.store(out_ptr + m * 48 + n, sub / tl.sqrt(total_1 / 48.0 + 1e-05) * s + b, mask=inside)
