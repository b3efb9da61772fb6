"""Free Spoken Digit Dataset (takes 0-4 held out): two GRU layers of 512 over MFCC, 2,428,426 parameters.

Command: python scripts/train.py configs/train/spoken_digit_gru.py
Time: `python scripts/tables.py` (training).
Score: likewise.
"""

from modicum.models import rtmobile_gru
from modicum.train import DataConfig, Experiment, OptimizerConfig


def config() -> Experiment:
    """The experiment."""
    return Experiment(
        data=DataConfig(name="spoken_digit", features="mfcc"),
        model=rtmobile_gru(512),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup=50, clip=1.0),
        epochs=10,
        batch=32,
    )
