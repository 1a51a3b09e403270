"""`irc doc`: the reference page of an operation, pass, legality or verifier rule, target, device or code, made from its
declaration."""

from __future__ import annotations

import ast
import difflib
import inspect
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from irc import ops
from irc.cost import Cost, CostModel
from irc.device import BUILT_IN, built_in, file_text
from irc.diagnostics import CODES, fail
from irc.driver.code_pages import RULES, explain_code, is_code, wrapped
from irc.driver.models import BACKENDS, find_backend
from irc.driver.pipelines import find_pass, pass_names
from irc.kernel.rules import LEGALITY_RULES, UNUSED
from irc.kernel_costs import BUILT_IN as COST_TABLES
from irc.kernel_costs import find_costs
from irc.limits import LIMITS
from irc.named_pipelines import ALIASES
from irc.numbered_rules import NumberedRule
from irc.numerics import NUMERICS_RULES
from irc.op import REQUIRED, OperationDefinition
from irc.pass_manager import PassContext
from irc.plan_edits import EDITS
from irc.plan_file import BUNDLE_KEYS, KEYS, PRODUCT_KEYS, SIBLING_KEYS, TOP_KEYS
from irc.planner import FusionGraph, Partition, Planner
from irc.planners import PLANNERS
from irc.policy import GroupPattern, Policy
from irc.rewrite import Rule
from irc.scheduling import Scheduler
from irc.user_files import load_user_module, operations_of
from irc.verifier.rules import VERIFIER_RULES

PLANS = (
    "`irc plan MODEL -o PLAN.json` writes it, and the pipeline `default{fuse.plan=PLAN.json}` replays it: each entry "
    "becomes one kernel of exactly its members, or is rejected with the legality rule that it breaks."
)
# Declared by a decorator in a user's file, besides operations.
DECLARED = (Rule, GroupPattern, Policy, Planner, Scheduler, CostModel)
TOPICS = {
    "ops": "the operations, a line each",
    "passes": "the passes, a line each",
    "pipelines": "the named pipelines and those of the backends",
    "plans": "the file of a fusion plan, and the edits of `irc plan edit`",
    "planners": "what decides on all of a plan: the planners, the graph that they see, and models of cost",
    "rules": "the legality rules of kernels (F1, ...), the rules of well-formed IR (V1, ...), classes of numerics",
    "targets": "what each backend compiles for",
    "devices": "the GPUs that costs are estimated for, a line each",
    "costs": "the tables of times of ONNX Runtime's kernels, which decide rewrites for --target cpu",
    "codes": "the error codes with their exit statuses",
    "limits": "the resource limits for untrusted input, which --limit raises",
}


def doc(name: str = "", loads: Sequence[str] = ()) -> str:
    """The page of `name`; without a name, the topics. `loads` are Python files with a user's own passes, operations,
    rules, groups and policies. Raises `usage.unknown_name` for a name without a page."""
    modules = [load_user_module(path) for path in loads]
    context = PassContext(loaded=modules, operations=operations_of(modules))
    if not name:
        head = "irc doc NAME shows the page of an operation, pass, rule, backend, target, device or error code. Lists:"
        return "\n".join([head, *(f"  irc doc {topic:10} {contents}" for topic, contents in TOPICS.items())])
    pages: dict[str, Callable[[], str]] = {
        "ops": partial(list_ops, context),
        "passes": partial(list_passes, context),
        "plans": plans_page,
        "planners": planners_page,
        "rules": list_rules,
        "targets": list_targets,
        "devices": list_devices,
        "costs": list_costs,
        "codes": list_codes,
        "limits": list_limits,
        "pipelines": list_pipelines,
    }
    if name in pages:
        return pages[name]()
    if name in BUILT_IN:
        return file_text(name)
    table = {**context.operations, **ops.TABLE}
    named = [pass_page(name, context)] if name in pass_names(context) else []
    named += [op_page(table[name])] if name in table else []
    if named:  # a pass and an operation may have one name, as `split`
        return "\n\n".join(named)
    declared = {each.name: each for module in modules for each in vars(module).values() if isinstance(each, DECLARED)}
    if name in declared:
        return declared_page(declared[name])
    if is_code(name):
        return explain_code(name)
    if name in BACKENDS or any(name in find_backend(backend).TARGETS for backend in BACKENDS):
        return target_page(name)
    close = difflib.get_close_matches(name, [*page_names(context), *declared], n=3)
    raise fail(
        "usage.unknown_name",
        f"there is no page about `{name}`",
        help=f"did you mean {' or '.join(close)}?" if close else "irc doc",
    )


