"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""

import triton
import triton.language as tl


@triton.jit
def parts_2(x_ptr, partial_sum_ptr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """partial_sum f32[512] from x bf16[16777216]."""
    m = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    total_lanes = tl.full((BLOCK_M, BLOCK_N), 0.0, tl.float32)
    for start in range(0, 32768, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)[None, :]
        x = tl.load(x_ptr + m * 32768 + n).to(tl.float32)
        total_lanes += x * x
    total = tl.sum(total_lanes, axis=1, keep_dims=True)
    tl.store(partial_sum_ptr + m, total)


@triton.jit
def reduce_sum_sqrt_cast(partial_sum_ptr, out_ptr, BLOCK_N: tl.constexpr):
    """out bf16[] from partial_sum f32[512]."""
    n = tl.arange(0, BLOCK_N)
    partial_sum = tl.load(partial_sum_ptr + n)
    whole_sum = tl.sum(partial_sum, axis=0)
    tl.store(out_ptr, tl.sqrt(whole_sum))
