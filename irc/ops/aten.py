"""Operators of ATen that irc calls in PyTorch: externs of the domain `torch.ops.aten`.

They are what no kernel computes: decompositions of matrices (LAPACK), Fourier transforms, complex numbers from pairs,
random numbers, and special functions without a series here. Operands are the tensors of the operator's schema, in
order; `attributes` hold its other arguments by name, without those that are None. Only operators of `OPERATORS` are
called, whatever a text says: none of them writes to its operands, to files or to PyTorch's settings.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from irc import dims
from irc.diagnostics import fail
from irc.dims import Expr
from irc.execution import Execution

DOMAIN = "torch.ops.aten"

# The names of the tensors that an overload takes; "default" is left out.
LINEAR_ALGEBRA = {
    "_linalg_det": "A", "_linalg_eigh": "A", "_linalg_eigvals": "self", "_linalg_slogdet": "A",
    "_linalg_solve_ex": "A B", "_linalg_svd": "A", "cholesky": "self", "cholesky_inverse": "self",
    "cholesky_solve": "self input2", "geqrf": "self", "linalg_cholesky_ex": "self", "linalg_eig": "self",
    "linalg_householder_product": "input tau", "linalg_inv_ex": "A", "linalg_ldl_factor_ex": "self",
    "linalg_ldl_solve": "LD pivots B", "linalg_lstsq": "self b", "linalg_lu": "A", "linalg_lu_factor_ex": "A",
    "linalg_lu_solve": "LU pivots B", "linalg_matrix_exp": "self", "linalg_pinv.atol_rtol_tensor": "self atol rtol",
    "linalg_qr": "A", "linalg_solve_triangular": "self B", "lu_unpack": "LU_data LU_pivots",
    "ormqr": "self input2 input3", "triangular_solve": "self A",
}  # fmt: skip
COMPLEX = {
    "_conj": "self", "_conj_physical": "self", "_fft_c2c": "self", "_fft_c2r": "self", "_fft_r2c": "self",
    "complex": "real imag", "polar": "abs angle", "view_as_complex": "self", "view_as_real": "self",
}  # fmt: skip
PAIRS = ("view_as_complex", "view_as_real")  # between complex numbers and pairs on a last axis
SPECIAL = {
    **dict.fromkeys(("special_bessel_j0", "special_bessel_j1", "special_bessel_y0", "special_bessel_y1"), "self"),
    **{f"special_{name}{overload}": operands
       for name in ("chebyshev_polynomial_t", "chebyshev_polynomial_u", "chebyshev_polynomial_v",
                    "chebyshev_polynomial_w", "hermite_polynomial_h", "hermite_polynomial_he",
                    "laguerre_polynomial_l", "legendre_polynomial_p", "shifted_chebyshev_polynomial_t",
                    "shifted_chebyshev_polynomial_u", "shifted_chebyshev_polynomial_v",
                    "shifted_chebyshev_polynomial_w")
       for overload, operands in (("", "x n"), (".x_scalar", "n"), (".n_scalar", "x"))},
    "igamma": "self other", "igammac": "self other", "special_airy_ai": "x",
}  # fmt: skip
REMOVED = ("cholesky",)  # which PyTorch 2.15 no longer has: torch.linalg.cholesky
OTHERS = {
    "_batch_norm_with_update_functional": "input weight bias running_mean running_var",
    "fractional_max_pool2d": "self random_samples", "fractional_max_pool3d": "self random_samples",
    "hash_tensor": "self", "histogram.bin_ct": "self weight", "histogram.bins_tensor": "self bins weight",
    "segment_reduce": "data lengths indices offsets", "unique_consecutive": "self", "unique_dim": "self",
}  # fmt: skip
RANDOM = {
    "bernoulli": "self", "bernoulli.p": "self", "bernoulli.Tensor": "self p", "binomial": "count prob",
    "cauchy": "self", "exponential": "self", "geometric": "self", "log_normal": "self", "multinomial": "self",
    "native_dropout": "input", "normal.Tensor_Tensor": "mean std", "normal.Tensor_float": "mean",
    "normal.float_Tensor": "std", "normal_functional": "self", "poisson": "self", "rand": "", "rand_like": "self",
    "randint": "", "randint.low": "", "randint_like": "self", "randint_like.low_dtype": "self", "randn": "",
    "randn_like": "self", "randperm": "", "rrelu_with_noise_functional": "self noise", "uniform": "self",
}  # fmt: skip
OPERATORS = {**LINEAR_ALGEBRA, **COMPLEX, **SPECIAL, **OTHERS, **RANDOM}
# Those with an argument for the element type of their result.
TYPED = frozenset({"rand", "rand_like", "randint", "randint.low", "randint_like", "randint_like.low_dtype", "randn",
                   "randn_like", "randperm"})  # fmt: skip


def check_call(op_type: str, operands: int, attributes: Mapping[str, Any]) -> None:
    """Raise `type.attribute` and `type.operands` for what is no call of an operator of the table."""
    if op_type not in OPERATORS:
        raise fail("type.attribute", f"irc does not call the operator {op_type!r} of ATen")
    if operands != len(tensors_of(op_type)):
        raise fail("type.operands", f"{op_type} has {operands} operands",
                   expected=f"{len(tensors_of(op_type))}: {', '.join(tensors_of(op_type))}")
    for name, value in attributes.items():
        parts = value if isinstance(value, tuple) else (value,)
        if name in tensors_of(op_type) or not all(isinstance(part, (bool, int, float, str, Expr)) for part in parts):
            raise fail("type.attribute", f"argument {name!r} of {op_type}: {value!s:.80}",
                       expected="a number, a dim, a string, or a list of these, that is no operand")


def call_of(op_type: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The attributes of an extern that calls an operator; `given` are its arguments that are no tensors, by name."""
    return {"domain": DOMAIN, "op_type": op_type, "version": 1, "attributes": given or {}}


