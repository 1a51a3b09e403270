"""Random numbers drawn in kernels: random operators as operations on the bits of a pure function of a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from irc import dims, ops
from irc.dtypes import BOOL, F32, I64, DType, limits
from irc.ir import Block, Operation, Value
from irc.module import Module
from irc.op import Builder, literal, trace_function
from irc.ops import aten
from irc.ops.extern import is_random, is_seeded
from irc.pass_manager import Pass, PassContext
from irc.passes._draws import DIGITS, Draw, converted, scaled, wide_of
from irc.types import TensorType

SEEDS = {"low": -(2**63), "high": 2**63 - 1, "size": ()}  # the arguments of the call that draws a seed


@dataclass
class RandomNumbers(Pass):
    """Write random operators as functions of a seed and of the position of an element, so that they fuse.

    by: "kernels", or "host", for which nothing is done: PyTorch draws the numbers, and gives those that eager does.

    The seed is drawn by PyTorch, once in each run of a block, from the generator that torch.manual_seed sets. Each
    operator has a stream of its own, so that no two draw the same. What a distribution has no short formula for
    (binomial, Poisson, multinomial, permutations), and operators of ONNX that state a seed, stay.

    Before: %y, %mask = extern %x {op_type = "native_dropout", attributes = {p = 0.1, train = true}, ...}
    After:  %bits = philox %seed, %index {stream = 0}; %mask = less %uniform, 0.9; %y = mul (mul %x, %mask), 1 / 0.9
    """

    by: Literal["kernels", "host"] = "kernels"

    def run(self, module: Module, context: PassContext) -> bool:
        if self.by == "host":
            return False
        blocks: dict[Block, list[tuple[Operation, Writer]]] = {}
        for operation in module.walk():
            writer = writer_of(operation)
            if operation.block is not None and writer is not None:
                blocks.setdefault(operation.block, []).append((operation, writer))
        if not blocks or not _has_bits(module, context):
            return False
        for operations in blocks.values():
            _write(operations)
        context.count("random_numbers", "written", sum(map(len, blocks.values())))
        return True


Writer = Callable[[Operation, Draw], list[Value]]


def writer_of(operation: Operation) -> Writer | None:
    """What writes a random operator as operations on bits; None of another operation, and where PyTorch draws."""
    if not is_random(operation) or is_seeded(operation) or not operation.results[0].type.is_ranked:
        return None
    if not all(value.dtype is BOOL or value.dtype in DIGITS or value.dtype.is_integer for value in operation.results):
        return None
    return _writer(operation)


def _has_bits(module: Module, context: PassContext) -> bool:
    """Whether the target computes random bits."""
    if context.target is None:
        return True
    example = trace_function("example", lambda: ops.philox(literal(0, I64), literal(0, I64)), [])
    return context.target.takes(next(each for each in example.block if each.name == "philox"), module.edge_cases)


def _write(operations: list[tuple[Operation, Writer]]) -> None:
    """Rewrite the random operators of a block, whose seed is drawn before the first."""
    first, _ = operations[0]
    with Builder.before_operation(first, first.location.by("random_numbers")) as builder:
        call = aten.call_of("randint.low", SEEDS)
        seed = builder.create(ops.extern, [], call, types=[TensorType(I64, ())], names=("seed",)).result
    for stream, (operation, writer) in enumerate(operations):
        with Builder.before_operation(operation, operation.location.by("random_numbers")):
            results = writer(operation, Draw(seed, stream, operation.results[0].shape))
        operation.replace(results)


# -- by operator -----------------------------------------------------------------------------------------------


def _writer(operation: Operation) -> Writer | None:
    """What writes a random operator. None where PyTorch draws: arguments out of their range are its errors."""
    op_type, given = operation.attributes["op_type"], operation.attributes["attributes"]
    if operation.attributes["domain"] == "":
        return ONNX.get(op_type) if op_type != "Dropout" or len(operation.operands) == 3 else None
    if op_type == "randint.low" and given == SEEDS:  # a seed that the pass has drawn
        return None
    row = ATEN.get(op_type)
    return None if row is None or not row.fits(operation) else row.write


def _given(operation: Operation, name: str, default: Any) -> Any:
    return operation.attributes["attributes"].get(name, default)


def _dtype(operation: Operation) -> DType:
    return operation.results[0].dtype


def _has_floats(operation: Operation) -> bool:
    return _dtype(operation) in DIGITS


def _rand(operation: Operation, draw: Draw) -> list[Value]:
    return [draw.uniform(_dtype(operation))]


def _uniform(low: str, high: str) -> Writer:
    """What draws between the arguments of these names."""
    def write(operation: Operation, draw: Draw) -> list[Value]:
        ends = float(_given(operation, low, 0.0)), float(_given(operation, high, 1.0))
        return [draw.between(*ends, _dtype(operation))]

    return write


def _randn(operation: Operation, draw: Draw) -> list[Value]:
    return [converted(draw.normal(wide_of(_dtype(operation))), _dtype(operation))]


def _normal(operation: Operation, draw: Draw) -> list[Value]:
    """Of a mean and a deviation that are numbers or operands."""
    op_type, dtype = operation.attributes["op_type"], _dtype(operation)
    wide, (_, _, kinds) = wide_of(dtype), op_type.partition(".")
    operands = iter(operation.inputs)
    mean, deviation = (
        converted(next(operands), wide) if kind == "Tensor" else float(_given(operation, name, default))
        for kind, name, default in zip(kinds.split("_"), ("mean", "std"), (0.0, 1.0), strict=True))
    return [scaled(draw.normal(wide), deviation, mean, dtype)]


def _normal_of_numbers(deviation: str) -> Writer:
    """What draws with the arguments `mean` and the deviation of this name."""
    def write(operation: Operation, draw: Draw) -> list[Value]:
        scale, mean = float(_given(operation, deviation, 1.0)), float(_given(operation, "mean", 0.0))
        return [scaled(draw.normal(wide_of(_dtype(operation))), scale, mean, _dtype(operation))]

    return write


def _log_normal(operation: Operation, draw: Draw) -> list[Value]:
    dtype, deviation, mean = _dtype(operation), _given(operation, "std", 2.0), _given(operation, "mean", 1.0)
    wide = wide_of(dtype)
    return [converted(ops.exp(scaled(draw.normal(wide), float(deviation), float(mean), wide)), dtype)]


def _exponential(operation: Operation, draw: Draw) -> list[Value]:
    return [draw.exponential(float(_given(operation, "lambd", 1.0)), _dtype(operation))]


def _cauchy(operation: Operation, draw: Draw) -> list[Value]:
    median, scale = float(_given(operation, "median", 0.0)), float(_given(operation, "sigma", 1.0))
    return [draw.cauchy(median, scale, _dtype(operation))]


def _geometric(operation: Operation, draw: Draw) -> list[Value]:
    return [draw.geometric(float(_given(operation, "p", 0.5)), _dtype(operation))]


def _bernoulli(operation: Operation, draw: Draw) -> list[Value]:
    """Of one probability, or of those in the last operand."""
    if operation.attributes["op_type"] == "bernoulli.p":
        is_one = ops.less(draw.uniform(F32), float(_given(operation, "p", 0.5)))
    else:
        probability = operation.inputs[-1]
        wide = wide_of(probability.dtype)
        is_one = ops.less(draw.uniform(wide), converted(probability, wide))
    return [converted(is_one, _dtype(operation))]


def _native_dropout(operation: Operation, draw: Draw) -> list[Value]:
    """As PyTorch multiplies: what is dropped is 0 * x, and NaN where x is not finite."""
    (x,), kept = operation.inputs, 1.0 - float(_given(operation, "p", 0.5))
    wide = wide_of(x.dtype)
    mask = ops.less(draw.uniform(F32), kept)
    y = ops.mul(ops.mul(converted(x, wide), converted(mask, wide)), 1.0 / kept if kept else 0.0)
    return [converted(y, _dtype(operation)), mask]


def _randint(operation: Operation, draw: Draw) -> list[Value]:
    return [draw.integers(_given(operation, "low", 0), _given(operation, "high", 0), _dtype(operation))]


@dataclass(frozen=True)
class Row:
    """How an operator of ATen is written, and for which results and arguments."""

    write: Writer
    fits: Callable[[Operation], bool] = _has_floats


def _has_probability(operation: Operation) -> bool:
    return bool(0 <= _given(operation, "p", 0.5) <= 1)


def _drops(operation: Operation) -> bool:
    return _has_probability(operation) and _given(operation, "train", True) is not False


def _has_probabilities(operation: Operation) -> bool:
    return operation.inputs[-1].dtype in DIGITS


def _has_trials(operation: Operation) -> bool:
    return 0 < _given(operation, "p", 0.5) < 1 and _dtype(operation) is not BOOL


def _has_deviation(operation: Operation) -> bool:
    return _has_floats(operation) and _given(operation, "std", 1.0) >= 0


def _has_interval(operation: Operation) -> bool:
    low, high = _given(operation, "from", 0.0), _given(operation, "to", 1.0)
    return _has_floats(operation) and low <= high <= low + limits(_dtype(operation))[1]


def _has_rate(operation: Operation) -> bool:
    return _has_floats(operation) and _given(operation, "lambd", 1.0) > 0


def _has_scale(operation: Operation) -> bool:
    return _has_floats(operation) and _given(operation, "sigma", 1.0) > 0


def _has_integers(operation: Operation) -> bool:
    is_less = dims.less(_given(operation, "low", 0), _given(operation, "high", 0))
    return is_less is True and _dtype(operation) is not BOOL


ATEN = {
    "rand": Row(_rand), "rand_like": Row(_rand), "randn": Row(_randn), "randn_like": Row(_randn),
    "uniform": Row(_uniform("from", "to"), _has_interval),
    **dict.fromkeys(("normal.Tensor_Tensor", "normal.float_Tensor"), Row(_normal)),
    "normal.Tensor_float": Row(_normal, _has_deviation),
    "normal_functional": Row(_normal_of_numbers("std"), _has_deviation), "log_normal": Row(_log_normal, _has_deviation),
    "exponential": Row(_exponential, _has_rate), "cauchy": Row(_cauchy, _has_scale),
    "geometric": Row(_geometric, _has_trials),
    **dict.fromkeys(("bernoulli", "bernoulli.Tensor"), Row(_bernoulli, _has_probabilities)),
    "bernoulli.p": Row(_bernoulli, _has_probability), "native_dropout": Row(_native_dropout, _drops),
    **dict.fromkeys(("randint", "randint.low", "randint_like", "randint_like.low_dtype"), Row(_randint, _has_integers)),
}  # fmt: skip

DRAWN = frozenset(ATEN)  # operators of ATen that kernels can draw


def _onnx_bernoulli(operation: Operation, draw: Draw) -> list[Value]:
    """1 where a uniform number is above x, as in ONNX's function, which ONNX Runtime runs; its text says below."""
    (x,) = operation.inputs
    wide = wide_of(x.dtype)
    return [converted(ops.greater(draw.uniform(wide), converted(x, wide)), _dtype(operation))]


