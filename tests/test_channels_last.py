"""Values between kernels of convolutions, stored with their channels last: which, results, and what they compile to."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import irc
from irc import dims, ops
from irc.backends.triton import compile_artefact, emit
from irc.backends.triton.compile import TARGETS
from irc.driver.figures import by_operation
from irc.driver.models import Settings
from irc.ir import Operation, Value
from irc.kernel import kernel_of
from irc.kernel.access_width import accesses_of_threads, elements_at_once
from irc.kernel.dag import Dot, Load, walk
from irc.module import Module
from irc.op import trace
from irc.parser import parse
from irc.sizes import representative_sizes
from irc.verifier import verify
from tests import triton_harness as harness
from tests.benchmarks.networks import network
from tests.test_convolutions import conv
from tests.triton_cases import LOCAL, WIDE, check_widths

SETTINGS = Settings(products="irc")


def optimized(module: Module, values: str = "chosen") -> Module:
    return irc.opt(module, f"default{{channels_last.values={values}}}", backend="triton", settings=SETTINGS)


def kernels(module: Module) -> dict[str, Operation]:
    return {str(each.attributes["name"]): each for each in module.walk() if each.name == "kernel"}


def shapes(module: Module) -> dict[str, tuple[Any, ...]]:
    """Of what kernels store, by name."""
    return {result.name: result.shape for each in kernels(module).values() for result in each.results}


def traced(program: Callable[..., Any], *types: str) -> Module:
    return trace(program, *types)


# -- which values ------------------------------------------------------------------------------------------------


def chain(x: Value, v: Value, w: Value) -> Value:
    return ops.relu(conv(ops.relu(conv(x, v, low=1), name="inner"), w, low=1), name="outer")


TYPES = ("bf16[2, 64, 14, 14]", "bf16[64, 64, 3, 3]", "bf16[32, 64, 3, 3]")


def test_what_a_convolution_stores_for_another_has_its_channels_last() -> None:
    module = optimized(traced(chain, *TYPES))
    assert shapes(module) == {"inner": (2, 14, 14, 64), "outer": (2, 32, 14, 14)}
    assert shapes(optimized(traced(chain, *TYPES), "none")) == {"inner": (2, 64, 14, 14), "outer": (2, 32, 14, 14)}
    text = str(module)
    assert str(parse(text)) == text and text.count("permutation = [0, 2, 3, 1]") == 1
    verify(module)


def test_constant_weights_lie_along_channels_and_of_one_channel_along_filters() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(32, 32, 3, groups=32)
            self.third = nn.Conv2d(32, 16, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.second(F.relu(self.first(x)))
            return F.relu(self.third(F.relu(y)))

    model = Model().eval().to(torch.bfloat16)
    module = optimized(irc.from_torch(model, (torch.randn(2, 16, 20, 20).to(torch.bfloat16),)))
    weights = {value.shape for each in kernels(module).values() for value in each.inputs if value.rank == 4}
    assert (1, 3, 3, 32) in weights and (16, 3, 3, 32) in weights and (32, 16, 3, 3) in weights
    assert (32, 1, 3, 3) not in weights and (16, 32, 3, 3) not in weights


def returned(x: Value, v: Value, w: Value) -> tuple[Value, Value]:
    y = ops.relu(conv(x, v, low=1), name="inner")
    return y, ops.relu(conv(y, w, low=1), name="outer")


def sorted_too(x: Value, v: Value, w: Value) -> tuple[Value, Value]:
    y = ops.relu(conv(x, v, low=1), name="inner")
    return ops.sort(y, axis=3)[0], ops.relu(conv(y, w, low=1), name="outer")


def one_place(x: Value, v: Value, w: Value) -> Value:
    y = ops.relu(ops.reduce_mean(conv(x, v, low=1), axes=(2, 3), keep_dims=True), name="inner")
    return ops.relu(conv(y, w, low=1), name="outer")


@pytest.mark.parametrize("program, types", [
    (returned, TYPES), (one_place, TYPES),
    (chain, ("bf16[2, 64, 14, 14]", "bf16[33, 64, 3, 3]", "bf16[32, 33, 3, 3]")),
    (chain, ("bf16[2, 64, 14, 14]", "bf16[1, 64, 3, 3]", "bf16[32, 1, 3, 3]")),
], ids=["returned", "one place", "odd channels", "one channel"])  # fmt: skip
def test_others_keep_their_order(program: Callable[..., Any], types: Sequence[str]) -> None:
    before, after = (shapes(optimized(traced(program, *types), values)) for values in ("none", "chosen"))
    assert before["inner"] == after["inner"] and before["outer"] == after["outer"]


def test_operands_of_library_calls_keep_their_order() -> None:
    module = optimized(traced(sorted_too, *TYPES), "all")
    assert shapes(module)["inner"] == (2, 64, 14, 14)
    host = irc.opt(traced(chain, *TYPES), "default{channels_last.values=all}", backend="triton")
    assert not any(each.name == "transpose" for each in host.walk())


def test_what_a_norm_over_positions_reads_keeps_its_order() -> None:
    """Of a UNet: the norm's result, which a convolution reads, has its channels last, and its operand does not."""
    def program(x: Value, v: Value, s: Value, w: Value) -> Value:
        y = conv(x, v, low=1, name="before")
        y = ops.silu(ops.group_norm(y, s, s, groups=8), name="normal")
        return ops.relu(conv(y, w, low=1))

    types = ("bf16[1, 64, 32, 32]", "bf16[64, 64, 3, 3]", "bf16[64]", "bf16[32, 64, 3, 3]")
    stored = shapes(optimized(traced(program, *types)))
    assert stored["normal"] == (1, 32, 32, 64) and stored["before"] == (1, 64, 32, 32)


