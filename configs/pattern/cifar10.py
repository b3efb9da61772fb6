"""CIFAR-10: kernel patterns, alone or with connectivity, out of several libraries.

The small network is an eight-layer ResNet for CPUs, the others (ResNet-20, VGG-16, MobileNetV2) want a GPU. Every 3x3
convolution but the first takes 4 of its 9 positions (2.25x), and with `connectivity=0.28` that share of its kernels,
too (8x), equally many in each filter (1x1 kernels as well). `group` filters share the pattern of an input channel and
the kernels they keep: what vector units like. `library=none` keeps every weight: what the steps alone would do.

Anchor: PCONV and the ECCV 2020 paper claim that patterns raise the accuracy of VGG-16 and ResNets; PatDNN, VGG-16 on
CIFAR-10, 8.0x: 93.9% (+0.4).
Command: python scripts/compress.py configs/pattern/cifar10.py model=vgg16 connectivity=0.28
Time and score: `python scripts/tables.py` (tables cifar10 and cifar10_gpu).
"""

import itertools

import numpy as np

from modicum.constraints import MEST_8, PCONV_4, Kernels, NaturalPatterns, Patterns, TopK
from modicum.systems.compression_config import ByWindow, Keep, Recipe, together
from modicum.systems.dense import on_cifar10, schedule_on_cifar10

LIBRARIES = ("natural", "pconv", "mest", "random", "any", "none")


def patterns(library: str, group: int, draw: int) -> Patterns | NaturalPatterns:
    """Patterns of 4 positions by name; "random" draws 8 of all 126, "any" has them all."""
    if library == "natural":
        return NaturalPatterns(8, group=group)
    every = tuple(itertools.combinations(range(9), 4))
    if library == "random":
        drawn = np.argsort(np.random.PCG64(draw).random_raw(len(every)), kind="stable")[:8]
        return Patterns(tuple(every[at] for at in sorted(drawn)), group=group)
    known = {"pconv": PCONV_4, "mest": MEST_8, "any": every}
    if library not in known:
        raise ValueError(f"library must be one of {', '.join(LIBRARIES)}, got {library!r}")
    return Patterns(known[library], group=group)


def config(
    model: str = "small", library: str = "natural", connectivity: float = 1.0, group: int = 1, draw: int = 0
) -> Recipe:
    """The experiment.

    Args:
        model: small (a ResNet for CPUs), resnet20, vgg16 or mobilenet_v2.
        library: natural, pconv, mest, random, any, or none for no patterns.
        connectivity: share of its kernels that a filter keeps, above 0, at most 1.
        group: filters that share patterns and kernels.
        draw: which random library, at least 0.
    """
    kernels = Keep(Kernels, connectivity, (("group", group),))
    if library == "none":
        rule = Keep(TopK, 1.0) if connectivity == 1 else kernels
    elif connectivity == 1:
        rule = ByWindow(patterns(library, group, draw))
    else:
        rule = ByWindow(together(kernels, patterns(library, group, draw)), kernels)
    return Recipe(
        dense=on_cifar10(model),
        rules=(("Conv_0/kernel", None), ("Conv_.*kernel", rule)),
        schedule=schedule_on_cifar10(model),
    )
