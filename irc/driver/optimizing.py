"""opt: a model through a pipeline of passes."""

from __future__ import annotations

from collections.abc import Callable

from irc.driver.choosing import settle
from irc.driver.models import Backend, Settings, Source, read_pipeline
from irc.module import Module
from irc.named_pipelines import CLEAN
from irc.pass_manager import PassContext, PassManager


def opt(source: Source, pipeline: str = CLEAN, *, backend: Backend = "triton",
        settings: Settings | None = None) -> Module:  # fmt: skip
    """Run a pipeline such as "fold,cse,fuse{policy=greedy}" over a copy of a model.

    `backend` is the one that `legalize` legalizes for. `clean`, `default` and `eager` are named pipelines.
    """
    module, _ = run_pipeline(source, pipeline, backend, Settings.of(settings))
    return module


def run_pipeline(
    source: Source,
    pipeline: str,
    backend: Backend,
    settings: Settings,
    observe: Callable[[str, Module], None] | None = None,
) -> tuple[Module, PassContext]:
    """`opt`; also returns the context with the passes' statistics, plans and notes."""
    context = settings.context(backend)
    module = settings.load(source)
    names = {function: tuple(function.output_names) for function in module.functions.values()}

    def watch(stage: str, module: Module) -> None:
        settings.dump(stage, module)
        if observe is not None:
            observe(stage, module)

    passes = read_pipeline(pipeline, context)
    settle(module, passes, context)
    PassManager(passes, context, verify_each=settings.verify_each, observe=watch).run(module)
    # A function without names for its results has those of the values it returns: they must not change.
    for function in module.functions.values():
        if tuple(function.output_names) != names.get(function, ()):
            function.result_names = names.get(function)
    return module, context
