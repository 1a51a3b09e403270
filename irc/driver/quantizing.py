"""`--quantize`: weights in fewer bits, and what that changes on calibration data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irc.driver.arrays import given_inputs
from irc.driver.measuring import relative_error
from irc.driver.pipelines import leaving_out
from irc.driver.running import OnnxProgram
from irc.module import Module
from irc.pass_manager import PassContext

PASS = "quantize_weights"
Calibration = Sequence[Mapping[str, Any] | str | Path]  # samples of inputs


@dataclass(frozen=True)
class QuantizationReport:
    """How many weights are stored in `bits`, their bytes before and after, and by output the largest error,
    max |a - b| / max |b| of outputs a against those b of the weights in f32, over all samples of `data`."""

    bits: int
    weights: int
    bytes_before: int
    bytes_after: int
    errors: Mapping[str, float]
    data: tuple[str, ...]


def quantized_pipeline(pipeline: str, bits: int) -> str:
    """A pipeline with the pass after all others, so that no fold widens the weights again. Weights of 4 bits are those
    of products, which stay products."""
    kept = leaving_out(pipeline, ["products_as_conv"] if bits == 4 else [])
    return f"{kept},{PASS}{{bits={bits}}}"


def quantization_report(before: Module, after: Module, context: PassContext, bits: int, calibration: Calibration,
                        sizes: Mapping[str, int], target: Any) -> QuantizationReport:  # fmt: skip
    """The errors of a quantized module in ONNX Runtime, on calibration data or, without any, on random inputs. Raises
    what reading and running them raises."""
    programs = [OnnxProgram(module, target) for module in (before, after)]
    errors: dict[str, float] = {}
    samples: Sequence[Any] = calibration or [None]
    for sample in samples:
        given = given_inputs(before.main, sample, sizes, 0)
        exact, computed = (program(given) for program in programs)
        for name, value in computed.items():
            errors[name] = max(errors.get(name, 0.0), relative_error(value, exact[name]))
    counts = context.statistics.get(PASS, {})
    data = tuple(str(sample) if isinstance(sample, (str, Path)) else "given arrays" for sample in calibration)
    return QuantizationReport(bits, counts.get("weights", 0), counts.get("bytes before", 0),
                              counts.get("bytes after", 0), errors, data or ("random inputs",))  # fmt: skip
