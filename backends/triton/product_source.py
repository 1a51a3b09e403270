"""Triton source of kernels with products: a tile of results in registers, in a loop over blocks of what is summed.

Index vectors have one dim and get the shape of a tile where they are used: in `m[:, None] * K + k[None, :]`, the
address of an element of the first operand, `k` is the columns, and in that of the second, the rows. What varies over
the summed axis is therefore written for one operand or the other (`irc.kernel.Placed`).
"""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from irc import dims
from irc.backends.triton.index_source import FLOAT8, ORDER
from irc.backends.triton.masks import Lanes, same, zero
from irc.backends.triton.short_indices import Runs, at_place, flattened
from irc.backends.triton.source import INLINE_LENGTH, KernelWriter
from irc.backends.triton.text import COMPARE, SUM, Code, binary, call, identifier, method, type_name
from irc.dims import Dim, Function, Indirect, Variable
from irc.dtypes import F32, FLOATS8
from irc.index_map import WRITTEN, Guard
from irc.ir import Value
from irc.kernel import Accumulate, Kernel, Loop, Placed, Scope, Tile
from irc.kernel.dag import Dot, Load, Node, Reduce, Scan, Store, variables
from irc.kernel.nest import is_of_window
from irc.kernel.product_schedule import side_of

GROUP = 8  # blocks of rows that run in turn for each block of columns, so that the L2 cache has their operands


