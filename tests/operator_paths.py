"""PyTorch's samples of its operators (OpInfo) on every path, in every element type that an operator takes.

A piece is an operator, an element type and a sample. It is exported and imported once, then interpreted, run in ONNX
Runtime, and as an artefact of Triton (interpreted), each against eager PyTorch. A run goes on where the one before
stopped: outcomes are lines of a file, and a piece that ended the process is one of them.

    python -m tests.operator_paths STATE [--part first] [--dtype f32 ...] [--seconds N] [--rounds N]
    python -m tests.operator_paths STATE --show      # what is wrong
    python -m tests.operator_paths STATE --table     # the second part of torch_samples.txt
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.testing._comparison import default_tolerances
from torch.testing._internal.common_device_type import toleranceOverride
from torch.utils import _pytree as pytree

from irc import interpreter
from irc.diagnostics import IrcError
from irc.driver.callables import compiled_module, imported_program
from irc.driver.compiled_programs import CompiledProgram
from irc.ops.extern import is_call_of_torch
from tests.fuzz.paths import quiet
from tests.fuzz.torch_paths import on_arrays
from tests.test_torch_samples import (
    BY_PATH,
    IN_TORCH,
    NO_SAMPLE,
    OPERATORS,
    SEED,
    TABLE,
    as_function,
    excluded,
    read_table,
    spread,
    unread,
)

DTYPES = {
    "f32": torch.float32, "i64": torch.int64, "bf16": torch.bfloat16, "f16": torch.float16, "bool": torch.bool,
    "f64": torch.float64, "i32": torch.int32, "u8": torch.uint8, "i8": torch.int8, "i16": torch.int16,
    "c64": torch.complex64, "c128": torch.complex128,
}  # fmt: skip
PATHS = "interpreter", "onnx", "triton"
LIMIT = 120  # seconds of one piece


@dataclass(frozen=True)
class Piece:
    """One sample of an operator. `sample` counts those that OpInfo gives for the element type."""

    name: str
    dtype: str
    sample: int


def inputs_of(name: str, dtype: str) -> list[Any]:
    torch.manual_seed(0)
    return list(OPERATORS[name].sample_inputs("cpu", DTYPES[dtype], requires_grad=False))


def eager(function: Callable[..., Any], tensors: Sequence[torch.Tensor]) -> list[Any]:
    torch.manual_seed(SEED)
    with torch.no_grad():
        return pytree.tree_leaves(function(*(tensor.clone() for tensor in tensors)))


def plain(leaf: torch.Tensor) -> torch.Tensor:
    return leaf.detach().resolve_conj().resolve_neg()


def tolerances(name: str, dtype: torch.dtype) -> tuple[float, float]:
    """atol and rtol of `torch.testing.assert_close`, or those that OpInfo states for the operator."""
    rtol, atol = default_tolerances(dtype)
    for decorator in OPERATORS[name].decorators if name else ():
        for each in getattr(decorator, "decorators", [decorator]):
            if isinstance(each, toleranceOverride) and dtype in each.d:
                atol, rtol = max(atol, each.d[dtype].atol), max(rtol, each.d[dtype].rtol)
    return atol, rtol


def difference(name: str, actual: torch.Tensor, expected: torch.Tensor, exact: torch.Tensor | None) -> str:
    """How a result differs from eager PyTorch's, in words, or "". One that is as near to what eager PyTorch gives in
    f64 as its own result is does not."""
    if (actual.dtype, actual.shape) != (expected.dtype, expected.shape):
        return f"{actual.dtype}{[*actual.shape]}, expected {expected.dtype}{[*expected.shape]}"
    if not (expected.is_floating_point() or expected.is_complex()):
        wrong = actual != expected
    else:
        atol, rtol = tolerances(name, expected.dtype)
        wide = torch.complex128 if expected.is_complex() else torch.float64
        one, other = actual.to(wide), expected.to(wide)
        wrong = ~torch.isclose(one, other, rtol=rtol, atol=atol, equal_nan=True)
        if wrong.any() and exact is not None and exact.shape == expected.shape and exact.dtype == wide:
            wrong &= ~((one - exact).abs() <= (other - exact).abs().max())
    if not wrong.any():
        return ""
    where = tuple(wrong.nonzero()[0].tolist())
    return f"{int(wrong.sum())} of {wrong.numel()}: {actual[where].item()}, expected {expected[where].item()}"


def in_f64(function: Callable[..., Any], tensors: Sequence[torch.Tensor]) -> list[Any]:
    """What eager PyTorch gives in f64; nothing where it cannot."""
    wide = {each: torch.float64 for each in (torch.float32, torch.float16, torch.bfloat16)} | {
        torch.complex64: torch.complex128}
    try:
        return eager(function, [tensor.to(wide.get(tensor.dtype, tensor.dtype)) for tensor in tensors])
    except (RuntimeError, TypeError, ValueError, IndexError):  # of operators that take no f64
        return []


def runs(module: Any, convention: Any) -> dict[str, Callable[[], CompiledProgram]]:
    def interpreted() -> CompiledProgram:
        run = on_arrays(module, lambda arrays: interpreter.run(module, arrays, draws=SEED))
        return CompiledProgram(module, "interpreter", convention, run, "")

    return {"interpreter": interpreted, "onnx": partial(compiled_module, module, convention, "onnx"),
            "triton": partial(compiled_module, module, convention, "triton",  # PyTorch draws, to be compared
                              pipeline="default{random_numbers.by=host}")}  # fmt: skip


def said(error: Exception) -> str:
    if isinstance(error, IrcError):
        each = error.diagnostics[0]
        return f"{each.code}: {each.message}" + "".join(f" [{note}]" for note in (each.notes or ())[:3])
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"raises {type(error).__name__}: {str(error)[:300]} ({Path(frame.filename).name}:{frame.lineno})"


def outcomes(piece: Piece, sample: Any) -> dict[str, str]:
    """By path "" or what is wrong; "called" is "yes" where PyTorch is called."""
    function, tensors = as_function(piece.name, sample)
    try:
        expected = eager(function, tensors)
    except Exception as error:
        return {"all": f"eager PyTorch raises {type(error).__name__}"}
    if not (tensors and expected and all(isinstance(each, torch.Tensor) and each.layout == torch.strided
                                         for each in [*expected, *tensors])):  # fmt: skip
        return {"all": NO_SAMPLE}
    try:
        module, convention = imported_program(function, tuple(tensor.clone() for tensor in tensors))
    except Exception as error:
        return {"all": said(error)}
    exact = in_f64(function, tensors)
    result = {"called": "yes"} if any(map(is_call_of_torch, module.walk())) else {}
    for path, make in runs(module, convention).items():
        try:
            program = make()
            torch.manual_seed(SEED)
            actual = pytree.tree_leaves(program(*(tensor.clone() for tensor in tensors)))
            references = exact if len(exact) == len(expected) else [None] * len(expected)
            result[path] = next(filter(None, map(partial(difference, piece.name), map(plain, actual),
                                                 map(plain, expected), references)), "")  # fmt: skip
        except Exception as error:
            result[path] = said(error)
    return result


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError(f"takes more than {seconds} s")

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)  # of this process, whatever else runs
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def pieces(names: Sequence[str], dtypes: Sequence[str], part: str, rounds: int) -> Iterator[tuple[Piece, Any]]:
    """Pieces, with a function that gives the sample of each. In one of several rounds each operator is tried with
    some of its types, and each type with some of its operators; all rounds have all."""
    pairs = [(dtype, name, (row + column) % rounds)
             for row, dtype in enumerate(dtypes) for column, name in enumerate(names)]  # fmt: skip
    for dtype, name, _ in sorted(pairs, key=lambda pair: pair[2]):
        if DTYPES[dtype] not in OPERATORS[name].supported_dtypes("cpu"):
            continue
        if part == "first":
            yield Piece(name, dtype, 0), partial(sample_of, name, dtype, 0)
        else:
            inputs = inputs_of(name, dtype)
            for place in range(len(inputs)) if part == "all" else spread(len(inputs)):
                yield Piece(name, dtype, place), partial(inputs.__getitem__, place)


def sample_of(name: str, dtype: str, index: int) -> Any:
    torch.manual_seed(0)
    return next(itertools.islice(OPERATORS[name].sample_inputs("cpu", DTYPES[dtype], requires_grad=False), index, None))


def read_state(state: Path) -> dict[Piece, dict[str, str]]:
    recorded: dict[Piece, dict[str, str]] = {}
    for line in state.read_text("utf-8").splitlines() if state.exists() else ():
        record = json.loads(line)
        piece = Piece(*record["piece"])
        recorded[piece] = record.get("outcome") or {"all": "ends the process"}
    return recorded


def run(state: Path, todo: Iterator[tuple[Piece, Callable[[], Any]]], seconds: float) -> None:
    done, end = read_state(state), time.monotonic() + seconds
    with state.open("a", encoding="utf-8") as out, quiet():
        for piece, sample in todo:
            if piece in done:
                continue
            if time.monotonic() > end:
                return
            key = [piece.name, piece.dtype, piece.sample]
            print(json.dumps({"piece": key}), file=out, flush=True)
            began = time.monotonic()
            try:
                with time_limit(LIMIT):
                    outcome = {"all": why} if (why := excluded(piece.name)) else outcomes(piece, sample())
            except StopIteration:
                outcome = {"all": "no sample"}
            except Exception as error:
                outcome = {"all": said(error)}
            print(json.dumps({"piece": key, "outcome": outcome, "seconds": round(time.monotonic() - began, 2)}),
                  file=out, flush=True)


def problems(outcome: dict[str, str]) -> dict[str, str]:
    """What is wrong by path, other than that the backend onnx calls no operators of PyTorch."""
    return {path: text for path, text in outcome.items() if text and path != "called"
            and not (path == "onnx" and outcome.get("called") and text.startswith("backend.unsupported"))}  # fmt: skip


def show(state: Path) -> None:
    for piece, outcome in sorted(read_state(state).items(), key=str):
        for path, text in problems(outcome).items():
            print(f"{piece.name} {piece.dtype} {piece.sample} {path}: {text}")


# Why results differ from eager PyTorch's, by the operator.
AT_POLES = "at a pole it is infinite, where PyTorch gives the inverse square of a rounded sine"
WHY_DIFFERENT = {
    **dict.fromkeys(("argsort", "kthvalue", "mode", "sort", "topk"),
                    "other positions of equal elements, whose order PyTorch leaves open"),
    **{f"polygamma.polygamma_n_{n}": AT_POLES for n in range(5)}, "special.polygamma.special_polygamma_n_0": AT_POLES,
    "nn.functional.scaled_dot_product_attention": "rounds to the narrow type where PyTorch's kernel keeps f32",
    "fft.hfft2": "rounding, where the terms of a sum cancel",
    "linspace.tensor_overload": "PyTorch's decomposition keeps the fraction of the first number, its kernel does not",
}  # fmt: skip


def reason_of(name: str, text: str) -> str:
    """What is wrong, without sizes and numbers."""
    code, _, message = text.partition(": ")
    if code == "backend.unsupported":
        return message.rpartition("]: ")[2]
    if code == "torch.unsupported":
        return unread(re.split(r" \[(?=\d+ of )", message)[1:])
    if code == "torch.export":
        return message.partition(" [")[0].replace("this program", "it")
    is_different = re.match(r"\d+ of \d+$|torch\.\w+\[", code)
    return WHY_DIFFERENT.get(name, "differs") if is_different else code


def listed_by_path() -> dict[tuple[str, str], dict[str, set[str]]]:
    """The part of the table that is about paths and element types: by operator and type, the reasons by path. A type
    with a star, `f32*`, is of other samples than the first."""
    recorded: dict[tuple[str, str], dict[str, set[str]]] = {}
    reason = ""
    for line in TABLE.read_text("utf-8").partition(BY_PATH)[2].splitlines():
        name, colon, rest = line.partition(": ")
        if line.startswith("["):
            reason = line[1:-1]
        elif colon and not line.startswith("#"):
            first, *others = rest.split()
            path, dtypes = (first, others) if first in PATHS else ("all", [first, *others])
            for dtype in dtypes:
                recorded.setdefault((name, dtype), {}).setdefault(path, set()).add(reason)
    return recorded


def counts_of(outcomes: Iterable[tuple[Piece, dict[str, str]]]) -> dict[tuple[str, str], str]:
    """How many pieces pass, by path and element type, in words; of types without pieces what the table says."""
    tried, passed = Counter[str](), Counter[tuple[str, str]]()
    for piece, outcome in outcomes:
        tried[piece.dtype] += 1
        passed.update((path, piece.dtype) for path in PATHS if outcome.get(path) == "")
    lines = re.findall(r"^# (\w+): (.* of .* in .*)$", TABLE.read_text("utf-8").partition(BY_PATH)[2], re.MULTILINE)
    before = {(path, text.split()[-1]): text for path, texts in lines for text in texts.split(", ")}
    return before | {(path, dtype): f"{passed[path, dtype]} of {count} in {dtype}"
                     for path in PATHS for dtype, count in tried.items()}  # fmt: skip


def write_table(state: Path) -> None:
    """Write the part of the table that is about paths and element types, of the operators and types in the state."""
    recorded, whole = read_state(state), read_table()
    tried = {(piece.name, piece.dtype) for piece in recorded}
    reasons = {(name, dtype): by_path for (name, dtype), by_path in listed_by_path().items()
               if (name, dtype.rstrip("*")) not in tried}  # fmt: skip
    for piece, outcome in sorted(recorded.items(), key=lambda item: item[0].sample):
        wrong = problems(outcome)
        if whole.get(piece.name, IN_TORCH) != IN_TORCH or NO_SAMPLE in wrong.values():
            continue
        of_first = reasons.setdefault((piece.name, piece.dtype), {})
        by_path = reasons.setdefault((piece.name, f"{piece.dtype}*"), {}) if piece.sample else of_first
        for path, text in wrong.items():
            if (reason := reason_of(piece.name, text)) not in of_first.get(path, ()):
                by_path.setdefault(path, set()).add(reason)
    groups: dict[str, dict[tuple[str, str], set[str]]] = {}
    for (name, dtype), by_path in reasons.items():
        for path, reason in ((path, reason) for path, several in by_path.items() for reason in several):
            groups.setdefault(reason, {}).setdefault((name, path), set()).add(dtype)
    counts = counts_of(recorded.items())
    lines = TABLE.read_text("utf-8").partition(BY_PATH)[0].rstrip().splitlines() + ["", BY_PATH]
    for path in PATHS:
        lines += [f"# {path}: {', '.join(counts[path, dtype] for dtype in DTYPES if (path, dtype) in counts)}"]
    for reason, members in sorted(groups.items()):
        lines += ["", f"[{reason}]"]
        for (name, path), dtypes in sorted(members.items()):
            where = [path] if path in PATHS else []
            known = (starred for each in DTYPES for starred in (each, f"{each}*"))
            lines += [" ".join([f"{name}:", *where, *(each for each in known if each in dtypes)])]
    TABLE.write_text("\n".join(lines) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("state", type=Path)
    parser.add_argument("--part", choices=("first", "spread", "all"), default="first")
    parser.add_argument("--dtype", nargs="*", default=list(DTYPES))
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--show", action="store_true", help="print what is wrong")
    parser.add_argument("--table", action="store_true", help="write it into the table")
    parser.add_argument("--names", nargs="*")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.show:
        return show(options.state)
    if options.table:
        return write_table(options.state)
    names = options.names or sorted(OPERATORS)
    run(options.state, pieces(names, options.dtype, options.part, options.rounds), options.seconds)
    return None


if __name__ == "__main__":
    sys.exit(main())
