"""Rule F15: schedules that are stated fit their kernels (`irc.kernel.rules`)."""

from __future__ import annotations

from collections.abc import Sequence

from irc import dims
from irc.dims import Dim
from irc.kernel.failure import LegalityFailure
from irc.schedule_options import ScheduleOptions

LARGEST_TILE = 1 << 20  # TRITON_MAX_TENSOR_NUMEL of Triton's language


def schedule_fits_the_tiles(options: ScheduleOptions, tiles: Sequence[str], elements: int = 0) -> None:
    """A stated schedule has blocks for the tile axes of the kernel only, and a tile of at most 1,048,576 elements.

    Why: a pointwise kernel has one tile axis, `i`, or rows and columns, `m` and `n`; one that reduces has its reduced
    axes as columns. A block of an axis that the kernel does not have would have no effect, and so would an `order` of
    blocks in a kernel that is no product summed along `k`. Triton compiles no tile of more elements.

    Example: {%y} of
        func @main(%x: f32[8, 9]) -> f32[8, 9] {
          %y = kernel @y (%a = %x) {kind = "pointwise", schedule = {m = 4}} : f32[8, 9] {
            %z = exp %a : f32[8, 9]
            yield %z
          }
          return %y
        }
    """
    extra = [name for name in options.blocks if name not in tiles]
    if extra:
        message = f"the schedule has a block of `{extra[0]}`, and the tile axes are {', '.join(tiles) or 'none'}"
        raise LegalityFailure("F15", message)
    if options.order is not None and "k" not in tiles:
        message = (
            f"the schedule has an `order` of blocks, and the tile axes are {', '.join(tiles) or 'none'}, without k"
        )
        raise LegalityFailure("F15", message)
    if options.blocks and elements > LARGEST_TILE:
        raise LegalityFailure("F15", f"the schedule has tiles of {elements} elements, at most {LARGEST_TILE}")


def schedule_fits_a_product(options: ScheduleOptions, least: int, tiles: Sequence[str] = ("m", "n", "k")) -> None:
    """Rule F15, of a kernel with products, with blocks of at least `least`."""
    schedule_fits_the_tiles(options, tiles, (options.m or 1) * (options.n or 1))
    for name, block in options.blocks.items():
        if block < least:
            raise LegalityFailure("F15", f"the block of `{name}` is {block}, and that of a product at least {least}")


def indices_fit(options: ScheduleOptions, extents: Sequence[Dim]) -> None:
    """Rule F15, of stated indices of 32 bits: no buffer and no tile axis may have too many elements for them. Where
    nothing is stated, a launch chooses by its sizes."""
    if options.index_bits == 32 and extents:
        raise LegalityFailure("F15", f"indices have 32 bits in the schedule, and they may run up to {extents[0]}")


def split_fits_the_kernel(options: ScheduleOptions, kind: str, extent: Dim) -> None:
    """Rule F15, of a stated `split` or `part`: the kernel reduces something, of which there are several parts, each
    with an element."""
    if not options.divides:
        return
    if kind in ("pointwise", "scan"):
        name = "split" if options.part is None else "part"
        what = "is pointwise reduces nothing" if kind == "pointwise" else "scans rows needs them in order"
        raise LegalityFailure("F15", f"the schedule has a `{name}`, and a kernel that {what}")
    if options.split is not None and dims.less(extent, options.split) is True:
        raise LegalityFailure("F15", f"the schedule splits {extent} elements in {options.split} parts")
    if options.part is not None and dims.less(options.part, extent) is False:
        raise LegalityFailure("F15", f"the schedule splits {extent} elements in parts of {options.part}")


def parts_divide_what_is_reduced(name: str, extent: Dim, divided: Dim) -> None:
    """Rule F15, of each reduction of a kernel that is split: it is over the elements that are divided into parts."""
    if dims.equal(extent, divided) is not True:
        message = f"%{name} is reduced over {extent} elements, and the kernel over {divided}"
        raise LegalityFailure("F15", message, (name,))


def products_are_divided(name: str, is_known: bool) -> None:
    """Rule F15, of a contraction in a kernel with products that is split: a `dot`, or a `conv` without groups."""
    if not is_known:
        raise LegalityFailure("F15", f"the products of %{name} are not split", (name,))


def is_softmax_split_along_its_axis(name: str, is_known: bool) -> None:
    """Rule F15, of a kernel with a product of softmax weights that is split: these are exp(x - max(x)) along the last
    axis of x, times what is constant along it, and beside the product only their sum is reduced."""
    if not is_known:
        raise LegalityFailure("F15", f"%{name} is computed from a softmax in a way that is not split", (name,))


def parts_are_kernels(name: str, failure: LegalityFailure) -> None:
    """Rule F15, of the kernels for the parts of a stated `split`, and of the one that combines them."""
    message = f"@{name}: what it is split into cannot be kernels ({failure.rule}: {failure.message})"
    raise LegalityFailure("F15", message, failure.values)


def is_split_already(options: ScheduleOptions) -> None:
    """Rule F15, of a kernel that is to be launched."""
    if options.divides:
        name = "split" if options.part is None else "part"
        raise LegalityFailure("F15", f"the schedule has a `{name}`, which the pass `split` applies, and it has not run")


def schedule_has_a_depth(options: ScheduleOptions, least: int) -> None:
    """Rule F15, of the block of what is summed, which has at least `least` elements of the type that is multiplied."""
    if options.k is not None and options.k < least:
        message = f"the block of `k` is {options.k}, and that of a product of such a type at least {least}"
        raise LegalityFailure("F15", message)


def schedule_holds_rows(options: ScheduleOptions, extent: Dim) -> None:
    """Rule F15, of a stated block of rows that no loop scans (F21), or that are reduced in a kernel that reduces across
    them, too: it covers them."""
    if options.n is not None and dims.less_equal(extent, options.n) is not True:
        message = f"the block of `n` is {options.n}, and this kernel holds the {extent} elements of each row"
        raise LegalityFailure("F15", message)
