"""Where a thing came from, what is wrong with it and what to do: locations, coded errors, the code table.

A user's mistake never shows a traceback. Every error carries a code from the one table below, the code
decides the exit status, and `irc explain CODE` prints the table's long text. To raise one:
`raise fail(code, message, at=location)`. Lines and columns count from 1; 0 says unknown. Only the standard
library is imported: everything imports this. Layout and exit statuses: DESIGN.md, Diagnostics.
"""

from __future__ import annotations

import difflib
import textwrap
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import IntEnum

__all__ = [
    "CODES", "UNKNOWN", "Code", "Diagnostic", "Exit", "InternalError", "IrcError", "Location",
    "SourceSpan", "did_you_mean", "explain", "fail", "printable",
]

CLIP = 100  # columns of a quoted source line: a line of weights must not fill the screen
LATEST = 2000  # names among which similar ones are looked for
TAB = " "   # a tab in a quoted line becomes one column, so that the caret stays under its word


class Exit(IntEnum):
    """What the process tells its caller (DESIGN.md, Diagnostics)."""

    FINE = 0
    DIFFERS = 1
    USAGE = 2
    BAD_INPUT = 3
    UNSUPPORTED = 4
    INTERNAL = 70

    @property
    def meaning(self) -> str:
        """The status in words, for `irc explain`."""
        return {0: "fine", 1: "a comparison failed", 2: "usage", 3: "bad or unsafe input", 4: "unsupported",
                70: "an error in irc itself"}[self.value]


@dataclass(frozen=True, slots=True)
class Location:
    """Where an operation came from, and the passes and rules that made it since (oldest first)."""

    file: str | None = None
    line: int = 0
    column: int = 0
    name: str | None = None  # the node's name or the module's path in the source
    made_by: tuple[str, ...] = ()

    def by(self, step: str) -> Location:
        """This place with `step` ("raise(gelu)") noted as its latest maker; a repeated step is noted once."""
        return self if self.made_by[-1:] == (step,) else replace(self, made_by=(*self.made_by, step))

    @property
    def known(self) -> bool:
        """Whether there is anything to show for it in the source."""
        return self.file is not None or self.name is not None

    def __str__(self) -> str:
        if self.file is None:
            return self.name if self.name is not None else "unknown"
        place = _place(self.file, self.line, self.column)
        return f"{place} ({self.name})" if self.name is not None else place


UNKNOWN = Location()


@dataclass(frozen=True, slots=True)
class SourceSpan:
    """A stretch of one line of source text, to be quoted with a caret under it."""

    path: str
    line: int
    source: str  # the whole line
    column: int
    length: int = 1
    label: str = ""


@dataclass(frozen=True)
class Diagnostic:
    """One finding: a code, a sentence, and all that helps its reader to act on it."""

    code: str
    message: str
    location: Location = UNKNOWN
    text: SourceSpan | None = None
    origin: Location | None = None  # the source behind it; the location itself where `text` is quoted
    expected: str | None = None
    help: str | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.code in CODES, f"diagnostic code {self.code!r} is not in irc.diagnostics.CODES"

    def render(self, color: bool = False) -> str:
        """The finding as its reader sees it: sentence, place, quoted line, origin, makers, advice."""
        paint = _paint if color else _plain
        arrow = paint("-->", "34")
        lines = [f"{paint(f'error[{self.code}]', '1;31')}: {_indented(self.message)}"]
        origin = self.origin
        if self.text is not None:
            place = _place(self.text.path, self.text.line, self.text.column)
            lines += [f"  {arrow} {printable(place)}", *_quoted(self.text, paint)]
            quoted_here = (self.location.file, self.location.line) == (self.text.path, self.text.line)
            origin = origin or (None if quoted_here else self.location)
        elif self.location.known:
            lines.append(f"  {arrow} {printable(str(self.location))}")
        if origin is not None and origin.known:
            lines.append(f"  from: {printable(str(origin))}")
        makers = self.location.made_by or (origin.made_by if origin is not None else ())
        if makers:
            lines.append(f"  after: {printable(', '.join(makers))}")
        if self.expected is not None:
            lines.append(f"  expected: {_indented(self.expected)}")
        lines += [f"  note: {_indented(note)}" for note in self.notes]
        lines.append(f"  help: {_indented(self.help or f'irc explain {self.code}')}")
        return "\n".join(lines)


