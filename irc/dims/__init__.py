"""The dim language: integer expressions that serve tensor dims and loop indices alike.

A `Dim` is an `int` or an `Expr`, and an `Expr` never denotes a plain constant: `isinstance(d, int)` asks "is it
static?". An `Expr` is a polynomial over atoms:

    Symbol      a run-time dim with a range and a known divisor            S in [16, 1024] % 16
    Variable    an index of a loop or kernel axis, over [0, extent)        i
    Indirect    a loaded value used as an index, with inclusive bounds     indirect(%ids)
    Function    // % min max bcast of other dims                           (H + 31)//32
    Derived     a dim over symbols with more than LIMIT parts              $3fa9c2d1b7

One class for both, because the same proofs are wanted of both: `less(i*E + j, S*E)` bounds an address,
`equal(S, (S//16)*16)` types a reshape. `//` and `%` round towards minus infinity, as in Python.

Questions are answered True (for all values within the ranges), False (for none) or None (not known), and never
guessed. Simplifications hold wherever the original is defined: `E*B//B` is `E`, though `E*B//B` has no value where B
is 0, and `bcast` may drop the check of its sizes. Code that divides by a dim that may be 0 must handle that case.

Atoms compare by identity (functions, indirects and derived symbols are interned), so that no cache confuses two symbols
of one name. They are ordered by name, then by age, so that text does not depend on hashing.

`expression` defines atoms and polynomials, `functions` what is made of dims by division, minimum and so on, `proofs`
answers questions, `evaluation` replaces atoms by values, and `text` writes and reads.
"""

from irc.dims.evaluation import (
    Sizes,
    at_sizes,
    broadcasts,
    derived_below,
    divisors,
    estimate,
    evaluate,
    evaluate_array,
    free_atoms,
    free_symbols,
    linear_in,
    substitute,
    symbols_below,
)
from irc.dims.expression import (
    IMPORTED_HIGH,
    IMPORTED_LOW,
    LIMIT,
    Atom,
    Derived,
    Dim,
    DimError,
    Expr,
    Function,
    Indirect,
    Monomial,
    Symbol,
    Term,
    Variable,
    bounds,
    multiple_of,
    product,
    sole_atom,
    sole_symbol,
    symbol,
    total,
)
from irc.dims.functions import (
    broadcast,
    ceil_divide,
    exact_divide,
    floor_divide,
    maximum,
    minimum,
    modulo,
)
from irc.dims.proofs import (
    equal,
    less,
    less_equal,
    same,
)
from irc.dims.text import (
    format_dim,
    parse_definition,
    parse_dim,
)

__all__ = [
    "LIMIT",
    "Atom",
    "Derived",
    "Dim",
    "DimError",
    "Expr",
    "Function",
    "IMPORTED_HIGH",
    "IMPORTED_LOW",
    "Indirect",
    "Monomial",
    "Sizes",
    "Symbol",
    "Term",
    "Variable",
    "at_sizes",
    "bounds",
    "broadcast",
    "broadcasts",
    "ceil_divide",
    "derived_below",
    "divisors",
    "equal",
    "estimate",
    "evaluate",
    "evaluate_array",
    "exact_divide",
    "floor_divide",
    "format_dim",
    "free_atoms",
    "free_symbols",
    "less",
    "less_equal",
    "linear_in",
    "maximum",
    "minimum",
    "modulo",
    "multiple_of",
    "parse_definition",
    "parse_dim",
    "product",
    "same",
    "sole_atom",
    "sole_symbol",
    "substitute",
    "symbol",
    "symbols_below",
    "total",
]
