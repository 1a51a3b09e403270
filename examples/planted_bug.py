"""A pass with a mistake, for `irc check MODEL --each --load planted_bug.py -p "...,sharpen"` to find."""

from dataclasses import dataclass

from irc.op import Builder
from irc.ops import mul
from irc.pass_manager import Pass


@dataclass
class Sharpen(Pass):
    """Should not change results, but multiplies the operand of each softmax by 1.01."""

    def run(self, module, context):
        matches = [operation for operation in module.walk() if operation.name == "softmax"]
        for operation in matches:
            with Builder.before_operation(operation, operation.location.by("sharpen")):
                operation.set_operand(0, mul(operation.operands[0], 1.01))
        return bool(matches)
