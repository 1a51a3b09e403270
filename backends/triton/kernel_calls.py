"""`kernel` operations in the host program: launches, with the buffers that they write."""

from __future__ import annotations

from collections.abc import Mapping

from irc.backends.triton.calls import torch_type
from irc.backends.triton.donation import in_place
from irc.backends.triton.function_writer import FunctionWriter
from irc.backends.triton.naming import value_name
from irc.backends.triton.sizes import UNCHECKED
from irc.dtypes import FLOATS8
from irc.ir import Operation, Value
from irc.kernel import Kernel, LegalityFailure
from irc.kernel.bundles import knows_warps


def write_kernel_operation(writer: FunctionWriter, operation: Operation) -> None:
    block = operation.regions[0].block
    for argument, operand in zip(block.arguments, operation.inputs, strict=True):
        writer.values[argument] = writer.variable(operand)
    yielded, kernel = block.terminator.inputs, writer.derived(operation)
    if isinstance(kernel, LegalityFailure):
        writer.builder.program.rejected[operation.attributes["name"]] = f"{kernel.rule}: {kernel.message}"
        for member in block:
            if not member.definition.is_terminator:
                writer.write_operation(member)
    else:
        for inner, result in zip(yielded, operation.results, strict=True):
            if inner.operation is not None and inner not in writer.values:
                writer.values[inner] = writer.variable(result)
                if result in writer.reused:
                    writer.reused[inner] = writer.reused[result]
        labels = {
            inner: "" if outer.operation is operation and outer.is_anonymous else value_name(outer)  # "out"
            for inner, outer in zip(
                (*block.arguments, *yielded), (*operation.inputs, *operation.results), strict=True
            )
        }
        donated = {result: writer.reused[result] for result in operation.results
                   if writer.reused.get(result) in writer.function.arguments}  # fmt: skip
        kernel = writer.builder.program.derived[operation] = in_place(operation, kernel, donated)
        _launch(writer, kernel, operation, labels)
    for inner, result in zip(yielded, operation.results, strict=True):
        writer.values[result] = writer.values[inner]


def _launch(writer: FunctionWriter, kernel: Kernel, operation: Operation, labels: Mapping[Value, str]) -> None:
    bundle = writer.bundles.get(operation)
    source = writer.builder.kernel(kernel, operation, labels, bundle is not None)
    arguments = [_contiguous(writer, buffer) for buffer in kernel.inputs]
    for output in kernel.outputs:
        name, shape, dead = writer.variable(output), writer.shape(output.shape), writer.reused.get(output)
        if dead is None:
            kind = f"dtype=torch.{torch_type(output.dtype)}, device=device"
            writer.line(f"{name} = torch.empty({shape}, {kind})")
        elif dead in writer.function.arguments:
            writer.line(f"{name} = {writer.variable(dead)}  # which it updates")
        else:
            view = "" if dead.shape == output.shape else f".view({shape})"
            writer.line(f"{name} = {writer.variable(dead)}{view}  # whose memory nothing needs any more")
            writer.line(f"del {writer.variable(dead)}")
        writer.contiguous.add(name)
        arguments.append(name)
    arguments += [writer.sizes.text(size, UNCHECKED) for size in source.sizes]
    for tile in source.tiles:
        extent = writer.sizes.text(tile.extent, UNCHECKED)
        exact = "" if tile.masked else ", exact=True"
        if tile.single or tile.whole:
            arguments.append(f"{tile.name}={'Each' if tile.single else 'Whole'}({extent})")
        else:
            arguments.append(f"{tile.name}={'Loop' if tile.looped else 'Grid'}({extent}, {tile.block}{exact})")
    options = [f"warps={source.warps}"] if knows_warps(kernel) else []  # else launch() chooses, when it knows the rows
    if source.options.stages is not None:
        options.append(f"stages={source.options.stages}")
    float8 = [f"float8=torch.{torch_type(source.float8)}"] if source.float8 is not None else []
    extents = [writer.sizes.text(extent, UNCHECKED) for extent in source.extents]
    largest = [f"extent={extents[0] if len(extents) == 1 else 'max(' + ', '.join(extents) + ')'}"] if extents else []
    if bundle is None:
        writer.line(f"launch(kernels.{source.name}, {', '.join([*arguments, *options, *largest, *float8])})")
        return
    bundle.kernels.append(kernel)
    bundle.sources.append(source)
    bundle.calls.append(f"member({', '.join([*arguments, *largest])})")
    if bundle.is_complete:
        writer.builder.bundle(bundle)
        writer.line(f"launch_bundle(kernels.{bundle.name}, {', '.join([*bundle.calls, *options])})")


def _contiguous(writer: FunctionWriter, value: Value) -> str:
    """The text of an argument of a launch: kernels address dense tensors, and take floats of 8 bits for bytes, since
    not all devices have them."""
    name = writer.variable(value)
    dense = name if name in writer.contiguous or name.startswith("weights[") else f"{name}.contiguous()"
    return f"{dense}.view(torch.uint8)" if value.dtype in FLOATS8 else dense
