"""LeNet-5 on MNIST: patterns and connectivity, 8 times fewer weights.

The second convolution takes 8 natural patterns of 9 of its 25 positions and 9 of 20 kernels per filter, the first
patterns alone; in the dense layers a kernel is one weight, and connectivity keeps 90 of 800 and 125 of 500 inputs of
each output.

Anchor: none for LeNet-5; 8x is PatDNN's setting for VGG-16 (3.6x connectivity, 4 of 9 positions).
Command: python scripts/compress.py configs/pattern/mnist.py
Time and score: `python scripts/tables.py` (table mnist).
"""

from modicum.constraints import Kernels, NaturalPatterns, nest
from modicum.systems.compression_config import Recipe, Schedule
from modicum.systems.dense import lenet_on_mnist


def config() -> Recipe:
    """The experiment."""
    return Recipe(
        dense=lenet_on_mnist(),
        rules=(
            ("Conv_0/kernel", NaturalPatterns(8, size=9)),
            ("Conv_1/kernel", nest(Kernels(9), NaturalPatterns(8, size=9))),
            ("Dense_0/kernel", Kernels(90)),
            ("Dense_1/kernel", Kernels(125)),
        ),
        schedule=Schedule(outer=20, inner=75, retrain=1500, rho=1.0, growth=1.3, retrain_learning_rate=2e-3, refit=5),
    )
