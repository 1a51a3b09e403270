"""ONNX's own backend suite, as a measure: which cases the frontend reads whole and the interpreter computes rightly.

`onnx_backend_suite.txt` lists, in sections, every case that is not so: `carries OP, ...` (right, but with operators
carried as `extern`, which does not count as covered) or `fails CODE: the reason`. The list is exact: a case that does
better than listed fails the test as well. After a change, `python tests/test_onnx_backend_suite.py` writes it again;
read the difference. Models that are older than opset 7 are converted by ONNX first.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.backend.base import Backend, BackendRep
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner
from onnx_models import check_close, in_runtime

from irc.diagnostics import IrcError
from irc.frontends.onnx import from_model, load
from irc.frontends.onnx.scope import OLDEST_OPSET
from irc.interpreter import run
from irc.module import Module

TABLE = Path(__file__).with_name("onnx_backend_suite.txt")
KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
LEAST_COVERED = 1300  # of about 2,000; the rest of the table is by name

NOT_RUN = "carried, and ONNX Runtime cannot run the operator (or this opset of it)"
# Why a case fails, by the code that it fails with and its name: the first line that fits both.
REASONS = (
    ("onnx.unsupported", "_opt|_seq_none", "optionals that are there or not as the data says"),
    ("run.dim_range", "", "a named size that is 0: symbols of a model range from 1"),
    ("onnx.unsupported", "scan_sum", "Scan of opset 8 has a batch axis"),
    ("onnx.unsupported", "flexattention", "operators with graphs among their attributes are not read"),
    ("onnx.unsupported", "affine_grid", "an If whose branches differ in rank is not read"),
    ("onnx.unsupported", "gradient", "training operators have no schema that infers types"),
    ("onnx.opset", "", "older than opset 7, and ONNX cannot convert it"),
    ("type.broadcast", "PReLU", "opset 6: slopes for each channel, which the conversion to opset 7 leaves as they are"),
    ("run.extern", "", NOT_RUN),
    ("differs", "attention", "a rounding of f16 or bf16 apart: the suite demands equal steps inside attention"),
    ("differs", "U?INT[24]", "out-of-range floats to 2 and 4 bits: undefined in ONNX; irc saturates, the suite wraps"),
    ("differs", "dft|stft", "carried: ONNX Runtime's transform is that far from the suite's"),
    ("differs", "training_dropout", "carried: random"),
    ("differs", "maxunpool|resize", "carried: ONNX Runtime differs from the suite"),
)


class Interpreted(BackendRep):
    """A module that the interpreter runs on inputs in the model's order."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.module: Module = from_model(model, Path("no such folder"))
        self.inputs = [value.name for value in model.graph.input]

    def run(self, inputs: Any, **options: Any) -> tuple[Any, ...]:
        known = {argument.name for argument in self.module.main.arguments}
        given = {name: x if x is None or isinstance(x, list) else np.asarray(x)
                 for name, x in zip(self.inputs, inputs, strict=False) if name in known}  # fmt: skip
        return tuple(run(self.module, given).values())


class IrcBackend(Backend):
    """irc's ONNX frontend and interpreter as a backend of ONNX."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **options: Any) -> Interpreted:
        return Interpreted(model)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device == "CPU"


def data_of(case: TestCase) -> Iterator[tuple[Sequence[Any], Sequence[Any]]]:
    """The inputs and outputs of a case, in memory or in files."""
    if case.data_sets is not None:
        for inputs, outputs in case.data_sets:
            yield [array_of(each) for each in inputs], [array_of(each) for each in outputs]
        return
    for folder in sorted(Path(case.model_dir).glob("test_data_set_*")):
        yield tuple(
            [array_of(onnx.TensorProto.FromString((folder / f"{which}_{index}.pb").read_bytes()))
             for index in range(len(list(folder.glob(f"{which}_*.pb"))))]
            for which in ("input", "output")
        )  # type: ignore[misc]


def arrays_in(outputs: Sequence[Any]) -> list[Any]:
    """The arrays, those in sequences too, with the lengths of these."""
    actual: list[Any] = []
    for each in outputs:
        actual += [np.asarray(len(each)), *arrays_in(each)] if isinstance(each, list) else [each]
    return actual


def array_of(each: Any) -> Any:
    return onnx.numpy_helper.to_array(each) if isinstance(each, onnx.TensorProto) else each


def model_of(case: TestCase) -> onnx.ModelProto:
    model = case.model if case.model is not None else onnx.load(Path(case.model_dir) / "model.onnx")
    version = max((entry.version for entry in model.opset_import if not entry.domain), default=OLDEST_OPSET)
    if version < OLDEST_OPSET:
        try:
            return onnx.version_converter.convert_version(model, OLDEST_OPSET)
        except RuntimeError:
            return model
    return model


def outcome(case: TestCase) -> str:
    """`covered`, `carries OP, ...` or `fails CODE`."""
    try:
        prepared = IrcBackend.prepare(model_of(case))
        carried = sorted({op.attributes["op_type"] for op in prepared.module.walk() if op.name == "extern"})
        for inputs, outputs in data_of(case):
            Runner.assert_similar_outputs(arrays_in(outputs), arrays_in(prepared.run(inputs)), case.rtol, case.atol)
    except IrcError as error:
        return f"fails {error.code}"
    except AssertionError:
        return "fails differs"
    return f"carries {', '.join(carried)}" if carried else "covered"


def with_reason(name: str, actual: str) -> str:
    code = actual.removeprefix("fails ")
    if code == actual:
        return actual
    known = (why for each, pattern, why in REASONS if each == code and re.search(pattern, name))
    return f"{actual}: {next(known, '?')}"


def measured() -> dict[str, str]:
    """What every case of the suite comes to."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        cases = [case for kind in KINDS for case in load_model_tests(kind=kind)]
        return {case.name: with_reason(case.name, outcome(case)) for case in cases}


