"""Reading models, choosing backends, and sizes and inputs for them: what every verb begins with."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from irc.diagnostics import IrcError, Location, fail, printable_lines
from irc.dims import Symbol
from irc.driver.pipelines import parse_pipeline
from irc.driver.text_files import READERS, decoded, leave_reproducer, load_text
from irc.ir import Function, Operation
from irc.module import Module
from irc.named_pipelines import ALIASES
from irc.op import OperationDefinition, const
from irc.pass_manager import Numerics, Pass, PassContext
from irc.types import TensorType, checked_size
from irc.user_code import blaming
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
Sizes = Mapping[str, int]
BACKENDS = ("onnx", "triton")
SLOW_READING = 5.0  # seconds
SUFFIXES = (".onnx", ".pt2", ".irc")  # of models, in upper or lower case


@dataclass(frozen=True)
class Settings:
    """The options that are the same for every verb.

    `dims` gives symbols a size where numbers are needed; `specialize` bakes sizes into the program, and `fold_defaults`
    what inputs are by default. `opset` is that of the models of ONNX that are written.
    """

    opset: int | None = None
    target: str | None = None  # or several, with commas between, for a backend that compiles for several
    numerics: Numerics = "keeps_more_precision"
    loads: Sequence[str] = ()  # Python files with a user's own passes, rules, policies and operations
    dims: Sizes = field(default_factory=dict)
    specialize: Sizes = field(default_factory=dict)
    fold_defaults: bool = False
    verify_each: bool = False
    dump_after: Sequence[str] = ()
    show_note: Callable[[str], None] | None = None  # called with what a user should know, though nothing failed
    reproducers: Path | None = None
    command: str = ""

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the targets, each once."""
        return tuple(dict.fromkeys(name.strip() for name in (self.target or "").split(",") if name.strip()))

    def context(self, backend_name: str) -> PassContext:
        """What passes are told: the target is the backend's, so that `legalize` knows what stays whole.

        Raises `usage.backend` for a target that the backend has not, and what loading a file raises.
        """
        return PassContext(
            numerics=self.numerics,
            target=self.target_of(backend_name),
            loaded=self.loaded(),
            operations=self.operations(),
            sizes=self.dims,
            show_note=self.show_note,
            reproduce=self.reproduce if self.reproducers is not None else None,
        )

    def target_of(self, backend_name: str) -> Any:
        """The backend's one target; raises `usage.backend` for one that it has not, and `usage.arguments`."""
        backend = find_backend(backend_name)
        self.check_targets(backend_name)
        if len(self.targets) > 1:
            raise fail("usage.arguments", f"this is done for one target, and not for {' and '.join(self.targets)}",
                       help="irc compile --backend triton and irc kernels take several")  # fmt: skip
        chosen = backend.Target(self.targets[0]) if self.targets else backend.Target()
        if self.opset is None:
            return chosen
        if backend_name != "onnx":
            raise fail("usage.arguments", f"only models of ONNX have an opset, not what {backend_name} writes",
                       help="give --backend onnx, or leave out --opset")  # fmt: skip
        return replace(chosen, opset=self.opset)

    def check_targets(self, backend_name: str) -> None:
        """Raise `usage.backend` for a target that the backend has not."""
        backend = find_backend(backend_name)
        for name in self.targets:
            if name not in backend.TARGETS:
                raise fail("usage.backend", f"the backend {backend_name} has no target `{name}`",
                           expected=", ".join(backend.TARGETS))  # fmt: skip

    def loaded(self) -> list[ModuleType]:
        """The files of `loads` as modules; raises what loading a file raises."""
        return [load_user_module(path) for path in self.loads]

    def operations(self) -> dict[str, OperationDefinition]:
        """The operations that the files of `loads` declare or import, by name."""
        return operations_of(self.loaded())

    def knowing(self, module: Module) -> Settings:
        """These settings, loading also the files whose operations the module holds: what its text needs to be read."""
        known = {os.path.realpath(path) for path in self.loads}
        return replace(self, loads=(*self.loads, *(path for path in files_of(module) if path not in known)))

    def load_options(self) -> list[str]:
        """The options of a command that loads what these settings load, from any folder."""
        return [word for path in self.loads for word in ("--load", os.path.abspath(path))]

    def load(self, source: Source) -> Module:
        """The model with what is baked into it; raises `dim.unbound` for a size of a symbol that it does not have."""
        with self.advising(source):
            module = load(source, specialize=self.specialize, fold_defaults=self.fold_defaults, loads=self.loads)
        check_symbols(module.main, self.dims)
        return module

    @contextmanager
    def advising(self, source: Source) -> Iterator[None]:
        """Around reading a program that Python makes: a note says how to save one that is slow to make.

        Nothing is cached between commands: what a file gives may depend on other files, on packages and on chance.
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
        """Keep what repeats a failure of ours; returns what the user is told."""
        if self.reproducers is None:
            return "please report it"
        options = "".join(f" {shlex.quote(word)}" for word in self.knowing(module).load_options())
        came_from = f"{command}{options}\n# came from: {self.command}\n"
        return leave_reproducer(self.reproducers / f"reproducer-{step}", module, came_from, error)

    def dump(self, stage: str, module: Module) -> None:
        """Show the module after a stage that `dump_after` names, or after each for "all", on stderr."""
        if stage in self.dump_after or "all" in self.dump_after:
            print(printable_lines([f"# after {stage}", *str(module).split("\n")]), file=sys.stderr)


@contextmanager
def reproducing(settings: Settings, module: Module, step: str) -> Iterator[None]:
    """Run a step that only a bug of irc can make fail in another way than by a coded error.

    Where `settings` names a folder for reproducers, such a failure leaves the module there, with the command and the
    traceback, and becomes `internal.error`.
    """
    try:
        yield
    except IrcError:
        raise
    except MemoryError:
        raise fail("run.memory", f"{step} needs more memory than the system has") from None
    except Exception as error:  # a bug of ours: told as one, with all that repeats it
        if settings.reproducers is None:
            raise
        help = settings.reproduce(step, module.clone(), f"# {step} of module.irc", error)
        raise fail("internal.error", f"{step} failed: {type(error).__name__}: {error}", help=help) from error


def require(packages: str, extra: str, purpose: str) -> None:
    """Raise `install.missing_extra` where one of the packages (with spaces between) is not installed."""
    missing = [name for name in packages.split() if importlib.util.find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise fail("install.missing_extra", f"{purpose} needs {' and '.join(missing)}, which {verb} not installed",
                   help=f'pip install "irc-compiler[{extra}]"')  # fmt: skip


def require_triton(purpose: str) -> None:
    """Raise `install.missing_extra` where torch or triton is not installed."""
    require("torch triton", "triton", purpose)


def find_backend(name: str) -> Any:
    """The module of a backend, imported when it is asked for; raises `usage.backend`."""
    if name not in BACKENDS:
        raise fail("usage.backend", f"there is no backend `{name}`", expected=" or ".join(BACKENDS))
    return importlib.import_module(f"irc.backends.{name}")


def read_pipeline(text: str, context: PassContext) -> list[Pass]:
    """The passes of a pipeline in which those with a name may stand for theirs."""
    return parse_pipeline(text, context, ALIASES)


# -- models ----------------------------------------------------------------------------------------------------


def load(source: Source, *, specialize: Sizes | None = None, fold_defaults: bool = False,
         loads: Sequence[str] = ()) -> Module:  # fmt: skip
    """Read a model and verify it; `specialize` makes symbols of the entry plain integers, and `fold_defaults` inputs
    that have defaults constants. `loads` are Python files with a user's own operations, which a text may hold.

    Raises `file.missing`, `file.format`, and what the frontend or the parser find wrong.
    """
    module = _read(source, fold_defaults, operations_of(map(load_user_module, loads)))
    if fold_defaults:
        module = with_constant_defaults(module)
    if specialize:
        module = specialized(module, specialize)
    verify(module)
    return module


def shortened(text: str, length: int = 300) -> str:
    return text if len(text) <= length else text[:length] + "..."


def _read(source: Source, fold_defaults: bool, own: Mapping[str, OperationDefinition]) -> Module:
    if isinstance(source, Module):
        return source.clone()
    if not isinstance(source, (str, os.PathLike)):
        raise fail("usage.model", f"irc reads no model of the type {type(source).__name__}",
                   expected="an irc module, or the name of a file",
                   help="irc.from_torch(program, example_inputs) makes a module of a program of PyTorch"
                   if is_torch(source) or callable(source) else None)  # fmt: skip
    text = str(source)
    if text == "-":
        from irc.parser import parse

        return parse(decoded(sys.stdin.buffer.read(), "standard input"), None, READERS, own)
    if is_reference(text):
        return module_of(program_of(text), text)
    path = Path(text)
    suffix = path.suffix.lower()
    expected = "an .onnx, .pt2 or .irc file, FILE.py:NAME, or -"
    if suffix == ".py":
        raise fail("usage.model", f"{text} is a file, and not a model in it", expected=f"{text}:NAME",
                   help="NAME is a module, or a function without parameters that makes one")  # fmt: skip
    if suffix not in SUFFIXES:
        raise fail("usage.model", f"irc reads no such model: {shortened(text)}", expected=expected)
    if not os.path.isfile(path):  # unlike pathlib's, false for names that are too long
        raise fail("file.missing", f"there is no file {shortened(text)}", expected=expected)
    if suffix == ".pt2":
        return from_torch(saved_program(path), name=path.stem)
    if suffix == ".onnx":
        from irc.frontends.onnx import load as load_onnx

        module = load_onnx(path, fold_defaults=fold_defaults)
    else:
        module = load_text(path, own)
    if module.source is not None and module.source_digest is not None:
        # As seen from here rather than from the model's folder: text on standard output may land anywhere.
        joined = path.parent / module.source
        plain = Path(os.path.normpath(joined))  # `sub/../model.onnx` would be refused, as it seems to lead out
        module.source = (plain if os.path.realpath(plain) == os.path.realpath(joined) else joined).as_posix()
    return module


def program_of(reference: str) -> Any:
    """What FILE.py:NAME gives: a module of irc, or a program of PyTorch, perhaps as a tuple with what else `from_torch`
    takes: inputs, dynamic shapes and keyword inputs. In a tuple the program may be a function of tensors, too."""
    found = load_user_object(reference)
    with blaming("load.raised", f"{reference} raised an exception", found):
        # A module of PyTorch is callable too, but with inputs, which only a function that returns both can give.
        made = found() if callable(found) and not is_torch(found) else found
    is_program = isinstance(made, tuple) and 1 <= len(made) <= 4 and (is_torch(made[0]) or callable(made[0]))
    if not (isinstance(made, Module) or is_torch(made) or is_program):
        raise fail(
            "file.format",
            f"{reference} gives a {type(made).__name__}",
            expected="an irc module, a program of PyTorch with its inputs, or a function without parameters that "
            "returns one",
            help="irc.trace(...) makes a module; for PyTorch return an ExportedProgram or (program, example_inputs), "
            "and after these dynamic_shapes and keyword inputs",
        )
    return made


def module_of(made: Any, reference: str) -> Module:
    """What `program_of` gave, as a module."""
    if isinstance(made, Module):
        check_operation_names(made)
        return made.clone()
    return from_torch(*made, name=reference.rpartition(":")[2]) if isinstance(made, tuple) else from_torch(made)


def saved_program(path: Path) -> Any:
    """The ExportedProgram of a `.pt2` file; see `irc.frontends.torch.archive`."""
    require("torch", "torch", "reading a .pt2 file")
    from irc.frontends.torch.archive import load as load_archive

    return load_archive(path)


def is_torch(made: Any) -> bool:
    """Whether it is a program of PyTorch, without importing torch to find out."""
    return any(each.__module__.split(".")[0] == "torch" for each in type(made).__mro__)


def from_torch(program: Any, inputs: Any = (), dynamic_shapes: Any = None, kwargs: Mapping[str, Any] | None = None, *,
               name: str | None = None) -> Module:  # fmt: skip
    """The module of a torch.nn.Module, a GraphModule, a function of tensors or an ExportedProgram.

    `inputs` are example inputs: a tuple of positional ones, a dictionary of keyword ones, or one tensor; `kwargs` are
    keyword ones beside positional ones; `dynamic_shapes` as in torch.export. Constants share memory with the program's
    weights: once these are written to, reading the module's raises `weights.changed`. Raises `install.missing_extra`
    where torch is not installed, `torch.export` and `torch.unsupported`.
    """
    require("torch", "torch", "reading a program of PyTorch")
    from irc.frontends.torch import from_torch as read
    from irc.frontends.torch.parameters import example_inputs

    args, named = example_inputs(inputs, kwargs)
    return read(program, args, named, dynamic_shapes=dynamic_shapes, name=name)


def with_constant_defaults(module: Module) -> Module:
    """A copy in which arguments of the entry that have defaults are constants, and symbols have the sizes that follow.

    Raises `type.shape` for a default whose extents do not tell the symbols in its argument's type.
    """
    sizes = {symbol.name: size for symbol, size in default_sizes(module.main).items()}
    copy = specialized(module, sizes)
    function = copy.main
    for argument, tensor in function.defaults.items():
        type_ = TensorType(tensor.dtype, tensor.shape)
        if argument.type.is_ranked and argument.type != type_:
            raise fail("type.shape", f"the default {type_} of %{argument.name} does not tell what {argument.type} is")
        block = function.block
        block.remove_argument(argument)
        location = Location(file=function.location.file, name=argument.name)
        made = Operation(const, (), {"value": tensor}, [type_], names=[argument.name], location=location)
        argument.replace_uses(block.insert(made, block.first).result)
    function.defaults = {}
    return copy


def default_sizes(function: Function) -> dict[Symbol, int]:
    """The symbols that the extents of defaults tell."""
    found: dict[Symbol, int] = {}
    for argument, tensor in function.defaults.items():
        symbols = {symbol.expr: symbol for symbol in argument.type.symbols()}
        for dim, extent in zip(argument.type.shape or (), tensor.shape, strict=False):
            if not isinstance(dim, int) and dim in symbols:
                found.setdefault(symbols[dim], extent)
    return found


def check_symbols(function: Function, sizes: Sizes) -> None:
    """Raise `dim.unbound` for a name that neither the signature nor an operation defines."""
    known = {*function.symbols, *(symbol.name for operation in function.walk() for symbol in operation.symbols)}
    for name in sizes:
        if name not in known:
            raise fail("dim.unbound", f"@{function.name} has no symbol `{name}`",
                       expected=f"one of: {', '.join(sorted(known)) or 'none'}")  # fmt: skip


def specialized(module: Module, sizes: Sizes) -> Module:
    """A copy in which symbols of the entry's signature are plain integers; their ranges are checked."""
    known_sizes(module.main, sizes)
    copy = module.clone(sizes)
    for argument in copy.main.arguments:
        checked_size(argument.type)
    return copy


# -- sizes and inputs ------------------------------------------------------------------------------------------


def known_sizes(function: Function, sizes: Sizes) -> dict[Symbol, int]:
    """`sizes` by symbol; raises `dim.unbound` for a name that is none and `run.dim_range` for a size out of range."""
    found = {}
    for name, size in sizes.items():
        if name not in function.symbols:
            names = ", ".join(function.symbols) or "none"
            raise fail("dim.unbound", f"@{function.name} has no symbol `{name}`", expected=f"one of: {names}")
        symbol = function.symbols[name]
        if not symbol.low <= size <= symbol.high or size % symbol.multiple:
            multiple = f", a multiple of {symbol.multiple}" if symbol.multiple > 1 else ""
            raise fail(
                "run.dim_range", f"{name} = {size}", expected=f"{name} in [{symbol.low}, {symbol.high}]{multiple}"
            )
        found[symbol] = size
    return found
