"""Kernels compiled for GPUs that need not be there: what they take, and how wide they load and store."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

import irc
from irc import dims, ops
from irc.backends.triton import compile as compiling
from irc.backends.triton import compile_artefact, emit
from irc.backends.triton.accesses import is_wide
from irc.backends.triton.compile import TARGETS
from irc.driver.figures import KernelsReport
from irc.driver.models import Settings, find_backend
from irc.driver.optimizing import opt, run_pipeline
from irc.kernel import kernel_of
from irc.kernel.dag import Dot, Load
from irc.kernel.nest import size_of
from tests.benchmarks.networks import NETWORKS
from tests.benchmarks.products import WITH_PRODUCTS, program
from tests.command_line import EXAMPLES, irc_here
from tests.triton_cases import the_kernel
from tests.triton_harness import kernelize

PIPELINE = find_backend("triton").PIPELINE


def normalized(x: Any, s: Any, b: Any) -> Any:
    return ops.add(x, ops.layer_norm(ops.gelu(x), s, b))


def pooled(x: Any) -> Any:
    return ops.max_pool(ops.relu(x), kernel=(2, 2), strides=(2, 2), low=(0, 0), high=(0, 0), dilations=(1, 1))


# Of extents that are multiples of 128 bits where an access is contiguous; the batch is open.
CASES: dict[str, tuple[Callable[..., Any], Sequence[str]]] = {
    "add": (ops.add, ("$[B, 1024]", "$[B, 1024]")),
    "gelu": (ops.gelu, ("$[B, 768]",)),
    "bias": (lambda x, b: ops.silu(ops.add(x, b)), ("$[B, 768]", "$[768]")),
    "rows": (lambda x, b: ops.mul(x, b), ("$[B, S, 256]", "$[B, S, 1]")),
    "softmax": (ops.softmax, ("$[B, 512]",)),
    "long softmax": (ops.softmax, ("$[B, 20480]",)),
    "layer_norm": (normalized, ("$[B, S, 768]", "$[768]", "$[768]")),
    "rms_norm": (ops.rms_norm, ("$[B, S, 4096]", "$[4096]")),
    "mean": (lambda x: ops.reduce_mean(x, axes=(1,)), ("$[B, 4096]",)),
    "heads": (lambda x: ops.relu(ops.transpose(x, permutation=(0, 2, 1, 3))), ("$[B, S, 12, 64]",)),
    "halves": (lambda x: ops.mul(*ops.split(x, axis=1, sizes=(512, 512))), ("$[B, 1024]",)),
    "joined": (lambda x, y: ops.relu(ops.concat(x, y, axis=1)), ("$[B, 512]", "$[B, 256]")),
    "batch_norm": (lambda x, s: ops.relu(ops.batch_norm(x, s, s, s, s)), ("$[B, 64, 56, 56]", "$[64]")),
}


def compiled(name: str, dtype: str, targets: Sequence[str]) -> KernelsReport:
    function, types = CASES[name]
    module = irc.trace(function, *(type_.replace("$", dtype) for type_ in types))
    return irc.kernels(module, targets=tuple(targets))


def check(reports: Sequence[KernelsReport], targets: Sequence[str]) -> tuple[int, int]:
    """No errors, spills or memory of its own; the accesses that are aligned and contiguous, and of them the wide."""
    aligned = wide = 0
    for report in reports:
        assert report.kernels
        for kernel in report.kernels:
            assert set(kernel.targets) == set(targets)
            for target, facts in kernel.targets.items():
                assert not facts.get("error"), (kernel.name, target, facts["error"])
                assert facts["fits"] and not facts["spilled_bytes"] and not facts["local_bytes"], (kernel.name, facts)
                assert 0 < facts["registers"] <= 512 and facts["matrix_instructions"] == 0
                assert sum(facts["loads"].values()) and sum(facts["stores"].values())
                aligned, wide = aligned + facts["aligned_accesses"], wide + facts["wide_accesses"]
    return aligned, wide


QUICK = {("add", "f32"), ("gelu", "bf16"), ("layer_norm", "f16"), ("softmax", "f32"), ("heads", "bf16")}


def test_aligned_contiguous_accesses_are_128_bits_wide() -> None:
    targets = ("sm_90", "gfx942")
    aligned, wide = check([compiled(*case, targets) for case in sorted(QUICK)], targets)
    assert aligned >= 20 and wide == aligned


@pytest.mark.slow
def test_all_of_them_on_all_targets() -> None:
    reports = [compiled(name, dtype, TARGETS) for name in CASES for dtype in ("f32", "bf16", "f16")]
    aligned, wide = check(reports, TARGETS)
    assert aligned >= 300 and wide == aligned


@pytest.mark.parametrize(
    "types, expected",
    [
        (("f32[B, 512]", "f32[512]"), {"x": True, "y": True}),
        (("f32[B, 510]", "f32[510]"), {"x": False, "y": False}),  # rows begin at odd places
        (("f32[B, S]", "f32[S]"), {"x": False, "y": False}),  # nothing is known of S
        (("f32[B, ?S in (16, 4096) % 16]", "f32[S]"), {"x": True, "y": True}),
        (("bf16[B, 512]", "bf16[1]"), {"x": True, "y": False}),  # a scalar
    ],
)
def test_which_accesses_should_be_wide(types: tuple[str, str], expected: dict[str, bool]) -> None:
    module = opt(irc.trace(lambda x, y: ops.mul(x, y), *types), PIPELINE)
    (kernel,) = [kernel_of(operation) for operation in module.main.block if operation.name == "kernel"]
    loads = [access for access in kernel.loads if isinstance(access, Load)]
    assert {load.buffer.name[0]: is_wide(load, kernel.schedule) for load in loads} == expected


def test_lines_are_those_of_the_accesses(tmp_path: Path) -> None:
    """The manifest's lines, counted from the decorator, hold the loads and stores, in loops and long ones too."""
    module = irc.trace(lambda x, s, b: ops.layer_norm(x, s, b), "f32[1000, 20480]", "f32[20480]", "f32[20480]")
    emit(opt(module, PIPELINE), tmp_path / "a")
    (entry,) = json.loads((tmp_path / "a" / "manifest.json").read_text())["kernels"]
    lines = (tmp_path / "a" / "kernels.py").read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if f"def {entry['name']}(" in line) - 1
    numbers = {number - first for number, line in enumerate(lines) if "tl.load(" in line or "tl.store(" in line}
    assert {line for line, _, _ in entry["accesses"]} == numbers and len(numbers) >= 5
    for begin, end, _ in entry["accesses"]:
        text = "".join(lines[first + begin : first + end + 1])
        assert text.count("(") == text.count(")") and text.endswith(")")


