"""CIFAR-10: kernel patterns, alone or with connectivity, out of several libraries.

The small network is an eight-layer ResNet for CPUs, the others (ResNet-20, VGG-16, MobileNetV2) want a GPU. Every 3x3
convolution but the first takes 4 of its 9 positions (2.25x), and with `connectivity=0.28` that share of its kernels,
too (8x), equally many in each filter (1x1 kernels as well). `group` filters share the pattern of an input channel and
the kernels they keep: what vector units like.

Anchor: PCONV and the ECCV 2020 paper claim that patterns raise the accuracy of VGG-16 and ResNets; PatDNN, VGG-16 on
CIFAR-10, 8.0x: 93.9% (+0.4).
Command: python scripts/compress.py configs/pattern/cifar10.py model=vgg16 connectivity=0.28
Time and score: `python scripts/tables.py` (tables cifar10 and cifar10_gpu).
"""

import itertools

import numpy as np

from modicum.constraints import MEST_8, PCONV_4, Kernels, NaturalPatterns, Patterns
from modicum.systems.compression_config import ByWindow, Keep, Recipe, together
from modicum.systems.dense import on_cifar10, schedule_on_cifar10

LIBRARIES = ("natural", "pconv", "mest", "random", "any")


def patterns(library: str, group: int) -> Patterns | NaturalPatterns:
    """Patterns of 4 positions by name; "random" draws 8 of all 126, always the same, "any" has them all."""
    if library == "natural":
        return NaturalPatterns(8, group=group)
    every = tuple(itertools.combinations(range(9), 4))
    if library == "random":
        drawn = np.argsort(np.random.PCG64(0).random_raw(len(every)), kind="stable")[:8]
        return Patterns(tuple(every[at] for at in sorted(drawn)), group=group)
    known = {"pconv": PCONV_4, "mest": MEST_8, "any": every}
    if library not in known:
        raise ValueError(f"library must be one of {', '.join(LIBRARIES)}, got {library!r}")
    return Patterns(known[library], group=group)


def config(model: str = "small", library: str = "natural", connectivity: float = 1.0, group: int = 1) -> Recipe:
    """The experiment.

    Args:
        model: small (a ResNet for CPUs), resnet20, vgg16 or mobilenet_v2.
        library: natural, pconv, mest, random or any.
        connectivity: share of its kernels that a filter keeps, above 0, at most 1.
        group: filters that share patterns and kernels.
    """
    kept, kernels = patterns(library, group), Keep(Kernels, connectivity, (("group", group),))
    rule = ByWindow(kept) if connectivity == 1 else ByWindow(together(kernels, kept), kernels)
    return Recipe(
        dense=on_cifar10(model),
        rules=(("Conv_0/kernel", None), ("Conv_.*kernel", rule)),
        schedule=schedule_on_cifar10(model),
    )
