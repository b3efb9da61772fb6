"""LeNet-5 on MNIST: three quarters of all 4x4 micro-blocks unified, one absolute value each.

Anchor: the paper's tables could not be read; its claim is unification without loss of accuracy on larger nets.
Command: python scripts/compress.py configs/unification/mnist.py
Time and score: `python scripts/tables.py` (table mnist).
"""

from modicum.constraints import Unified
from modicum.systems.compression_config import Recipe, Schedule
from modicum.systems.dense import lenet_on_mnist


def config(fraction: float = 0.75) -> Recipe:
    """The experiment.

    Args:
        fraction: share of the blocks that are unified.
    """
    return Recipe(
        dense=lenet_on_mnist(),
        rules=(("kernel", Unified((1, 4, 4), fraction)),),
        schedule=Schedule(outer=20, inner=75, retrain=1500, rho=1.0, growth=1.3, retrain_learning_rate=2e-3),
    )
