"""Digits of scikit-learn, 8x8: a small conv net of 24,000 parameters.

Command: python scripts/train.py configs/train/digits.py
"""

from modicum.models import SmallConvNet
from modicum.train import DataConfig, Experiment, OptimizerConfig


def config() -> Experiment:
    """The experiment."""
    return Experiment(
        data=DataConfig(name="digits"),
        model=SmallConvNet(widths=(16, 32, 64)),
        optimizer=OptimizerConfig(learning_rate=3e-3),
        epochs=30,
        batch=64,
    )