def test_no_reduction_is_divided_that_was_whole() -> None:
    """Means over positions, of which MobileNetV3 has nine, would be split where channels were stored last."""
    source = irc.from_torch(*network("mobilenet_v3"))
    before, after = (optimized(source, values) for values in ("none", "chosen"))
    assert len(kernels(before)) == len(kernels(after)) and shapes(before) != shapes(after)


def test_what_a_product_computes_its_operand_of_keeps_its_order() -> None:
    """A depthwise convolution in the loop of a product: nine loads of 128 bits would spill on sm_80."""
    def program(x: Value, u: Value, v: Value, w: Value, z: Value) -> Value:
        y = ops.relu(conv(x, u, low=1, name="inner"))
        return ops.relu(conv(ops.relu(conv(ops.relu(conv(y, v, low=1, groups=64)), w)), z, low=1))

    weights = ("bf16[64, 8, 3, 3]", "bf16[64, 1, 3, 3]", "bf16[128, 64, 1, 1]", "bf16[64, 128, 3, 3]")
    stored = shapes(optimized(traced(program, "bf16[8, 8, 28, 28]", *weights))).values()
    assert (8, 64, 28, 28) in stored and (8, 28, 28, 128) in stored


def test_a_stated_schedule_is_kept_or_the_order_is() -> None:
    """Blocks that are stated of a kernel fit it after the pass, too."""
    module = irc.opt(traced(chain, *TYPES), "default{channels_last.values=none}", backend="triton", settings=SETTINGS)
    for kernel in kernels(module).values():
        kernel.attributes["schedule"] = {"m": 64, "n": 32, "k": 32, "warps": 4}
    module = irc.opt(module, "channels_last", backend="triton", settings=SETTINGS)
    assert shapes(module)["inner"] == (2, 14, 14, 64)
    for kernel in kernels(module).values():
        schedule = kernel_of(kernel).schedule
        assert (schedule.rows.block, schedule.columns.block, schedule.summed.block) == (64, 32, 32)  # type: ignore[union-attr]


def test_launches_and_bytes_stay_and_accesses_are_fewer() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 64, 7, 2, 3)
            self.a, self.b = (nn.Conv2d(64, 64, 3, padding=1) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1)
            return F.relu(self.b(F.relu(self.a(x))) + x).mean((2, 3))

    source = irc.from_torch(Block().eval().to(torch.bfloat16), (torch.randn(8, 3, 96, 96).to(torch.bfloat16),))
    launches, moved, accesses = [], [], []
    for values in ("none", "chosen"):
        module = optimized(source, values)
        parts = [each for some in by_operation(module, {})[0].values() for each in some]
        launches.append(len(parts))
        moved.append(sum(each.distinct_bytes for each in parts))
        sizes = representative_sizes(module.main, {})
        accesses.append(sum(accesses_of_threads(kernel_of(each), sizes) for each in kernels(module).values()))
    assert launches[0] == launches[1] and moved[0] == moved[1] and accesses[1] < 0.4 * accesses[0]


