"""Triton source of kernels with a product of softmax weights, such as attention: one loop over blocks of keys, in which
maxima, sums and products so far are kept (`irc.kernel.online`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from irc import dims
from irc.backends.triton.product_source import ProductWriter
from irc.backends.triton.row_source import carry
from irc.backends.triton.source import REDUCED
from irc.backends.triton.text import PRODUCT, SUM, Code, binary, call
from irc.ir import Value
from irc.kernel import Accumulate, Carry, Kernel, Loop, Scope, Tile
from irc.kernel.carry import Point, exponent
from irc.kernel.dag import Dot, Node, Reduce
from irc.kernel.online import last_visible, read_alone


class OnlineWriter(ProductWriter):
    """Writes a kernel with a product of softmax weights."""

    RESERVED = ("program", "blocks_m", "block_m", "highest", "reference", "rescale")
    SIDES = ("first", "second", "scores", "values")

    def __init__(self, kernel: Kernel, name: str, labels: Mapping[Value, str], is_bundled: bool = False) -> None:
        assert kernel.online is not None
        self.online = kernel.online
        super().__init__(kernel, name, labels, is_bundled)

    # -- indices -----------------------------------------------------------------------------------------------

    def _is_rows(self, tile: Tile) -> bool:
        return super()._is_rows(tile) or (tile is self.schedule.columns and self.side == "values")

    @property
    def order(self) -> int | None:
        return None  # a program has all columns

    def _program(self) -> str:
        super()._program()
        return "program // blocks_m"

    def _blocks(self) -> dict[str, str]:
        rows = self.schedule.rows
        assert rows is not None
        if self.schedule.batch is None:
            return {"block_m": "block_m = program"}
        return {"blocks_m": f"blocks_m = {self._number_of_blocks(rows)}", "block_m": "block_m = program % blocks_m"}

    # -- scopes ------------------------------------------------------------------------------------------------

    def _scope(self, scope: Scope, uses: Counter[Node], masks: Counter[object]) -> None:
        if isinstance(scope, Carry):
            self._carry(scope.point)
        elif isinstance(scope, Accumulate) and isinstance(scope.reduce, Reduce):
            total, weights = self.values[scope.reduce].text, self._weights(scope.reduce.operands[0])
            self._line(f"{total} = {total} * rescale + tl.sum({weights.text}, axis=1, keep_dims=True)")
        elif not isinstance(scope, Reduce):  # the values of which are their accumulators
            super()._scope(scope, uses, masks)

    def _expression(self, node: Node) -> tuple[Code, str]:
        if not isinstance(node, Dot):
            return super()._expression(node)
        first, second = (self._operand(node, side) for side in ("first", "second"))
        return call("tl.dot", first, second, *self._precision(node)), "scores"

    def _accumulators(self, loop: Loop) -> None:
        online = self.online
        self._line('highest = tl.full((BLOCK_M, 1), float("-inf"), tl.float32)')
        for total in online.sums:
            self._accumulator(total, "1", self.names.fresh(total.hint, REDUCED["sum"]))
        self._sum_of(online.product, "BLOCK_E", "out")

    def _loop(self, loop: Loop) -> None:
        super()._loop(loop)
        highest = Code("highest")
        if self.online.sums:  # NaN where a score is: tl.max passes over it
            total = self.values[self.online.sums[0]].text
            highest = call("tl.where", f"{total} == {total}", "highest", total)
        self.values[self.online.maximum] = highest
        if self.online.point.lowest:  # of a row of -inf the program's exponentials are NaN, those of the loop 0
            lowest = 'highest == float("-inf")'
            if dims.less(0, loop.tile.extent) is not True:
                lowest = f"({lowest}) & ({self.parameters.code(loop.tile.extent).text} > 0)"
            for node in read_alone(self.kernel.roots, self.online):
                result = self.values[node].text
                self._line(f'{result} = tl.where({lowest}, float("nan"), {result})')

    def _range(self, loop: Loop) -> str:
        """The end of the loop: after the last block in which a key is visible to a row of the block of rows."""
        extent, visible = self.parameters.code(loop.tile.extent).text, last_visible(self.online, self.schedule)
        if visible is None:
            return extent
        self._program()
        rows = self.schedule.rows
        assert rows is not None
        end = Code("(block_m + 1) * BLOCK_M", PRODUCT)
        if len(rows.axes) > 1:
            end = self.parameters.code(rows.axes[-1].extent)
        if visible != 0:
            end = binary("+", SUM, end, self.parameters.code(visible))
        return f"tl.minimum({extent}, {end.text})"

    def _carry(self, point: Point) -> None:
        """The highest score so far, and by what all before is multiplied."""
        scores, columns = point.elements, self.schedule.columns
        assert columns is not None
        code = self.sided["scores"][scores]
        if columns.masked:
            inside = self._inside(columns).text
            self._line(f'{code.text} = tl.where({inside}, {code.text}, float("-inf"))')
        higher = f"tl.maximum(highest, tl.max({code.text}, axis=1, keep_dims=True))"
        for line in carry(point, "highest", higher, "rescale", "reference"):
            self._line(line)
        self.values[point.node] = Code("reference")

    def _multiply(self, product: Dot) -> None:
        first, second = self._operand(product, "scores"), self._operand(product, "values")
        total = self.values[product].text
        arguments = ", ".join([first, second, f"{total} * rescale", *self._precision(product)])
        self._line(f"{total} = tl.dot({arguments})")

    def _weights(self, node: Node) -> Code:
        """What is added up, 0 in lanes beyond the keys."""
        code, columns = self.sided["scores"][node], self.schedule.columns
        assert columns is not None
        return code if exponent(node) or not columns.masked else call("tl.where", self._inside(columns), code, "0.0")

    def _is_zero_beyond(self, product: Dot, node: Node) -> bool:
        is_weight = product is self.online.product and exponent(node) is not None  # the exponential of -inf
        return is_weight or super()._is_zero_beyond(product, node)

    def _reduces_over(self, product: Dot) -> Tile | None:
        return self.schedule.columns if product is self.online.product else self.schedule.summed