def _onnx_dropout(operation: Operation, draw: Draw) -> list[Value]:
    """x where it is kept, scaled by 1 / (1 - ratio), and where that is; all is kept outside of training."""
    x, ratio, training = operation.operands
    assert x is not None and training is not None
    wide = wide_of(x.dtype)
    share = literal(0.5, F32) if ratio is None else converted(ratio, wide_of(ratio.dtype))
    kept = ops.greater_equal(draw.uniform(share.dtype), share)
    mask = ops.select(training, kept, literal(True, BOOL))
    left = converted(share, wide)
    raised = ops.div(converted(x, wide), scaled(left, -1.0, 1.0, wide))
    y = ops.select(mask, ops.select(training, converted(raised, x.dtype), x), literal(0.0, x.dtype))
    both = {0: y, 1: mask}
    places = operation.attributes.get("outputs") or range(len(operation.results))
    return [both[place] for place in places]


ONNX: dict[str, Writer] = {
    **dict.fromkeys(("RandomNormal", "RandomNormalLike"), _normal_of_numbers("scale")),
    **dict.fromkeys(("RandomUniform", "RandomUniformLike"), _uniform("low", "high")),
    "Bernoulli": _onnx_bernoulli, "Dropout": _onnx_dropout,
}  # fmt: skip
