"""PyTorch's samples of its operators (OpInfo) with NaN, infinities, zeros of both signs, denormal and huge numbers in
them, on every path, against eager PyTorch.

Every operator that passes in `torch_samples.txt` is tried with f32, another type of floats and integers at the ends of
their type. It takes about 5 seconds for an operator, so the suite tries a few (`test_torch_edge_samples.py`):

    python -m tests.torch_edge_samples [--seed N] [--first N] [--stride N] [NAME ...]

prints the differences of each, and fails where they are not decided (DIFFERENT).
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from irc.diagnostics import IrcError
from irc.driver.callables import imported_program
from irc.driver.compiled_programs import CompiledProgram
from irc.frontends.torch.tensors import to_array
from tests.fuzz.judging import SAMPLES as RUNS
from tests.fuzz.judging import Truth, is_float
from tests.fuzz.paths import passed, quiet
from tests.fuzz.torch_paths import in_onnx_runtime, in_triton, interpreted
from tests.test_torch_samples import OPERATORS, read_table, samples

Function = Callable[..., Any]
PASSING = sorted(set(OPERATORS) - set(read_table()))
LARGEST = 20_000  # elements of a sample
FLOATS = torch.float32, torch.float64, torch.float16, torch.bfloat16
INTEGERS = torch.int64, torch.int32, torch.uint8
nan, inf = float("nan"), float("inf")
# What replaces some of the floats of a sample, one kind at a time.
KINDS = {"nan": (nan,), "inf": (inf, -inf), "zeros": (0.0, -0.0, 1e-40),
         "huge": (3e38, -3e38, 1e30, -1e30, 1e10, 65504.0), "all": (nan, inf, -inf, -0.0, 0.0, 3e38, -1e30)}
LIMITED = {torch.float16: 65504.0}
# Operators whose differences are decided, with the reason.
OVERFLOW = "sums of products that leave the range do so in another order"
EQUALS = "of equal elements any may come first"
NORMS = "eager folds the mean into the shift, infinite with infinite parameters; a variance that overflows"
RESIZED = "eager multiplies by 0 what stays (inf gives NaN); shares of positions are rounded otherwise"
DIFFERENT = {
    "addbmm": OVERFLOW, "cross": OVERFLOW, "nn.functional.bilinear": OVERFLOW, "nn.functional.conv2d": OVERFLOW,
    "argsort": EQUALS, "native_group_norm": NORMS, "nn.functional.group_norm": NORMS,
    **dict.fromkeys(("nn.functional.interpolate.bilinear", "nn.functional.interpolate.trilinear",
                     "nn.functional.upsample_bilinear"), RESIZED),
    "nn.functional.scaled_dot_product_attention": "eager's kernels differ on keys that is_causal hides, and on few",
    "nn.functional.silu": "ONNX Runtime's sigmoid has an absolute error",
    "nn.functional.tanhshrink": "ONNX Runtime's tanh has an absolute error",
    "grid_sampler_3d": "of coordinates near 1e38, and, on ONNX, of an infinity next to a border",
    **dict.fromkeys(("sigmoid", "tanh"), "ONNX Runtime's has an absolute error"),
    **dict.fromkeys(("std_mean", "var_mean"), "eager's mean of a row with an infinity is NaN unless that stands last"),
    "log_softmax": "of bf16 eager rounds an intermediate result",
    "masked.log_softmax": "of bf16 eager rounds an intermediate result",
}  # fmt: skip


def with_edges(tensor: torch.Tensor, kind: str, generator: np.random.Generator) -> torch.Tensor:
    """A copy, some elements of which are edges of this kind; integers at the ends of their type with "all"."""
    if tensor.dtype in FLOATS:
        edges = torch.tensor(KINDS[kind], dtype=torch.float64)
        limit = LIMITED.get(tensor.dtype)
        if limit is not None:
            edges = torch.where(edges.isfinite(), edges.clamp(-limit, limit), edges)
        edges = edges.to(tensor.dtype)
    elif tensor.dtype in INTEGERS and kind == "all":
        limits = torch.iinfo(tensor.dtype)
        edges = torch.tensor([limits.min, limits.max, limits.max - 1, 0, 1], dtype=tensor.dtype)
    else:
        return tensor.clone()
    shape = tuple(tensor.shape)
    chosen = torch.from_numpy(np.asarray(generator.random(shape) < generator.choice([0.1, 0.3])))
    drawn = edges[torch.from_numpy(np.asarray(generator.integers(0, len(edges), shape)))]
    return torch.where(chosen, drawn, tensor)


def leaves_of(results: Any) -> list[np.ndarray[Any, Any]]:
    return [to_array(leaf.detach().resolve_conj().resolve_neg().clone()) for leaf in pytree.tree_leaves(results)]


def truths(function: Function, tensors: Sequence[torch.Tensor], generator: np.random.Generator) -> list[Truth] | None:
    """What eager PyTorch gives, and how far rounding moves it; None where it raises an error. Where its f64 gives a
    number and it overflows, or the other way around, an intermediate result decides: such elements are not compared."""
    try:
        values = leaves_of(function(*(tensor.clone() for tensor in tensors)))
        others = [leaves_of(function(*(moved(tensor, generator) for tensor in tensors))) for _ in range(RUNS)]
    except (RuntimeError, IndexError, ValueError):
        return None
    try:
        wide = leaves_of(function(*(x.double() if x.dtype in FLOATS else x.clone() for x in tensors)))
    except (RuntimeError, IndexError, ValueError):
        wide = values
    references = [Truth.of(value, [other[index] for other in others]) for index, value in enumerate(values)]
    for reference, exact in zip(references, wide, strict=True):
        if is_float(reference.value) and exact.shape == reference.value.shape:
            one, other = reference.value.astype(np.float64), exact.astype(reference.value.dtype).astype(np.float64)
            reference.undecided[...] |= (np.isfinite(one) != np.isfinite(other)) | (np.isnan(one) != np.isnan(other))
    return references


def moved(tensor: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    """With a relative error of up to two units in the last place."""
    if tensor.dtype not in FLOATS:
        return tensor.clone()
    eps = torch.finfo(tensor.dtype).eps
    noise = torch.from_numpy(np.asarray(generator.uniform(-2 * eps, 2 * eps, tuple(tensor.shape))))
    wide = tensor.double()
    return torch.where(wide.isfinite(), wide * (1 + noise), wide).to(tensor.dtype)


def paths_of(function: Function, tensors: Sequence[torch.Tensor]) -> Iterator[tuple[str, Function]]:
    """The program on each path that takes it."""
    try:
        module, convention = imported_program(function, tuple(tensor.clone() for tensor in tensors))
    except IrcError as error:  # of this element type, that is
        if error.code != "torch.unsupported":
            raise
        return
    makers = {
        "interpreter": lambda: CompiledProgram(module, "interpreter", convention, interpreted(module), ""),
        "onnx": lambda: CompiledProgram(module, "onnx", convention, in_onnx_runtime(module, False), ""),
        "triton": lambda: in_triton(passed(module, "triton"), convention),
    }
    for path, make in makers.items():
        try:
            yield path, make()
        except IrcError as error:
            if error.code != "backend.unsupported":
                raise


def element_types(name: str, generator: np.random.Generator) -> list[torch.dtype]:
    """f32, another type of floats and one of integers, of those that the operator takes."""
    supported = OPERATORS[name].supported_dtypes("cpu")
    groups = ([dtype for dtype in group if dtype in supported] for group in (FLOATS[:1], FLOATS[1:], INTEGERS))
    return [group[generator.integers(len(group))] for group in groups if group]


def differences(name: str, seed: int = 0) -> list[str]:
    """Where a path gives other than eager PyTorch, in words."""
    warnings.simplefilter("ignore")
    messages = []
    generator = np.random.default_rng([seed, *name.encode()])
    for dtype in element_types(name, generator):
        given = [each for each in samples(name, dtype) if sum(tensor.numel() for tensor in each[1]) <= LARGEST]
        for number, (function, tensors, _) in enumerate(given if dtype is torch.float32 else given[1:2] or given):
            kinds = list(KINDS) if dtype is torch.float32 else ["all"] if dtype in INTEGERS else ["nan", "huge", "all"]
            feeds = [[with_edges(tensor, kind, generator) for tensor in tensors] for kind in kinds]
            with torch.no_grad():
                judged = [(kind, feed, references) for kind, feed in zip(kinds, feeds, strict=True)
                          if (references := truths(function, feed, generator)) is not None]  # fmt: skip
            if judged:
                messages += compared(function, tensors, judged, f"{str(dtype)[6:]} {number}")
    return messages


def compared(function: Function, tensors: Sequence[torch.Tensor], judged: Any, where: str) -> list[str]:
    messages = []
    with quiet(), np.errstate(all="ignore"):
        for path, program in paths_of(function, tensors):
            for kind, feed, references in judged:
                try:
                    results = leaves_of(program(*(tensor.clone() for tensor in feed)))
                    words = next(filter(None, map(Truth.difference, references, results)), None)
                except Exception as error:
                    words = f"{type(error).__name__}: {str(error)[:300]}"
                messages += [f"{path}: {where} {kind}: {words}"] if words else []
    return messages


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    undecided = 0
    for name in itertools.islice(options.names or PASSING, options.first, None, options.stride):
        messages = differences(name, options.seed)
        undecided += bool(messages) and name not in DIFFERENT
        print(f"{name}: {len(messages)} differ{f' ({DIFFERENT[name]})' if messages and name in DIFFERENT else ''}",
              *messages[:12], sep="\n    ", flush=True)  # fmt: skip
    return int(undecided > 0)


if __name__ == "__main__":
    raise SystemExit(main())
