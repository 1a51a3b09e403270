"""Artefacts of Triton in the fuzzer: interpreted, while every address is looked at.

The harness checks of each launch that addresses lie in the buffers and that each element of an output is stored once;
here follow the bytes that the byte model counts. Programs are cut into kernels as the planner does it, or with all
merged that is legal.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from irc.backends.triton import PIPELINE, Target
from irc.driver.pipelines import parse_pipeline
from irc.module import Module
from irc.pass_manager import PassContext, PassManager
from irc.passes.fuse import apply, propose
from irc.verifier import verify
from tests import triton_harness as harness
from tests.fusing import everything
from tests.fuzz.judging import Array


def merged(module: Module) -> Module:
    """A copy of a module in as few kernels as are legal, products and attention in them."""
    result, context = module.clone(), PassContext(target=Target(products="irc"), products="irc")
    before, _, after = PIPELINE.partition("fuse,")
    PassManager(parse_pipeline(before.rstrip(",")), context).run(result)
    apply(propose(result.main, everything, context, [], products=True))
    PassManager(parse_pipeline(after), context).run(result)
    verify(result)
    return result


class Artefact:
    """A module that has been through the pipeline, as an artefact that runs under the harness."""

    def __init__(self, compiled: Module) -> None:
        self.module = compiled
        self.kept = tempfile.TemporaryDirectory(prefix="irc-fuzz-")
        folder = Path(self.kept.name) / "artefact"
        self.program = harness.emit(compiled, folder)
        package = harness.load_artefact(folder)
        self.runtime, self.model = sys.modules[f"{package.__name__}.runtime"], package.load()

    def on_arrays(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        given = {argument.name: arrays[argument.name] for argument in self.module.main.arguments}
        launches = self._watched(given)
        results = self.model.run(given)
        harness.check_bytes(launches)
        return {name: harness.to_numpy(result) for name, result in results.items()}

    def on_tensors(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        names = [argument.name for argument in self.module.main.arguments]
        launches = self._watched(dict(zip(names, tensors, strict=True)))
        results = list(self.model(*tensors).values())
        harness.check_bytes(launches)
        return results

    def _watched(self, given: Mapping[str, Any]) -> list[harness.Launch]:
        return harness.watch(self.model, self.runtime, self.program, harness.bind_symbols(self.module, given))
