"""A federated run in one process: clients by vmap, updates added up by a protocol, resumable, with a picture."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh
from jaxtyping import Array
from rich.console import Console

from modicum import train
from modicum.core import (
    Constraint,
    Key,
    Params,
    check,
    checkpoint,
    leaves_by_path,
    map_by_path,
    parallel,
    select_by_path,
)
from modicum.federated import learning, upload
from modicum.federated.partition import Split
from modicum.systems import drawing, progress
from modicum.systems.federation_config import FederatedConfig
from modicum.systems.federation_paths import Paths, Summed, secrets_of
from modicum.systems.federation_task import split_of, task_of
from modicum.train import metrics, report


class FederatedState(NamedTuple):
    """All that the next round needs."""

    params: Params
    opt_state: Any
    """Of the server."""
    residual: Any
    """What each client has not sent so far, stacked."""
    dual: learning.DualState
    """ADMM's, of the constrained leaves."""
    round: Array
    """How many rounds were made, an int32 scalar."""


class FederatedResult(NamedTuple):
    """What a run gave."""

    state: FederatedState
    summary: dict[str, Any]


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> FederatedConfig:
    """The run that a config file's `config()` returns, with some settings changed.

    Args:
        path: a Python file.
        overrides: `name=value`, see `train.parse_overrides`.

    Raises:
        ValueError: if there is no such file, it does not define a federated run, or a setting does not fit.
    """
    made, others = train.configured(path, overrides)
    if not isinstance(made, FederatedConfig):
        raise ValueError(f"config() of {path} must return a FederatedConfig, got {type(made).__name__}")
    return train.parse_overrides(made, others)


def client_batches(
    arrays: tuple[np.ndarray, ...], split: Split, key: Key, batch: int, clients: slice = slice(None)
) -> Callable[[Any], Any]:
    """`number of the step -> batches stacked by client`: each client goes through its examples in its own order.

    Clients with fewer examples than others start over within an epoch of the largest. `clients` says for whom.
    """
    size = max(share.size for share in split)
    check.integer(1, size, batch=batch)
    table = jnp.asarray(np.stack([np.resize(share, size) for share in split]))
    data = jax.tree.map(jnp.asarray, arrays)
    keys = jax.random.split(key, len(split))[clients]
    table = table[clients]

    @jax.jit
    def take(data: Any, table: Array, step: Any) -> Any:
        chosen = jax.vmap(lambda key, row: row[train.batch_indices(key, step, size, batch)])(keys, table)
        return jax.tree.map(lambda array: array[chosen], data)

    return functools.partial(take, data, table)


def constrained(rules: Sequence[tuple[str, Constraint]], params: Params) -> dict[str, Constraint]:
    """The constraint of each leaf that the first matching pattern gives one, fitted to it."""
    chosen = select_by_path(dict(rules), params)
    leaves = leaves_by_path(params)
    found = leaves_by_path(chosen, is_leaf=lambda part: isinstance(part, Constraint))
    return {name: constraint.fit(leaves[name]) for name, constraint in found.items()}


def server_optimizer(config: FederatedConfig) -> optax.GradientTransformation:
    """What the server does with the mean."""
    if config.server == "adam":
        # Reddi et al. (2021), section 5: a large epsilon
        return optax.adam(config.server_rate, b2=0.99, eps=1e-3)
    return optax.sgd(config.server_rate, momentum=0.9 if config.server == "momentum" else None)


def _continued(opt_state: Any, step: int) -> Any:
    """The client's fresh optimizer state with its schedule where the run stands."""
    return jax.tree.map(
        lambda part: part._replace(count=jnp.full_like(part.count, step)) if _is_schedule(part) else part,
        opt_state,
        is_leaf=_is_schedule,
    )


def _is_schedule(part: Any) -> bool:
    return isinstance(part, optax.ScaleByScheduleState)


