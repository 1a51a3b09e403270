"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""

import triton
import triton.language as tl


@triton.jit
def layer_norm_heads(x_ptr, scale_ptr, bias_ptr, out_ptr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """out f32[2, 6, 9, 16] from x f32[2, 9, 96], scale f32[96], bias f32[96]."""
    m = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    i_1 = m // 9
    j = m % 9
    n = tl.arange(0, BLOCK_N)[None, :]
    m_inside = m < 18
    n_inside = n < 96
    inside = m_inside & n_inside
    x = tl.load(x_ptr + (i_1 * 9 + j) * 96 + n, mask=inside, other=0.0)
    total = tl.sum(x, axis=1, keep_dims=True)
    sub = x - total / 96.0
    total_1 = tl.sum(tl.where(n_inside, sub * sub, 0.0), axis=1, keep_dims=True)
    scale = tl.load(scale_ptr + n, mask=n_inside, other=0.0)
    bias = tl.load(bias_ptr + n, mask=n_inside, other=0.0)
    tl.store(
        out_ptr + ((i_1 * 6 + n // 16) * 9 + j) * 16 + n % 16,
        sub / tl.sqrt(total_1 / 96.0 + 1e-05) * scale + bias,
        mask=inside,
    )