def test_edges_that_are_multiples_keep_accesses_wide() -> None:
    """The rows of 12 are flat, and their number is not known: the edge is passed as a quarter of it."""
    module = irc.trace(lambda x, y: ops.add(x, y), "f32[?B in (1, 1000), 12]", "f32[12]")
    (kernel,) = irc.kernels(opt(module, PIPELINE), targets=["sm_90", "gfx942"]).kernels
    for facts in kernel.targets.values():
        assert facts["wide_accesses"] == facts["aligned_accesses"] == 3, facts


def test_a_kernel_that_takes_too_long_or_crashes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emit(opt(irc.trace(ops.relu, "f32[B, 64]"), PIPELINE), tmp_path / "a")
    monkeypatch.setattr(compiling, "STARTING_SECONDS", 0.0)
    late = compile_artefact(tmp_path / "a", ["sm_80", "sm_90"], seconds=0.01)
    assert [(each.target, each.fits) for each in late] == [("sm_80", False), ("sm_90", False)]
    assert all("more than 0.01 seconds" in each.error for each in late)
    monkeypatch.undo()
    source = tmp_path / "a" / "kernels.py"
    source.write_text("import os\nos._exit(9)\n" + source.read_text())
    (crashed,) = compile_artefact(tmp_path / "a", ["sm_80"])
    assert "crashed" in crashed.error and not crashed.fits


def test_what_compilers_print_is_no_answer(tmp_path: Path) -> None:
    emit(opt(irc.trace(ops.relu, "f32[B, 64]"), PIPELINE), tmp_path / "a")
    source = tmp_path / "a" / "kernels.py"
    source.write_text("import os\nprint('{\"kernel\": \"relu\"')\nos.write(1, b'{}\\n')\n" + source.read_text())
    (resources,) = compile_artefact(tmp_path / "a", ["sm_90"])
    assert resources.registers and resources.fits and not resources.error


