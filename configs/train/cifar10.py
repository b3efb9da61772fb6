"""CIFAR-10 (50,000 to train, 10,000 held out): three 3x3 convolutions, 33,834 parameters; a short run.

Command: python scripts/train.py configs/train/cifar10.py
Time: 300 s for 1,170 steps (3 epochs) on 2 CPU cores that other jobs loaded five times over (jax 0.12).
Score: 70.27% on the test set (seed 0), no augmentation.
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
