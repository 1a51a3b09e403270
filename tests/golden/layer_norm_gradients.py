"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""

import triton
import triton.language as tl


@triton.jit
def parts_18(
    x_ptr,
    g_ptr,
    w_ptr,
    out_ptr,
    partial_sum_ptr,
    partial_sum_1_ptr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """out bf16[4096, 768], partial_sum f32[256, 768], partial_sum_1 f32[256, 768] from x bf16[4096, 768],
    g bf16[4096, 768], w bf16[768].
    """
    n = tl.arange(0, BLOCK_N)[None, :]
    n_inside = n < 768
    b = tl.program_id(0)
    w = tl.load(w_ptr + n, mask=n_inside, other=0.0).to(tl.float32)
    total_lanes = tl.full((BLOCK_M, BLOCK_N), 0.0, tl.float32)
    total_lanes_1 = tl.full((BLOCK_M, BLOCK_N), 0.0, tl.float32)
    for start in range(0, 16, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)[:, None]
        x = tl.load(x_ptr + (b * 16 + m) * 768 + n, mask=n_inside, other=0.0).to(tl.float32)
        total = tl.sum(x, axis=1, keep_dims=True)
        div = total / 768.0
        sub = x - div.to(tl.bfloat16).to(tl.float32)
        total_1 = tl.sum(tl.where(n_inside, sub * sub, 0.0), axis=1, keep_dims=True)
        add = (total_1 / 768.0).to(tl.bfloat16).to(tl.float32) + 1.001358e-05
        g = tl.load(g_ptr + (b * 16 + m) * 768 + n, mask=n_inside, other=0.0).to(tl.float32)
        mul = g * w
        total_2 = tl.sum(mul, axis=1, keep_dims=True)
        sub_1 = x - div
        total_3 = tl.sum(tl.where(n_inside, sub_1 * sub_1, 0.0), axis=1, keep_dims=True)
        cast = (sub_1 / tl.sqrt(total_3 / 768.0 + 1.00136e-05)).to(tl.bfloat16).to(tl.float32)
        total_4 = tl.sum(tl.where(n_inside, mul * cast, 0.0), axis=1, keep_dims=True)
        sub_2 = mul - (total_2 / 768.0).to(tl.bfloat16).to(tl.float32) - cast * (total_4 / 768.0).to(tl.bfloat16).to(tl.float32)
        tl.store(
            out_ptr + (b * 16 + m) * 768 + n,
            (1.0 / tl.sqrt(add)).to(tl.bfloat16).to(tl.float32) * sub_2,
            mask=n_inside,
        )
        total_lanes += g * cast
        total_lanes_1 += g
    total = tl.sum(total_lanes, axis=0, keep_dims=True)
    tl.store(partial_sum_ptr + b * 768 + n, total, mask=n_inside)
    total_1 = tl.sum(total_lanes_1, axis=0, keep_dims=True)
    tl.store(partial_sum_1_ptr + b * 768 + n, total_1, mask=n_inside)


@triton.jit
def reduce_sum_cast(
    partial_sum_ptr,
    partial_sum_1_ptr,
    out_ptr,
    out_ptr_1,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """out bf16[768], out_ptr_1 bf16[768] from partial_sum f32[256, 768], partial_sum_1 f32[256, 768]."""
    m = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    n = tl.arange(0, BLOCK_N)[None, :]
    partial_sum = tl.load(partial_sum_ptr + n * 768 + m)
    whole_sum = tl.sum(partial_sum, axis=1, keep_dims=True)
    tl.store(out_ptr + m, whole_sum)
    partial_sum_1 = tl.load(partial_sum_1_ptr + n * 768 + m)
    whole_sum_1 = tl.sum(partial_sum_1, axis=1, keep_dims=True)
    tl.store(out_ptr_1 + m, whole_sum_1)
