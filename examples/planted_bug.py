"""A pass with a mistake in it, to be found: `irc check MODEL --each --load planted_bug.py -p "...,sharpen"`."""

from dataclasses import dataclass

from irc.op import Builder
from irc.ops import mul
from irc.pass_manager import Pass


@dataclass
class Sharpen(Pass):
    """Meant to leave programs as they are; multiplies the operand of each softmax by 1.01."""

    def run(self, module, context):
        found = [operation for operation in module.walk() if operation.name == "softmax"]
        for operation in found:
            with Builder.before_operation(operation, operation.location.by("sharpen")):
                operation.set_operand(0, mul(operation.operands[0], 1.01))
        return bool(found)
