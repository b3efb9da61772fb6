"""Time of a training step, process CPU and wall: everything is compiled first, then all schemes take turns."""

import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modicum import spiking
from spiking_bench import memory, network

RATIOS = (
    ("reversible", "reversible_standard"),
    ("reversible", "carry autodiff"),
    ("reversible", "carry sqrt"),
    ("packed", "reversible_standard"),
    ("packed", "lif autodiff"),
    ("packed layer", "reversible_standard"),
    ("packed layer", "lif autodiff"),
    ("packed layer", "lif autodiff layer"),
)
NODE_STEPS = 8
Thunk = Callable[[], Any]


def quiet(_: str) -> None:
    """Tells nobody."""


def in_turns(runs: Mapping[str, Thunk], rounds: int) -> dict[str, dict[str, Any]]:
    """Minimum and median seconds of functions that take turns, the order moved on by one each round.

    Args:
        runs: by name; each has been called before, so that nothing is compiled here.
        rounds: how often each is called.
    """
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    names = list(runs)
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            cpu_started, started = time.process_time(), time.perf_counter()
            jax.block_until_ready(runs[name]())
            samples[name].append((time.process_time() - cpu_started, time.perf_counter() - started))
    found = {}
    for name, pairs in samples.items():
        cpu, wall = zip(*pairs, strict=True)
        found[name] = {
            "cpu_seconds_min": min(cpu),
            "cpu_seconds_median": statistics.median(cpu),
            "wall_seconds_min": min(wall),
            "wall_seconds_median": statistics.median(wall),
            "samples": len(cpu),
        }
    return found


def ratios(times: Mapping[str, dict[str, Any]], pairs: Any) -> dict[str, dict[str, float]]:
    """Process CPU time of the first over that of the second, of minima and of medians."""
    return {
        f"{first} / {second}": {
            kind: times[first][f"cpu_seconds_{kind}"] / times[second][f"cpu_seconds_{kind}"]
            for kind in ("min", "median")
        }
        for first, second in pairs
        if first in times and second in times
    }


def difference(tree: Any, other: Any) -> float:
    """The largest difference of leaves, relative to the largest number of its leaf."""

    def of(a: jax.Array, b: jax.Array) -> float:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return float(np.max(np.abs(a - b)) / max(np.max(np.abs(b)), np.finfo(np.float32).tiny))

    return max(jax.tree.leaves(jax.tree.map(of, tree, other)))


def networks(
    depth: int,
    steps: int,
    *,
    rounds: int,
    channels: int = network.CHANNELS,
    side: int = network.SIDE,
    tell: Callable[[str], object] = quiet,
) -> dict[str, Any]:
    """One size: every scheme's training step; its loss, and the updated weights beside those of plain autodiff."""
    params, (events, labels) = network.init(depth, channels, side), network.data(steps, side=side)
    load_average = os.getloadavg()[0]
    runs: dict[str, Thunk] = {}
    updates: dict[str, tuple[Any, float]] = {}
    for name, scheme in network.SCHEMES.items():
        started = time.perf_counter()
        compiled = jax.jit(network.train_step(scheme, depth, channels)).lower(params, events, labels).compile()
        runs[name] = lambda compiled=compiled: compiled(params, events, labels)
        updated, loss = runs[name]()
        updates[name] = updated, float(loss)
        tell(f"{depth} layers, {steps} steps, {name}: compiled in {time.perf_counter() - started:.0f} s")
    times = in_turns(runs, rounds)
    for name, row in times.items():
        updated, loss = updates[name]
        row |= {"loss": loss, "update_difference": difference(updated, updates[network.plain_of(name)][0])}
        tell(f"{depth} layers, {steps} steps, {name}: {row['cpu_seconds_min']:.3f} s")
    found = ratios(times, RATIOS)
    return {"depth": depth, "steps": steps, "load_average": load_average, "times": times, "ratios": found}


def nodes(
    *, rounds: int, neurons: int, steps: int = NODE_STEPS, tell: Callable[[str], object] = quiet
) -> dict[str, Any]:
    """The reversible node of two groups, alone: gradient with respect to its inputs, and operations by XLA's count."""
    node = spiking.TwoGroup()
    keys = jax.random.split(jax.random.key(2), 4)
    inputs, weights = (
        spiking.Pair(*(jax.random.normal(key, (steps, neurons)) for key in pair)) for pair in (keys[:2], keys[2:])
    )
    state = node.init_state((neurons,))

    def plain(state: Any, inputs: Any) -> Any:
        return jax.lax.scan(lambda state, slice_: node.step((), state, slice_), state, inputs)

    forms = {
        "plain": plain,
        "standard": spiking.two_group(node, streamlined=False),
        "streamlined": spiking.two_group(node, streamlined=True),
    }
    runs, operations = {}, {}
    for name, form in forms.items():

        def loss(inputs: Any, form: Any = form) -> jax.Array:
            _, outputs = form(state, inputs)
            return sum(jnp.vdot(output, weight) for output, weight in zip(outputs, weights, strict=True))

        compiled = jax.jit(jax.grad(loss)).lower(inputs).compile()
        operations[name] = (compiled.cost_analysis() or {}).get("flops")
        runs[name] = lambda compiled=compiled: compiled(inputs)
        jax.block_until_ready(runs[name]())
    times = in_turns(runs, rounds)
    for name, row in times.items():
        row["flops"] = operations[name]
        tell(f"two-group node, {name}: {1e3 * row['cpu_seconds_min']:.1f} ms")
    found = ratios(times, (("streamlined", "standard"), ("streamlined", "plain")))
    return {"neurons": 2 * neurons, "steps": steps, "times": times, "ratios": found}


