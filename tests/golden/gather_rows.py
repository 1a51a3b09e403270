"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""

import triton
import triton.language as tl


@triton.jit(debug=True)
def gather_rows(x_ptr, i_ptr, out_ptr, v7_S, BLOCK_I: tl.constexpr, INDEX: tl.constexpr):
    """out f32[4, S, 7] from x f32[50, 7], i i64[4, S]."""
    i = tl.program_id(0).to(INDEX) * BLOCK_I + tl.arange(0, BLOCK_I)
    s = i // 7
    i_inside = i < tl.cast(v7_S, INDEX) * 4
    k = i % 7
    i_1 = tl.load(i_ptr + s, mask=i_inside, other=0)
    i_1_1 = tl.where(i_1 < 0, i_1 + 50, i_1)
    tl.device_assert((i_1_1 >= 0) & (i_1_1 < 50), "an index is out of range", mask=i_inside)
    x = tl.load(x_ptr + i_1_1 * 7 + k, mask=i_inside & (i_1_1 >= 0) & (i_1_1 < 50), other=0.0)
    tl.store(out_ptr + s * 7 + k, x + 1.0, mask=i_inside)