def tensors_of(op_type: str) -> list[str]:
    """The names of the operands of an operator, in order."""
    return OPERATORS[op_type].split()


def run_in_torch(execution: Execution) -> list[Any]:
    """The results of a call, on arrays. What is random draws what PyTorch does after torch.manual_seed(draws), one
    operation of the run after the other. Raises `run.extern`, and `install.missing_extra` without PyTorch."""
    if importlib.util.find_spec("torch") is None:
        raise fail("install.missing_extra", "running operators of PyTorch needs torch, which is not installed",
                   help='pip install "irc-compiler[torch]"')  # fmt: skip
    import numpy as np
    import torch

    from irc.torch_arrays import array_of, to_tensor

    operation = execution.operation
    op_type = operation.attributes["op_type"]
    arguments: dict[str, Any] = {
        name: None if array is None or value is None
        else to_tensor(np.array(array, value.dtype.numpy, order="C"), value.dtype)  # a copy, which results may share
        for name, array, value in zip(tensors_of(op_type), execution.arrays, operation.operands, strict=True)}
    arguments |= {name: _evaluated(value, execution) for name, value in operation.attributes["attributes"].items()}
    if op_type in TYPED:
        arguments["dtype"] = getattr(torch, operation.results[0].dtype.numpy_name)
    with torch.random.fork_rng(devices=(), enabled=op_type in RANDOM):
        if op_type in RANDOM:
            _go_on_drawing(execution)
        try:
            results = overload(torch.ops.aten, op_type)(**arguments)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:  # what PyTorch raises
            raise fail("run.extern", f"PyTorch could not run {op_type}", notes=str(error).splitlines()[:1]) from None
        if op_type in RANDOM:
            execution.run.sessions[DOMAIN] = torch.get_rng_state()
    outputs = results if isinstance(results, tuple) else (results,)
    # PyTorch may give a narrower type than it states, as of the statistics that _batch_norm_with_update updates in f16.
    return [array_of(each.to(getattr(torch, value.dtype.numpy_name)), value.dtype)
            for each, value in zip(outputs, operation.results, strict=True)]  # fmt: skip


def alternative(op_type: str) -> str | None:
    """What to write instead where PyTorch cannot be called, or None."""
    if op_type in RANDOM:
        return "module.eval(), or the numbers as an argument"
    return "torch.histc, which gives the counts" if op_type.startswith("histogram") else None


def overload(namespace: Any, op_type: str) -> Any:
    """The overload of PyTorch's that a name such as "normal.Tensor_float" stands for; raises `run.extern` where the
    installed version has none."""
    name, _, which = op_type.partition(".")
    try:
        return getattr(getattr(namespace, name), which or "default")
    except AttributeError:
        raise fail("run.extern", f"the installed PyTorch has no operator {op_type}",
                   help="PyTorch 2.14 has it" if op_type in REMOVED else None) from None  # fmt: skip


def _go_on_drawing(execution: Execution) -> None:
    import torch

    state = execution.run.sessions.get(DOMAIN)
    if state is None:
        torch.manual_seed(execution.run.draws)
    else:
        torch.set_rng_state(state)


def _evaluated(value: Any, execution: Execution) -> Any:
    if isinstance(value, tuple):
        return [_evaluated(part, execution) for part in value]
    return dims.evaluate(value, execution.environment) if isinstance(value, Expr) else value
