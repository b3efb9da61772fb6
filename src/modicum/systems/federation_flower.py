"""Federated runs over Flower: the apps, and what starts SuperLink and SuperNodes with TLS on one machine.

An app's settings (`flwr run`'s `--run-config`): `folder` (terms, results), `config` (a config file, empty for a sum of
vectors that lie in the nodes' folders as `vector.npy`), `overrides`, `rounds`, `timeout`.
"""

import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modicum import train
from modicum.federated import ciphers
from modicum.federated.flower import FlowerRound, Terms, client_app, flwr_module, secure_sum
from modicum.systems import federation
from modicum.systems.federation_config import FederatedConfig

VECTOR, TASK = "vector.npy", "task.json"


def update(folder: Path, client: int, round_id: int, model: np.ndarray) -> np.ndarray:
    """What a client adds: the vector in its folder, or how far it moves the model in a round of training."""
    if (folder / VECTOR).is_file():
        delay = folder / f"delay-{round_id}"
        if delay.is_file():
            time.sleep(float(delay.read_text()))
        return np.load(folder / VECTOR).astype(np.float32)
    task = json.loads((folder / TASK).read_text())
    config = federation.load_config(task["config"], task["overrides"])
    return federation.client_move(config, client, model, round_id)


def make_client(root: Path | None = None) -> Any:
    """The `ClientApp` of all nodes; `root` is for simulation."""
    return client_app(update, root)


def make_server(simulated: Mapping[str, Any] | None = None) -> Any:
    """The `ServerApp`: the aggregator, and the server of federated learning.

    Args:
        simulated: the settings in simulation, where a run has none.
    """
    app = flwr_module("serverapp").ServerApp()

    @app.main()
    def main(grid: Any, context: Any) -> None:
        settings = simulated or context.run_config
        folder = Path(settings["folder"])
        terms, nodes = Terms.read(folder), len(Terms.read(folder).identities) + 1
        _wait(grid, nodes)
        task = json.loads((folder / TASK).read_text()) if (folder / TASK).is_file() else None
        run = None if task is None else federation.Server(federation.load_config(task["config"], task["overrides"]))
        for at in range(int(settings["rounds"])):
            model = np.zeros(0, np.float32) if run is None else run.flat()
            found = secure_sum(grid, context.run_id, terms, at, model, float(settings["timeout"]))
            line = _line(at, found)
            if run is None:
                np.save(folder / f"sum-{at}.npy", found.total)
            else:
                line |= run.take(found.total / len(found.survivors), at)
            train.metrics.append(folder / "metrics.jsonl", [line])

    return app


def _line(at: int, found: FlowerRound) -> dict[str, Any]:
    return {
        "step": at + 1,
        "clients": len(found.survivors),
        "survivors": list(found.survivors),
        "refused": list(found.refused),
        "upload_bytes": found.upload_bytes,
    }


def _wait(grid: Any, nodes: int, seconds: float = 60.0) -> None:
    """Until all nodes are there, or long enough."""
    until = time.monotonic() + seconds
    while len(list(grid.get_node_ids())) < nodes and time.monotonic() < until:
        time.sleep(0.5)


def prepare(folder: Path, terms: dict[str, Any], clients: int, task: dict[str, Any] | None = None) -> Terms:
    """Folders of server, provider and clients with fresh keys, and the app that `flwr run` takes.

    Args:
        folder: of the run; made.
        terms: those of `Terms` but for the keys.
        clients: how many.
        task: config file and overrides; None for a sum of vectors.
    """
    identities = [secrets.token_bytes(32) for _ in range(clients)]
    provider = secrets.token_bytes(32)
    made = Terms(
        identities=tuple(ciphers.verify_key(key) for key in identities),
        provider_key=ciphers.public_key(provider),
        **terms,
    )
    nodes = [*(f"client-{at}" for at in range(clients)), "provider"]
    for name in ("", *nodes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        made.write(folder / name)
        if task is not None:
            (folder / name / TASK).write_text(json.dumps(task))
    for at, key in enumerate(identities):
        _secret(folder / f"client-{at}" / "identity.key", key)
    _secret(folder / "provider" / "provider.key", provider)
    write_app(folder / "app")
    return made


def _secret(path: Path, key: bytes) -> None:
    path.touch(0o600)
    path.write_bytes(key)


_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "modicum-federated"
version = "1.0.0"
description = "SEFL by modicum"
dependencies = ["flwr>=1.42,<1.43"]

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "modicum"

[tool.flwr.app.components]
serverapp = "app.server:app"
clientapp = "app.client:app"

[tool.flwr.app.config]
folder = ""
rounds = 1
timeout = 60.0
"""


def write_app(folder: Path) -> None:
    """A Flower app of two lines each, which import ours."""
    (folder / "app").mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(_PROJECT)
    (folder / "app" / "__init__.py").write_text("")
    for kind in ("server", "client"):
        text = f"from modicum.systems.federation_flower import make_{kind}\n\napp = make_{kind}()\n"
        (folder / "app" / f"{kind}.py").write_text(text)


def terms_of(config: FederatedConfig, dimension: int) -> dict[str, Any]:
    """The terms of a federated run, but for the keys."""
    return {
        "dimension": dimension,
        "clip": config.clip,
        "fraction_bits": config.fraction_bits,
        "ring_bits": config.ring_bits,
        "least": config.least,
        "sigma": config.sigma,
    }


def simulate(folder: Path, rounds: int, timeout_seconds: float) -> None:
    """The prepared run in Flower's simulation (Ray): all nodes on this machine, in few processes.

    Args:
        folder: see `prepare`.
        rounds: at least 1.
        timeout_seconds: of a stage.
    """
    settings = {"folder": str(folder), "rounds": rounds, "timeout": timeout_seconds}
    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    nodes = len(Terms.read(folder).identities) + 1
    flwr_module("simulation").run_simulation(
        make_server(settings), make_client(folder), nodes, backend_config=resources
    )
