"""Mistakes planted in files for `--load`, and models of real size with which they fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

import irc
from irc.module import Module
from tests.onnx_models import model

# Right for most shapes: a transpose of an axis of one element is a reshape only if the others keep their order.
WRONG_GUARD = '''
from irc import dims
from irc.ops import transpose, reshape
from irc.rewrite import rewrite

@rewrite(numerics="exact")
def squeeze_transpose(x, *, permutation):
    """transpose(x)  ->  reshape(x)"""
    y = transpose(x, permutation=permutation)
    return y, reshape(x, shape=y.shape)

@squeeze_transpose.when
def moves_one_element(x, permutation):
    return 1 in x.shape or "no axis has one element"
'''
WRONG_RULE = '''
from irc.ops import add, matmul
from irc.rewrite import rewrite

@rewrite(numerics="exact")
def distribute(x, y, w):
    """(x + y) @ w  ->  x @ w + y: forgets a product."""
    return matmul(add(x, y), w), add(matmul(x, w), y)

@distribute.when
def square(w):
    return w.shape[0] == w.shape[1] or "the weight must be square"
'''
# Right for values that are not negative.
WRONG_VALUES = '''
from irc.ops import mul, sqrt
from irc.rewrite import rewrite

@rewrite(numerics="exact")
def root_of_square(x):
    """sqrt(x * x)  ->  x"""
    return sqrt(mul(x, x)), mul(x, 1.0)
'''
WRONG_BACKEND = """
from irc.backends.onnx import table
from irc.backends.onnx.row import Row

row = table.ROWS["tanh"]
table.ROWS["tanh"] = Row("tanh", lambda g, x: g.node("Sinh", x), row.takes)
"""
# Lanes beyond the end of a row count as zeros in reductions: right where rows are as long as their blocks.
WRONG_KERNELS = """
from dataclasses import replace
from irc.backends.triton import masks, source

right = source.analyse

def forgetful(kernel):
    found = right(kernel)
    return replace(found, fills={load: masks.zero(load.dtype) for load in found.fills}, wheres=frozenset())

source.analyse = forgetful
"""
# In a kernel of a softmax with a scale before it: where attention was found, what is wrong has lost its name.
WRONG_FUSION = """
from dataclasses import dataclass
from irc.op import Builder
from irc.ops import neg
from irc.pass_manager import Pass

@dataclass
class Broken(Pass):
    \"\"\"Negates what a tanh reads.\"\"\"
    def run(self, module, context):
        for kernel in [operation for operation in module.walk() if operation.name == "kernel"]:
            members = list(kernel.regions[0].block)
            found = [operation for operation in members if operation.name == "tanh"]
            if found and any(operation.name == "sqrt" for operation in members):
                with Builder.before_operation(found[0], found[0].location.by("broken")):
                    found[0].set_operand(0, neg(found[0].operands[0]))
        return True
"""
CRASH = """
from dataclasses import dataclass
from irc.pass_manager import Pass

@dataclass
class Careless(Pass):
    \"\"\"Fails at a gelu that a product reads.\"\"\"
    def run(self, module, context):
        for operation in module.walk():
            if operation.name == "matmul" and operation.inputs[0].operation is not None:
                assert operation.inputs[0].operation.name != "gelu"
        return False
"""


def long_model() -> Module:
    """Forty-two operations, among them one (x + y) @ w with a square w."""

    def main(x: Any, y: Any, w: Any, v: Any) -> Any:
        from irc import ops

        for index in range(6):
            x = ops.tanh(ops.add(ops.mul(x, 0.5), ops.sigmoid(y)))
            y = ops.layer_norm(ops.add(y, x)) if index % 2 else ops.gelu(ops.sub(y, x))
        z = ops.matmul(ops.add(x, y, name="sum"), w, name="product")
        return ops.softmax(ops.matmul(ops.relu(z), v)), ops.reduce_mean(z, axes=(1,))

    return irc.trace(main, "f32[N, 8]", "f32[N, 8]", "f32[8, 8]", "f32[8, 5]")


def encoder(layers: int = 2, heads: int = 4, width: int = 24) -> onnx.ModelProto:
    """Layers of a transformer over x [B, S, width], written out in ONNX operators, with random weights.

    Kernels mask the rows of a width that is no power of two.
    """
    lines, weights = [], []

    def weight(name: str, *shape: int) -> str:
        weights.append((name, shape))
        return name

    before = "x"
    for layer in range(layers):
        n = f"l{layer}"
        scale, bias = weight(f"{n}s", width), weight(f"{n}b", width)
        lines.append(f"{n}h = LayerNormalization ({before}, {scale}, {bias})")
        for each in "qkv":
            lines.append(f"{n}{each}p = MatMul ({n}h, {weight(f'{n}w{each}', width, width)})")
            lines.append(f"{n}{each}r = Reshape ({n}{each}p, split)")
            turned = "0, 2, 3, 1" if each == "k" else "0, 2, 1, 3"
            lines.append(f"{n}{each} = Transpose <perm: ints = [{turned}]> ({n}{each}r)")
        lines += [
            f"{n}a = MatMul ({n}q, {n}k)", f"{n}d = Div ({n}a, root)", f"{n}p = Softmax ({n}d)",
            f"{n}c = MatMul ({n}p, {n}v)", f"{n}t = Transpose <perm: ints = [0, 2, 1, 3]> ({n}c)",
            f"{n}m = Reshape ({n}t, join)", f"{n}o = MatMul ({n}m, {weight(f'{n}wo', width, width)})",
            f"{n}y = Add ({before}, {n}o)", f"{n}z = MatMul ({n}y, {weight(f'{n}w1', width, 2 * width)})",
            f"{n}s2 = Mul ({n}z, {n}z)", f"{n}r = Sqrt ({n}s2)", f"{n}i = Tanh ({n}r)",
            f"{n}f = MatMul ({n}i, {weight(f'{n}w2', 2 * width, width)})", f"{n}out = Add ({n}y, {n}f)",
        ]  # fmt: skip
        before = f"{n}out"
    proto = model(f"(float[B, S, {width}] x) => (float[B, S, {width}] {before}) {{ {' '.join(lines)} }}")
    generator = np.random.default_rng(0)
    arrays = {
        **{name: (0.3 * generator.standard_normal(shape)).astype(np.float32) for name, shape in weights},
        "split": np.array([0, 0, heads, width // heads]), "join": np.array([0, 0, width]),
        "root": np.sqrt(np.float32(width // heads)),
    }  # fmt: skip
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    return proto
