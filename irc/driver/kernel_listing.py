"""kernels: the kernels of a program, with what each moves and computes."""

from __future__ import annotations

from dataclasses import replace

from irc.driver.figures import KernelsReport, report_on
from irc.driver.gpu_targets import compile_for
from irc.driver.models import Settings, Source, find_backend
from irc.driver.optimizing import opt
from irc.module import Module
from irc.sizes import representative_sizes


def kernels(
    source: Source,
    *,
    pipeline: str | None = None,
    targets: tuple[str, ...] = (),
    settings: Settings | None = None,
) -> KernelsReport:
    """The bytes and flops of a program at the sizes of `settings.dims` (other symbols count as 64, or their bound).

    The Triton backend's pipeline is run first on a module without kernels. With `targets` such as ("sm_80", "gfx942")
    each kernel is compiled, and the report has its registers, spills and shared memory.
    """
    settings = Settings.of(settings)
    module = with_kernels(settings.load(source), pipeline, settings)
    sizes = representative_sizes(module.main, settings.dims)
    return report_on(module, sizes, compile_for(module, targets) if targets else {})


def with_kernels(module: Module, pipeline: str | None, settings: Settings) -> Module:
    """The module if it has kernels and no pipeline is given; else the module after the pipeline, by default
    Triton's."""
    if pipeline is None and any(operation.name == "kernel" for operation in module.walk()):
        return module
    return opt(module, pipeline or find_backend("triton").PIPELINE, settings=replace(settings, specialize={}))
