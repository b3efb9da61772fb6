"""MNIST

Command: python scripts/train.py configs/train/mnist.py
"""

from modicum.models import LeNet5
from modicum.train import DataConfig, Experiment, OptimizerConfig


def config() -> Experiment:
    """The experiment."""
    return Experiment(
        data=DataConfig(name="mnist"),
        model=LeNet5(),
        optimizer=OptimizerConfig(learning_rate=2e-3),
        epochs=5,
        batch=128,
    )
