"""Bundles: kernels in one launch. What they compute and move, when they are legal, which rules choose, and plans."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("triton")

import torch
from hypothesis import HealthCheck, given, seed, settings

import irc
from irc import ops
from irc.backends.triton import TARGETS, compile_artefact, emit
from irc.backends.triton.buffers import reused
from irc.backends.triton.donation import donated_arguments
from irc.backends.triton.launches import is_launch, launched
from irc.diagnostics import IrcError
from irc.driver.models import Settings
from irc.ir import Operation, Value
from irc.kernel.rules import LEGALITY_RULES
from irc.module import Module
from irc.op import trace
from irc.parser import parse
from irc.passes.bundle import levels_of
from irc.verifier import verify
from tests import dispatching
from tests import triton_harness as harness
from tests.random_graphs import VIEWS, Graph, graphs
from tests.triton_harness import random_inputs

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

SIZES = ((512, 512), (768,), (3072,), (10, 768), (10,), (64,), (33, 7), (1,))  # of parameters


def adam(*values: Value) -> list[Value]:
    """A step of Adam: parameters, gradients and both moments, which are replaced. Results are those of each in turn."""
    number, results = len(values) // 4, list[Value]()
    for parameter, gradient, first, second in (values[start::number] for start in range(number)):
        first = ops.add(ops.mul(first, 0.9), ops.mul(gradient, 0.1))
        second = ops.add(ops.mul(second, 0.99), ops.mul(ops.mul(gradient, gradient), 0.01))
        step = ops.div(first, ops.add(ops.sqrt(ops.abs_(second)), 1e-8))
        results += [ops.sub(parameter, ops.mul(step, 1e-3)), first, second]
    return results


def step_of_adam(*shapes: tuple[int | str, ...]) -> Module:
    """The step for parameters of these shapes, each of whose tensors is updated in place."""
    types = [f"f32[{', '.join(map(str, shape))}]" for shape in shapes]
    module = trace(adam, *types * 4)
    number, arguments = len(shapes), module.main.arguments
    for position in range(number):
        for place, kind in enumerate((0, 2, 3)):
            module.main.updates[3 * position + place] = arguments[kind * number + position]
    verify(module)
    return module


def kernels(module: Module) -> list[Operation]:
    return [operation for operation in module.walk() if operation.name == "kernel"]


def bundles(module: Module) -> list[list[str]]:
    """The names of the kernels of each bundle, in order."""
    members: dict[str, list[str]] = {}
    for kernel in kernels(module):
        if kernel.attributes["bundle"] is not None:
            members.setdefault(kernel.attributes["bundle"], []).append(kernel.attributes["name"])
    return list(members.values())


def bundled(module: Module, *members: str) -> Module:
    """A copy in which these kernels, all where none are named, state a bundle."""
    copy = module.clone()
    for kernel in kernels(copy):
        if not members or kernel.attributes["name"] in members:
            kernel.attributes["bundle"] = "together"
    return copy


# -- what they compute and move --------------------------------------------------------------------------------



def part(x: Value, start: int, stop: int) -> Value:
    return ops.slice_(x, starts=(start,), stops=(stop,), steps=(1,))


FORMS = {
    "adam": lambda: step_of_adam(*SIZES),
    "dynamic": lambda: step_of_adam(("A", 100), ("B",), ("A",), (256, "B")),
    "norms": lambda: trace(lambda *x: [ops.reduce_sum(ops.mul(each, each), axes=(0, 1)) for each in x],
                           *["f32[300, 64]", "f32[64, 64]", "f32[100, 64]", "f16[7, 64]"]),
    "rows": lambda: trace(lambda x, y, z: [ops.softmax(x, axis=-1), ops.softmax(y, axis=-1), ops.softmax(z, axis=-1)],
                          "f32[B, 1000]", "f32[A, 1000]", "bf16[20, 1000]"),
    "long rows": lambda: trace(lambda *x: [ops.reduce_max(each, axes=(1,)) for each in x],
                               *["f32[20, 20000]", "f32[40, 20000]"]),
    "scans": lambda: trace(lambda x, y: [ops.scan(ops.exp(x), kind="sum", axis=1), ops.scan(y, kind="max", axis=1,
                           reverse=True, exclusive=True)], "f32[20, 1000]", "f32[A, 1000]"),
    "shared": lambda: trace(lambda x, y: [ops.mul(x, 2.0), ops.neg(part(x, 100, 600)), ops.mul(y, y)],
                            "f32[900]", "f32[800]"),
    "halves": lambda: trace(lambda x: [ops.exp(part(x, 0, 400)), ops.tanh(part(x, 300, 700))], "f16[1000]"),
}  # fmt: skip


def formed(name: str) -> tuple[Module, Module]:
    """The module of a form, and it with kernels of which some are bundled."""
    module = FORMS[name]()
    return module, irc.opt(module, "default{fuse.policy=greedy}")


EMPTY, MANY = {"A": 0, "B": 1}, {"A": 5, "B": 700}
CASES = [*((name, MANY) for name in FORMS if name != "long rows"), ("dynamic", EMPTY), ("rows", EMPTY)]


@pytest.mark.parametrize(("name", "sizes"), CASES, ids=str)
def test_bundles_compute_what_their_kernels_do(name: str, sizes: dict[str, int], tmp_path: Path) -> None:
    module, fused = formed(name)
    assert bundles(fused)
    inputs = random_inputs(module, sizes)
    run = harness.run(fused, folder=tmp_path / "a", inputs=inputs, fuse=False)
    alone = harness.run(irc.opt(module, "default{bundle.most=1}"), folder=tmp_path / "b", inputs=inputs, fuse=False)
    assert len(alone.launches) - len(run.launches) == sum(len(names) - 1 for names in bundles(fused))
    for output, expected in alone.outputs.items():
        np.testing.assert_array_equal(run.outputs[output], expected)
    harness.check_bytes(run.launches)


@pytest.mark.parametrize("name", ["adam", "norms", "shared", "halves"])
def test_reported_launches_and_bytes_are_those_dispatched(name: str, tmp_path: Path) -> None:
    """What several kernels of a launch read counts once."""
    module, fused = formed(name)
    report = irc.kernels(fused)
    emit(fused, tmp_path / "a")
    seen = dispatching.of_artefact(tmp_path / "a", [torch.from_numpy(x) for x in random_inputs(module, {}).values()])
    assert report.label == "counted" and report.launches == len(seen.launches) < len(report.kernels)
    assert (report.distinct_bytes, report.host_operations) == (seen.bytes, len(seen.others))
    separate = irc.kernels(irc.opt(module, "default{bundle.most=1}"))
    assert separate.launches == len(separate.kernels) == len(report.kernels)
    assert separate.distinct_bytes - report.distinct_bytes == {"shared": 4 * 500, "halves": 2 * 100}.get(name, 0)
    assert separate.loaded_bytes == report.loaded_bytes and separate.peak_bytes == report.peak_bytes


COMPILED = ("adam", "long rows", "scans")


@pytest.mark.parametrize("name", [*COMPILED, *(pytest.param(each, marks=pytest.mark.slow) for each in FORMS
                                               if each not in COMPILED)])  # fmt: skip
def test_bundles_compile_for_all_targets_without_spills(name: str, tmp_path: Path) -> None:
    """Accesses are as wide as those of each kernel by itself."""
    module, fused = formed(name)
    assert len(emit(fused, tmp_path / "a").bundles) == len(bundles(fused)) > 0
    emit(irc.opt(module, "default{bundle.most=1}"), tmp_path / "b")
    alone, widths = compile_artefact(tmp_path / "b", TARGETS), dict[tuple[str, str], set[str]]()
    for each in alone:
        widths.setdefault((each.target, "loads"), set()).update(each.loads)
        widths.setdefault((each.target, "stores"), set()).update(each.stores)
    for each in compile_artefact(tmp_path / "a", TARGETS):
        assert not each.error and each.fits and not each.spilled_bytes and not each.local_bytes
        assert each.loads.keys() <= widths[each.target, "loads"], each
        assert each.stores.keys() <= widths[each.target, "stores"], each


def test_a_bundle_reads_as_written_by_hand(tmp_path: Path) -> None:
    emit(irc.opt(trace(lambda x, y: [ops.exp(x), ops.mul(y, y)], "f32[2000]", "f32[N]"), "default"), tmp_path / "a")
    text = (tmp_path / "a" / "kernels.py").read_text()
    assert text[text.index("@triton.jit(do") :] == '''@triton.jit(do_not_specialize=["end_0"])
def exp_bundle(x_ptr, out_ptr, y_ptr, out_ptr_1, N, end_0, BLOCK_I_0: tl.constexpr, BLOCK_I_1: tl.constexpr):
    """2 kernels in one launch, each with a range of the programs."""
    program = tl.program_id(0)
    if program < end_0:
        exp(program, x_ptr, out_ptr, BLOCK_I_0)
    else:
        mul(program - end_0, y_ptr, out_ptr_1, N, BLOCK_I_1)
'''


def test_text_states_bundles_and_is_read_back() -> None:
    _, fused = formed("adam")
    again = parse(str(fused))
    verify(again)
    assert bundles(again) == bundles(fused) and str(again) == str(fused)


# -- legality --------------------------------------------------------------------------------------------------


ILLEGAL = {
    "one that reads another": (lambda x: [ops.exp(ops.reduce_sum(ops.exp(x), axes=(0,))), x], ("f32[40000]",),
                               r"@\S+ reads %\S+, which @\S+ computes"),
    "other warps": (lambda x, y: [ops.exp(x), ops.neg(y)], ("f32[64]", "f32[4000]"), "has 1 warps and @1 has 4 warps"),
    "warps that a launch chooses": (lambda x, y: [ops.softmax(x, axis=-1), ops.softmax(y, axis=-1)],
                                    ("f32[4, ?B in (0, 900)]", "f32[4, B]"), "has warps that depend on the size of"),
    "products": (lambda x, y: [ops.matmul(x, x), ops.matmul(y, y)], ("f32[64, 64]", "f32[64, 64]"), "has a product"),
    "too many": (lambda x: [ops.mul(x, float(number)) for number in range(2, 35)], ("f32[1000]",),
                 "33 kernels are bundled, at least 2 and at most 32"),
}  # fmt: skip


@pytest.mark.parametrize("name", ILLEGAL)
def test_kernels_that_cannot_be_one_launch_are_refused(name: str, tmp_path: Path) -> None:
    program, types, words = ILLEGAL[name]
    policy = "none" if name == "one that reads another" else "greedy"
    pipeline = f"default{{fuse.policy={policy},bundle.most=1}}"
    fused = irc.opt(trace(program, *types), pipeline, settings=Settings(products="irc"))
    assert len(kernels(fused)) > 1
    with pytest.raises(IrcError, match=f"F20: .*{words}") as raised:
        emit(bundled(fused), tmp_path / "a")
    assert raised.value.code == "fuse.bundle" and not (tmp_path / "a").exists()


def test_kernels_apart_are_refused(tmp_path: Path) -> None:
    module = trace(lambda x, y, z: [ops.exp(x), ops.exp(y), ops.exp(z)], *["f32[2000]"] * 3)
    fused = irc.opt(module, "default{bundle.most=1}")
    with pytest.raises(IrcError, match="F20: other operations are between the kernels of the bundle `together`"):
        emit(bundled(fused, "0", "2"), tmp_path / "a")


def test_the_example_of_f20_breaks_it(tmp_path: Path) -> None:
    _, _, text = LEGALITY_RULES["F20"].example.partition(" of\n")
    text = re.sub(r"\((%\w)\) (.*) \{$", r"(\1_in = \1) \2 {", text, flags=re.M)
    text = text.replace("exp %x", "exp %x_in").replace("neg %y", "neg %y_in")
    with pytest.raises(IrcError, match="F20: @z reads %y, which @y computes"):
        emit(parse(f"irc text 1\nmodule @m {{\n{text}\n}}\n"), tmp_path / "a")


def test_no_kernel_of_a_bundle_writes_what_another_may_still_read() -> None:
    """The interpreter of Triton runs programs in order, so that a race would not show: memory is looked at instead."""
    module = trace(lambda p, g, t: [ops.add(p, g), ops.mul(p, t), ops.exp(t)], *["f32[2000]"] * 3)
    module.main.updates[0] = module.main.arguments[0]
    apart = irc.opt(module, "default{bundle.most=1,fuse.policy=none}")
    reader = kernels(apart)[1]
    apart.main.block.remove(reader)
    apart.main.block.insert(reader, kernels(apart)[0])
    assert donated_arguments(apart.main, launched), "what reads the argument has run before"
    assert not donated_arguments(bundled(apart).main, launched)

    def chained(x: Value, y: Value, z: Value) -> list[Value]:
        return [ops.relu(ops.softmax(x, axis=-1)), ops.neg(ops.softmax(y, axis=-1)), ops.tanh(ops.softmax(z, axis=-1))]

    apart = irc.opt(trace(chained, *["f32[8, 256]"] * 3), "default{bundle.most=1,fuse.policy=none}")
    softmaxes = [each for each in kernels(apart) if each.attributes["kind"] == "reduction"]
    for kernel in softmaxes:
        apart.main.block.remove(kernel)
    for kernel in reversed(softmaxes):
        apart.main.block.insert(kernel, apart.main.block.first)
    names = [each.attributes["name"] for each in kernels(apart)][3:]

    def taken(module: Module) -> dict[Value, Value]:
        return reused(module.main.block, lambda each: is_launch(each, launched))

    together = bundled(apart, *names)
    assert len(taken(apart)) == 2 and not taken(together)


# -- rules -----------------------------------------------------------------------------------------------------


def test_rules_bundle_small_kernels_that_are_alike() -> None:
    """A step of Adam: the large parameter is updated by a launch of its own, small ones by one for each number of
    warps."""
    _, fused = formed("adam")
    large, *small = (irc.kernels(fused).kernels[0], *irc.kernels(fused).kernels[1:])
    assert large.distinct_bytes == 7 * 4 * 512 * 512 and not large.bundle
    assert Counter(each.bundle for each in small if each.bundle) == Counter(
        {names[0]: len(names) for names in bundles(fused)}
    )
    report = irc.kernels(fused)
    assert (len(report.kernels), report.launches) == (len(SIZES), 4)
    mixed = irc.opt(trace(lambda x, y, z, w: [ops.exp(x), ops.mul(y, y), ops.reduce_sum(z, axes=(1,)),
                                              ops.reduce_sum(w, axes=(1,))],
                          "f32[2000]", "f32[3000]", "f32[32, 64]", "f32[48, 64]"), "default")  # fmt: skip
    assert bundles(mixed) == [["0", "1"], ["2", "3"]], "pointwise kernels and reductions stay apart"


def test_bundles_have_a_limited_number_of_kernels_and_pointers() -> None:
    fused = irc.opt(step_of_adam(*[(1000 + number,) for number in range(70)]), "default")
    sizes = [len(names) for names in bundles(fused)]
    assert sum(sizes) == 70 and max(sizes) == 32 and len(sizes) == 3
    for names in bundles(fused):
        members = [each for each in kernels(fused) if each.attributes["name"] in names]
        assert sum(len(each.inputs) + len(each.results) for each in members) <= 256
    assert [len(names) for names in bundles(irc.opt(step_of_adam(*[(1000,)] * 5), "default{bundle.most=2}"))] == [2, 2]
    assert not bundles(irc.opt(step_of_adam(*[(1000,)] * 5), "default{bundle.most=1}"))
    with pytest.raises(IrcError, match="`most` of bundle is 33") as raised:
        irc.opt(step_of_adam((8,)), "default{bundle.most=33}")
    assert raised.value.code == "pass.option"


def test_kernels_of_a_level_need_nothing_of_one_another() -> None:
    """Two chains of different lengths, which meet: what is bundled is at the same place of both."""
    def program(x: Value, y: Value) -> Value:
        for _ in range(3):
            x = ops.softmax(ops.transpose(x, permutation=(1, 0)), axis=-1)
        for _ in range(5):
            y = ops.softmax(ops.transpose(y, permutation=(1, 0)), axis=-1)
        return ops.add(x, y)

    fused = irc.opt(trace(program, "f32[64, 64]", "f32[64, 64]"), "default")
    assert [len(names) for names in bundles(fused)] == [2, 2]
    levels = levels_of(fused.main.block)
    for names in bundles(fused):
        assert len({levels[each] for each in kernels(fused) if each.attributes["name"] in names}) == 1
    verify(fused)


def test_what_reads_an_argument_stays_before_what_updates_it(tmp_path: Path) -> None:
    """Were the order turned round, the update would be copied."""
    def program(p: Value, g: Value, q: Value) -> list[Value]:
        return [ops.mul(p, q), ops.add(p, g), ops.exp(g), ops.softmax(ops.mul(q, g), axis=-1)]

    module = trace(program, *["f32[2, 1000]"] * 3)
    module.main.updates[1] = module.main.arguments[0]
    report = irc.kernels(irc.opt(module, "default"))
    assert report.launches < len(report.kernels) and report.host_operations == 0
    assert not irc.kernels(irc.opt(module, "default{bundle.most=1}")).host_operations
    inputs = random_inputs(module, {})
    run = harness.run(irc.opt(module, "default"), folder=tmp_path / "a", inputs=inputs, fuse=False)
    for name, expected in run.expected.items():
        np.testing.assert_allclose(run.outputs[name], expected, rtol=1e-5, atol=1e-6)


SEEN: Counter[str] = Counter()


def agree(graph: Graph, folder: Path) -> None:
    inputs, outputs = random_inputs(graph.module, graph.sizes, graph.numbers), []
    policy = "none" if graph.numbers % 2 else "greedy"
    for most in (32, 1):
        fused = irc.opt(graph.module, f"default{{fuse.policy={policy},bundle.most={most}}}")
        with np.errstate(all="ignore"):
            run = harness.run(fused, folder=folder / str(most), inputs=inputs, fuse=False)
        harness.check_bytes(run.launches)
        outputs.append(run.outputs)
        SEEN[str(most)] += len(run.launches)
    for name, expected in outputs[1].items():
        np.testing.assert_array_equal(in_f32(outputs[0][name]), in_f32(expected))


def in_f32(array: np.ndarray) -> np.ndarray:
    """An array whose NaNs NumPy takes for equal: in bf16, which it does not know, none is."""
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


@pytest.mark.parametrize("number", [*range(2), *(pytest.param(each, marks=pytest.mark.slow) for each in range(2, 10))])
def test_random_programs_compute_the_same_with_and_without_bundles(
    number: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def check(graph: Graph) -> None:
        agree(graph, tmp_path_factory.mktemp("a"))

    SEEN.clear()
    examples = 30 if number > 1 else 15  # one in five has kernels that are launched together
    quick = settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    seed(number)(quick(given(graphs(VIEWS))(check)))()
    assert SEEN["32"] < SEEN["1"]


# -- plans -----------------------------------------------------------------------------------------------------


def planned(tmp_path: Path, module: Module) -> dict[str, object]:
    irc.make_plan(module, tmp_path / "p.json")
    plan: dict[str, object] = json.loads((tmp_path / "p.json").read_text())
    return plan


def followed(tmp_path: Path, module: Module, plan: object) -> Module:
    (tmp_path / "p.json").write_text(json.dumps(plan, indent=1))
    return irc.opt(module, f"default{{fuse.plan={tmp_path}/p.json}}")


def branches(x: Value, y: Value, z: Value) -> list[Value]:
    return [ops.exp(x), ops.mul(y, y), ops.tanh(z), ops.softmax(ops.neg(z), axis=-1)]


def test_plans_state_bundles_and_are_followed(tmp_path: Path) -> None:
    module = trace(branches, "f32[2000]", "f32[3000]", "f32[4000]")
    plan = planned(tmp_path, module)
    (entry,) = plan["bundles"]  # type: ignore[misc]
    assert entry["members"] == bundles(irc.opt(module, "default"))[0] and "us for all, beside" in entry["reason"]
    assert bundles(followed(tmp_path, module, plan)) == [entry["members"]]
    fewer = {**plan, "bundles": [{"members": [f"@{name}" for name in entry["members"][:2]], "comment": "by hand"}]}
    assert bundles(followed(tmp_path, module, fewer)) == [entry["members"][:2]]
    assert bundles(followed(tmp_path, module, {**plan, "bundles": []})) == []
    del plan["bundles"]
    assert bundles(followed(tmp_path, module, plan)) == [entry["members"]], "rules choose"


def test_edits_keep_bundles_and_differences_name_them(tmp_path: Path) -> None:
    module = trace(branches, "f32[2000]", "f32[3000]", "f32[4000]")
    plan = planned(tmp_path, module)
    (tmp_path / "old.json").write_text(json.dumps(plan))
    names = plan["bundles"][0]["members"]  # type: ignore[index]
    irc.edit_plan(tmp_path / "p.json", [("schedule", f"{names[0]}:warps=4")], module)
    assert not irc.compare_plans(tmp_path / "old.json", tmp_path / "p.json").differences[1:]
    (tmp_path / "p.json").write_text(json.dumps({**plan, "bundles": [{"members": names[:2]}]}))
    differences = [str(each) for each in irc.compare_plans(tmp_path / "old.json", tmp_path / "p.json").differences]
    before, after = (", ".join(f"@{name}" for name in some) for some in (names, names[:2]))
    assert differences == [f"{before} are no longer launched together", f"{after} are launched together"]


REFUSED = {
    "one": (lambda a, b, c, d: [[a]], "plan.refused", "rule F20: 1 kernels are bundled"),
    "other warps": (lambda a, b, c, d: [[a, d]], "plan.refused", "rule F20: @0 has 4 warps and @"),
    "twice": (lambda a, b, c, d: [[a, b], [b, c]], "plan.refused", "kernels of it are in another entry"),
    "no kernel": (lambda a, b, c, d: [[a, "nothing"]], "plan.stale", "there is no kernel @nothing"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bundles_of_a_plan_are_refused_with_rule_and_place(name: str, tmp_path: Path) -> None:
    choose, code, words = REFUSED[name]
    module = trace(lambda x, y, z, w: [ops.exp(x), ops.mul(y, y), ops.neg(z), ops.tanh(w)],
                   "f32[2000]", "f32[3000]", "f32[4000]", "f32[64]")  # fmt: skip
    plan = planned(tmp_path, module)
    entries = choose(*(each["name"] for each in plan["groups"]))  # type: ignore[attr-defined]
    with pytest.raises(IrcError) as raised:
        followed(tmp_path, module, {**plan, "bundles": [{"members": names} for names in entries]})
    texts = enumerate((tmp_path / "p.json").read_text().split("\n"), 1)
    lines = [number for number, text in texts if '"members"' in text]
    assert raised.value.code == code and words in str(raised.value)
    assert f"p.json:{lines[-1] - 1}\n" in str(raised.value) + "\n", str(raised.value)


def test_bundles_that_need_one_another_by_other_operations_are_refused(tmp_path: Path) -> None:
    def program(x: Value, y: Value) -> list[Value]:
        return [ops.neg(ops.reshape(ops.matmul(ops.exp(x), y), shape=(4096,))), ops.tanh(ops.reshape(y, shape=(4096,)))]

    module = trace(program, "f32[64, 64]", "f32[64, 64]")
    plan = planned(tmp_path, module)
    first, last = [each["name"] for each in plan["groups"] if each["computes"] in ("exp", "neg")]  # type: ignore[attr-defined]
    with pytest.raises(IrcError, match="rule F20: an operation between them needs one of these kernels"):
        followed(tmp_path, module, {**plan, "bundles": [{"members": [first, last]}]})


def test_explain_names_the_kernels_of_a_launch() -> None:
    module = trace(lambda x, y: [ops.exp(x), ops.mul(y, y)], "f32[2000]", "f32[3000]")
    assert "bundle    launched together with @1" in irc.explain(module, "@0")
    assert "bundle    launched together with @0" in irc.explain(module, "%1")
    assert "bundled" in irc.explain(module, remarks=True)
