"""Reading models, the settings of commands, and choosing backends: the first steps of every command."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from irc.device import device_of
from irc.diagnostics import IrcError, Location, check_argument, did_you_mean, fail, printable_lines
from irc.dims import Symbol
from irc.driver.pipelines import parse_pipeline
from irc.driver.text_files import READERS, decoded, leave_reproducer, load_text
from irc.formats import recognized_file
from irc.ir import Function, Operation
from irc.kernel_costs import find_costs
from irc.module import Module
from irc.named_pipelines import ALIASES
from irc.numerics import NUMERICS, Numerics
from irc.op import OperationDefinition, const
from irc.pass_manager import Pass, PassContext
from irc.products import PRODUCTS, Products
from irc.remarks import Remarks
from irc.sizes import check_names
from irc.stages import results_are_read, stage
from irc.types import TensorType, checked_size
from irc.user_code import blaming, place_of_code
from irc.user_files import (
    check_operation_names,
    files_of,
    is_reference,
    load_user_module,
    load_user_object,
    operations_of,
)
from irc.verifier import verify

Source = str | Path | Module
Backend = Literal["onnx", "triton"]
Sizes = Mapping[str, int]
BACKENDS: tuple[Backend, ...] = ("onnx", "triton")
TEXT, BY_NAME, SWITCH = ((str, type(None)), "a text, or None"), (Mapping, "sizes by name"), (bool, "True or False")
LIST = ((tuple, list), "a list of texts")
KINDS_OF_SETTINGS: dict[str, tuple[Any, str]] = {
    "opset": ((int, type(None)), "a number, or None"), "target": TEXT, "costs": TEXT, "device": TEXT, "dims": BY_NAME,
    "specialize": BY_NAME, "fold_defaults": SWITCH, "verify_each": SWITCH, "loads": LIST, "dump_after": LIST,
}  # fmt: skip
SLOW_READING = 5.0  # seconds
SUFFIXES = (".onnx", ".pt2", ".irc")  # of models, in upper or lower case


@dataclass(frozen=True)
class Settings:
    """The options that every command has.

    `dims` are sizes of symbols for runs and figures; `specialize` replaces symbols of the program by sizes, and
    `fold_defaults` inputs by their defaults. `opset` is the opset of written ONNX models.
    """

    opset: int | None = None
    target: str | None = None  # or several, separated by commas, for a backend that compiles for several
    numerics: Numerics = "keeps_more_precision"
    products: Products = "host"
    costs: str | None = None  # of ONNX Runtime's kernels: a name or FILE.json
    device: str | None = None  # that costs are estimated for: a name or FILE.toml; one of the target, or h100
    loads: Sequence[str] = ()  # Python files with a user's own passes, rules, policies and operations
    dims: Sizes = field(default_factory=dict)
    specialize: Sizes = field(default_factory=dict)
    fold_defaults: bool = False
    verify_each: bool = False
    remarks: Remarks | None = None  # to which passes add every decision of fusion
    dump_after: Sequence[str] = ()
    show_note: Callable[[str], None] | None = None  # called with notes to the user
    reproducers: Path | None = None
    command: str = ""

    def __post_init__(self) -> None:
        """Raises `usage.value` for a value that is none of the field's words, or of another type than the field, where
        KINDS_OF_SETTINGS has it: what irc itself gives is not checked."""
        for name, (kinds, expected) in KINDS_OF_SETTINGS.items():
            check_argument(name, getattr(self, name), kinds, expected)
        for name, words in (("numerics", NUMERICS), ("products", PRODUCTS)):
            if getattr(self, name) not in words:
                raise fail("usage.value", f"`{name}` is {getattr(self, name)!r:.50}", expected=" or ".join(words))

    @classmethod
    def of(cls, given: Settings | None) -> Settings:
        """What a function is given as its settings; raises `usage.value` for what is none."""
        if given is None:
            return cls()
        check_argument("settings", given, cls, "irc.Settings(...)")
        return given

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the targets, each once."""
        return tuple(dict.fromkeys(name.strip() for name in (self.target or "").split(",") if name.strip()))

    def context(self, backend_name: str) -> PassContext:
        """The context of passes; its target is the backend's, so that `legalize` knows which operations are legal.

        Raises `usage.backend` for a target that the backend does not have, and what loading a file raises.
        """
        return PassContext(
            numerics=self.numerics,
            products=self.products,
            target=self.target_of(backend_name),
            device=device_of(self.device, self.targets[0] if self.targets else None),
            loaded=self.loaded(),
            operations=self.operations(),
            sizes=self.dims,
            show_note=self.show_note,
            remarks=self.remarks,
            reproduce=self.reproduce if self.reproducers is not None else None,
        )

    def target_of(self, backend_name: str) -> Any:
        """The backend's one target; raises `usage.backend` for an unknown one, and `usage.arguments` for several."""
        backend = find_backend(backend_name)
        self.check_targets(backend_name)
        if len(self.targets) > 1:
            raise fail("usage.arguments", f"this needs one target, not {' and '.join(self.targets)}",
                       help="irc compile --backend triton and irc kernels accept several")  # fmt: skip
        chosen = backend.Target(self.targets[0]) if self.targets else backend.Target()
        if self.products != "host":
            if backend_name != "triton":
                raise fail("usage.arguments", f"--products is for kernels, not for what {backend_name} writes",
                           help="give --backend triton, or leave out --products")  # fmt: skip
            chosen = replace(chosen, products=self.products)
        for option, value in (("opset", self.opset), ("costs", self.costs)):
            if value is not None and backend_name != "onnx":
                raise fail("usage.arguments", f"--{option} is for ONNX models, not for what {backend_name} writes",
                           help=f"give --backend onnx, or leave out --{option}")  # fmt: skip
        if self.costs is not None:
            chosen = replace(chosen, costs=find_costs(self.costs))
        if backend_name == "onnx" and self.dims:
            chosen = replace(chosen, sizes=tuple(self.dims.items()))
        return chosen if self.opset is None else replace(chosen, opset=self.opset)

    def check_targets(self, backend_name: str) -> None:
        """Raise `usage.backend` for a target that the backend does not have."""
        backend = find_backend(backend_name)
        for name in self.targets:
            if name not in backend.TARGETS:
                owners = [other for other in BACKENDS if name in find_backend(other).TARGETS]
                raise fail("usage.backend", f"the backend {backend_name} has no target `{name}`",
                           expected=", ".join(backend.TARGETS),
                           help=f"{name} is a target of --backend {owners[0]}" if owners else None)  # fmt: skip

    def loaded(self) -> list[ModuleType]:
        """The files of `loads` as modules; raises what loading a file raises."""
        return [load_user_module(path) for path in self.loads]

    def operations(self) -> dict[str, OperationDefinition]:
        """The operations that the files of `loads` declare or import, by name."""
        return operations_of(self.loaded())

    def with_files_of(self, module: Module) -> Settings:
        """These settings, with `loads` extended by the files that declare operations of the module."""
        known = {os.path.realpath(path) for path in self.loads}
        return replace(self, loads=(*self.loads, *(path for path in files_of(module) if path not in known)))

    def load_options(self) -> list[str]:
        """The `--load` options of these settings, with absolute paths."""
        return [word for path in self.loads for word in ("--load", os.path.abspath(path))]

    def load(self, source: Source) -> Module:
        """The model, with `specialize` and `fold_defaults` applied; raises `dim.unbound` for an unknown symbol in
        `dims`."""
        with self.advising(source):
            module = load(source, specialize=self.specialize, fold_defaults=self.fold_defaults, loads=self.loads)
        check_symbols(module.main, self.dims)
        return module

    @contextmanager
    def advising(self, source: Source) -> Iterator[None]:
        """A context around reading a model: a note says how to save a program of FILE.py:NAME that is slow to read.

        Nothing is cached between commands: the program may depend on other files, on packages and on random numbers.
        """
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        if self.show_note is None or seconds <= SLOW_READING or isinstance(source, Module):
            return
        if is_reference(str(source)):
            name = f"{str(source).rpartition(':')[2]}.irc"
            saving = f"save it once with `irc print {source} -o {name}`, and give {name} in its place"
            self.show_note(f"reading {source} took {seconds:.0f} s; {saving}")

    def reproduce(self, step: str, module: Module, command: str, error: Exception) -> str:
        """Write a reproducer of an error in irc; returns the help line for the user."""
        if self.reproducers is None:
            return "please report it"
        options = "".join(f" {shlex.quote(word)}" for word in self.with_files_of(module).load_options())
        origin = f"{command}{options}\n# came from: {self.command}\n"
        return leave_reproducer(self.reproducers / f"reproducer-{step}", module, origin, error)

    def dump(self, stage: str, module: Module) -> None:
        """Print the module on stderr after a stage that `dump_after` names, or after each for "all"."""
        if stage in self.dump_after or "all" in self.dump_after:
            print(printable_lines([f"# after {stage}", *str(module).split("\n")]), file=sys.stderr)


