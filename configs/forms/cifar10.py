"""CIFAR-10: patterns x signs x 4 bits at once.

Every 3x3 convolution but the first takes 4 of its 9 positions, one sign per kernel (a fragment of 9 rows) and 4 bits;
1x1 kernels take signs (8 rows) and bits; the first convolution and the head take 4 bits.

Anchor: none; no published system intersects the three. FORMS reports ResNet-20 on CIFAR-10 polarized and quantized to 8
bits without loss.
Command: python scripts/compress.py configs/forms/cifar10.py
Time and score: `python scripts/tables.py` (tables cifar10 and cifar10_gpu).
"""

from modicum.constraints import Levels, NaturalPatterns, Polarized, nest
from modicum.systems.compression_config import ByWindow, Recipe
from modicum.systems.dense import on_cifar10, schedule_on_cifar10


def config(model: str = "small", fragment: int = 9, bits: int = 4) -> Recipe:
    """The experiment.

    Args:
        model: small (a ResNet for CPUs), resnet20, vgg16 or mobilenet_v2.
        fragment: rows that share a sign, a divisor or multiple of 9.
        bits: width of a weight, sign included.
    """
    return Recipe(
        dense=on_cifar10(model),
        rules=(
            ("Conv_0/kernel|Dense.*kernel", Levels(bits)),
            (
                "Conv_.*kernel",
                ByWindow(nest(NaturalPatterns(8), Polarized(fragment), Levels(bits)), nest(Polarized(8), Levels(bits))),
            ),
        ),
        schedule=schedule_on_cifar10(model),
    )
