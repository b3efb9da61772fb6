"""A pattern-pruned network trained over clients under SEFL, then compiled for this machine and for a phone.

The server keeps projections and dual variables, clients see what to pull towards; no server sees an update.

Anchor: none; no published system joins these.
Command: modicum pipeline pipelines/private_phone (small: data=digits)
Time and score: `modicum tables` (pipelines).
"""

from modicum.constraints import PCONV_4, Kernels, Patterns, nest
from modicum.models import SmallConvNet
from modicum.systems.federation_config import FederatedConfig
from modicum.systems.pipelines import PrivateToPhone
from modicum.train import DataConfig, OptimizerConfig


def config(data: str = "mnist", rounds: int = 40, local_steps: int = 40, rho: float = 0.1) -> PrivateToPhone:
    """The pipeline.

    Args:
        data: mnist, or digits.
        rounds: of federated training.
        local_steps: of a client in a round.
        rho: how strongly weights are pulled into their sets.
    """
    return PrivateToPhone(
        federated=FederatedConfig(
            data=DataConfig(name=data),
            model=SmallConvNet(),
            optimizer=OptimizerConfig(name="sgd", learning_rate=0.05),
            clients=4,
            rounds=rounds,
            local_steps=local_steps,
            batch=32,
            path="sefl",
            constraints=(("Conv_[12]/kernel", nest(Kernels(8), Patterns(PCONV_4))),),
            rho=rho,
            evaluate_every=max(1, rounds // 4),
        )
    )
