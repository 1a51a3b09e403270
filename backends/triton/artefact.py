"""The artefact: a folder of Python that runs without irc. Written beside its place first, then renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irc import _version, dims, dtypes, partial, weights
from irc.backends.triton.bundles import Bundle
from irc.backends.triton.calls import TEMPLATES, UNTYPED, torch_type
from irc.backends.triton.compile import TARGETS, check_targets
from irc.backends.triton.donation import donated_arguments, peak_bytes
from irc.backends.triton.helpers import needed_helpers
from irc.backends.triton.index_source import FLOAT8
from irc.backends.triton.naming import comment_on
from irc.backends.triton.program import Launched, Program
from irc.backends.triton.program_writer import write_program
from irc.backends.triton.sizes import python_dim, symbol_sources
from irc.backends.triton.source import KernelSource
from irc.backends.triton.text import LARGEST_INDEX, Names, identifier
from irc.diagnostics import Location, fail
from irc.dtypes import FLOATS8, DType
from irc.files import replacing_folder
from irc.ir import Function, Value
from irc.kernel import members_of
from irc.metadata import MODEL
from irc.module import Module
from irc.op import trace_function
from irc.plan_file import structural_hash
from irc.sizes import representative_sizes
from irc.stages import stage
from irc.weights import Tensor

COPIED = {
    "__init__.py": TEMPLATES / "init.py", "__main__.py": TEMPLATES / "main.py", "partial.py": Path(partial.__file__),
    **{name: TEMPLATES / name for name in ("elements.py", "errors.py", "host.py", "interpreting.py", "outputs.py",
                                           "runtime.py", "windows.py")},
}  # fmt: skip
# Copied where the program uses them.
MODULES = {name: TEMPLATES / name for name in ("aten.py", "drawing.py", "strings.py")}
FORMAT = 1
MARK = "manifest.json"
MADE_BY = '"made_by": "irc '
TEXTS = "texts.json"  # constants that are text
TUNING = "tuning.json"  # which `irc tune` adds
WRITTEN = ("kernels.py", "program.py", "weights.safetensors", TEXTS, "externs", MARK, TUNING)
POINTERS = {
    "f64": "fp64", "f32": "fp32", "f16": "fp16", "bf16": "bf16", "i64": "i64", "i32": "i32", "i16": "i16", "i8": "i8",
    "u64": "u64", "u32": "u32", "u16": "u16", "u8": "u8", "bool": "i1",
    **dict.fromkeys((dtype.name for dtype in FLOATS8), "u8"),
}  # fmt: skip
# How targets multiply floats of 8 bits: the parameter FLOAT8 of `dot_float8`, 0 where they do not.
WITH_FLOAT8 = {"sm_90": 2, "sm_100": 1}
WITH_FLOAT8_UNSIGNED_ZERO = {"gfx942": 1}


def emit(module: Module, folder: str | Path, *, targets: Sequence[str] = ()) -> Program:
    """Write the artefact of a module to `folder`, which must be new, empty, or an artefact.

    `targets` are noted in the manifest as those it was made for. Raises `usage.backend`, `backend.unsupported`,
    `file.exists`. Neither torch nor triton is imported.
    """
    check_targets(targets)
    place = Path(folder)
    if os.path.lexists(place) and not is_artefact(place):
        raise fail("file.exists", f"{place.name} exists and is no artefact of irc", at=Location(file=str(place)),
                   help="choose another name, or remove it yourself")  # fmt: skip
    with stage("emission"):
        program = write_program(module)
        with replacing_folder(place) as new:
            _write(new, module, program, targets)
    return program


def is_artefact(place: Path) -> bool:
    """Whether a folder is empty, or holds an artefact and nothing else, so that another may take its place."""
    if not place.is_dir():
        return False
    names = {entry.name for entry in place.iterdir()}
    try:
        text = (place / MARK).read_text("utf-8") if names else MADE_BY
    except (OSError, ValueError):
        return False
    return MADE_BY in text and names <= {*COPIED, *MODULES, *WRITTEN, "__pycache__"}


def _write(folder: Path, module: Module, program: Program, targets: Sequence[str]) -> None:
    more = {f"{name}.py": MODULES[f"{name}.py"] for name in program.modules}
    for name, source in {**COPIED, **more}.items():
        shutil.copyfile(source, folder / name)
    (folder / "kernels.py").write_text(kernels_text(program), "utf-8")
    (folder / "program.py").write_text(program.text, "utf-8")
    texts = {name: tensor for name, tensor in sorted(program.weights.items()) if tensor.dtype is dtypes.STRING}
    stored = {name: carried(tensor) for name, tensor in sorted(program.weights.items()) if name not in texts}
    if stored:
        weights.save(folder / "weights.safetensors", stored)
    if texts:
        content = {name: {"shape": tensor.shape, "elements": tensor.array().reshape(-1).tolist()}
                   for name, tensor in texts.items()}  # fmt: skip
        (folder / TEXTS).write_text(json.dumps(content) + "\n", "utf-8")
    if program.externs:
        (folder / "externs").mkdir()
        for extern in program.externs:
            (folder / "externs" / f"{extern.name}.onnx").write_bytes(extern.model)
    text = json.dumps(manifest(module, program, targets), indent=2)
    (folder / MARK).write_text(text + "\n", "utf-8")


def carried(tensor: Tensor) -> Tensor:
    """The tensor in a type that PyTorch has: integers narrower than a byte take one."""
    if tensor.dtype.sub_byte and tensor.dtype.is_integer:
        byte = dtypes.I8 if tensor.dtype.is_signed else dtypes.U8
        return Tensor.of(np.asarray(tensor.array()).astype(byte.numpy), byte, tensor.name)
    return tensor


def kernels_text(program: Program) -> str:
    """kernels.py: the helpers that are used, then the kernels in order of their launches, then bundles with theirs."""
    kernels = [*program.kernels, *program.parts]
    parts = needed_helpers(name for launched in kernels for name in launched.source.helpers)
    parts += [comment_on(launched.origins) + launched.source.text.rstrip("\n") for launched in kernels]
    parts += [bundle.text.rstrip("\n") for bundle in program.bundles]
    head = '"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""\n\n'
    return head + "import triton\nimport triton.language as tl\n\n\n" + "\n\n\n".join(parts) + "\n"


def manifest(module: Module, program: Program, targets: Sequence[str]) -> dict[str, Any]:
    """What is inside, for people and for the runtime. `memory` holds for the sizes that it names."""
    sizes = representative_sizes(module.main, {})
    in_place = donated_arguments(module.main, program.derived.__getitem__)
    hashes = {program.launches[each.attributes["name"]]: structural_hash(members_of(each)) for each in module.walk()
              if each.name == "kernel" and each.attributes["name"] in program.launches}  # fmt: skip
    return {
        "format": FORMAT,
        "made_by": f"irc {_version.__version__}",
        "name": module.name,
        "metadata": module.metadata.get(MODEL, {}),
        "label": "compiled" if targets else "source",
        "targets": list(targets),
        "signature": signature(module.main, in_place, program.defaults),
        "kernels": [kernel_entry(launched, program, hashes[launched.source.name]) for launched in program.kernels]
        + [bundle_entry(bundle) for bundle in program.bundles],
        "memory": {
            "peak_bytes": peak_bytes(module, sizes, program),
            "sizes": {symbol.name: size for symbol, size in sizes.items()},
        },
        "host_calls": {name: program.host_calls.count(name) for name in sorted(set(program.host_calls))},
        "not_kernels": program.rejected,
        "externs": [{"name": extern.name, "op": extern.op} for extern in program.externs],
    }


def float8_by_target(dtype: DType) -> dict[str, int]:
    """How each target multiplies floats of 8 bits of this type."""
    known = WITH_FLOAT8_UNSIGNED_ZERO if dtype.name.endswith("uz") else WITH_FLOAT8
    return {target: known.get(target, 0) for target in TARGETS}


def kernel_entry(launched: Launched, program: Program, digest: str) -> dict[str, Any]:
    """A kernel in the manifest; the digest is of what it computes."""
    source = launched.source
    float8 = {FLOAT8: float8_by_target(source.float8)} if source.float8 is not None else {}
    return {
        "name": source.name,
        "kind": launched.kernel.kind,
        "hash": digest,
        "numerics": launched.kernel.numerics,
        "looped": launched.kernel.looped,
        "blocks": {tile.name: "whole row" if tile.whole else tile.block for tile in source.tiles if not tile.single},
        "warps": source.warps,
        "schedule": source.options.stated,
        **({"stages": source.options.stages} if source.options.stages is not None else {}),
        "launches": list(program.launches.values()).count(source.name),
        "accesses": [[access.first, access.last, access.wide] for access in source.accesses],
        "arguments": argument_types(source, source.parameters),
        "constants": {**source.constants, **float8},
    }


def bundle_entry(bundle: Bundle) -> dict[str, Any]:
    """A bundle in the manifest, as a kernel. Its accesses are not listed by lines: compilers make one of equal code of
    several branches."""
    members = [member for operation in bundle.operations for member in members_of(operation)]
    arguments = [argument_types(source, parameters)
                 for source, parameters in zip(bundle.sources, bundle.parameters, strict=True)]  # fmt: skip
    is_exact = all(kernel.numerics == "exact" for kernel in bundle.kernels)
    stages = bundle.sources[0].options.stages
    return {
        "name": bundle.name,
        "kind": "bundle",
        "members": [operation.attributes["name"] for operation in bundle.operations],
        "hash": structural_hash(members),
        "numerics": "exact" if is_exact else "keeps_more_precision",
        "looped": any(kernel.looped for kernel in bundle.kernels),
        "blocks": {},
        "warps": bundle.sources[0].warps,
        "schedule": {},
        **({"stages": stages} if stages is not None else {}),
        "launches": 1,
        "accesses": [],
        "arguments": [argument for each in arguments for argument in each]
        + [{"name": name, "type": "i32", "aligned": False} for name in bundle.ends],
        "constants": bundle.constants,
    }


def interface(function: Function) -> str:
    """The arguments of a function, as a program that returns nothing, in irc's text."""
    types, names = ([getattr(value, each) for value in function.arguments] for each in ("type", "name"))
    header = trace_function("main", lambda *_: (), types, names)
    header.symbols = dict(function.symbols)
    return str(Module("interface", [header]))