def coupled(
    blocks: tuple[int, ...],
    *,
    rounds: int,
    channels: int = network.CHANNELS,
    side: int = network.SIDE,
    steps: int = memory.BLOCK_STEPS,
    tell: Callable[[str], object] = quiet,
) -> list[dict[str, Any]]:
    """Coupled blocks: the gradient with respect to their kernels."""
    rows = []
    for number in blocks:
        shapes = memory.coupled_arguments(number, steps, channels, side)
        leaves, treedef = jax.tree.flatten(shapes)
        keys = jax.random.split(jax.random.key(3), len(leaves))
        # on a grid, and small, so that sums over all blocks stay exact
        drawn = [
            jnp.round(jax.random.normal(key, leaf.shape) * 2.0**8) * 2.0**-network.GRID_BITS
            for key, leaf in zip(keys, leaves, strict=True)
        ]
        arguments = jax.tree.unflatten(treedef, drawn)
        runs = {}
        for name, (backward, inside) in memory.COUPLED.items():
            compiled = jax.jit(jax.grad(memory.coupled_loss(backward, inside, channels))).lower(*arguments).compile()
            runs[name] = lambda compiled=compiled, arguments=arguments: compiled(*arguments)
            jax.block_until_ready(runs[name]())
        times = in_turns(runs, rounds)
        for name, row in times.items():
            row["gradient_difference"] = difference(runs[name](), runs["plain"]())
            tell(f"{number} coupled blocks, {name}: {row['cpu_seconds_min']:.3f} s")
        pairs = [(name, other) for name in list(memory.COUPLED)[1:] for other in ("plain", "standard") if name != other]
        rows.append({"blocks": number, "steps": steps, "times": times, "ratios": ratios(times, pairs)})
    return rows


def operators(
    lengths: tuple[int, ...],
    *,
    rounds: int,
    channels: int = network.CHANNELS,
    side: int = network.SIDE,
    tell: Callable[[str], object] = quiet,
) -> list[dict[str, Any]]:
    """Gradients of a convolution with respect to kernel and images, one for each step of a loop: XLA's and ours."""
    from modicum.spiking.synapses import differentiable

    synapse = spiking.Convolution(features=channels)
    keys = jax.random.split(jax.random.key(4), 3)
    weights = synapse.init(keys[0], (side, side, channels))
    rows = []
    for steps in lengths:
        shape = (steps, network.BATCH, side, side, channels)
        images, cotangents = (jax.random.normal(key, shape) for key in keys[1:])

        def total(weights: Any, images: Any, form: Any, unroll: Any, cotangents: Any = cotangents) -> jax.Array:
            def body(total: jax.Array, slice_: Any) -> tuple[jax.Array, None]:
                return total + jnp.vdot(form(weights, slice_[0]), slice_[1]), None

            return jax.lax.scan(body, jnp.zeros(()), (images, cotangents), unroll=unroll)[0]

        forms = {
            "xla, in a loop": (synapse, 1),
            "xla, unrolled": (synapse, steps),
            "ours, in a loop": (differentiable(synapse), 1),
        }
        runs = {}
        for name, (form, unroll) in forms.items():

            def gradient(weights: Any, images: Any, form: Any = form, unroll: int = unroll, total: Any = total) -> Any:
                return jax.grad(total, argnums=(0, 1))(weights, images, form, unroll)

            compiled = jax.jit(gradient).lower(weights, images).compile()
            runs[name] = lambda compiled=compiled, images=images: compiled(weights, images)
            jax.block_until_ready(runs[name]())
        times = in_turns(runs, rounds)
        for name, row in times.items():
            row["gradient_difference"] = difference(runs[name](), runs["xla, in a loop"]())
            tell(f"convolution, {steps} steps, {name}: {1e3 * row['cpu_seconds_min']:.1f} ms")
        found = ratios(times, [(name, "ours, in a loop") for name in list(forms)[:2]])
        rows.append({"steps": steps, "times": times, "ratios": found})
    return rows
