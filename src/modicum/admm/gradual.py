"""Gradual magnitude pruning, the second control arm: sets that tighten while the weights train inside them."""

from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from modicum.admm import leaves
from modicum.admm.config import CompressConfig
from modicum.admm.leaves import Constraints
from modicum.admm.programs import Programs
from modicum.admm.run import History, Progress, Result, Run, check_losses, finish, prepare
from modicum.admm.sets import Arrays, split
from modicum.admm.stages import Batches, LossFn, RetrainCarry, start_retraining
from modicum.core import Params


def cubic_share(piece: int, pieces: int) -> float:
    """What is still relaxed in a piece, `(1 - (piece + 1) / pieces)^3`: fast at first, 0 in the last.

    Args:
        piece: number of the piece, from 0.
        pieces: how many there are.

    Example:
        >>> [cubic_share(piece, 4) for piece in range(4)]
        [0.421875, 0.125, 0.015625, 0.0]
    """
    return (1 - (piece + 1) / pieces) ** 3


def _run_pieces(run: Run, params: Params, arrays: Arrays) -> tuple[Params, np.ndarray]:
    outer, inner, config = run.config.outer, run.config.inner, run.config.pieces()

    def relaxed(piece: int) -> tuple[Programs, Arrays]:
        kept, rest = split(leaves.relaxed(run.sets.fitted(arrays), params, cubic_share(piece, outer)))
        return run.programs(config, rest), kept

    losses = np.zeros((outer, inner), np.float32)
    if not outer:
        return params, losses
    programs, kept = relaxed(0)
    start = start_retraining(programs.project(params, kept)[1], config)
    done, state = run.journal.restore("gradual", (params, start.optimizer, losses))
    params, optimizer, losses = state
    losses = np.array(losses)
    for piece in range(done, outer):
        programs, kept = relaxed(piece)
        projected, theta = programs.project(params, kept)
        builders = programs.builders(projected, kept)
        carry = RetrainCarry(theta, optimizer)
        carry, losses[piece] = programs.retrain(carry, builders, kept, run.data, piece * inner, inner)
        check_losses(losses[piece], piece * inner, "gradual pruning")
        params, optimizer = programs.finish(carry, builders, kept), carry.optimizer
        run.journal.save("gradual", piece + 1, (params, optimizer, losses), last=piece + 1 == outer)
        run.report("gradual", piece + 1, outer, {"loss": losses[piece].mean(), "share": cubic_share(piece, outer)})
    return params, losses


def gradual(
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
    """Gradual magnitude pruning with the same total number of steps as `compress`.

    The ADMM steps become `config.outer` pieces of `config.inner` steps. Before piece `i` the weights are projected
    onto `constraint.relaxed(shape, share)` with the cubic `share = (1 - (i + 1) / outer)^3`, and train inside it: what
    is pruned stays zero. The last piece lies in the given sets; hard projection and retraining follow as usual.
    Constraints without `relaxed` are used as they are. All pieces share one compiled program.

    Args:
        loss_fn: see `compress`.
        params: see `compress`.
        batches: see `compress`.
        constraints: see `compress`.
        config: the schedule of the ADMM run to compare with; `learning_rate` is that of the pieces. `rho`, `growth`,
            `tolerance`, `form`, `stop` and `refit` are not used: weights that lie in a set no longer show another.
        folder: see `compress`.
        progress: see `compress`; the stage is "gradual".
        mesh: see `compress`.

    Returns:
        The same as `compress`; the losses of the pieces stand in `report.admm_losses`.

    Raises:
        ValueError: as `compress`.

    Example:
        >>> import jax.numpy as jnp
        >>> from modicum.constraints import TopK
        >>> def loss_fn(w, batch):
        ...     return jnp.sum((w - batch) ** 2)
        >>> config = CompressConfig(outer=2, inner=5, retrain=10)
        >>> result = gradual(loss_fn, jnp.ones(3), jnp.array([[3.0, 1.0, 2.0]]), TopK(2), config)
        >>> result.report.violation, result.report.leaves[0].kept, result.report.steps
        (0.0, 2, 20)

    Reference:
        Zhu and Gupta, "To prune, or not to prune" (2017), as in JaxPruner. Differences: pieces lie in any set whose
        counts can be relaxed, and a pruned weight does not come back.
    """
    run, params, arrays = prepare("gradual", loss_fn, params, batches, constraints, config, folder, progress, mesh)
    params, losses = _run_pieces(run, params, arrays)
    none = np.zeros((0, len(run.paths())), np.float32)
    return finish(run, params, arrays, History(losses, np.zeros(0, np.float32), none, none))
