"""MNIST (60,000 to train, 10,000 held out): LeNet-5, 61,706 parameters.

Command: python scripts/train.py configs/train/mnist.py
Time: `python scripts/tables.py` (training).
Score: likewise.
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
