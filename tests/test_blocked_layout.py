"""Means and gates between convolutions, in ONNX Runtime's layout of channels in blocks."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest

from tests.onnx_models import check_close, in_runtime, model
from tests.test_onnx_rewrites import checked, compiled, random, with_weights

POOLED = "m = ReduceMean<keepdims=1>(h, axes)"


def squeeze_excite(mean: str = POOLED, shape: str = "1,16,6,5", gate: str = "s = Sigmoid(v)",
                   last: str = "y = Conv(p, w3)", axes: Any = (2, 3)) -> onnx.ModelProto:  # fmt: skip
    """A convolution whose channels are scaled by what is computed of their means, and one after it."""
    text = f"""(float[{shape}] x) => (y) {{
        c = Conv<pads=[1,1,1,1]>(x, w0) h = HardSwish(c) {mean} u = Conv(m, w1) r = Relu(u) v = Conv(r, w2) {gate}
        p = Mul(h, s) {last} }}"""
    return with_weights(model(text, 18), w0=random(24, 16, 3, 3) / 8, w1=random(8, 24, 1, 1), w2=random(24, 8, 1, 1),
                        w3=random(16, 24, 1, 1), axes=np.array(axes))  # fmt: skip


@pytest.mark.parametrize("mean", [POOLED, "m = GlobalAveragePool(h)"])
@pytest.mark.parametrize("axes", [(2, 3), (-1, -2)])
def test_squeeze_and_excite_keeps_the_layout(mean: str, axes: Any) -> None:
    x = random(1, 16, 6, 5)
    operators = checked(squeeze_excite(mean, axes=axes), {"x": x})
    assert operators["GlobalAveragePool"] == operators["Resize"] == 1 and operators["ReduceMean"] == 0
    x[0, 3, 2, 2] = np.nan
    checked(squeeze_excite(mean), {"x": x})
    checked(squeeze_excite(mean), {"x": np.full_like(x, np.inf)})


@pytest.mark.parametrize(("batch", "size"), [("N", (3, 16, 6, 5)), ("N", (0, 16, 6, 5)), ("2", (2, 16, 6, 5))])
def test_batches(batch: str, size: tuple[int, ...]) -> None:
    assert checked(squeeze_excite(shape=f"{batch},16,6,5"), {"x": random(*size)})["Resize"] == 1


@pytest.mark.parametrize(("options", "size"), [
    ({"shape": "1,16,H,5"}, (1, 16, 6, 5)),  # the height is not known
    ({"shape": "1,16,1,1"}, (1, 16, 1, 1)),  # nothing is broadcast
    ({"last": "y = Identity(p)"}, (1, 16, 6, 5)),  # no convolution reads the product
    ({"gate": "f = ReduceMean<keepdims=1>(v, one) s = Sigmoid(f)"}, (1, 16, 6, 5)),  # one number for all channels
])  # fmt: skip
def test_other_products_stay(options: dict[str, str], size: tuple[int, ...]) -> None:
    proto = with_weights(squeeze_excite(**options), one=np.array([1]))
    operators = checked(proto, {"x": random(*size)})
    assert operators["Resize"] == operators["Expand"] == 0


@pytest.mark.parametrize(("body", "pools"), [
    ("c = Conv(x, w) y = ReduceMean<keepdims=0>(c, axes)", 1),
    ("c = Conv(x, w) r = Relu(c) a = Add(r, c) y = ReduceMean<keepdims=1>(a, axes)", 1),
    ("c = Conv(x, w) p = MaxPool<kernel_shape=[2,2]>(c) y = ReduceMean<keepdims=1>(p, axes)", 1),
    ("c = Conv(x, w) k = Constant<value_float=1.702>() m = Mul(c, k) s = Sigmoid(m) q = Mul(c, s) "
     "y = ReduceMean<keepdims=1>(q, axes)", 1),  # QuickGelu
    ("c = Conv(x, w) k = Constant<value_float=0.7071067811865476>() h = Mul(c, k) e = Erf(h) "
     "one_ = Constant<value_float=1.0>() f = Add(e, one_) p = Mul(c, f) half = Constant<value_float=0.5>() "
     "g = Mul(p, half) y = ReduceMean<keepdims=1>(g, axes)", 1),  # Gelu
    ("c = Conv(x, w) y = ReduceMean<keepdims=1>(c, one)", 0),
    ("c = Conv(x, w) y = ReduceMean<keepdims=1>(c, all)", 0),
    ("c = Conv(x, w) y = ReduceMax<keepdims=1>(c, axes)", 0),
    ("y = ReduceMean<keepdims=1>(x, axes)", 0),  # not computed by a convolution
    ("c = Conv(x, w) t = Erf(c) y = ReduceMean<keepdims=1>(t, axes)", 0),
    ("c = Conv(x, v) y = ReduceMean<keepdims=1>(c, axes)", 0),  # by one whose weights are computed
])  # fmt: skip
@pytest.mark.parametrize("shape", ["2,16,6,5", "N,16,6,5", "2,16,H,5"])
def test_means_of_images_are_pooled(body: str, pools: int, shape: str) -> None:
    axes = {"axes": np.array([2, 3]), "one": np.array([2]), "all": np.array([1, 2, 3])}
    proto = with_weights(model(f"(float[{shape}] x, float[16,16,1,1] v) => (y) {{ {body} }}", 18),
                         w=random(16, 16, 1, 1), **axes)  # fmt: skip
    inputs = {"x": random(2, 16, 6, 5), "v": random(16, 16, 1, 1, seed=1)}
    assert checked(proto, inputs)["GlobalAveragePool"] == (pools if "H" not in shape else 0)


@pytest.mark.parametrize(("size", "pools"), [(32, 1), (33, 0), (200, 0)])
def test_means_of_large_images_keep_their_digits(size: int, pools: int) -> None:
    proto = with_weights(model(f"(float[1,4,{size},{size}] x) => (y) {{ c = Conv(x, w) y = ReduceMean(c, axes) }}", 18),
                         w=np.eye(4, dtype=np.float32)[:, :, None, None], axes=np.array([2, 3]))  # fmt: skip
    assert checked(proto, {"x": random(1, 4, size, size) + 100})["GlobalAveragePool"] == pools


def test_other_types_and_targets_keep_their_operators() -> None:
    proto = squeeze_excite()
    assert checked(proto, {"x": random(1, 16, 6, 5)}, "portable")["Resize"] == 0
    half = onnx.ModelProto.FromString(proto.SerializeToString())
    half.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    for tensor in half.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float16), tensor.name))
    rewritten = compiled(half)
    assert "Resize" not in {node.op_type for node in rewritten.graph.node}
    x = random(1, 16, 6, 5).astype(np.float16)
    for actual, expected in zip(in_runtime(rewritten, {"x": x}), in_runtime(half, {"x": x}), strict=True):
        check_close(actual, expected, 5e-3)


@pytest.mark.parametrize(("options", "scales"), [
    ("mode=\"nearest\", coordinate_transformation_mode=\"asymmetric\", nearest_mode=\"floor\"", [1, 1, 2, 2]),
    ("mode=\"nearest\", coordinate_transformation_mode=\"half_pixel\"", [1, 1, 1, 3]),
    ("mode=\"linear\"", [1, 1, 2, 2]),
])  # fmt: skip
def test_nearest_resizing_states_all_scales(options: str, scales: list[float]) -> None:
    """As ONNX Runtime requires to resize in blocks of channels."""
    proto = with_weights(model(f"(float[1,2,3,4] x) => (y) {{ y = Resize<{options}>(x, , scales) }}", 18),
                         scales=np.array(scales, np.float32))  # fmt: skip
    assert checked(proto, {"x": random(1, 2, 3, 4)}) == Counter({"Resize": 1})
    (node,) = compiled(proto).graph.node
    assert any(each.name == "axes" for each in node.attribute) == ("linear" in options)