class IrcError(Exception):
    """One or more findings that stop the work; the first decides the code and the exit status."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        assert self.diagnostics, "an error without a diagnostic says nothing"
        super().__init__(self.diagnostics)

    @property
    def code(self) -> str:
        """The first finding's code."""
        return self.diagnostics[0].code

    @property
    def exit_code(self) -> int:
        """The exit status that the first finding's code asks for."""
        return int(CODES[self.code].exit_code)

    def placed(self, at: Location = UNKNOWN, text: SourceSpan | None = None) -> IrcError:
        """The same error with the place filled in where it is still missing.

        A type rule knows what is wrong but not where; its caller (parser, verifier, frontend) does.
        """
        return type(self)(
            replace(d, location=at if d.location == UNKNOWN else d.location, text=d.text or text)
            for d in self.diagnostics)

    def __str__(self) -> str:
        return "\n".join(diagnostic.render() for diagnostic in self.diagnostics)


class InternalError(IrcError):
    """Our own bug: it ends with status 70, and the driver leaves a reproducer."""

    @property
    def exit_code(self) -> int:
        """Always 70, whatever the code says: the user is not at fault."""
        return int(Exit.INTERNAL)


def fail(code: str, message: str, *, at: Location = UNKNOWN, text: SourceSpan | None = None,
         origin: Location | None = None, expected: str | None = None, help: str | None = None,
         notes: Iterable[str] = ()) -> IrcError:
    """The error to raise for one finding; codes under `internal.` make an InternalError."""
    kind = InternalError if code.startswith("internal.") else IrcError
    return kind([Diagnostic(code, message, at, text, origin, expected, help, tuple(notes))])


def explain(code: str) -> str:
    """The long text behind `irc explain CODE`: what the code means, what to do, how the process ends."""
    if code not in CODES:
        raise fail("usage.unknown_code", f"there is no diagnostic code {code!r}",
                   help=did_you_mean(code, CODES, "irc doc codes lists them"))
    entry = CODES[code]
    return "\n".join([
        f"{code}: {entry.summary}", "", textwrap.fill(entry.explanation, CLIP), "",
        textwrap.fill(f"What to do: {entry.remedy}", CLIP),
        f"Exit status: {int(entry.exit_code)} ({entry.exit_code.meaning})"])


def did_you_mean(name: str, known: Iterable[str], otherwise: str | None = None) -> str | None:
    """Advice for a name that nothing has: those of the `known` ones, the latest thousands, that resemble it."""
    close = difflib.get_close_matches(name, list(known)[-LATEST:], n=3)
    return f"did you mean {' or '.join(close)}?" if close else otherwise


