"""Planted mistakes that the tests must catch: `python tests/mutations.py [WORD ...]`.

The working tree is copied, as it is now, into a temporary folder, and each mistake is planted there alone; the
tests named beside it must then fail, which they do not before. Nothing is changed in this folder. With words, only
the mutations whose names have one of them are tried.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS_FAILED = 1  # pytest's exit code; errors of collection and "no tests" have others


@dataclass(frozen=True)
class Selection:
    """Tests of a file, as pytest's `-k` names them."""

    file: str
    words: str


@dataclass(frozen=True)
class Mutation:
    """One mistake: in `file` the only occurrence of `old` becomes `new`; a test of the selection must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: Selection


def named(words: str) -> Selection:
    return Selection("tests/test_named.py", words)


def kernel(words: str) -> Selection:
    return Selection("tests/test_kernel.py", words)


def across(words: str) -> Selection:
    return Selection("tests/test_across_rows.py", words)


def fusion(words: str) -> Selection:
    return Selection("tests/test_fusion.py", words)


def fused_kernels(words: str) -> Selection:
    return Selection("tests/test_fusion_kernels.py", words)


def scans(words: str) -> Selection:
    return Selection("tests/test_scans.py", words)


def scan_loops(words: str) -> Selection:
    return Selection("tests/test_scan_loops.py", words)


def carried(words: str) -> Selection:
    return Selection("tests/test_row_loops.py", words)


def passes(words: str) -> Selection:
    return Selection("tests/test_passes.py", words)


def convolutions(words: str) -> Selection:
    return Selection("tests/test_convolutions.py", words)


def products(words: str) -> Selection:
    return Selection("tests/test_products.py", words)


def cuts(words: str) -> Selection:
    return Selection("tests/test_cuts.py", words)


def triton(words: str) -> Selection:
    return Selection("tests/test_triton.py", words)


ACTIVATION = "irc/ops/named/activation.py"
NORMALIZATION = "irc/ops/named/normalization.py"
INDEX_MAP = "irc/index_map.py"
VIEW = "irc/ops/view.py"
DERIVATION = "irc/kernel/derivation.py"
PROPAGATION = "irc/kernel/propagation.py"
GRAPH = "irc/group_graph.py"
GROUP = "irc/group.py"
RULES = "irc/kernel/rules.py"

MUTATIONS = (
    # Bodies.
    Mutation(
        "gelu: its constant", ACTIVATION, "SQRT_HALF = math.sqrt(0.5)", "SQRT_HALF = math.sqrt(0.501)", named("gelu")
    ),
    Mutation(
        "gelu: the cubic term", ACTIVATION, "TANH_GELU_CUBIC = 0.044715", "TANH_GELU_CUBIC = 0.044815", named("gelu")
    ),
    Mutation(
        "layer_norm: no epsilon",
        NORMALIZATION,
        "return div(centered, sqrt(add(variance, epsilon)))",
        "return div(centered, sqrt(variance))",
        named("layer_norm"),
    ),
    Mutation(
        "softmax: the maximum stays in",
        NORMALIZATION,
        "grown = exp(sub(wide, reduce_max(wide, axes=over, keep_dims=True)))",
        "grown = exp(wide)",
        named("softmax"),
    ),
    Mutation(
        "attention: its scale",
        "irc/ops/named/attention.py",
        "1 / math.sqrt(depth) if depth",
        "1 / depth if depth",
        named("attention"),
    ),
    Mutation(
        "dequantize: the zero point is added",
        "irc/ops/named/quantization.py",
        "wide = sub(wide, convert(_placed(zero_point",
        "wide = add(wide, convert(_placed(zero_point",
        named("quantize"),
    ),
    # Index maps.
    Mutation(
        "slice: off by one",
        VIEW,
        "tuple(start + step * coordinate for",
        "tuple(start + step * coordinate + 1 for",
        kernel("pull"),
    ),
    Mutation(
        "pad: off by one",
        VIEW,
        "        shifted = coordinate - low\n",
        "        shifted = coordinate - low + 1\n",
        kernel("pull"),
    ),
    Mutation(
        "reshape: column-major",
        INDEX_MAP,
        "for coordinate, extent in zip(coordinates, shape, strict=True):\n        index =",
        "for coordinate, extent in zip(coordinates[::-1], shape[::-1], strict=True):\n        index =",
        kernel("pull or linearize"),
    ),
    Mutation(
        "concat: a piece is one too long",
        VIEW,
        "(Guard(index, size),)",
        "(Guard(index, size + 1),)",
        fused_kernels("joined"),
    ),
    Mutation(
        "bounds: one beyond the end is proven",
        INDEX_MAP,
        "and dims.less(index, extent) is True",
        "and dims.less_equal(index, extent) is True",
        kernel("bounds"),
    ),
    Mutation(
        "propagation: repeated elements are points",
        PROPAGATION,
        'return bool(view.attributes["mode"] == "constant")',
        "return True",
        fused_kernels("repeated_elements"),
    ),
    Mutation(
        "stores: reduced axes are forgotten",
        DERIVATION,
        "axes = (*parallel, *(axis for axes in reduced if not mentioned.isdisjoint(axes) for axis in axes))",
        "axes = parallel",
        fused_kernels("spread"),
    ),
    Mutation(
        "propagation: a point that repeats an element",
        PROPAGATION,
        "if dropped_axes & kept_axes or any(",
        "if any(",
        fused_kernels("spread"),
    ),
    # Legality.
    Mutation(
        "F1: the hull leaves out what is between",
        GRAPH,
        "    groups += [unit.group for unit in between if unit.group is not None]\n",
        "",
        fusion("stands_between"),
    ),
    Mutation(
        "F1: library calls between are passed over",
        GRAPH,
        "if unit.group is None for operation in unit.members]",
        "if False for operation in unit.members]",
        fusion("f1"),
    ),
    Mutation(
        "F2: constants of any size",
        RULES,
        "if tensor.size != 1 and not",
        "if False and not",
        fusion("f2"),
    ),
    Mutation(
        "F3: values read through views are not stored",
        GROUP,
        "any(user not in inside or user in remaining for user, _ in value.uses)",
        "any(user not in inside for user, _ in value.uses)",
        fusion("f3"),
    ),
    Mutation(
        "F6: reductions over different axes",
        RULES,
        "if set(node.bound) != set(reductions[0].bound):",
        "if False:",
        fusion("a_rule_fails"),
    ),
    Mutation("F6: rows read what is reduced across them", RULES, "    if read:", "    if False:", across("illegal")),
    Mutation("F6: rows of any length", RULES, "    if not fit:", "    if False:", across("illegal")),
    Mutation(
        "F10: reductions are repeated",
        DERIVATION,
        "if not recompute:",
        "if False:",
        fusion("a_rule_fails"),
    ),
    Mutation(
        "F13: skipped roundings under exact",
        RULES,
        'if allowed == "exact" and numerics != "exact":',
        "if False:",
        fusion("f13"),
    ),
    Mutation("F13: any range", RULES, "    if not is_in_range:", "    if False:", products("out_of_range")),
    Mutation(
        "factors: a product of two that vary has none",
        "irc/kernel/factors.py",
        'if (node.name == "div" and varying == [0]) or node.name == "mul":',
        'if node.name in ("div", "mul"):',
        products("no_factor"),
    ),
    Mutation(
        "cuts: pieces of one length more",
        "irc/kernel/cuts.py",
        "piece = math.gcd(piece, *changes.tolist())",
        "piece = extent // 2",
        cuts("one_kernel"),
    ),
    Mutation("F14: one pointer too many", RULES, "MOST_POINTERS = 32", "MOST_POINTERS = 33", fusion("f14")),
    # What is made of them.
    Mutation(
        "masks: every reduction ignores 0",
        "backends/triton/masks.py",
        "same(lanes[beyond[node]].of(node.operands[0]), identity(node.kind, node.dtype))",
        "same(lanes[beyond[node]].of(node.operands[0]), zero(node.dtype))",
        triton("reductions_see_nan"),
    ),
    Mutation(
        "bytes: what every program reads counts once",
        "irc/kernel/traffic.py",
        "every = repeats * certain(",
        "every = certain(",
        kernel("shared_operand"),
    ),
    Mutation(
        "cse: attributes do not matter",
        "passes/cse.py",
        "return definition, tuple(operands), attribute_key(operation.attributes), types",
        "return definition, tuple(operands), types",
        passes("cse"),
    ),
    Mutation(
        "raise: operands are not aligned",
        "passes/_raise_skeletons.py",
        "axes = dict(zip(form, graph, strict=True))",
        "axes = dict(enumerate(graph))",
        Selection("tests/test_raise_skeletons.py", "scale_anywhere or other_axes"),
    ),
    Mutation(
        "raise: numbers do not matter",
        "passes/_raise_proof.py",
        "if term is required and",
        "if normalizer.outline(term) == normalizer.outline(required) and",
        Selection("tests/test_raise.py", "another_constant_is_no_gelu"),
    ),
    Mutation(
        "fold: no cap",
        "passes/fold.py",
        "return sum(sizes) <= (self.cap if moves else max(read, self.cap))",
        "return True",
        fused_kernels("fold"),
    ),
    # Blocks and rules.
    Mutation(
        "order labels: all before are relabeled", "irc/order.py",
        "while (other := first.previous) is not None and other.order_label >= start:",
        "while (other := first.previous) is not None:",
        Selection("tests/test_order.py", "relabel"),
    ),
    Mutation(
        "rules: what is there already is put in", "irc/rewrite.py",
        "if already_computed(old, new, scratch):", "if False:",
        Selection("tests/test_rewrite.py", "already or whatever"),
    ),
    # Convolutions.
    Mutation(
        "convolutions: a prologue of the padding", "irc/kernel/tracing.py",
        "factors.append(self.select(inside, node, self.constant(node.dtype, 0)))", "factors.append(node)",
        convolutions("padding_is_0"),
    ),
    Mutation(
        "convolutions: groups are no axis", "irc/kernel/propagation.py",
        "if isinstance(inner, int):", "if False:",
        convolutions("dag and groups"),
    ),
    Mutation(
        "F10: products are computed again", RULES, "if 4 * computed > 5 * needed:", "if False:",
        convolutions("cannot_do and read_twice"),
    ),
    Mutation(
        "F2: operands that may not fit", RULES, "if dims.less_equal(0, dim) is not True:", "if False:",
        convolutions("cannot_do and fit"),
    ),
    Mutation(
        "bytes: digits of windows overlap", "irc/kernel/traffic.py", "layers[i].step <= ends[i - 1]",
        "layers[i].step < ends[i - 1]",
        convolutions("distinct_elements"),
    ),
    # Reductions that are carried.
    Mutation(
        "carry: what was summed is not rescaled", "backends/triton/row_source.py",
        "{lanes} * {self.rescales[point.carrier]}", "{lanes} * 1.0",
        carried("read_twice and softmax-f32"),
    ),
    Mutation(
        "carry: lanes are added up as they are", "backends/triton/row_source.py",
        'code = Code(f"{code.text} * tl.exp({rescale.text})", PRODUCT)', "pass",
        carried("read_twice and softmax-f32"),
    ),
    Mutation(
        "carry: squares are those from the mean of a lane", "backends/triton/templates/functions.py",
        "squares + count * distance * distance", "squares",
        carried("read_twice and layer_norm-f32"),
    ),
    Mutation(
        "carry: exponentials are squared", "irc/kernel/carry.py", "return sum(scaled) == 1", "return sum(scaled) >= 1",
        carried("near_misses and squared"),
    ),
    Mutation(
        "carry: a maximum is replaced where it is finite", "irc/kernel/carry.py",
        "any(map(_is_infinite, node.operands))", "True",
        carried("near_misses and moved"),
    ),
    Mutation(
        "carry: NaN is hidden", "irc/kernel/row_loops.py", "if point.hides and not all(", "if False and not all(",
        carried("near_misses and hides"),
    ),
    Mutation(
        "attention: rows of -inf are 0", "backends/triton/online_source.py",
        "if self.online.point.lowest:", "if False:",
        Selection("tests/test_attention_kernels.py", "special_scores"),
    ),
    # Scans.
    Mutation(
        "scans: lanes before the first element of a row count", "backends/triton/masks.py",
        "or (isinstance(node, Scan) and node.reverse)", "",
        scans("pytorchs and f32"),
    ),
    Mutation(
        "scans: a sum of -0 alone is -0", "backends/triton/source.py",
        'if node.kind == "sum" and node.dtype.is_float and not node.exclusive:', "if False:",
        scans("edges and sum"),
    ),
    Mutation(
        "scans: bytes do not wrap around", "backends/triton/source.py",
        'code = call("tl.cumsum", body, axis, *reverse)\n            return method(code, "to", type_name(node.dtype))',
        'return call("tl.cumsum", body, axis, *reverse)\n            return method(code, "to", type_name(node.dtype))',
        scans("wrapped"),
    ),
    Mutation(
        "scans: elements outside of a row count", "irc/kernel/tracing.py",
        "(self.select(inner, body, neutral),)", "(body,)",
        scans("guarded"),
    ),
    Mutation(
        "scans: the element of an exclusive one takes no registers", "irc/kernel/scans.py",
        " * (2 if node.exclusive else 1)", "",
        scan_loops("exclusive_of_a_long_row"),
    ),
    Mutation(
        "scan loops: each block begins with the neutral element", "backends/triton/row_source.py",
        'self._line(f"{before} = ', 'self._line(f"# {before} = ',
        scan_loops("pytorchs and f32"),
    ),
    Mutation(
        "scan loops: an exclusive one does not carry the last element", "backends/triton/row_source.py",
        "self._combined(node, self.values[node], body) if node.exclusive else self.values[node]", "self.values[node]",
        scan_loops("pytorchs and f32"),
    ),
    Mutation(
        "scan loops: those from the end begin with the first block", "irc/kernel/nest.py",
        "return any(scan.reverse for scan in self.scans)", "return False",
        scan_loops("pytorchs and f32"),
    ),
    Mutation(
        "scan loops: from the end, the last lane is carried", "backends/triton/row_source.py",
        "str(node.reverse)", "str(False)",
        scan_loops("pytorchs and f32"),
    ),
    Mutation(
        "scan loops: what is carried of a product is 0 at first", "backends/triton/row_source.py",
        "neutral = number(identity(scan.kind, scan.dtype), scan.dtype)",
        'neutral = number(identity("sum", scan.dtype), scan.dtype)',
        scan_loops("pytorchs and f32"),
    ),
    Mutation(
        "scan loops: what is carried is added as a number", "backends/triton/templates/functions.py",
        "x.to(integer, bitcast=True), 0)", "x, 0)",
        scan_loops("edges and f32"),
    ),
    Mutation(
        "scan loops: NaN is lost between blocks", "backends/triton/row_source.py",
        "call(self._helper(COMBINED[node.kind]), first, second)", 'call(f"tl.{node.kind}imum", first, second)',
        scan_loops("edges and f32"),
    ),
    Mutation(
        "scan loops: lanes have seen as many elements from the end", "backends/triton/row_source.py",
        "        if self.is_reversed:", "        if False:",
        scan_loops("any_length and variance"),
    ),
    Mutation(
        "scan loops: scans from both ends are looped over", "irc/kernel/scan_rules.py",
        "if opposite is not None:", "if False:",
        scan_loops("other_long_rows"),
    ),
    # PyTorch programs.
    Mutation(
        "figures: views count", "backends/triton/dispatches.py",
        "if name not in ALLOCATIONS and (not is_view or not written):", "if name not in ALLOCATIONS:",
        Selection("tests/test_dispatched.py", "segformer"),
    ),
    Mutation(
        "artefacts: outputs share memory", "backends/triton/templates/outputs.py",
        "if memory(tensor) in taken:", "if False:",
        Selection("tests/test_torch_results.py", "memory_of_their_own"),
    ),
    Mutation(
        "buffers: distinguished from arguments by name", "frontends/torch/signatures.py",
        "if spec.kind in kinds}", "if spec.kind is not OutputKind.USER_OUTPUT}",
        Selection("tests/test_torch_results.py", "called_as_arguments"),
    ),
)


def copy_tree(target: Path) -> None:
    """Copy the working tree, less what git ignores."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    for name in listed.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def environment(copy: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(copy)}


