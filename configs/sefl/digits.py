"""A small convolutional net on scikit-learn's digits under SEFL, 4 clients: small enough to try all engines.

Command: python scripts/federate.py configs/sefl/digits.py --engine flower
Time: `python scripts/tables.py` (federated).
Score: likewise.
"""

from modicum.models import SmallConvNet
from modicum.systems.federation_config import FederatedConfig
from modicum.train import DataConfig, OptimizerConfig


def config() -> FederatedConfig:
    """The run."""
    return FederatedConfig(
        data=DataConfig(name="digits"),
        model=SmallConvNet(widths=(8, 16)),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.05),
        clients=4,
        rounds=12,
        local_steps=20,
        batch=32,
        path="sefl",
        evaluate_every=2,
    )
