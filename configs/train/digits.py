"""scikit-learn's digits (8x8, 1,297 to train, 500 held out): three 3x3 convolutions, 23,946 parameters.

Command: python scripts/train.py configs/train/digits.py
Time: 10 s for 600 steps on 2 CPU cores that other jobs shared (jax 0.12).
Score: 98.6% on the held-out digits, mean of seeds 0, 1, 2 (98.8, 97.8, 99.2).
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
