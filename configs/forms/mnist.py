"""LeNet-5 on MNIST as FORMS' crossbars want it: fragments of 8 rows with one sign, 4-bit weights, in every layer.

Anchor: FORMS reports no loss for polarized and quantized LeNet-5 (8-bit weights); ours has 4 bits.
Command: python scripts/compress.py configs/forms/mnist.py
Time and score: `python scripts/tables.py` (table mnist).
"""

from modicum.constraints import Levels, Polarized, nest
from modicum.systems.compression_config import Recipe, Schedule
from modicum.systems.dense import lenet_on_mnist


def config(fragment: int = 8, bits: int = 4) -> Recipe:
    """The experiment.

    Args:
        fragment: rows that share a sign; 0 leaves signs free, for comparison.
        bits: width of a weight, sign included.
    """
    return Recipe(
        dense=lenet_on_mnist(),
        rules=(("kernel", nest(Polarized(fragment), Levels(bits)) if fragment else Levels(bits)),),
        schedule=Schedule(outer=20, inner=75, retrain=1500, rho=1.0, growth=1.3, retrain_learning_rate=2e-3),
    )
