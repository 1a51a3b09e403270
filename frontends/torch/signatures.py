"""What an exported program takes and gives, of its signature: arguments, buffers and parameters that it writes."""

from __future__ import annotations

from collections.abc import Iterator

from torch.export.graph_signature import (
    ConstantArgument,
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TokenArgument,
)


def taken_inputs(signature: ExportGraphSignature) -> Iterator[InputSpec]:
    """What a program takes when it is called: its arguments, and the buffers and parameters that it writes."""
    kinds = (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION)
    written = {spec.target for spec in signature.output_specs if spec.kind in kinds}
    for spec in signature.input_specs:
        is_held = spec.kind in (InputKind.BUFFER, InputKind.PARAMETER)
        is_given = spec.kind is InputKind.USER_INPUT and not isinstance(spec.arg, ConstantArgument)
        if is_given or (is_held and spec.target in written):
            yield spec


def given_results(signature: ExportGraphSignature) -> list[OutputSpec]:
    """What a program gives, in the order in which the importer's function does: what its caller requested, tensors and
    symbolic numbers, and then what it writes. Constants are no results."""
    given = [spec for spec in signature.output_specs if not isinstance(spec.arg, (ConstantArgument, TokenArgument))]
    return sorted(given, key=lambda spec: spec.kind is not OutputKind.USER_OUTPUT)


def updated_input(signature: ExportGraphSignature, spec: OutputSpec) -> str:
    """What PyTorch calls the placeholder of the argument, buffer or parameter that a result is written to."""
    if spec.kind is OutputKind.USER_INPUT_MUTATION:
        return str(spec.target)
    held = (InputKind.BUFFER, InputKind.PARAMETER)
    return next(str(each.arg.name) for each in signature.input_specs
                if each.kind in held and each.target == spec.target)  # fmt: skip
