"""Passes and pipelines: `"fold,cse,fuse{policy=greedy}"` becomes a list of passes, and the manager runs them.

A pass is a dataclass whose fields are its options and whose docstring is its reference page. Its name in a
pipeline is the name of its module in `passes/`, imported when a pipeline first names it: there is no registry.
(A module cannot be called `raise.py`; a trailing underscore is not part of the name.) A file brought by
`--load` gives its passes by their classes' names: `class DropCasts(Pass)` is `drop_casts`.
"""

from __future__ import annotations

import dataclasses
import importlib
import keyword
import pkgutil
import re
import traceback
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal, Protocol

from irc.diagnostics import IrcError, SourceSpan, did_you_mean, fail
from irc.ir import Module, Operation
from irc.user_code import blaming, is_user_code
from irc.verifier import verify

Numerics = Literal["exact", "keeps_more_precision", "reassociates", "approximates"]
NUMERICS: tuple[Numerics, ...] = typing.get_args(Numerics)


def allows(allowed: Numerics, wanted: Numerics) -> bool:
    """Whether a user who allows `allowed` accepts a change of class `wanted`; the classes are nested."""
    return NUMERICS.index(wanted) <= NUMERICS.index(allowed)


class Target(Protocol):
    """What a pass may ask of the backend that it compiles for."""

    def takes(self, operation: Operation) -> bool:
        """Whether the backend takes the operation whole, so that `legalize` leaves it."""


# (stage, module before it, command that runs what was left, what happened) -> what the user is told
Reproduce = Callable[[str, Module, str, Exception], str]


@dataclass
class PassContext:
    """What passes share: the user's choices going in, statistics coming out.

    `statistics` maps a pass or rule to counters: {"canonicalize": {"removed": 3}}.
    """

    numerics: Numerics = "keeps_more_precision"
    target: Target | None = None
    loaded: Sequence[ModuleType] = ()
    statistics: dict[str, dict[str, int]] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)  # what symbols count as where a cost needs numbers
    plans: dict[str, str] = field(default_factory=dict)  # the fusion plan of each function, as a plan file
    notes: list[str] = field(default_factory=list)  # what a person should be told, though nothing failed
    reproduce: Reproduce | None = None  # what an internal failure is handed to, to be repeated

    def count(self, where: str, what: str, number: int = 1) -> None:
        counters = self.statistics.setdefault(where, {})
        counters[what] = counters.get(what, 0) + number


@dataclass
class Pass:
    """One step of a pipeline. Subclass it as a dataclass: fields are options, the docstring is the reference."""

    def run(self, module: Module, context: PassContext) -> bool:
        """Change the module in place; returns whether anything changed."""
        raise NotImplementedError(f"{type(self).__name__} does not define run")

    @classmethod
    def pipeline_name(cls) -> str:
        """What a pipeline calls it."""
        if is_user_code(cls):
            return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        return cls.__module__.rpartition(".")[2].rstrip("_")

    def __str__(self) -> str:
        values = [(option, getattr(self, option.name)) for option in dataclasses.fields(self)]
        changed = [f"{option.name}={_option_text(value)}" for option, value in values if value != option.default]
        return self.pipeline_name() + (f"{{{','.join(changed)}}}" if changed else "")


def _option_text(value: Any) -> str:
    if isinstance(value, tuple):
        return "{" + ",".join(map(str, value)) + "}"
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


# -- finding passes --------------------------------------------------------------------------------------------


def pass_names(context: PassContext | None = None) -> list[str]:
    """Every name that a pipeline may use: the modules of `passes/`, and what loaded files bring."""
    package = importlib.import_module("irc.passes")
    own = [entry.name.rstrip("_") for entry in pkgutil.iter_modules(package.__path__) if not entry.name.startswith("_")]
    return sorted(own) + sorted(_loaded_passes(context))


def find_pass(name: str, context: PassContext | None = None) -> type[Pass]:
    """The class of the pass called `name`; a loaded file's comes before ours. Raises `pass.unknown`."""
    loaded = _loaded_passes(context)
    if name in loaded:
        return loaded[name]
    names = pass_names(context)
    if name not in names:
        raise fail("pass.unknown", f"there is no pass `{name}`",
                   help=did_you_mean(name, names, f"passes: {', '.join(names)}"))
    module = importlib.import_module(f"irc.passes.{name + '_' if keyword.iskeyword(name) else name}")
    (found,) = [thing for thing in vars(module).values() if _is_pass(thing) and thing.__module__ == module.__name__]
    return typing.cast("type[Pass]", found)


