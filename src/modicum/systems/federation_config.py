"""What a federated run is: data and their split, local training, and how updates are added up."""

from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn

from modicum.core import check
from modicum.models import LeNet5
from modicum.train import DataConfig, OptimizerConfig

SPLITS = ("iid", "shards", "dirichlet")
PATHS = ("plain", "sefl", "enclave")
SERVERS = ("average", "momentum", "adam")


@dataclass(frozen=True, kw_only=True)
class FederatedConfig:
    """A federated run.

    Attributes:
        data: what is learned.
        model: a flax.linen module, `inputs -> logits`, without batch statistics.
        optimizer: of the clients; its schedule runs over all rounds, its state starts anew in each.
        split: "iid", "shards" (few classes each) or "dirichlet"; of text, "iid" (windows drawn at random) or "shards"
            (stretches that follow each other).
        window: words of an example, where the data are text.
        hankel: side of the Hankel blocks that weights are trained and sent in, 0 for dense ones. Weights of two axes,
            both at least as long, are put into that form.
        shards: classes, or rather shards, of a client, where the split is that.
        concentration: of the Dirichlet distribution, where the split is that.
        clients: how many, at least 2.
        rounds: how many, at least 1.
        local_steps: optimizer steps of a client in a round, at least 1.
        batch: examples in a step, at least 1.
        path: how updates are added up: "plain" (nothing is hidden), "sefl" or "enclave".
        fraction: share of an update's entries that is sent. In the enclave each client sends its largest ones, with
            error feedback; under SEFL all send those where the global model is largest.
        dropout: probability that a client drops in a round, from 0 to below 1.
        least: fewest clients that a round may end with.
        server: what the server does with the mean: "average" (FedAvg), "momentum" (0.9) or "adam" (FedAdam).
        server_rate: its learning rate, 1 for FedAvg.
        proximal: FedProx's mu, at least 0.
        constraints: sets that weights are pulled into by ADMM: pairs of a pattern of paths and a constraint. The server
            keeps projection and dual variable, clients see only what to pull towards; in the end the model is
            projected. Set in the config file.
        rho: weight of that pull, above 0.
        clip: SEFL: entries are clipped to this magnitude.
        fraction_bits: SEFL: bits after the point.
        ring_bits: SEFL: bits of a ring element on the wire.
        sigma: SEFL: scale of each server's noise, in steps.
        clip_norm: enclave: largest norm of an update.
        evaluate_every: rounds between two looks at the held-out split, and between two checkpoints.
        seed: of initial parameters, split, order of examples, drop-outs and, as this is a simulation, of all secrets.
    """

    data: DataConfig = field(default_factory=lambda: DataConfig(name="mnist"))
    model: nn.Module = field(default_factory=LeNet5)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(name="sgd", learning_rate=0.02))
    split: str = "iid"
    window: int = 32
    hankel: int = 0
    shards: int = 2
    concentration: float = 0.5
    clients: int = 10
    rounds: int = 20
    local_steps: int = 50
    batch: int = 32
    path: str = "enclave"
    fraction: float = 1.0
    dropout: float = 0.0
    least: int = 2
    server: str = "average"
    server_rate: float = 1.0
    proximal: float = 0.0
    constraints: tuple[Any, ...] = ()
    rho: float = 0.01
    clip: float = 4.0
    fraction_bits: int = 20
    ring_bits: int = 32
    sigma: float = 0.0
    clip_norm: float = 100.0
    evaluate_every: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        check.one_of(SPLITS, split=self.split)
        check.one_of(PATHS, path=self.path)
        check.one_of(SERVERS, server=self.server)
        check.integer(2, clients=self.clients)
        check.integer(2, self.clients, least=self.least)
        check.integer(
            1,
            rounds=self.rounds,
            local_steps=self.local_steps,
            batch=self.batch,
            evaluate_every=self.evaluate_every,
            shards=self.shards,
            window=self.window,
        )
        check.integer(0, hankel=self.hankel)
        if self.hankel == 1:
            raise ValueError("hankel must be 0 or at least 2, got 1")
        check.between(0.0, 1.0, fraction=self.fraction)
        check.positive(fraction=self.fraction, server_rate=self.server_rate, clip_norm=self.clip_norm, rho=self.rho)
        check.between(0.0, 0.999, dropout=self.dropout)
        check.non_negative(proximal=self.proximal, sigma=self.sigma)
        check.integer(0, 2**32 - 1, seed=self.seed)
        if self.sigma and self.path != "sefl":
            raise ValueError(f"sigma must be 0 where path is {self.path!r}, got {self.sigma}: only SEFL adds noise")
