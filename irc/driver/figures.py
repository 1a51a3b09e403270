"""The device operations of a program: kernel launches, library calls, other PyTorch operations.

Every command that reports launches, bytes or flops takes them from `report_on`. They are counted from the host program
that the Triton backend emits (`irc.backends.triton.description`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from irc.dims import Symbol
from irc.driver.counting import (
    counts,
    describe,
    host_operations,
    in_kernel,
    is_library,
    kernel_operations,
    share,
)
from irc.driver.models import find_backend
from irc.ir import Operation
from irc.kernel import Bytes, count, kernel_of
from irc.module import Module
from irc.stages import stage

# The device operations of a run by the operation that they belong to, and why they are not counted, if so.
Counted = tuple[dict[Operation | None, list[Any]], str]


@dataclass(frozen=True)
class KernelReport:
    """One kernel: its launches in a run, and per launch the bytes of distinct elements, the bytes that all programs
    load and store, the flops, the size of the grid, and its resources by target, those of its bundle if it is in one.
    `bundle` is empty where it is launched by itself."""

    name: str
    kind: str
    distinct_bytes: int
    loaded_bytes: int
    flops: int
    programs: int
    targets: Mapping[str, Any]
    launches: int = 1
    bundle: str = ""


@dataclass(frozen=True)
class CallReport:
    """An operation of the module that is in no kernel, and what the device runs for it in one run.

    `kind` is "library" for products, convolutions and attention, "extern" for operators that ONNX Runtime runs on the
    CPU, "operation" for the rest. `dispatched` are the PyTorch operations that it dispatches, in order, with copies.
    """

    op: str
    kind: str
    distinct_bytes: int
    name: str = ""
    flops: int = 0
    dispatched: tuple[str, ...] = ()


@dataclass(frozen=True)
class KernelsReport:
    """The device operations of one run of a program, at given sizes.

    `launches` are kernel launches; `library_calls` and `host_operations` are operations that PyTorch dispatches:
    products, convolutions and attention, and all others. `distinct_bytes` is the global memory traffic: for each launch
    and operation the bytes of the distinct elements that it reads and of those that it writes. `peak_bytes` is the peak
    live memory of results, without inputs and weights. `share_in_kernels` counts operations other than views,
    `share_without_library` those that libraries do not compute either. For an `if` the first branch counts, for a loop
    whose number of iterations depends on data, one iteration.

    `label` is "counted", or "estimated" where the program cannot be executed, for the reason `not_counted`, such as
    that PyTorch is not installed; then each operation in no kernel counts as one, and copies do not count.
    """

    launches: int
    library_calls: int
    host_operations: int
    distinct_bytes: int
    loaded_bytes: int
    flops: int
    peak_bytes: int
    share_in_kernels: float
    share_without_library: float
    kernels: tuple[KernelReport, ...]
    calls: tuple[CallReport, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)  # of the symbols, at which figures are counted
    label: str = "counted"
    not_counted: str = ""
    schema: str = "irc.kernels/2"

    @property
    def smallest_grid(self) -> int:
        """The fewest programs of a launch."""
        programs: Counter[str] = Counter()
        for kernel in self.kernels:
            programs[f"bundle {kernel.bundle}" if kernel.bundle else kernel.name] += kernel.programs
        return min(programs.values(), default=0)

    @property
    def device_operations(self) -> int:
        """Launches, library calls and host operations."""
        return self.launches + self.library_calls + self.host_operations


def report_on(module: Module, sizes: Mapping[Symbol, int], compiled: Mapping[str, Any],
              counted: Counted | None = None) -> KernelsReport:  # fmt: skip
    """The report of a module; `compiled` has the resources of its kernels by name (`compile_for`), and `counted` is the
    result of `by_operation`, where the caller has it."""
    parts, not_counted = by_operation(module, sizes) if counted is None else counted
    counted_operations = [each for members in parts.values() for each in members]
    launched, called = [], []
    for operation, members in parts.items():
        if operation is not None and is_launched(operation, members):
            cost = members[0].kernel if members else count(kernel_of(operation), sizes)
            launched.append(_of_kernel(operation, cost, len(members), compiled))
        else:
            called.append(_of_call(operation, members))
    inside = [each for each in module.walk() if in_kernel(each) and counts(each)]
    outside = host_operations(module)
    kinds = Counter(each.kind for each in counted_operations)
    return KernelsReport(
        launches=sum(each.kind == "kernel" and not each.joins for each in counted_operations),
        library_calls=kinds["library"],
        host_operations=kinds["operation"] + kinds["extern"],
        distinct_bytes=sum(each.distinct_bytes for each in counted_operations),
        loaded_bytes=sum(
            each.distinct_bytes if each.kernel is None else each.kernel.loaded_bytes for each in counted_operations
        ),
        flops=sum(each.flops for each in counted_operations),
        peak_bytes=find_backend("triton").peak_bytes(module, sizes),
        share_in_kernels=share(len(inside), len(outside)),
        share_without_library=share(*(sum(not is_library(each) for each in part) for part in (inside, outside))),
        kernels=tuple(launched),
        calls=tuple(called),
        sizes={symbol.name: size for symbol, size in sizes.items()},
        label="estimated" if not_counted else "counted",
        not_counted=not_counted,
    )


def by_operation(module: Module, sizes: Mapping[Symbol, int]) -> Counted:
    """The device operations of a run by the operation that they belong to, in program order, and why they are not
    counted, if so. Kernels that are not launched have an entry; copies of results belong to None."""
    with stage("counting"):
        device_operations, not_counted = find_backend("triton").device_operations(module, sizes)
    order = {operation: position for position, operation in enumerate(module.walk())}
    parts: dict[Operation | None, list[Any]] = {each: [] for each in kernel_operations(module)}
    for each in device_operations:
        parts.setdefault(each.operation, []).append(each)

    def place(operation: Operation | None) -> int:
        return len(order) if operation is None else order.get(operation, len(order))

    return {key: parts[key] for key in sorted(parts, key=place)}, not_counted


def is_launched(operation: Operation, parts: Sequence[Any]) -> bool:
    """Whether an operation is a kernel that is launched, rather than one that runs as host calls."""
    return operation.name == "kernel" and all(each.kind == "kernel" for each in parts)


def _of_kernel(operation: Operation, cost: Bytes, launches: int, compiled: Mapping[str, Any]) -> KernelReport:
    name, kind = operation.attributes["name"], operation.attributes["kind"]
    figures = (cost.distinct_bytes, cost.loaded_bytes, cost.flops, cost.programs)
    bundle = operation.attributes["bundle"] or ""
    return KernelReport(name, kind, *figures, compiled.get(name, {}), launches, bundle)


def _of_call(operation: Operation | None, parts: Sequence[Any]) -> CallReport:
    kinds = {each.kind for each in parts}
    return CallReport(
        "copy" if operation is None else describe(operation),
        next((kind for kind in ("library", "extern") if kind in kinds), "operation"),
        sum(each.distinct_bytes for each in parts),
        operation.results[0].name if operation is not None and operation.results else "",
        sum(each.flops for each in parts),
        tuple(each.name for each in parts),
    )