def _loaded_passes(context: PassContext | None) -> dict[str, type[Pass]]:
    modules = context.loaded if context is not None else ()
    return {
        thing.pipeline_name(): thing
        for module in modules
        for thing in vars(module).values()
        if _is_pass(thing) and thing.__module__ == module.__name__
    }


def _is_pass(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, Pass) and thing is not Pass


# -- reading pipelines -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """A name of a pipeline with its options as text; columns count from 0, for carets."""

    name: str
    options: tuple[tuple[str, str, int], ...]  # (key, value, column); a bare key has the value "true"
    column: int


def parse_pipeline(text: str, context: PassContext | None = None,
                   aliases: Mapping[str, str] | None = None) -> list[Pass]:
    """The passes that a pipeline names, with their options set.

    `aliases` maps names to pipelines; an option of an alias is meant for one of its passes:
    `default{fuse.policy=none}`. Raises `pass.syntax`, `pass.unknown` and `pass.option`, with a caret.
    """
    passes = []
    for stage in _read_stages(text):
        if aliases is None or stage.name not in aliases:
            passes.append(_make_pass(stage, text, context))
            continue
        inner = _read_stages(aliases[stage.name])
        for key, value, column in stage.options:
            name, dot, option = key.partition(".")
            matching = [index for index, candidate in enumerate(inner) if candidate.name == name]
            if not dot or not matching:
                names = ", ".join(dict.fromkeys(f"{candidate.name}." for candidate in inner))
                raise _at("pass.option", f"`{stage.name}` has no pass for the option `{key}`", text, column, len(key),
                          expected=f"an option that begins with one of {names}")
            for index in matching:
                options = (*inner[index].options, (option, value, column))
                inner[index] = dataclasses.replace(inner[index], options=options, column=stage.column)
        passes += [_make_pass(candidate, text, context) for candidate in inner]
    return passes


def _read_stages(text: str) -> list[Stage]:
    stages: list[Stage] = []
    for part, column in _split(text, 0):
        match = re.fullmatch(r"\s*([A-Za-z_]\w*)\s*(?:\{(.*)\})?\s*", part, re.DOTALL)
        if match is None:
            raise _at("pass.syntax", "the pipeline cannot be read", text, column + len(part) - len(part.lstrip()),
                      max(len(part.strip()), 1), label="expected `name` or `name{option=value,...}`")
        options = []
        if match[2] is not None and match[2].strip():
            for piece, place in _split(match[2], column + match.start(2), text):
                key, equals, value = piece.partition("=")
                place += len(key) - len(key.lstrip())
                if not re.fullmatch(r"[A-Za-z_][\w.]*", key.strip()):
                    raise _at("pass.syntax", f"`{match[1]}` has an option that cannot be read", text, place,
                              max(len(piece.strip()), 1), label="expected `option=value`")
                options.append((key.strip(), value.strip() if equals else "true", place))
        stages.append(Stage(match[1], tuple(options), column + match.start(1)))
    return stages


def _split(text: str, offset: int, whole: str | None = None) -> list[tuple[str, int]]:
    """Split at the commas outside of braces, with the column where each part begins."""
    whole = text if whole is None else whole
    parts, start, opened = [], 0, []
    for position, character in enumerate(text):
        if character == "{":
            opened.append(position)
        elif character == "}":
            if not opened:
                raise _at("pass.syntax", "a brace closes that was not opened", whole, offset + position, 1)
            opened.pop()
        elif character == "," and not opened:
            parts.append((text[start:position], offset + start))
            start = position + 1
    if opened:
        raise _at("pass.syntax", "a brace is not closed", whole, offset + opened[-1], 1)
    parts.append((text[start:], offset + start))
    return [] if not text.strip() else parts


