"""Two operators that XLA's CPU compiler runs slowly as commonly written, beside the forms that Modicum uses.

python scripts/bench/cpu_operators.py     writes scripts/bench/results/cpu-operators.json
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from modicum import train
from modicum.constraints.base import rank_mask
from modicum.models.convolutional import max_pool

RESULTS = Path(__file__).parent / "results" / "cpu-operators.json"
REPEATS = 9


def side_by_side(common: Callable[..., Any], ours: Callable[..., Any], x: jax.Array) -> dict[str, float]:
    """The least of some runs of each, in turns, after one that compiles."""
    ways = {"common_seconds": jax.jit(common), "ours_seconds": jax.jit(ours)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(REPEATS + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            jax.block_until_ready(way(x))
            if turn:
                times[name].append(time.perf_counter() - started)
    least = {name: min(values) for name, values in times.items()}
    return {**least, "ratio": least["common_seconds"] / least["ours_seconds"]}


def pooling(batch: int, side: int, channels: int) -> dict[str, Any]:
    """The gradient of 2x2 max pooling: a pooling window, and a reshape."""
    x = jax.random.normal(jax.random.key(0), (batch, side, side, channels))

    def gradient(pool: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
        return jax.grad(lambda x: jnp.sum(pool(x) ** 2))

    measured = side_by_side(gradient(lambda x: nn.max_pool(x, (2, 2), (2, 2))), gradient(max_pool), x)
    return {"operator": "gradient of 2x2 max pooling", "shape": x.shape, **measured}


def ranking(rows: int, size: int) -> dict[str, Any]:
    """The largest entries of each row: two argsorts, and counting."""
    x = jax.random.normal(jax.random.key(0), (rows, size))
    k = max(1, size // 4)

    def sorts(x: jax.Array) -> jax.Array:
        return jnp.argsort(jnp.argsort(-x, axis=-1, stable=True), axis=-1, stable=True) < k

    return {"operator": "largest of each row", "shape": x.shape, **side_by_side(sorts, lambda x: rank_mask(x, k), x)}


def main() -> None:
    """Measures, prints and writes."""
    results = [pooling(128, 24, 20), ranking(65536, 9), ranking(1000, 2048), ranking(1, 400_000)]
    for result in results:
        print("  ".join(f"{name} {value}" for name, value in result.items()))
    entry = {"results": results, "load_average": os.getloadavg()[0], "versions": train.report.versions()}
    train.report.write_json(RESULTS, entry)


if __name__ == "__main__":
    main()
