"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""

import triton
import triton.language as tl


@triton.jit
def rms_norm_split_linear_neg(
    x_ptr,
    scale_ptr,
    w0_2048x2048_joined_ptr,
    cos_ptr,
    sin_ptr,
    out_ptr,
    out_ptr_1,
    out_ptr_2,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    ORDER: tl.constexpr = 8,
):
    """out bf16[4, 1024, 512], out_ptr_1 bf16[4, 32, 1024, 64], out_ptr_2 bf16[4, 8, 1024, 64] from
    x bf16[4, 1024, 2048], scale bf16[2048], w0_2048x2048_joined bf16[3072, 2048], cos bf16[1024, 64],
    sin bf16[1024, 64].
    """
    program = tl.program_id(0)
    blocks_m, blocks_n = tl.cdiv(4096, BLOCK_M), tl.cdiv(1536, BLOCK_N)
    block_m, block_n = tl.swizzle2d(program // blocks_n, program % blocks_n, blocks_m, blocks_n, ORDER)
    m = block_m * BLOCK_M + tl.arange(0, BLOCK_M)
    n = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    g = n // 32
    k_1 = n % 32
    j = m % 1024
    i_1 = m // 1024
    total_lanes = tl.full((BLOCK_M, BLOCK_K), 0.0, tl.float32)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    total_1 = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, 2048, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = tl.load(x_ptr + m[:, None] * 2048 + k[None, :]).to(tl.float32)
        scale = tl.load(scale_ptr + k[None, :]).to(tl.float32)
        mul = x * scale
        w0_2048x2048_joined = tl.load(w0_2048x2048_joined_ptr + (g[None, :] * 64 + k_1[None, :]) * 2048 + k[:, None])
        w0_2048x2048_joined_1 = tl.load(
            w0_2048x2048_joined_ptr + (g[None, :] * 64 + k_1[None, :]) * 2048 + k[:, None] + 65536
        )
        total_lanes += x * x
        total = tl.dot(mul.to(tl.bfloat16), w0_2048x2048_joined, total)
        total_1 = tl.dot(mul.to(tl.bfloat16), w0_2048x2048_joined_1, total_1)
    total_2 = tl.sum(total_lanes, axis=1, keep_dims=True)
    sqrt = tl.sqrt(total_2 / 2048.0 + 1e-05)
    div = total / sqrt
    tl.store(out_ptr + (m[:, None] * 8 + g[None, :]) * 64 + k_1[None, :] - 2560, div, mask=g[None, :] >= 40)
    cos = tl.load(cos_ptr + j[:, None] * 64 + k_1[None, :]).to(tl.float32)
    div_1 = total_1 / sqrt
    sin = tl.load(sin_ptr + j[:, None] * 64 + k_1[None, :]).to(tl.float32)
    add = div * cos + div_1 * -1.0 * sin
    tl.store(
        out_ptr_1 + ((i_1[:, None] * 32 + g[None, :]) * 1024 + j[:, None]) * 64 + k_1[None, :],
        add,
        mask=g[None, :] < 32,
    )
    inside = (g[None, :] >= 32) & (g[None, :] < 40)
    tl.store(
        out_ptr_2 + ((i_1[:, None] * 8 + g[None, :]) * 1024 + j[:, None]) * 64 + k_1[None, :] - 2097152,
        add,
        mask=inside,
    )
    tl.store(out_ptr + (m[:, None] * 8 + g[None, :]) * 64 + k_1[None, :] - 2528, div_1, mask=g[None, :] >= 40)
    cos_1 = tl.load(cos_ptr + j[:, None] * 64 + k_1[None, :] + 32).to(tl.float32)
    sin_1 = tl.load(sin_ptr + j[:, None] * 64 + k_1[None, :] + 32).to(tl.float32)
    add_1 = div_1 * cos_1 + div * sin_1
    tl.store(
        out_ptr_1 + ((i_1[:, None] * 32 + g[None, :]) * 1024 + j[:, None]) * 64 + k_1[None, :] + 32,
        add_1,
        mask=g[None, :] < 32,
    )
    tl.store(
        out_ptr_2 + ((i_1[:, None] * 8 + g[None, :]) * 1024 + j[:, None]) * 64 + k_1[None, :] - 2097120,
        add_1,
        mask=inside,
    )
