"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""

import triton
import triton.language as tl


@triton.jit
def softmax_looped(x_ptr, out_ptr, S, B, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, INDEX: tl.constexpr):
    """out f32[B, S] from x f32[B, S]."""
    m = (tl.program_id(0).to(INDEX) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    m_inside = m < B
    greatest_lanes = tl.full((BLOCK_M, BLOCK_N), float("-inf"), tl.float32)
    total_lanes = tl.full((BLOCK_M, BLOCK_N), 0.0, tl.float32)
    for start in range(0, S, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)[None, :]
        n_inside = n < S
        x = tl.load(x_ptr + m * S + n, mask=m_inside & n_inside, other=float("-inf"))
        rescale = tl.maximum(greatest_lanes, x)
        reference = tl.where(rescale == float("-inf"), 0.0, rescale)
        greatest_lanes, rescale = rescale, tl.exp(greatest_lanes - reference)
        total_lanes = total_lanes * rescale + tl.exp(x - reference)
    greatest = tl.max(greatest_lanes, axis=1, keep_dims=True)
    total = tl.sum(total_lanes * tl.exp(greatest_lanes - greatest), axis=1, keep_dims=True)
    for start in range(0, S, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)[None, :]
        n_inside = n < S
        inside = m_inside & n_inside
        x = tl.load(x_ptr + m * S + n, mask=inside, other=float("-inf"))
        tl.store(out_ptr + m * S + n, tl.exp(x - greatest) / total, mask=inside)
