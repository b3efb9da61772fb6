"""A whole compression run: stages in jitted chunks, checkpoints, packed weights, report."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modicum.admm import leaves
from modicum.admm.config import CompressConfig
from modicum.admm.journal import Journal
from modicum.admm.leaves import Constraints, constrained_by_path
from modicum.admm.programs import Programs, compiled, split
from modicum.admm.report import LeafReport, Report
from modicum.admm.stages import Batches, LossFn, start_admm, start_retraining
from modicum.core import Packed, Params, path_name

Progress = Callable[[str, int, int, dict[str, float]], Any]
"""`(stage, done, total, metrics)`, called after each chunk; stage is "admm" or "retrain"."""


@dataclass(frozen=True)
class Result:
    """What `compress` returns.

    Attributes:
        params: parameters whose constrained leaves lie in their sets.
        packed: those leaves in compressed form, by path.
        report: what happened, JSON-able.
        constraints: the pytree of constraints with their fitted numbers frozen.
    """

    params: Params
    packed: dict[str, Packed]
    report: Report
    constraints: Constraints


def _check_losses(losses: np.ndarray, first: int, stage: str) -> None:
    bad = np.flatnonzero(~np.isfinite(losses))
    if bad.size:
        raise ValueError(f"loss must be finite, got {losses[bad[0]]} at step {first + bad[0]} of {stage}")


def _check_params(params: Params, when: str) -> None:
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) and not bool(jnp.all(jnp.isfinite(leaf))):
            raise ValueError(f"params must be finite {when}, got NaN or infinite values in {path_name(path)!r}")


@dataclass(frozen=True)
class _Run:
    """What both stages need."""

    programs: Programs
    constraints: Constraints
    arrays: list[Any]
    data: Any
    config: CompressConfig
    journal: Journal
    progress: Progress | None

    def report(self, stage: str, done: int, total: int, metrics: dict[str, Any]) -> None:
        if self.progress is not None:
            self.progress(stage, done, total, {name: float(value) for name, value in metrics.items()})


def _run_admm(run: _Run, params: Params) -> tuple[Params, dict[str, np.ndarray]]:
    config, paths = run.config, list(constrained_by_path(run.constraints, run.constraints))
    start = {
        "losses": np.zeros((config.outer, config.inner), np.float32),
        "rho": np.zeros(config.outer, np.float32),
        "primal": np.zeros((config.outer, len(paths)), np.float32),
        "dual": np.zeros((config.outer, len(paths)), np.float32),
    }
    done, (carry, history) = run.journal.restore("admm", (start_admm(params, run.constraints, config), start))
    history = {name: np.array(values) for name, values in history.items()}
    for outer in range(done, config.outer):
        carry, info = run.programs.outer(carry, run.arrays, run.data)
        history["losses"][outer], history["rho"][outer] = info.losses, info.rho
        # by path: jit returns dictionaries in the order of their keys, which is not the tree's
        history["primal"][outer] = [info.primal[path] for path in paths]
        history["dual"][outer] = [info.dual[path] for path in paths]
        _check_losses(history["losses"][outer], outer * config.inner, "the ADMM stage")
        run.journal.save("admm", outer + 1, (carry, history))
        residuals = {name: history[name][outer].max() for name in ("rho", "primal", "dual")}
        run.report("admm", outer + 1, config.outer, {"loss": history["losses"][outer].mean(), **residuals})
    return carry.params, history


def _run_retraining(run: _Run, pulled: Params) -> tuple[Params, Params, np.ndarray]:
    config = run.config
    projected, theta = run.programs.project(pulled, run.arrays)
    builders = run.programs.builders(projected, run.arrays)
    start = start_retraining(theta, config), np.zeros(config.retrain, np.float32)
    done, (carry, losses) = run.journal.restore("retrain", start)
    losses = np.array(losses)
    while done < config.retrain:
        steps = min(config.chunk, config.retrain - done)
        carry, chunk = run.programs.retrain(carry, builders, run.arrays, run.data, done, steps)
        losses[done : done + steps] = chunk
        _check_losses(losses[done : done + steps], done, "retraining")
        done += steps
        run.journal.save("retrain", done, (carry, losses))
        run.report("retrain", done, config.retrain, {"loss": losses[done - steps : done].mean()})
    return projected, run.programs.finish(carry, builders, run.arrays), losses


def _leaf_reports(
    constraints: Constraints,
    projected: Params,
    params: Params,
    packed: dict[str, Packed],
    history: dict[str, np.ndarray],
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
                primal=tuple(history["primal"][:, column].tolist()),
                dual=tuple(history["dual"][:, column].tolist()),
                violation_projected=float(constraint.violation(before[path])),
                violation_retrained=float(constraint.violation(after[path])),
                round_trip=(decoded.dtype, decoded.shape, decoded.tobytes())
                == (weight.dtype, weight.shape, weight.tobytes()),
            )
        )
    return tuple(reports)


def compress(
    loss_fn: LossFn,
    params: Params,
    batches: Batches,
    constraints: Constraints,
    config: CompressConfig | None = None,
    *,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Trains weights onto their constraint sets: ADMM, hard projection, retraining inside the sets.

    One outer iteration or `config.chunk` retraining steps are one dispatch. What is compiled is shared between calls
    with the same `loss_fn`, batch function, config and kind of constraints.

    Args:
        loss_fn: `(params, batch) -> scalar`; randomness comes with the batch.
        params: trained parameters, any pytree of arrays.
        batches: a traceable function `step -> batch`, or a pytree with a leading axis of steps, used cyclically.
            Retraining goes on where the ADMM stage stopped. The arrays of a `jax.tree_util.Partial` are arguments of
            the compiled programs, not constants in them.
        constraints: pytree like params with a constraint or `None` at each leaf, or a callable `params -> pytree`.
        config: the schedule; `CompressConfig()` where `None`.
        folder: where to checkpoint after every chunk. A run in a folder that holds one resumes it, bit-equal to a run
            without interruption; it may be killed at any moment.
        progress: called with `(stage, done, total, metrics)` after every chunk.

    Returns:
        Compressed parameters, their packed form, the report, and the fitted constraints.

    Raises:
        ValueError: if an argument is out of range, if no leaf is constrained, if a loss or parameter is not finite
            (the step is named), or if `folder` holds a run of other settings or a damaged checkpoint.

    Example:
        >>> from modicum.constraints import TopK
        >>> config = CompressConfig(outer=2, inner=5, retrain=10)
        >>> def loss_fn(w, batch):
        ...     return jnp.sum((w - batch) ** 2)
        >>> result = compress(loss_fn, jnp.ones(3), jnp.array([[3.0, 1.0, 2.0]]), TopK(2), config)
        >>> result.report.violation, result.report.leaves[0].kept
        (0.0, 2)
    """
    config = (CompressConfig() if config is None else config).concrete()
    given = leaves.resolve(constraints, params)
    if not constrained_by_path(given, given):
        raise ValueError("constraints must hold a constraint for at least one leaf, got none")
    _check_params(params, "at the start")
    journal = Journal.open(folder, config, given, params)
    if callable(batches) and not isinstance(batches, jax.tree_util.Partial):
        batch_fn, data = batches, None
    else:
        batch_fn, data = None, jax.tree.map(jnp.asarray, batches)
    fitted = leaves.fit(given, params)
    arrays, rest = split(fitted)
    run = _Run(compiled(loss_fn, batch_fn, config, rest), fitted, arrays, data, config, journal, progress)

    pulled, history = _run_admm(run, params)
    projected, final, losses = _run_retraining(run, pulled)
    _check_params(final, "at the end")
    members = constrained_by_path(fitted, fitted)
    packed = {path: members[path].encode(weight) for path, weight in constrained_by_path(fitted, final).items()}
    reports = _leaf_reports(fitted, projected, final, packed, history)
    everything = [np.asarray(leaf) for leaf in jax.tree.leaves(final)]
    report = Report(
        leaves=reports,
        free_weights=sum(leaf.size for leaf in everything) - sum(leaf.weights for leaf in reports),
        free_bytes=sum(leaf.nbytes for leaf in everything) - sum(leaf.dense_bytes for leaf in reports),
        rho=tuple(history["rho"].tolist()),
        admm_losses=tuple(history["losses"].ravel().tolist()),
        retrain_losses=tuple(losses.tolist()),
        config=config.describe(),
    )
    return Result(final, packed, report, fitted)


def one_shot(
    loss_fn: LossFn,
    params: Params,
    batches: Batches,
    constraints: Constraints,
    config: CompressConfig | None = None,
    *,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """The control arm: hard projection at once, then retraining with the same total number of steps as `compress`.

    Args:
        loss_fn: see `compress`.
        params: see `compress`.
        batches: see `compress`.
        constraints: see `compress`.
        config: the schedule of the ADMM run to compare with; `outer * inner + retrain` steps are made.
        folder: see `compress`.
        progress: see `compress`.

    Returns:
        The same as `compress`.

    Raises:
        ValueError: as `compress`.
    """
    config = (CompressConfig() if config is None else config).one_shot()
    return compress(loss_fn, params, batches, constraints, config, folder=folder, progress=progress)
