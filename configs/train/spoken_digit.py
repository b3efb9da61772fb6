"""Free Spoken Digit Dataset (takes 0-4 held out): a GRU over log-mel frames, 19,338 parameters.

Command: python scripts/train.py configs/train/spoken_digit.py
Time: `python scripts/tables.py` (training).
Score: likewise.
"""

from modicum.models import GRUClassifier
from modicum.train import DataConfig, Experiment, OptimizerConfig


def config() -> Experiment:
    """The experiment."""
    return Experiment(
        data=DataConfig(name="spoken_digit"),
        model=GRUClassifier(features=64),
        optimizer=OptimizerConfig(learning_rate=3e-3, clip=1.0),
        epochs=20,
        batch=64,
    )
