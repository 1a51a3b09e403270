"""compile: models into ONNX files or Triton artefacts, PyTorch programs into functions.

`compile` decides which of them, `_written` compiles into a file or folder; functions are made by `callables`. What
kernels need is imported where they are compiled: the ONNX backend needs none of it.
"""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irc.diagnostics import check_argument, fail
from irc.driver.models import Backend, Settings, Source, find_backend, is_torch, require_triton
from irc.driver.onnx_models import OnnxOptions, write_onnx
from irc.files import guarded
from irc.module import Module
from irc.sizes import representative_sizes

if TYPE_CHECKING:
    from irc.driver.compiled_programs import CompiledProgram
    from irc.driver.figures import KernelsReport
    from irc.driver.graph_tuning import GraphTuning
    from irc.driver.quantizing import QuantizationReport


@dataclass(frozen=True)
class CompileReport:
    """What `compile` wrote: nodes of an ONNX graph, or kernels and operations that the host program calls.

    `figures` are those of one run on a device, at the sizes of `Settings.dims`, where they were requested; `quantized`
    and `tuned` what was measured, and `session_advice` the file that was written, where `OnnxOptions` say so.
    """

    output: str
    backend: Backend
    weight_bytes: int
    nodes: int = 0
    kernels: int = 0
    host_calls: int = 0
    figures: KernelsReport | None = None
    label: str = "generated"
    targets: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    quantized: QuantizationReport | None = None
    tuned: GraphTuning | None = None
    session_advice: str = ""
    schema: str = "irc.compile/2"


@typing.overload
def compile(source: Source, *, backend: Backend = "onnx", output: str | Path | None = None, pipeline: str | None = None,
            keep_kernels: bool = False, figures: bool = False, onnx: OnnxOptions | None = None,
            settings: Settings | None = None) -> CompileReport: ...  # fmt: skip
@typing.overload
def compile(source: Any, inputs: Any = None, *, kwargs: Mapping[str, Any] | None = None, backend: Backend = "onnx",
            dynamic_shapes: Any = None, pipeline: str | None = None,
            settings: Settings | None = None) -> CompiledProgram: ...  # fmt: skip
@guarded()
def compile(
    source: Any,
    inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    backend: Backend = "onnx",
    output: str | Path | None = None,
    dynamic_shapes: Any = None,
    pipeline: str | None = None,
    keep_kernels: bool = False,
    figures: bool = False,
    onnx: OnnxOptions | None = None,
    settings: Settings | None = None,
) -> Any:
    """Compile a model: an ONNX file for ONNX Runtime, or a folder of Triton source and weights.

    Without `output` the result is written into the working directory, as `NAME.irc.onnx` or `NAME.triton/`. An existing
    folder is replaced only if it is an artefact of irc; schedules of its `tuning.json` (`irc tune`) are stated of equal
    kernels. Kernels are compiled for GPU targets only where `settings`
    states some; those for which one does not compile are left out, with a note.

    `onnx` are further options of an ONNX model: `irc.OnnxOptions(tune=True)`, for example.

    With `figures` the report of a Triton program has those of one run, as `kernels` gives them.

    A PyTorch program (a torch.nn.Module, a GraphModule, a function of tensors or an ExportedProgram) is compiled into a
    function of the same signature instead, a `CompiledProgram`, with example `inputs`: a tuple of positional ones, a
    dictionary of keyword ones, or one tensor; `kwargs` are keyword ones in addition. `dynamic_shapes` are as in
    torch.export, but arguments may be left out, and a dim may be a name: {"ids": {1: "S"}}. ONNX Runtime runs it on the
    CPU, Triton on the inputs' GPU, or interpreted without one. To write it, give `irc.from_torch(program, inputs)`.

    Raises `usage.arguments`, `usage.value` and `usage.backend` for arguments; what `load` raises, or `from_torch`;
    `pass.*` for a pipeline; `backend.unsupported` for what the backend lacks; `file.exists` and `file.unreadable` for
    the output; `install.missing_extra`; and `backend.failed` where ONNX Runtime or Triton fails.
    """
    if is_torch(source) or (callable(source) and not isinstance(source, Module)):
        if output is not None or keep_kernels or figures or onnx is not None:
            raise fail("usage.arguments", "a PyTorch program is compiled into a function, which is not written",
                       help="write irc.compile(irc.from_torch(program, inputs), output=...)")
        from irc.driver.callables import compile_program

        return compile_program(source, inputs, backend, kwargs=kwargs, dynamic_shapes=dynamic_shapes,
                               pipeline=pipeline, settings=settings)  # fmt: skip
    if inputs is not None or kwargs is not None or dynamic_shapes is not None:
        raise fail("usage.arguments", "only PyTorch programs are compiled with example inputs",
                   help="to write a model, call irc.compile(model, backend=..., output=...)")
    check_argument("output", output, (str, os.PathLike, type(None)), "the path of a file or folder")
    check_argument("onnx", onnx, (OnnxOptions, type(None)), "irc.OnnxOptions(...)")
    path = Path(output) if output is not None else Path(default_output(source, backend))
    report, module = _written(source, path, backend, pipeline, keep_kernels, Settings.of(settings), onnx)
    if not figures or backend == "onnx":
        return report
    from irc.driver.figures import report_on

    sizes = representative_sizes(module.main, settings.dims if settings is not None else {})
    return replace(report, figures=report_on(module, sizes, {}))


