"""PyTorch's own samples of its operators (OpInfo), read and interpreted, against eager PyTorch.

Every operator of `torch.testing` is tried with floats and with integers. Those that do not pass are in
`torch_samples.txt` with the reason, and so are those that pass because PyTorch is called; a test says so too where one
passes that stands there. Random operators draw what eager PyTorch draws after the same seed. Quick runs take every
sixteenth operator, `-m slow` all. The table is written again by

    python tests/test_torch_samples.py             # all operators
    python tests/test_torch_samples.py --listed    # those that stand in it
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("expecttest")

import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree

import irc
from irc import interpreter
from irc.diagnostics import IrcError
from irc.driver.measuring import relative_error
from irc.frontends.torch.tensors import to_array
from irc.ops.extern import is_call_of_torch

TABLE = Path(__file__).with_name("torch_samples.txt")
STRIDE = 16  # of the operators in a quick run
SAMPLES = 3  # of each operator and type: spread over those that there are
TOLERANCE = 1e-5
SEED = 42  # which many of the samples' functions set themselves
DTYPES = (torch.float32, torch.int64)
OPERATORS = {f"{each.name}{'.' if each.variant_test_name else ''}{each.variant_test_name}": each for each in op_db}
NO_SAMPLE = "gives no tensor, or takes none"
IN_TORCH = "passes, by calls of PyTorch, which the backend onnx rejects"
# The second part of the table: what `operator_paths.py` writes, of paths and element types.
BY_PATH = "# By path and element type, of samples in f32 (of 18,650) and i64 (of 9,190), of others the first:"
# Results that are not a function of the arguments.
MEMORY = "gives what memory holds"
# What explains an outcome that names no operator.
WHY = {
    "kthvalue": "of equal elements any may come first",
    "masked_select": "torch.export's program asserts fewer than there are, where the mask is the larger one",
    "mode": "of equal elements any may come first",
    "topk": "of equal elements any may come first",
    "unique_consecutive": "PyTorch states another shape of the result where the axis counts from the end",
}
OF_MEMORY = "reads memory beyond its argument, which a copy of the argument has not"
NOTE = re.compile(r"\d+ of (\S+?)(?:\.default)? \((.*?)\)(?::|$)")  # of an operator, with the reason
UNINITIALIZED = {"empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided"}


def as_function(name: str, sample: Any) -> tuple[Callable[..., Any], tuple[torch.Tensor, ...]]:
    """A sample as a function of its tensors alone, and the tensors."""
    operator = OPERATORS[name]
    leaves, structure = pytree.tree_flatten((sample.input, sample.args, sample.kwargs))
    places = [index for index, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

    def function(*tensors: torch.Tensor) -> Any:
        filled = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        first, args, kwargs = pytree.tree_unflatten(filled, structure)
        return operator.op(first, *args, **kwargs)

    return function, tuple(leaves[place].clone() for place in places)


def samples(name: str, dtype: torch.dtype) -> Iterator[tuple[Any, tuple[torch.Tensor, ...], Any]]:
    """Functions of tensors alone, with the tensors, and what eager PyTorch makes of them."""
    torch.manual_seed(0)
    inputs = list(OPERATORS[name].sample_inputs("cpu", dtype, requires_grad=False))
    for place in spread(len(inputs)):
        function, tensors = as_function(name, inputs[place])
        torch.manual_seed(SEED)  # as the interpreter does
        expected = pytree.tree_leaves(function(*(tensor.clone() for tensor in tensors)))
        if tensors and expected and all(isinstance(each, torch.Tensor) and not each.is_sparse for each in expected):
            yield function, tensors, expected


def spread(count: int) -> list[int]:
    """The places of `SAMPLES` of so many samples, of the first and the last too."""
    return sorted({round(place) for place in np.linspace(0, count - 1, SAMPLES)}) if count else []


def excluded(name: str) -> str:
    """Why an operator is not tried, or ""."""
    if name.startswith("jiterator"):
        return "for GPUs alone"
    if name.partition(".")[0] in UNINITIALIZED:
        return MEMORY
    return OF_MEMORY if name == "as_strided.partial_views" else ""


def outcome(name: str) -> str:
    """ "" for an operator whose samples all pass, or `IN_TORCH`; or why they do not, of the first that does not."""
    warnings.simplefilter("ignore")
    if why := excluded(name):
        return why
    compared, calls = 0, False
    for dtype in (dtype for dtype in DTYPES if dtype in OPERATORS[name].supported_dtypes("cpu")):
        for function, tensors, exact in samples(name, dtype):
            try:
                module = irc.from_torch(function, tensors)
            except IrcError as error:
                return refusal(error)
            arguments = [value.name for value in module.main.arguments]
            given = dict(zip(arguments, map(to_array, tensors), strict=True))
            try:
                outputs = [*interpreter.run(module, given, draws=SEED).values()]
            except IrcError as error:
                return f"{error.code}"
            # Others are arguments that it writes.
            for output, reference in zip(outputs[: len(exact)], exact, strict=True):
                expected = to_array(reference.resolve_conj().resolve_neg())
                if output.dtype != expected.dtype or not relative_error(output, expected) <= TOLERANCE:
                    return f"differs: {dtype}".replace("torch.", "")
            compared, calls = compared + 1, calls or any(map(is_call_of_torch, module.walk()))
    return NO_SAMPLE if not compared else IN_TORCH if calls else ""


def explained(name: str) -> str:
    return f"{outcome(name)}: {WHY[name]}" if name in WHY else outcome(name)


def refusal(error: IrcError) -> str:
    """Of what irc cannot read, the operators; of what PyTorch cannot export, that."""
    return unread(error.diagnostics[0].notes) if error.code == "torch.unsupported" else error.code


def unread(notes: Iterable[str]) -> str:
    """The operators that irc does not read, from the notes of an error."""
    reasons = [match.groups() for match in map(NOTE.match, notes) if match is not None]
    return "irc reads no " + ", ".join(
        sorted({name if reason == "irc has no row for it" else f"{name} ({reason})" for name, reason in reasons}))


# What PyTorch 2.15 has and the version of the table has not, and what 2.11 cannot export.
OTHERS = {"linalg.matrix_sqrth": "irc reads no linalg_matrix_sqrth",
          **({"nanquantile": "torch.export"} if torch.__version__ < "2.12" else {})}  # fmt: skip


def read_table() -> dict[str, str]:
    reasons, reason = {}, ""
    for line in TABLE.read_text("utf-8").partition(BY_PATH)[0].splitlines():
        if line.startswith("["):
            reason = line[1:-1]
        elif line and not line.startswith("#"):
            reasons[line] = reason
    return reasons


def attempt(name: str) -> str:
    try:
        return explained(name)
    except Exception as error:  # so that the others are still tried; the test itself fails
        return f"raises {type(error).__name__}"


def write_table(only_listed: bool) -> None:
    """Write the table, of outcomes of all operators or of those that stand in it, and what has changed."""
    before, kept = read_table(), "".join(TABLE.read_text("utf-8").partition(BY_PATH)[1:])
    names = sorted(before if only_listed else OPERATORS)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for name, result in zip(names, pool.imap(attempt, names, chunksize=1), strict=True):
            if result != before.get(name, ""):
                print(f"{name}: {result or 'passes'}", flush=True)
            before.pop(name, None)
            if result:
                before[name] = result
    groups: dict[str, list[str]] = {}
    for name, result in sorted(before.items()):
        groups.setdefault(result, []).append(name)
    called = len(groups.get(IN_TORCH, ()))
    lines = [f"# Written by test_torch_samples.py for torch {torch.__version__.partition('+')[0]}: of {len(OPERATORS)} "
             f"operators {len(OPERATORS) - len(before) + called} pass, {called} of them by calls of PyTorch, and"]
    for reason, members in sorted(groups.items()):
        lines += ["", f"[{reason}]", *members]
    TABLE.write_text("\n".join(lines) + ("\n\n" + kept if kept else "\n"), "utf-8")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if index % STRIDE == 0 else pytest.mark.slow)
             for index, name in enumerate(sorted(OPERATORS))])  # fmt: skip
def test_samples(name: str) -> None:
    assert explained(name) == {**OTHERS, **read_table()}.get(name, "")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    parser = argparse.ArgumentParser(description="Write torch_samples.txt.")
    parser.add_argument("--listed", action="store_true", help="try only the operators that stand in it")
    write_table(parser.parse_args().listed)
