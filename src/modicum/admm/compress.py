"""A whole compression run: stages in jitted chunks, checkpoints, packed weights, report."""

from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from modicum.admm.config import CompressConfig
from modicum.admm.leaves import Constraints
from modicum.admm.run import History, Progress, Result, Run, check_losses, finish, prepare
from modicum.admm.sets import Arrays, split
from modicum.admm.stages import AdmmCarry, Batches, LossFn, start_admm
from modicum.core import Params


def _run_admm(run: Run, params: Params, arrays: Arrays) -> tuple[AdmmCarry, History]:
    config, paths = run.config, run.paths()
    programs = run.programs(config, run.sets.rest)
    given, _ = split(run.sets.given)
    empty = {
        "losses": np.zeros((config.outer, config.inner), np.float32),
        "rho": np.zeros(config.outer, np.float32),
        "primal": np.zeros((config.outer, len(paths)), np.float32),
        "dual": np.zeros((config.outer, len(paths)), np.float32),
    }
    start = start_admm(params, run.sets.fitted(arrays), config)
    done, (carry, history) = run.journal.restore("admm", (start, empty))
    history = {name: np.array(values) for name, values in history.items()}

    def settled() -> bool:
        return done > 0 and bool(history["primal"][done - 1].max() < config.stop)

    while done < config.outer and not settled():
        carry, info = programs.outer(carry, given, done, run.data)
        history["losses"][done], history["rho"][done] = info.losses, info.rho
        # by path: jit returns dictionaries in the order of their keys, which is not the tree's
        history["primal"][done] = [info.primal[path] for path in paths]
        history["dual"][done] = [info.dual[path] for path in paths]
        check_losses(history["losses"][done], done * config.inner, "the ADMM stage")
        done += 1
        run.journal.save("admm", done, (carry, history), last=done == config.outer or settled())
        residuals = {name: history[name][done - 1].max() for name in ("rho", "primal", "dual")}
        run.report("admm", done, config.outer, {"loss": history["losses"][done - 1].mean(), **residuals})
    made = {name: values[:done] for name, values in history.items()}
    return carry, History(**made, stopped=done if settled() else None)


def compress(
    loss_fn: LossFn,
    params: Params,
    batches: Batches,
    constraints: Constraints,
    config: CompressConfig | None = None,
    *,
    folder: str | Path | None = None,
    progress: Progress | None = None,
    mesh: Mesh | None = None,
) -> Result:
    """Trains weights onto their constraint sets: ADMM, hard projection, retraining inside the sets.

    With `config.stop` the ADMM stage ends once every residual lies below it, and its remaining steps go to
    retraining; with `config.refit` scales and pattern libraries follow the weights for some outer iterations.

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
        folder: where to checkpoint, after every chunk or every `config.save_seconds`. A run in a folder that holds one
            resumes it, bit-equal to a run without interruption; it may be killed at any moment.
        progress: called with `(stage, done, total, metrics)` after every chunk.
        mesh: the devices that share each batch, which splits evenly over them (`core.parallel.data_mesh`); one device
            where `None`.

    Returns:
        Compressed parameters, their packed form, the report, and the constraints as last fitted.

    Raises:
        ValueError: if an argument is out of range, if no leaf is constrained, if a loss or parameter is not finite
            (the step is named), or if `folder` holds a run of other settings or a damaged checkpoint.

    Example:
        >>> import jax.numpy as jnp
        >>> from modicum.constraints import TopK
        >>> config = CompressConfig(outer=2, inner=5, retrain=10)
        >>> def loss_fn(w, batch):
        ...     return jnp.sum((w - batch) ** 2)
        >>> result = compress(loss_fn, jnp.ones(3), jnp.array([[3.0, 1.0, 2.0]]), TopK(2), config)
        >>> result.report.violation, result.report.leaves[0].kept
        (0.0, 2)
    """
    run, params, arrays = prepare("compress", loss_fn, params, batches, constraints, config, folder, progress, mesh)
    carry, history = _run_admm(run, params, arrays)
    return finish(run, carry.params, carry.fitted, history)


def one_shot(
    loss_fn: LossFn,
    params: Params,
    batches: Batches,
    constraints: Constraints,
    config: CompressConfig | None = None,
    *,
    folder: str | Path | None = None,
    progress: Progress | None = None,
    mesh: Mesh | None = None,
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
        mesh: see `compress`.

    Returns:
        The same as `compress`.

    Raises:
        ValueError: as `compress`.
    """
    config = (CompressConfig() if config is None else config).one_shot()
    return compress(loss_fn, params, batches, constraints, config, folder=folder, progress=progress, mesh=mesh)
