"""doc: the reference page of an operation, pass, legality or verifier rule, target or code."""

from __future__ import annotations

import difflib
import inspect
from pathlib import Path
from typing import Any

from irc import ops, verifier
from irc.diagnostics import CODES, fail
from irc.driver.explaining import explain_code
from irc.driver.models import ALIASES, BACKENDS, find_backend
from irc.op import REQUIRED, OperationDefinition
from irc.pass_manager import find_pass, pass_names
from irc.plan import RULES, statement

TOPICS = ("ops", "passes", "rules", "targets", "codes", "pipelines")


def doc(name: str = "") -> str:
    """The page of `name`; without a name, what there are pages of. Raises `usage.doc` for an unknown name."""
    if not name:
        return f"irc doc NAME: an operation, pass, rule, target or code; or one of: {', '.join(TOPICS)}"
    pages = {
        "ops": list_ops,
        "passes": list_passes,
        "rules": list_rules,
        "targets": list_targets,
        "codes": list_codes,
        "pipelines": list_pipelines,
    }
    if name in pages:
        return pages[name]()
    if name in ops.TABLE:
        return op_page(ops.TABLE[name])
    if name in pass_names():
        return pass_page(name)
    if name in verifier.RULES:
        return f"{name}: {verifier.RULES[name].statement}"
    if name in CODES or name in RULES:
        return explain_code(name)
    targets = [target for backend in BACKENDS for target in find_backend(backend).TARGETS]
    if name in BACKENDS or name in targets:
        return target_page(name)
    known = [*ops.TABLE, *pass_names(), *verifier.RULES, *RULES, *CODES, *TOPICS, *BACKENDS, *targets]
    close = difflib.get_close_matches(name, known, n=3)
    raise fail(
        "usage.unknown_name",
        f"there is no page about `{name}`",
        help=f"did you mean {' or '.join(close)}?" if close else "irc doc",
    )


def signature(definition: OperationDefinition) -> str:
    """`layer_norm(x, scale?, bias?, *, axis = -1, epsilon = 1e-05)`."""
    parts = [("*" if s.variadic else "") + s.name + ("?" if s.optional else "") for s in definition.operand_specs]
    attributes = [
        spec.name if spec.default is REQUIRED else f"{spec.name} = {spec.default!r}"
        for spec in definition.attribute_specs.values()
    ]
    return f"{definition.name}({', '.join(parts + (['*', *attributes] if attributes else []))})"


def op_page(definition: OperationDefinition) -> str:
    """Signature, kind, element types, the docstring, and the source of the body or type rule."""
    lines = [signature(definition), f"  {definition.kind}; {', '.join(sorted(definition.traits)) or 'no traits'}"]
    lines += [f"  {spec.name}: {spec.constraint.words}" for spec in definition.operand_specs]
    lines += ["", definition.doc, ""]
    path, line = place_of(definition.source_function)
    heading = "body" if definition.is_named else "type rule"
    return "\n".join(
        [*lines, f"{heading} ({path}:{line}):", "", inspect.getsource(definition.source_function).rstrip()]
    )


def pass_page(name: str) -> str:
    """The docstring of a pass, its options, its file and where it stands in irc's pipelines."""
    import dataclasses

    kind = find_pass(name)
    lines = [name, "", inspect.cleandoc(kind.__doc__ or ""), ""]
    lines += [f"  {option.name}: {option.type} = {option.default!r}" for option in dataclasses.fields(kind)]
    lines += [
        f"  in pipeline `{alias}`: {text}"
        for alias, text in ALIASES.items()
        if name in text.replace("{", ",").split(",")
    ]
    lines.append(f"  file: {place_of(kind)[0]}")
    if name == "fuse":
        lines += ["", list_rules()]
    return "\n".join(lines)


def target_page(name: str) -> str:
    """A backend, or one of its targets: what it writes, what it compiles for, the passes before it."""
    pages = []
    for backend in BACKENDS:
        module = find_backend(backend)
        if name not in (backend, *module.TARGETS):
            continue
        usage = f"--backend {backend}" + (f" --target {name}" if name != backend else "")
        lines = [f"{name}: irc compile MODEL {usage}", "", inspect.cleandoc(module.__doc__ or ""), ""]
        lines += [inspect.cleandoc(module.Target.__doc__ or ""), "", f"  targets: {', '.join(module.TARGETS)}"]
        pages.append("\n".join([*lines, f"  pipeline: {module.PIPELINE}"]))
    return "\n\n".join(pages)


def place_of(thing: Any) -> tuple[str, int]:
    """The file of a definition as it is called in the source tree, and the line."""
    path = Path(inspect.getsourcefile(thing) or "")
    return "/".join(path.parts[-3:]) if "named" in path.parts else "/".join(path.parts[-2:]), inspect.getsourcelines(
        thing
    )[1]


def first_line(text: str | None) -> str:
    return inspect.cleandoc(text or "").split("\n")[0]


def list_ops() -> str:
    width = max(map(len, ops.TABLE))
    return "\n".join(
        f"{name:{width}}  {definition.kind:9}  {first_line(definition.doc)}"
        for name, definition in sorted(ops.TABLE.items())
    )


def list_passes() -> str:
    return "\n".join(f"{name:14} {first_line(find_pass(name).__doc__)}" for name in pass_names())


def list_rules() -> str:
    lines = ["legality of kernels (irc/plan.py, irc/kernel):"]
    lines += [f"  {number:4} {statement(number)}  [{code}]" for number, (code, _) in RULES.items()]
    lines += ["well-formed IR (irc/verifier.py):"]
    return "\n".join([*lines, *(f"  {number:4} {rule.statement}" for number, rule in verifier.RULES.items())])


def list_targets() -> str:
    return "\n".join(f"{name}: {', '.join(find_backend(name).TARGETS)}" for name in BACKENDS)


def list_codes() -> str:
    return "\n".join(f"{code:32} exit {int(entry.exit_code):<3} {entry.summary}" for code, entry in CODES.items())


def list_pipelines() -> str:
    lines = [f"{alias}: {text}" for alias, text in ALIASES.items()]
    return "\n".join([*lines, *(f"backend {name}: {find_backend(name).PIPELINE}" for name in BACKENDS)])
