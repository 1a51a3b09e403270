"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""

import triton
import triton.language as tl


@triton.jit
def pad(x_ptr, out_ptr, BLOCK_I: tl.constexpr):
    """out f32[8, 10] from x f32[5, 7]."""
    i = tl.program_id(0) * BLOCK_I + tl.arange(0, BLOCK_I)
    i_1 = i // 10
    j = i % 10
    i_inside = i < 80
    x = tl.load(x_ptr + i_1 * 7 + j - 1, mask=i_inside & (i_1 < 5) & (j >= 1) & (j < 8), other=0.0)
    tl.store(out_ptr + i_1 * 10 + j, tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL), mask=i_inside)