def listed() -> tuple[str, dict[str, str]]:
    """The version of onnx that the table is for, and what it says of each case in it."""
    version, *lines = TABLE.read_text().splitlines()
    table, section = {}, ""
    for line in lines:
        if line.startswith("["):
            section = line[1:-1]
        elif line:
            table[line] = section
    return version.split()[-1], table


def written(actual: dict[str, str]) -> str:
    sections: dict[str, list[str]] = {}
    for name, what in actual.items():
        if what != "covered":
            sections.setdefault(what, []).append(name)
    text = [f"# Written by test_onnx_backend_suite.py for onnx {onnx.__version__}"]
    for section in sorted(sections, key=lambda section: (section.startswith("carries"), section)):
        text += ["", f"[{section}]", *sorted(sections[section])]
    return "\n".join(text) + "\n"


def test_suite() -> None:
    """Every case comes to what the table says."""
    version, table = listed()
    if version != onnx.__version__:
        pytest.skip(f"the table is for onnx {version}")
    actual = measured()
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 32):  # the table is for 1.31, which runs fewer
        runs = {name for name, what in actual.items()
                if what.startswith("carries ") and table.get(name, "").endswith(f": {NOT_RUN}")}  # fmt: skip
        table = {name: actual[name] if name in runs else what for name, what in table.items()}
    different = [f"{name}: {what}, listed as: {table.get(name, 'covered')}"
                 for name, what in actual.items() if what != table.get(name, "covered")]
    unknown = [f"{name}: listed, but not in the suite" for name in table if name not in actual]
    assert not different + unknown
    assert sum(what == "covered" for what in actual.values()) >= LEAST_COVERED


@pytest.mark.parametrize("number", [1, 2, 3, 7])
def test_positions_that_have_defaults(number: int) -> None:
    """Positions in sequences that are inputs with initializers can be overridden, so the operators are carried, unless
    defaults are folded."""
    (case,) = (each for each in load_model_tests(kind="simple") if each.name == f"test_sequence_model{number}")
    module = from_model(model_of(case), Path("no such folder"), fold_defaults=True)
    assert "extern" not in {operation.name for operation in module.walk()}
    for inputs, outputs in data_of(case):
        given = dict(zip([argument.name for argument in module.main.arguments], inputs, strict=False))
        Runner.assert_similar_outputs(outputs, list(run(module, given).values()), case.rtol, case.atol)


LIGHT = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob("*.onnx"))


@pytest.mark.slow
@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_light_models(path: Path) -> None:
    """Whole networks, their weights made by ConstantOfShape, against ONNX Runtime."""
    module = load(path)
    assert "extern" not in {operation.name for operation in module.walk()}
    random = np.random.default_rng(0)
    inputs = {argument.name: random.standard_normal(argument.type.static_shape()).astype(np.float32)
              for argument in module.main.arguments}
    for actual, expected in zip(run(module, inputs).values(), in_runtime(onnx.load(path), inputs), strict=True):
        check_close(actual, expected)


if __name__ == "__main__":
    TABLE.write_text(written(measured()))