class _Run:
    """The parts of a run that do not change, compiled once; of all clients, or of one."""

    def __init__(
        self, config: FederatedConfig, root: str | Path | None, client: int | None = None, mesh: Mesh | None = None
    ) -> None:
        self.config = config
        init_key, order_key = jax.random.split(jax.random.key(config.seed))
        self.task = task_of(config, init_key, root)
        self.params = self.task.params
        flat, self.build = ravel_pytree(self.params)
        split = split_of(config, self.task.training[1])
        chosen = slice(None) if client is None else slice(client, client + 1)
        self.clients = len(split[chosen])
        self.batch_fn, self.mesh = client_batches(self.task.training, split, order_key, config.batch, chosen), mesh
        if mesh is not None:
            self.batch_fn = parallel.shard(self.batch_fn, mesh, "clients")
        self.optimizer = config.optimizer.build(config.rounds * config.local_steps)
        self.sets = constrained(config.constraints, self.params)
        self.step = learning.local_step(self.task.loss_fn, self.optimizer, config.proximal, config.rho)
        self.server = server_optimizer(config)
        self.paths = Paths(config, secrets_of(config.seed, config.clients), flat.size)
        self.sparse = jax.jit(jax.vmap(upload.topk_upload(config.fraction).update))

    def moves(self, params: Params, at: int, target: Mapping[str, Array] | None = None) -> tuple[Array, Array]:
        """How far each client moved in a round, `(clients, dimension)`, and its mean loss."""
        steps = self.config.local_steps
        clients = learning.clients_start(params, self.optimizer, self.clients)
        clients = clients._replace(opt_state=_continued(clients.opt_state, at * steps))
        if self.mesh is not None:
            clients = parallel.spread(clients, self.mesh)
        moved, losses = learning.local_training(
            self.step, clients, lambda step: self.batch_fn(at * steps + step), steps, params, target or {}
        )
        return parallel.local((jax.vmap(lambda tree: ravel_pytree(tree)[0])(moved), losses))

    def start(self) -> FederatedState:
        params = self.params
        residual = jnp.zeros((self.config.clients, self.paths.dimension if self._feeds_back else 0))
        dual = learning.dual_start(leaves_by_path(params), self.sets)
        return FederatedState(params, self.server.init(params), residual, dual, jnp.zeros((), jnp.int32))

    @property
    def _feeds_back(self) -> bool:
        return self.config.fraction < 1 and self.config.path == "enclave"

    def round(self, state: FederatedState) -> tuple[FederatedState, dict[str, float]]:
        """One round; numbers to log."""
        config, at = self.config, int(state.round)
        started, cpu = time.perf_counter(), time.process_time()
        updates, losses = self.moves(state.params, at, learning.pull_target(state.dual))
        present = np.random.default_rng((config.seed, at)).random(config.clients) >= config.dropout
        summed, residual = self._add_up(at, updates, present, state)
        params, opt_state = learning.server_update(
            self.server, state.params, state.opt_state, self.build(jnp.asarray(summed.mean))
        )
        line = {
            "step": at + 1,
            "loss": float(jnp.mean(losses)),
            "clients": int(present.sum()),
            "upload_bytes": summed.upload_bytes,
            "dense_bytes": 4 * self.paths.dimension * int(present.sum()),
            "clipped": summed.clipped,
            "protocol_cpu_seconds": summed.cpu_seconds,
            "cpu_seconds": time.process_time() - cpu,
            "seconds": time.perf_counter() - started,
        }
        dual = learning.dual_update(state.dual, leaves_by_path(params), self.sets)
        return FederatedState(params, opt_state, residual, dual, state.round + 1), line

    def _add_up(self, at: int, updates: Array, present: np.ndarray, state: FederatedState) -> tuple[Summed, Array]:
        residual, support = state.residual, None
        if self._feeds_back:
            updates, kept = self.sparse(updates, upload.UploadState(state.residual))
            # a client that dropped has sent nothing: all of its update waits for the next round
            residual = jnp.where(present[:, None], kept.residual, updates + kept.residual)
        elif self.config.fraction < 1 and self.config.path == "sefl":
            support = np.asarray(upload.common_support(state.params, self.config.fraction))
        return self.paths.add_up(at, np.asarray(updates), present, support), residual


def federate(
    config: FederatedConfig,
    folder: str | Path | None = None,
    *,
    fresh: bool = False,
    root: str | Path | None = None,
    console: Console | None = None,
    mesh: Mesh | None = None,
) -> FederatedResult:
    """Trains a model over clients that do not show their data; the same call again goes on where a run stopped.

    Args:
        config: the run.
        folder: the run folder: `config.json`, `versions.json`, `metrics.jsonl` (a line per round), `checkpoints/`,
            `result.json`, `figure.png`. Nothing is written where None.
        fresh: whether to start over in a folder that holds a run.
        root: folder of data.
        console: where the progress bar is drawn; none where None.
        mesh: the devices that share the clients, see `core.parallel.data_mesh`; one device where None.

    Raises:
        ValueError: if data, model or folder do not fit the config, the clients do not split evenly over the mesh, or
            the loss is not finite.
        RefusedError: if fewer clients than `config.least` are left in a round.
    """
    described = train.describe(config)
    if folder is not None and not fresh:
        report.check_folder(folder, described)
    run = _Run(config, root, mesh=mesh)
    state, lines = run.start(), []
    if folder is not None:
        folder = Path(folder)
        report.open_folder(folder, described, fresh=fresh)
        found = checkpoint.restore(folder / "checkpoints", state)
        metrics.truncate(folder / "metrics.jsonl", 0 if found is None else found[0])
        lines = metrics.read(folder / "metrics.jsonl")
        state = state if found is None else found[1]
    with progress.bars(console) as bars:
        task = bars.add_task("rounds", total=config.rounds, completed=int(state.round))
        while int(state.round) < config.rounds:
            state, line = run.round(state)
            at = int(state.round)
            if at % config.evaluate_every == 0 or at == config.rounds:
                line |= run.task.score(state.params)
            bad = metrics.first_not_finite([line])
            if bad is not None:
                raise ValueError(f"{bad[1]} must be finite, got {bad[2]} in round {at}: lower the learning rate")
            lines.append(line)
            if folder is not None:
                metrics.append(folder / "metrics.jsonl", [line])
                if "test_loss" in line:
                    checkpoint.save(folder / "checkpoints", at, state)
            bars.update(task, completed=at, description=f"rounds  loss {line['loss']:.3f}")
    summary = _summary(config, run, lines)
    if run.sets:
        sets = run.sets
        project = functools.partial(map_by_path, lambda name, leaf: sets[name].project(leaf) if name in sets else leaf)
        state = state._replace(params=project(state.params))
        leaves = leaves_by_path(state.params)
        summary |= {f"projected_{name}": value for name, value in run.task.score(state.params).items()}
        summary["violation"] = max(float(each.violation(leaves[name])) for name, each in sets.items())
    if folder is not None:
        report.write_json(folder / "result.json", summary)
        draw(lines, folder / "figure.png", f"{config.data.name}, {config.split}, {config.path}")
    return FederatedResult(state, summary)


