"""Pipelines as text: `"fold,cse,fuse{policy=greedy}"` becomes a list of passes.

The name of a pass is the name of its module in `passes/`, which is imported when a pipeline first names it: there is no
registry. (A module cannot be called `raise.py`; a trailing underscore is not part of the name.) In a file that `--load`
names, the name follows from the class: `class DropCasts(Pass)` is `drop_casts`.
"""

from __future__ import annotations

import dataclasses
import importlib
import keyword
import pkgutil
import re
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from irc.diagnostics import IrcError, SourceSpan, check_argument, did_you_mean, fail
from irc.named_pipelines import ALIASES
from irc.pass_manager import Pass, PassContext
from irc.user_code import blaming, is_user_code

STAGE = re.compile(r"\s*([A-Za-z_]\w*)\s*(?:\{(.*)\})?\s*", re.DOTALL)
OPTION = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(?:=(.*))?", re.DOTALL)


# -- finding passes --------------------------------------------------------------------------------------------


def pass_names(context: PassContext | None = None) -> list[str]:
    """The names of all passes: the modules of `passes/`, and the passes of loaded files."""
    return [*_built_in_passes(), *sorted(_loaded_passes(context))]


@cache
def _built_in_passes() -> tuple[str, ...]:
    package = importlib.import_module("irc.passes")
    modules = [entry.name for entry in pkgutil.iter_modules(package.__path__) if not entry.name.startswith("_")]
    return tuple(sorted(name.rstrip("_") for name in modules))


def find_pass(name: str, context: PassContext | None = None) -> type[Pass]:
    """The class of the pass called `name`; one of a loaded file has precedence. Raises `pass.unknown`."""
    loaded = _loaded_passes(context)
    if name in loaded:
        return loaded[name]
    names = pass_names(context)
    if name not in names:
        raise fail("pass.unknown", f"there is no pass `{name}`",
                   help=did_you_mean(name, names, f"passes: {', '.join(names)}"))
    (kind,) = _passes_of(importlib.import_module(f"irc.passes.{name + '_' if keyword.iskeyword(name) else name}"))
    return kind


def _loaded_passes(context: PassContext | None) -> dict[str, type[Pass]]:
    modules = context.loaded if context is not None else ()
    return {kind.pipeline_name(): kind for module in modules for kind in _passes_of(module)}


def _passes_of(module: types.ModuleType) -> list[type[Pass]]:
    """The passes that a module defines, without imported ones."""
    classes = [thing for thing in vars(module).values() if isinstance(thing, type) and issubclass(thing, Pass)]
    return [kind for kind in classes if kind.__module__ == module.__name__]


# -- reading pipelines -----------------------------------------------------------------------------------------


class Option(NamedTuple):
    """An option as text; a bare key has the value "true". Columns count from 0, for carets."""

    key: str
    value: str
    column: int


class Stage(NamedTuple):
    """A name of a pipeline with its options."""

    name: str
    options: list[Option]
    column: int


def parse_pipeline(text: str, context: PassContext | None = None,
                   aliases: Mapping[str, str] | None = None) -> list[Pass]:
    """The passes that a pipeline names, with their options set.

    `aliases` maps names to pipelines; an option of an alias names the pass: `default{fuse.policy=none}`. Raises
    `pass.syntax`, `pass.unknown` and `pass.option`, with a caret.
    """
    return [_make_pass(stage, text, context) for stage in read_stages(text, aliases)]


def read_stages(text: str, aliases: Mapping[str, str] | None = None) -> list[Stage]:
    """The stages of a pipeline, with those that `aliases` name. Raises `pass.syntax` and `pass.option`."""
    stages: list[Stage] = []
    for stage in _read_stages(text):
        if aliases is None or stage.name not in aliases:
            stages.append(stage)
            continue
        inner = _read_stages(aliases[stage.name])
        for option in stage.options:
            name, dot, key = option.key.partition(".")
            receivers = [each for each in inner if dot and each.name == name]
            if not receivers:
                names = ", ".join(dict.fromkeys(f"{each.name}." for each in inner))
                raise _at("pass.option", f"`{stage.name}` has no pass for the option `{option.key}`", text,
                          option.column, len(option.key), expected=f"an option that begins with one of {names}")
            for receiver in receivers:
                receiver.options.append(option._replace(key=key))
        stages += [each._replace(column=stage.column) for each in inner]
    return stages


def written(stages: Iterable[Stage]) -> str:
    """The text of a pipeline of these stages."""
    texts = [(each.name, ",".join(f"{option.key}={option.value}" for option in each.options)) for each in stages]
    return ",".join(f"{name}{{{options}}}" if options else name for name, options in texts)


def leaving_out(pipeline: str, names: Collection[str]) -> str:
    """The pipeline without the passes of these names, of which named pipelines are written out."""
    if not names:
        return pipeline
    return written(stage for stage in read_stages(pipeline, ALIASES) if stage.name not in names)