def argument_types(source: KernelSource, names: Sequence[str]) -> list[dict[str, Any]]:
    """The arguments of a kernel before its block sizes, under these names, as Triton's compiler wants them. Memory that
    PyTorch allocates is aligned; a size is if all its values are."""
    buffers = [
        {"name": name, "type": f"*{POINTERS[value.dtype.name]}", "aligned": True}
        for name, value in zip(names, source.buffers, strict=False)
    ]
    sizes = [
        {"name": name, "type": "i32" if source.extents or dims.bounds(size)[1] <= LARGEST_INDEX else "i64",
         "aligned": dims.multiple_of(size) % 16 == 0}
        for name, size in zip(names[len(buffers) :], source.sizes, strict=True)
    ]  # fmt: skip
    return [*buffers, *sizes]


def signature(function: Function, in_place: Collection[Value], defaults: Mapping[str, str]) -> dict[str, Any]:
    """Inputs and outputs with dtypes and shapes; the weight that an input is by default; the range of each symbol, and
    the extent that determines its size; which argument a result updates, and whether a kernel writes it there
    (`in_place`) or it is copied."""
    names = Names({"extent", "min", "max", "bcast"})
    symbols = {symbol: names.fresh(identifier(symbol.name), "size") for symbol in function.symbols.values()}
    defined = {symbol: names.fresh(identifier(symbol.name), "size")
            for operation in function.walk() for symbol in operation.symbols}  # fmt: skip
    mentioned = [d for value in (*function.arguments, *function.returned) for d in value.type.shape or ()]
    derived: dict[Any, str] = {each: names.fresh(f"size_{each.name}") for each in dims.derived_below(mentioned)}
    sizes = {**defined, **symbols, **derived}

    def entry(name: str, value: Any) -> dict[str, Any]:
        shape = None
        if value.type.is_ranked:
            shape = [d if isinstance(d, int) else python_dim(d, sizes) for d in value.shape]
        if value.dtype.kind in UNTYPED:
            return {"name": name, "dtype": None, "type": str(value.dtype), "shape": shape}
        return {"name": name, "dtype": torch_type(value.dtype), "type": str(value.dtype), "shape": shape}

    def updating(position: int, value: Any) -> dict[str, Any]:
        updated = function.updates.get(position)
        return {} if updated is None else {"updates": updated.name, "in_place": value in in_place}

    return {
        "interface": interface(function),
        "symbols": {
            symbols[symbol]: {
                "range": [symbol.low, symbol.high, symbol.multiple],
                "input": source.value.name,
                "axis": source.axis,
                "size": source.size("extent", sizes),
            }
            for symbol, source in symbol_sources(function).items()
        },
        "derived": {
            name: python_dim(each.definition, sizes)
            for each, name in derived.items()
            if symbols.keys() >= {*each.symbols}
        },
        "inputs": [
            entry(value.name, value) | ({"default": defaults[value.name]} if value.name in defaults else {})
            for value in function.arguments
        ],
        "outputs": [
            entry(name, value) | updating(index, value)
            for index, (name, value) in enumerate(zip(function.output_names, function.returned, strict=True))
        ],
    }
