"""From a config to a trained and tested model in a run folder."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from modicum import models
from modicum.core import Key, Params, parallel
from modicum.train import loop, metrics, report
from modicum.train.batches import batches
from modicum.train.config import DataConfig, Experiment, describe
from modicum.train.data import Dataset, load
from modicum.train.state import TrainState, classification_loss, evaluate, init_state, make_train_step

_CALIBRATION_EXAMPLES, _CALIBRATION_BATCH = 5000, 250


class Result(NamedTuple):
    """What `train` returns.

    Attributes:
        state: the state after the last step, with batch statistics `calibrated` where the model has some.
        summary: what the run came to; also in `result.json`.
    """

    state: TrainState
    summary: dict[str, Any]


def load_split(data: DataConfig, split: str, root: str | Path | None = None) -> Dataset:
    """A split of the configured data; arguments, errors and result as of `load`.

    Args:
        data: which data.
        split: which split, `data.train` or `data.test` for instance.
        root: folder of data.
    """
    return load(
        data.name,
        split,
        root,
        speaker=data.speaker,
        features=data.features,
        bin_milliseconds=data.bin_milliseconds,
    )


def training_batches(data: DataConfig, training: Dataset, key: Key, batch: int) -> jax.tree_util.Partial:
    """`batches` of the training split, augmented as the data are configured to be.

    Args:
        data: how.
        training: the split.
        key: the order.
        batch: examples in a batch.
    """
    settings = {name: getattr(data, name) for name in ("augment", "shift", "mirror", "cutout")}
    return batches(training.arrays, key, batch, **settings)


def parameter_count(params: Params) -> int:
    """How many numbers a tree of parameters holds.

    Example:
        >>> parameter_count({"kernel": np.zeros((3, 4)), "bias": np.zeros(4)})
        16
    """
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(params))


def calibrated(model: nn.Module, variables: Params, inputs: Any) -> Params:
    """The variables with the batch statistics of the first 5,000 training examples, as they are where they have none.

    Args:
        model: the model.
        variables: what was trained.
        inputs: of the training split, without augmentation, since what is tested has none.
    """
    if "batch_stats" not in variables:
        return variables
    size = min(_CALIBRATION_BATCH, len(inputs))
    starts = range(0, min(_CALIBRATION_EXAMPLES, len(inputs)) - size + 1, size)
    return models.calibrate(model, variables, (inputs[start : start + size] for start in starts))


def _initialize(model: nn.Module, key: Any, dataset: Dataset) -> Params:
    """Initial parameters; a model that does not fit the data is refused before anything is written."""
    info, example = dataset.info, jnp.asarray(dataset.inputs[:2])
    if getattr(model, "classes", info.classes) != info.classes:
        raise ValueError(f"model.classes must be {info.classes} for data {info.name!r}, got {model.classes}")
    kind = type(model).__name__
    try:
        logits = jax.eval_shape(lambda: model.init_with_output(key, example)[0])
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"model must take inputs of shape {example.shape}, got {kind}: {reason}") from error
    if logits.shape != (2, info.classes):
        raise ValueError(
            f"model must turn inputs of shape {example.shape} into logits of shape {(2, info.classes)}, "
            f"got {kind} with {logits.shape}"
        )
    return jax.jit(model.init)(key, example)


def train(
    config: Experiment,
    folder: str | Path | None = None,
    *,
    fresh: bool = False,
    root: str | Path | None = None,
    console: Console | None = None,
    mesh: Mesh | None = None,
) -> Result:
    """Trains and tests a model; the same call again goes on where a run stopped.

    In several processes each calls it alike; the first one writes the folder.

    Args:
        config: the experiment.
        folder: the run folder: `config.json`, `versions.json`, `metrics.jsonl`, `checkpoints/`, `result.json`.
            Nothing is written where `None`.
        fresh: whether to start over in a folder that holds a run.
        root: folder of data, see `load`.
        console: where the progress bar is drawn; none where `None`.
        mesh: the devices that share each batch, see `core.parallel.data_mesh`; one device where `None`.

    Returns:
        The trained state, and the numbers on the held-out split.

    Raises:
        ValueError: if the data, the model or the folder do not fit the config, the batch does not split evenly over
            the mesh, or the loss is not finite.
        loop.Interrupted: after SIGINT, when all is saved.
    """
    started = time.perf_counter()
    described = describe(config)
    if folder is not None and not fresh:
        report.check_folder(folder, described)
    training, held_out = (load_split(config.data, split, root) for split in (config.data.train, config.data.test))
    steps = config.total_steps(len(training.inputs))
    init_key, order_key = jax.random.split(jax.random.key(config.seed))
    params = _initialize(config.model, init_key, training)
    optimizer = config.optimizer.build(steps)
    loss_fn = classification_loss(models.apply_training(config.model))
    step_fn = make_train_step(loss_fn, optimizer, has_aux=True)
    batch_fn = training_batches(config.data, training, order_key, config.batch)
    # before anything is written
    parallel.check_even(batch_fn, mesh)
    if folder is not None:
        parallel.wait("the folder is checked")
        if parallel.first():
            report.open_folder(folder, described, fresh=fresh)
        parallel.wait("the folder is open")
    state = loop.fit(
        init_state(params, optimizer),
        step_fn,
        batch_fn,
        steps,
        folder=folder,
        checkpoint_every=config.checkpoint_every,
        console=console,
        mesh=mesh,
    )
    state = state._replace(params=calibrated(config.model, state.params, training.inputs))
    summary = {
        "data": config.data.name,
        "model": type(config.model).__name__,
        "parameters": parameter_count(state.params["params"]),
        "steps": int(state.step),
        **{
            f"test_{name}": value
            for name, value in evaluate(config.model.apply, state.params, *held_out.arrays).items()
        },
    }
    if folder is not None:
        parallel.wait("the run is saved")
        lines = metrics.read(Path(folder) / "metrics.jsonl")[-100:]
        summary["train_loss_last_100"] = float(np.mean([line["loss"] for line in lines]))
    if folder is not None and parallel.first():
        report.write_json(Path(folder) / "result.json", summary)
    return Result(state, {**summary, "seconds": round(time.perf_counter() - started, 1)})
