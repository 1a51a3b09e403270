"""`write_kernel`: the Triton source of a kernel, by the writer for kernels of its kind."""

from __future__ import annotations

from collections.abc import Mapping

from irc.backends.triton.online_source import OnlineWriter
from irc.backends.triton.product_source import ProductWriter
from irc.backends.triton.row_source import RowWriter
from irc.backends.triton.source import KernelSource, KernelWriter
from irc.ir import Value
from irc.kernel import Kernel


def write_kernel(kernel: Kernel, name: str, labels: Mapping[Value, str] | None = None,
                 is_bundled: bool = False) -> KernelSource:  # fmt: skip
    """The source of one kernel function. `labels` are names for buffers where values have others inside a region. One
    that `is_bundled` is called by the kernel of its bundle, with the number of its program."""
    writer: type[KernelWriter]
    if is_bundled:
        assert kernel.kind != "product", "no bundle has a product (rule F20)"
    if kernel.online is not None:
        writer = OnlineWriter
    elif kernel.schedule.summed is not None:
        writer = ProductWriter
    else:
        columns = kernel.schedule.columns
        writer = RowWriter if columns is not None and columns.looped else KernelWriter
    return writer(kernel, name, labels or {}, is_bundled).source()
