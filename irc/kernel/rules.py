"""When operations can be one kernel: the legality rules, as functions in the table `LEGALITY_RULES`.

A rule's function raises `LegalityFailure` where its rule does not hold, and its docstring is the rule's page (`irc doc
F6`). `derive` calls those about the inside of a kernel, `irc.legality` those about its arguments, `irc.group_graph` the
one about the graph of kernels. Those about schedules (F15) are in `irc.kernel.schedule_rules`, the one about products
that are joined (F19) in `irc.kernel.sibling_rules`, those about kernels in one launch (F20) in
`irc.kernel.bundle_rules`, and those about scans (F21) in `irc.kernel.scan_rules`.

The numbers F5, F7, F8, F9, F11 and F12 are not used (`UNUSED`): other rules are about products now, and the others were
about properties that every derived kernel has.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from irc import dims
from irc.dims import Dim, Variable
from irc.dtypes import F32, FLOATS8, I32, DType
from irc.index_map import Coordinates
from irc.ir import Definition, Operation, Value
from irc.kernel.bundle_rules import (
    bundle_is_one_run,
    bundles_have_an_order,
    can_be_in_a_bundle,
    kernels_run_at_once,
    warps_and_stages_agree,
)
from irc.kernel.dag import Apply, Dot, Node, Reduce, Scan, draws_bits, variables, walk
from irc.kernel.failure import CODES, LegalityFailure
from irc.kernel.scan_rules import (
    scans_are_beside_no_product,
    scans_are_read_at_their_points,
    scans_run_in_a_loop,
    scans_share_their_row,
)
from irc.kernel.schedule_rules import (
    indices_fit,
    is_softmax_split_along_its_axis,
    is_split_already,
    parts_are_kernels,
    parts_divide_what_is_reduced,
    products_are_divided,
    schedule_fits_a_product,
    schedule_fits_the_tiles,
    schedule_has_a_depth,
    schedule_holds_rows,
    split_fits_the_kernel,
)
from irc.kernel.sibling_rules import siblings_multiply_one_value
from irc.numbered_rules import table

MOST_CONDITIONS = 32  # on what is read through one pad or concatenation after another
MOST_OPERATIONS = 1_024  # windows over windows would compute the inner ones again at each place of the outer
# Kernel arguments are pointers; launch limits and register pressure make more of them useless.
MOST_POINTERS = 32
MOST_PRODUCTS = 4  # each has a tile of results in registers
MOST_COLUMNS = 256  # of a product of softmax weights, which a program holds


# -- the graph of kernels --------------------------------------------------------------------------------------


def reads_nothing_that_depends_on_its_stores(outside: Sequence[Operation], producer: str, consumer: str) -> None:
    """A kernel reads nothing that depends on what it stores; the graph of kernels has no cycle.

    Why: a kernel runs as one launch. What another operation computes from its results does not exist while it runs.

    Example: {%grown, %y} of
        func @main(%x: f32[8, 8], %w: f32[8, 8]) -> f32[8, 8] {
          %grown = exp %x : f32[8, 8]
          %product = matmul %grown, %w : f32[8, 8]
          %y = add %grown, %product : f32[8, 8]
          return %y
        }
    """
    if outside:
        operation = outside[0]
        what = " ".join([operation.name, *(f"%{result.name}" for result in operation.results)])
        raise LegalityFailure("F1", f"{what} needs @{producer} and is needed by @{consumer}", operation.results)


def has_nothing_between(outside: Sequence[Operation]) -> None:
    """Rule F1, of a group that is to have just these members."""
    if outside:
        operation = outside[0]
        message = f"%{operation.results[0].name} stands between its members: it needs one and is needed by another"
        raise LegalityFailure("F1", message, operation.results)


# -- members ---------------------------------------------------------------------------------------------------


def members_map_elements(operation: Operation) -> None:
    """Members are pure, in one block, and map elements to elements.

    Why: each element of a result is computed at one point of the kernel's axes, from elements at other points that
    index arithmetic finds. Sorts have no such form, nor do transposed convolutions, which compute where in the result
    they add a product; an effect would be repeated for each point.

    Example: {%y} of
        func @main(%x: f32[8]) -> f32[8] {
          %y, %places = sort %x {axis = 0} : f32[8], i64[8]
          return %y
        }
    """
    definition, name = operation.definition, operation.name
    is_known = moves_elements(definition) or definition.reduction is not None or definition.pointwise is not None
    contraction = definition.contraction
    is_known |= contraction is not None and contraction.sums_at_each_element(operation)
    is_known |= definition.window is not None or definition.scan is not None
    if definition.has_effect or operation.regions or not is_known:
        kind = "has an effect" if definition.has_effect else "is not computed point by point"
        raise LegalityFailure("F2", f"{name} {kind}", operation.results)
    if name == "const":
        tensor = operation.attributes["value"]
        if tensor.size != 1 and not (tensor.name is None and tensor.is_splat()):
            message = f"constant %{operation.result.name} is no scalar: it is read from outside the kernel"
            raise LegalityFailure("F2", message, (operation.result,))


def operands_fit(operation: Operation) -> None:
    """Rule F2, of what multiplies operands: that these fit each other is proven, since no kernel checks it."""
    contraction = operation.definition.contraction
    if contraction is None:
        return
    for dim in contraction.space(operation).fits:
        if dims.less_equal(0, dim) is not True:
            message = f"the operands of {operation.name} do not fit each other where {dim} is below 0"
            raise LegalityFailure("F2", f"{message}, which no kernel checks", operation.results)


def windows_fit(operation: Operation) -> None:
    """Rule F2, of windows, whose sizes are numbers: that each fits its axis is proven. Those of one element do."""
    if operation.definition.window is None:
        return
    for size, extent in zip(operation.attributes["window"], operation.result.shape, strict=True):
        if not isinstance(size, int) or (size > 1 and dims.less_equal(1, extent) is not True):
            message = f"the windows of %{operation.result.name} are not known to fit, which no kernel checks"
            raise LegalityFailure("F2", message, operation.results)


def has_type_of_kernels(value: Value, is_stored: bool = False) -> None:
    """Rule F2, of what members read and compute: ranked, and of an element type that kernels compute with. Floats of 8
    bits they only read (`is_stored`)."""
    if not value.type.is_ranked:
        raise LegalityFailure("F2", f"the rank of %{value.name} is not known")
    dtype = value.dtype
    if is_stored and dtype in FLOATS8:
        return
    if dtype.kind not in ("float", "int", "uint", "bool") or dtype.bits < 8 or (dtype.is_float and dtype.bits < 16):
        raise LegalityFailure("F2", f"kernels do not compute in {dtype} (%{value.name})", (value.name,))


def are_in_one_block(operations: Sequence[Operation]) -> None:
    """Rule F2, of the blocks of members."""
    if any(operation.block is not operations[0].block for operation in operations):
        raise LegalityFailure("F2", "the members stand in different blocks")


def moves_elements(definition: Definition) -> bool:
    """Whether the operation only moves elements of its operands, hence rounds nothing."""
    return definition.pull is not None or definition.element_of is not None


# -- what is stored --------------------------------------------------------------------------------------------


def stores_what_is_read_outside(stored: Sequence[Value]) -> None:
    """Each value that is read outside the kernel is one of its results.

    Why: other operations see the results of a kernel only. One of which nothing is read would have no result, and no
    point at which anything is computed.

    Example: {%y} of
        func @main(%x: f32[8]) -> f32[8] {
          %y = exp %x : f32[8]
          return %x
        }
    """
    if not stored:
        raise LegalityFailure("F3", "nothing outside reads a result of the group")
    for value in stored:
        has_type_of_kernels(value)


def reads_each_member(unread: Sequence[Operation]) -> None:
    """Rule F3, of groups that compute an operation several times: each stores it, or reads it itself."""
    if unread:
        name = unread[0].results[0].name
        raise LegalityFailure("F3", f"the group computes %{name}, which it neither stores nor reads", unread[0].results)


def operations_of_several_kernels_are_cheap(operation: Operation, is_cheap: bool) -> None:
    """What several kernels compute, each for itself, is pure and pointwise.

    Why: it is computed once for each kernel that has it among its members. That saves a store and loads where it is a
    few operations for each element; a reduction or a product would read its operands again.

    Example: the groups {%s, %y} and {%s, %z} of
        func @main(%x: f32[8, 9]) -> (f32[8, 9], f32[8, 9]) {
          %s = softmax %x {axis = 1} : f32[8, 9]
          %y = exp %s : f32[8, 9]
          %z = tanh %s : f32[8, 9]
          return %y, %z
        }
    """
    if not is_cheap:
        name = operation.results[0].name
        message = f"%{name} is in several kernels, and a {operation.name} is no pointwise operation"
        raise LegalityFailure("F18", message, operation.results)


def every_dim_has_an_axis(value: Value, extent: Dim, axis: Variable | None) -> None:
    """Each element of each result is written at one point of the kernel's axes. A result that does not vary over an
    axis is written at its first point, so that axis must not be empty.

    Why: the axes are those of one result or reduction. A result whose dims are not expressions of them is computed at
    no point, and of an empty axis there is no first point.

    Example: {%y, %z} of
        func @main(%a: f32[8, 9], %b: f32[7]) -> (f32[8, 9], f32[7]) {
          %y = exp %a : f32[8, 9]
          %z = exp %b : f32[7]
          return %y, %z
        }
    """
    if axis is None:
        message = f"%{value.name} has a dim {extent} that no axis of the kernel runs over"
        raise LegalityFailure("F4", message, (value.name, extent))


def is_written_unless_empty(stored: Value, ignored: Sequence[Variable]) -> None:
    """Rule F4, of the axes that a result does not vary over."""
    for axis in ignored:
        if dims.less(0, axis.extent) is not True and dims.equal(stored.type.elements, 0) is not True:
            message = f"%{stored.name} would not be written where the extent {axis.extent} of an axis is 0"
            raise LegalityFailure("F4", message, (stored.name, axis.extent))


# -- reductions ------------------------------------------------------------------------------------------------


def reductions_share_their_axes(reductions: Sequence[Reduce]) -> None:
    """A kernel reduces over one axis after flattening, or reduces rows and across these rows: of elements that it reads
    whole rows of, which stay in registers (16,384 elements, 8,192 of a row of unknown size). What is computed from a
    reduction across rows is neither reduced again nor stored for each row.

    Why: a kernel has at most one loop, over blocks of what is reduced. Blocks of whole rows give both reductions of a
    row, at once, and those across rows, at the end.

    Example: {%rows, %all} of
        func @main(%x: f32[8, 9]) -> (f32[8], f32[]) {
          %rows = reduce_sum %x {axes = [1], keep_dims = false} : f32[8]
          %all = reduce_sum %x {axes = [0, 1], keep_dims = false} : f32[]
          return %rows, %all
        }
    """
    for node in reductions:
        if set(node.bound) != set(reductions[0].bound):
            pair = reductions[0], node
            first, other = (f"%{each.label} is reduced over {_listed(each.bound)}" for each in pair)
            raise LegalityFailure("F6", f"{first}, and {other}", (reductions[0].label, node.label))


def _listed(axes: Sequence[Variable]) -> str:
    """The axes of a kernel, by name and extent: `the axis i1 of extent 16`."""
    names = [f"{axis.name} of extent {axis.extent}" for axis in axes]
    return f"the {'axis' if len(names) == 1 else 'axes'} {' and '.join(names)}" if names else "no axis"


def results_across_rows_are_read_after_them(read: Sequence[Node], across: Sequence[Reduce]) -> None:
    """Rule F6, of what reads a reduction across rows in a kernel that also reduces rows: the loop over rows is done."""
    if read:
        name = next(node.label for node in (*read, *across) if node.label)  # argmax compares its maximum in each row
        message = f"%{name} is computed in each row from what is reduced across rows"
        raise LegalityFailure("F6", message, (name,))


def rows_fit_beside_what_is_across(reductions: Sequence[Reduce], extent: Dim, fit: bool) -> None:
    """Rule F6, of the rows of a kernel that also reduces across rows."""
    if not fit:
        message = f"rows of {extent} elements, over which %{reductions[0].label} is reduced, are not held in registers"
        raise LegalityFailure("F6", message, (reductions[0].label, extent))


def rows_are_reduced_once(name: str, computed: int, needed: int) -> None:
    """Rule F10, of a kernel that reduces rows and across rows: the elements of each reduction, at typical sizes. Parts
    of rows have less than twice as many as there are, with those that pad the last."""
    if computed >= 2 * needed and computed > needed:
        message = f"%{name} would be reduced again for each place at which it is read"
        raise LegalityFailure("F10", f"{message}: {computed} elements where {needed} are enough", (name,))


def reductions_are_computed_once(repeated: Sequence[tuple[Reduce | Scan | Dot, Variable]]) -> None:
    """A reduction, or a scan, is computed once: each of the kernel's axes is reduced, or it varies over it. A reduction
    beside a product (F16) is computed for each block of results, from what the product reads there anyway. Random
    bits are drawn at no more than two places, and in no loop of a product.

    Why: at each point of another axis the whole reduction would be computed again. In a kernel of its own it is
    computed once, and its result is read.

    Example: {%sums, %y} of
        func @main(%x: f32[6, 7], %z: f32[6, 90]) -> f32[6, 90] {
          %sums = reduce_sum %x {axes = [1], keep_dims = true} : f32[6, 1]
          %y = mul %sums, %z : f32[6, 90]
          return %y
        }
    """
    if repeated:
        node, axis = repeated[0]
        verb = "scanned" if isinstance(node, Scan) else "reduced"
        message = f"%{node.label} would be {verb} again at each of {axis.extent} points of an axis it ignores"
        raise LegalityFailure("F10", message, (node.label, axis.extent))


def products_are_computed_once(name: str, computed: int, needed: int) -> None:
    """Rule F10, of the points at which a product is computed, at typical sizes: what reads each element of it at
    several places, such as overlapping windows, would compute it again for each. A quarter more may pad it."""
    if 4 * computed > 5 * needed:
        message = f"%{name} would be computed again for each place at which it is read"
        raise LegalityFailure("F10", f"{message}: {computed} multiplications where {needed} are enough", (name,))


def random_bits_are_drawn_once(products: Sequence[Dot], nodes: Sequence[Node]) -> None:
    """Rule F10, of random bits, which take some hundred operations: no loop of a product draws them, which would do so
    again for each block of the other operand, and what reads them at several places does so at most at two."""
    drawn = [node for node in nodes if draws_bits(node)]
    for node in walk(operand for product in products for operand in product.operands) if drawn else ():
        if draws_bits(node) and any(not node.axes.isdisjoint(product.bound) for product in products):
            message = f"the random bits of %{node.label} would be drawn again for each block of %{products[0].label}"
            raise LegalityFailure("F10", message, (node.label, products[0].label))
    places: dict[Hashable, list[Node]] = {}
    for node in drawn:
        assert isinstance(node, Apply)
        places.setdefault((node.operands[0], node.attributes), []).append(node)
    again = next((nodes[0].label for nodes in places.values() if len(nodes) > 2), None)
    if again is not None:
        message = f"the random bits of %{again} would be drawn again for each place at which they are read"
        raise LegalityFailure("F10", message, (again,))


# -- products --------------------------------------------------------------------------------------------------


def products_have_instructions(operand: Value, accumulator: DType) -> None:
    """Rule F2, of what a product multiplies, and of the type of its sums."""
    known = ("i32",) if accumulator is I32 else ("f16", "bf16", "f32") if accumulator is F32 else ()
    if operand.dtype.name not in known:
        message = f"kernels do not multiply matrices of {operand.dtype} and add them up in {accumulator}"
        raise LegalityFailure("F2", f"{message} (%{operand.name})", (operand.name,))


def products_are_of_bytes(are_bytes: bool, product: Value) -> None:
    """Rule F2, of products of integers: matrix instructions multiply bytes."""
    if not are_bytes:
        message = f"kernels do not multiply matrices of {product.dtype}, but of 8 bits less a zero point"
        raise LegalityFailure("F2", f"{message} (%{product.name})", (product.name,))


def groups_are_axes(value: Value, coordinates: Coordinates, divided: Sequence[tuple[int, Dim]]) -> None:
    """Rule F16, of a convolution whose channels are in groups: the groups are batches of products, so that the index
    of a group and that of a channel in it are over different axes."""
    for position, inner in divided:
        parts = dims.floor_divide(coordinates[position], inner), dims.modulo(coordinates[position], inner)
        if not variables(parts[0]).isdisjoint(variables(parts[1])):
            raise LegalityFailure("F16", f"the groups of channels of %{value.name} are no axis", (value.name,))


def sums_are_in_one_other(chain: Sequence[str]) -> None:
    """Rule F16, of contractions each of which reads the one before: no kernel has a product of products of products.
    It depends on the graph alone; without it, all layers of a model would be traced before another rule fails."""
    if len(chain) > 2:
        raise LegalityFailure("F16", f"%{chain[0]} is a product that is read by a product of another", chain)


def products_share_their_tiles(products: Sequence[Dot], reductions: Sequence[Reduce]) -> None:
    """All products of a kernel, at most 4, are summed over the same axes, have the same rows and the same columns, and
    read neither products nor reductions. A reduction is over the axes that the products are summed over, and its
    argument varies over rows or columns alone, and over no other reduction. A softmax whose weights are multiplied is
    another matter (F17).

    Why: a program has one tile of results for each, and one loop, over what is summed. Another product, or a reduction
    of a result, would need another loop, or all columns in one tile. What each element of an operand is divided by, or
    multiplied with, is applied to the product: so the products of normalized rows can share the loop with the sums of
    their squares. What is subtracted from each element, such as a mean, would have to be known before the loop.

    Example: {%product, %y} of
        func @main(%x: f32[32, 64], %w: f32[64, 48]) -> f32[32, 48] {
          %product = matmul %x, %w : f32[32, 48]
          %y = softmax %product {axis = 1} : f32[32, 48]
          return %y
        }
    """
    apart = [node for node in reductions if products and not _shares_the_loop(node, products[0])]
    if apart:
        message = f"%{apart[0].label} is reduced, and %{products[0].label} is a product"
        raise LegalityFailure("F16", message, (products[0].label, apart[0].label))
    if len(products) > MOST_PRODUCTS:
        message = f"%{products[0].label} is one of {len(products)} products, at most {MOST_PRODUCTS}"
        raise LegalityFailure("F16", message, (products[0].label,))
    for node in products:
        first = products[0]
        shared = (set(node.bound), node.rows, node.columns) == (set(first.bound), first.rows, first.columns)
        nested = any(isinstance(below, Dot) and below is not node for below in node.loops)
        if nested or not shared:
            message = f"%{first.label} and %{node.label} are products over different axes"
            if nested:
                message = f"%{node.label} is a product of what another product computes"
            raise LegalityFailure("F16", message, (first.label, node.label))


def _shares_the_loop(reduction: Reduce, product: Dot) -> bool:
    """Whether a reduction is computed in the loop of a product, from elements of one operand's axes."""
    argument = reduction.operands[0]
    is_first_level = not argument.loops
    one_side = argument.axes.isdisjoint(product.rows) or argument.axes.isdisjoint(product.columns)
    return is_first_level and one_side and reduction.bound == product.bound


