"""Rows of attention."""

from __future__ import annotations

from irc import dims, ops
from irc.diagnostics import fail
from irc.dtypes import BOOL, F32, I64, from_onnx
from irc.frontends.onnx.reading import carry, of_rank, wants
from irc.frontends.onnx.table import reads
from irc.ir import Value
from irc.op import literal


@reads("Attention", since=23)
def attention(
    q: Value, k: Value, v: Value, mask: Value | None = None, past_key: Value | None = None,
    past_value: Value | None = None, nonpad_kv_seqlen: Value | None = None, /, *,
    is_causal: int = 0, kv_num_heads: int = 0, q_num_heads: int = 0, qk_matmul_output_mode: int = 0,
    scale: float | None = None, softcap: float = 0.0, softmax_precision: int = 1,
    left_window_size: int = -1, right_window_size: int = -1,
):  # fmt: skip
    if nonpad_kv_seqlen is not None or wants(3) or softcap or (left_window_size, right_window_size) != (-1, -1):
        carry("it has lengths or windows, caps the scores or gives them out")
    if from_onnx(softmax_precision) is not F32:
        carry("the softmax is not computed in f32")
    flat = q.rank == 3
    batch, queries = of_rank(q, 3 if flat else 4, "Attention: Q")[0], q.shape[-2]
    if flat:
        q, k, v = heads(q, q_num_heads), heads(k, kv_num_heads), heads(v, kv_num_heads)
    past = 0 if past_key is None else of_rank(past_key, 4, "Attention: past_key")[2]
    if past_key is not None and past_value is not None:
        k, v = ops.concat(past_key, k, axis=2), ops.concat(past_value, v, axis=2)
    keys = of_rank(k, 4, "Attention: K")[2]
    if mask is not None and mask.rank and all(dims.equal(mask.shape[-1], fit) is False for fit in (keys, 1)):
        carry("the mask is shorter than the keys")
    if is_causal and past != 0:
        mask, is_causal = after_past(mask, queries, keys, past), 0
    result = ops.attention(q, k, v, mask, scale=scale, causal=bool(is_causal), masked_rows="zero")
    if flat:
        result = ops.reshape(ops.transpose(result, permutation=(0, 2, 1, 3)),
                             shape=(batch, queries, result.shape[1] * result.shape[3]))
    return result, k, v


def heads(x: Value, count: int) -> Value:
    """[B, S, H*D] as [B, H, S, D]."""
    if count < 1:
        raise fail("onnx.invalid", f"Attention: {x.type} needs q_num_heads and kv_num_heads")
    batch, length, width = of_rank(x, 3, "Attention: K or V")
    apart = ops.reshape(x, shape=(batch, length, count, dims.floor_divide(width, count)))
    return ops.transpose(apart, permutation=(0, 2, 1, 3))


def after_past(mask: Value | None, queries, keys, past) -> Value:
    """The mask in which query s attends to the keys up to s + past only."""
    key = ops.iota(shape=(1, keys), axis=1, dtype=I64)
    query = ops.iota(shape=(queries, 1), axis=0, dtype=I64)
    earlier = ops.less_equal(key, ops.add(query, ops.dim(value=past)))
    if mask is None:
        return earlier
    if mask.dtype is BOOL:
        return ops.bitwise_and(mask, earlier)
    return ops.select(earlier, mask, literal(float("-inf"), mask.dtype))
