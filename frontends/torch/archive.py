"""Reading `.pt2` files, the archives of `torch.export.save`, without running anything that is in them.

PyTorch's own reader unpickles sample inputs, evaluates sizes as Python and runs guards. So irc writes a copy that has
nothing but the graph and the raw bytes of weights and constants, after it has looked at every text in the graph that
PyTorch would evaluate or look up, and lets PyTorch read the copy. (The layout: PyTorch's documentation, "PT2 Archive
Spec"; the graph: torch/_export/serde/schema.py.)
"""

from __future__ import annotations

import json
import math
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from irc.diagnostics import IrcError, fail
from irc.files import note_input, temporary_folder
from irc.formats import ZIP, recognized_file
from irc.frontends.torch.control import READERS
from irc.frontends.torch.exporting import quiet, unlogged
from irc.frontends.torch.guards import KEPT_APART
from irc.frontends.torch.size_texts import is_arithmetic
from irc.limits import check_limit

# What calls of a graph may name: operators that compute from their arguments. `from_file` opens files.
TARGET = re.compile(r"torch\.ops\.(aten|prims)\.(?!from_file\b)\w+\.\w+|_operator\.\w+|math\.\w+|torch\.sym_\w+")
HIGHER_ORDER = re.compile(
    rf"torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast|{'|'.join(READERS)})"
)
LOOKED_UP = ("default_factory_module", "__enum__")  # in the structure of inputs and outputs: names that are imported
KEPT_METADATA = ("stack_trace", "nn_module_stack")
COPIED = ("archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id")


def load(path: Path) -> ExportedProgram:
    """The program of a `.pt2` file. Sample inputs are never read.

    Raises `file.format` for what is no such file or is damaged, `torch.pickle` where weights or constants would have
    to be unpickled, `torch.archive` for a graph that names what irc does not run or import, and `torch.export` where
    PyTorch cannot read it.
    """
    note_input(path)
    try:
        with zipfile.ZipFile(path) as archive, temporary_folder() as folder:
            copy = folder / "model.pt2"
            guards = _write_copy(_Archive(path, archive), copy)
            try:
                with quiet(), unlogged():
                    program = torch.export.load(copy)
            except Exception as error:  # any exception of PyTorch means that it rejects this program
                notes = [line for line in str(error).splitlines() if line.strip()][:12]
                raise fail("torch.export", f"PyTorch cannot read {path}: {type(error).__name__}", notes=notes,
                           help=f"it may come from another version than this PyTorch, {torch.__version__}") from error
            setattr(program, KEPT_APART, guards)
            return program
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:  # the second: a compression of another kind
        kind = recognized_file(path)
        kind = None if kind is ZIP else kind
        raise _bad(path, str(error) if kind is None else f"it is {kind.name}", kind and kind.help) from error


def _bad(path: Path, why: str, help: str | None = None) -> IrcError:
    return fail("file.format", f"{path} is no archive of torch.export.save: {why}",
                help=help or "torch.export.save(torch.export.export(module, inputs), FILE) writes one")