def rows_fit_in_registers(columns: Dim, depth: Dim, name: str) -> None:
    """A product of softmax weights has at most 256 columns, and scores that are sums of at most 256 products. The
    weights are exp(x - max(x)), times what does not depend on the maximum; beside sums of such, nothing is reduced.

    Why: a program holds a block of rows of the result, and of the operand that they are computed from. What is summed
    before the maximum is known is rescaled when it grows: that is right for exponentials alone.

    Example: {%scores, %weights, %y} of
        func @main(%q: f32[32, 64], %k: f32[64, 48], %v: f32[48, 64]) -> f32[32, 64] {
          %scores = matmul %q, %k : f32[32, 48]
          %weights = tanh %scores : f32[32, 48]
          %y = matmul %weights, %v : f32[32, 64]
          return %y
        }
    """
    for what, extent in (("columns", columns), ("products in a score", depth)):
        if dims.less_equal(extent, MOST_COLUMNS) is not True:
            raise LegalityFailure("F17", f"%{name} has {extent} {what}, at most {MOST_COLUMNS}", (name, extent))


def weights_are_of_a_softmax(are_weights: bool, product: str, read: str) -> None:
    """Rule F17, of a product of what depends on reductions or products: these are the softmax of at most one product,
    and what is constant along its rows."""
    if not are_weights:
        message = f"%{product} multiplies what depends on %{read}: no softmax, and no factor of its rows"
        raise LegalityFailure("F17", message, (product, read))


