"""Structure: imports point to lower layers, files and functions stay short, start-up imports little."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LONGEST_FILE = 600
LONGEST_FUNCTION = 60
# Files and functions that were longer when these limits were introduced, with their lengths then: they may only shrink.
OVERSIZED = {
    "irc/ops/named/attention.py:attention": 62,
}  # fmt: skip
# The layers of ARCHITECTURE.md, lowest first. A module may import from its own layer and from every layer below.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("irc._version", "irc.diagnostics", "irc.formats", "irc.limits", "irc.partial", "irc.files", "irc.dims",
     "irc.dtypes", "irc.order", "irc.numbered_rules"),
    ("irc.types", "irc.numerics", "irc.weights", "irc.metadata", "irc.literals", "irc.ir", "irc.cloning",
     "irc.equality", "irc.printer", "irc.module"),
    ("irc.user_code", "irc.index_map", "irc.interfaces", "irc.signature", "irc.execution", "irc.scalar_builder",
     "irc.op", "irc.sizes"),
    ("irc.ops",),
    ("irc.parser", "irc.verifier",
     "irc.interpreter", "irc.constants", "irc.shape_analysis", "irc.kernel"),
    ("irc.user_files", "irc.pattern", "irc.pass_manager", "irc.rewrite", "irc.simplify", "irc.named_pipelines",
     "irc.group", "irc.plan", "irc.plan_file", "irc.policy", "irc.legality", "irc.group_graph"),
    ("irc.frontends", "irc.passes", "irc.backends"),
    ("irc.driver", "irc.cli"),
)  # fmt: skip
SIDES = ("irc.frontends", "irc.passes", "irc.backends")


def modules() -> dict[str, Path]:
    """Every module of the package by its installed name."""
    found = {}
    for folder in ("irc", "frontends", "passes", "backends"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "templates" in path.parts:
                continue
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts if parts[0] == "irc" else ("irc", *parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(name: str, everywhere: bool = True) -> set[str]:
    """Modules of irc that a module imports; with `everywhere` also inside of functions. Type-only ones do not count."""
    tree = ast.parse(MODULES[name].read_text())
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if not everywhere and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.split(".")[0] == "irc")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "irc":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else str(node.module))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return {module for module in found if module in MODULES and module != "irc"}


def layer_of(module: str) -> int:
    for number, members in enumerate(LAYERS):
        if any(module == member or module.startswith(member + ".") for member in members):
            return number
    raise AssertionError(f"{module} is in no layer: add it to LAYERS and to ARCHITECTURE.md")


@pytest.mark.parametrize("module", [name for name in MODULES if name != "irc"])
def test_imports_point_to_lower_layers(module: str) -> None:
    upward = [other for other in imports_of(module) if layer_of(other) > layer_of(module)]
    assert not upward, f"{module} imports {upward} from a higher layer"
    side = next((side for side in SIDES if module.startswith(side)), None)
    if side is not None:
        across = [other for other in imports_of(module) if other.startswith(SIDES) and not other.startswith(side)]
        assert not across, f"{module} imports {across}: the driver joins these"


def test_passes_do_not_run_one_another() -> None:
    """What passes share is in modules without a pass, underscored; pipelines are run by drivers."""
    passes = [name for name in MODULES if re.fullmatch(r"irc\.passes\.[a-z]\w*", name)]
    shared = [name for name in MODULES if name.startswith("irc.passes.")]
    assert "irc.passes.fold" in passes
    for module in shared:
        assert not imports_of(module) & set(passes), f"{module} imports a pass"
        assert "PassManager" not in MODULES[module].read_text(), f"{module} runs passes"


def test_no_circles() -> None:
    graph = {name: imports_of(name, everywhere=False) - {name} for name in MODULES if name != "irc"}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name in done:
            return
        for other in sorted(graph.get(name, ())):
            if not name.startswith(other + "."):  # a submodule's package is loaded first
                visit(other, (*path, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def core_lines() -> dict[str, int]:
    """Lines of each module of layers 0 to 5 without the op table."""
    return {
        name: len(path.read_text().splitlines())
        for name, path in MODULES.items()
        if name != "irc" and layer_of(name) <= 5 and not name.startswith("irc.ops")
    }


def test_files_and_functions_are_short() -> None:
    lengths: dict[str, tuple[int, int]] = {}
    for path in MODULES.values():
        name = path.relative_to(ROOT).as_posix()
        text = path.read_text()
        lengths[name] = len(text.splitlines()), LONGEST_FILE
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                same_name = lengths.get(f"{name}:{node.name}", (0, 0))
                lengths[f"{name}:{node.name}"] = max(same_name, (length, LONGEST_FUNCTION))
    long = {name: length for name, (length, most) in lengths.items() if length > OVERSIZED.get(name, most)}
    assert not long, f"longer than {LONGEST_FILE} (files) or {LONGEST_FUNCTION} (functions) lines: {long}"
    stale = [name for name in OVERSIZED if name not in lengths or lengths[name][0] <= lengths[name][1]]
    assert not stale, f"no longer oversized: remove {stale} from OVERSIZED"


def test_architecture_names_every_module() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rows = {int(number): row for number, row in re.findall(r"^\| (\d) \| (`.*) \|$", text, re.MULTILINE)[: len(LAYERS)]}
    for number, modules_there in enumerate(LAYERS):
        words = re.findall(r"\w+", " ".join(re.findall(r"`[^`]+`", rows[number])))
        missing = [name for name in modules_there if name.rpartition(".")[2] not in {*words, "_version"}]
        assert not missing, f"the row of {number} in ARCHITECTURE.md lacks {missing}"


READING_ORDER = re.compile(r"(<!-- reading-order[^\n]*-->\n)(.*?)(<!-- end of reading-order -->)", re.DOTALL)


def reading_order() -> str:
    """The modules of the core, layer by layer, with their lines and the first line of their docstrings."""
    rows = ["| layer | module | lines | |", "|---|---|---|---|"]
    for name, lines in sorted(core_lines().items(), key=lambda item: layer_of(item[0])):
        said = (ast.get_docstring(ast.parse(MODULES[name].read_text())) or "").split("\n")[0]
        rows.append(f"| {layer_of(name)} | `{name.removeprefix('irc.')}` | {lines} | {said} |")
    return "\n".join([*rows, f"| | all | {sum(core_lines().values())} | layers 0 to 5 without `ops/` |", ""])


def test_reading_order_is_true(request: pytest.FixtureRequest) -> None:
    """ARCHITECTURE.md lists every module of the core; counts may have moved by a tenth. Renew it with --update."""
    path = ROOT / "ARCHITECTURE.md"
    found = READING_ORDER.search(path.read_text())
    assert found is not None
    if request.config.getoption("--update"):
        path.write_text(READING_ORDER.sub(lambda match: match[1] + reading_order() + match[3], path.read_text()))
        return
    listed = {row.split("`")[1]: int(row.split("|")[3]) for row in found[2].splitlines() if "`" in row.split("|")[2]}
    lines = {name.removeprefix("irc."): count for name, count in core_lines().items()}
    assert sorted(listed) == sorted(lines)
    moved = {name: count for name, count in lines.items() if abs(listed[name] - count) > 10 + count // 10}
    assert not moved, f"{moved}: pytest tests/test_structure.py --update"


def test_no_exported_name_is_a_submodule() -> None:
    import irc

    assert not [name for name in irc.__all__ if f"irc.{name}" in MODULES]


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import irc", ["numpy", "onnx", "torch", "triton", "sympy", "lark", "click"]),
        ("import irc.cli.main", ["numpy", "onnx", "torch", "triton", "sympy", "lark", "rich"]),
        (
            "import irc.driver, irc.frontends.onnx, irc.backends.onnx, irc.backends.triton",
            ["torch", "triton", "sympy", "onnxruntime"],
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
