"""Rewrites of programs for ONNX Runtime's CPU provider: what each matches and leaves, and that results stay."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest

import irc
from irc.backends.onnx import PIPELINE, Target, emit
from irc.driver.models import Settings
from irc.frontends.onnx import from_model
from irc.ranges import number_range
from tests.onnx_models import NO_FOLDER, check_close, in_runtime, model

LOWEST = float(np.finfo(np.float32).min)


def compiled(proto: onnx.ModelProto, target: str = "cpu") -> onnx.ModelProto:
    module = irc.opt(from_model(proto, NO_FOLDER), PIPELINE, backend="onnx", settings=Settings(target=target))
    return emit(module, target=Target(target))


def nodes(proto: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node)


def checked(proto: onnx.ModelProto, inputs: dict[str, Any], target: str = "cpu") -> Counter[str]:
    """The operators of the compiled model, whose results are those of the model."""
    rewritten = compiled(proto, target)
    for actual, expected in zip(in_runtime(rewritten, inputs), in_runtime(proto, inputs), strict=True):
        check_close(actual, expected)
    return nodes(rewritten)


def random(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def with_weights(proto: onnx.ModelProto, **arrays: Any) -> onnx.ModelProto:
    """The model with these inputs as constants."""
    kept = [info for info in proto.graph.input if info.name not in arrays]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(array), name)
                                   for name, array in arrays.items())  # fmt: skip
    return proto


# -- flatten_rows and bias ---------------------------------------------------------------------------------------


def layer(rows: str, opset: int = 21) -> onnx.ModelProto:
    """A product with a bias, a sum and a norm of rows of these extents."""
    text = f"""(float[{rows},96] x) => (y) {{
        p = MatMul(x, w)
        q = Add(p, b)
        r = Gelu(q)
        s = Add(r, x)
        y = LayerNormalization<axis=-1>(s, g, g) }}"""
    return with_weights(model(text, opset), w=random(96, 96) / 10, b=random(96), g=random(96))


@pytest.mark.parametrize(("rows", "shape"), [("2,5", (2, 5)), ("1,5", (1, 5)), ("2,3,4", (2, 3, 4)), ("2,S", (2, 3)),
                                             ("2,S", (2, 0)), ("2,S", (2, 1)), ("B,5", (3, 5))])  # fmt: skip
def test_products_and_norms_are_of_matrices(rows: str, shape: tuple[int, ...]) -> None:
    operators = checked(layer(rows), {"x": random(*shape, 96)})
    assert operators["Gemm"] == 1 and operators["MatMul"] == 0 and operators["Add"] == 1
    x = random(*shape, 96)
    x[..., :1] = np.nan
    checked(layer(rows), {"x": x})


def test_a_reshape_stays_behind_what_is_pointwise_alone() -> None:
    """ONNX Runtime makes one node of a convolution and the activation that is next to it."""
    proto = with_weights(model("(float[2,6,5] x) => (y) { c = Conv(x, w) s = Sigmoid(c) y = Reshape(s, shape) }"),
                         w=random(4, 6, 1), shape=np.array([8, 5]))  # fmt: skip
    assert list(checked(proto, {"x": random(2, 6, 5)})) == ["Conv", "Sigmoid", "Reshape"]


@pytest.mark.parametrize(("rows", "shape", "target"), [("B,S", (2, 3), "cpu"), ("2,0", (2, 0), "cpu"),
                                                       ("2,5", (2, 5), "portable")])  # fmt: skip
def test_rows_stay_where_they_cannot_be_shaped_back_or_the_target_is_portable(
    rows: str, shape: tuple[int, ...], target: str
) -> None:
    operators = checked(layer(rows), {"x": random(*shape, 96)}, target)
    assert operators["Gemm"] == 0 and operators["Reshape"] == 0


def test_a_region_stays_where_its_reshapes_would_cost_more_than_they_save() -> None:
    """Nothing is added to the product, and there is no norm: two reshapes would come, and none would go."""
    proto = with_weights(model("(float[2,5,6] x) => (y) { p = MatMul(x, w) y = Relu(p) }"), w=random(6, 6))
    assert checked(proto, {"x": random(2, 5, 6)}) == Counter({"MatMul": 1, "Relu": 1})


def test_what_has_a_product_of_matrices_beside_it_is_of_matrices() -> None:
    """As PyTorch exports `addmm`: the reshapes around the product go."""
    proto = with_weights(model("""(float[2,5,6] x) => (y) {
        n = LayerNormalization<axis=-1>(x, g, g)
        m = Reshape(n, rows)
        p = Gemm(m, w, b)
        q = Reshape(p, shape)
        s = Add(q, x)
        y = LayerNormalization<axis=-1>(s, g, g) }""", 21), w=random(6, 6), b=random(6), g=random(6),
        rows=np.array([10, 6]), shape=np.array([2, 5, 6]))  # fmt: skip
    assert checked(proto, {"x": random(2, 5, 6)}) == Counter(
        {"Reshape": 2, "LayerNormalization": 2, "Gemm": 1, "Add": 1}
    )


@pytest.mark.parametrize("body", [
    "t = Add(x, x) y = LayerNormalization<axis=-1>(t, g, g)",  # no product
    "p = MatMul(x, w) y = LayerNormalization<axis=1>(p, h, h)",  # not of rows alone
    "t = Transpose<perm=[1,0,2]>(x) y = MatMul(x, v)",  # a matrix for each batch
])  # fmt: skip
def test_other_operations_stay_of_their_rank(body: str) -> None:
    proto = with_weights(model(f"(float[2,5,6] x) => (y) {{ {body} }}", 21), w=random(6, 6), g=random(6),
                         h=random(5, 6), v=random(2, 6, 3))  # fmt: skip
    assert checked(proto, {"x": random(2, 5, 6)})["LayerNormalization"] == nodes(proto)["LayerNormalization"]
    text = str(irc.opt(from_model(proto, NO_FOLDER), "flatten_rows", backend="onnx", settings=Settings(target="cpu")))
    assert ("layer_norm" not in text) or "f32[2, 5, 6]" in text.split("layer_norm")[-1]


@pytest.mark.parametrize("operand", ["float[6]", "float[1,6]", "float[1,1,6]", "float[5,6]", "float[2,1,6]",
                                     "float[2,5,1]", "float[]", "float[2,5,6]"])  # fmt: skip
def test_operands_that_broadcast_keep_their_meaning(operand: str) -> None:
    proto = with_weights(model(f"(float[2,5,6] x, {operand} z) => (y) {{ p = MatMul(x, w) y = Mul(z, p) }}"),
                         w=random(6, 6))  # fmt: skip
    shape = [int(dim) for dim in operand[6:-1].split(",") if dim]
    checked(proto, {"x": random(2, 5, 6), "z": random(*shape, seed=1)})


# -- attention ---------------------------------------------------------------------------------------------------


def attention(mask: str = "", safe: bool = True, heads: int = 2, batch: int | str = 1, length: int | str = 5,
              scaled: bool = True) -> onnx.ModelProto:  # fmt: skip
    """As PyTorch exports it: both operands scaled by the fourth root, and a safe softmax."""
    parts = [f"{name}r = Reshape(MatMul_{name}, heads)" for name in "qkv"]
    products = [f"MatMul_{name} = MatMul(x, w{name})" for name in "qkv"]
    added = "t = Add(s, m)" if mask else "t = Identity(s)"
    weights = "n = IsNaN(e) a = Where(n, zero, e)" if safe else "a = Identity(e)"
    scale = ("qs = Mul(qt, c) ks = Mul(kt, c)" if scaled else "qs = Identity(qt) ks = Identity(kt)")
    text = f"""(float[{batch},{length},8] x{', ' + mask if mask else ''}) => (y) {{ {' '.join(products)}
        {' '.join(parts)}
        qt = Transpose<perm=[0,2,1,3]>(qr) kt = Transpose<perm=[0,2,3,1]>(kr) vt = Transpose<perm=[0,2,1,3]>(vr)
        {scale} s = MatMul(qs, ks) {added} e = Softmax<axis=-1>(t) {weights}
        o = MatMul(a, vt) p = Transpose<perm=[0,2,1,3]>(o) y = Reshape(p, whole) }}"""
    sizes = [batch if isinstance(batch, int) else 0, length if isinstance(length, int) else 0]
    return with_weights(model(text, 21), wq=random(8, 8), wk=random(8, 8, seed=1), wv=random(8, 8, seed=2),
                        heads=np.array([*sizes, heads, 8 // heads]), whole=np.array([*sizes, 8]),
                        c=np.float32((8 // heads) ** -0.25), zero=np.float32(0))  # fmt: skip


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize(("batch", "length", "shape"), [(1, 5, (1, 5)), (3, 1, (3, 1)), ("B", 5, (2, 5)),
                                                        (2, "S", (2, 7))])  # fmt: skip
def test_attention_is_of_rows(safe: bool, scaled: bool, batch: Any, length: Any, shape: tuple[int, ...]) -> None:
    operators = checked(attention(safe=safe, scaled=scaled, batch=batch, length=length), {"x": random(*shape, 8)})
    assert operators["Attention"] == 1 and not operators.keys() & {"Transpose", "Softmax", "IsNaN", "Where", "Mul"}


def test_attention_of_a_portable_model_stays_in_its_parts() -> None:
    operators = checked(attention(), {"x": random(1, 5, 8)}, "portable")
    assert operators["Attention"] == 0 and operators["Softmax"] == 1


def test_a_mask_that_hides_no_row_is_given_to_the_attention() -> None:
    """A finite mask hides no key, not even one of the least number throughout, for which the weights are equal."""
    mask = np.full((1, 1, 5, 5), LOWEST, np.float32)
    mask[..., :3, :2] = 0
    proto = with_weights(attention("float[1,1,5,5] m"), m=mask)
    assert checked(proto, {"x": random(1, 5, 8)})["Attention"] == 1


@pytest.mark.parametrize("hidden", [float("-inf"), LOWEST, -1e4])
@pytest.mark.parametrize("keys", [5, 2, 0])
def test_a_mask_of_lengths_may_hide_all_keys(hidden: float, keys: int) -> None:
    """As PyTorch exports `attention_mask`: where no key is visible, -inf gives 0, the least number equal weights."""
    proto = attention("bool[1,1,5,5] shown")
    proto.graph.node.insert(0, onnx.helper.make_node("Where", ["shown", "zero", "hidden"], ["m"]))
    with_weights(proto, hidden=np.float32(hidden))
    shown = np.zeros((1, 1, 5, 5), bool)
    shown[..., :keys] = True
    shown[0, 0, 2] = False
    assert checked(proto, {"x": random(1, 5, 8), "shown": shown})["Attention"] == 1


@pytest.mark.parametrize(("mask", "safe", "raised"), [
    (np.triu(np.full((5, 5), -np.inf), 1), False, True),  # causal: each query attends to the first key
    (np.triu(np.full((5, 5), -np.inf)), False, False),  # the first attends to none, and is NaN
    (np.triu(np.full((5, 5), -np.inf)), True, True),
])  # fmt: skip
def test_a_constant_mask_is_proven_to_show_a_key_to_each_row(mask: Any, safe: bool, raised: bool) -> None:
    proto = with_weights(attention("float[1,1,5,5] m", safe), m=mask.astype(np.float32)[None, None])
    assert checked(proto, {"x": random(1, 5, 8)})["Attention"] == raised


def test_an_unknown_mask_of_an_unsafe_softmax_stays() -> None:
    proto = attention("float[1,1,5,5] m", safe=False)
    mask = random(1, 1, 5, 5)
    mask[0, 0, 1] = -np.inf
    assert checked(proto, {"x": random(1, 5, 8), "m": mask})["Attention"] == 0


def test_scores_that_are_not_numbers_are_as_pytorch_computes_them() -> None:
    """PyTorch gives NaN, of which the safe softmax of its export makes 0."""
    x = random(1, 5, 8)
    x[0, 2] = np.nan
    (result,) = in_runtime(compiled(attention()), {"x": x})
    assert np.isnan(result).all()


@pytest.mark.parametrize("target", ["cpu", "portable"])
def test_no_heads_of_keys_do_not_end_the_process(target: str) -> None:
    """ONNX Runtime 1.31 divides the heads of queries by them, and the process ends."""
    proto = model("(float[2,2,3,4] q, float[2,G,5,4] k, float[2,G,5,4] v) => (y) { y = Attention(q, k, v) }", 23)
    for groups in (0, 1, 2):
        inputs = {"q": random(2, 2, 3, 4), "k": random(2, groups, 5, 4), "v": random(2, groups, 5, 4, seed=1)}
        (result,) = in_runtime(compiled(proto, target), inputs)
        check_close(result, in_runtime(proto, inputs)[0] if groups else np.zeros((2, 2, 3, 4), np.float32))


# -- attention to a cache ----------------------------------------------------------------------------------------


def step(end: str = "", past: int | str = 3, tokens: int | str = 1, batch: int | str = 2) -> onnx.ModelProto:
    """A step of a decoder whose 4 heads share 2 of keys and values, which are appended to those of earlier steps."""
    def apart(name: str, heads: int) -> str:
        return (f"{name}m = MatMul(x, w{name}) {name}r = Reshape({name}m, heads{heads}) "
                f"{name}t = Transpose<perm=[0,2,1,3]>({name}r)")  # fmt: skip

    text = f"""(float[{batch},{tokens},16] x, float[{batch},2,{past},4] pk, float[{batch},2,{past},4] pv)
        => (y, keys, values) {{
        {apart("q", 4)} {apart("k", 2)} {apart("v", 2)}
        keys = Concat<axis=2>(pk, kt) values = Concat<axis=2>(pv, vt)
        a = Attention<scale=0.7>(qt, keys, values) p = Transpose<perm=[0,2,1,3]>(a) y = Reshape(p, whole) {end} }}"""
    fixed = [extent if isinstance(extent, int) else 0 for extent in (batch, tokens)]
    return with_weights(model(text, 23), wq=random(16, 16), wk=random(16, 8, seed=1), wv=random(16, 8, seed=2),
                        heads4=np.array([*fixed, 4, 4]), heads2=np.array([*fixed, 2, 4]),
                        whole=np.array([*fixed, 16]))  # fmt: skip


@pytest.mark.parametrize(("past", "tokens", "batch"), [(3, 1, 2), ("P", 1, 1), ("P", "S", "B")])
@pytest.mark.parametrize("length", [3, 0])
def test_what_is_appended_to_a_cache_is_part_of_the_attention(past: Any, tokens: Any, batch: Any, length: int) -> None:
    if length == 0 and past == 3:
        past = 0
    sizes = [5 if extent == "S" else 2 if extent == "B" else extent for extent in (batch, tokens)]
    caches = {name: random(sizes[0], 2, length, 4, seed=seed) for seed, name in ((1, "pk"), (2, "pv"))}
    inputs = {"x": random(*sizes, 16), **caches}
    proto = step(past=past, tokens=tokens, batch=batch)
    operators = checked(proto, inputs)
    assert operators["Attention"] == 1 and not operators.keys() & {"Concat", "Transpose"}
    assert checked(proto, inputs, "portable")["Concat"] == 2


def test_a_cache_that_a_model_gives_to_attention_stays_there() -> None:
    proto = model("""(float[2,1,16] q, float[2,1,8] k, float[2,1,8] v, float[2,2,3,4] pk, float[2,2,3,4] pv)
        => (y, keys, values) { y, keys, values = Attention<q_num_heads=4, kv_num_heads=2>(q, k, v, , pk, pv) }""", 23)
    arrays = {"q": random(2, 1, 16), "k": random(2, 1, 8), "v": random(2, 1, 8)}
    assert checked(proto, arrays | {"pk": random(2, 2, 3, 4), "pv": random(2, 2, 3, 4, seed=1)}) == {"Attention": 1}


@pytest.mark.parametrize("end", [
    "more = Neg(keys)",  # which something else reads
    "more = ReduceMax<keepdims=0>(values)",
])  # fmt: skip
def test_keys_that_something_else_reads_are_appended_apart(end: str) -> None:
    proto = step(end)
    proto.graph.output.append(onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, None))
    inputs = {"x": random(2, 1, 16), "pk": random(2, 2, 3, 4), "pv": random(2, 2, 3, 4, seed=1)}
    assert checked(proto, inputs)["Concat"] == 2


# -- rotary ------------------------------------------------------------------------------------------------------


def rotated(half: str = "n = Neg(hi) r = Concat<axis=-1>(n, lo)", batch: int = 1) -> onnx.ModelProto:
    """As PyTorch exports `x * cos + rotate_half(x) * sin`."""
    text = f"""(float[{batch},5,8] x, float[1,1,5,4] cos, float[1,1,5,4] sin) => (y) {{
        h = Reshape(x, heads) t = Transpose<perm=[0,2,1,3]>(h)
        a = Mul(t, cos) lo = Slice(t, zero, two, last) hi = Slice(t, two, four, last) {half}
        b = Mul(r, sin) s = Add(a, b) u = Transpose<perm=[0,2,1,3]>(s) y = Reshape(u, whole) }}"""
    return with_weights(model(text, 21), heads=np.array([batch, 5, 2, 4]), whole=np.array([batch, 5, 8]),
                        zero=np.array([0]), two=np.array([2]), four=np.array([4]), last=np.array([3]))  # fmt: skip


def angles(seed: int) -> np.ndarray[Any, Any]:
    return np.concatenate([random(1, 1, 5, 2, seed=seed)] * 2, axis=-1)


@pytest.mark.parametrize("batch", [1, 3])
def test_rotary_embeddings_are_one_operator(batch: int) -> None:
    proto = with_weights(rotated(batch=batch), cos=angles(1), sin=angles(2))
    x = random(batch, 5, 8)
    assert set(checked(proto, {"x": x})) == {"RotaryEmbedding"}
    x[0, 1] = np.nan
    checked(proto, {"x": x})
    assert "RotaryEmbedding" not in checked(proto, {"x": x}, "portable")


@pytest.mark.parametrize(("half", "same"), [
    ("n = Neg(lo) r = Concat<axis=-1>(n, hi)", True),  # the halves stay in their places
    ("n = Neg(hi) r = Concat<axis=-1>(lo, n)", True),
    ("n = Neg(hi) r = Concat<axis=-1>(n, lo)", False),  # an angle for each element
])  # fmt: skip
def test_other_rotations_stay(half: str, same: bool) -> None:
    cos, sin = (angles(1), angles(2)) if same else (random(1, 1, 5, 4), random(1, 1, 5, 4, seed=1))
    proto = with_weights(rotated(half), cos=cos, sin=sin)
    assert "RotaryEmbedding" not in checked(proto, {"x": random(1, 5, 8)})


def test_angles_that_are_not_known_may_differ_between_the_halves() -> None:
    inputs = {"x": random(1, 5, 8), "cos": random(1, 1, 5, 4), "sin": random(1, 1, 5, 4, seed=1)}
    assert "RotaryEmbedding" not in checked(rotated(), inputs)


# -- ranges ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("body", "expected"), [
    ("y = Cast<to=1>(b)", (0, 1)),
    ("f = Cast<to=1>(b) g = Sub(one, f) y = Mul(g, low)", (-1e4, 0)),
    ("y = Where(b, one, low)", (-1e4, 1)),
    ("f = Where(b, one, low) y = Add(f, f)", (-2e4, 2)),
    ("f = Where(b, one, least) y = Add(f, f)", (-np.inf, 2)),
    ("f = Where(b, one, infinite) y = Mul(f, f)", None),
    ("f = Where(b, one, infinite) y = Where(b, f, low)", (-np.inf, 1)),
    ("f = Cast<to=1>(i) y = Neg(f)", (-127, 128)),
    ("y = Mul(x, zero)", None),
    ("y = Where(b, x, low)", None),
    ("y = Where(b, one, nan)", None),
])  # fmt: skip
def test_ranges_of_masks(body: str, expected: Any) -> None:
    proto = with_weights(model(f"(bool[3] b, float[3] x, int8[3] i) => (y) {{ {body} }}"), one=np.float32(1),
                         low=np.float32(-1e4), zero=np.float32(0), infinite=np.float32(-np.inf),
                         nan=np.float32(np.nan), least=np.float32(LOWEST))  # fmt: skip
    (value,) = from_model(proto, NO_FOLDER).main.returned
    assert number_range(value) == expected


def test_the_range_of_a_long_chain_is_not_known() -> None:
    chain = " ".join(f"v{index + 1} = Add(v{index}, v{index})" for index in range(60))
    proto = model(f"(bool[3] b) => (y) {{ v0 = Cast<to=1>(b) {chain} y = Neg(v60) }}")
    (value,) = from_model(proto, NO_FOLDER).main.returned
    assert number_range(value) is None


# -- other floats ------------------------------------------------------------------------------------------------


def of_type(proto: onnx.ModelProto, dtype: Any) -> onnx.ModelProto:
    """The model with this type in place of f32."""
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    for info in proto.graph.input:
        if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            info.type.tensor_type.elem_type = element
    for node in proto.graph.node:
        if node.op_type == "Gelu":  # of which ONNX Runtime has none for f64
            node.op_type = "Relu"
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            array = onnx.numpy_helper.to_array(tensor).astype(dtype)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return proto


MASK = np.where(np.tri(5, dtype=bool), 0, -np.inf).astype(np.float32)[None, None]


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float16, 2e-2), (np.float64, 1e-12)])
@pytest.mark.parametrize(("proto", "shape"), [
    (lambda: layer("2,5"), (2, 5, 96)),  # flatten_rows, bias
    (lambda: layer("2,S"), (2, 0, 96)),
    (lambda: attention(), (1, 5, 8)),  # attention_scale, visible_rows, attention_rows
    (lambda: attention(safe=False, scaled=False, length="S"), (1, 7, 8)),
    (lambda: with_weights(attention("float[1,1,5,5] m"), m=MASK), (1, 5, 8)),
    (lambda: with_weights(rotated(), cos=angles(1), sin=angles(2)), (1, 5, 8)),  # rotary
])  # fmt: skip
def test_other_floats(proto: Any, shape: tuple[int, ...], dtype: Any, tolerance: float) -> None:
    given, x = of_type(proto(), dtype), random(*shape).astype(dtype)
    rewritten, holes = compiled(given), x.copy()
    holes.reshape(-1)[3::11] = np.nan
    for source in (x, holes):
        for actual, expected in zip(*(in_runtime(each, {"x": source}) for each in (rewritten, given)), strict=True):
            check_close(actual, expected, tolerance)


@pytest.mark.parametrize(("start", "stop"), [(1, 4), (-4, -1), (2, 1 << 40), (0, -2), (-3, 2), (1, -1),
                                             (-(1 << 40), 3), (4, 1)])  # fmt: skip
@pytest.mark.parametrize("target", ["cpu", "portable"])
def test_ends_of_slices_stay_numbers(start: int, stop: int, target: str) -> None:
    """ONNX limits them to the extent, as the bounds of the imported program do by minima and maxima."""
    proto = with_weights(model("(float[S,3] x) => (y) { y = Slice(x, starts, stops, axes) }"),
                         starts=np.array([start]), stops=np.array([stop]), axes=np.array([0]))  # fmt: skip
    for size in range(7):
        operators = checked(proto, {"x": random(size, 3)}, target)
        assert operators == Counter({"Slice": 1}), operators