def sums_are_of_the_softmax(is_carried: bool, name: str) -> None:
    """Rule F17, of what else is reduced: with the maximum of the softmax, along its axis."""
    if not is_carried:
        raise LegalityFailure("F17", f"%{name} is reduced beside a softmax", (name,))


def maximum_is_read_as_known(is_same: Iterable[bool], name: str) -> None:
    """Rule F17, of what else reads the maximum: where it is inf, a kernel has NaN, as the sum is. Only what is the same
    for both may read it, such as whether it is -inf."""
    if not all(is_same):
        raise LegalityFailure("F17", f"%{name} is read beside a softmax", (name,))


def weights_that_may_be_nan_are_divided(hidden: Sequence[Reduce | Dot]) -> None:
    """Rule F17, of sums and products in which a selection hides weights that may be NaN: only their quotient, which is
    NaN where both are 0, may be read."""
    if hidden:
        message = f"%{hidden[0].label} selects 0 for weights of a softmax that may be NaN"
        raise LegalityFailure("F17", message, (hidden[0].label,))


# -- numerics and resources ------------------------------------------------------------------------------------


def rounds_as_allowed(numerics: str, allowed: str, stored: Sequence[Value]) -> None:
    """The results differ from those of the separate operations by no more than the class of numerics that the user
    allows; the bits of an element are only read as they are stored.

    Why: values of f16 and bf16 are held in f32 inside a kernel, and the roundings between members are left out. That
    keeps more precision than the types of the program say. `exact` does not allow it, and the bits of such a value,
    which `bitcast` reads, would be those of another number.

    Example: {%sum, %bits} of
        func @main(%x: f16[8]) -> u16[8] {
          %sum = add %x, %x : f16[8]
          %bits = bitcast %sum {to = u16} : u16[8]
          return %bits
        }
    """
    if allowed == "exact" and numerics != "exact":
        message = "it keeps more precision than its types say, where the user allows `exact` only"
        raise LegalityFailure("F13", message, stored)


