"""One network under every kind of constraint: accuracy, bytes, latency and energy, and what nothing else beats.

Anchor: none; papers give one point each.
Command: modicum pipeline pipelines/frontier (full size: data=mnist)
Time and score: `modicum tables` (pipelines).
"""

from modicum.analog import CrossbarSpec
from modicum.constraints import PCONV_4, Kernels, Levels, NaturalPatterns, Patterns, Polarized, TopK, Unified, nest
from modicum.models import SmallConvNet
from modicum.systems.compression_config import Keep, Schedule, together
from modicum.systems.frontier import Entry, Frontier
from modicum.train import DataConfig, Experiment, OptimizerConfig

CONVOLUTIONS = "Conv_[12]/kernel"


def config(data: str = "digits", seeds: int = 3, epochs: int = 30, outer: int = 16, images: int = 100) -> Frontier:
    """The pipeline.

    Args:
        data: digits, or mnist.
        seeds: dense networks that each set is tried on.
        epochs: of their training.
        outer: dual updates, with 40 steps before each; retraining has 25 for each.
        images: held-out images whose energy is counted.
    """
    signs = CrossbarSpec(encoding="polarized", fragment=9, weight_bits=4)
    entries = (
        Entry(name="dense"),
        Entry(name="10% of weights", rules=((CONVOLUTIONS, Keep(TopK, 0.1)),)),
        Entry(name="patterns", rules=((CONVOLUTIONS, Patterns(PCONV_4)),)),
        Entry(
            name="patterns + connectivity", rules=((CONVOLUTIONS, together(Keep(Kernels, 0.28), NaturalPatterns(8))),)
        ),
        Entry(name="4 bits", rules=((CONVOLUTIONS, Levels(4)),), spec=CrossbarSpec(weight_bits=4)),
        Entry(name="polarized, 4 bits", rules=((CONVOLUTIONS, nest(Polarized(9), Levels(4))),), spec=signs),
        Entry(name="unified blocks", rules=((CONVOLUTIONS, Unified((1, 4, 4), 0.75)),)),
        Entry(
            name="patterns, polarized, 4 bits",
            rules=((CONVOLUTIONS, nest(Kernels(8), Patterns(PCONV_4), Polarized(9), Levels(4))),),
            spec=signs,
        ),
    )
    return Frontier(
        dense=Experiment(
            data=DataConfig(name=data),
            model=SmallConvNet(),
            optimizer=OptimizerConfig(learning_rate=3e-3),
            epochs=epochs,
            batch=64,
        ),
        entries=entries,
        schedule=Schedule(outer=outer, inner=40, retrain=25 * outer, learning_rate=2e-3, retrain_learning_rate=2e-3),
        seeds=seeds,
        images=images,
    )
