"""scikit-learn's digits (8x8, 1,297 to train, 500 held out): three 3x3 convolutions, 23,946 parameters.

Command: python scripts/train.py configs/train/digits.py
Time: `python scripts/tables.py` (training).
Score: likewise.
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
