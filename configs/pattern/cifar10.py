"""Small ResNet on CIFAR-10: kernel patterns, alone or with connectivity, out of several libraries.

Every 3x3 convolution but the first takes 4 of its 9 positions (2.25x), and with `connectivity=0.28` that share of its
kernels, too (8x), equally many in each filter. `group` filters share the pattern of an input channel and the kernels
they keep: what vector units like.

Anchor: PCONV and the ECCV 2020 paper claim that patterns raise the accuracy of VGG-16 and ResNets; PatDNN, VGG-16 on
CIFAR-10, 8.0x: 93.9% (+0.4).
Command: python scripts/compress.py configs/pattern/cifar10.py library=natural connectivity=0.28
Time and score: `python scripts/tables.py` (table cifar10).
"""

import itertools

import numpy as np

from modicum.constraints import MEST_8, PCONV_4, Kernels, NaturalPatterns, Patterns
from modicum.models import small_resnet
from modicum.systems.compression_config import Keep, Recipe, Schedule, together
from modicum.train import DataConfig, Experiment, OptimizerConfig

DENSE = Experiment(
    data=DataConfig(name="cifar10", augment=True),
    model=small_resnet(),
    optimizer=OptimizerConfig(learning_rate=3e-3, warmup=200, weight_decay=1e-4),
    epochs=10,
    batch=64,
)
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


def config(library: str = "natural", connectivity: float = 1.0, group: int = 1) -> Recipe:
    """The experiment.

    Args:
        library: natural, pconv, mest, random or any.
        connectivity: share of its kernels that a filter keeps, above 0, at most 1.
        group: filters that share patterns and kernels.
    """
    kept = patterns(library, group)
    rule = kept if connectivity == 1 else together(Keep(Kernels, connectivity, (("group", group),)), kept)
    return Recipe(
        dense=DENSE,
        rules=(("Conv_0/kernel", None), ("Conv_.*kernel", rule)),
        schedule=Schedule(outer=12, inner=100, retrain=1800, refit=4),
    )
