"""Printing reports. All output goes through `show`, which escapes what a terminal would act on."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import sys
import warnings
from collections.abc import Callable
from typing import Any

from irc.cli.reporting import echo, has_colors, painted, reporting
from irc.diagnostics import Diagnostic, IrcError, counted, printable, printable_lines

LONGEST_INTEGER = 8192  # bits; Python does not print much longer integers


def show(*lines: str, err: bool = False) -> None:
    """Print lines, each on one line. Control characters and changes of direction are escaped, since names come from
    untrusted files."""
    echo(printable_lines(lines) + "\n", err)


def inform(*lines: str) -> None:
    """Print what is no result, such as which files were written; not with --quiet."""
    if not reporting().quiet:
        show(*lines)


def show_error(error: IrcError) -> None:
    """Print an error on stderr, in colors where it is a terminal."""
    colors = has_colors(sys.stderr)
    echo("".join(f"{each.render(colors)}\n" for each in error.diagnostics), err=True)


def show_json_error(error: IrcError) -> None:
    """Print an error on stdout, for a command with --json."""
    errors = [error_fields(each) for each in error.diagnostics]
    show_page(json.dumps({"errors": errors, "exit_status": error.exit_code, "schema": "irc.error/1"}, indent=1))


def error_fields(diagnostic: Diagnostic) -> dict[str, Any]:
    """An error as JSON has it."""
    text, place = diagnostic.text, str(diagnostic.location) if diagnostic.location.known else None
    return {"code": diagnostic.code, "message": diagnostic.message,
            "place": place if text is None else f"{text.path}:{text.line}:{text.column}",
            "origin": None if diagnostic.origin is None else str(diagnostic.origin),
            "expected": diagnostic.expected, "notes": list(diagnostic.notes),
            "help": diagnostic.help or f"irc explain {diagnostic.code}"}  # fmt: skip


def show_page(text: str, err: bool = False) -> None:
    """Print text of several lines."""
    show(*text.rstrip("\n").split("\n"), err=err)


def show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int,
                 file: Any = None, line: str | None = None) -> None:  # fmt: skip
    """A replacement of `warnings.showwarning` that escapes: warnings of libraries quote models."""
    if not reporting().quiet:
        show_page(warnings.formatwarning(message, category, filename, lineno, line), err=True)


def show_json(report: Any) -> None:
    """Print a report as JSON, with the times of stages for --timings. Numbers that JSON lacks, such as inf, are
    strings."""

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
    if reporting().timings:
        fields = {**fields, "timings": reporting().times()}
    show_page(json.dumps(plain(fields), indent=1))


def note_shower() -> Callable[[str], None]:
    """A function that prints a note unless this command has printed it: models and pipelines may share notes."""
    shown: set[str] = set()

    def show_note(note: str) -> None:
        if note not in shown and not reporting().quiet:
            shown.add(note)
            show(f"note: {note}", err=True)

    return show_note


def triton_remark(folder: str) -> str:
    """How to run the artefact, or which packages that needs."""
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


def target_facts(facts: dict[str, Any]) -> str:
    """A kernel's resources on a target: `19 registers, 0 B spilled, 0 B local, 4.1 kB shared, loads 4x128, ...`."""
    from irc.driver.printing import format_bytes

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


def show_kernels(report: Any) -> None:
    """Print a row for each kernel and call, and the totals."""
    from irc.driver.printing import at_sizes, format_bytes, format_count, shorten

    show(f"{'':30} {'kind':10} {'distinct':>10} {'loaded':>10} {'flops':>10} {'programs':>9}")
    for kernel in report.kernels:
        figures = (kernel.distinct_bytes, kernel.loaded_bytes)
        sizes = " ".join([*(f"{format_bytes(size):>10}" for size in figures), f"{format_count(kernel.flops):>10}"])
        programs = kernel.programs if kernel.programs < 10**9 else format_count(kernel.programs).strip()
        bundle = f"  in the launch of @{kernel.bundle}" if kernel.bundle not in ("", kernel.name) else ""
        show(f"{shorten('@' + kernel.name, 30):30} {kernel.kind:10} {sizes} {programs:>9}{bundle}")
        for target, facts in kernel.targets.items():
            show(f"    {target}: {target_facts(facts)}")
    for call in report.calls:
        head = "library" if call.kind == "library" else "host"
        name = f"{head} {shorten('%' + call.name, 29 - len(head))}"
        show(f"{name:30} {call.op:10} {format_bytes(call.distinct_bytes):>10}  {', '.join(call.dispatched)}".rstrip())
    show(
        f"{counted(report.launches, 'launch', 'launches')}, {counted(report.library_calls, 'library call')}, "
        f"{counted(report.host_operations, 'host operation')}, "
        f"{format_bytes(report.distinct_bytes)} of global memory traffic, "
        f"peak live memory {format_bytes(report.peak_bytes)}{at_sizes(report.sizes)}; "
        f"{report.share_in_kernels:.0%} of the operations are in kernels (views not counted)"
    )
    if report.label == "estimated":
        show(f"estimated: {report.not_counted}")


def show_tuning(report: Any) -> None:
    """Print a line for each kernel: the fastest options, and the time that they take beside that of the rules'."""
    for name, each in report.kernels.items():
        options = ", ".join(f"{option} = {value}" for option, value in each.options.items()) or "as the rules choose"
        times = f"{1e6 * each.seconds:10.2f} us, {1e6 * each.seconds_by_rules:.2f} by rules"
        show(f"@{name}: {times}; {options} ({each.timed} timed, {each.failed} not compiled)")
    inform(f"wrote {report.output}; {report.label}, {report.device} ({report.architecture})")


