"""On a GPU: the architectures of the tests against eager PyTorch, and times of kernels, launches and whole models.

    python -m tests.benchmarks.device [--json FILE]

Needs a GPU and `transformers`. Errors are max|a - b| / max|b| in f32 against eager on the processor. Times are medians
of rounds in which all ways take turns: of single kernels by events of the device, of whole models by a clock around
work that is waited for, so that what the host does counts. Nothing here is asserted; the numbers hold for the device
that is named.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

import irc
from irc import ops
from tests.architectures import ARCHITECTURES, Causal, Tokens, build, last_hidden, logits
from tests.models import relative_error

ROUNDS = 30


def errors() -> dict[str, Any]:
    """Each architecture at other sizes than it was exported for."""
    largest_errors = {}
    for name in ARCHITECTURES:
        example = build(name)
        compiled = irc.compile(example.module, tuple(example.inputs.values()), backend="triton",
                               dynamic_shapes=example.dynamic)  # fmt: skip
        with torch.no_grad():
            expected = torch.utils._pytree.tree_leaves(example.module(*example.others.values()))
        assert compiled.label == "device"
        outputs = torch.utils._pytree.tree_leaves(compiled(*(x.cuda() for x in example.others.values())))
        assert all(output.is_cuda for output in outputs)
        largest_errors[name] = max(relative_error(output.cpu().numpy(), reference.numpy())
                                   for output, reference in zip(outputs, expected, strict=True))  # fmt: skip
        print(f"{name:20} {largest_errors[name]:.1e}", flush=True)
    return largest_errors


def kernels() -> dict[str, Any]:
    """Single kernels on tensors that no cache holds: bytes a second, beside PyTorch's own."""
    functional = torch.nn.functional
    rows, columns = 16384, 4096
    x, y = torch.randn(rows, columns, device="cuda"), torch.randn(rows, columns, device="cuda")
    scale, bias = torch.randn(columns, device="cuda"), torch.randn(columns, device="cuda")
    wide = ("f32[16384, 4096]",)
    row = ("f32[4096]", "f32[4096]")
    cases: dict[str, tuple[Any, tuple[str, ...], tuple[torch.Tensor, ...], Callable[..., Any], int]] = {
        "gelu(x + y)": (lambda x, y: ops.gelu(ops.add(x, y)), (*wide, *wide), (x, y),
                        lambda x, y: functional.gelu(x + y), 3),
        "softmax": (lambda x: ops.softmax(x, axis=-1), wide, (x,), lambda x: torch.softmax(x, -1), 2),
        "layer_norm": (lambda x, s, b: ops.layer_norm(x, s, b), (*wide, *row), (x, scale, bias),
                       lambda x, s, b: functional.layer_norm(x, (columns,), s, b), 2),
        "layer_norm(x + y)": (lambda x, y, s, b: ops.layer_norm(ops.add(x, y), s, b), (*wide, *wide, *row),
                              (x, y, scale, bias),
                              lambda x, y, s, b: functional.layer_norm(x + y, (columns,), s, b), 3),
        "sum": (lambda x: ops.reduce_sum(x, axes=(1,)), wide, (x,), lambda x: x.sum(1), 1),
        "transpose": (lambda x: ops.exp(ops.transpose(x, permutation=(1, 0))), wide, (x,),
                      lambda x: torch.exp(x.t()).contiguous(), 2),
    }  # fmt: skip
    rates = {}
    for name, (function, types, inputs, eager, passes) in cases.items():
        model = artefact(irc.trace(function, *types))
        ways = {"irc": partial(model, *inputs), "eager": partial(eager, *inputs),
                "inductor": partial(torch.compile(eager), *inputs)}  # fmt: skip
        seconds = on_device(ways)
        moved = passes * 4 * rows * columns
        rates[name] = {way: moved / value / 1e12 for way, value in seconds.items()}
        print(f"{name:20} " + "  ".join(f"{way} {rate:.2f} TB/s" for way, rate in rates[name].items()), flush=True)
    return rates


