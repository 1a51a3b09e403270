"""Remarks of a pipeline: every decision of fusion, as lines of JSON (`--remarks FILE`) or as text (`irc explain`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from irc.diagnostics import did_you_mean, fail, printable_lines
from irc.driver.models import Settings, Source, find_backend
from irc.driver.optimizing import run_pipeline
from irc.remarks import Remark, Remarks, about


def remarks(source: Source, *names: str, pipeline: str | None = None,
            settings: Settings | None = None) -> list[Remark]:  # fmt: skip
    """The decisions of a pipeline (default: the Triton backend's) in the order in which they were made; with names of
    values of the main function, those on these values. Raises `usage.arguments` for a name that no decision is on."""
    recorded = Remarks()
    settings = replace(Settings.of(settings), remarks=recorded)
    module, _ = run_pipeline(source, pipeline or find_backend("triton").PIPELINE, "triton", settings)
    values = [name.removeprefix("%").removeprefix("@") for name in names]
    known = {name for each in recorded.all for name in each.candidate}
    unknown = [value for value in values if value not in known]
    if unknown:
        help = did_you_mean(unknown[0], known, "irc print MODEL --after fuse shows the names")
        raise fail("usage.arguments", f"no decision is on %{unknown[0]}", help=help)
    return list(about(recorded.all, values, module.main.name)) if values else recorded.all


def explain_remarks(source: Source, names: Sequence[str], pipeline: str | None, settings: Settings) -> str:
    """The remarks as text, with places in the source."""
    decisions = remarks(source, *names, pipeline=pipeline, settings=settings)
    return printable_lines(line for remark in decisions for line in str(remark).split("\n"))
