"""Which rewrites ONNX Runtime's CPU provider gains from, at the shapes of a program.

`gains` is what `Target.pays` asks. Each rewrite has a function in `GAINS`, which estimates the kernels that the runtime
runs before and after it from the times of a cost table (`irc.kernel_costs`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from math import prod

from irc import dims
from irc.dims import Dim
from irc.ir import Operation, Value
from irc.kernel_costs import CostTable
from irc.op import is_constant
from irc.sizes import default_size

PRODUCTS = ("gemm", "linear", "matmul")
VIEWS = ("reshape", "transpose")
MARGIN = 1.02  # between kernels that are nearly as fast, whose times differ by as much from one calibration to another
MORE_KERNELS = 1.1  # which cost what a table of the least times does not show: by how much they have to be faster


class Costs:
    """Seconds of kernels at the shapes of a program, whose symbols have the sizes given or default ones."""

    def __init__(self, table: CostTable, sizes: Mapping[str, int]) -> None:
        self.table, self.sizes = table, sizes

    def extent(self, dim: Dim) -> int:
        """A dim as a number."""
        if isinstance(dim, int):
            return dim
        known = {symbol: default_size(symbol, self.sizes) for symbol in dims.free_symbols(dim)}
        return max(0, dims.estimate(dim, known))

    def seconds(self, kind: str, **extents: Dim) -> float:
        return self.table.seconds(kind, **{name: self.extent(dim) for name, dim in extents.items()})

    def axes(self, kind: str) -> Collection[str]:
        """The sizes that the times of a kind of kernel depend on; none of a kind that is not in the table."""
        return self.table.kernels[kind].axes if kind in self.table.kernels else ()

    def rows(self, value: Value) -> int:
        """The elements of a value by its last axis."""
        return prod(map(self.extent, value.shape[:-1]))

    def of_rows(self, kind: str, value: Value) -> float:
        """Of a kernel that computes each row of a value."""
        return self.table.seconds(kind, rows=self.rows(value), width=self.extent(value.shape[-1]))

    def pointwise(self, kind: str, value: Value) -> float:
        return self.table.seconds(kind, elements=prod(map(self.extent, value.shape)))


def gains(rewrite: str, operations: Sequence[Operation], table: CostTable, sizes: Mapping[str, int],
          replacements: Sequence[Operation] = ()) -> bool:  # fmt: skip
    """Whether a rewrite of these operations makes a model no slower on the CPU, by the times of a table; `sizes` are
    those of symbols by name. Of a rewrite that has built what replaces them, all times are compared, and more kernels
    than before have to be faster by a margin, unless attention reads them, which then needs no transposes."""
    costs = Costs(table, sizes)
    if not replacements:
        before, after = GAINS[rewrite](operations, costs)
        return after <= before
    before, after = (sum(operation_seconds(each, costs) for each in group) for group in (operations, replacements))
    kernels, old_kernels = (sum(not is_free(each) for each in group) for group in (replacements, operations))
    has_margin = kernels > old_kernels and not is_read_by_attention(operations)
    return after * (MORE_KERNELS if has_margin else 1) <= before


def is_read_by_attention(operations: Sequence[Operation]) -> bool:
    """Whether attention reads a result of these operations, or a view of one."""
    waiting = [result for operation in operations for result in operation.results]
    seen = set(waiting)
    while waiting:
        for user in waiting.pop().users():
            if user.name == "attention":
                return True
            if user.name in VIEWS and user.result not in seen:
                seen.add(user.result)
                waiting.append(user.result)
    return False


def attention_rows(operations: Sequence[Operation], costs: Costs) -> tuple[float, float]:
    """Four transposes, of queries, keys, values and the result, are part of the kernel."""
    transposes, (operation,) = 0.0, operations
    for value in (*operation.inputs[:3], operation.result):
        batch, heads, rows, width = value.shape
        transposes += costs.extent(batch) * costs.seconds("Transpose.rows", rows=rows, heads=heads, width=width)
    return attention(operation, costs, "Attention.heads") + transposes, attention(operation, costs, "Attention")


def cached_attention(operations: Sequence[Operation], costs: Costs) -> tuple[float, float]:
    """As `attention_rows`; the kernel copies what is past as the two concats do, but is one node."""
    before, after = attention_rows(operations, costs)
    return before + 2 * costs.table.overhead, after


def visible_rows(operations: Sequence[Operation], costs: Costs) -> tuple[float, float]:
    """The scores are computed, tested for NaN and selected by kernels of their own, or by one kernel with the rest."""
    (operation,) = operations
    q, k, *_ = operation.inputs
    scores = prod(map(costs.extent, (*q.shape[:3], k.shape[2])))
    tests = costs.table.seconds("IsNaN", elements=scores) + costs.table.seconds("Where", elements=scores)
    after = "Attention.masked" if len(operation.inputs) > 3 else "Attention"
    return unfused(operation, costs) + tests, attention(operation, costs, after)


def flatten_rows(operations: Sequence[Operation], costs: Costs) -> tuple[float, float]:
    """Of three axes, a product with a bias is a Gemm between two reshapes, and a norm of a sum SkipLayerNormalization;
    of matrices, reshapes are at the edges of the region alone."""
    region, saved = set(operations), 0.0
    for operation in operations:
        if operation.name in PRODUCTS:
            saved += 2 * costs.table.overhead * (operation.name == "linear" or is_added_to(operation.result))
        x = operation.inputs[0]
        if operation.name == "layer_norm" and x.operation in region and x.operation.name == "add":
            apart = costs.of_rows("LayerNormalization", x) + costs.pointwise("Add", x)
            saved += max(0.0, costs.of_rows("SkipLayerNormalization", x) - apart)
    read = {value for each in operations for value in each.inputs}
    entering = [value.operation for value in read if value.rank > 2 and value.operation not in region]
    leaving = [set(each.result.users()) - region for each in operations]
    edges = [any(user.name == "reshape" for user in users) for users in leaving if users]
    makers = ["argument" if maker is None else maker.name for maker in entering]
    edges += [maker == "reshape" for maker in makers if maker != "const"]
    return saved + costs.table.overhead * edges.count(True), costs.table.overhead * edges.count(False)


def is_added_to(value: Value) -> bool:
    """Whether a vector is added to a value."""
    return any(user.name == "add" and any(other.rank == 1 for other in user.inputs) for user in value.users())


def rotary(operations: Sequence[Operation], costs: Costs) -> tuple[float, float]:
    """Two products, a sum, a negation, and halves that are moved, or one kernel."""
    (operation,) = operations
    x = operation.result
    batch, heads, length, width = map(costs.extent, x.shape)
    seconds, rows = costs.table.seconds, batch * heads * length
    before = 2 * costs.pointwise("Mul", x) + costs.pointwise("Add", x) + costs.of_rows("Concat", x)
    before += seconds("Neg", elements=rows * width // 2) + 2 * seconds("Slice", rows=rows, width=width // 2)
    return before, seconds("RotaryEmbedding", heads=heads, rows=batch * length, width=width)


def row_gathers(operations: Sequence[Operation], costs: Costs) -> tuple[float, float]:
    """Each move is a pass over its results, but for reshapes, or one gather is."""
    before = 0.0
    for operation in operations:
        result = operation.results[0]
        if operation.name == "transpose":
            rows = costs.rows(result)
            before += costs.seconds("Transpose.rows", rows=max(1, rows // 8), heads=8, width=result.shape[-1])
        elif operation.name != "reshape":
            before += operation_seconds(operation, costs)
    source = operations[0].inputs[0]
    moved = prod(map(costs.extent, operations[-1].result.shape)) // max(1, costs.extent(source.shape[-1]))
    return before, costs.seconds("Gather", rows=moved, width=source.shape[-1])


def blocked_layout(operations: Sequence[Operation], costs: Costs) -> tuple[float, float]:
    """A mean or a product that broadcasts, with the image reordered before it (and after a product), or a pooling, or
    the numbers repeated and a product. A reordering takes as long as a transpose of channels and positions."""
    (operation,) = operations
    image = max(operation.inputs, key=lambda value: prod(map(costs.extent, value.shape[2:])))
    batch, channels, height, width = map(costs.extent, image.shape)
    sizes = {"channels": batch * channels, "positions": height * width}
    reordered = costs.table.seconds("Transpose.columns", rows=height * width, columns=batch * channels)
    if operation.name == "reduce_mean":
        before = costs.table.seconds("ReduceMean.positions", **sizes) + reordered
        return before, costs.table.seconds("GlobalAveragePool", **sizes)
    repeated = costs.table.seconds("Expand", rows=batch * channels, width=height * width)
    return costs.table.seconds("Mul.channels", **sizes) + 2 * reordered, repeated + costs.pointwise("Mul", image)


def products_as_conv(operations: Sequence[Operation], costs: Costs) -> tuple[float, float]:
    """Products of rows, or convolutions of images, which are reordered where rows enter the region and where they leave
    it; rows that several convolutions read are transposed apart. What is pointwise takes as long in either layout."""
    region, before, after = set(operations), 0.0, 0.0
    entering = Counter[Value]()
    for operation in operations:
        if operation.name in PRODUCTS:
            x, result = operation.inputs[0], operation.result
            before += half_of_pair("Gemm.pair", x, result, costs)
            after += half_of_pair("Conv.pair", x, result, costs)
            if x.operation not in region:
                entering[x] += 1
        if not region.issuperset(operation.result.users()):
            after += costs.of_rows("ReorderOutput", operation.result) + costs.table.overhead
    for x, readers in entering.items():
        after += costs.of_rows("ReorderInput", x) + costs.table.overhead
        if readers > 1:
            after += costs.seconds("Transpose.columns", rows=x.shape[0], columns=x.shape[1])
    return before, MARGIN * after


# -- times of operations -----------------------------------------------------------------------------------------

POINTWISE = {"is_nan": "IsNaN", "quick_gelu": "QuickGelu", "select": "Where", "silu": "QuickGelu"}  # others: by name
BY_ROWS = {"gather": "Gather", "layer_norm": "LayerNormalization", "log_softmax": "Softmax",
           "rms_norm": "RMSNormalization", "slice": "Slice", "softmax": "Softmax", "split": "Slice",
           "concat": "Concat"}  # fmt: skip


def operation_seconds(operation: Operation, costs: Costs) -> float:
    """Of one operation, as the kernel that is closest to it; none for what is computed when a model is loaded, and for
    views, of which later passes join those before a rewrite and those after it alike."""
    if is_free(operation):
        return 0.0
    name, result = operation.name, operation.results[0]
    if name in PRODUCTS:
        return product_seconds(operation, costs)
    if name == "attention":
        return attention(operation, costs, "Attention.masked" if len(operation.inputs) > 3 else "Attention.heads")
    if name in BY_ROWS and result.rank:
        return sum(costs.of_rows(BY_ROWS[name], each) for each in operation.results)
    if name.startswith("reduce_") and operation.inputs[0].rank:
        return costs.of_rows("ReduceMean", operation.inputs[0])
    kind = POINTWISE.get(name, name.title().replace("_", ""))
    return costs.pointwise(kind if "elements" in costs.axes(kind) else "Add", result)


def is_free(operation: Operation) -> bool:
    """Whether it is computed when a model is loaded, or a view."""
    return operation.name in VIEWS or all(map(is_constant, operation.inputs))


def product_seconds(operation: Operation, costs: Costs) -> float:
    """Of a product with a matrix, or of two computed values for each of a batch."""
    x, y, *_ = operation.inputs
    if y.rank == 2:
        return half_of_pair("Gemm.pair", x, operation.result, costs, bool(operation.attributes.get("transpose_a")))
    columns, rows = operation.result.shape[-1], operation.result.shape[-2] if operation.result.rank > 1 else 1
    batch = prod(map(costs.extent, operation.result.shape[:-2]))
    return costs.seconds("MatMul.computed", batch=batch, rows=rows, inner=x.shape[-1], columns=columns)


def half_of_pair(kind: str, x: Value, result: Value, costs: Costs, transposed: bool = False) -> float:
    """Of one product of rows, as half of two that lead to the wider rows and back."""
    widths = sorted(map(costs.extent, (x.shape[0 if transposed else -1], result.shape[-1])))
    return costs.table.seconds(kind, rows=costs.rows(result), inner=widths[0], columns=widths[1]) / 2


def attention(operation: Operation, costs: Costs, kind: str) -> float:
    """Of a kernel of attention, for all of a batch."""
    q, k, *_ = operation.inputs
    batch, heads, queries, width = q.shape
    each = costs.seconds(kind, heads=heads, queries=queries, keys=k.shape[2], width=width)
    return costs.extent(batch) * each


def unfused(operation: Operation, costs: Costs) -> float:
    """Of the two products of an attention, its softmax, and the addition of a mask."""
    q, k, v, *masks = operation.inputs
    batch, heads, queries, width = map(costs.extent, q.shape)
    keys, depth = costs.extent(k.shape[2]), costs.extent(v.shape[3])
    seconds = costs.table.seconds
    total = seconds("MatMul.computed", batch=batch * heads, rows=queries, inner=width, columns=keys)
    total += seconds("Softmax", rows=batch * heads * queries, width=keys)
    total += seconds("MatMul.computed", batch=batch * heads, rows=queries, inner=keys, columns=depth)
    return total + len(masks) * seconds("Add", elements=batch * heads * queries * keys)


GAINS: dict[str, Callable[[Sequence[Operation], Costs], tuple[float, float]]] = {
    "attention_rows": attention_rows,
    "blocked_layout": blocked_layout,
    "cached_attention": cached_attention,
    "flatten_rows": flatten_rows,
    "products_as_conv": products_as_conv,
    "rotary": rotary,
    "row_gathers": row_gathers,
    "visible_rows": visible_rows,
}
