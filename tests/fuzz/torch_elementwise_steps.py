"""Steps of PyTorch programs: elementwise operators and conversions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from tests.fuzz.steps import Reject, step
from tests.fuzz.torch_choices import FLOATS, INTEGERS, TorchChoices
from tests.fuzz.torch_source import Kind, Variable

UNARY: dict[str, Kind] = {
    "{x}.neg()": "exact", "{x}.abs()": "exact", "torch.relu({x})": "exact", "{x}.floor()": "exact",
    "{x}.ceil()": "exact", "{x}.round()": "exact", "{x}.trunc()": "exact", "{x}.sign()": "exact",
    "F.relu6({x})": "exact", "F.hardtanh({x})": "exact", "torch.nan_to_num({x})": "exact", "{x}.frac()": "rounded",
    "{x}.exp()": "rounded", "{x}.sqrt()": "rounded", "{x}.rsqrt()": "rounded", "{x}.reciprocal()": "rounded",
    "{x}.log()": "rounded", "{x}.log1p()": "rounded", "{x}.expm1()": "rounded", "{x}.exp2()": "rounded",
    "{x}.log2()": "rounded", "{x}.sin()": "absolute", "{x}.cos()": "absolute", "{x}.atan()": "rounded",
    "{x}.tanh()": "absolute", "{x}.sigmoid()": "absolute", "{x}.erf()": "absolute", "{x}.erfc()": "absolute",
    "F.gelu({x})": "absolute", "F.gelu({x}, approximate='tanh')": "absolute", "F.silu({x})": "absolute",
    "F.softplus({x})": "absolute", "F.elu({x})": "absolute", "F.leaky_relu({x})": "rounded", "F.mish({x})": "absolute",
    "F.hardswish({x})": "absolute", "F.hardsigmoid({x})": "absolute", "F.logsigmoid({x})": "absolute",
    "{x}.square()": "rounded", "torch.logit({x}, eps=1e-3)": "absolute", "F.softsign({x})": "rounded",
    "F.celu({x})": "absolute", "F.selu({x})": "absolute", "{x}.asinh()": "rounded", "{x}.sinh()": "rounded",
    "{x}.clamp(min=0)": "exact", "{x}.clamp(-1, 1.5)": "exact", "{x}.clamp_max(0.5)": "exact",
    "F.hardshrink({x})": "exact", "F.softshrink({x})": "rounded", "F.threshold({x}, 0.1, 20)": "exact",
    "{x}.round(decimals=1)": "rounded", "torch.special.entr({x})": "rounded", "torch.sinc({x})": "absolute",
}  # fmt: skip
INTEGER_UNARY = ("{x}.neg()", "{x}.abs()", "{x}.sign()", "{x}.square()", "{x}.bitwise_not()", "{x}.clamp(min=1)",
                 "{x}.clamp(-2, 3)", "torch.relu({x})", "{x}.float().sqrt()", "{x} // 3", "{x} % 3", "{x} >> 1",
                 "{x} << 2", "{x} & 3", "{x} ^ 5", "{x} | 4", "torch.fmod({x}, 3)",
                 "torch.div({x}, 3, rounding_mode='trunc')", "{x} % -3", "{x} // -2")  # fmt: skip
SCALAR: dict[str, Kind] = {
    "{x} + {k}": "rounded", "{x} - {k}": "rounded", "{k} - {x}": "rounded", "{x} * {k}": "rounded",
    "{x} / {k}": "rounded", "{k} / {x}": "rounded", "{x} ** 2": "rounded", "{x} ** 3": "rounded",
    "{x} ** 0.5": "rounded", "{x} ** -1": "rounded", "{x} ** 2.0": "rounded", "{x} ** 0": "exact",
    "{x} % {k}": "rounded", "{x} // {k}": "rounded", "torch.fmod({x}, {k})": "rounded", "2 ** {x}": "rounded",
    "torch.add({x}, {x}, alpha={k})": "rounded", "torch.rsub({x}, {k})": "rounded",
}  # fmt: skip
BINARY: dict[str, Kind] = {
    "{x} + {y}": "rounded", "{x} - {y}": "rounded", "{x} * {y}": "rounded", "{x} / {y}": "rounded",
    "torch.maximum({x}, {y})": "exact", "torch.minimum({x}, {y})": "exact", "torch.fmax({x}, {y})": "exact",
    "torch.fmin({x}, {y})": "exact", "{x} % {y}": "rounded", "{x} // {y}": "rounded", "torch.fmod({x}, {y})": "rounded",
    "torch.add({x}, {y}, alpha=2)": "rounded", "torch.sub({x}, {y}, alpha=3)": "rounded",
    "torch.copysign({x}, {y})": "exact", "torch.atan2({x}, {y})": "rounded", "torch.hypot({x}, {y})": "rounded",
    "torch.lerp({x}, {y}, 0.25)": "rounded", "torch.addcmul({x}, {y}, {x}, value=0.5)": "rounded",
    "torch.addcdiv({x}, {y}, {x}, value=0.5)": "rounded", "torch.where({x} > {y}, {x}, {y})": "exact",
    "torch.where({x} == {y}, {x}, -{x})": "exact", "torch.heaviside({x}, {y})": "exact",
    "torch.clamp({x}, min={y})": "exact",
    "torch.logaddexp({x}, {y})": "rounded", "torch.xlogy({x}, {y})": "rounded",
    "F.prelu({x}, {y}.reshape(-1)[:1])": "rounded",
}  # fmt: skip
INTEGER_BINARY = ("{x} + {y}", "{x} - {y}", "{x} * {y}", "{x} // {y}", "{x} % {y}", "torch.maximum({x}, {y})",
                  "torch.minimum({x}, {y})", "{x} & {y}", "{x} | {y}", "{x} ^ {y}", "{x} << {y}", "{x} >> {y}",
                  "torch.where({x} > {y}, {x}, {y})", "torch.clamp({x}, max={y})", "{x} / {y}")  # fmt: skip
COMPARE = ("{x} > {y}", "{x} >= {y}", "{x} < {y}", "{x} <= {y}", "{x} == {y}", "{x} != {y}", "torch.isclose({x}, {y})")


def differs_by_length(text: str, x: Variable) -> bool:
    """Whether eager PyTorch gives one result for few elements and another for many: where gelu's 1 + erf(x) is
    multiplied by more than half of the largest number, and where the exponentials in sinh overflow."""
    if text == "F.gelu({x})":
        return any(bool((tensor > torch.finfo(x.dtype).max / 2).any()) for tensor in x.tensors)
    if text == "{x}.sinh()":
        most = math.log(torch.finfo(x.dtype).max) - 1
        return any(bool((tensor.isfinite() & (tensor.abs() > most)).any()) for tensor in x.tensors)
    return False


def remainder_differs_by_length(text: str, x: Variable, divisors: Sequence[torch.Tensor]) -> bool:
    """Whether eager PyTorch's vector kernel of a remainder gives NaN: where the quotient is finite but overflows."""
    if not any(each in text for each in (" % ", " // ", "fmod")):
        return False
    largest = max((float(t.double()[t.isfinite()].abs().max()) for t in x.tensors if t.isfinite().any()), default=0.0)
    sizes = [t.double().abs()[t != 0] for t in divisors]
    least = min((float(size.min()) for size in sizes if size.numel()), default=1.0)
    return x.dtype.is_floating_point and largest / least > torch.finfo(x.dtype).max


