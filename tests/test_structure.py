"""Structure: imports point to lower layers, files and functions stay short, start-up imports little."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

import irc.driver

ROOT = Path(__file__).resolve().parent.parent
LONGEST_FILE = 600
LONGEST_FUNCTION = 60
# The layers of ARCHITECTURE.md, lowest first, and the order within each. A module imports only what comes before it;
# within a package (`irc.kernel`) the order is any in which no import points back.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("irc._version", "irc.diagnostics", "irc.formats", "irc.limits", "irc.partial", "irc.files", "irc.dims",
     "irc.dtypes", "irc.device", "irc.kernel_costs", "irc.order", "irc.disjoint_sets", "irc.numbered_rules",
     "irc.schedule_options", "irc.products", "irc.stages", "irc.onnx_runtime", "irc.torch_arrays", "irc.displays"),
    ("irc.types", "irc.numerics", "irc.weights", "irc.metadata", "irc.literals", "irc.index_map", "irc.interfaces",
     "irc.ir", "irc.cloning", "irc.equality", "irc.printer", "irc.module"),
    ("irc.user_code", "irc.signature", "irc.execution", "irc.scalar_builder", "irc.op", "irc.sizes"),
    ("irc.ops",),
    ("irc.parser", "irc.verifier",
     "irc.interpreter", "irc.constants", "irc.ranges", "irc.shape_analysis", "irc.kernel"),
    ("irc.user_files", "irc.pattern", "irc.remarks", "irc.library_calls", "irc.group", "irc.cost", "irc.plan",
     "irc.plan_file", "irc.pass_manager", "irc.rewrite", "irc.simplify", "irc.named_pipelines",
     "irc.plan_edits", "irc.plan_difference", "irc.policy", "irc.scheduling", "irc.legality", "irc.group_graph",
     "irc.cover", "irc.zero_one", "irc.planner", "irc.planners"),
    ("irc.frontends", "irc.passes", "irc.backends"),
    ("irc.driver", "irc.cli", "irc.__main__"),
)  # fmt: skip
# Packages whose modules are mutually recursive: operators of dims are functions of dims, which proofs simplify, which
# substitute and compute. Even there imports at the top of modules have no cycle.
RECURSIVE = ("irc.dims",)
SIDES = ("irc.frontends", "irc.passes", "irc.backends")


def modules() -> dict[str, Path]:
    """Every module of the package by its installed name."""
    paths = {}
    for folder in ("irc", "frontends", "passes", "backends"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "templates" in path.parts:
                continue
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts if parts[0] == "irc" else ("irc", *parts)
            paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return paths


MODULES = modules()


class Import(NamedTuple):
    """`from module import name`, or `import module`."""

    module: str
    name: str | None
    is_deferred: bool  # inside a function, or for types only


def imports_of(importer: str) -> list[Import]:
    """What a module imports of irc, inside functions and for types too, and by `import_module` of a constant."""
    path, imports = MODULES[importer], list[Import]()
    package = importer if path.name == "__init__.py" else importer.rpartition(".")[0]

    def add(module: str, name: str | None, is_deferred: bool) -> None:
        if module.split(".")[0] == "irc":
            inner = f"{module}.{name}"
            imports.append(Import(inner, None, is_deferred) if inner in MODULES else Import(module, name, is_deferred))

    def visit(node: ast.AST, is_deferred: bool) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                add(alias.name, None, is_deferred)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) + 1 - node.level]) if node.level else ""
            for alias in node.names:
                add(".".join(filter(None, (base, node.module))), alias.name, is_deferred)
        elif isinstance(node, ast.Call) and "import_module" in ast.dump(node.func):
            if node.args and isinstance(node.args[0], ast.Constant):
                add(str(node.args[0].value), None, is_deferred)
        is_inner = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.iter_child_nodes(node):
            visit(child, is_deferred or is_inner or is_for_types)

    visit(ast.parse(path.read_text()), False)
    return imports


IMPORTS = {name: imports_of(name) for name in MODULES if name != "irc"}


def position_of(module: str) -> tuple[int, int]:
    """The layer of a module, and the place of it or its package in the layer."""
    for layer, members in enumerate(LAYERS):
        for place, member in enumerate(members):
            if module == member or module.startswith(member + "."):
                return layer, place
    assert module == "irc", f"{module} is in no layer: add it to LAYERS and to ARCHITECTURE.md"
    return len(LAYERS) - 1, -1  # the package itself, which loads the others when they are used


def layer_of(module: str) -> int:
    return position_of(module)[0]


@pytest.mark.parametrize("module", IMPORTS)
def test_imports_point_down(module: str) -> None:
    later = [other for other, *_ in IMPORTS[module] if position_of(other) > position_of(module)]
    assert not later, f"{module} imports {later}, which come after it in LAYERS"
    side = next((side for side in SIDES if module.startswith(side)), None)
    if side is not None:
        across = [other for other, *_ in IMPORTS[module] if other.startswith(SIDES) and not other.startswith(side)]
        assert not across, f"{module} imports {across}: the driver joins these"


# Parameters of commands as Python functions that name no output.
READ_PATHS = {"inputs", "one", "other", "model", "folder"}


def test_functions_that_write_files_do_not_replace_their_inputs() -> None:
    """Commands as Python functions with a path that is written are `guarded` (`irc.files`)."""
    for function, module in sorted(irc.driver._MODULES.items()):
        for node in ast.parse(MODULES[module].read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name == function:
                parameters = [each for each in (*node.args.args, *node.args.kwonlyargs) if each.annotation is not None]
                paths = {each.arg for each in parameters if re.search(r"\bPath\b", ast.unparse(each))}
                decorators = [ast.unparse(each) for each in node.decorator_list]
                is_guarded = "guarded()" in decorators or "typing.overload" in decorators
                assert paths <= READ_PATHS or is_guarded, f"{function} writes {paths - READ_PATHS}"


def test_warnings_name_the_line_of_the_caller() -> None:
    """All are given by `warn_caller`, which finds that line."""
    for module, path in MODULES.items():
        if module != "irc.user_code":
            names = {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text()))
                     if isinstance(node, (ast.Attribute, ast.ImportFrom))}  # fmt: skip
            used = [name for name in names if re.search(r"\bwarnings\b.*\bwarn(_explicit)?\b", name)]
            assert not used, f"{module} calls {used}"


def test_passes_do_not_run_one_another() -> None:
    """What passes share is in modules without a pass, underscored; pipelines are run by drivers."""
    passes = [name for name in MODULES if re.fullmatch(r"irc\.passes\.[a-z]\w*", name)]
    assert "irc.passes.fold" in passes
    for module in MODULES:
        if module.startswith("irc.passes."):
            assert not {each.module for each in IMPORTS[module]} & set(passes), f"{module} imports a pass"
            assert "PassManager" not in MODULES[module].read_text(), f"{module} runs passes"


def test_imports_are_read_wherever_they_stand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "sample.py"
    path.write_text("""
