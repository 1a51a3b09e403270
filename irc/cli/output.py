"""What the command line writes: all of it goes through `show`, which lets nothing through that a terminal acts on."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from irc.diagnostics import printable_lines

CLEAR_LINE = "\r\x1b[K"
LONGEST_INTEGER = 8192  # bits: Python writes no number of much more in digits


def show(*lines: str, err: bool = False) -> None:
    """Print lines, each on one line, its control characters and changes of direction spelled out: names come from
    foreign files."""
    _echo(printable_lines(lines) + "\n", err)


def _echo(text: str, err: bool) -> None:
    click.echo(text, nl=False, err=err)


def show_page(text: str, err: bool = False) -> None:
    """Print text that has its lines already."""
    show(*text.rstrip("\n").split("\n"), err=err)


def show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int,
                 file: Any = None, line: str | None = None) -> None:  # fmt: skip
    """In the place of `warnings.showwarning`: libraries warn of what is in models."""
    show_page(warnings.formatwarning(message, category, filename, lineno, line), err=True)


def show_json(report: Any) -> None:
    """A report as JSON on stdout; JSON has no numbers such as inf, so that they are texts there."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): plain(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(part) for part in value]
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        if isinstance(value, int) and value.bit_length() > LONGEST_INTEGER:
            return f"2^{value.bit_length() - 1}"
        return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)

    fields = report if isinstance(report, dict) else dataclasses.asdict(report)
    show_page(json.dumps(plain(fields), indent=1))


def note_shower() -> Callable[[str], None]:
    """A function that shows a note, each once in a command: models and pipelines may have the same ones."""
    shown: set[str] = set()

    def show_note(note: str) -> None:
        if note not in shown:
            shown.add(note)
            show(f"note: {note}", err=True)

    return show_note


@contextmanager
def progress_on_terminal() -> Iterator[Callable[[str], None]]:
    """A function that shows on one line of the terminal what is done next; it does nothing where stderr is none."""

    def show_progress(text: str) -> None:
        _echo(CLEAR_LINE + printable_lines([text]), err=True)

    if not sys.stderr.isatty():
        yield lambda text: None
        return
    try:
        yield show_progress
    finally:
        _echo(CLEAR_LINE, err=True)


def triton_remark(folder: str) -> str:
    """How to run the artefact, or what is missing to do so."""
    import importlib.util

    missing = [name for name in ("torch", "triton") if importlib.util.find_spec(name) is None]
    if missing:
        return f'not compiled: {" and ".join(missing)} not installed (pip install "irc-compiler[triton]")'
    return f"run it: python {shlex.quote(folder)} --input in.npz --output out.npz"


def sample(array: Any) -> str:
    """The first few numbers."""
    flat = array.reshape(-1)[:4]
    return " ".join(f"{number:.6g}" if array.dtype.kind == "f" else str(number) for number in flat) + (
        " ..." if array.size > 4 else ""
    )


def show_experiment(report: Any) -> None:
    """A row for each pipeline of each model, and what changes in the plans."""
    from irc.driver.printing import at_sizes, format_bytes, format_count, shorten

    columns: tuple[tuple[str, Callable[[Any], str]], ...] = (
        ("launches", lambda each: str(each.kernels)),
        ("library", lambda each: str(each.library_calls)),
        ("host", lambda each: str(each.host_operations)),
        ("traffic", lambda each: format_bytes(each.distinct_bytes)),
        ("flops", lambda each: format_count(each.flops).strip()),
        ("programs min", lambda each: str(each.programs)),
        (f"est. us {report.device}", lambda each: f"{each.estimated_microseconds:.3g}"),
        ("compile s", lambda each: f"{each.compile_seconds:.2f}"),
        ("error vs f64", lambda each: f"{each.error:.0e}"),
    )
    heads = ["", *(head for head, _ in columns)]
    for model, by_pipeline in report.models.items():
        show(f"{shorten(model, 60)}{at_sizes(report.sizes[model])}")
        rows = [[f"  {name}", *(text(each) for _, text in columns)]
                for name, each in by_pipeline.items() if not each.failure]  # fmt: skip
        widths = [max(len(row[index]) for row in [heads, *rows]) for index in range(len(heads))]
        for row in [heads, *rows]:
            figures = (f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
            show("  ".join([f"{row[0]:{widths[0]}}", *figures]).rstrip())
        for name, each in by_pipeline.items():
            if each.failure:
                show(f"  {name} fails: {each.failure}")
        for name, lines in report.plans[model].items():
            for line in lines:
                show(f"  plan of {name}: {line}")
    show(report.label)


def target_facts(facts: dict[str, Any]) -> str:
    """What a kernel takes on a target: `19 registers, 0 B spilled, 0 B local, 4.1 kB shared, loads 4x128, ...`."""
    from irc.driver.printing import counted, format_bytes

    if facts.get("error"):
        return f"does not compile: {facts['error']}"
    parts = [counted(facts["registers"], "register")]
    parts += [f"{format_bytes(facts[f'{name}_bytes'])} {name}" for name in ("spilled", "local", "shared")]
    for kind in ("loads", "stores"):
        widths = " ".join(f"{number}x{bits}" for bits, number in facts[kind].items())
        parts.append(f"{kind} {widths or 'none'}")
    if facts["matrix_instructions"]:
        parts.append(counted(facts["matrix_instructions"], "matrix instruction"))
    return ", ".join(parts) + ("" if facts["fits"] else f": {format_bytes(facts['shared_limit'])} shared is the limit")