class ElementwiseSteps(TorchChoices):
    """Steps of PyTorch programs: elementwise operators and conversions."""

    @step(4)
    def unary(self) -> Sequence[Variable]:
        x = self.number()
        if x.is_integer:
            return [self.s.one(self.rng.choice(INTEGER_UNARY).format(x=x))]
        text = self.rng.choice(list(UNARY))
        if differs_by_length(text, x):
            raise Reject("eager's vector kernel gives something else than its scalar one: see docs/numerics.md")
        if text == "{x}.expm1()" and x.has_subnormal:
            raise Reject("ONNX Runtime's Tanh loses their last bits: see docs/numerics.md")
        return [self.s.one(text.format(x=x), kind=UNARY[text])]

    @step(2.5)
    def scalar(self) -> Sequence[Variable]:
        x, text = self.number(), self.rng.choice(list(SCALAR))
        k = self.rng.choice(["2", "0.5", "-1", "3", "1.5", "0", "1", "inf" if self.rng.random() < 0.2 else "-2.5"])
        if "alpha" in text and not x.is_moderate:
            raise Reject("open")
        if remainder_differs_by_length(text, x, [torch.tensor(float(k))]):
            raise Reject("eager's vector kernel gives something else than its scalar one: see docs/numerics.md")
        return [self.s.one(text.format(x=x, k=k), kind=SCALAR[text])]

    @step(6)
    def binary(self) -> Sequence[Variable]:
        x = self.number()
        y = self.broadcastable(x) if self.rng.random() < 0.9 else x
        if self.rng.random() < 0.4:
            x, y = y, x
        if x.is_integer and y.is_integer:
            return [self.s.one(self.rng.choice(INTEGER_BINARY).format(x=x, y=y))]
        often = list(BINARY)[:4]
        text = self.rng.choice(often if self.rng.random() < 0.5 else list(BINARY))
        if ("copysign" in text and y.has_nan) or ("alpha" in text and not y.is_moderate):
            raise Reject("open")
        if remainder_differs_by_length(text, x, y.tensors):
            raise Reject("eager's vector kernel gives something else than its scalar one: see docs/numerics.md")
        return [self.s.one(text.format(x=x, y=y), kind=BINARY[text])]

    @step(2)
    def compare(self) -> Sequence[Variable]:
        x = self.any()
        y = (
            str(self.broadcastable(x))
            if self.rng.random() < 0.6
            else self.rng.choice(["0", "0.5", "1", "-1", "x0.numel()"])
        )
        return [self.s.one(self.rng.choice(COMPARE[:-1]).format(x=x, y=y))]

    @step(0.5)
    def classify(self) -> Sequence[Variable]:
        x = self.float()
        texts = ["torch.isnan({x})", "torch.isinf({x})", "torch.isfinite({x})"]
        text = self.rng.choice([*texts, *([] if x.has_nan else ["torch.signbit({x})"])])
        return [self.s.one(text.format(x=x))]

    @step(0.7)
    def logic(self) -> Sequence[Variable]:
        x = self.any(lambda value: value.dtype == torch.bool)
        text = self.rng.choice(
            ["~{x}", "{x} & {y}", "{x} | {y}", "{x} ^ {y}", "{x}.logical_not()", "{x} + {y}", "{x} * 2"]
        )
        y = self.mask(x)
        return [self.s.one(text.format(x=x, y=y))]

    @step(2)
    def where(self) -> Sequence[Variable]:
        x = self.any()
        mask = self.mask(x)
        other = self.rng.choice(["0", "-inf", "1.5", f"{self.broadcastable(x)}", f"{x} * 2"])
        text = self.rng.choice(["torch.where({m}, {x}, {y})", "torch.where({m}, {y}, {x})"])
        if other in ("0", "-inf", "1.5") and self.rng.random() < 0.5:
            text = "{x}.masked_fill({m}, {y})"
        return [self.s.one(text.format(m=mask, x=x, y=other))]

    @step(3)
    def cast(self) -> Sequence[Variable]:
        x = self.any()
        to = self.rng.choice([*FLOATS, *INTEGERS, "torch.bool"])
        if "narrow floats" not in self.features and to in ("torch.float16", "torch.bfloat16"):
            raise Reject("narrow floats")
        if x.is_float and to in INTEGERS:
            info = torch.iinfo(getattr(torch, to.removeprefix("torch.")))
            for tensor in x.tensors:
                wide = tensor.double()
                if not ((wide > info.min - 0.5) & (wide < info.max - 1024)).all():
                    raise Reject("out of range")
        return [self.s.one(f"{x}.to({to})")]

    @step(0.3)
    def bits(self) -> Sequence[Variable]:
        x = self.any(lambda value: value.dtype in (torch.float32, torch.int32) and not value.has_nan)
        return [self.s.one(f"{x}.view({'torch.int32' if x.is_float else 'torch.float32'})")]
