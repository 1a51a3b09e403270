"""Reading models, choosing backends, and sizes and inputs for them: what every verb begins with."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from irc import dims
from irc.diagnostics import fail
from irc.dims import Symbol
from irc.ir import Function, Module, Value, clone_function
from irc.pass_manager import Numerics, Pass, PassContext, parse_pipeline
from irc.user_code import is_reference, load_user_module, load_user_object
from irc.verifier import verify

Source = str | Path | Module
Sizes = Mapping[str, int]
BACKENDS = ("onnx", "triton")
CLEAN = "canonicalize,fold,cse,raise,canonicalize,cse,dce"
# Pipelines with a name: `default` goes on to where a backend takes over, with kernels.
ALIASES = {"clean": CLEAN, "default": f"{CLEAN},legalize,canonicalize,cse,dce,fuse,dce"}


@dataclass(frozen=True)
class Settings:
    """The options that are the same for every verb.

    `dims` gives symbols a size where numbers are needed; `specialize` bakes sizes into the program.
    """

    target: str | None = None
    numerics: Numerics = "keeps_more_precision"
    loads: Sequence[str] = ()
    dims: Sizes = field(default_factory=dict)
    specialize: Sizes = field(default_factory=dict)
    verify_each: bool = False
    dump_after: Sequence[str] = ()
    reproducers: Path | None = None
    command: str = ""

    def context(self, backend_name: str) -> PassContext:
        """What passes are told: the target is the backend's, so that `legalize` knows what stays whole."""
        return PassContext(
            numerics=self.numerics,
            target=find_backend(backend_name).Target(self.target)
            if self.target
            else find_backend(backend_name).Target(),
            loaded=[load_user_module(path) for path in self.loads],
            sizes=self.dims,
            reproducers=self.reproducers,
            command=self.command,
        )


def find_backend(name: str) -> Any:
    """The module of a backend, imported when it is asked for; raises `usage.backend`."""
    if name not in BACKENDS:
        raise fail("usage.backend", f"there is no backend `{name}`", expected=" or ".join(BACKENDS))
    return importlib.import_module(f"irc.backends.{name}")


def read_pipeline(text: str, context: PassContext) -> list[Pass]:
    """The passes of a pipeline in which `default` and `clean` may stand for theirs."""
    return parse_pipeline(text, context, ALIASES)


# -- models ----------------------------------------------------------------------------------------------------


def load(source: Source, *, specialize: Sizes | None = None) -> Module:
    """Read a model and verify it; `specialize` makes symbols of the entry plain integers.

    Raises `file.missing`, `file.format`, and what the frontend or the parser find wrong.
    """
    module = _read(source)
    if specialize:
        module = specialized(module, specialize)
    verify(module)
    return module


def _read(source: Source) -> Module:
    if isinstance(source, Module):
        return source.clone()
    text = str(source)
    if text == "-":
        from irc.parser import parse

        return parse(sys.stdin.read())
    if is_reference(text):
        return _from_python(text)
    path = Path(text)
    if path.suffix not in (".onnx", ".irc"):
        raise fail("file.format", f"irc does not read this kind of file: {text}", expected="an .onnx or .irc file")
    if not path.is_file():
        raise fail("file.missing", f"there is no file {text}", help="give an .onnx or .irc file, FILE.py:NAME, or -")
    if path.suffix == ".onnx":
        from irc.frontends.onnx import load as load_onnx

        return load_onnx(path)
    from irc.parser import parse

    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise fail("text.syntax", f"{text} is not text: {error.reason} at byte {error.start}") from None
    return parse(content, path)


def _from_python(reference: str) -> Module:
    found = load_user_object(reference)
    made = found() if callable(found) else found
    if not isinstance(made, Module):
        raise fail(
            "file.format",
            f"{reference} gives a {type(made).__name__}",
            expected="an irc module, or a function without parameters that returns one",
            help="make one with irc.trace(...); modules of PyTorch are not read by this version",
        )
    return made.clone()


def specialized(module: Module, sizes: Sizes) -> Module:
    """A copy in which symbols of the entry's signature are plain integers; their ranges are checked."""
    known_sizes(module.main, sizes)
    copy = Module(module.name)
    copy.source, copy.source_digest = module.source, module.source_digest
    for function in module.functions.values():
        copy.add(clone_function(function, sizes=sizes if function is module.main else None))
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
