"""The text of indices, masks and addresses of a kernel: `IndexWriter`, the base of the writers of kernels.

Index lines, split coordinates and masks are written only where something uses them, before the first use and inside the
loop that they vary with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from irc import dims
from irc.backends.triton.helpers import helper_sources
from irc.backends.triton.lines import Part
from irc.backends.triton.text import (
    AND,
    COMPARE,
    PRODUCT,
    SUM,
    Code,
    IndexText,
    Names,
    Parameters,
    binary,
    constant_part,
    identifier,
    method,
)
from irc.dims import Dim, Function, Indirect, Variable
from irc.dtypes import FLOATS8, DType
from irc.index_map import Guard, Guards
from irc.ir import Value
from irc.kernel import Kernel, Scope, Tile
from irc.kernel.dag import Check, Dot, Load, Node, Store, indirect_nodes, variables
from irc.kernel.index_range import is_always_large
from irc.kernel.schedule import unit_stride

INDEX = "INDEX"  # the type of indices that a launch chooses
ORDER = "ORDER"  # how many blocks of rows run in turn for each block of columns
FLOAT8 = "FLOAT8"  # how a device multiplies floats of 8 bits (`dot_float8` in templates/functions.py)


class IndexWriter:
    """Writes where a kernel reads and writes: the indices of its tile axes, the addresses and the masks of accesses."""

    RESERVED: tuple[str, ...] = ()  # names of lines that a subclass writes

    def __init__(self, kernel: Kernel, name: str, labels: Mapping[Value, str], is_bundled: bool = False) -> None:
        self.kernel = kernel
        self.program = "program" if is_bundled else "tl.program_id(0)"  # the number of this one
        self.is_bundled = is_bundled
        self.labels = {value: labels.get(value, value.name) for value in (*kernel.inputs, *kernel.outputs)}
        self.name = name
        self.schedule = kernel.schedule
        tiles = [tile.name for tile in self.schedule.tiles]
        constants = [INDEX, FLOAT8, ORDER, *(f"BLOCK_{tile.upper()}" for tile in tiles)]
        program = ["program"] if is_bundled else []
        self.names = Names({name, *helper_sources(), *self.RESERVED, *tiles, *constants, *program})
        self.buffers = {
            value: self.names.fresh(f"{identifier(self.labels[value]) or fallback}_ptr")
            for values, fallback in ((kernel.inputs, "x"), (kernel.outputs, "out"))
            for value in values
        }
        self.extents = kernel.index_extents
        self.parameters = Parameters(self.names, self.index_type)
        self.index = IndexText(self.parameters, self._atom, self._named, self._helper)
        self.helpers: dict[str, None] = {}
        self.tile_of = {axis: tile for tile in self.schedule.tiles for axis in tile.axes}
        self.values: dict[Node, Code] = {}
        self.axis_names: dict[Variable, str] = {}
        self.function_names: dict[Function, str] = {}
        self.outer = self.part = Part("    ")

    @property
    def has_variants(self) -> bool:
        """Whether indices have 32 or 64 bits by the sizes of a launch."""
        is_stated = self.kernel.options.index_bits is not None
        return bool(self.extents) and not is_stated and not is_always_large(self.extents)

    @property
    def order(self) -> int | None:
        """How many blocks of rows run in turn, if the kernel orders its blocks."""
        return None

    @property
    def float8(self) -> DType | None:
        """The floats of 8 bits that products multiply as the device can."""
        return next((node.fed for node in self.kernel.nodes if isinstance(node, Dot) and node.fed in FLOATS8), None)

    @property
    def index_type(self) -> str:
        """The text of the type of indices that may not fit in 32 bits; empty where all do."""
        is_wide = bool(self.extents) or self.kernel.options.index_bits == 64
        return INDEX if self.has_variants else "tl.int64" if is_wide else ""

    def _wide(self, code: Code) -> Code:
        """Lanes or programs in the type of indices."""
        return method(code, "to", self.index_type) if self.index_type else code

    def _line(self, text: str) -> None:
        self.part.lines.append(text)

    def _helper(self, name: str) -> str:
        self.helpers[name] = None
        return name

    # -- tile axes ---------------------------------------------------------------------------------------------

    def _place(self, tile: Tile) -> Part:
        """Where lines about a tile axis belong: in the loop over it, or at the top."""
        return self.part if tile.looped else self.outer

    def _tile(self, tile: Tile) -> str:
        """The text of the indices of a tile axis."""
        return self._subscripted(self._tile_name(tile), tile)

    def _tile_name(self, tile: Tile) -> str:
        """The name of the indices of a tile axis, which are defined where they are first used."""
        place = self._place(tile)
        if tile.name not in place.prelude:
            place.prelude[tile.name] = f"{tile.name} = {self._lanes(tile)}"
        return tile.name

    def _subscripted(self, name: str, tile: Tile) -> str:
        """The text of a name that is defined for the indices of a tile axis, in the shape of a tile."""
        return name

    def _is_rows(self, tile: Tile) -> bool:
        """Whether the indices of a tile axis are the rows of a tile, rather than the columns."""
        return tile is self.schedule.rows

    def _lanes(self, tile: Tile) -> str:
        block = f"BLOCK_{tile.name.upper()}"
        shape = ""
        if len(self.schedule.shaped) == 2:
            shape = "[:, None]" if self._is_rows(tile) else "[None, :]"
        lanes = f"tl.arange(0, {block})"
        if tile.whole or tile.looped:
            code = Code(lanes + shape) if tile.whole else Code(f"start + {lanes}{shape}", SUM)
            return (code if self._contiguous(tile) else self._wide(code)).text
        program = self._wide(Code(self.program)).text
        if tile.single:
            return program
        if len(self.schedule.grid) == 2:
            columns = self.schedule.columns
            assert columns is not None
            across = f"tl.cdiv({self.parameters.code(columns.extent).text}, BLOCK_{columns.name.upper()})"
            program += f" {'%' if tile is columns else '//'} {across}"
            program = f"({program})"
        text = f"{program} * {block} + {lanes}"
        return f"({text}){shape}" if shape else text

    def _contiguous(self, tile: Tile) -> bool:
        """Whether a tile axis is never multiplied, so that its indices need not be wide."""
        addresses = [access.index for access in (*self.kernel.loads, *self.kernel.stores)]
        (axis, *others) = tile.axes
        return not others and all(unit_stride(index) is axis for index in addresses if axis in variables(index))

    def _atom(self, atom: Variable | Indirect) -> Code:
        if isinstance(atom, Indirect):
            assert isinstance(atom.node, Node)
            return self.values[atom.node]
        tile = self.tile_of[atom]
        first, last = self._run(tile, atom)
        if last - first == len(tile.axes) - 1:
            return Code(self._tile(tile))
        place = self._place(tile)
        if atom not in self.axis_names:
            self.axis_names[atom] = self.names.fresh(atom.name)
        name = self.axis_names[atom]
        if name not in place.prelude:
            code = Code(self._tile_name(tile))
            inner = dims.product(axis.extent for axis in tile.axes[last + 1 :])
            if inner != 1:
                code = binary("//", PRODUCT, code, self.parameters.code(inner))
            if first:
                code = binary("%", PRODUCT, code, self.parameters.code(atom.extent))
            place.prelude[name] = f"{name} = {code.text}"
        return Code(self._subscripted(name, tile))

    def _run(self, tile: Tile, atom: Variable) -> tuple[int, int]:
        """The first and the last of the axes of a tile that an atom of an index stands for."""
        return tile.axes.index(atom), tile.axes.index(atom)

    def _named(self, atom: Function, code: Code) -> Code:
        """A minimum or maximum among indices gets a name: bounds and addresses both need it."""
        tiles = {self.tile_of[axis].name: self.tile_of[axis] for axis in variables(atom.expr)}
        if indirect_nodes(atom.expr):
            return code  # what it reads is loaded later than the index lines stand
        place = self.part if any(tile.looped for tile in tiles.values()) else self.outer
        if atom not in self.function_names:
            self.function_names[atom] = self.names.fresh("index")
        name = self.function_names[atom]
        if name not in place.prelude:
            place.prelude[name] = f"{name} = {code.text}"
        return Code(name)

    def _inside(self, tile: Tile) -> Code:
        """The mask of a ragged tile axis."""
        name = f"{tile.name}_inside"
        place = self._place(tile)
        if name not in place.prelude:
            index = self._tile_name(tile)
            place.prelude[name] = f"{name} = {index} < {self.parameters.code(tile.extent).text}"
        return Code(self._subscripted(name, tile))

    def _touched(self, axes: Iterable[Variable]) -> list[Tile]:
        names = {self.tile_of[axis].name for axis in axes}
        return [tile for tile in self.schedule.tiles if tile.name in names]

    def _mask_parts(self, axes: Iterable[Variable], guards: Guards) -> tuple[str, ...]:
        parts = [self._inside(tile) for tile in self._touched(axes) if tile.masked and not tile.single]
        parts += [test for guard in guards for test in self._guard(guard)]
        return tuple(part.text if len(parts) == 1 else part.at(AND + 1) for part in parts)

    def _guard(self, guard: Guard) -> Iterator[Code]:
        """The comparisons of a guard that are not proven, constants moved to the other side."""
        constant = constant_part(guard.index)
        varying = self.index.code(guard.index - constant)
        if guard.extent == 1:
            yield binary("==", COMPARE, varying, self.parameters.code(-constant))
            return
        if dims.less_equal(0, guard.index) is not True:
            yield binary(">=", COMPARE, varying, self.parameters.code(-constant))
        if dims.less(guard.index, guard.extent) is not True:
            yield binary("<", COMPARE, varying, self.parameters.code(guard.extent - constant))

    def _mask_key(self, scope: Scope) -> object:
        if not isinstance(scope, (Load, Store, Check)):
            return None
        return tuple(tile.name for tile in self._touched(scope.axes)), scope.guards

    def _mask(self, access: Load | Store | Check, counts: Counter[object]) -> str:
        """The mask of an access or a check; one that several accesses share gets a name."""
        parts = self._mask_parts(access.axes, access.guards)
        if len(parts) > 1 and counts[self._mask_key(access)] > 1:
            if parts not in self.part.masks:
                name = self.names.fresh("inside", here=True)
                self._line(f"{name} = {' & '.join(parts)}")
                self.part.masks[parts] = Code(name)
            return self.part.masks[parts].text
        return " & ".join(parts)

    def _address(self, access: Load | Store) -> str:
        parts = [self.buffers[access.buffer]]
        if access.index != 0:
            code = self.index.code(self._written(access))
            parts.append(code.text if code.level >= 5 else f"({code.text})")
        reached = {tile.name for tile in self._touched(variables(access.index))}
        parts += [f"0 * {self._tile(tile)}" for tile in self._touched(access.axes) if tile.name not in reached]
        return " + ".join(parts)

    def _written(self, access: Load | Store) -> Dim:
        """The index of an access as its text has it."""
        return access.index
