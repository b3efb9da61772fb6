"""LeNet-5 on MNIST: patterns x signs x 4 bits at once, which no other library can even project onto.

Convolutions take 8 natural patterns of 9 of 25 positions, one sign per kernel and 4 bits; the dense layers one sign per
8 rows and 4 bits.

Anchor: none; no published system intersects the three.
Command: python scripts/compress.py configs/forms/mnist_joint.py
Time and score: `python scripts/tables.py` (table mnist).
"""

from modicum.constraints import Levels, NaturalPatterns, Polarized, nest
from modicum.systems.compression_config import Recipe, Schedule
from modicum.systems.dense import lenet_on_mnist


def config() -> Recipe:
    """The experiment."""
    return Recipe(
        dense=lenet_on_mnist(),
        rules=(
            ("Conv_.*kernel", nest(NaturalPatterns(8, size=9), Polarized(25), Levels(4))),
            ("Dense_.*kernel", nest(Polarized(8), Levels(4))),
        ),
        schedule=Schedule(outer=20, inner=75, retrain=1500, rho=1.0, growth=1.3, retrain_learning_rate=2e-3),
    )
