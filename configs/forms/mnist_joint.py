"""LeNet-5 on MNIST: patterns x signs x 4 bits at once, which no other library can even project onto.

Convolutions take 8 natural patterns of 9 of 25 positions and 4 bits, the second one sign per 5 rows (of a kernel) as
well; the dense layers take one sign per 8 rows and 4 bits. The first convolution keeps both signs (two columns on a
crossbar): a filter of one kernel with one sign has no edge left to detect.

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
            ("Conv_0/kernel", nest(NaturalPatterns(8, size=9), Levels(4))),
            ("Conv_1/kernel", nest(NaturalPatterns(8, size=9), Polarized(5), Levels(4))),
            ("Dense_.*kernel", nest(Polarized(8), Levels(4))),
        ),
        schedule=Schedule(outer=20, inner=100, retrain=2000, rho=1.0, growth=1.3, retrain_learning_rate=2e-3),
    )