def printable(text: str) -> str:
    """`text` with control characters and direction marks spelled out: names come from foreign files."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _indented(text: str) -> str:
    """A sentence of several lines, each printable, the later ones set in under the first."""
    return "\n    ".join(printable(line) for line in text.split("\n"))


def _place(path: str, line: int, column: int) -> str:
    """`path:line:column`, without the parts that are unknown."""
    return ":".join([path, *(str(number) for number in (line, column) if number > 0)])


def _paint(text: str, style: str) -> str:
    return f"\x1b[{style}m{text}\x1b[0m"


def _plain(text: str, style: str) -> str:
    return text


def _width(text: str) -> int:
    """Columns that `text` takes on a terminal: wide characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _quoted(span: SourceSpan, paint: Callable[[str, str], str]) -> list[str]:
    """The source line and the caret line below it, without indentation and clipped around the caret."""
    source = span.source.rstrip("\r\n").replace("\t", TAB)
    start = min(max(span.column - 1, 0), len(source))
    stop = min(start + max(span.length, 1), max(len(source), start + 1))
    left = min(len(source) - len(source.lstrip()), start)
    if stop - left > CLIP:
        left = max(left, start - CLIP // 4)
        stop = min(stop, left + CLIP)
    before, under, after = (printable(part) for part in (
        source[left:start], source[start:stop], source[stop:left + CLIP]))
    opened = "..." if source[:left].strip() else ""
    closed = "..." if len(source) > left + CLIP else ""
    caret = paint("^" * max(_width(under), 1), "1;31") + (f" {_indented(span.label)}" if span.label else "")
    return [f"   |  {opened}{before}{under}{after}{closed}", f"   |  {' ' * _width(opened + before)}{caret}"]


@dataclass(frozen=True, slots=True)
class Code:
    """A row of the code table."""

    summary: str
    exit_code: Exit
    explanation: str
    remedy: str


# The one table. To add a code, add an entry: `area.what`, summary, exit status, why it happens, what to do.
CODES: dict[str, Code] = {
    # Types and dims
    "type.broadcast": Code("shapes do not broadcast", Exit.BAD_INPUT,
        "Dims are aligned from the last; two go together if equal or one is 1. These provably do not.",
        "Reshape, expand or slice one operand. The message names the dim and both extents."),
    "type.dtype": Code("the element type is not accepted here", Exit.BAD_INPUT,
        "The op takes other element types, or its operands must share one. irc never converts silently.",
        "Insert a cast; `irc doc OP` lists the element types that the op takes."),
    "type.rank": Code("the number of dims is wrong", Exit.BAD_INPUT,
        "The op needs another rank, an axis lies outside [-rank, rank), or a value is still unranked.",
        "Reshape the operand or mend the axis; give an unranked value a rank with `refine`."),
    "type.shape": Code("the shape is wrong", Exit.BAD_INPUT,
        "A dim of an operand or result contradicts the op's type rule.",
        "Compare the dims in the message with `irc doc OP`."),
    "type.attribute": Code("an attribute is missing, unknown or has a wrong value", Exit.BAD_INPUT,
        "Attributes are the op's keyword parameters, each with a type and often a range.",
        "`irc doc OP` shows the attributes, their types and defaults."),
    "type.operands": Code("the number of operands or results is wrong", Exit.BAD_INPUT,
        "Operands are the op's positional parameters; an absent optional one is written `_`.",
        "`irc doc OP` shows the operands; count also the results."),
    "type.region": Code("a region does not fit its op", Exit.BAD_INPUT,
        "A region's arguments or yielded values differ from what the op passes in or returns.",
        "Make the region's arguments and its `yield` agree with the op's operands and results."),
    "dim.unbound": Code("a dim symbol has no definition here", Exit.BAD_INPUT,
        "A symbol is made once, in its function: in the signature, by `bind`, or as `?name` in a type.",
        "Declare the symbol in the signature, or bind it before its first use."),
    "dim.redeclared": Code("a dim symbol is declared twice", Exit.BAD_INPUT,
        "Two symbols of one name in one function would look equal and not be.",
        "Rename one of them, or drop the second declaration."),
    "dim.range": Code("a dim lies outside its range", Exit.BAD_INPUT,
        "Rewrites and kernels rely on a symbol's range; it may not be empty, negative or exceeded.",
        "Widen the range in the signature (or with --dim NAME=LOW..HIGH), or give another extent."),
    "dim.mismatch": Code("two dims that must be equal differ", Exit.BAD_INPUT,
        "The dims are proven to differ; had it been unknown, a guard would have been put in.",
        "Mend the shape that is wrong; the message shows both expressions."),
    "dim.syntax": Code("a dim expression cannot be read", Exit.BAD_INPUT,
        "Dims are integers or expressions over symbols with + - * // %, min, max and bcast.",
        "Rewrite the expression; // and % need a positive divisor."),

    # Text
    "text.syntax": Code("the text does not follow the grammar", Exit.BAD_INPUT,
        "The text format has one generic grammar: `%result = op %operand {attribute = value} : type`.",
        "Look at the caret and at what was expected there; docs/ir.md has the grammar."),
    "text.version": Code("the text has another format version", Exit.BAD_INPUT,
        "The first line of a text is `irc text N`. This irc reads the version that `irc --version` names.",
        "Add the missing first line, or write the text anew with the irc that made it."),
    "text.undefined_name": Code("a name is used but not defined", Exit.BAD_INPUT,
        "Regions see the values above them; kernels and functions see only their own.",
        "Mend the name, or move the definition above the use; a kernel takes outside values as operands."),
    "text.redefined_name": Code("a name is defined twice", Exit.BAD_INPUT,
        "Each value of a function and each function of a module has one definition (SSA).",
        "Rename one of the two."),
    "text.type_mismatch": Code("a written type differs from the inferred one", Exit.BAD_INPUT,
        "Written result types are checked against the op's type rule, which has the last word.",
        "Write the inferred type, or mend the operands."),
    "text.unknown_op": Code("there is no such op", Exit.BAD_INPUT,
        "Every op is declared in irc/ops; what is not is carried as `extern`.",
        "`irc doc ops` lists them; bring your own with --load."),

    # Verifier
    "verify.dominance": Code("a value is used where it is not defined", Exit.BAD_INPUT,
        "An operand is defined earlier in its block or an enclosing one, within its kernel and function.",
        "Move the definition up; if a pass did this, `irc check --each` names the pass."),
    "verify.types": Code("an operation's types contradict its type rule", Exit.BAD_INPUT,
        "The type rule applied to the operands and attributes gives other results than those stored.",
        "Build operations through the op functions; if a pass did this, `irc check --each` names the pass."),
    "verify.attributes": Code("an operation's attributes contradict its declaration", Exit.BAD_INPUT,
        "An attribute is missing, unknown, or of the wrong type.",
        "`irc doc OP` shows the attributes."),
    "verify.uses": Code("use lists and operands disagree", Exit.BAD_INPUT,
        "A value's list of uses must hold exactly the operands that read it.",
        "Change operands through the IR's methods, never by writing to a list."),
    "verify.region": Code("a region is malformed", Exit.BAD_INPUT,
        "A region has one block that ends in `yield`; arguments and yielded types fit the op.",
        "End the block in a `yield` of the right types."),
    "verify.kernel": Code("a kernel is malformed", Exit.BAD_INPUT,
        "A kernel's body reads only its arguments, holds only pure ops, and yields what it stores.",
        "Pass outside values in as operands; `irc doc fuse` has the legality rules."),
    "verify.names": Code("two values or functions share a name", Exit.BAD_INPUT,
        "Names are unique within a function, functions within a module.",
        "Take names from the IR's uniquing methods."),
    "verify.symbols": Code("a dim symbol is used outside its scope", Exit.BAD_INPUT,
        "A symbol belongs to one function and is visible after the operation that makes it.",
        "Make the symbol in this function, or pass the extent in as a value and `bind` it."),
    "verify.return": Code("a function does not return what its signature says", Exit.BAD_INPUT,
        "A function ends in `return`, with one operand of the declared type for each result.",
        "Mend the return or the signature."),
    "verify.call": Code("a call does not fit its function", Exit.BAD_INPUT,
        "The callee must exist, take these types under some binding of its symbols, and not call itself.",
        "Compare the call with the callee's signature."),

    # Weights
    "weights.missing": Code("the weights file is missing", Exit.BAD_INPUT,
        "The text names a file that holds its constants; it is looked up beside the text.",
        "Put the file there, or print the module anew with -o."),
    "weights.stale": Code("the weights file has changed", Exit.BAD_INPUT,
        "The text records the hash of the file that its constants come from, and the file no longer has it.",
        "Print the model anew, or restore the file."),
    "weights.absent": Code("the weights file lacks a constant", Exit.BAD_INPUT,
        "A `const @name` must be in the weights file with the dtype and shape that the text states.",
        "Mend the name or the type, or print the module anew with -o."),
    "weights.format": Code("the weights file is malformed", Exit.BAD_INPUT,
        "The header is checked before any byte is used: sizes, offsets, dtypes, unique names.",
        "The file is truncated, damaged or hostile: get it anew."),
    "weights.outside": Code("a path leads out of its folder", Exit.BAD_INPUT,
        "No path or link may leave the folder: a downloaded model could read any file of yours.",
        "Copy the file into the folder and refer to it by its relative path."),

    # ONNX
    "onnx.truncated": Code("the file is not a whole ONNX model", Exit.BAD_INPUT,
        "The protobuf does not parse, or holds no graph: most often a broken download or a Git LFS pointer.",
        "Get the file anew and compare its size."),
    "onnx.cycle": Code("the graph has a cycle", Exit.BAD_INPUT,
        "A node's input depends on its own output; ONNX graphs are acyclic and sorted.",
        "Mend the exporter; the message lists the nodes of the cycle."),
    "onnx.undefined_name": Code("a node reads a name that nothing defines", Exit.BAD_INPUT,
        "Each input of a node is a graph input, an initializer or an earlier node's output.",
        "Mend the exporter, or the cut that made this model."),
    "onnx.redefined_name": Code("a name is defined twice", Exit.BAD_INPUT,
        "ONNX graphs are SSA: one definition for each name.",
        "Mend the exporter; the message names both nodes."),
    "onnx.invalid": Code("the model breaks the ONNX specification", Exit.BAD_INPUT,
        "A field contradicts another or the operator's schema: sizes, types, attributes.",
        "`onnx.checker.check_model` tells more; mend the exporter."),
    "onnx.opset": Code("the opset is not supported", Exit.UNSUPPORTED,
        "irc reads the default domain from opset 7 on, up to that of the installed onnx package.",
        "Convert the model with onnx.version_converter, or update the onnx package."),
    "onnx.external_missing": Code("a file with the model's data is missing", Exit.BAD_INPUT,
        "Large models keep tensors in files beside the .onnx file.",
        "Put the files into the model's folder, under the names that the message gives."),
    "onnx.external_outside": Code("the model refers to a file outside its folder", Exit.BAD_INPUT,
        "No path or link may leave the folder: a downloaded model could read any file of yours.",
        "If you trust the model, copy the data into its folder and save it with relative locations."),
    "onnx.unsupported": Code("the model uses what irc does not read", Exit.UNSUPPORTED,
        "Operators that irc does not know are carried as `extern`; this is a construct that cannot even be "
        "carried.",
        "The message names it; an exporter option or onnx-simplifier often removes it."),

    # Running
    "run.input_missing": Code("an input was not given", Exit.BAD_INPUT,
        "Every parameter of the function needs an array.",
        "Give it by name in --input; `irc print --summary` shows the signature."),
    "run.input_unknown": Code("there is no such input", Exit.BAD_INPUT,
        "An array's name is not a parameter of the function.",
        "Mend the name; `irc print --summary` shows the signature."),
    "run.input_shape": Code("an input has the wrong shape", Exit.BAD_INPUT,
        "The array's rank or an extent contradicts the parameter's type.",
        "Give an array of the type that the message shows."),
    "run.input_dtype": Code("an input has the wrong element type", Exit.BAD_INPUT,
        "Inputs are never converted silently: f64 into f32 would round without a word.",
        "Convert the array before."),
    "run.dim_conflict": Code("two inputs disagree on a dim", Exit.BAD_INPUT,
        "One symbol stands for one extent in all inputs.",
        "Make the extents equal; the message names both places."),
    "run.dim_range": Code("an extent lies outside its symbol's range", Exit.BAD_INPUT,
        "The code relies on the ranges in the signature and at `bind`; they are checked at run time.",
        "Give another extent, or widen the range with --dim and compile anew."),
    "run.refine": Code("a value does not have the promised type", Exit.BAD_INPUT,
        "`refine` states a rank or dim that could not be proven; it is checked when the program runs.",
        "Give inputs for which it holds; the location shows what needed it."),
    "run.index": Code("an index is out of range", Exit.BAD_INPUT,
        "A gather or scatter was given an index outside its axis, in a mode that does not clamp.",
        "Mend the index, or choose a mode; `irc doc gather` lists them."),
    "run.shape": Code("shapes do not fit when the program runs", Exit.BAD_INPUT,
        "A type rule accepts dims that are not provably different; here they turned out to be. Reducing nothing "
        "to an index, and windows larger than their axis, are reported so too.",
        "Give inputs of fitting extents; the message names the shapes and `irc doc OP` the rule."),
    "run.assert": Code("an assertion failed", Exit.BAD_INPUT,
        "The program checks a condition on its inputs, and it does not hold.",
        "Give inputs for which it holds; the message states the condition."),
    "run.extern": Code("an extern operator could not be run", Exit.UNSUPPORTED,
        "Externs run as a model of one node in ONNX Runtime; it refused the operator or failed in it.",
        "The note quotes ONNX Runtime. Check the operator's opset version and the operands' types."),
    "run.trap": Code("a path was taken that cannot be run", Exit.BAD_INPUT,
        "One side of a branch has contradictory shapes, hence no meaning, and these inputs lead there.",
        "Give other inputs; the location names the branch."),

    # Passes, rules, policies, plans
    "pass.unknown": Code("there is no such pass", Exit.USAGE,
        "A pass's name is the name of its module in passes/, or of one that --load brought.",
        "`irc doc passes` lists them."),
    "pass.option": Code("a pass does not take this option", Exit.USAGE,
        "The options of a pass are the fields of its dataclass, with their types.",
        "`irc doc PASS` lists them."),
    "pass.syntax": Code("the pipeline cannot be read", Exit.USAGE,
        "A pipeline is a list of names with options: \"fold,cse,fuse{policy=greedy}\".",
        "Look at the caret."),
    "pass.raised": Code("your pass raised an exception", Exit.BAD_INPUT,
        "A pass that --load brought is your code; it raised while it changed the module.",
        "Mend the pass; the notes quote the exception and its line."),
    "load.raised": Code("a file of yours raised while it was loaded", Exit.BAD_INPUT,
        "--load FILE and FILE.py:NAME run the file; it raised an exception.",
        "Mend the file; the notes quote the exception and its line."),
    "load.missing_name": Code("the file does not define that name", Exit.BAD_INPUT,
        "FILE.py:NAME and policy=FILE.py:NAME need a module-level name.",
        "Mend the name; the message lists what the file defines."),
    "policy.raised": Code("the policy raised an exception", Exit.BAD_INPUT,
        "A policy is your code; it raised while judging a merge. No plan was changed.",
        "Mend the policy; the notes quote the exception and the merge."),
    "policy.result": Code("the policy returned something else than a judgment", Exit.BAD_INPUT,
        "A policy returns a finite number (higher merges first) or refuse(reason).",
        "Return one of the two on every path."),
    "rule.raised": Code("a rule raised an exception", Exit.BAD_INPUT,
        "The pattern, replacement or guard of a rewrite rule raised while it was traced or matched.",
        "Mend the rule; the notes quote the exception."),
    "rule.endless": Code("rules undo one another", Exit.BAD_INPUT,
        "Rules are applied until none applies. These kept applying, far more often than there are operations: "
        "most often one makes what another one matches.",
        "Guard one of them, or apply them in separate passes; the message names the last one."),
    "rule.guard": Code("a guard returned something else than a verdict", Exit.BAD_INPUT,
        "A guard returns True, or the reason (a string) why the rule does not apply.",
        "Write `condition or \"the reason\"`."),
    "rule.type": Code("a replacement has another type than its pattern", Exit.BAD_INPUT,
        "A rewrite must keep the types of the values it replaces.",
        "Cast or reshape within the replacement."),
    "rule.differs": Code("a rule changes results beyond its declared numerics", Exit.DIFFERS,
        "Programs made from the pattern and run both ways differ more than the rule's class allows.",
        "Mend the replacement, add a guard, or declare the honest numerics class."),
    "plan.stale": Code("a group of the plan no longer matches the graph", Exit.BAD_INPUT,
        "A plan names values of the graph and records their structural hash; this group's has changed.",
        "Make the plan anew, or edit the group; the others are still applied."),
    "plan.format": Code("the plan cannot be read", Exit.BAD_INPUT,
        "A plan file is a list of groups with their values, kinds and tiles.",
        "Compare with a plan that irc wrote (`irc compile --plan`)."),

    # Legality of kernels, F1 to F14
    "fuse.depends_on_own_store": Code("F1: the kernel reads what depends on its own stores", Exit.UNSUPPORTED,
        "Rule F1: a kernel reads nothing that depends on what it stores; the graph of kernels has no cycle.",
        "Take the operations between into the group, or leave one end out."),
    "fuse.impure_member": Code("F2: a member is not pure", Exit.UNSUPPORTED,
        "Rule F2: members are pure, in one block, and map elements to elements.",
        "Leave asserts, random state, externs and control flow outside the group."),
    "fuse.unstored_value": Code("F3: a value read outside is not stored", Exit.UNSUPPORTED,
        "Rule F3: each value that is read outside the kernel is one of its results.",
        "Store the value, or take its readers into the group."),
    "fuse.unreached_root": Code("F4: a root is not reached from the anchor", Exit.UNSUPPORTED,
        "Rule F4: coordinates flood from the anchor and give each root one point per element.",
        "The root lives in another space: leave it out, or make the view between them invertible."),
    "fuse.two_contractions": Code("F5: two contractions that do not go together", Exit.UNSUPPORTED,
        "Rule F5: one dot; or siblings sharing rows and contraction; or two joined by an online softmax.",
        "Give each dot its own kernel, or raise the pattern to `attention`."),
    "fuse.shared_reduction_axis": Code("F6: the reductions do not share one axis", Exit.UNSUPPORTED,
        "Rule F6: a kernel reduces over one axis after flattening, and the result does not vary over it.",
        "Split the group between the reductions."),
    "fuse.shared_iteration_space": Code("F7: a value needs an axis that its scope lacks", Exit.UNSUPPORTED,
        "Rule F7: the tile axes of each value lie in the frame of the scope where it is computed; all other "
        "parallel axes are grid axes. A value that one member reduces over and another keeps parallel has no "
        "such place.",
        "Leave one of the two out; a softmax between two dots is legal as kind = attention."),
    "fuse.tile_axes": Code("F8: more than one row or column axis", Exit.UNSUPPORTED,
        "Rule F8: a dot tiles one row and one column axis, and each operand varies over its own side only.",
        "Reshape so that rows and columns are one axis each, or split the group."),
    "fuse.attention_size": Code("F9: the head is too large for attention in one kernel", Exit.UNSUPPORTED,
        "Rule F9: attention's inner contraction and its static column axis are at most 256 (registers).",
        "Keep the two products as kernels or host calls."),
    "fuse.recomputed_reduction": Code("F10: a dot or reduction would be recomputed", Exit.UNSUPPORTED,
        "Rule F10: the blocks over axes that a dot or reduction ignores number one. Row statistics before a "
        "dot are excepted: cost decides there. A reduction after a dot needs all its columns in one tile.",
        "Store the reduction and read it in a second kernel."),
    "fuse.donated_read": Code("F11: a donated buffer is read elsewhere than it is written", Exit.UNSUPPORTED,
        "Rule F11: a kernel that writes over a donated buffer reads it only at the point that it writes.",
        "Do not donate the buffer, or read it in a kernel before."),
    "fuse.unproven_bounds": Code("F12: an index is not proven in bounds", Exit.UNSUPPORTED,
        "Rule F12: every address is proven to lie in its buffer, or the access is guarded.",
        "Narrow the range of the dims in the message, or guard the access (clamp the index)."),
    "fuse.numerics": Code("F13: the numerics class does not allow it", Exit.UNSUPPORTED,
        "Rule F13: each kernel choice declares exact, keeps_more_precision, reassociates or approximates, "
        "and yours allows less. Casts from float to integer always stay.",
        "Allow the class with --numerics, or keep the operations apart."),
    "fuse.resources": Code("F14: the kernel needs more than the target has", Exit.UNSUPPORTED,
        "Rule F14: shared memory, pointers and grid (y and z at most 65,535) fit every target asked for.",
        "Choose smaller tiles, or split the group."),

    # Backends, checks, installation, usage, files
    "backend.unsupported": Code("the backend cannot emit this", Exit.UNSUPPORTED,
        "Neither the op nor its body is something that the target has.",
        "Choose another target or backend; the message lists every such op at once."),
    "backend.opset": Code("the target opset lacks an operator", Exit.UNSUPPORTED,
        "The op needs a newer opset than the one asked for, and has no body to fall back to.",
        "Ask for a newer opset."),
    "backend.failed": Code("the compiled program failed", Exit.BAD_INPUT,
        "The artefact ran as a process of its own and ended with an error, which the notes quote.",
        "Most often an input does not fit: see its last line; `irc check` compares with the interpreter."),
    "check.differs": Code("results differ beyond the tolerance", Exit.DIFFERS,
        "max|a-b| / max|b| against f64 exceeds what dtype, reduced size and numerics class allow.",
        "`irc check --each` names the pass and the op where values first part."),
    "install.missing_extra": Code("a package that this needs is not installed", Exit.UNSUPPORTED,
        "torch and triton are optional: most of irc does without.",
        "Run the pip command in the message."),
    "install.overwritten": Code("another package has overwritten irc", Exit.UNSUPPORTED,
        "PyPI's `irc` is a chat library; it installs into the same folder as `irc-compiler`.",
        "pip uninstall irc irc-compiler && pip install irc-compiler"),
    "usage.arguments": Code("the arguments do not fit together", Exit.USAGE,
        "The command or function was called with arguments that contradict each other or lack one.",
        "`irc COMMAND --help` shows what goes together."),
    "usage.value": Code("an argument has a wrong value", Exit.USAGE,
        "The value cannot be read as what the option wants.",
        "`irc COMMAND --help` shows the form of each option."),
    "usage.model": Code("this is not a model", Exit.USAGE,
        "MODEL is a .onnx, .pt2 or .irc file, FILE.py:NAME, or - for text on standard input.",
        "Give one of these."),
    "usage.dim": Code("--dim or --specialize cannot be read", Exit.USAGE,
        "The form is NAME=NUMBER or NAME=LOW..HIGH, for a symbol of the signature.",
        "`irc print --summary` shows the symbols and their ranges."),
    "usage.backend": Code("there is no such backend or target", Exit.USAGE,
        "Backends are onnx and triton; each has its list of targets.",
        "`irc doc targets` lists them."),
    "usage.no_builder": Code("an op was called outside of tracing", Exit.USAGE,
        "Ops are functions that add an operation where a builder is active; here none is.",
        "Call them within irc.trace, a rule or a body."),
    "usage.unknown_name": Code("there is no such value, function or topic", Exit.USAGE,
        "The name is not in the module (or the documentation).",
        "The message lists close names; `irc print` shows all."),
    "usage.unknown_code": Code("there is no such diagnostic code", Exit.USAGE,
        "Codes have the form area.what and stand in irc/diagnostics.py.",
        "Copy the code from between the brackets of an error."),
    "file.missing": Code("the file does not exist", Exit.BAD_INPUT,
        "Nothing is at that path, or a folder is.",
        "Mend the path."),
    "file.exists": Code("the output exists already", Exit.USAGE,
        "irc replaces files that it wrote itself, not a folder or file that it does not know.",
        "Remove it, or name another output with -o."),
    "file.unreadable": Code("the file cannot be read or written", Exit.BAD_INPUT,
        "The operating system refused; the message quotes it.",
        "Check permissions and free space."),
    "file.format": Code("the file has not the format that its name says", Exit.BAD_INPUT,
        "The contents could not be read as what the suffix promises.",
        "Mend the suffix, or get the file anew."),
    "internal.error": Code("irc failed", Exit.INTERNAL,
        "An exception that is not a coded error left the compiler: a bug of irc, not of your model.",
        "Please report it with the reproducer that was left beside."),
    "internal.pass": Code("a pass failed or broke the module", Exit.INTERNAL,
        "A pass raised, or the verifier rejects what it made.",
        "Please report it with the reproducer; leaving the pass out of the pipeline may help meanwhile."),
    "internal.emit": Code("a backend wrote something invalid", Exit.INTERNAL,
        "What a backend emitted does not pass its own check (the ONNX checker, the Triton compiler).",
        "Please report it with the reproducer."),
}
