"""`irc print`: a model as text, whole, as a summary, or near a value."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from irc import printer
from irc.diagnostics import UNKNOWN, check_argument, counted, did_you_mean, fail, printable, printable_lines
from irc.dims import Symbol
from irc.driver.choosing import settle
from irc.driver.models import Backend, Settings, Source, read_pipeline
from irc.driver.saving import check_stage_file, save_stage
from irc.files import guarded
from irc.ir import Function, Operation
from irc.module import Module
from irc.named_pipelines import DEFAULT
from irc.pass_manager import PassManager

# The pipeline of `--after PASS` where none is given.
FULL = DEFAULT


@guarded()
def print(
    source: Source,
    *,
    after: str | None = None,
    pipeline: str | None = None,
    summary: bool = False,
    around: str | None = None,
    distance: int = 4,
    output: str | Path | None = None,
    backend: Backend = "triton",
    settings: Settings | None = None,
) -> str:
    """The text of a model: as imported, or `after` a pass of a pipeline, by default `default`.

    With `around`, only operations within `distance` uses of this value are printed; the result does not parse. With
    `output` the program is written to that file, and the result is a message: to FILE.irc as text with its weights
    next to it, to FILE.onnx as an ONNX model with a local function for each kernel.
    """
    settings = Settings.of(settings)
    check_argument("after", after, (str, type(None)), "the name of a stage")
    ways = [name for name, given in (("summary", summary), ("around", around), ("output", output)) if given]
    if len(ways) > 1:
        raise fail("usage.arguments", f"{' and '.join(f'--{way}' for way in ways)} exclude one another",
                   help="give one of them")  # fmt: skip
    if output is not None:
        check_stage_file(Path(output))  # before the work is done
    if after is None and pipeline is None:
        saved = replace(settings, show_note=None) if output is not None else settings  # no advice to save while saving
        module = saved.load(source)
    else:
        module = module_after(source, pipeline or FULL, after, backend, settings)
    if output is not None:
        save_stage(module, Path(output), settings)
        return f"wrote {output}"
    if summary:
        return summarize(module, settings)
    if around is not None:
        return neighborhood(module.main, around.removeprefix("%"), distance)
    return str(module)


def module_after(source: Source, pipeline: str, after: str | None, backend: Backend, settings: Settings) -> Module:
    """The module after the last stage called `after` (`fold.2` is the second fold), or after all stages."""
    context = settings.context(backend)
    passes = read_pipeline(pipeline, context)
    module = settings.load(source)
    settle(module, passes, context)
    if after is not None:
        stages = PassManager(passes, context).stages
        matching = [index for index, stage in enumerate(stages) if after in (stage, stage.split(".")[0])]
        if not matching:
            raise fail("pass.unknown", f"the pipeline has no stage `{after}`", expected=f"one of: {', '.join(stages)}",
                       help=did_you_mean(after, stages))  # fmt: skip
        passes = passes[: matching[-1] + 1]
    PassManager(passes, context, verify_each=settings.verify_each, observe=settings.dump).run(module)
    return module


def summarize(module: Module, settings: Settings) -> str:
    """The signature, and a line for each kernel and call: name, kind, operations, bytes, location."""
    # Imported here, since only a summary needs kernels: other prints start faster.
    from irc.driver.counting import computing_members, counts, describe, is_library
    from irc.driver.figures import by_operation, is_launched
    from irc.sizes import representative_sizes

    function = module.main
    sizes = representative_sizes(function, settings.dims)
    rows, before, kernels, library, host = [], 0, 0, 0, 0
    for operation, parts in by_operation(module, sizes)[0].items():
        moved = sum(each.distinct_bytes for each in parts)
        if operation is None:
            rows.append(("copies", "", "of results", moved, UNKNOWN))
            host += len(parts)
        elif is_launched(operation, parts):
            computing = [inner.name for inner in computing_members(operation)]
            before, kernels = before + len(computing), kernels + 1
            name, kind = f"@{operation.attributes['name']}", operation.attributes["kind"]
            rows.append((name, kind, ", ".join(dict.fromkeys(computing)), moved, operation.location))
        else:
            before += counts(operation)
            called = sum(each.kind == "library" for each in parts)
            library, host = library + called, host + len(parts) - called
            name = f"%{operation.results[0].name}" if operation.results else ""
            head = "library" if is_library(operation) else "host"
            rows.append((head, describe(operation), name, moved, operation.location))
    shown = at_sizes({symbol.name: size for symbol, size in sizes.items()})
    calls = f"{counted(kernels, 'kernel')}, {counted(library, 'library call')}, {counted(host, 'host operation')}"
    lines = [f"@{function.name} {counted(before, 'op')} -> {calls}{shown}"]
    outputs = zip(function.output_names, function.returned, strict=True)
    lines += [f"  input   {value.name}: {value.type}" for value in function.arguments]
    lines += [f"  output  {name}: {value.type}" for name, value in outputs]
    lines += [f"  symbol  {symbol_range(symbol)}" for symbol in function.symbols.values()]
    for name, kind, content, size, location in rows:
        place = str(location) if location.known else ""
        row = f"  {shorten(name, 28):28} {kind:12} {shorten(content, 44):44} {format_bytes(size):>9}  {place}"
        lines.append(row.rstrip())
    return printable_lines(lines)


def symbol_range(symbol: Symbol) -> str:
    """`S in [16, 1024], a multiple of 16`."""
    multiple = f", a multiple of {symbol.multiple}" if symbol.multiple > 1 else ""
    return f"{symbol.name} in [{symbol.low}, {symbol.high}]{multiple}"


def shorten(text: str, width: int) -> str:
    """The end of a long name, where paths differ, after its sign `@` or `%`."""
    text = printable(text)
    if len(text) <= width:
        return text
    sign = text[0] if text[0] in "@%" else ""
    return f"{sign}…{text[len(sign) + 1 - width :]}"


def format_bytes(size: int) -> str:
    """1234567 as `1.2 MB`; decimal units, as in papers."""
    return f"{format_count(size)}B"


def format_time(microseconds: float) -> str:
    return f"{microseconds:.3g} µs" if microseconds < 1000 else f"{microseconds / 1000:.3g} ms"


def format_count(number: int) -> str:
    """1234567 as `1.2 M`."""
    if number < 1000:
        return f"{number} "
    if number.bit_length() > 512:  # shapes larger than any memory
        return f"2^{number.bit_length() - 1} "
    amount, units = number / 1000, "kMGTPE"
    while amount >= 999.95 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.1f} {units[0]}"


def at_sizes(sizes: Mapping[str, int]) -> str:
    """` at B=1, S=512`, to follow figures at these sizes; empty if there are no symbols."""
    return f" at {', '.join(f'{name}={size}' for name, size in sizes.items())}" if sizes else ""


def neighborhood(function: Function, name: str, distance: int) -> str:
    """The operations within `distance` uses of a value, in order, with dots where others are omitted."""
    value = function.find(name)
    start = value.operation
    near: dict[Operation, int] = {}
    waiting: deque[tuple[Operation, int]] = deque()
    if start is not None:
        waiting.append((start, 0))
    else:
        waiting.extend((user, 1) for user in value.users())
    while waiting:
        operation, steps = waiting.popleft()
        if operation in near or steps > distance:
            continue
        near[operation] = steps
        neighbors = [operand.operation for operand in operation.inputs if operand.operation is not None]
        neighbors += [user for result in operation.results for user in result.users()]
        waiting.extend((neighbor, steps + 1) for neighbor in neighbors)
    lines: list[str] = []
    skipped = False
    for operation in function.walk():
        if operation in near:
            mark = ">" if operation is start else " "
            lines += (["  ..."] if skipped and lines else []) + [f"{mark} {printer.print_operation(operation)}"]
            skipped = False
        else:
            skipped = True
    return "\n".join(lines)