# -- results -----------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """Two convolutions and a shortcut, which must agree."""

    def __init__(self, channels: int = 8, groups: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.a, self.b = (nn.Conv2d(channels, channels, 3, padding=1, groups=groups) for _ in range(2))
        self.last = nn.Conv2d(channels, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(x))
        return torch.tanh(self.last(F.relu(self.b(F.relu(self.a(x))) + x)))


class Joined(nn.Module):
    """Channels of two branches side by side, one of them pooled, the other in parts."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.side = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.last = nn.Conv2d(20, 6, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(x))
        y = torch.cat([F.max_pool2d(x, 3, 1, 1)[:, 2:6], torch.sigmoid(self.side(x))], 1)
        return F.relu(self.last(F.avg_pool2d(y, 2)))


class Inverted(nn.Module):
    """A depthwise convolution between two of one place, with squeeze and excite."""

    def __init__(self, multiplier: int = 1) -> None:
        super().__init__()
        self.up, self.depth = nn.Conv2d(6, 16, 1), nn.Conv2d(16, 16 * multiplier, 3, 2, 1, groups=16)
        self.gate, self.down = nn.Conv2d(16 * multiplier, 16 * multiplier, 1), nn.Conv2d(16 * multiplier, 7, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.depth(F.relu(self.up(x))))
        return torch.tanh(self.down(x * F.hardsigmoid(self.gate(x.mean((2, 3), keepdim=True)))))


class Normal(nn.Module):
    """Norms over groups, and over channels that are moved to the end."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3)
        self.norm, self.last = nn.GroupNorm(4, 8), nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.b(F.silu(self.norm(self.a(x))))
        return F.relu(self.c(self.last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)))


class Sound(nn.Module):
    """Convolutions along one axis, of other strides and dilations."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv1d(3, 8, 5, 2, 2), nn.Conv1d(8, 8, 3, dilation=2), nn.Conv1d(8, 4, 3, padding=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.c(F.gelu(self.b(F.gelu(self.a(x))))))


class Volume(nn.Module):
    """Along three axes, with a softmax over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv3d(2, 8, 3, padding=1), nn.Conv3d(8, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.b(torch.softmax(self.a(x), 1)))