def check_that_the_copy_is_tested(copy: Path) -> None:
    script = "import irc.passes.fuse as a, irc.backends.triton.masks as b; print(irc.__file__, a.__file__, b.__file__)"
    command = [sys.executable, "-c", f"import irc; {script}"]
    done = subprocess.run(command, cwd=copy, env=environment(copy), check=True, capture_output=True, text=True)
    imported = done.stdout.splitlines()[0].split()
    assert all(Path(path).is_relative_to(copy) for path in imported), f"not the copy is imported: {imported}"


def run_tests(copy: Path, tests: Sequence[Selection]) -> subprocess.CompletedProcess[str]:
    files = list(dict.fromkeys(selection.file for selection in tests))
    words = " or ".join(dict.fromkeys(f"({selection.words})" for selection in tests))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=line", "-p", "no:cacheprovider", *files, "-k", words]
    return subprocess.run(command, cwd=copy, env=environment(copy), check=False, capture_output=True, text=True)


def plant(path: Path, text: str, moment: float) -> None:
    """Write a file with a time of its own: bytecode is taken for current by time and size."""
    path.write_text(text, encoding="utf-8")
    os.utime(path, (moment, moment))


def main(words: Sequence[str]) -> int:
    chosen = [each for each in MUTATIONS if not words or any(word in each.name for word in words)]
    survivors: list[str] = []
    with tempfile.TemporaryDirectory(prefix="irc-mutations-") as temporary:
        copy = Path(temporary).resolve()
        copy_tree(copy)
        check_that_the_copy_is_tested(copy)
        done = run_tests(copy, [each.tests for each in chosen])
        if done.returncode:
            print(f"a test fails before anything is planted\n{done.stdout[-3000:]}")
            return 2
        print(f"{len(chosen)} mutations; the tests pass without them", flush=True)
        moment = time.time()
        for number, each in enumerate(chosen):
            path = copy / each.file
            text = path.read_text(encoding="utf-8")
            if text.count(each.old) != 1:
                print(f"{each.name}: {each.file} has {text.count(each.old)} times, and not once: {each.old}")
                return 2
            start = time.perf_counter()
            plant(path, text.replace(each.old, each.new), moment + 10 + 20 * number)
            done = run_tests(copy, [each.tests])
            plant(path, text, moment + 20 + 20 * number)
            red = done.returncode == TESTS_FAILED
            if not red:
                survivors.append(each.name)
            verdict = "red" if red else f"SURVIVED (pytest's exit code {done.returncode})"
            print(f"{verdict:4} {time.perf_counter() - start:5.1f} s  {each.name}", flush=True)
            if done.returncode not in (0, TESTS_FAILED):
                print(done.stdout[-2000:])
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
