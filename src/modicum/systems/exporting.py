"""A compressed network compiled, saved, read back and checked on held-out examples."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from rich.console import Console

from modicum import mobile, train
from modicum.core import Params
from modicum.interchange import litert as litert_files
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


def least_seconds(function: Callable[[Any], Any], x: Any, repeats: int = 30) -> float:
    """The least wall time of a call, of some, after a first one that compiles."""
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
    litert: Path | None = None,
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
        litert: where a LiteRT file for single examples goes, too (`interchange.to_litert`).
        root: folder of data, see `train.load`.
        console: where progress is shown.

    Raises:
        ValueError: as `compression.run`, `mobile.compile` and `interchange.to_litert` do.
        ImportError: for a LiteRT file, without its packages.
    """
    if litert is not None:
        litert_files.require()
    outcome = compression.run(recipe, arm, run_folder, root=root, console=console)
    held_out = train.load_split(recipe.dense.data, recipe.dense.data.test, root)
    settings = {"target": target, "threads": threads, "tuning_seconds": tuning_seconds}
    model, params = recipe.dense.model, outcome.result.params
    if litert is not None:
        litert_files.to_litert(lambda x: model.apply(params, x), held_out.inputs[:1], litert)
    return export(model, params, outcome.result.constraints, held_out, bundle, **settings)


def compiled_for(model: nn.Module, params: Params, sets: Params, held_out: train.Dataset, **settings: Any) -> Any:
    """A network compiled for any number of examples; arguments and errors as of `export`."""
    return mobile.compile(model.apply, params, held_out.inputs[:1], constraints=sets, batch="any", **settings)


def export(
    model: nn.Module, params: Params, sets: Params, held_out: train.Dataset, bundle: Path, **settings: Any
) -> Exported:
    """Compiles a network, saves the bundle, and checks it on held-out examples.

    Args:
        model: the network.
        params: its variables, members of their sets.
        sets: the constraint of each leaf, or None.
        held_out: examples, the first of which is timed.
        bundle: where the bundle goes.
        settings: `target`, `threads` and `tuning_seconds` of `mobile.compile`.

    Raises:
        ValueError: as `mobile.compile` does.
    """
    compiled = compiled_for(model, params, sets, held_out, **settings)
    folder = compiled.save(bundle)
    # a bundle for another machine cannot run here: the network itself stands in for it
    loaded = mobile.load(folder) if settings.get("target", "host") == "host" else compiled
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
        seconds=least_seconds(loaded, first),
        portable_seconds=least_seconds(compiled.portable, first),
    )