def client_move(
    config: FederatedConfig, client: int, flat: np.ndarray, round_id: int, root: str | Path | None = None
) -> np.ndarray:
    """What one client of the run, on a machine of its own, moves in a round: the same batches as in `federate`.

    Args:
        config: the run.
        client: its number.
        flat: the global model, `(dimension,)`.
        round_id: number of the round, from 0.
        root: folder of data.
    """
    check.integer(0, config.clients - 1, client=client)
    run = _Run(config, root, client)
    check.shape((run.paths.dimension,), flat=flat)
    moved, _ = run.moves(run.build(jnp.asarray(flat, jnp.float32)), round_id)
    return np.asarray(moved[0])


class Server:
    """The server of federated learning where the clients are elsewhere: the model, its optimizer, the held-out split.

    Args:
        config: the run.
        root: folder of data.
    """

    def __init__(self, config: FederatedConfig, root: str | Path | None = None) -> None:
        self.run = _Run(config, root)
        self.state = self.run.start()

    def flat(self) -> np.ndarray:
        """The global model, `(dimension,)`."""
        return np.asarray(ravel_pytree(self.state.params)[0])

    def take(self, mean: np.ndarray, at: int) -> dict[str, float]:
        """One step with the mean of the clients' moves; accuracy and loss where it is time to look at them."""
        run, config = self.run, self.run.config
        moved = run.build(jnp.asarray(mean, jnp.float32))
        params, opt_state = learning.server_update(run.server, self.state.params, self.state.opt_state, moved)
        self.state = self.state._replace(params=params, opt_state=opt_state, round=self.state.round + 1)
        due = (at + 1) % config.evaluate_every == 0 or at + 1 == config.rounds
        return run.task.score(self.state.params) if due else {}


def _summary(config: FederatedConfig, run: _Run, lines: list[dict[str, Any]]) -> dict[str, Any]:
    scored = [line for line in lines if "test_loss" in line]
    sent, dense = (sum(line[name] for line in lines) for name in ("upload_bytes", "dense_bytes"))
    scores = {name: value for name, value in scored[-1].items() if name.startswith("test_")}
    if "test_accuracy" in scores:
        scores["best_test_accuracy"] = max(line["test_accuracy"] for line in scored)
    else:
        scores["unknown_words"] = run.task.unknown
    return {
        "data": config.data.name,
        "model": type(config.model).__name__,
        "parameters": run.paths.dimension,
        "split": config.split,
        "path": config.path,
        "clients": config.clients,
        "rounds": len(lines),
        **scores,
        "test_examples": len(run.task.held_out[0]),
        "upload_bytes": sent,
        "upload_bytes_saved": 1 - sent / dense,
        "protocol_cpu_seconds": round(sum(line["protocol_cpu_seconds"] for line in lines), 3),
        "cpu_seconds": round(sum(line["cpu_seconds"] for line in lines), 1),
        "seconds": round(sum(line["seconds"] for line in lines), 1),
    }


def draw(lines: list[dict[str, Any]], path: Path, title: str) -> None:
    """Learning curve and bytes."""
    from matplotlib.figure import Figure

    figure = Figure((9, 3.4), layout="constrained")
    curve, sent = figure.subplots(1, 2)
    scored = [line for line in lines if "test_loss" in line]
    name, label, factor = "test_accuracy", "held out, % right", 100
    if "test_perplexity" in scored[-1]:
        name, label, factor = "test_perplexity", "held out, perplexity", 1
    curve.plot([line["step"] for line in scored], [factor * line[name] for line in scored], "o-", ms=3)
    curve.set(title=title, xlabel="rounds", ylabel=label)
    rounds = [line["step"] for line in lines]
    for name, label in (("dense_bytes", "dense, unprotected"), ("upload_bytes", "sent")):
        sent.plot(rounds, np.cumsum([line[name] for line in lines]) / 1e6, label=label)
    sent.set(title="uploads of all clients", xlabel="rounds", ylabel="megabytes")
    sent.legend(frameon=False)
    for axes in (curve, sent):
        axes.grid(alpha=0.3)
    drawing.save(figure, path)
