"""CIFAR-10 (50,000 to train, 10,000 held out): three 3x3 convolutions, 33,834 parameters; a short run.

Command: python scripts/train.py configs/train/cifar10.py
Time: `python scripts/tables.py` (training).
Score: likewise.
"""

from modicum.models import SmallConvNet
from modicum.train import DataConfig, Experiment, OptimizerConfig


def config() -> Experiment:
    """The experiment."""
    return Experiment(
        data=DataConfig(name="cifar10"),
        model=SmallConvNet(widths=(16, 32, 64)),
        optimizer=OptimizerConfig(learning_rate=3e-3, weight_decay=1e-2),
        epochs=3,
        batch=128,
    )