def show_check(report: Any) -> None:
    """Print a line for each output of each stage, and where values first differ."""
    if report.without_original:
        show(f"      the original model does not run: {report.without_original}")
    for stage in report.stages:
        for output in stage.outputs:
            mark = painted("ok  " if output.passed else "FAIL", sys.stdout)
            figures = f"relative error {output.error:.1e} (allowed {output.allowed:.1e})"
            since = f": still wrong since {output.since}" if output.since else ""
            echo(f"{mark}  {printable(f'{stage.stage:14} %{output.output}  {figures}{since}')}\n", err=False)
        if stage.first_part:
            show(f"      first differs at: {stage.stage}, {stage.first_part}")
    for output in report.stages[0].outputs:
        if output.unsettled:
            show(f"%{output.output}: as imported, elements overflow, are NaN or are other integers than in f64"
                 f" ({output.unsettled} of them), and may be either")  # fmt: skip
    for finding in report.blamed or ():
        place = f", from {finding.place}" if finding.place else ""
        show(f"blame {finding.stage:14} {finding.name}{place}",
             f"      %{finding.value} differs by {finding.error:.1e} (allowed {finding.allowed:.1e})")  # fmt: skip
        if finding.others:
            others = ", ".join(f"%{name}" for name in finding.others)
            show(f"      of the same structure, and different as well: {others}")
    if report.blamed == ():
        show("blame nothing: each part computes what it should, given the operands of a reference run")
    for note in report.not_judged:
        show(f"      not judged: {note}")
    for tolerance in report.tolerances:
        show_page(str(tolerance))
    random = f"; random, hence not compared with what ran: {', '.join(report.random)}" if report.random else ""
    original = ", in `original` against its results" if any(each.stage == "original" for each in report.stages) else ""
    show(f"{report.label}; errors against an evaluation in f64{original}{random}")


def show_diff(report: Any) -> None:
    """Print the verdict; where the models differ, the witness."""
    from irc.driver.printing import at_sizes

    if report.sizes:
        show(f"compared{at_sizes(dict(report.sizes))}, which one of the models fixes")
    rejected = f", {report.rejected} of them rejected by both models" if report.rejected else ""
    if report.verdict == "equal by rules":
        show(f"equal by rules: {report.reason}")
        return
    if report.witness is None:
        show(f"no difference found in {counted(report.tried, 'input')}{rejected}; no rule shows that they are equal")
        return
    witness = report.witness
    shapes = ", ".join(f"{name} {list(getattr(array, 'shape', ()))}" for name, array in witness.inputs.items())
    place = f"%{witness.output}{list(witness.index)}" if witness.output else "the outcome"
    show(f"differs: {place} is {witness.first} and {witness.second}")
    show(f"  error {witness.error:.1e} (allowed {witness.allowed:.1e}){at_sizes(witness.sizes)}, with {shapes}")
    if witness.first_value:
        show(f"  the first value that differs: {witness.first_value}")
    small = {name: array for name, array in witness.inputs.items() if getattr(array, "size", 99) <= 8}
    for name, array in small.items():
        show(f"  {name} = {array.tolist()}")
    inform(f"  wrote {report.file}" if report.file else "  -o FILE.npz writes these inputs")


def show_profile(report: Any, number: int) -> None:
    """Print the share of each kind of operation, then that of the first values."""
    from irc.driver.printing import shorten

    shapes = ", ".join(f"{name} {list(shape)}" for name, shape in report.sizes.items())
    show(f"{report.microseconds:.0f} us a run, {report.in_nodes:.0%} of it in what is listed; {shapes}")
    for title, rows in (("by kind of operation", report.kinds), ("by value", report.rows[:number])):
        show(f"{title:44} {'us':>10} {'share':>6}")
        for row in rows:
            where = f" in @{row.function}" if row.function else ""
            name = shorten(f"%{row.value}{where} = {row.op}" if row.value else row.op, 42)
            ran = ", ".join(row.operators[:4]) + (", ..." if len(row.operators) > 4 else "")
            source = f"   {row.source}" if row.source else ""
            show(f"  {name:42} {row.microseconds:>10.1f} {row.share:>6.1%}  {ran}{source}".rstrip())
    if len(report.rows) > number:
        show(f"  {len(report.rows) - number} more; -n lists them")
    show(f"{report.label}; medians of {report.rounds} runs after {report.warmup}, {report.threads} thread(s)")


def show_bench(report: Any) -> None:
    """Print the time of each contender, and its ratio to irc's."""
    shapes = ", ".join(f"{name} {list(shape)}" for name, shape in report.sizes.items())
    show(f"{report.rounds} rounds, {report.threads} thread(s), {shapes}")
    for name, each in report.contenders.items():
        low, high = each.quartiles
        spread = "" if name == "irc" else f"   irc / {name} {each.ratio:.2f} (quartiles {low:.2f} to {high:.2f})"
        error = "" if name == "irc" else f", outputs differ by {each.error:.0e}"
        show(f"  {name:9} {each.seconds * 1e3:10.3f} ms{spread}{error}")
    show(f"{report.machine}; {', '.join(f'{name} {version}' for name, version in report.versions.items())}")
    show(report.label)