from irc import dims
if TYPE_CHECKING:
    from irc.interpreter import Interpreter
def f():
    import irc.printer
    from . import verifier
    return import_module("irc.parser")
""")
    monkeypatch.setitem(MODULES, "irc.sample", path)
    assert imports_of("irc.sample") == [
        Import("irc.dims", None, False), Import("irc.interpreter", "Interpreter", True),
        Import("irc.printer", None, True), Import("irc.verifier", None, True), Import("irc.parser", None, True),
    ]  # fmt: skip
    assert circles({"a": ["b"], "b": ["c"], "c": ["b"], "d": ["a"]}) == [["b", "c"]]


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The modules that import one another, directly or through others (Tarjan's strongly connected components)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    cycles: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = lowest[name] = len(number)
        stack.append(name)
        for other in graph.get(name, ()):
            if other not in number:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in stack:
                lowest[name] = min(lowest[name], number[other])
        if lowest[name] == number[name]:
            component = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(component) > 1:
                cycles.append(sorted(component))

    for name in graph:
        if name not in number:
            visit(name)
    return cycles


def test_no_import_is_circular() -> None:
    """A package is loaded before its modules, by any importer: such imports do not count."""

    def graph(deferred: bool) -> dict[str, list[str]]:
        return {name: [each.module for each in imports if (deferred or not each.is_deferred)
                       and each.module != name and not name.startswith(each.module + ".")]
                for name, imports in IMPORTS.items()}  # fmt: skip

    assert not circles(graph(deferred=False))
    recursive = [each for each in circles(graph(deferred=True)) if not all(name.startswith(RECURSIVE) for name in each)]
    assert not recursive


@pytest.mark.parametrize("module", IMPORTS)
def test_no_private_name_is_imported(module: str) -> None:
    """A module whose name begins with an underscore belongs to its package, any other such name to its module."""
    for imported in IMPORTS[module]:
        parts = imported.module.split(".")
        for index, part in enumerate(parts):
            inside = ".".join(parts[:index])
            assert not part.startswith("_") or module == inside or module.startswith(inside + "."), imported
        assert not re.match(r"_(?!_)", imported.name or ""), imported


def private_attributes(tree: ast.AST) -> set[str]:
    """The private attributes and methods of the classes of a module."""
    methods = (node for each in ast.walk(tree) if isinstance(each, ast.ClassDef) for node in each.body)
    names = {node.name for node in methods if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    stored = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
    return {name for name in names | {node.attr for node in stored} if re.match(r"_(?!_)", name)}


def test_no_private_attribute_is_used_elsewhere() -> None:
    trees = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
    defined = {name: private_attributes(tree) for name, tree in trees.items()}
    everywhere = set().union(*defined.values())
    for name, tree in trees.items():
        modules_imported = {alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                            for alias in node.names if f"{node.module}.{alias.name}" in MODULES}  # fmt: skip
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not re.match(r"_(?!_)", node.attr):
                continue
            holder = node.value.id if isinstance(node.value, ast.Name) else ast.unparse(node.value)
            assert holder not in modules_imported, f"{name}:{node.lineno}: {ast.unparse(node)}"
            is_own = holder in ("self", "cls", "super()") or node.attr in defined[name]
            assert is_own or node.attr not in everywhere, f"{name}:{node.lineno}: {ast.unparse(node)}"


def core_lines() -> dict[str, int]:
    """Lines of each module of layers 0 to 5 without the op table."""
    return {
        name: len(path.read_text().splitlines())
        for name, path in MODULES.items()
        if name != "irc" and layer_of(name) <= 5 and not name.startswith("irc.ops")
    }


FOLDERS = ("irc", "frontends", "passes", "backends", "tests", "examples")


def test_files_and_functions_are_short() -> None:
    long: dict[str, int] = {}
    for path in (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))):
        if "golden" in path.parts:
            continue
        name, text = path.relative_to(ROOT).as_posix(), path.read_text()
        if len(text.splitlines()) > LONGEST_FILE:
            long[name] = len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    long[f"{name}:{node.name}"] = length
    assert not long, f"longer than {LONGEST_FILE} (files) or {LONGEST_FUNCTION} (functions) lines: {long}"


def test_architecture_names_every_module() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rows = {int(number): row for number, row in re.findall(r"^\| (\d) \| (`.*) \|$", text, re.MULTILINE)[: len(LAYERS)]}
    for number, modules_there in enumerate(LAYERS):
        words = re.findall(r"\w+", " ".join(re.findall(r"`[^`]+`", rows[number])))
        missing = [name for name in modules_there if name.rpartition(".")[2] not in {*words, "_version"}]
        assert not missing, f"the row of {number} in ARCHITECTURE.md lacks {missing}"
        if number < 6:
            listed = re.findall(r"`(\w+)/?`", re.sub(r"\([^)]*\)", "", rows[number]))
            gone = [word for word in listed if f"irc.{word}" not in modules_there]
            assert not gone, f"the row of {number} in ARCHITECTURE.md has {gone}, which are no modules of the layer"


def topological() -> list[str]:
    """All modules, each after those that it imports at its top; a package is read before its modules."""
    done: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in done or name == "irc":
            return
        is_package = MODULES[name].name == "__init__.py"
        for imported in sorted(IMPORTS[name], key=str):
            if not imported.is_deferred and not (is_package and imported.module.startswith(name)):
                visit(imported.module)
        done[name] = None

    for name in sorted(IMPORTS):
        visit(name)
    return list(done)


READING_ORDER = re.compile(r"(<!-- reading-order[^\n]*-->\n)(.*?)(<!-- end of reading-order -->)", re.DOTALL)


def reading_order() -> str:
    """The modules of the core, each after those that it imports, with lines and the first line of their docstrings."""
    rows = ["| layer | module | lines | |", "|---|---|---|---|"]
    lines_of, places = core_lines(), {name: place for place, name in enumerate(topological())}
    for name, lines in sorted(lines_of.items(), key=lambda item: (position_of(item[0]), places[item[0]])):
        said = (ast.get_docstring(ast.parse(MODULES[name].read_text())) or "").split("\n")[0]
        rows.append(f"| {layer_of(name)} | `{name.removeprefix('irc.')}` | {lines} | {said} |")
    return "\n".join([*rows, f"| | all | {sum(core_lines().values())} | layers 0 to 5 without `ops/` |", ""])


def test_reading_order_is_true(request: pytest.FixtureRequest) -> None:
    """ARCHITECTURE.md lists every module of the core; counts may have moved by a tenth. Renew it with --update."""
    path = ROOT / "ARCHITECTURE.md"
    table = READING_ORDER.search(path.read_text())
    assert table is not None
    if request.config.getoption("--update"):
        path.write_text(READING_ORDER.sub(lambda match: match[1] + reading_order() + match[3], path.read_text()))
        return
    listed = {row.split("`")[1]: int(row.split("|")[3]) for row in table[2].splitlines() if "`" in row.split("|")[2]}
    lines = {name.removeprefix("irc."): count for name, count in core_lines().items()}
    assert sorted(listed) == sorted(lines)
    moved = {name: count for name, count in lines.items() if abs(listed[name] - count) > 10 + count // 10}
    assert not moved, f"{moved}: pytest tests/test_structure.py --update"


def test_no_exported_name_is_a_submodule() -> None:
    import irc

    assert not [name for name in irc.__all__ if f"irc.{name}" in MODULES]


def test_type_checkers_see_the_public_names() -> None:
    import irc

    tree = ast.parse((ROOT / "irc/__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = (each for each in block.body if isinstance(each, ast.ImportFrom))
    seen = {alias.asname: each.module for each in imports for alias in each.names}
    assert seen == irc._exports


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import irc", ["numpy", "onnx", "torch", "triton", "sympy", "lark", "click"]),
        ("import irc.cli.main", ["numpy", "onnx", "torch", "triton", "sympy", "lark", "rich"]),
        (
            "import irc.driver, irc.frontends.onnx, irc.backends.onnx, irc.backends.triton",
            ["torch", "triton", "sympy", "onnxruntime"],
        ),
        (
            "import irc.driver.compiling, irc.driver.models as m; c = m.Settings(target='cpu').context('onnx');"
            "m.read_pipeline(m.find_backend('onnx').PIPELINE, c); import irc.backends.onnx.emitter",
            ["torch", "triton", "sympy", "onnxruntime", "irc.kernel", "irc.group"],
        ),
    ],
)  # fmt: skip
def test_start_up_imports_little(statement: str, absent: list[str]) -> None:
    script = f"{statement}\nimport sys\nprint([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", [name for name in MODULES if name != "irc.ir"])
def test_bodies_of_operations_are_taken_by_one_method(module: str) -> None:
    """`Operation.body` and `Operation.operand_types` are not written differently elsewhere."""
    text = MODULES[module].read_text()
    assert not re.search(r"\.body\(.*\.attributes\)", text), "use operation.body()"
    types = re.search(r"None if (\w+) is None else \1\.type for \1 in operation\.operands", text)
    assert not types, "use operation.operand_types"
