"""CIFAR

Command: python scripts/train.py configs/train/cifar10.py
"""

from modicum.models import SmallConvNet
from modicum.train import DataConfig, Experiment, OptimizerConfig


def config() -> Experiment:
    """The experiment."""
    return Experiment(
        data=DataConfig(name="cifar10"),
        model=SmallConvNet(widths=(32, 64, 128), hidden=(128,)),
        optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=1e-2),
        epochs=5,
        batch=128,
    )