def bits_are_stored_ones(value: Value, register: Any) -> None:
    """Rule F13, of what `bitcast` reads and gives: held in a register of its own type."""
    if register is not value.dtype:
        message = f"the bits of {value.dtype} are not those it is computed in (%{value.name})"
        raise LegalityFailure("F13", message, (value.name,))


def products_stay_in_range(is_in_range: bool, product: Dot) -> None:
    """Rule F13, of a product to which factors of its operands are applied: what is multiplied without them is in the
    range of the type in which it is multiplied. Normalized rows times a scale are in that of f16, where the rows times
    the scale may not be."""
    if not is_in_range:
        message = f"%{product.label} multiplies in {product.fed}, whose range an operand without its factors may exceed"
        raise LegalityFailure("F13", message, (product.label,))


def needs_no_more_than_a_target_has(
    *, pointers: int = 0, operations: int = 0, conditions: int = 0, values: Sequence[Any] = ()
) -> None:
    """A kernel has at most 32 pointers, 1,024 operations for one point, and 32 conditions on one element.

    Why: arguments of a launch are limited, and each pointer, value and mask takes registers. Windows over windows
    compute the inner ones again at each place of the outer.

    Example: a concatenation of 32 tensors, whose kernel would have 32 pointers to read and one to write.
    """
    if pointers > MOST_POINTERS:
        raise LegalityFailure("F14", f"{pointers} pointers, at most {MOST_POINTERS}", values)
    if operations > MOST_OPERATIONS:
        raise LegalityFailure("F14", f"more than {MOST_OPERATIONS} operations for one point", values)
    if conditions > MOST_CONDITIONS:
        raise LegalityFailure("F14", f"more than {MOST_CONDITIONS} conditions on one element", values)


