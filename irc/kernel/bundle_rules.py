"""When kernels can be one launch (rule F20)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from irc.ir import Value
from irc.kernel.failure import LegalityFailure

MOST_MEMBERS = 32
MOST_POINTERS = 256  # of 8 bytes: the arguments of a launch have at least 4 KB
MOST_OPERATIONS = 4_096  # that are written for the kernels together: compiling takes as long as for all of them


class Member(NamedTuple):
    """A kernel as one of a bundle. `warps` is None where they depend on sizes of a launch, `stages` where the compiler
    chooses; `operations` are those written for one point of its axes."""

    name: str
    inputs: tuple[Value, ...]
    results: tuple[Value, ...]
    kind: str
    has_checks: bool
    warps: int | None
    stages: int | None
    pointers: int
    operations: int


def kernels_run_at_once(members: Sequence[Member]) -> None:
    """The 2 to 32 kernels of a bundle read nothing of one another, have as many warps and stages, and neither products
    nor checks; together they have at most 256 pointers and 4,096 operations. No other operation is between them.

    Why: the programs of a launch run in any order, and all have as many threads. Each program branches to the code of
    its kernel, and has the registers and the shared memory of the one that takes most.

    Example: the kernels @y and @z of
        func @main(%x: f32[8]) -> f32[8] {
          %y = kernel @y (%x) {kind = "pointwise", bundle = "y"} : f32[8] {
            %a = exp %x : f32[8]
            yield %a
          }
          %z = kernel @z (%y) {kind = "pointwise", bundle = "y"} : f32[8] {
            %b = neg %y : f32[8]
            yield %b
          }
          return %z
        }
    """
    values = [member.results[0] for member in members if member.results]
    if not 2 <= len(members) <= MOST_MEMBERS:
        message = f"{len(members)} kernels are bundled, at least 2 and at most {MOST_MEMBERS}"
        raise LegalityFailure("F20", message, values)
    makers = {result: member.name for member in members for result in member.results}
    for member in members:
        read = next((value for value in member.inputs if value in makers), None)
        if read is not None:
            message = f"@{member.name} reads %{read.name}, which @{makers[read]} computes"
            raise LegalityFailure("F20", message, (read, *member.results))
        can_be_in_a_bundle(member)
        warps_and_stages_agree(members[0], member)
    pointers, operations = sum(member.pointers for member in members), sum(member.operations for member in members)
    if pointers > MOST_POINTERS:
        raise LegalityFailure("F20", f"the kernels have {pointers} pointers, at most {MOST_POINTERS}", values)
    if operations > MOST_OPERATIONS:
        raise LegalityFailure("F20", f"the kernels have {operations} operations, at most {MOST_OPERATIONS}", values)


def can_be_in_a_bundle(member: Member) -> None:
    """Rule F20, of one kernel, whatever the others of its bundle are."""
    reason = ""
    if member.kind == "product":
        reason = "has a product"
    elif member.has_checks:
        reason = "checks what it reads"
    elif member.warps is None:
        reason = "has warps that depend on the size of its rows"
    if reason:
        raise LegalityFailure("F20", f"@{member.name} {reason}", member.results)


def warps_and_stages_agree(first: Member, other: Member) -> None:
    """Rule F20, of two kernels: warps, and stages where they are stated, are those of a launch."""
    for what, one, two in (("warps", first.warps, other.warps), ("stages", first.stages, other.stages)):
        if one != two:
            numbers = [f"@{each.name} has {'no' if number is None else number} {what}"
                       for each, number in ((first, one), (other, two))]  # fmt: skip
            raise LegalityFailure("F20", " and ".join(numbers), (*first.results, *other.results))


def bundle_is_one_run(bundle: str, is_one_run: bool, results: Sequence[Value]) -> None:
    """Rule F20, of the kernels of a block that state one bundle: they are neighbors. `results` are those of one."""
    if not is_one_run:
        raise LegalityFailure("F20", f"other operations are between the kernels of the bundle `{bundle}`", results)


def bundles_have_an_order(is_ordered: bool) -> None:
    """Rule F20, of kernels and other operations of a block: what is between the kernels can run before or after all."""
    if not is_ordered:
        message = "an operation between them needs one of these kernels, and is needed by another"
        raise LegalityFailure("F20", message)
