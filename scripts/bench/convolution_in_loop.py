"""A training step with 3x3 convolutions, on its own and inside `lax.scan`: why CPUs get one dispatch per step.

python scripts/bench/convolution_in_loop.py     writes scripts/bench/results/convolution-in-loop.json
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from modicum import train
from modicum.models import SmallConvNet

RESULTS = Path(__file__).parent / "results" / "convolution-in-loop.json"
STEPS, REPEATS = 5, 3


def seconds_per_step(run: Callable[[Any], Any], state: Any) -> float:
    """The least of some runs of `STEPS` steps, after one that compiles."""
    jax.block_until_ready(run(state))
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        jax.block_until_ready(run(state))
        times.append((time.perf_counter() - started) / STEPS)
    return min(times)


def measure(side: int, batch: int) -> dict[str, float]:
    """Both ways side by side, on random images."""
    model, optimizer, key = SmallConvNet(), optax.adam(1e-3), jax.random.key(0)
    images = jax.random.normal(key, (batch, side, side, 1))
    labels = jax.random.randint(key, (batch,), 0, 10)
    step = train.make_train_step(train.classification_loss(model.apply), optimizer, has_aux=True)
    state = train.init_state(model.init(key, images), optimizer)
    single = jax.jit(lambda state: step(state, (images, labels))[0])

    def stepped(state: Any) -> Any:
        for _ in range(STEPS):
            state = single(state)
        return state

    looped = jax.jit(
        lambda state: jax.lax.scan(lambda s, _: (step(s, (images, labels))[0], None), state, jnp.arange(STEPS))[0]
    )
    alone, inside = seconds_per_step(stepped, state), seconds_per_step(looped, state)
    return {"side": side, "batch": batch, "step_seconds": alone, "in_scan_seconds": inside, "ratio": inside / alone}


def main() -> None:
    """Measures, prints and writes."""
    results = [measure(8, 64), measure(28, 128)]
    for result in results:
        print("  ".join(f"{name} {value:.4g}" for name, value in result.items()))
    entry = {"results": results, "load_average": os.getloadavg()[0], "versions": train.report.versions()}
    train.report.write_json(RESULTS, entry)


if __name__ == "__main__":
    main()
