"""A compressed network compiled, saved, read back and checked on held-out examples."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from modicum import mobile, train
from modicum.systems import compression
from modicum.systems.compression_config import Recipe


@dataclass(frozen=True)
class Exported:
    """What an export came to.

    Attributes:
        folder: the bundle.
        report: layers and kernels; these timed on the first held-out example.
        accuracy: of the bundle as read back, on the held-out examples.
        accuracy_before: of the parameters.
        examples: held-out examples.
        difference: largest between logits before and after, relative to the largest logit.
        seconds: of one example in the loaded bundle, the least of some calls.
        portable_seconds: of one example in the portable module under XLA.
    """

    folder: Path
    report: mobile.Report
    accuracy: float
    accuracy_before: float
    examples: int
    difference: float
    seconds: float
    portable_seconds: float


def _least_seconds(function: Callable[[Any], Any], x: Any, repeats: int = 30) -> float:
    jax.block_until_ready(function(x))
    least = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(function(x))
        least = min(least, time.perf_counter() - started)
    return least


def _logits(function: Callable[[Any], Any], inputs: np.ndarray, batch: int) -> np.ndarray:
    return np.concatenate([np.asarray(function(inputs[at : at + batch])) for at in range(0, len(inputs), batch)])


def run(
    recipe: Recipe,
    arm: str,
    run_folder: Path,
    bundle: Path,
    *,
    target: str = "host",
    threads: int = 1,
    tuning_seconds: float = 0.0,
    root: Path | None = None,
    console: Console | None = None,
) -> Exported:
    """Compresses (or reads the finished run of) a recipe, compiles it, saves the bundle and checks it.

    Args:
        recipe: the experiment.
        arm: see `compression.run`.
        run_folder: of the compression.
        bundle: where the bundle goes.
        target: see `mobile.compile`.
        threads: see `mobile.compile`.
        tuning_seconds: see `mobile.compile`.
        root: folder of data, see `train.load`.
        console: where progress is shown.

    Raises:
        ValueError: as `compression.run` and `mobile.compile` do.
    """
    outcome = compression.run(recipe, arm, run_folder, root=root, console=console)
    model, params = recipe.dense.model, outcome.result.params
    data = recipe.dense.data
    held_out = train.load_split(data, data.test, root)
    compiled = mobile.compile(
        model.apply,
        params,
        held_out.inputs[:1],
        constraints=outcome.result.constraints,
        target=target,
        threads=threads,
        batch="any",
        tuning_seconds=tuning_seconds,
    )
    folder = compiled.save(bundle)
    # a bundle for another machine cannot run here: the network itself stands in for it
    loaded = mobile.load(folder) if target == "host" else compiled
    before = _logits(jax.jit(lambda x: model.apply(params, x)), held_out.inputs, 500)
    after = _logits(loaded, held_out.inputs, 500)
    first = held_out.inputs[:1]
    return Exported(
        folder=folder,
        report=loaded.report(first),
        accuracy=float((after.argmax(-1) == held_out.labels).mean()),
        accuracy_before=float((before.argmax(-1) == held_out.labels).mean()),
        examples=len(held_out.labels),
        difference=float(np.abs(after - before).max() / np.abs(before).max()),
        seconds=_least_seconds(loaded, first),
        portable_seconds=_least_seconds(compiled.portable, first),
    )