def page_names(context: PassContext | None = None) -> list[str]:
    """The names that `doc` accepts, apart from a user's own rules, groups and policies."""
    operations = {**(context.operations if context is not None else {}), **ops.TABLE}
    targets = [target for backend in BACKENDS for target in find_backend(backend).TARGETS]
    return [*TOPICS, *BUILT_IN, *operations, *pass_names(context), *BACKENDS, *targets, *RULES, *CODES]


def signature(definition: OperationDefinition) -> str:
    """`layer_norm(x, scale?, bias?, *, axis = -1, epsilon = 1e-05)`."""
    parts = [("*" if s.variadic else "") + s.name + ("?" if s.optional else "") for s in definition.operand_specs]
    attributes = [
        spec.name if spec.default is REQUIRED else f"{spec.name} = {spec.default!r}"
        for spec in definition.attribute_specs.values()
    ]
    return f"{definition.name}({', '.join(parts + (['*', *attributes] if attributes else []))})"


def op_page(definition: OperationDefinition) -> str:
    """Signature, kind, interfaces and traits, element types, the docstring, and the source of the body or type rule."""
    stated = [*map(str, definition.interfaces), *sorted(trait.value for trait in definition.traits)]
    lines = [signature(definition), f"  {'; '.join([definition.kind, *stated])}"]
    lines += [f"  {spec.name}: {spec.constraint.words}" for spec in definition.operand_specs]
    lines += ["", definition.doc, ""]
    path, line = place_of(definition.source_function)
    heading = "body" if definition.is_named else "type rule"
    return "\n".join([*lines, f"{heading} ({path}:{line}):", "", source_of(definition.source_function)])


def declared_page(declared: Rule | GroupPattern | Policy | Planner | Scheduler | CostModel) -> str:
    """The docstring and the source of a user's rule, group, policy, planner, schedule or model of cost."""
    kinds = {GroupPattern: "group", Policy: "policy", Planner: "planner", Scheduler: "schedule", CostModel: "cost"}
    kind = kinds.get(type(declared), "rule")
    numerics = f", {declared.numerics}" if isinstance(declared, Rule) else ""
    path, line = place_of(declared.function)
    docstring = inspect.cleandoc(declared.function.__doc__ or "")
    source = source_of(declared.function)
    return "\n".join([f"{declared.name}: a {kind}{numerics} ({path}:{line})", "", docstring, "", source])


def source_of(function: Callable[..., Any]) -> str:
    """A function's source without its docstring, which the page prints above."""
    lines = inspect.getsource(function).rstrip().splitlines()
    tree = ast.parse(textwrap.dedent("\n".join(lines)))
    body = tree.body[0].body if isinstance(tree.body[0], ast.FunctionDef) else []
    first = body[0] if body else None
    if len(body) > 1 and isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        del lines[first.lineno - 1 : first.end_lineno]
    return "\n".join(lines)


def pass_page(name: str, context: PassContext | None = None) -> str:
    """The docstring of a pass, its options, the pipelines that contain it, and its file."""
    import dataclasses

    kind = find_pass(name, context)
    lines = [name, "", inspect.cleandoc(kind.__doc__ or ""), ""]
    lines += [f"  {option.name}: {option.type} = {option.default!r}" for option in dataclasses.fields(kind)]
    pipelines = {f"`{alias}`": text for alias, text in ALIASES.items()}
    pipelines |= {f"of the backend {backend}": find_backend(backend).PIPELINE for backend in BACKENDS}
    lines += [
        f"  in the pipeline {which}: {text}"
        for which, text in pipelines.items()
        if name in text.replace("{", ",").split(",")
    ]
    lines.append(f"  file: {place_of(kind)[0]}")
    if name == "fuse":
        lines += ["", list_legality()]
    return "\n".join(lines)


def target_page(name: str) -> str:
    """A backend, or one of its targets: its docstring, targets and pipeline."""
    pages = []
    for backend in BACKENDS:
        module = find_backend(backend)
        if name not in (backend, *module.TARGETS):
            continue
        usage = f"--backend {backend}" + (f" --target {name}" if name != backend else "")
        lines = [f"{name}: irc compile MODEL {usage}", "", inspect.cleandoc(module.__doc__ or ""), ""]
        lines += [f"Targets: {inspect.cleandoc(module.Target.__doc__ or '')}", ""]
        lines.append(f"  targets: {', '.join(module.TARGETS)}")
        pages.append("\n".join([*lines, f"  pipeline: {module.PIPELINE}"]))
    return "\n\n".join(pages)


def place_of(thing: Any) -> tuple[str, int]:
    """The file and the line of a definition: a path in the source tree, or that of a user's own file."""
    if not thing.__module__.startswith("irc."):
        return inspect.getsourcefile(thing) or "", inspect.getsourcelines(thing)[1]
    folder = thing.__module__.removeprefix("irc.").split(".")[0]
    root = "" if folder in ("frontends", "passes", "backends") else "irc/"
    inside = thing.__module__.removeprefix("irc.").replace(".", "/")
    return f"{root}{inside}.py", inspect.getsourcelines(thing)[1]


