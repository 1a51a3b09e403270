"""A step of an optimizer: `irc kernels examples/optimizer.py:adam` lists a kernel for each parameter, in 2 launches."""

import irc
from irc.module import Module
from irc.ops import add, div, mul, sqrt, sub

WIDTH, HIDDEN, WORDS, POSITIONS, LAYERS = 256, 512, 500, 128, 2
NORM = ((WIDTH,), (WIDTH,))
LAYER = (
    *NORM, (WIDTH, 3 * WIDTH), (3 * WIDTH,), (WIDTH, WIDTH), (WIDTH,),
    *NORM, (WIDTH, HIDDEN), (HIDDEN,), (HIDDEN, WIDTH), (WIDTH,),
)  # fmt: skip
SHAPES = ((WORDS, WIDTH), (POSITIONS, WIDTH), *LAYER * LAYERS, *NORM, (WIDTH, WORDS), (WORDS,))


def adam() -> Module:
    """A step of Adam for the 30 parameters of a small transformer, as `torch.optim.Adam(..., foreach=True)` makes it.

    Arguments: for each parameter itself, its gradient, and the moving means of that and of its square; the rate of the
    step. The parameters and the means are updated in place.
    """

    def forward(rate, *tensors):
        results = []
        for parameter, gradient, mean, square in zip(*[iter(tensors)] * 4, strict=True):
            mean = add(mul(mean, 0.9), mul(gradient, 0.1))
            square = add(mul(square, 0.999), mul(mul(gradient, gradient), 0.001))
            step = div(mean, add(sqrt(square), 1e-8))
            results += [sub(parameter, mul(step, rate), name=f"w{len(results) // 3}"), mean, square]
        return results

    types = [f"f32[{', '.join(map(str, shape))}]" for shape in SHAPES for _ in range(4)]
    module = irc.trace(forward, "f32[]", *types)
    arguments = module.main.arguments[1:]
    for number in range(len(SHAPES)):
        for place, updated in enumerate((0, 2, 3)):
            module.main.updates[3 * number + place] = arguments[4 * number + updated]
    return module
