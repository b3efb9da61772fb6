"""A federated run on Flower: in its simulation, or as SuperLink and SuperNodes on this machine."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modicum import train
from modicum.core import check
from modicum.systems import federation_flower
from modicum.systems.federation_config import FederatedConfig
from modicum.systems.federation_deploy import Deployment

ENGINES = ("flower-simulation", "flower")
TIMEOUT_SECONDS = 180.0
"""Of a stage: each message starts a process, which loads the data and compiles its step."""


def run(
    config: FederatedConfig, path: Path, overrides: Sequence[str], folder: Path, engine: str
) -> list[dict[str, Any]]:
    """Runs all rounds; the folder is made anew.

    Args:
        config: the run, of path "sefl" and all entries.
        path: its file, which the nodes read.
        overrides: what was changed in it.
        folder: where keys, terms, logs and `metrics.jsonl` go.
        engine: one of `ENGINES`.

    Returns:
        The lines of all rounds.

    Raises:
        ValueError: for a config that this engine does not run.
        OSError: where a process or a round fails.
    """
    check.one_of(ENGINES, engine=engine)
    if config.path != "sefl" or config.fraction < 1:
        raise ValueError(f"path must be 'sefl' with fraction 1 on {engine}, got {config.path!r} and {config.fraction}")
    folder = folder.resolve()
    if (folder / "terms.json").is_file():
        shutil.rmtree(folder)
    example = train.load_split(config.data, config.data.test).inputs[:2]
    shapes = jax.eval_shape(config.model.init, jax.random.key(0), jnp.asarray(example))
    dimension = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
    task = {"config": str(path.resolve()), "overrides": list(overrides)}
    federation_flower.prepare(folder, federation_flower.terms_of(config, dimension), config.clients, task)
    if engine == "flower-simulation":
        federation_flower.simulate(folder, config.rounds, TIMEOUT_SECONDS)
        lines = train.metrics.read(folder / "metrics.jsonl")
        if len(lines) < config.rounds:
            raise OSError(f"the simulation ended after {len(lines)} of {config.rounds} rounds")
        return lines
    with Deployment(folder, config.clients) as deployment:
        deployment.run({"folder": str(folder), "rounds": config.rounds, "timeout": TIMEOUT_SECONDS})
        return deployment.await_rounds(config.rounds, 3 * TIMEOUT_SECONDS * config.rounds)


def sentence(line: dict[str, Any]) -> str:
    """A round in words."""
    score = f", {100 * line['test_accuracy']:.2f}% right" if "test_accuracy" in line else ""
    return f"{line['clients']} clients, {line['upload_bytes']:,} bytes{score}"
