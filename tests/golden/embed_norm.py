"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""

import triton
import triton.language as tl


@triton.jit(debug=True)
def embed_norm(
    table_ptr,
    ids_ptr,
    scale_ptr,
    bias_ptr,
    out_ptr,
    B_S,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    INDEX: tl.constexpr,
):
    """out f32[B, S, 24] from table f32[30, 24], ids i64[B, S], scale f32[24], bias f32[24]."""
    m = (tl.program_id(0).to(INDEX) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    m_inside = m < B_S
    n = tl.arange(0, BLOCK_N)[None, :]
    n_inside = n < 24
    ids = tl.load(ids_ptr + m, mask=m_inside, other=0)
    ids_1 = tl.where(ids < 0, ids + 30, ids)
    tl.device_assert((ids_1 >= 0) & (ids_1 < 30), "an index is out of range", mask=m_inside)
    table = tl.load(table_ptr + ids_1 * 24 + n, mask=m_inside & n_inside & (ids_1 >= 0) & (ids_1 < 30), other=0.0)
    total = tl.sum(table, axis=1, keep_dims=True)
    sub = table - total / 24.0
    total_1 = tl.sum(tl.where(n_inside, sub * sub, 0.0), axis=1, keep_dims=True)
    scale = tl.load(scale_ptr + n, mask=n_inside, other=0.0)
    bias = tl.load(bias_ptr + n, mask=n_inside, other=0.0)
    tl.store(out_ptr + m * 24 + n, sub / tl.sqrt(total_1 / 24.0 + 1e-05) * scale + bias, mask=m_inside & n_inside)
