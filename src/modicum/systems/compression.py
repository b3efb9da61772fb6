"""One network compressed onto hardware-shaped sets: dense training, ADMM, and the control arms.

Every arm starts from the same dense network and makes the same number of optimizer steps, so that what is compared is
the method and not the budget.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from modicum import admm, models, train
from modicum.core import Params, check, parallel
from modicum.systems.compression_config import ARMS, Recipe
from modicum.systems.progress import stages
from modicum.train import report as run_report


@dataclass(frozen=True)
class Dense:
    """The network that every arm starts from.

    Attributes:
        variables: its parameters, batch statistics among them.
        accuracy: on the held-out split.
    """

    variables: Params
    accuracy: float


@dataclass(frozen=True)
class Outcome:
    """What one arm came to.

    Attributes:
        dense: where it started.
        result: the compressed network, its packed form and the report.
        summary: the numbers, JSON-able; nothing in it depends on time or machine.
    """

    dense: Dense
    result: admm.Result
    summary: dict[str, Any]


@functools.lru_cache(maxsize=4)
def _load(data: train.DataConfig, root: Path | None) -> tuple[train.Dataset, train.Dataset]:
    return train.load_split(data, data.train, root), train.load_split(data, data.test, root)


@functools.lru_cache(maxsize=8)
def loss_of(model: nn.Module) -> Callable[[Params, Any], Any]:
    """The training loss of a model: one function object for each model, so that nothing is compiled twice."""
    score = train.classification_loss(models.apply_training(model))
    return lambda variables, batch: score(variables, batch)[0]


@functools.lru_cache(maxsize=8)
def _apply_of(model: nn.Module) -> Callable[[Params, Any], Any]:
    return model.apply


def _accuracy(model: nn.Module, variables: Params, held_out: train.Dataset) -> float:
    return train.evaluate(_apply_of(model), variables, *held_out.arrays)["accuracy"]


def dense_folder(recipe: Recipe, runs: Path) -> Path:
    """Where the dense network of a recipe lies: recipes that start from the same network share it."""
    text = json.dumps(train.describe(recipe.dense), sort_keys=True)
    name = f"{recipe.dense.data.name}-{type(recipe.dense.model).__name__}-{recipe.dense.seed}"
    return runs / "dense" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def train_dense(
    recipe: Recipe,
    runs: Path,
    *,
    root: Path | None = None,
    console: Console | None = None,
    mesh: Mesh | None = None,
) -> Dense:
    """The dense network, trained or read from its folder."""
    folder = dense_folder(recipe, runs)
    trained = train.train(recipe.dense, folder, root=root, console=console, mesh=mesh)
    return Dense(trained.state.params, trained.summary["test_accuracy"])


def run(
    recipe: Recipe,
    arm: str,
    folder: str | Path,
    *,
    fresh: bool = False,
    root: str | Path | None = None,
    console: Console | None = None,
    mesh: Mesh | None = None,
) -> Outcome:
    """Trains the dense network and compresses it by one arm; the same call again goes on where it stopped.

    Args:
        recipe: the experiment.
        arm: one of `ARMS`.
        folder: the run folder; the dense network lies beside it, in `../dense`, shared by the recipes that use it.
        fresh: whether to start over in a folder that holds a run (the dense network stays).
        root: folder of data, see `train.load`.
        console: where progress is shown; nowhere where None.
        mesh: the devices that share each batch, see `core.parallel.data_mesh`; one device where None.

    Returns:
        The compressed network and its numbers, which `result.json` and `report.json` in the folder hold, too.

    Raises:
        ValueError: if the data are not there, the folder holds a run of other settings, or a loss is not finite.
    """
    check.one_of(ARMS, arm=arm)
    folder, root = Path(folder), None if root is None else Path(root)
    described = {"arm": arm, **train.describe(recipe)}
    if not fresh:
        run_report.check_folder(folder, described)
    training, held_out = _load(recipe.dense.data, root)
    dense = train_dense(recipe, folder.parent, root=root, console=console, mesh=mesh)
    sets = recipe.sets(dense.variables)
    model, seed = recipe.dense.model, recipe.dense.seed
    # the order of the examples is the same for all arms of a seed
    key = jax.random.fold_in(jax.random.key(seed), 1)
    batches = train.training_batches(recipe.dense.data, training, key, recipe.schedule.batch)
    parallel.check_even(batches, mesh)
    run_report.open_folder(folder, described, fresh=fresh)
    method = {"admm": admm.compress, "one_shot": admm.one_shot, "gradual": admm.gradual}[arm]
    with stages(console) as show:
        result = method(
            loss_of(model),
            dense.variables,
            batches,
            sets,
            recipe.schedule.config(),
            folder=folder / "checkpoints",
            progress=show,
            mesh=mesh,
        )
    # batch statistics, where the model has some, are measured anew on training examples
    final, projected = (
        train.calibrated(model, variables, training.inputs) for variables in (result.params, result.projected)
    )
    result = dataclasses.replace(result, params=final, projected=projected)
    summary = _summary(recipe, arm, dense, result, held_out)
    run_report.write_json(folder / "report.json", result.report.as_dict())
    run_report.write_json(folder / "result.json", summary)
    return Outcome(dense, result, summary)


def _summary(recipe: Recipe, arm: str, dense: Dense, result: admm.Result, held_out: train.Dataset) -> dict[str, Any]:
    """The numbers of an arm; bytes count every index, and the leaves that stay dense."""
    model, report = recipe.dense.model, result.report
    weights = sum(leaf.weights for leaf in report.leaves)
    kept = sum(leaf.kept for leaf in report.leaves)
    statistics = sum(np.size(leaf) for leaf in jax.tree.leaves(result.params.get("batch_stats", {})))
    free = report.free_weights - statistics
    return {
        "arm": arm,
        "data": recipe.dense.data.name,
        "model": type(model).__name__,
        "seed": recipe.dense.seed,
        "dense_accuracy": dense.accuracy,
        "hard_accuracy": _accuracy(model, result.projected, held_out),
        "accuracy": _accuracy(model, result.params, held_out),
        "test_examples": len(held_out.labels),
        "violation_projected": max(leaf.violation_projected for leaf in report.leaves),
        "violation": report.violation,
        "round_trip": all(leaf.round_trip for leaf in report.leaves),
        "residual": max((leaf.primal[-1] for leaf in report.leaves if leaf.primal), default=None),
        "steps": report.steps,
        "constrained_weights": weights,
        "constrained_kept": kept,
        "weights": weights + free,
        "kept": kept + free,
        "dense_bytes": report.dense_bytes - 4 * statistics,
        "packed_bytes": report.packed_bytes - 4 * statistics,
        "index_bytes": sum(leaf.index_bytes for leaf in report.leaves),
    }