def _make_pass(stage: Stage, text: str, context: PassContext | None) -> Pass:
    try:
        kind = find_pass(stage.name, context)
    except IrcError as error:
        raise error.placed(text=_span(text, stage.column, len(stage.name))) from None
    hints = typing.get_type_hints(kind)
    names = [option.name for option in dataclasses.fields(kind) if option.init]
    values: dict[str, Any] = {}
    for key, value, column in stage.options:
        if key not in names:
            raise _at("pass.option", f"`{stage.name}` has no option `{key}`", text, column, len(key),
                      expected=", ".join(names) or "no options", help=did_you_mean(key, names))
        try:
            values[key] = _convert(hints[key], value)
        except ValueError:
            wanted = hints[key].__name__ if isinstance(hints[key], type) else str(hints[key]).replace("typing.", "")
            raise _at("pass.option", f"`{stage.name}`: option `{key}` cannot be {value!r}", text, column, len(key),
                      expected=wanted) from None
    return kind(**values)


def _convert(annotation: Any, text: str) -> Any:
    """An option's value from its text, by the type of its field; raises ValueError."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return None if text == "none" else _convert(next(each for each in arguments if each is not type(None)), text)
    if origin is tuple:
        inner = text[1:-1] if text.startswith("{") and text.endswith("}") else text
        return tuple(_convert(arguments[0], part.strip()) for part, _ in _split(inner, 0))
    choices = {"true": True, "false": False} if annotation is bool else {choice: choice for choice in arguments}
    if choices and text not in choices:
        raise ValueError(text)
    return choices[text] if choices else annotation(text)


def _span(text: str, column: int, length: int, label: str = "") -> SourceSpan:
    return SourceSpan("pipeline", 1, text, column + 1, length, label)


def _at(code: str, message: str, text: str, column: int, length: int, label: str = "", **more: Any) -> IrcError:
    return fail(code, message, text=_span(text, column, length, label), **more)


# -- running ---------------------------------------------------------------------------------------------------


class PassManager:
    """Runs a pipeline over a module, in place.

    `verify_each` verifies after each pass; `observe(stage, module)` is called after each. A pass that occurs again
    is the stage `fold.2`. Failures that are no coded errors end as `internal.pass`, and are handed to the context's
    `reproduce`: as passes are deterministic, the module before is made by repeating the passes before on a copy.
    """

    def __init__(self, pipeline: str | Sequence[Pass], context: PassContext | None = None, *,
                 verify_each: bool = False, observe: Callable[[str, Module], None] | None = None) -> None:
        self.context = context if context is not None else PassContext()
        self.passes = parse_pipeline(pipeline, self.context) if isinstance(pipeline, str) else list(pipeline)
        self.verify_each = verify_each
        self.observe = observe

    @property
    def stages(self) -> list[str]:
        """The stages' names, each unique."""
        seen: dict[str, int] = {}
        names = []
        for step in self.passes:
            name = step.pipeline_name()
            seen[name] = seen.get(name, 0) + 1
            names.append(name if seen[name] == 1 else f"{name}.{seen[name]}")
        return names

    def run(self, module: Module) -> bool:
        """Run every pass; returns whether any changed the module."""
        before = module.clone() if self.context.reproduce is not None else None
        any_changed = False
        for index, (stage, step) in enumerate(zip(self.stages, self.passes, strict=True)):
            is_ours = not is_user_code(type(step))
            try:
                with nullcontext() if is_ours else blaming("pass.raised", f"your pass `{stage}` raised an exception"):
                    any_changed |= step.run(module, self.context)
            except IrcError:
                raise
            except Exception as error:  # a bug of ours, reported as such with all that repeats it
                raise self._internal(index, stage, error, before) from error
            if self.verify_each:
                try:
                    verify(module)
                except IrcError as error:
                    if not is_ours:
                        raise
                    raise self._internal(index, stage, error, before) from error
            if self.observe is not None:
                self.observe(stage, module)
        return any_changed

    def _internal(self, index: int, stage: str, error: Exception, before: Module | None) -> IrcError:
        """The error for a pass that failed, having left the reproducer."""
        what = str(error) if isinstance(error, IrcError) else f"{type(error).__name__}: {error}"
        notes = [what, "".join(traceback.format_exception(error)[-2:]).rstrip()]
        help = "please report it"
        if before is not None and self.context.reproduce is not None:
            repeated = dataclasses.replace(self.context, reproduce=None, statistics={})
            PassManager(self.passes[:index], repeated).run(before)
            rest = ",".join(map(str, self.passes[index:]))
            help = self.context.reproduce(stage, before, f'irc opt module.irc -p "{rest}"', error)
        return fail("internal.pass", f"the pass `{stage}` failed", notes=notes, help=help)

