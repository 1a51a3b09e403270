"""Triton source of kernels that loop over rows, which do not fit in registers: each lane of a tile accumulates what it
sees of a row, and the lanes are reduced after the loop. A scan of a block is combined with what the blocks before have
combined to, which then is what its last lane holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from irc import dims
from irc.backends.triton.source import COMBINED, REDUCED, RUNNING, KernelWriter
from irc.backends.triton.text import COMPARE, PRODUCT, SUM, Code, binary, call, identifier, number, type_name
from irc.dtypes import F32, F64, I32, I64
from irc.interfaces import identity
from irc.ir import Value
from irc.kernel import Accumulate, Carry, Kernel, Loop, Scope
from irc.kernel.carry import Point
from irc.kernel.dag import Node, Reduce, Scan, walk


def carry(point: Point, highest: str, higher: str, rescale: str, reference: str) -> Iterator[str]:
    """Lines after which `highest` is `higher`, exponents are relative to `reference`, and `rescale` is by what all that
    was summed before is multiplied.

    Where all elements so far are -inf, the reference is 0, so that their exponentials are 0 rather than NaN.
    """
    yield f"{rescale} = {higher}"
    tested = rescale if point.highest else f"tl.abs({rescale})"
    yield f'{reference} = tl.where({tested} == float("{"-" if point.highest else ""}inf"), 0.0, {rescale})'
    yield f"{highest}, {rescale} = {rescale}, tl.exp({highest} - {reference})"


class RowWriter(KernelWriter):
    """Writes a kernel that loops over rows."""

    RESERVED = ("done",)

    def __init__(self, kernel: Kernel, name: str, labels: Mapping[Value, str], is_bundled: bool = False) -> None:
        super().__init__(kernel, name, labels, is_bundled)
        self.lanes: dict[Node, str] = {}
        self.rescales: dict[Node, str] = {}  # by maximum
        self.points: dict[Node, Point] = {}
        self.running: dict[Scan, str] = {}  # the names of what the blocks before have combined to
        self.is_reversed = False  # the loop that is written
        self.counts = ""  # the name of how many elements of a row each lane sees

    def _scope(self, scope: Scope, uses: Counter[Node], masks: Counter[object]) -> None:
        if isinstance(scope, Carry):
            self._carry(scope.point)
        elif isinstance(scope, Accumulate) and isinstance(scope.reduce, Reduce) and scope.point is not None:
            self.points[scope.reduce] = scope.point
            self._accumulate_carried(scope.reduce, scope.point)
        else:
            super()._scope(scope, uses, masks)

    def _accumulators(self, loop: Loop) -> None:
        before = set(self.values)
        super()._accumulators(loop)
        self.lanes |= {node: code.text for node, code in self.values.items() if node not in before}
        self.is_reversed = loop.reverse
        for scan in loop.scans:
            name = self.names.fresh(f"{identifier(scan.hint) or RUNNING[scan.kind]}_before")
            shape = "(BLOCK_M, 1)" if len(self.schedule.shaped) > 1 else "(1,)"
            neutral = number(identity(scan.kind, scan.dtype), scan.dtype)
            self._line(f"{name} = tl.full({shape}, {neutral.text}, {type_name(scan.dtype)})")
            self.running[scan] = name

    def _scan(self, node: Scan) -> None:
        before, body = self.running[node], self._body(node)
        if node.exclusive:
            body = self._elements(body)
        self._assign(node, self._combined(node, Code(before), self._scanned(node, body)), RUNNING[node.kind])
        through = self._combined(node, self.values[node], body) if node.exclusive else self.values[node]
        bits = {F32: I32, F64: I64}.get(node.dtype, node.dtype)
        self._line(f"{before} = {call(self._helper('last_lane'), through, type_name(bits), str(node.reverse)).text}")

    def _combined(self, node: Scan, first: Code, second: Code) -> Code:
        """What two runs of elements combine to."""
        if node.kind == "sum":
            return binary("+", SUM, first, second)
        if node.kind == "prod":
            return binary("*", PRODUCT, first, second)
        return call(self._helper(COMBINED[node.kind]), first, second)

    def _carry(self, point: Point) -> None:
        maximum = point.carrier
        rescale, reference = (self.names.fresh(name, here=True) for name in ("rescale", "reference"))
        for line in carry(point, self.lanes[maximum], self._extremum(maximum), rescale, reference):
            self._line(line)
        self.values[point.node], self.rescales[maximum] = Code(reference), rescale

    def _accumulate_carried(self, node: Reduce, point: Point) -> None:
        lanes = self.lanes[node]
        if point.is_maximum:
            code = binary("+", SUM, Code(f"{lanes} * {self.rescales[point.carrier]}", PRODUCT), self._body(node))
            self._line(f"{lanes} = {code.text}")
            return
        columns = self.schedule.columns
        assert columns is not None
        block = f"BLOCK_{columns.name.upper()}"
        seen = f"start // {block} + 1"  # elements of a lane
        if self.is_reversed:  # fewer in lanes that the last block lacks
            seen = f"tl.cdiv({self._extent().at(SUM + 1)} - {self._tile(columns)}, {block})"
        code = call(self._helper("square_from_mean"), self.values[point.elements], self.lanes[point.carrier], seen)
        if columns.masked:
            code = call("tl.where", self._inside(columns), code, "0.0")
        self._line(f"{lanes} += {code.text}")

    def _finish(self, node: Reduce) -> None:
        """Reduce what the lanes have accumulated, each relative to what it has seen."""
        code, point = Code(self.lanes[node]), self.points.get(node)
        if point is not None and point.is_maximum:
            rescale = binary("-", SUM, Code(self.lanes[point.carrier]), self.values[point.node])
            code = Code(f"{code.text} * tl.exp({rescale.text})", PRODUCT)
        elif point is not None:
            total, mean = self.lanes[point.carrier], self.values[point.node]
            code = call(self._helper("squares_from"), code, total, self._counts(), mean)
        result = self._reduced(node, code)
        if point is not None and point.is_maximum and point.lowest and self._may_be_of_nothing(node):
            result = call("tl.where", f"{self._extent().at(COMPARE + 1)} > 0", result, "0.0")  # not exp(-inf - -inf)
        self._assign(node, result, REDUCED[node.kind])

    def _may_be_of_nothing(self, node: Node) -> bool:
        """Whether rows may have no elements, and the results of one be computed from a node."""
        assert self.schedule.columns is not None
        of_row = [root for root in self.kernel.roots if root.axes.isdisjoint(self.schedule.columns.axes)]
        return dims.less(0, self.schedule.columns.extent) is not True and node in walk(of_row)

    def _extent(self) -> Code:
        """The number of elements of a row."""
        assert self.schedule.columns is not None
        return self.parameters.code(self.schedule.columns.extent)

    def _counts(self) -> str:
        """The name of how many elements of a row each lane has seen."""
        columns = self.schedule.columns
        assert columns is not None
        if not self.counts:
            block, shape = f"BLOCK_{columns.name.upper()}", "[None, :]" if len(self.schedule.tiles) == 2 else ""
            self.counts = self.names.fresh("counts", here=True)
            self._line(f"{self.counts} = tl.cdiv({self._extent().at(SUM)} - tl.arange(0, {block}){shape}, {block})")
        return self.counts
