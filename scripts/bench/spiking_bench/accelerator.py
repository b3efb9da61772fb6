"""Training steps on one accelerator: temporary bytes, wall time, and gradients beside those of plain autodiff."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from spiking_bench import network, timing

PAIRS = (
    ("reversible", "reversible_standard"),
    ("reversible", "carry autodiff"),
    ("packed", "lif autodiff"),
    ("packed layer", "lif autodiff layer"),
    ("packed layer", "lif autodiff"),
)


def networks(
    depth: int,
    steps: int,
    *,
    rounds: int,
    batch: int,
    channels: int,
    side: int = network.SIDE,
    tell: Callable[[str], object] = timing.quiet,
) -> dict[str, Any]:
    """One size, every scheme; one that does not fit into the device's memory says so in place of times."""
    params, (events, labels) = network.init(depth, channels, side), network.data(steps, batch, side)

    def compiled(scheme: network.Scheme) -> Any:
        return jax.jit(network.train_step(scheme, depth, channels)).lower(params, events, labels).compile()

    # XLA compiles outside Python's lock
    with ThreadPoolExecutor() as pool:
        programs = dict(zip(network.SCHEMES, pool.map(compiled, network.SCHEMES.values()), strict=True))
    rows: dict[str, dict[str, Any]] = {}
    runs, updates = {}, {}
    for name, program in programs.items():
        rows[name] = {"temporary_bytes": program.memory_analysis().temp_size_in_bytes}
        try:
            updates[name] = jax.device_get(program(params, events, labels)[0])
        except jax.errors.JaxRuntimeError as error:
            rows[name]["refused"] = str(error).splitlines()[0][:200]
            continue
        runs[name] = lambda program=program: program(params, events, labels)
    for name, row in timing.in_turns(runs, rounds).items():
        rows[name] |= {kind: row[kind] for kind in ("wall_seconds_min", "wall_seconds_median", "samples")}
        plain = network.plain_of(name)
        if plain in updates:
            rows[name]["update_difference"] = timing.difference(updates[name], updates[plain])
    for name, row in rows.items():
        tell(f"{depth} layers, {steps} steps, {name}: {row}")
    ratios = {
        f"{first} / {second}": {
            kind: rows[first][kind] / rows[second][kind]
            for kind in ("temporary_bytes", "wall_seconds_min", "wall_seconds_median")
            if kind in rows[first] and kind in rows[second]
        }
        for first, second in PAIRS
        if first in rows and second in rows
    }
    return {"depth": depth, "steps": steps, "batch": batch, "rows": rows, "ratios": ratios}


def long_inverse(steps: int, neurons: int) -> dict[str, int]:
    """Invertible neurons, forward and back again on this device: how many of the numbers differ from where they began.

    Args:
        steps: time steps.
        neurons: how many.
    """
    import jax.numpy as jnp

    from modicum import spiking

    found = {}
    currents = jax.random.normal(jax.random.key(5), (steps, neurons))
    for neuron in (spiking.Carry(), spiking.FixedPointLIF()):
        params, start = neuron.init_params(), neuron.init_state((neurons,))

        def forward(state: Any, current: jax.Array, neuron: Any = neuron, params: Any = params) -> Any:
            state, _, ledger = neuron.forward(params, state, current)
            return state, ledger

        def back(state: Any, given: Any, neuron: Any = neuron, params: Any = params) -> Any:
            return neuron.invert(params, state, *given)[0], None

        @jax.jit
        def there_and_back(start: Any, currents: jax.Array, forward: Any = forward, back: Any = back) -> Any:
            end, ledgers = jax.lax.scan(forward, start, currents)
            return jax.lax.scan(back, end, (currents, ledgers), reverse=True)[0]

        again = there_and_back(start, currents)
        differ = jax.tree.map(lambda a, b: int(jnp.sum(a != b)), start, again)
        found[type(neuron).__name__] = sum(jax.tree.leaves(differ))
    return found