def first_line(text: str | None) -> str:
    return inspect.cleandoc(text or "").split("\n")[0]


def list_ops(context: PassContext) -> str:
    table = {**context.operations, **ops.TABLE}
    width = max(map(len, table))
    return "\n".join(
        f"{name:{width}}  {definition.kind:9}  {first_line(definition.doc)}"
        for name, definition in sorted(table.items())
    )


def list_passes(context: PassContext) -> str:
    return "\n".join(f"{name:14} {first_line(find_pass(name, context).__doc__)}" for name in pass_names(context))


def list_rules() -> str:
    well_formed = ["well-formed IR (irc/verifier/rules.py):", *_listed(VERIFIER_RULES)]
    numerics = ["classes of numerics (irc/numerics.py):", *_listed(NUMERICS_RULES)]
    return "\n".join([list_legality(), *well_formed, *numerics])


def list_legality() -> str:
    unused = wrapped("  not in use: ", ", ".join(UNUSED))
    return "\n".join(["legality of kernels (irc/kernel/rules.py):", *_listed(LEGALITY_RULES), unused])


def _listed(table: dict[str, NumberedRule]) -> list[str]:
    return [wrapped(f"  {number:4} ", f"{rule.statement}  [{rule.code}]") for number, rule in table.items()]


def plans_page() -> str:
    """The keys of a plan file, and the edits."""
    tables = {"The file": TOP_KEYS, "An entry of `siblings`": SIBLING_KEYS, "An entry of `groups`": KEYS,
              "An entry of `products`": PRODUCT_KEYS, "An entry of `bundles`": BUNDLE_KEYS,
              "Edits of `irc plan edit`, made in order": {f"--{name}": inspect.cleandoc(edit.__doc__ or "")
                                                          for name, edit in EDITS.items()}}  # fmt: skip
    lines = ["plans: a fusion plan as a file of JSON", ""]
    lines += [wrapped("", PLANS), ""]
    for title, table in tables.items():
        lines += [f"{title}:", *(wrapped(f"  {key:11} ", " ".join(text.split())) for key, text in table.items()), ""]
    return "\n".join(lines).rstrip()


def planners_page() -> str:
    """The planners, and what a user's planner and model of cost may use."""
    lines = ["planners: fuse{planner=NAME}, or fuse{planner=FILE.py:NAME} for a function with @planner", ""]
    lines += [wrapped(f"  {name:7} ", " ".join(_paragraphs(each.function))) for name, each in PLANNERS.items()]
    lines += ["", "A planner returns sets of units of its graph, such as a Partition. The graph:", "",
              inspect.cleandoc(FusionGraph.__doc__ or ""), ""]  # fmt: skip
    for title, kind in (("graph", FusionGraph), ("partition", Partition)):
        for name, member in vars(kind).items():
            if not name.startswith("_") and inspect.isfunction(member):
                stated = [each for each in inspect.signature(member).parameters if each != "self"]
                lines.append(wrapped(f"  {title}.{name}({', '.join(stated)}): ", _paragraphs(member)[0]))
    lines += ["", "Models of cost: fuse{cost=FILE.py:NAME} for a function with @cost, of a launch and a device.", "",
              inspect.cleandoc(Cost.__doc__ or "")]  # fmt: skip
    return "\n".join(lines)


def _paragraphs(function: Callable[..., Any]) -> list[str]:
    return [" ".join(part.split()) for part in inspect.cleandoc(function.__doc__ or "").split("\n\n")]


def list_targets() -> str:
    return "\n".join(f"{name}: {', '.join(find_backend(name).TARGETS)}" for name in BACKENDS)


def list_devices() -> str:
    return "\n".join(f"{name:7} {built_in(name).summary}" for name in BUILT_IN)


def list_costs() -> str:
    return "\n".join(wrapped(f"{name:7} ", find_costs(name).summary) for name in COST_TABLES)


def list_codes() -> str:
    return "\n".join(f"{code:32} exit {int(entry.exit_code):<3} {entry.summary}" for code, entry in CODES.items())


def list_limits() -> str:
    width = max(map(len, LIMITS))
    return "\n".join(f"{name:{width}}  {entry.value:>12} {entry.unit:9}  {entry.bounds}"
                     for name, entry in LIMITS.items())  # fmt: skip


def list_pipelines() -> str:
    lines = [f"{alias}: {text}" for alias, text in ALIASES.items()]
    return "\n".join([*lines, *(f"backend {name}: {find_backend(name).PIPELINE}" for name in BACKENDS)])
