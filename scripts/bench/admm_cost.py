"""What ADMM costs: a projection of ResNet-50's weights, a training step pulled towards its sets, eight seeds at once.

python scripts/bench/admm_cost.py             writes scripts/bench/results/admm-cost.json (minutes)
python scripts/bench/admm_cost.py --tiny      the same on small shapes, printed only (seconds)
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from modicum import admm, core, train
from modicum.constraints import MEST_8, Kernels, NaturalPatterns, Patterns, TopK, nest
from modicum.models import ResNet, SmallConvNet, resnet50

RESULTS = Path(__file__).parent / "results" / "admm-cost.json"
GOALS = {"projection_seconds": 0.5, "step_ratio": 1.15, "compilations": 1}
RATE = 3.6  # connectivity: one kernel of so many stays
PARAMETERS = 25_557_032  # of ResNet-50 with 1,000 classes


def shapes_of(model: ResNet) -> dict[str, tuple[int, ...]]:
    """Shapes of all parameters, by path; nothing is computed."""
    example = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), example)["params"]
    return {path: leaf.shape for path, leaf in core.leaves_by_path(params).items()}


def kept(inputs: int) -> Kernels:
    """Connectivity of one kernel in `RATE` per filter."""
    return Kernels(max(1, round(inputs / RATE)))


def sets_of(shapes: dict[str, Any], patterns: Any) -> dict[str, Any]:
    """Patterns and connectivity on 3x3 kernels, connectivity on 1x1 and dense ones, nothing elsewhere."""

    def chosen(shape: tuple[int, ...]) -> Any:
        if shape[:2] == (3, 3):
            return nest(kept(shape[2]), patterns)
        return kept(shape[-2]) if shape[:2] == (1, 1) or len(shape) == 2 else None

    return {name: chosen(shape) for name, shape in shapes.items()}


def seconds(run: Callable[[], Any], repeats: int) -> list[float]:
    """Each of some runs, after one that compiles."""
    jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - started)
    return times


def projection(shapes: dict[str, Any], patterns: Any, repeats: int) -> dict[str, Any]:
    """One jitted projection of a whole tree, its constraints fitted beforehand."""
    rng = np.random.default_rng(0)
    params = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    sets = sets_of(shapes, patterns)
    fitted = admm.fit(sets, params)
    project = jax.jit(lambda params: admm.project(fitted, params))
    times = seconds(lambda: project(params), repeats)
    by_leaf = {}
    for name, constraint in fitted.items():
        largest = max(w.size for w in params.values() if w.ndim == params[name].ndim)
        if constraint is not None and params[name].size == largest:
            one = jax.jit(constraint.project)
            by_leaf[name] = min(seconds(lambda one=one, w=params[name]: one(w), repeats))
    return {
        "patterns": type(patterns).__name__,
        "parameters": sum(leaf.size for leaf in params.values()),
        "constrained": sum(params[name].size for name in admm.constrained_by_path(sets, sets)),
        "median_seconds": statistics.median(times),
        "least_seconds": min(times),
        "leaf_seconds": by_leaf,
    }


def step_cost(side: int, batch: int, pairs: int) -> dict[str, Any]:
    """A training step with and without the pull, run in turns so that what else the machine does hits both."""
    model, key = SmallConvNet(), jax.random.key(0)
    images = jax.random.normal(key, (batch, side, side, 1))
    labels = jax.random.randint(key, (batch,), 0, 10)
    params = model.init(key, images)
    sets = jax.tree.map(
        lambda w: nest(kept(w.shape[2]), Patterns(MEST_8)) if w.shape[:2] == (3, 3) and w.ndim == 4 else None, params
    )

    def loss_fn(params: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, images), labels).mean()

    def stepper(optimizer: Any) -> tuple[Callable[..., Any], Any]:
        @jax.jit
        def step(params: Any, state: Any) -> Any:
            updates, state = optimizer.update(jax.grad(loss_fn)(params), state, params)
            return optax.apply_updates(params, updates), state

        return step, optimizer.init(params)

    # the dual update stands outside the step, as in `admm.stages`; it is timed on its own
    pulled = admm.admm(sets, 3.0, every=None, learning_rate=1e-3)
    ways = {"plain": stepper(optax.adam(1e-3)), "admm": stepper(optax.chain(optax.adam(1e-3), pulled))}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(pairs + 1):
        for name, (step, state) in ways.items():
            started = time.perf_counter()
            jax.block_until_ready(step(params, state))
            if turn:  # the first one compiles
                times[name].append(time.perf_counter() - started)
    dual = jax.jit(lambda state, params: admm.dual_update(state, params, sets, 1.3))
    start = admm.init(params, sets, 3.0)
    ratios = [slow / fast for slow, fast in zip(times["admm"], times["plain"], strict=True)]
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "side": side,
        "batch": batch,
        "pairs": pairs,
        "plain_seconds": medians["plain"],
        "admm_seconds": medians["admm"],
        "dual_update_seconds": statistics.median(seconds(lambda: dual(start, params), 10)),
        "ratio": medians["admm"] / medians["plain"],
        "median_ratio_of_pairs": statistics.median(ratios),
    }


def seeds_at_once(seeds: int) -> dict[str, Any]:
    """`stages` under vmap, called twice with other weights: how often it is traced and compiled."""
    traces = []

    def loss_fn(params: Any, batch: Any) -> Any:
        traces.append(None)
        return jnp.mean((jnp.tanh(batch @ params["first"]) @ params["second"] - batch[:, :2]) ** 2)

    sets = {"first": TopK(20), "second": Kernels(3)}
    config = admm.CompressConfig(outer=3, inner=5, retrain=10, refit=1)
    run = jax.jit(jax.vmap(admm.stages(loss_fn, sets, config), in_axes=(0, None)))
    batches = jax.random.normal(jax.random.key(0), (4, 16, 8))
    compilations: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: compilations.append(event) if event.endswith("backend_compile_duration") else None
    )
    counts = []
    for turn in range(2):
        keys = jax.random.split(jax.random.key(turn), seeds)
        params = {
            "first": jax.vmap(lambda key: jax.random.normal(key, (8, 10)))(keys),
            "second": jax.vmap(lambda key: jax.random.normal(key, (10, 2)))(keys),
        }
        jax.block_until_ready(params)
        compilations.clear()
        _, info = jax.block_until_ready(run(params, batches))
        counts.append((len(traces), len(compilations)))
    largest = max(float(jnp.max(values)) for values in info.violation_retrained.values())
    return {
        "seeds": seeds,
        "traces_of_loss": [traced for traced, _ in counts],
        "compilations": [compiled for _, compiled in counts],
        "cache_size": run._cache_size(),
        "largest_violation": largest,
    }


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="small shapes, nothing written")
    tiny = parser.parse_args().tiny
    small = ResNet(blocks=(2, 1), widths=(8, 16), bottleneck=True, projection=True, stem="7x7/2")
    shapes = shapes_of(small if tiny else resnet50())
    if not tiny and sum(map(int, map(np.prod, shapes.values()))) != PARAMETERS:
        raise SystemExit(f"the tree must have {PARAMETERS:,} parameters")
    libraries = Patterns(MEST_8), NaturalPatterns(8)
    entry = {
        "goals": GOALS,
        "projection": [projection(shapes, library, 2 if tiny else 9) for library in libraries],
        "step": [step_cost(8, 8, 3)] if tiny else [step_cost(8, 64, 200), step_cost(28, 128, 60)],
        "vmap": seeds_at_once(8),
        "load_average": os.getloadavg()[0],
        "versions": train.report.versions(),
    }
    for name in ("projection", "step", "vmap"):
        print(name, *([entry[name]] if name == "vmap" else entry[name]), sep="\n  ")
    if not tiny:
        train.report.write_json(RESULTS, entry)


if __name__ == "__main__":
    main()
