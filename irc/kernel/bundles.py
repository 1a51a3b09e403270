"""Bundles: kernels that are launched together, each by a range of the programs of one launch (rule F20)."""

from __future__ import annotations

from irc.ir import Block, Operation
from irc.kernel.bundle_rules import Member, bundle_is_one_run
from irc.kernel.dag import Apply
from irc.kernel.derivation import Kernel


def member_of(operation: Operation, kernel: Kernel) -> Member:
    """What rule F20 is about, of a `kernel` operation and its kernel."""
    pointers = len(kernel.inputs) + len(kernel.outputs)
    operations = pointers + sum(isinstance(node, Apply) for node in kernel.nodes)
    warps = kernel.schedule.warps if knows_warps(kernel) else None
    return Member(operation.attributes["name"], tuple(operation.inputs), tuple(operation.results), kernel.kind,
                  bool(kernel.checks), warps, kernel.options.stages, pointers, operations)  # fmt: skip


def knows_warps(kernel: Kernel) -> bool:
    """Whether the warps are known before a launch: by rows of unknown size that are held whole, a launch decides."""
    is_known = all(isinstance(tile.extent, int) or not tile.whole for tile in kernel.schedule.tiles)
    return is_known or kernel.options.warps is not None


def bundles_of(block: Block) -> list[list[Operation]]:
    """The kernels of each bundle of a block, in its order: neighbors that state the same one. A kernel that states a
    bundle of its own is in none."""
    return [members for members in _runs(block) if len(members) > 1]


def bundles_by_kernel(block: Block) -> dict[Operation, list[Operation]]:
    """For each kernel of a bundle the kernels of that bundle."""
    return {operation: members for members in bundles_of(block) for operation in members}


def check_neighbors(block: Block) -> None:
    """Raise the `LegalityFailure` of the kernels of a bundle between which other operations are (rule F20)."""
    known: set[str] = set()
    for members in _runs(block):
        name = members[0].attributes["bundle"]
        bundle_is_one_run(name, name not in known, members[0].results)
        known.add(name)


def _runs(block: Block) -> list[list[Operation]]:
    runs: list[list[Operation]] = []
    before: str | None = None
    for operation in block:
        name = operation.attributes["bundle"] if operation.name == "kernel" else None
        if name is not None and name == before:
            runs[-1].append(operation)
        elif name is not None:
            runs.append([operation])
        before = name
    return runs
