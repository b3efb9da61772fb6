"""What the whole runs (`compress`, `one_shot`, `gradual`) share: preparation, retraining, packing, report."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from modicum.admm import leaves
from modicum.admm.config import CompressConfig
from modicum.admm.journal import Journal
from modicum.admm.leaves import Constraints, constrained_by_path
from modicum.admm.programs import Programs, compiled
from modicum.admm.report import LeafReport, Report
from modicum.admm.sets import Arrays, Sets, fitted_sets, split
from modicum.admm.stages import Batches, LossFn, batch_at, start_retraining
from modicum.core import Packed, Params, parallel, path_name

Progress = Callable[[str, int, int, dict[str, float]], Any]
"""`(stage, done, total, metrics)`, called after each chunk; stage is "admm", "gradual"
or "retrain"."""


@dataclass(frozen=True)
class Result:
    """What `compress` returns.

    Attributes:
        params: parameters whose constrained leaves lie in their sets.
        projected: the parameters right after the hard projection, before retraining.
        packed: those leaves in compressed form, by path.
        report: what happened, JSON-able.
        constraints: the pytree of constraints as last fitted.
    """

    params: Params
    projected: Params
    packed: dict[str, Packed]
    report: Report
    constraints: Constraints


def check_losses(losses: np.ndarray, first: int, stage: str) -> None:
    """Refuse losses that are not finite; `first` is the number of the first of them in its stage."""
    bad = np.flatnonzero(~np.isfinite(losses))
    if bad.size:
        raise ValueError(f"loss must be finite, got {losses[bad[0]]} at step {first + bad[0]} of {stage}")


def check_params(params: Params, when: str) -> None:
    """Refuse parameters that are not finite."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) and not bool(jnp.all(jnp.isfinite(leaf))):
            raise ValueError(f"params must be finite {when}, got NaN or infinite values in {path_name(path)!r}")


@dataclass(frozen=True)
class Run:
    """What all stages of a run need.

    Attributes:
        loss_fn: `(params, batch) -> scalar`.
        batch_fn: `step -> batch`, or `None` where `data` holds the batches.
        data: batches as arrays, or `None`.
        sets: the constraints, and what is static of them once fitted.
        config: the schedule.
        journal: where states are saved.
        progress: called after each chunk.
    """

    loss_fn: LossFn
    batch_fn: Callable[..., Any] | None
    data: Any
    sets: Sets
    config: CompressConfig
    journal: Journal
    progress: Progress | None

    def programs(self, config: CompressConfig, rest: Any) -> Programs:
        """The jitted chunks under a schedule, for constraints with this static rest."""
        return compiled(self.loss_fn, self.batch_fn, config, rest, split(self.sets.given)[1])

    def paths(self) -> list[str]:
        """Where the constrained leaves lie, in tree order."""
        return list(constrained_by_path(self.sets.given, self.sets.given))

    def report(self, stage: str, done: int, total: int, metrics: dict[str, Any]) -> None:
        """Calls `progress` with plain numbers."""
        if self.progress is not None:
            self.progress(stage, done, total, {name: float(value) for name, value in metrics.items()})


def prepare(
    method: str,
    loss_fn: LossFn,
    params: Params,
    batches: Batches,
    constraints: Constraints,
    config: CompressConfig | None,
    folder: str | Path | None,
    progress: Progress | None,
    mesh: Mesh | None,
) -> tuple[Run, Params, Arrays]:
    """Checks the arguments and opens the folder; arguments as in `compress`, and the name of the method.

    Returns:
        The run, the parameters on its devices, and the arrays of the constraints fitted to them.
    """
    config = (CompressConfig() if config is None else config).concrete()
    given = leaves.resolve(constraints, params)
    if not constrained_by_path(given, given):
        raise ValueError("constraints must hold a constraint for at least one leaf, got none")
    check_params(params, "at the start")
    if mesh is not None:
        stepwise = batches if callable(batches) else jax.tree_util.Partial(batch_at, jax.tree.map(jnp.asarray, batches))
        batches = parallel.shard(stepwise, mesh)
    journal = Journal.open(folder, method, config, given, params)
    if mesh is not None:
        params = parallel.replicate(params, mesh)
    if callable(batches) and not isinstance(batches, jax.tree_util.Partial):
        batch_fn, data = batches, None
    else:
        batch_fn, data = None, jax.tree.map(jnp.asarray, batches)
    sets, arrays = fitted_sets(given, params)
    return Run(loss_fn, batch_fn, data, sets, config, journal, progress), params, arrays