def launches() -> dict[str, Any]:
    """What the host takes for a launch: a chain of kernels on eight elements, beside Triton's own call."""
    count, times = 10, 20

    def chain(x: Any) -> Any:
        for _ in range(count):
            x = ops.exp(ops.neg(x))
        return x

    module = irc.opt(irc.trace(chain, "f32[8]"), "legalize,fuse{policy=none}")
    with tempfile.TemporaryDirectory() as folder:
        irc.compile(module, backend="triton", output=Path(folder) / "chain", pipeline="cse")
        model, package = load(Path(folder) / "chain")
    x, out = torch.randn(8, device="cuda"), torch.empty(8, device="cuda")
    kernel = next(value for value in vars(package.kernels).values() if hasattr(value, "fn"))

    def repeated(run: Callable[[], Any], rounds: int) -> Callable[[], None]:
        def several() -> None:
            for _ in range(rounds):
                run()

        return several

    every = 2 * count * times
    ways = {"irc": repeated(lambda: model(x), times), "eager": repeated(lambda: torch.exp(x), every),
            "triton": repeated(lambda: kernel[(1,)](x, out, BLOCK_I=8, num_warps=1), every)}  # fmt: skip
    spent = {way: 1e6 * value / every for way, value in on_host(ways).items()}
    print("launch               " + "  ".join(f"{way} {value:.1f} us" for way, value in spent.items()), flush=True)
    return spent


def models() -> dict[str, Any]:
    """Whole models with random weights, f32: milliseconds a call, the host's work among them."""
    from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    bert = Tokens(BertModel(BertConfig(num_hidden_layers=6)), last_hidden).eval()
    gpt2 = Causal(GPT2LMHeadModel(GPT2Config(n_layer=6)), logits).eval()
    rows = {}
    for name, module, shape in (("bert 6 layers", bert, (8, 128)), ("bert 6 layers", bert, (1, 16)),
                                ("gpt2 6 layers", gpt2, (1, 128))):  # fmt: skip
        tokens = torch.randint(0, 1000, shape)
        given: tuple[torch.Tensor, ...] = (tokens, torch.ones_like(tokens))
        compiled = irc.compile(module, given, backend="triton")
        module, given = module.cuda(), tuple(each.cuda() for each in given)
        with torch.no_grad():
            error = relative_error(compiled(*given).cpu().numpy(), module(*given).cpu().numpy())
            ways = {"irc": partial(compiled, *given), "eager": partial(module, *given),
                    "inductor": partial(torch.compile(module), *given)}  # fmt: skip
            row = {way: 1e3 * value for way, value in on_host(ways).items()}
        module.cpu()
        rows[f"{name} {list(shape)}"] = {**row, "error": error}
        print(f"{name:14} {list(shape)!s:10} " + "  ".join(f"{way} {ms:.2f} ms" for way, ms in row.items())
              + f"  error {error:.1e}", flush=True)  # fmt: skip
    return rows


def artefact(module: irc.Module) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        irc.compile(module, backend="triton", output=Path(folder) / "model")
        return load(Path(folder) / "model")[0]


def load(folder: Path) -> tuple[Any, Any]:
    """The model of an artefact, and its package."""
    from irc.driver.runners import import_artefact

    package = import_artefact(folder)
    return package.load(), package


def on_device(ways: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Median seconds of each way by the device's events, which take turns."""
    for run in ways.values():
        for _ in range(3):
            run()
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, run in ways.items():
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            run()
            end.record()
            torch.cuda.synchronize()
            taken[way].append(start.elapsed_time(end) / 1e3)
    return {way: statistics.median(values) for way, values in taken.items()}


def on_host(ways: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Median seconds of each way from the call until the device is done."""
    for run in ways.values():
        for _ in range(3):
            run()
    torch.cuda.synchronize()
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, run in ways.items():
            begin = time.perf_counter()
            run()
            torch.cuda.synchronize()
            taken[way].append(time.perf_counter() - begin)
    return {way: statistics.median(values) for way, values in taken.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument("parts", nargs="*", metavar="PART", help="errors, kernels, launches or models; all of them")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("there is no GPU here", file=sys.stderr)
        return 2
    warnings.simplefilter("ignore")
    torch.backends.cudnn.allow_tf32 = False
    report: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    print(f"{report['device']}, torch {report['torch']}", flush=True)
    parts = {"errors": errors, "launches": launches, "kernels": kernels, "models": models}
    for name, part in parts.items():
        if not options.parts or name in options.parts:
            report[name] = part()
            if options.json:
                Path(options.json).write_text(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