class Shuffled(nn.Module):
    """Channels in another order between grouped convolutions, and positions as channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1, groups=3)
        self.c = nn.Conv2d(3, 5, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.channel_shuffle(F.relu(self.a(x)), 3)
        return torch.tanh(self.c(F.pixel_shuffle(F.relu(self.b(x)), 2)))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (Residual, (2, 3, 7, 5)), "grouped": (lambda: Residual(12, 3), (2, 3, 5, 9)),
    "one channel": (lambda: Residual(1), (2, 3, 5, 4)), "odd channels": (lambda: Residual(17), (1, 3, 3, 5)),
    "joined": (Joined, (2, 3, 8, 6)), "inverted": (Inverted, (2, 6, 7, 9)),
    "multiplier": (lambda: Inverted(2), (1, 6, 5, 5)), "normal": (Normal, (2, 4, 6, 7)), "sound": (Sound, (2, 3, 23)),
    "volume": (Volume, (2, 2, 4, 5, 3)), "shuffled": (Shuffled, (2, 4, 5, 3)),
}  # fmt: skip


def check_numbers(model: nn.Module, x: torch.Tensor, values: str, folder: Path, batch: bool = False,
                  tolerance: float = 1e-5) -> Module:  # fmt: skip
    """The kernels of a model, every address of which is looked at, give what eager PyTorch does."""
    shapes_: Any = {"dynamic_shapes": [{0: torch.export.Dim("batch")}]} if batch else {}
    exported = torch.export.export(model.eval(), (torch.cat([x, x]) if batch else x,), **shapes_)
    module = optimized(irc.from_torch(exported), values)
    run = harness.run(module, folder=folder, inputs=[x.numpy()], fuse=False)
    assert not run.program.rejected
    with torch.no_grad():
        expected = model(x).numpy()
    (actual,) = run.outputs.values()
    assert harness.relative_error(actual, expected) < tolerance
    harness.check_bytes(run.launches)
    return module


def ordered(module: Module) -> int:
    """How many kernels store a value in another order than they compute it."""
    return sum("channels_last" in str(each.location) or any(
        value.operation is not None and value.operation.name == "transpose"
        for value in each.regions[0].block.terminator.inputs) for each in kernels(module).values())  # fmt: skip


@pytest.mark.parametrize("values", ["chosen", "all"])
@pytest.mark.parametrize("name", MODELS)
def test_eager_pytorch_gives_the_same(name: str, values: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, shape = MODELS[name]
    module = check_numbers(make(), torch.randn(shape), values, tmp_path / "a", batch=name in ("residual", "inverted"))
    assert values == "chosen" or name == "one channel" or ordered(module)


class Random(nn.Module):
    """A chain of random steps, each of which keeps the rank."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        self.steps, self.kinds, channels = nn.ModuleList(), list[str](), 4
        for _ in range(draw.randint(3, 6)):
            kind = draw.choice(["conv", "conv", "strided", "one", "depthwise", "grouped", "pool", "joined", "mean",
                                "residual", "norm"])  # fmt: skip
            wide = draw.choice([3, 4, 8, 12, 17])
            step: nn.Module = nn.Identity()
            if kind in ("conv", "strided", "one"):
                size = 1 if kind == "one" else 3
                step = nn.Conv2d(channels, wide, size, 2 if kind == "strided" else 1, size // 2)
                channels = wide
            elif kind in ("depthwise", "residual"):
                step = nn.Conv2d(channels, channels, 3, padding=1, groups=channels if kind == "depthwise" else 1)
            elif kind == "grouped":
                groups = 2 if channels % 2 == 0 else 1
                step, channels = nn.Conv2d(channels, 4 * groups, 3, padding=1, groups=groups), 4 * groups
            elif kind == "norm":
                step = nn.GroupNorm(1, channels)
            channels *= 2 if kind == "joined" else 1
            self.kinds.append(kind)
            self.steps.append(step)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for kind, step in zip(self.kinds, self.steps, strict=True):
            y = step(x)
            if kind == "residual":
                y = y + x
            elif kind == "pool":
                y = F.max_pool2d(x, 3, 1, 1)
            elif kind == "joined":
                y = torch.cat([x, torch.sigmoid(x)], 1)
            elif kind == "mean":
                y = x * torch.sigmoid(x.mean((2, 3), keepdim=True))
            x = torch.tanh(y)
        return x


@pytest.mark.parametrize("seed", range(6))
def test_random_chains(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    torch.manual_seed(seed)
    model, x = Random(draw), torch.randn(draw.choice([1, 2]), 4, draw.choice([3, 5, 8]), draw.choice([4, 7, 9]))
    for values in ("chosen", "all"):
        check_numbers(model, x, values, tmp_path / values, tolerance=1e-4)


# -- widths and targets ------------------------------------------------------------------------------------------


def test_widths_of_accesses() -> None:
    """How many elements a thread loads at once: of windows with channels last 128 bits, and else each by itself."""
    for values, channels, expected in (("chosen", 64, 8), ("none", 64, 1), ("all", 20, 4), ("all", 33, 1)):
        types = ("bf16[2, 64, 14, 14]", f"bf16[{channels}, 64, 3, 3]", f"bf16[32, {channels}, 3, 3]")
        kernel = kernel_of(kernels(optimized(traced(chain, *types), values))["outer"])
        (product,) = (node for node in kernel.nodes if isinstance(node, Dot))
        (load,) = (node for node in walk((product.operands[0],)) if isinstance(node, Load))
        assert elements_at_once(load, kernel.schedule) == expected
        assert dims.multiple_of(load.buffer.type.elements) % channels == 0


class Compiled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Conv2d(3, 64, 3, 2, 1), nn.Conv2d(64, 64, 3, padding=1)
        self.depth, self.last = nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.Conv2d(64, 128, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(x))
        x = F.relu(self.inner(x)) + x
        return F.relu(self.last(F.relu(self.depth(F.max_pool2d(x, 3, 2, 1)))))


def test_chains_compile_with_wide_loads(tmp_path: Path) -> None:
    """For each target: no spills, within shared memory; of the inner convolution no load of windows by elements."""
    model = Compiled().eval().to(torch.bfloat16)
    module = optimized(irc.from_torch(model, (torch.randn(8, 3, 112, 112).to(torch.bfloat16),)))
    emit(module, tmp_path / "a")
    names = {name for name, kernel in kernels(module).items()
             if any(value.shape == (64, 3, 3, 64) for value in kernel.inputs)}  # fmt: skip
    (name,) = names
    inner = 0
    for resources in compile_artefact(tmp_path / "a", TARGETS):
        assert not resources.error and resources.fits, resources
        local = LOCAL.get((resources.kernel, resources.target), 0)
        assert resources.spilled_bytes == 0 and resources.local_bytes == local, resources
        check_widths(resources, narrow_stores=(1, 64) if resources.kernel in ("first", "add") else WIDE)
        if resources.target != "gfx942" and resources.kernel == name.replace(".", "_"):
            inner += 1
            assert resources.aligned_accesses >= 3 and "16" not in resources.loads, resources
            assert resources.loads["128"] >= 8, resources
    assert inner == 3


def test_inputs_of_nan_reach_the_same_windows(tmp_path: Path) -> None:
    x = torch.randn(1, 3, 6, 7)
    x[0, 1, 2, 3], x[0, 2, 0, 0] = float("nan"), float("inf")
    model = Residual().eval()
    run = harness.run(optimized(irc.from_torch(model, (x,)), "all"), folder=tmp_path / "a", inputs=[x.numpy()],
                      fuse=False)  # fmt: skip
    with torch.no_grad():
        expected = model(x).numpy()
    (actual,) = run.outputs.values()
    assert np.array_equal(np.isnan(actual), np.isnan(expected))