def _retrained(run: Run, config: CompressConfig, pulled: Params, arrays: Arrays) -> tuple[Params, Params, np.ndarray]:
    """Hard projection, and `config.retrain` steps inside the sets."""
    programs = run.programs(config, run.sets.rest)
    projected, theta = programs.project(pulled, arrays)
    builders = programs.builders(projected, arrays)
    start = start_retraining(theta, config), np.zeros(config.retrain, np.float32)
    done, (carry, losses) = run.journal.restore("retrain", start)
    losses = np.array(losses)
    while done < config.retrain:
        steps = min(config.chunk, config.retrain - done)
        carry, chunk = programs.retrain(carry, builders, arrays, run.data, done, steps)
        losses[done : done + steps] = chunk
        check_losses(losses[done : done + steps], done, "retraining")
        done += steps
        run.journal.save("retrain", done, (carry, losses), last=done == config.retrain)
        run.report("retrain", done, config.retrain, {"loss": losses[done - steps : done].mean()})
    return projected, programs.finish(carry, builders, arrays), losses


@dataclass(frozen=True)
class History:
    """The stage before the hard projection, a leading axis of outer iterations made on each array.

    Attributes:
        losses: at each step.
        rho: penalty strengths; none where there was no ADMM.
        primal: residuals of each constrained leaf, in tree order.
        dual: likewise.
        stopped: outer iterations after which `stop` ended the stage, or `None`.
    """

    losses: np.ndarray
    rho: np.ndarray
    primal: np.ndarray
    dual: np.ndarray
    stopped: int | None = None


def _leaf_reports(
    constraints: Constraints,
    projected: Params,
    params: Params,
    packed: dict[str, Packed],
    history: History,
) -> tuple[LeafReport, ...]:
    before, after = constrained_by_path(constraints, projected), constrained_by_path(constraints, params)
    reports = []
    for column, (path, constraint) in enumerate(constrained_by_path(constraints, constraints).items()):
        weight, cost = np.asarray(after[path]), packed[path].nbytes
        decoded = np.asarray(constraint.decode(packed[path]))
        reports.append(
            LeafReport(
                path=path,
                constraint=str(constraint),
                layout=packed[path].layout,
                weights=weight.size,
                kept=int(np.count_nonzero(weight)),
                dense_bytes=weight.nbytes,
                payload_bytes=cost.payload,
                index_bytes=cost.index,
                metadata_bytes=cost.metadata,
                primal=tuple(history.primal[:, column].tolist()),
                dual=tuple(history.dual[:, column].tolist()),
                violation_projected=float(constraint.violation(before[path])),
                violation_retrained=float(constraint.violation(after[path])),
                round_trip=(decoded.dtype, decoded.shape, decoded.tobytes())
                == (weight.dtype, weight.shape, weight.tobytes()),
            )
        )
    return tuple(reports)


def finish(run: Run, pulled: Params, arrays: Arrays, history: History) -> Result:
    """Hard projection, retraining, packing and the report.

    Args:
        run: the run.
        pulled: the parameters that the stage before left.
        arrays: of the constraints as last fitted.
        history: of the stage before; the steps it saved go to retraining.

    Returns:
        What the run returns.
    """
    config = run.config.stopped(len(history.losses))
    fitted = run.sets.fitted(arrays)
    projected, final, losses = _retrained(run, config, pulled, arrays)
    projected, final, fitted = parallel.local((projected, final, fitted))
    check_params(final, "at the end")
    members = constrained_by_path(fitted, fitted)
    packed = {path: members[path].encode(weight) for path, weight in constrained_by_path(fitted, final).items()}
    reports = _leaf_reports(fitted, projected, final, packed, history)
    everything = [np.asarray(leaf) for leaf in jax.tree.leaves(final)]
    report = Report(
        leaves=reports,
        free_weights=sum(leaf.size for leaf in everything) - sum(leaf.weights for leaf in reports),
        free_bytes=sum(leaf.nbytes for leaf in everything) - sum(leaf.dense_bytes for leaf in reports),
        rho=tuple(history.rho.tolist()),
        admm_losses=tuple(history.losses.ravel().tolist()),
        retrain_losses=tuple(losses.tolist()),
        stopped=history.stopped,
        config=run.config.describe(),
    )
    return Result(final, projected, packed, report, fitted)
