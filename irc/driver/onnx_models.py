"""Models as ONNX files: a pipeline, and on request tuning, quantization and advice for sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irc.diagnostics import fail
from irc.driver.models import Settings, Source, find_backend, reproducing
from irc.driver.optimizing import run_pipeline
from irc.files import check_file, check_model_file, open_file, replacing
from irc.module import Module
from irc.pass_manager import PassContext

if TYPE_CHECKING:  # imported where they are used
    from irc.driver.graph_tuning import GraphTuning
    from irc.driver.quantizing import Calibration, QuantizationReport

SECONDS = 60.0  # of timing
FORMS = {"weights=int8": 8, "weights=int4": 4}


@dataclass(frozen=True)
class OnnxOptions:
    """What `irc compile --backend onnx` may do besides: `quantize` is `weights=int8` or `weights=int4`, whose error is
    measured on `calibration`, samples of inputs; `tune` times candidates for `seconds`; `advice` writes
    `NAME.session.json`."""

    quantize: str | None = None
    calibration: Calibration = ()
    tune: bool = False
    seconds: float = SECONDS
    advice: bool = False
    progress: Callable[[str], None] | None = None

    def check(self) -> None:
        """Raise `usage.arguments` for options that mean nothing together."""
        if self.calibration and not (self.quantize or self.tune):
            raise fail("usage.arguments", "--calibration is for --quantize and --tune",
                       help="--quantize weights=int8, for example")  # fmt: skip
        if self.seconds != SECONDS and not self.tune:
            raise fail("usage.arguments", "--tune-seconds is for --tune", help="--tune")
        if not 0 < self.seconds < 1e6:
            raise fail("usage.arguments", f"--tune-seconds {self.seconds:g}", expected="a number of seconds above 0")


@dataclass(frozen=True)
class WrittenModel:
    """A model that was written: its module, the context of its passes, and what was measured."""

    module: Module
    context: PassContext
    nodes: int
    quantized: QuantizationReport | None = None
    tuned: GraphTuning | None = None
    advice: str = ""
    notes: tuple[str, ...] = ()


def write_onnx(source: Source, path: Path, pipeline: str, keep_kernels: bool, settings: Settings,
               options: OnnxOptions) -> WrittenModel:  # fmt: skip
    """Compile a model into an ONNX file; raises what its options raise."""
    options.check()
    check_model_file(path, ".onnx")  # before the work is done
    if options.advice:
        from irc.driver.sessions import advice_path

        check_file(advice_path(path))
    backend, notes, quantized, tuning = find_backend("onnx"), list[str](), None, None
    settings, more = target_for(settings, options)
    notes += more
    if options.tune:
        from irc.driver.graph_tuning import tuned

        inputs = options.calibration[0] if options.calibration else None
        source = settings.load(source) if str(source) == "-" else source
        reason = not_copied(source, pipeline, settings, options)
        tuning, chosen = tuned(source, pipeline, settings, options.seconds, inputs, options.progress, copy=not reason)
        if chosen is None:
            return copied(Path(str(source)), path, settings, options, tuning, pipeline)
        pipeline = chosen.pipeline
        if reason and tuning.candidates[tuning.chosen].ratio * (1 + tuning.noise) < 1:
            notes.append(f"the input is faster than all candidates, but is not copied: {reason}")
    module, context = run_pipeline(source, pipeline, "onnx", settings)
    if options.quantize is not None:
        from irc.driver.quantizing import quantization_report, quantized_pipeline

        bits = read_form(options.quantize)
        before, after = module, quantized_pipeline(pipeline, bits)
        module, context = run_pipeline(source, after, "onnx", settings)
        quantized = quantization_report(before, module, context, bits, options.calibration, settings.dims,
                                        context.target)  # fmt: skip
    with reproducing(settings, module, "emit-onnx"):
        backend.save(module, path, target=context.target, keep_kernels=keep_kernels)
    nodes = backend.count_nodes(path)
    advice = advise(module, path, settings, context) if options.advice else ""
    return WrittenModel(module, context, nodes, quantized, tuning, advice, tuple(notes))


def read_form(form: str) -> int:
    """The bits of `weights=int8` or `weights=int4`; raises `usage.arguments`."""
    if form not in FORMS:
        raise fail("usage.arguments", f"--quantize {form}", expected=" or ".join(FORMS))
    return FORMS[form]


def target_for(settings: Settings, options: OnnxOptions) -> tuple[Settings, Sequence[str]]:
    """Settings with the target that `quantize` needs, and notes. Products of 4-bit weights are an operator of ONNX
    Runtime alone: raises `usage.arguments` for them in a portable model."""
    if options.quantize is None or read_form(options.quantize) != 4 or "cpu" in settings.targets:
        return settings, ()
    if settings.targets:
        raise fail("usage.arguments", f"a {settings.target} model has no products of 4-bit weights",
                   expected="--target cpu, which has MatMulNBits", help="--target cpu, or --quantize weights=int8")
    return replace(settings, target="cpu"), ("compiled for --target cpu, which has products of 4-bit weights",)


def not_copied(source: Source, pipeline: str, settings: Settings, options: OnnxOptions) -> str:
    """Why a copy of the input is not what was requested, "" where it is."""
    from irc.frontends.onnx.messages import external_locations, fields
    from irc.frontends.onnx.weights import read_onnx

    if isinstance(source, Module) or not str(source).lower().endswith(".onnx"):
        return "it is no ONNX file"
    if settings.specialize or settings.fold_defaults:
        return "its inputs are specialized or folded"
    if options.quantize is not None:
        return "its weights are to be quantized"
    if settings.opset is not None:
        return f"a model of opset {settings.opset} is requested"
    if pipeline != find_backend("onnx").PIPELINE:
        return "a pipeline is requested"
    model = read_onnx(open_file(Path(str(source))))
    if external_locations(model):
        return "its weights are in other files"
    target = settings.target_of("onnx").name
    domains = {value for message, field, value in fields(model)
               if message.DESCRIPTOR.name == "NodeProto" and field.name == "domain"}  # fmt: skip
    domains -= {"", "ai.onnx"}
    return f"a {target} model has no operators of {', '.join(sorted(domains))}" if domains and target != "cpu" else ""


def copied(source: Path, path: Path, settings: Settings, options: OnnxOptions, tuning: GraphTuning, pipeline: str
           ) -> WrittenModel:  # fmt: skip
    """The input itself, where no candidate is as fast."""
    with replacing(path) as target:
        target.write(open_file(source).data.tobytes())
    module, context = run_pipeline(source, pipeline, "onnx", settings)
    advice = advise(module, path, settings, context) if options.advice else ""
    return WrittenModel(module, context, find_backend("onnx").count_nodes(path), None, tuning, advice)


def advise(module: Module, path: Path, settings: Settings, context: PassContext) -> str:
    """Write advice for sessions beside a model; returns the place of its file."""
    import onnx

    from irc.driver.sessions import advice_for, write_advice

    imports = onnx.load(path, load_external_data=False).opset_import
    opset = max((each.version for each in imports if each.domain in ("", "ai.onnx")), default=0)
    costs: Any = getattr(context.target, "costs", None)
    return str(write_advice(advice_for(module, opset, settings.dims, costs), path))