class ProductWriter(KernelWriter):
    """Writes a kernel with products."""

    RESERVED: tuple[str, ...] = ("program", "blocks_m", "blocks_n", "block_m", "block_n")
    SIDES: tuple[str, ...] = ("first", "second")

    def __init__(self, kernel: Kernel, name: str, labels: Mapping[Value, str], is_bundled: bool = False) -> None:
        super().__init__(kernel, name, labels, is_bundled)
        self.side = "first"
        self.sided: dict[str, dict[Node, Code]] = {side: {} for side in self.SIDES}
        self.products = [node for node in kernel.nodes if isinstance(node, Dot)]
        self.summed = tuple(axis for product in self.products for axis in product.bound)
        self.beyond = {product: Lanes(self.masking.fills, frozenset(product.bound)) for product in self.products}
        users = [(operand, node) for node in kernel.nodes for operand in node.below]
        self.multiplied_alone = {
            operand for product in self.products for operand in product.operands
            if all(isinstance(user, Dot) for other, user in users if other is operand)
        }  # fmt: skip
        for select in [node for node in self.multiplied_alone if node in self.masking.implied]:
            if all(user is select for other, user in users if other is select.operands[0]):
                self.multiplied_alone.add(select.operands[0])
        self.runs: Runs = {}
        self.places: dict[tuple[str, Guard], Variable] = {}  # of guards that test where in a window an element is
        self.tested: dict[Variable, Dim] = {}  # the indices that these variables stand for

    @property
    def order(self) -> int | None:
        return self.kernel.options.order or GROUP

    # -- indices -----------------------------------------------------------------------------------------------

    def _subscripted(self, name: str, tile: Tile) -> str:
        return name if tile.single else f"{name}[{':, None' if self._is_rows(tile) else 'None, :'}]"

    def _is_rows(self, tile: Tile) -> bool:
        return super()._is_rows(tile) or (tile is self.schedule.summed and self.side == "second")

    def _lanes(self, tile: Tile) -> str:
        lanes = Code(f"tl.arange(0, BLOCK_{tile.name.upper()})")
        if tile.whole or tile.looped:
            code = binary("+", SUM, Code("start"), lanes) if tile.looped else lanes
            return (code if self._contiguous(tile) else self._wide(code)).text
        matrix = self._program()
        return matrix if tile.single else f"block_{tile.name} * BLOCK_{tile.name.upper()} + {lanes.text}"

    def _program(self) -> str:
        """Define the blocks of the tile axes that a program has; returns the text of its matrix in the batch."""
        if "program" not in self.outer.prelude:
            self.outer.prelude["program"] = f"program = {self._wide(Code('tl.program_id(0)')).text}"
            self.outer.prelude |= self._blocks()
        return "program // (blocks_m * blocks_n)"

    def _blocks(self) -> dict[str, str]:
        """The lines, by a name that they define, that say which blocks of rows and of columns a program has."""
        rows, columns = self.schedule.rows, self.schedule.columns
        assert rows is not None and columns is not None
        which = "program" if self.schedule.batch is None else "program % (blocks_m * blocks_n)"
        position = f"{which} // blocks_n, program % blocks_n, blocks_m, blocks_n, {ORDER}"
        return {
            "blocks_m": f"blocks_m, blocks_n = {self._number_of_blocks(rows)}, {self._number_of_blocks(columns)}",
            "block_m": f"block_m, block_n = tl.swizzle2d({position})",
        }

    def _number_of_blocks(self, tile: Tile) -> str:
        return f"tl.cdiv({self.parameters.code(tile.extent).text}, BLOCK_{tile.name.upper()})"

    def _run(self, tile: Tile, atom: Variable) -> tuple[int, int]:
        return self.runs[atom] if atom in self.runs else super()._run(tile, atom)

    def _written(self, access: Load | Store) -> Dim:
        """The index with neighboring axes of a tile as one, and with a name for where in a window an element is."""
        index = access.index
        for guard in access.guards:
            if is_of_window(guard, self.summed):
                index = at_place(index, guard, self._place_of(guard))
        for tile in self.schedule.tiles:
            index, runs = flattened(index, tile)
            for variable, (first, last) in runs.items():
                if variable not in self.runs and last - first < len(tile.axes) - 1:
                    name = "".join(axis.name for axis in tile.axes[first : last + 1])
                    self.axis_names[variable] = self.names.fresh(name)
                self.runs[variable], self.tile_of[variable] = (first, last), tile
        return index

    def _place_of(self, guard: Guard) -> Variable:
        """The variable of the index that a guard tests, defined in the loop."""
        if (self.side, guard) not in self.places:
            axis = min(variables(guard.index).difference(self.summed), key=lambda axis: axis.place)
            name = self.names.fresh(f"{axis.name}_in")
            place = Variable(name, guard.extent, (WRITTEN, len(self.places)))
            self.places[self.side, guard], self.tested[place] = place, guard.index
        return self.places[self.side, guard]

    def _atom(self, atom: Variable | Indirect) -> Code:
        if isinstance(atom, Indirect) or atom not in self.tested:
            return super()._atom(atom)
        if atom.name not in self.part.prelude:
            self.part.prelude[atom.name] = f"{atom.name} = {self.index.code(self.tested[atom]).text}"
        return Code(atom.name)

    def _guard(self, guard: Guard) -> Iterator[Code]:
        if not is_of_window(guard, self.summed) or guard.extent == 1:
            yield from super()._guard(guard)
            return
        place = self._atom(self._place_of(guard))
        if dims.less_equal(0, guard.index) is not True:
            yield binary(">=", COMPARE, place, Code("0"))
        if dims.less(guard.index, guard.extent) is not True:
            yield binary("<", COMPARE, place, self.parameters.code(guard.extent))

    def _named(self, atom: Function, code: Code) -> Code:
        return code  # in the shape of a tile, which depends on the operand

    # -- scopes ------------------------------------------------------------------------------------------------

    def _scope(self, scope: Scope, uses: Counter[Node], masks: Counter[object]) -> None:
        if isinstance(scope, Placed):
            with self._on_side(scope.side):
                super()._scope(scope.node, uses, masks)
        elif isinstance(scope, Accumulate) and isinstance(scope.reduce, Dot):
            self._multiply(scope.reduce)
        elif isinstance(scope, Accumulate) and isinstance(scope.reduce, Reduce):
            with self._on_side(side_of(scope.reduce, self.products[0])):
                super()._scope(scope, uses, masks)
        elif not isinstance(scope, Dot):  # the value of which is its accumulator
            super()._scope(scope, uses, masks)

    @contextmanager
    def _on_side(self, side: str) -> Iterator[None]:
        """Write what is computed for one operand of the products."""
        common, before, self.side = self.values, self.side, side
        self.values = ChainMap(self.sided[side], common)  # type: ignore[assignment]
        yield
        self.values, self.side = common, before

    def _reduced_tile(self, node: Reduce | Scan) -> Tile | None:
        return self.schedule.summed

    def _reduced_position(self, node: Reduce | Scan) -> int:
        assert isinstance(node, Reduce), "no kernel with products has scans (rule F21)"
        return 1 if side_of(node, self.products[0]) == "first" else 0

    def _lane_tiles(self, node: Reduce) -> Sequence[Tile]:
        rows, columns, summed = self.schedule.rows, self.schedule.columns, self.schedule.summed
        assert rows is not None and columns is not None and summed is not None
        return (rows, summed) if self._reduced_position(node) else (summed, columns)

    def _accumulators(self, loop: Loop) -> None:
        super()._accumulators(loop)
        for product in self.products:
            self._sum_of(product, "BLOCK_N", "total")

    def _sum_of(self, product: Dot, columns: str, fallback: str) -> None:
        """Define what a product is added up in, with so many columns."""
        name = identifier(product.hint)
        self._accumulator(product, columns, self.names.fresh(f"{name}_sum" if name else fallback))

    def _accumulator(self, node: Node, columns: str, name: str) -> None:
        self._line(f"{name} = tl.zeros((BLOCK_M, {columns}), {type_name(node.dtype)})")
        self.values[node] = Code(name)

    def _multiply(self, product: Dot) -> None:
        first, second = (self._operand(product, side) for side in ("first", "second"))
        total = self.values[product].text
        if product.fed in FLOATS8:
            arguments = [total, type_name(product.fed), FLOAT8]
            self._line(f"{total} = {call(self._helper('dot_float8'), first, second, *arguments).text}")
            return
        self._line(f"{total} = {call('tl.dot', first, second, total, *self._precision(product)).text}")

    def _precision(self, product: Dot) -> list[str]:
        """The arguments for products of f32, of which tf32 would keep 10 bits of 23, and of integers."""
        if product.fed.is_integer:
            return [f"out_dtype={type_name(product.dtype)}"]
        return ['input_precision="ieee"'] if product.fed is F32 else []

    def _reduces_over(self, product: Dot) -> Tile | None:
        """The tile axis that a product is summed over."""
        return self.schedule.summed

    def _operand(self, product: Dot, side: str) -> str:
        """The text of an operand in the type in which it is multiplied, 0 in lanes beyond what is summed."""
        node, summed = self._multiplied(product.operands[side in ("second", "values")]), self._reduces_over(product)
        assert summed is not None
        code = self.sided[side].get(node) or self.values[node]
        if self._keeps_type(node):
            return code.text
        before, self.side, unmasked = self.side, side, code
        zero = "0.0" if product.fed.is_float else "0"
        if summed.masked and not self._is_zero_beyond(product, node):
            code = call("tl.where", self._inside(summed), code, zero)
        elif not node.axes & set(summed.axes):
            code = call("tl.where", f"{self._tile(summed)} >= 0", code, zero)
        self.side = before
        if product.fed is not node.dtype or (code is not unmasked and product.fed.is_integer):  # 0 has 32 bits
            code = method(code, "to", type_name(product.fed))
        if len(code.text) <= INLINE_LENGTH:
            return code.text
        name = self.names.fresh(node.hint, side)
        self._line(f"{name} = {code.text}")
        return name

    def _multiplied(self, operand: Node) -> Node:
        """What is multiplied: of a selection that requires no test, its first operand."""
        return operand.operands[0] if operand in self.masking.implied else operand

    def _is_zero_beyond(self, product: Dot, node: Node) -> bool:
        """Whether an operand is 0 in lanes beyond what is summed."""
        return same(self.beyond[product].of(node), zero(node.dtype))

    def _keeps_type(self, node: Node) -> bool:
        """A load that is only multiplied stays in the type of its buffer."""
        if not isinstance(node, Load) or node not in self.multiplied_alone:
            return False
        products = [product for product in self.products if node in map(self._multiplied, product.operands)]
        return all(product.fed is node.buffer.dtype and node.axes & set(product.bound) for product in products)