def test_a_refusal_by_the_assembler_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emit(opt(irc.trace(ops.relu, "f32[B, 64]"), PIPELINE), tmp_path / "a")
    assembler = tmp_path / "ptxas"
    assembler.write_text(
        "#!/bin/sh\ncase $* in *--version*) echo 'Cuda compilation tools, release 12.9, V12.9.86'; exit 0;; esac\n"
        "echo '{\"not\": an answer'\necho 'ptxas fatal: too much' >&2\nexit 255\n"
    )
    assembler.chmod(0o755)
    monkeypatch.setenv("TRITON_PTXAS_PATH", str(assembler))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    refused, compiled = compile_artefact(tmp_path / "a", ["sm_80", "gfx942"])  # Triton 3.9 has another for sm_90
    assert "ptxas" in refused.error and "crashed" not in refused.error and not refused.fits
    assert compiled.fits and not compiled.error


def test_neighbors_in_a_batch_are_loaded_by_different_programs() -> None:
    """A matrix of which elements of one batch are apart is not read 128 bits at a time, such as Swin's table of biases,
    whose last axis is heads."""
    module = irc.trace(lambda x, w: ops.matmul(x, ops.transpose(w, permutation=(2, 0, 1))),
                       "bf16[32, 64, 64]", "bf16[64, 128, 32]")  # fmt: skip
    kernel = the_kernel(kernelize(module))
    assert [is_wide(load, kernel.schedule) for load in kernel.loads] == [True, False]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*WITH_PRODUCTS, *NETWORKS])
def test_products_of_networks_take_matrix_instructions(name: str, tmp_path: Path) -> None:
    """On sm_90 those of four warps, for each product of 16 bits with 16 rows. No spills, and accesses are wide, but for
    those of masks, whose bytes are loaded in the layout of the scores that they select."""
    pytest.importorskip("torch")
    module, _ = run_pipeline(program(name, large=True), PIPELINE, "triton", Settings(products="irc"))
    emitted = emit(module, tmp_path / "a")
    kernels = {launched.source.name: [launched.kernel] for launched in emitted.kernels}
    kernels |= {bundle.name: bundle.kernels for bundle in emitted.bundles}
    multiplied = 0
    for resources in compile_artefact(tmp_path / "a", ("sm_90",)):
        members = kernels[resources.kernel]
        products = [node for kernel in members for node in kernel.nodes if isinstance(node, Dot) and node.fed.bits == 16
                    and dims.estimate(size_of(tuple(node.rows)), {}) >= 16]  # fmt: skip
        if not products:
            continue
        assert not resources.error and resources.fits, resources
        assert resources.spilled_bytes == resources.local_bytes == 0, resources
        assert resources.warpgroup_instructions >= len(products), (resources, len(products))
        of_bytes = sum(load.buffer.dtype.bits == 8 for kernel in members for load in kernel.loads)
        assert resources.wide_accesses >= resources.aligned_accesses - of_bytes, resources
        multiplied += len(products)
    assert multiplied


def test_the_table_shows_what_targets_take(tmp_path: Path) -> None:
    done = irc_here("kernels", f"{EXAMPLES / 'block.py'}:scores", "--target", "sm_90", "--dim", "M=8", folder=tmp_path)
    assert "registers, 0 B spilled, 0 B local" in done.out and "loads " in done.out and "stores " in done.out


def test_launches_choose_the_warps_that_kernels_were_looked_at_with() -> None:
    from irc.backends.triton.templates import runtime
    from irc.kernel.nest import warps_for

    for elements in (1, 2, 64, 128, 512, 1000, 1024, 2048, 4096, 8192, 16384, 65536):
        assert runtime.warps_for({"m": elements}) == warps_for(elements)


def test_images_whose_channels_are_last_are_resized_without_spills() -> None:
    """Loads at computed addresses in tiles that transpose, as of a segmentation head: each address is in registers."""
    torch = pytest.importorskip("torch")
    height, width = (torch.export.Dim(name, min=2) for name in "HW")

    def head(coarse: Any, fine: Any) -> Any:
        resized = torch.nn.functional.interpolate(coarse.permute(0, 3, 1, 2), scale_factor=2, mode="bilinear")
        return torch.cat([resized, fine.permute(0, 3, 1, 2)], 1)

    module = irc.from_torch(head, (torch.randn(2, 8, 6, 10), torch.randn(2, 16, 12, 10)),
                            dynamic_shapes=({0: "B", 1: height, 2: width}, {0: "B", 1: 2 * height, 2: 2 * width}))
    (kernel,) = irc.kernels(module, targets=TARGETS).kernels
    for target, facts in kernel.targets.items():
        assert not facts["spilled_bytes"] and not facts["local_bytes"], (target, facts)
