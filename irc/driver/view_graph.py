"""The graph of one stage of a module as records, which `irc view` draws: see `stage_records`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from irc import printer
from irc.device import Device
from irc.diagnostics import printable, printable_lines
from irc.dims import Symbol
from irc.driver.counting import counts, describe, is_library, kernel_operations
from irc.driver.figures import by_operation, is_launched
from irc.driver.kernel_sources import line_of, source_of
from irc.driver.roofline import estimate_of
from irc.group import is_free
from irc.interfaces import Trait
from irc.ir import Block, Function, Operation, Value
from irc.kernel import LegalityFailure, kernel_of
from irc.kernel.nest_text import nest_text
from irc.kernel.roofline import call_estimate
from irc.library_calls import operation_bytes, product_flops, products_of
from irc.module import Module
from irc.sizes import bytes_at

LONGEST_TEXT = 4000  # characters of an operation's text that are shown

Record = dict[str, Any]


def stage_records(module: Module, sizes: Mapping[Symbol, int], device: Device) -> list[Record]:
    """A record for each argument, operation and result of all functions.

    `id` is the name of the first result, `parent` the id of the kernel, loop or branch around it, and `reads` the ids
    of what it reads with the bytes of the value, through the arguments and results of kernels. Constants and sizes that
    each kernel computes itself have none. Bytes, flops and microseconds are those of a run of a kernel or call; where
    there are no kernels yet, those of each operation alone.
    """
    records: list[Record] = []
    launched = by_operation(module, sizes)[0] if kernel_operations(module) else {}
    for function in module.functions.values():
        inside = _Function(module, function, sizes, device, launched)
        if function is module.main:
            records += inside
        else:  # in a frame
            name = f"func {function.name}"
            records.append({"id": name, "name": printable(function.name), "op": "func", "kind": "control", "type": "",
                            "text": printable(f"func @{function.name}"), "reads": []})  # fmt: skip
            records += ({"parent": name, **record} for record in inside)
    return records


class _Function:
    """The records of one function."""

    def __init__(self, module: Module, function: Function, sizes: Mapping[Symbol, int], device: Device,
                 launched: Mapping[Operation | None, list[Any]]) -> None:  # fmt: skip
        self.module, self.function, self.sizes, self.device = module, function, sizes, device
        self.prefix = prefix_of(function.name, module)
        self.names = _outer_names(function)
        self.launched = launched  # empty where there are no kernels yet

    def __iter__(self) -> Iterator[Record]:
        for argument in self.function.arguments:
            yield self._record(argument, "input", f"%{argument.name}: {argument.type}")
        for operation in self.function.walk():
            for region in operation.regions if operation.name != "kernel" else ():
                yield from self._arguments(operation, region.block)
            if operation.definition.is_terminator:
                yield from self._yielded(operation)
            elif operation.name != "const" or not is_free(operation):
                yield self._operation(operation)
        for name, value in zip(self.function.output_names, self.function.returned, strict=True):
            record = self._record(value, "output", f"return %{value.name} as {name}: {value.type}")
            yield {**record, "id": f"{self.prefix}return {name}", "name": printable(name),
                   "reads": self._reads([value])}  # fmt: skip
        if self.function is self.module.main and self.launched.get(None):  # of results that are inputs or constants
            yield {"id": "copies of results", "name": "results", "op": "copy", "kind": "host", "type": "", "text": "",
                   "reads": [], **self._counted(self.launched[None], None)}  # fmt: skip

    def _arguments(self, operation: Operation, block: Block) -> Iterator[Record]:
        for argument in block.arguments:
            record = self._record(argument, "argument", f"%{argument.name}: {argument.type}")
            yield {**record, "parent": self._id_of(operation)}

    def _yielded(self, terminator: Operation) -> Iterator[Record]:
        """What a loop or branch yields, as one record; kernels and functions have their results instead."""
        around = terminator.parent
        if around is not None and around.name != "kernel":
            index = next(number for number, region in enumerate(around.regions) if region.block is terminator.block)
            yield {"id": f"{self._id_of(around)}/{index}", "name": "yield", "op": "yield", "kind": "output", "type": "",
                   "text": printable(printer.print_operation(terminator)), "reads": self._reads(terminator.inputs),
                   "parent": self._id_of(around)}  # fmt: skip

    def _record(self, value: Value, kind: str, text: str) -> Record:
        return {"id": self._value_id(value), "name": printable(value.name), "op": kind, "kind": kind,
                "type": printable(str(value.type)), "text": printable(text), "reads": []}  # fmt: skip

    def _id_of(self, operation: Operation) -> str:
        if operation.name == "kernel":
            return f"{self.prefix}@{operation.attributes['name']}"
        if operation.results:
            return self._value_id(operation.results[0])
        place = str(operation.order_label)
        return f"{self.prefix}{operation.name} {place}"

    def _value_id(self, value: Value) -> str:
        return f"{self.prefix}{self.names.get(value, value.name)}"

    def _reads(self, operands: Iterable[Value]) -> list[list[Any]]:
        """What operands are results of, in order, each once, with their bytes."""
        reads: dict[str, int] = {}
        for operand in operands:
            value = resolved(operand)
            if value.operation is not None and value.operation.name == "const" and is_free(value.operation):
                continue
            source = self._value_id(value) if value.operation is None else self._id_of(value.operation)
            reads[source] = max(reads.get(source, 0), bytes_at(value, self.sizes))
        return [[source, size] for source, size in reads.items()]

    def _operation(self, operation: Operation) -> Record:
        is_inside = operation.parent is not None and operation.parent.name == "kernel"
        name = self.names.get(operation.results[0], operation.results[0].name) if operation.results else operation.name
        text = printer.print_operation(operation)
        if operation.regions and operation.name != "kernel":
            text = text.partition("\n")[0]
        record: Record = {
            "id": self._id_of(operation),
            "name": printable(operation.attributes["name"] if operation.name == "kernel" else name),
            "op": printable(describe(operation)),
            "kind": "member" if is_inside and counts(operation) else kind_of(operation),
            "type": printable(", ".join(str(result.type) for result in operation.results)),
            "text": printable_lines(text[:LONGEST_TEXT].splitlines()),
            "reads": [] if operation.name == "kernel" else self._reads(operation.inputs),
        }
        if operation.parent is not None:
            record["parent"] = self._id_of(operation.parent)
        location = operation.location
        if location.known:
            record["place"] = printable(str(location))
        if location.made_by:
            record["made_by"] = list(map(printable, location.made_by))
        if operation.name == "kernel":
            record |= self._kernel(operation)
        return record | ({} if is_inside else self._figures(operation))

    def _figures(self, operation: Operation) -> Record:
        """The bytes, flops and time of a kernel or call, in a run."""
        if self.launched or operation.name == "kernel":
            parts = self.launched.get(operation, [])
        elif counts(operation) and not is_free(operation) and operation.name != "const":
            moved, flops = operation_bytes(operation, self.sizes), product_flops(operation, self.sizes)
            products = products_of(operation, self.sizes) if Trait.LIBRARY in operation.definition.traits else None
            cost = call_estimate(moved, flops, products, self.device)
            return {"bytes": moved, "flops": flops, "us": 1e6 * cost.seconds, "limit": cost.limit}
        else:
            return {}
        return self._counted(parts, operation) if parts else {}

    def _counted(self, parts: Sequence[Any], operation: Operation | None) -> Record:
        """The figures of device operations that belong to an operation, or to none."""
        estimates = [estimate_of(each, self.device) for each in parts]
        return {
            "bytes": sum(each.distinct_bytes for each in parts),
            "flops": sum(each.flops for each in parts),
            "us": 1e6 * sum(each.seconds for each in estimates),
            "limit": max(estimates, key=lambda each: each.seconds).limit,
            "launches": len(parts),
            **({"loaded": parts[0].kernel.loaded_bytes, "programs": parts[0].kernel.programs}
               if operation is not None and is_launched(operation, parts) else {}),
        }  # fmt: skip

    def _kernel(self, operation: Operation) -> Record:
        """The Triton source of a kernel, the lines of it that compute values, and its schedule."""
        source = source_of(operation)
        try:
            kernel = kernel_of(operation)
        except LegalityFailure as failure:
            return {"reason": printable(f"{failure.message} (rule {failure.rule})")}
        if isinstance(source, LegalityFailure):
            return {"reason": printable(f"{source.message} (rule {source.rule})")}
        block = operation.regions[0].block
        pairs = zip((*block.arguments, *block.terminator.inputs), (*operation.inputs, *operation.results), strict=True)
        nest = nest_text(kernel, operation.attributes["name"], {inner.name: outer.name for inner, outer in pairs})
        stated = [f"{option} = {value}" for option, value in kernel.options.stated.items()]
        schedule = [f"stated: {', '.join(stated)}" if stated else "chosen by rules", *nest]
        yielded = dict(zip(block.terminator.inputs, operation.results, strict=True))
        values = [result for inner in block for result in inner.results]
        lines = {self._value_id(value): line_of(source, operation, yielded.get(value, value)) for value in values}
        return {"triton": printable_lines(source.splitlines()), "schedule": printable_lines(schedule),
                "lines": {name: line for name, line in lines.items() if line is not None}}  # fmt: skip


def prefix_of(function: str, module: Module) -> str:
    """What stands before the names of a function's values in ids: nothing for the entry."""
    return "" if function == module.main.name else f"@{function}/"


