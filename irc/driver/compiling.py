"""opt, compile and kernels: programs through pipelines into backends, and what they come to."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irc.diagnostics import fail
from irc.driver.counting import kernel_operations
from irc.driver.figures import KernelsReport, report_on
from irc.driver.models import (
    Settings,
    Source,
    find_backend,
    is_torch,
    read_pipeline,
    reproducing,
    require_triton,
)
from irc.files import guarded, temporary_folder
from irc.module import Module
from irc.named_pipelines import CLEAN
from irc.pass_manager import PassContext, PassManager
from irc.sizes import representative_sizes

if TYPE_CHECKING:
    from irc.driver.callables import CompiledProgram


def opt(source: Source, pipeline: str = CLEAN, *, backend: str = "triton", settings: Settings | None = None) -> Module:
    """Run a pipeline such as "fold,cse,fuse{policy=greedy}" over a copy of a model.

    `backend` says which operations `legalize` leaves whole. `clean`, `default` and `eager` name pipelines of irc.
    """
    module, _ = run_pipeline(source, pipeline, backend, settings or Settings())
    return module


def run_pipeline(
    source: Source,
    pipeline: str,
    backend: str,
    settings: Settings,
    observe: Callable[[str, Module], None] | None = None,
) -> tuple[Module, PassContext]:
    """`opt`, and the context with the statistics, plans and notes that the passes left."""
    context = settings.context(backend)
    module = settings.load(source)
    names = {function: tuple(function.output_names) for function in module.functions.values()}

    def watch(stage: str, module: Module) -> None:
        settings.dump(stage, module)
        if observe is not None:
            observe(stage, module)

    passes = read_pipeline(pipeline, context)
    PassManager(passes, context, verify_each=settings.verify_each, observe=watch).run(module)
    # Outputs go by the names of the values returned where the function has no names for them: they keep those.
    for function in module.functions.values():
        if tuple(function.output_names) != names.get(function, ()):
            function.result_names = names.get(function)
    return module, context


# -- compile ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CompileReport:
    """What `compile` wrote: nodes of an ONNX graph, or kernels and operations that the host program calls.

    `figures` are what one run makes a device do, at the sizes of `Settings.dims`, where they were asked for.
    """

    output: str
    backend: str
    weight_bytes: int
    nodes: int = 0
    kernels: int = 0
    host_calls: int = 0
    figures: KernelsReport | None = None
    label: str = "generated"
    targets: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    schema: str = "irc.compile/2"


@typing.overload
def compile(source: Source, *, backend: str = "onnx", output: str | Path | None = None, pipeline: str | None = None,
            keep_kernels: bool = False, figures: bool = False,
            settings: Settings | None = None) -> CompileReport: ...  # fmt: skip
@typing.overload
def compile(source: Any, inputs: Any = None, *, kwargs: Mapping[str, Any] | None = None, backend: str = "onnx",
            dynamic_shapes: Any = None, pipeline: str | None = None,
            settings: Settings | None = None) -> CompiledProgram: ...  # fmt: skip
@guarded()
def compile(
    source: Any,
    inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    backend: str = "onnx",
    output: str | Path | None = None,
    dynamic_shapes: Any = None,
    pipeline: str | None = None,
    keep_kernels: bool = False,
    figures: bool = False,
    settings: Settings | None = None,
) -> Any:
    """Compile a model: an ONNX file for ONNX Runtime, or a folder of Triton source and weights.

    Without `output` the result lies beside the working directory's other files: `NAME.irc.onnx` or
    `NAME.triton/`. An existing folder is replaced only if it is an artefact of irc. Kernels are compiled for GPU
    targets only where `settings` asks for some; those for which one does not compile are left out, with a note.

    With `figures` the report of a Triton program says what one run makes a device do, as `kernels` does.

    A program of PyTorch with example `inputs` (and `kwargs`) is compiled into a function instead, which takes what the
    program takes: see `callables.compile_program`. To write it, give `irc.from_torch(program, inputs)`.
    """
    if is_torch(source) or (callable(source) and not isinstance(source, Module)):
        if output is not None or keep_kernels or figures:
            raise fail("usage.arguments", "a program of PyTorch is compiled into a function, and not written",
                       help="write irc.compile(irc.from_torch(program, inputs), output=...)")
        from irc.driver.callables import compile_program

        return compile_program(source, inputs, backend, kwargs=kwargs, dynamic_shapes=dynamic_shapes,
                               pipeline=pipeline, settings=settings)  # fmt: skip
    if inputs is not None or kwargs is not None or dynamic_shapes is not None:
        raise fail("usage.arguments", "only programs of PyTorch are compiled with example inputs",
                   help="a model that is written takes a keyword: irc.compile(model, backend=..., output=...)")
    path = Path(output) if output is not None else Path(default_output(source, backend))
    report, module = _written(source, path, backend, pipeline, keep_kernels, settings or Settings())
    if not figures or backend == "onnx":
        return report
    sizes = representative_sizes(module.main, settings.dims if settings is not None else {})
    return replace(report, figures=report_on(module, sizes, {}))


def _written(
    source: Source, path: Path, backend: str, pipeline: str | None, keep_kernels: bool, settings: Settings
) -> tuple[CompileReport, Module]:
    """Compile a model into a file or folder; the report, and what was written."""
    emitter = find_backend(backend)
    if keep_kernels and backend != "onnx":
        raise fail("usage.arguments", f"only models of ONNX keep kernels as functions, not {backend}")
    if len(settings.targets) > 1 and backend == "onnx":
        raise fail("usage.backend", "a model of ONNX is made for one target", expected=" or ".join(emitter.TARGETS))
    if settings.targets and backend == "triton":
        require_triton(f"compiling for {', '.join(settings.targets)}")
    chosen = pipeline or (emitter.KERNELS_PIPELINE if keep_kernels else emitter.PIPELINE)
    settings.check_targets(backend)
    first = replace(settings, target=settings.targets[0]) if settings.targets else settings
    module, context = run_pipeline(source, chosen, backend, first)
    notes = [*context.notes, *_notes_on(module)]
    with reproducing(settings, module, f"emit-{backend}"):
        if backend == "onnx":
            emitter.save(module, path, target=context.target, keep_kernels=keep_kernels)
            nodes = emitter.count_nodes(path)
            kernels = len(kernel_operations(module))
            return CompileReport(str(path), backend, module.weight_bytes, nodes, kernels, notes=tuple(notes)), module
        failures = compile_failures(compile_for(module, settings.targets)) if settings.targets else {}
        targets = tuple(target for target in settings.targets if target not in failures)
        program = emitter.emit(module, path, targets=targets)
    report = CompileReport(
        str(path),
        backend,
        module.weight_bytes,
        kernels=len(program.launches),
        host_calls=len(program.host_calls),
        label="compiled" if targets else "generated",
        targets=targets,
        notes=(*notes, *failures.values()),
    )
    return report, module


def _notes_on(module: Module) -> list[str]:
    count = len(module.main.defaults)
    if not count:
        return []
    have = "has a default" if count == 1 else "have defaults"
    return [f"{count} of the inputs {have}: --fold-defaults makes constants"]


def default_output(source: Source, backend: str) -> str:
    """`model.onnx` becomes `model.triton` or `model.irc.onnx`, in the working directory. The name of a module may come
    from a foreign text: of that only letters, digits, `_`, `-` and dots inside are kept."""
    if isinstance(source, Module):
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", source.name[:100]).strip(".-")
    else:
        path, colon, name = str(source).rpartition(":")
        stem = name if colon and path.endswith(".py") else Path(str(source)).stem
        stem = "" if stem == "-" else stem
    return f"{stem or 'model'}{'.irc.onnx' if backend == 'onnx' else '.triton'}"


# -- kernels -----------------------------------------------------------------------------------------------------


def kernels(
    source: Source,
    *,
    pipeline: str | None = None,
    targets: tuple[str, ...] = (),
    settings: Settings | None = None,
) -> KernelsReport:
    """What a program moves and computes, for the sizes in `settings.dims` (others count 64, or their bound).

    A module without kernels is first taken through the Triton backend's pipeline. `targets` such as
    ("sm_80", "gfx942") compile each kernel and add registers, spills and shared memory.
    """
    settings = settings or Settings()
    module = with_kernels(settings.load(source), pipeline, settings)
    sizes = representative_sizes(module.main, settings.dims)
    return report_on(module, sizes, compile_for(module, targets) if targets else {})


def with_kernels(module: Module, pipeline: str | None, settings: Settings) -> Module:
    """A module with kernels as it is, unless a pipeline is given; another after the Triton backend's pipeline."""
    if pipeline is None and any(operation.name == "kernel" for operation in module.walk()):
        return module
    return opt(module, pipeline or find_backend("triton").PIPELINE, settings=replace(settings, specialize={}))


# -- targets -------------------------------------------------------------------------------------------------


def compile_for(module: Module, targets: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What each kernel takes on each target, by the kernel's name: registers, spills, shared memory.

    No GPU is needed. A kernel that runs as host calls has no entry.
    """
    triton = find_backend("triton")
    with temporary_folder() as folder:
        program = triton.emit(module, folder / "artefact")
        found = triton.compile_artefact(folder / "artefact", targets)
    facts: dict[str, dict[str, Any]] = {}
    for resources in found:
        known = {name: fact for name, fact in asdict(resources).items() if fact != ""}
        facts.setdefault(known.pop("kernel"), {})[known.pop("target")] = known
    return {name: facts[source] for name, source in program.launches.items()}


def compile_failures(compiled: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """For each target for which a kernel does not compile, or does not fit, what is wrong with the first."""
    failures: dict[str, str] = {}
    for kernel, by_target in compiled.items():
        for target, facts in by_target.items():
            if facts.get("error") or not facts["fits"]:
                reason = facts.get("error") or "it needs more shared memory than there is"
                failures.setdefault(target, f"not compiled for {target}: @{kernel}: {reason}")
    return failures
