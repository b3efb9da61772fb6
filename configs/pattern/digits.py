"""A small convolutional net on the bundled digits: patterns and connectivity, 8 times fewer weights.

Both inner 3x3 convolutions take 8 natural patterns of 4 of 9 positions and 28% of each filter's kernels.
The data come with scikit-learn.

Anchor: none; the same sets as PatDNN's VGG-16.
Command: python scripts/compress.py configs/pattern/digits.py --arms admm,one_shot,gradual
Time and score: `python scripts/tables.py` (table digits).
"""

from modicum.constraints import Kernels, NaturalPatterns
from modicum.models import SmallConvNet
from modicum.systems.compression_config import Keep, Recipe, Schedule, together
from modicum.train import DataConfig, Experiment, OptimizerConfig


def config(connectivity: float = 0.28, group: int = 1) -> Recipe:
    """The experiment.

    Args:
        connectivity: share of its kernels that a filter keeps.
        group: filters that share patterns and kernels.
    """
    kernels = Keep(Kernels, connectivity, (("group", group),))
    return Recipe(
        dense=Experiment(
            data=DataConfig(name="digits"),
            model=SmallConvNet(),
            optimizer=OptimizerConfig(learning_rate=3e-3),
            epochs=30,
            batch=64,
        ),
        rules=(("Conv_[12]/kernel", together(kernels, NaturalPatterns(8, group=group))),),
        schedule=Schedule(outer=16, inner=40, retrain=400, refit=4, learning_rate=2e-3, retrain_learning_rate=2e-3),
    )
