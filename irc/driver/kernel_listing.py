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