def _outer_names(function: Function) -> dict[Value, str]:
    """For values that kernels yield the names of the kernels' results."""
    names: dict[Value, str] = {}
    for operation in function.walk():
        if operation.name == "kernel":
            inner = operation.regions[0].block.terminator.inputs
            names.update((value, result.name) for value, result in zip(inner, operation.results, strict=True))
    return names


def resolved(value: Value) -> Value:
    """The value itself, without the arguments and results of kernels through which it is read."""
    while True:
        owner = value.operation
        if owner is not None and owner.name == "kernel":
            value = owner.regions[0].block.terminator.inputs[value.index]
            continue
        region = value.owner.region if isinstance(value.owner, Block) else None
        around = region.parent if region is not None else None
        if around is None or around.name != "kernel":
            return value
        value = around.inputs[value.index]


def kind_of(operation: Operation) -> str:
    """kernel, constant, view, size, library, control or host."""
    traits = operation.definition.traits
    if operation.name in ("kernel", "const"):
        return {"kernel": "kernel", "const": "constant"}[operation.name]
    if operation.regions or Trait.CONTROL_FLOW in traits:
        return "control"
    if is_library(operation):
        return "library"
    return "size" if Trait.HOST in traits else "view" if is_free(operation) else "host"


def quoted_places(modules: Sequence[Module]) -> set[tuple[str, int]]:
    """The files and lines that locations of operations name."""
    operations = chain.from_iterable(module.walk() for module in modules)
    return {(each.location.file, each.location.line) for each in operations if each.location.file is not None}
