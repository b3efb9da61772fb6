"""Small ResNet on CIFAR-10: patterns x signs x 4 bits at once.

Every 3x3 convolution but the first takes 4 of its 9 positions, one sign per kernel (a fragment of 9 rows) and 4 bits;
the first convolution and the head take 4 bits.

Anchor: none; no published system intersects the three. FORMS reports ResNet-20 on CIFAR-10 polarized and quantized to 8
bits without loss.
Command: python scripts/compress.py configs/forms/cifar10.py
Time and score: `python scripts/tables.py` (table cifar10).
"""

from modicum.constraints import Levels, NaturalPatterns, Polarized, nest
from modicum.models import small_resnet
from modicum.systems.compression_config import Recipe, Schedule
from modicum.train import DataConfig, Experiment, OptimizerConfig

DENSE = Experiment(
    data=DataConfig(name="cifar10", augment=True),
    model=small_resnet(),
    optimizer=OptimizerConfig(learning_rate=3e-3, warmup=200, weight_decay=1e-4),
    epochs=10,
    batch=64,
)


def config(fragment: int = 9, bits: int = 4) -> Recipe:
    """The experiment.

    Args:
        fragment: rows that share a sign, a divisor or multiple of 9.
        bits: width of a weight, sign included.
    """
    return Recipe(
        dense=DENSE,
        rules=(
            ("Conv_0/kernel|Dense.*kernel", Levels(bits)),
            ("Conv_.*kernel", nest(NaturalPatterns(8), Polarized(fragment), Levels(bits))),
        ),
        schedule=Schedule(outer=12, inner=100, retrain=1800, refit=4),
    )