@contextmanager
def reproducing(settings: Settings, module: Module, step: str) -> Iterator[None]:
    """Run a step in which any exception other than a coded error is an error in irc itself.

    Where `settings` has a folder for reproducers, the module, the command and the traceback are written there, and
    `internal.error` is raised.
    """
    try:
        yield
    except IrcError:
        raise
    except MemoryError:
        raise fail("run.memory", f"{step} needs more memory than the system has") from None
    except Exception as error:  # an error in irc: reported with a reproducer
        if settings.reproducers is None:
            raise
        help = settings.reproduce(step, module.clone(), f"# {step} of module.irc", error)
        raise fail("internal.error", f"{step} failed: {type(error).__name__}: {error}", help=help) from error


def require(packages: str, extra: str, purpose: str) -> None:
    """Raise `install.missing_extra` if one of the packages (separated by spaces) is not installed."""
    missing = [name for name in packages.split() if importlib.util.find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise fail("install.missing_extra", f"{purpose} needs {' and '.join(missing)}, which {verb} not installed",
                   help=f'pip install "irc-compiler[{extra}]"')  # fmt: skip


def require_triton(purpose: str) -> None:
    """Raise `install.missing_extra` if torch or triton is not installed."""
    require("torch triton", "triton", purpose)


def find_backend(name: str) -> Any:
    """The module of a backend, imported here; raises `usage.backend`."""
    if name not in BACKENDS:
        raise fail("usage.backend", f"there is no backend `{name}`", expected=" or ".join(BACKENDS))
    return importlib.import_module(f"irc.backends.{name}")


def read_pipeline(text: str, context: PassContext) -> list[Pass]:
    """The passes of a pipeline, which may contain named pipelines."""
    return parse_pipeline(text, context, ALIASES)


# -- models ----------------------------------------------------------------------------------------------------


def load(source: Source, *, specialize: Sizes | None = None, fold_defaults: bool = False,
         loads: Sequence[str] = ()) -> Module:  # fmt: skip
    """Read a model and verify it. `specialize` replaces symbols of the entry function by integers, and `fold_defaults`
    inputs that have defaults by constants. `loads` are Python files with a user's own operations, which a text may use.

    Raises `file.missing`, `file.format`, and the errors of the frontend or the parser.
    """
    check_argument("specialize", specialize, (Mapping, type(None)), "sizes by name")
    check_argument("loads", loads, (tuple, list), "a list of files")
    reading = nullcontext() if isinstance(source, Module) else stage("import", shortened(str(source), 100))
    with reading as running:
        module = _read(source, fold_defaults, operations_of(map(load_user_module, loads)))
        if fold_defaults:
            module = with_constant_defaults(module)
        if specialize:
            module = specialized(module, specialize)
        verify(module)
        if running is not None and results_are_read():
            running.result = f"{sum(1 for _ in module.walk())} operations"
    return module


def shortened(text: str, length: int = 300) -> str:
    return text if len(text) <= length else text[:length] + "..."


def _read(source: Source, fold_defaults: bool, operations: Mapping[str, OperationDefinition]) -> Module:
    if isinstance(source, Module):
        return source.clone()
    if not isinstance(source, (str, os.PathLike)):
        raise fail("usage.model", f"a model cannot be read from an object of type {type(source).__name__}",
                   expected="an irc module, or the path of a file",
                   help="irc.from_torch(program, example_inputs) imports a PyTorch program"
                   if is_torch(source) or callable(source) else None)  # fmt: skip
    text, expected = str(source), "an .onnx, .pt2 or .irc file, FILE.py:NAME, or -"
    if text == "-":
        from irc.parser import parse

        if sys.stdin is None:
            raise fail("file.missing", "the standard input is closed", expected=expected)
        return parse(decoded(sys.stdin.buffer.read(), "standard input"), None, READERS, operations)
    if is_reference(text):
        return module_of(program_of(text), text)
    path = Path(text)
    suffix = path.suffix.lower()
    if os.path.isdir(path):
        is_artefact = os.path.isfile(path / "manifest.json")
        help = "irc run runs a folder as irc compile has written it, with no other files" if is_artefact else None
        raise fail("usage.model", f"{shortened(text)} is a folder", expected=expected, help=help)
    if suffix == ".py":
        raise fail("usage.model", f"{text} is a Python file without the name of a model in it", expected=f"{text}:NAME",
                   help="NAME is a module, or a function without parameters that returns one")  # fmt: skip
    if suffix not in SUFFIXES:
        other_format = recognized_file(path)
        is_other = "" if other_format is None else f", but {other_format.name}"
        raise fail(
            "usage.model",
            f"this is not a model that irc reads{is_other}: {shortened(text)}",
            expected=expected,
            help=similar_files(path) if other_format is None else other_format.help,
        )
    if not os.path.isfile(path):  # unlike Path.is_file, false for names that are too long
        raise fail("file.missing", f"there is no file {shortened(text)}", expected=expected, help=similar_files(path))
    if suffix == ".pt2":
        return from_torch(saved_program(path), name=path.stem)
    if suffix == ".onnx":
        from irc.frontends.onnx import load as load_onnx

        module = load_onnx(path, fold_defaults=fold_defaults)
    else:
        module = load_text(path, operations)
    if module.source is not None and module.source_digest is not None:
        # Relative to the working directory, not to the model's folder: text on standard output has no folder.
        joined = path.parent / module.source
        plain = Path(os.path.normpath(joined))  # `sub/../model.onnx` would be rejected as outside
        module.source = (plain if os.path.realpath(plain) == os.path.realpath(joined) else joined).as_posix()
    return module


def similar_files(path: Path) -> str | None:
    """Advice for the path of a model that there is not: those of similar names beside it."""
    if "://" in str(path) or str(path).startswith(("http:", "https:")):
        return "irc reads files: download the model first"
    try:
        names = sorted(each.name for each in path.parent.iterdir() if each.suffix.lower() in SUFFIXES)
    except (OSError, ValueError):
        return None
    return did_you_mean(path.name, names)


def program_of(reference: str) -> Any:
    """The program of FILE.py:NAME: an irc module, a PyTorch program, or a tuple of arguments of `from_torch` (program,
    inputs, dynamic shapes, keyword inputs). In a tuple the program may also be a function of tensors."""
    named_object = load_user_object(reference)
    if callable(named_object) and not is_torch(named_object) and needs_arguments(named_object):
        function = getattr(named_object, "function", named_object)  # of a policy or planner
        raise fail(
            "file.format",
            f"{reference} takes arguments",
            at=place_of_code(function),
            expected="a module, or a function without parameters",
            help='a policy or planner is an option of fuse: -p "default{fuse.policy=FILE.py:NAME}"',
        )
    with blaming("load.raised", f"{reference} raised an exception", named_object):
        # A PyTorch module is callable, too, but needs inputs.
        program = named_object() if callable(named_object) and not is_torch(named_object) else named_object
    is_tuple = isinstance(program, tuple) and 1 <= len(program) <= 4
    is_program = is_tuple and (is_torch(program[0]) or callable(program[0]))
    if not (isinstance(program, Module) or is_torch(program) or is_program):
        raise fail(
            "file.format",
            f"{reference} gives a {type(program).__name__}",
            expected="an irc module, a PyTorch program with its inputs, or a function without parameters that "
            "returns one",
            help="return irc.trace(...), an ExportedProgram, or (program, example_inputs), optionally followed by "
            "dynamic_shapes and keyword inputs",
        )
    return program


def needs_arguments(function: Any) -> bool:
    """Whether a callable has parameters that a call without arguments leaves open; False where that is not known."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
               for each in parameters)  # fmt: skip


def module_of(program: Any, reference: str) -> Module:
    """The result of `program_of`, as a module."""
    if isinstance(program, Module):
        check_operation_names(program)
        return program.clone()
    if isinstance(program, tuple):
        return from_torch(*program, name=reference.rpartition(":")[2])
    return from_torch(program)


def saved_program(path: Path) -> Any:
    """The ExportedProgram of a `.pt2` file; see `irc.frontends.torch.archive`."""
    require("torch", "torch", "reading a .pt2 file")
    from irc.frontends.torch.archive import load as load_archive

    return load_archive(path)


def is_torch(program: Any) -> bool:
    """Whether it is a PyTorch program, without importing torch."""
    return any(each.__module__.split(".")[0] == "torch" for each in type(program).__mro__)


def from_torch(program: Any, inputs: Any = (), dynamic_shapes: Any = None, kwargs: Mapping[str, Any] | None = None, *,
               name: str | None = None) -> Module:  # fmt: skip
    """The module of a torch.nn.Module, a GraphModule, a function of tensors or an ExportedProgram.

    `inputs` are example inputs: a tuple of positional ones, a dictionary of keyword ones, or one tensor; `kwargs` are
    keyword ones in addition to positional ones; `dynamic_shapes` as in `compile`. Constants share memory with the
    program's weights: after a write to these, reading the module's constants raises `weights.changed`. Raises
    `install.missing_extra` where torch is not installed, `usage.value` for inputs that are none, `torch.export` where
    PyTorch cannot export the program, `torch.unsupported` for operators that irc lacks, and `torch.tensor` and
    `type.dtype` for weights whose elements it cannot read.
    """
    require("torch", "torch", "reading a PyTorch program")
    from irc.frontends.torch import from_torch as read
    from irc.frontends.torch.parameters import example_inputs

    check_argument("name", name, (str, type(None)), "a text, or None")
    args, named = example_inputs(inputs, kwargs)
    return read(program, args, named, dynamic_shapes=dynamic_shapes, name=name)


def with_constant_defaults(module: Module) -> Module:
    """A copy in which arguments of the entry that have defaults are constants, and symbols are the sizes that the
    defaults determine.

    Raises `type.shape` for a default whose extents do not determine the symbols in its argument's type.
    """
    sizes = {symbol.name: size for symbol, size in default_sizes(module.main).items()}
    copy = specialized(module, sizes)
    function = copy.main
    for argument, tensor in function.defaults.items():
        type_ = TensorType(tensor.dtype, tensor.shape)
        if argument.type.is_ranked and argument.type != type_:
            raise fail("type.shape", f"the default {type_} of %{argument.name} does not determine {argument.type}",
                       help="give the argument a type whose dims are symbols or those of the default")  # fmt: skip
        block = function.block
        block.remove_argument(argument)
        location = Location(file=function.location.file, name=argument.name)
        constant = Operation(const, (), {"value": tensor}, [type_], names=[argument.name], location=location)
        argument.replace_uses(block.insert(constant, block.first).result)
    function.defaults = {}
    return copy


def default_sizes(function: Function) -> dict[Symbol, int]:
    """The symbols that the extents of defaults determine."""
    sizes: dict[Symbol, int] = {}
    for argument, tensor in function.defaults.items():
        symbols = {symbol.expr: symbol for symbol in argument.type.symbols()}
        for dim, extent in zip(argument.type.shape or (), tensor.shape, strict=False):
            if not isinstance(dim, int) and dim in symbols:
                sizes.setdefault(symbols[dim], extent)
    return sizes


def check_symbols(function: Function, sizes: Sizes) -> None:
    """Raise `dim.unbound` for a name that neither the signature nor an operation defines."""
    defined = (symbol.name for operation in function.walk() for symbol in operation.symbols)
    known = dict.fromkeys([*function.symbols, *defined])
    check_names(function, sizes, known)


def specialized(module: Module, sizes: Sizes) -> Module:
    """A copy in which symbols of the entry's signature are integers, which are checked against their ranges."""
    known_sizes(module.main, sizes)
    copy = module.clone(sizes)
    for argument in copy.main.arguments:
        checked_size(argument.type)
    return copy


# -- sizes and inputs ------------------------------------------------------------------------------------------


def known_sizes(function: Function, sizes: Sizes) -> dict[Symbol, int]:
    """`sizes` by symbol; raises `dim.unbound` for an unknown name and `run.dim_range` for a size out of range."""
    check_names(function, sizes, function.symbols)
    by_symbol = {}
    for name, size in sizes.items():
        symbol = function.symbols[name]
        if not symbol.low <= size <= symbol.high or size % symbol.multiple:
            multiple = f", a multiple of {symbol.multiple}" if symbol.multiple > 1 else ""
            raise fail(
                "run.dim_range", f"{name} = {size}", expected=f"{name} in [{symbol.low}, {symbol.high}]{multiple}"
            )
        by_symbol[symbol] = size
    return by_symbol