def options_of(text: str) -> list[Option]:
    """All options of a pipeline. Raises `pass.syntax`."""
    return [option for stage in _read_stages(text) for option in stage.options]


def _read_stages(text: str) -> list[Stage]:
    check_argument("pipeline", text, str, 'a text, such as "default"')
    stages = []
    for start, stop in _parts(text, 0, len(text)):
        stage = _matched(STAGE, text, start, stop, "the pipeline cannot be read", "`name` or `name{option=value,...}`")
        message = f"`{stage[1]}` has an option that cannot be read"
        places = _parts(text, *stage.span(2)) if stage[2] else ()
        matches = [_matched(OPTION, text, *place, message, "`option=value`") for place in places]
        options = [Option(each[1], "true" if each[2] is None else each[2].strip(), each.start(1)) for each in matches]
        for index, (key, _, column) in enumerate(options):
            if any(key == other.key for other in options[:index]):
                raise _at("pass.option", f"`{stage[1]}` has the option `{key}` twice", text, column, len(key))
        stages.append(Stage(stage[1], options, stage.start(1)))
    return stages


def _matched(form: re.Pattern[str], text: str, start: int, stop: int, message: str, expected: str) -> re.Match[str]:
    """Match a part of a pipeline; raises `pass.syntax` with `message`."""
    match = form.fullmatch(text, start, stop)
    if match is None:
        part = text[start:stop]
        column = stop - len(part.lstrip())
        raise _at("pass.syntax", message, text, column, max(len(part.strip()), 1), label=f"expected {expected}")
    return match


def _parts(text: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """The start and end of each part between commas outside braces; none for an empty text."""
    opened: list[int] = []
    begin = start
    for mark in re.compile("[{},]").finditer(text, start, stop):
        if mark[0] == "{":
            opened.append(mark.start())
        elif mark[0] == "}":
            if not opened:
                raise _at("pass.syntax", "a brace closes that was not opened", text, mark.start(), 1)
            opened.pop()
        elif not opened:
            yield begin, mark.start()
            begin = mark.end()
    if opened:
        raise _at("pass.syntax", "a brace is not closed", text, opened[-1], 1)
    if begin > start or text[start:stop].strip():
        yield begin, stop


def _make_pass(stage: Stage, text: str, context: PassContext | None) -> Pass:
    try:
        kind = find_pass(stage.name, context)
    except IrcError as error:
        raise error.placed(text=_span(text, stage.column, len(stage.name))) from None
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind) if field.init]
    values: dict[str, Any] = {}
    for key, value, column in stage.options:
        if key not in names:
            help = did_you_mean(key, names)
            if key in vars(kind).get("__annotations__", ()) and is_user_code(kind):
                help = f"declare {kind.__name__} with @dataclass"
            raise _at("pass.option", f"`{stage.name}` has no option `{key}`", text, column, len(key),
                      expected=", ".join(names) or "no options", help=help)
        try:
            values[key] = _convert(hints[key], value)
        except ValueError:
            type_name = hints[key].__name__ if isinstance(hints[key], type) else str(hints[key]).replace("typing.", "")
            raise _at("pass.option", f"`{stage.name}`: option `{key}` cannot be {value!r}", text, column, len(key),
                      expected=type_name) from None
    missing = [field.name for field in dataclasses.fields(kind)
               if field.init and field.name not in values and _is_required(field)]  # fmt: skip
    if missing:
        raise _at("pass.option", f"`{stage.name}` needs the option `{missing[0]}`", text, stage.column,
                  len(stage.name), expected=f"{stage.name}{{{missing[0]}=...}}")  # fmt: skip
    with blaming("pass.raised", f"your pass `{stage.name}` raised an exception", kind):
        return kind(**values)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _convert(annotation: Any, text: str) -> Any:
    """An option's value from its text, by the type of its field; raises ValueError."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return None if text == "none" else _convert(next(each for each in arguments if each is not type(None)), text)
    if origin is tuple:
        inner = text[1:-1] if text.startswith("{") and text.endswith("}") else text
        return tuple(_convert(arguments[0], inner[slice(*place)].strip()) for place in _parts(inner, 0, len(inner)))
    choices = {"true": True, "false": False} if annotation is bool else {choice: choice for choice in arguments}
    if choices and text not in choices:
        raise ValueError(text)
    return choices[text] if choices else annotation(text)


def _span(text: str, column: int, length: int, label: str = "") -> SourceSpan:
    return SourceSpan("pipeline", 1, text, column + 1, length, label)


def _at(code: str, message: str, text: str, column: int, length: int, label: str = "", **more: Any) -> IrcError:
    return fail(code, message, text=_span(text, column, length, label), **more)
