"""CIFAR-10: micro-structured unification in 1-D, 2-D and 3-D blocks, alone or with pruned blocks.

Every 3x3 convolution but the first unifies a share of its micro-blocks (one absolute value each) and, with `pruned`,
empties another.

Anchor: the paper's tables could not be read; its claims are unification without loss, and best results from unified and
pruned blocks together.
Command: python scripts/compress.py configs/unification/cifar10.py block=9,4,4 fraction=0.5 pruned=0.25
Time and score: `python scripts/tables.py` (table cifar10_gpu).
"""

from modicum.constraints import Unified
from modicum.systems.compression_config import ByWindow, Recipe
from modicum.systems.dense import on_cifar10, schedule_on_cifar10


def config(
    model: str = "small", block: tuple[int, ...] = (1, 4, 4), fraction: float = 0.75, pruned: float = 0.0
) -> Recipe:
    """The experiment.

    Args:
        model: small (a ResNet for CPUs), resnet20, vgg16 or mobilenet_v2.
        block: (taps, inputs, outputs) of a micro-block: 1,1,16 is 1-D, 1,4,4 is 2-D, 9,4,4 is 3-D.
        fraction: share of the blocks that are unified.
        pruned: share of the blocks that are zero.
    """
    return Recipe(
        dense=on_cifar10(model),
        rules=(("Conv_0/kernel", None), ("Conv_.*kernel", ByWindow(Unified(block, fraction, pruned)))),
        schedule=schedule_on_cifar10(model),
    )