def _written(
    source: Source, path: Path, backend: Backend, pipeline: str | None, keep_kernels: bool, settings: Settings,
    onnx: OnnxOptions | None,
) -> tuple[CompileReport, Module]:
    """Compile a model into a file or folder; returns the report, and the module after all passes."""
    emitter = find_backend(backend)
    if keep_kernels and backend != "onnx":
        raise fail("usage.arguments", f"--keep-kernels is for ONNX models, not for {backend}", help="--backend onnx")
    if len(settings.targets) > 1 and backend == "onnx":
        raise fail("usage.backend", "an ONNX model is compiled for one target", expected=" or ".join(emitter.TARGETS))
    if onnx is not None and backend != "onnx":
        raise fail("usage.arguments", f"--quantize, --tune and --session-advice are not for {backend}",
                   help="--backend onnx")  # fmt: skip
    if settings.targets and backend == "triton":
        require_triton(f"compiling for {', '.join(settings.targets)}")
    chosen = pipeline or (emitter.KERNELS_PIPELINE if keep_kernels else emitter.PIPELINE)
    settings.check_targets(backend)
    if backend == "onnx":
        return _written_onnx(source, path, chosen, keep_kernels, settings, onnx or OnnxOptions())
    from irc.driver.artefact_writing import write_artefact

    written = write_artefact(source, path, chosen, settings)
    module, program = written.module, written.program
    report = CompileReport(
        str(path),
        backend,
        module.weight_bytes,
        kernels=len(program.launches),
        host_calls=len(program.host_calls),
        label="compiled" if written.targets else "generated",
        targets=written.targets,
        notes=(*written.notes, *_notes_on(module), *written.failures),
    )
    return report, module


def _written_onnx(source: Source, path: Path, pipeline: str, keep_kernels: bool, settings: Settings,
                  options: OnnxOptions) -> tuple[CompileReport, Module]:  # fmt: skip
    written = write_onnx(source, path, pipeline, keep_kernels, settings, options)
    module = written.module
    notes = (*written.notes, *written.context.notes, *_notes_on(module))
    kernels = sum(operation.name == "kernel" for operation in module.walk())
    report = CompileReport(str(path), "onnx", module.weight_bytes, written.nodes, kernels,
                           notes=notes, quantized=written.quantized, tuned=written.tuned,
                           session_advice=written.advice)  # fmt: skip
    return report, module


def _notes_on(module: Module) -> list[str]:
    count = len(module.main.defaults)
    if not count:
        return []
    have = "has a default" if count == 1 else "have defaults"
    return [f"{count} of the inputs {have}: --fold-defaults replaces such inputs by constants"]


def default_output(source: Source, backend: Backend) -> str:
    """`model.onnx` becomes `model.triton` or `model.irc.onnx`, in the working directory."""
    return f"{stem_of(source)}{'.irc.onnx' if backend == 'onnx' else '.triton'}"


def stem_of(source: Source) -> str:
    """The name of an output without its suffix. Of a module's name, which may come from an untrusted text, only
    letters, digits, `_`, `-` and inner dots are kept."""
    if isinstance(source, Module):
        return re.sub(r"[^A-Za-z0-9_.-]+", "_", source.name[:100]).strip(".-") or "model"
    path, colon, name = str(source).rpartition(":")
    stem = name if colon and path.endswith(".py") else Path(str(source)).stem
    return "model" if stem in ("", "-") else stem