LEGALITY_RULES = table(
    ("F1", CODES["F1"], reads_nothing_that_depends_on_its_stores, has_nothing_between),
    ("F2", CODES["F2"], members_map_elements, operands_fit, windows_fit, has_type_of_kernels, are_in_one_block,
     products_have_instructions, products_are_of_bytes),
    ("F3", CODES["F3"], stores_what_is_read_outside, reads_each_member),
    ("F4", CODES["F4"], every_dim_has_an_axis, is_written_unless_empty),
    ("F6", CODES["F6"], reductions_share_their_axes, results_across_rows_are_read_after_them,
     rows_fit_beside_what_is_across),
    ("F10", CODES["F10"], reductions_are_computed_once, products_are_computed_once, rows_are_reduced_once,
     random_bits_are_drawn_once),
    ("F13", CODES["F13"], rounds_as_allowed, bits_are_stored_ones, products_stay_in_range),
    ("F14", CODES["F14"], needs_no_more_than_a_target_has),
    ("F15", CODES["F15"], schedule_fits_the_tiles, schedule_fits_a_product, schedule_has_a_depth, schedule_holds_rows,
     indices_fit,
     split_fits_the_kernel, parts_divide_what_is_reduced, products_are_divided, is_softmax_split_along_its_axis,
     parts_are_kernels, is_split_already),
    ("F16", CODES["F16"], products_share_their_tiles, groups_are_axes, sums_are_in_one_other),
    ("F17", CODES["F17"], rows_fit_in_registers, weights_are_of_a_softmax, sums_are_of_the_softmax,
     maximum_is_read_as_known, weights_that_may_be_nan_are_divided),
    ("F18", CODES["F18"], operations_of_several_kernels_are_cheap),
    ("F19", CODES["F19"], siblings_multiply_one_value),
    ("F20", CODES["F20"], kernels_run_at_once, can_be_in_a_bundle, warps_and_stages_agree, bundle_is_one_run,
     bundles_have_an_order),
    ("F21", CODES["F21"], scans_share_their_row, scans_are_beside_no_product, scans_are_read_at_their_points,
     scans_run_in_a_loop),
)
# Numbers of rules that were removed, which no other rule gets, and what they were about.
UNUSED = {
    "F5": "two contractions in one kernel: F16 is about these",
    "F7": "the scope in which a value is computed: it follows from F6 and F10",
    "F8": "the tiles of a contraction: F15 and F16 are about these",
    "F9": "the size of attention in one kernel: attention is a library call",
    "F11": "reads of an argument that a kernel updates: where it reads it elsewhere, the result is copied (`in_place`)",
    "F12": "bounds of accesses: each is proven to be in bounds, or guarded, in every kernel that is derived",
}
