"""Indices of PyTorch programs that are negative or beyond their axis: where eager PyTorch raises an error every path
does, and where it counts from the end every path does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import torch
import torch.nn.functional as F
from test_torch_edges import PATHS, difference, run
from torch_edge_cases import Case

import irc
from irc.frontends.torch.calling import to_array

pytestmark = pytest.mark.filterwarnings("ignore")
LEAST = -(2**63)
X = torch.arange(12.0).reshape(4, 3)

PROGRAMS: dict[str, Callable[..., Any]] = {
    "embedding": lambda x, i: F.embedding(i, x), "embedding_normed": lambda x, i: F.layer_norm(F.embedding(i, x), (3,)),
    "index_select": lambda x, i: x.index_select(0, i), "index_select_last": lambda x, i: x.T.index_select(1, i).sum(),
    "gather": lambda x, i: x.gather(0, i[:, None]), "gather_last": lambda x, i: x.T.gather(1, i[None]) * 2,
    "gather_0d": lambda x, i: x[0, 0].gather(0, i[1]), "take": lambda x, i: x.take(i * 3),
    "take_0d": lambda x, i: x.take(i[1]),
    "take_along_dim": lambda x, i: torch.take_along_dim(x, i[:, None], 0),
    "scatter": lambda x, i: x.scatter(0, i[:, None], 1.5), "scatter_src": lambda x, i: x.scatter(0, i[:, None], x),
    "scatter_add": lambda x, i: x.scatter_add(0, i[:, None], x),
    "scatter_reduce": lambda x, i: x.scatter_reduce(0, i[:, None], x, "amax"),
    "index_add": lambda x, i: x.index_add(0, i, x[:2]), "index_copy": lambda x, i: x.index_copy(0, i, x[:2]),
    "index_add_last": lambda x, i: x.T.index_add(1, i, x.T[:, :2], alpha=2),
    "index_copy_last": lambda x, i: x.T.index_copy(1, i, x.T[:, :2] * 5),
    "index_copy_0d": lambda x, i: x[0, 0].index_copy(0, i[1], x[0, 1]),
    "index_fill": lambda x, i: x.index_fill(0, i, 7.0),
    "index": lambda x, i: x[i], "index_last": lambda x, i: x.T[:, i] + 1,
    "index_both": lambda x, i: x[i, i.clamp(0, 2)],
    "index_apart": lambda x, i: x[:, None][i, :, i.clamp(0, 2)], "index_put": lambda x, i: x.index_put((i,), x[0]),
    "index_put_both": lambda x, i: x.index_put((i, i.clamp(0, 2)), x[0, 1]),
    "index_put_add": lambda x, i: x.index_put((i,), x[0], accumulate=True),
    "one_hot": lambda x, i: F.one_hot(i, 4), "nll_loss": lambda x, i: F.nll_loss(x.T[:2], i),
    "cross_entropy": lambda x, i: F.cross_entropy(x.T[:2], i, reduction="none"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_indices_at_the_ends_and_beyond(name: str, tmp_path: Path) -> None:
    program = PROGRAMS[name]
    module = irc.from_torch(program, (X, torch.tensor([1, 2])))
    for last in (0, 4, -1, -5, LEAST):
        inputs = (X, torch.tensor([1, last]))
        named = dict(zip((value.name for value in module.main.arguments), map(to_array, inputs), strict=True))
        try:
            expected = program(*inputs)
        except (IndexError, RuntimeError):
            for path in PATHS:
                with pytest.raises(Exception, match=r"run\.index|while running|an index is out"):
                    run(path, module, named, tmp_path / "artefact")
            continue
        for path in PATHS:
            (actual,) = run(path, module, named, tmp_path / "artefact")
            assert not difference(actual, expected, Case({}, ())), (path, last)


# Parts of [5, 2] between places that are read from a tensor, with what they may be.
PARTS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "up to": (lambda x, i: x[: i.item()] * 2, (2, -1, -5, -9, 0, 5, 8, LEAST)),
    "from": (lambda x, i: x[i.int().item() :] + 1, (2, -1, -5, -9, 0, 5, 8)),
    "between": (lambda x, i: x[i[0].item() : i[1].item()] + 1, ((1, 3), (-3, -1), (3, 1), (-9, 2), (0, 9))),
    "one": (lambda x, i: x.select(0, i.item()) + 1, (2, 0, 4, -1, -5)),
    "of one row": (lambda x, i: x.narrow(0, i.item(), 1) + 1, (2, 0, 4, -1, -5)),
    "split": (lambda x, i: [part + 1 for part in torch.tensor_split(x, i)], ((1, 3), (0, 0), (3, 1), (-3, 9), (-9, 2))),
}


@pytest.mark.parametrize("name", PARTS)
def test_places_that_a_run_computes_may_count_from_the_end(name: str, tmp_path: Path) -> None:
    program, places = PARTS[name]
    x = torch.arange(10.0).reshape(5, 2)
    module = irc.from_torch(program, (x, torch.tensor(places[0])))
    for place in places:
        inputs = (x, torch.tensor(place))
        expected = program(*inputs)
        named = dict(zip((value.name for value in module.main.arguments), map(to_array, inputs), strict=True))
        for path in PATHS:
            results = run(path, module, named, tmp_path / "artefact")
            for actual, part in zip(results, expected if isinstance(expected, list) else [expected], strict=True):
                assert not difference(actual, part, Case({}, ())), (path, place)
