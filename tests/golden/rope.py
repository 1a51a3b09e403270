"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""

import triton
import triton.language as tl


@triton.jit
def rope(x_ptr, cosine_ptr, sine_ptr, out_ptr, v64_S, S, v128_S, BLOCK_I: tl.constexpr, INDEX: tl.constexpr):
    """out f32[2, S, 64] from x f32[2, S, 64], cosine f32[S, 64], sine f32[S, 64]."""
    i = tl.program_id(0).to(INDEX) * BLOCK_I + tl.arange(0, BLOCK_I)
    i_1 = i // v64_S
    k = i % 64
    s = i // 64 % S
    i_inside = i < v128_S
    x = tl.load(x_ptr + (i_1 * S + s) * 64 + k, mask=i_inside, other=0.0)
    cosine = tl.load(cosine_ptr + s * 64 + k, mask=i_inside, other=0.0)
    x_1 = tl.load(x_ptr + (i_1 * S + s) * 64 + k + 32, mask=i_inside & (k < 32), other=0.0)
    x_2 = tl.load(x_ptr + (i_1 * S + s) * 64 + k - 32, mask=i_inside & (k >= 32), other=0.0)
    sine = tl.load(sine_ptr + s * 64 + k, mask=i_inside, other=0.0)
    tl.store(out_ptr + (i_1 * S + s) * 64 + k, x * cosine + tl.where(k < 32, x_1 * -1.0, x_2) * sine, mask=i_inside)