class _Archive:
    """The records of an archive, by their paths below its one root folder."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self.archive = archive
        self.records: dict[str, zipfile.ZipInfo] = {}
        for each in archive.infolist():
            _, _, name = each.filename.partition("/")
            if name in self.records or each.compress_type != zipfile.ZIP_STORED:
                raise _bad(path, f"{each.filename} is there twice, or is compressed")
            self.records[name] = each
        if "serialized_exported_program.json" in archive.namelist():
            raise fail("torch.pickle", f"the weights of {path}, in the layout before PyTorch 2.8, are a pickle",
                       help="load it with PyTorch where you trust it, and save it again")

    def json(self, name: str) -> Any:
        if name not in self.records:
            raise _bad(self.path, f"it has no {name}")
        try:
            return json.loads(self.archive.read(self.records[name]))
        except (ValueError, RecursionError) as error:
            raise _bad(self.path, f"{name} is no JSON: {error}") from error


def _write_copy(source: _Archive, copy: Path) -> list[str]:
    """Write what PyTorch may read; returns the guards, which it must not evaluate."""
    models = [name for name in source.records if re.fullmatch(r"models/[^/]+\.json", name)]
    if len(models) != 1:
        raise _bad(source.path, f"it has {len(models)} models, where one was expected")
    program = source.json(models[0])
    guards = program.get("guards_code", []) if isinstance(program, dict) else []
    if not isinstance(guards, list) or not all(isinstance(guard, str) for guard in guards):
        raise _bad(source.path, "its guards are no texts")
    stem = models[0].removeprefix("models/").removesuffix(".json")
    with zipfile.ZipFile(copy, "w") as target:
        target.writestr("model/models/model.json", json.dumps(_checked(program, source.path)))
        target.writestr("model/data/sample_inputs/model.pt", b"")
        for name in COPIED:
            if name in source.records:
                target.writestr(f"model/{name}", source.archive.read(source.records[name]))
        for kind in ("weights", "constants"):
            config = source.json(f"data/{kind}/{stem}_{kind}_config.json")
            target.writestr(f"model/data/{kind}/model_{kind}_config.json", json.dumps(config))
            records = _raw_records(config, kind, source.path)
            _check_expanded(config, {name: source.records.get(f"data/{kind}/{name}") for name in records}, source.path)
            for name in records:
                _copy_record(source, f"data/{kind}/{name}", target)
    return guards


def _raw_records(config: Any, kind: str, path: Path) -> list[str]:
    """The names of the records that hold tensors as raw bytes; rejects what would have to be unpickled."""
    try:
        payloads = {name: (each["path_name"], each["use_pickle"]) for name, each in config["config"].items()}
    except (TypeError, KeyError, AttributeError) as error:
        raise _bad(path, f"its list of {kind} is not one") from error
    pickled = [name for name, (record, pickle) in payloads.items()
               if pickle or not re.fullmatch(r"(weight|tensor)_\d+", str(record))]  # fmt: skip
    if pickled:
        raise fail("torch.pickle", f"{len(pickled)} of the {kind} of {path} would have to be unpickled",
                   notes=[str(name) for name in pickled[:12]],
                   help="save plain tensors: dense ones, with no class and no objects of their own")  # fmt: skip
    return list(dict.fromkeys(record for record, _ in payloads.values()))


def _check_expanded(config: Any, records: dict[str, zipfile.ZipInfo | None], path: Path) -> None:
    """Raise `limit.exceeded` where tensors are much larger than their records: strides of 0 repeat elements, which
    the importer writes out."""
    more = 0
    for each in config["config"].values():
        try:
            sizes = [int(size["as_int"]) for size in each["tensor_meta"]["sizes"]]
        except (TypeError, KeyError, ValueError) as error:
            raise _bad(path, "a tensor has sizes that are no numbers") from error
        record = records[each["path_name"]]
        more += max(0, math.prod(sizes) - (0 if record is None else record.file_size))  # elements have a byte or more
    check_limit("literals", more, "tensors that repeat the elements of their records have {} more than those")


def _copy_record(source: _Archive, name: str, target: zipfile.ZipFile) -> None:
    if name not in source.records:
        raise _bad(source.path, f"it has no {name}")
    info = zipfile.ZipInfo(f"model/{name}")
    info.file_size = source.records[name].file_size
    with source.archive.open(source.records[name]) as reading, target.open(info, "w") as writing:
        shutil.copyfileobj(reading, writing, 1 << 20)


def _checked(program: Any, path: Path) -> Any:
    """The graph without guards and metadata that irc does not need; rejects what PyTorch would evaluate or import."""
    rejected: list[str] = []
    try:
        program["guards_code"] = []
        program["graph_module"]["module_call_graph"] = program["graph_module"]["module_call_graph"][:1]
        texts = [*program["range_constraints"], *_texts(program, "expr_str")]
        rejected += [f"the size {text!r:.200}" for text in texts if not is_arithmetic(text)]
        for kind in ("in_spec", "out_spec"):
            rejected += [f"a structure with {each}" for text in _texts(program, kind) for each in LOOKED_UP
                        if each in str(text)]  # fmt: skip
        for target in dict.fromkeys(_texts(program, "target")):
            if not (TARGET.fullmatch(str(target)) or HIGHER_ORDER.fullmatch(str(target)) or _is_name(target, program)):
                rejected.append(f"the operation {target}")
        for metadata in _texts(program, "metadata"):
            for key in set(metadata) - set(KEPT_METADATA):
                del metadata[key]
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _bad(path, "its graph is not one") from error
    if rejected:
        raise fail("torch.archive", f"the graph of {path} names what irc neither evaluates nor imports",
                   notes=rejected[:12], expected="operations of ATen, and sizes that are arithmetic")  # fmt: skip
    return program


def _texts(node: Any, key: str) -> Iterator[Any]:
    """What stands under a key, anywhere below."""
    if isinstance(node, dict):
        for name, each in node.items():
            if name == key and each is not None:
                yield each
            yield from _texts(each, key)
    elif isinstance(node, list):
        for each in node:
            yield from _texts(each, key)


def _is_name(target: Any, program: Any) -> bool:
    """Whether a "target" is the name of a parameter or a buffer, and no operation of a node."""
    return target not in {node["target"] for node in _nodes(program)}


def _nodes(node: Any) -> Iterator[Any]:
    return (each for nodes in _texts(node, "nodes") for each in nodes)
