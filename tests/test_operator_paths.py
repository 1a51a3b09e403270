"""The first samples of a few of PyTorch's operators on every path, each in one element type: what the table says."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("expecttest")
pytest.importorskip("onnxruntime")
pytest.importorskip("triton")

from tests.operator_paths import DTYPES, OPERATORS, Piece, listed_by_path, outcomes, problems, reason_of, sample_of
from tests.test_torch_samples import IN_TORCH, read_table

TABLE_OF = "2.13"  # the version of torch whose operators it has
STRIDE = 50
TYPES = [*DTYPES]
PIECES = [(name, TYPES[index // STRIDE % len(TYPES)]) for index, name in enumerate(sorted(OPERATORS))
          if index % STRIDE == 0]  # fmt: skip
PIECES += [("special.zeta", "bool"), ("scatter_reduce.amin", "bool"), ("linalg.vecdot", "c128"), ("square", "bool"),
           ("_batch_norm_with_update", "bf16"), ("_batch_norm_with_update", "f16")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "dtype"), [
    (name, dtype) for name, dtype in PIECES if DTYPES[dtype] in OPERATORS[name].supported_dtypes("cpu")])  # fmt: skip
def test_first_samples(name: str, dtype: str) -> None:
    if not torch.__version__.startswith(TABLE_OF):
        pytest.skip(f"the table is for torch {TABLE_OF}, which has other operators and samples")
    wrong = problems(outcomes(Piece(name, dtype, 0), sample_of(name, dtype, 0)))
    listed = listed_by_path().get((name, dtype), {})
    if read_table().get(name, IN_TORCH) == IN_TORCH:
        reasons = {(path, reason_of(name, text)) for path, text in wrong.items()}
        expected = {(path, reason) for path, several in listed.items() for reason in several}
        assert reasons == expected
