"""Memory of the gradient, read off XLA's own plan: the network, a bare node, and coupled blocks."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modicum import spiking
from spiking_bench import network

STEPS = (4, 8, 16, 32, 64, 128, 256)
DEEP, DEEP_STEPS = 16, (64, 128, 256)
"""Deeper networks, which take minutes to compile, are measured at these steps only."""
LONG, LONG_SCHEMES = 1024, ("carry autodiff", "reversible")
NODE_STEPS = (4, 15, 16, 64, 256)
NODES = 1 << 16
BLOCKS = (4, 16, 64, 256)
BLOCK_STEPS = 8
COUPLED = {
    "plain": ("autodiff", "autodiff"),
    "standard": ("standard", "autodiff"),
    "streamlined": ("streamlined", "autodiff"),
    "streamlined, packed inside": ("streamlined", "packed"),
}
"""How the blocks are undone, and how the neurons inside a branch are differentiated."""


def exponent(sizes: Mapping[int, float], least: int = 0, most: int | None = None) -> float | None:
    """The slope of `log(bytes)` against `log(size)`, least squares; None of fewer than two sizes.

    Args:
        sizes: bytes by size.
        least: smallest size that counts.
        most: largest, if any.
    """
    chosen = [(size, value) for size, value in sizes.items() if least <= size and (most is None or size <= most)]
    if len(chosen) < 2:
        return None
    across, up = np.log(np.array(chosen, np.float64)).T
    return float(np.polyfit(across, up, 1)[0])


def _events(steps: int, side: int, batch: int = network.BATCH) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    shape = (steps, batch, side, side, 2)
    return jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct((batch,), jnp.int32)


def network_bytes(scheme: str, depth: int, steps: int, channels: int, side: int) -> int:
    """Temporary memory of the gradient with respect to the parameters; nothing is run."""
    params = jax.eval_shape(lambda: network.init(depth, channels, side))
    loss = network.loss_of(network.SCHEMES[scheme], depth, channels)
    return spiking.peak_bytes(jax.grad(loss), params, *_events(steps, side))


def networks(
    depth: int,
    steps: Sequence[int],
    channels: int = network.CHANNELS,
    side: int = network.SIDE,
    schemes: Sequence[str] = tuple(network.SCHEMES),
    long: int | None = LONG,
    tell: Callable[[str], object] = lambda _: None,
) -> dict[str, dict[str, Any]]:
    """Every scheme at every number of steps, by `scheme | depth | steps`."""
    cells = {}
    chosen = [number for number in steps if depth <= DEEP or number in DEEP_STEPS]
    for scheme in schemes:
        for number in (*chosen, *([long] if long and scheme in LONG_SCHEMES else [])):
            bytes_ = network_bytes(scheme, depth, number, channels, side)
            name = f"{scheme} | {depth} | {number}"
            cells[name] = {"scheme": scheme, "depth": depth, "steps": number, "temp_bytes": bytes_}
            tell(f"{name}: {bytes_ / 1e6:.2f} MB")
    return cells


def by_steps(cells: Mapping[str, dict[str, Any]], scheme: str, depth: int) -> dict[int, int]:
    """Bytes by number of steps."""
    chosen = [cell for cell in cells.values() if (cell["scheme"], cell["depth"]) == (scheme, depth)]
    return {cell["steps"]: cell["temp_bytes"] for cell in sorted(chosen, key=lambda cell: cell["steps"])}


def summary(cells: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """For each scheme and depth the exponent from 64 to 256 steps (all, if there are none), and ratios to others."""
    rows = []
    for scheme, depth in sorted({(cell["scheme"], cell["depth"]) for cell in cells.values()}):
        sizes = by_steps(cells, scheme, depth)
        slope = exponent(sizes, 64, 256)
        row: dict[str, Any] = {"scheme": scheme, "depth": depth}
        row["exponent"] = exponent(sizes) if slope is None else slope
        plain = network.plain_of(scheme)
        for other in (plain, "lif autodiff", plain.split()[0] + " sqrt"):
            others = by_steps(cells, other, depth)
            shared = [number for number in sizes if number in others]
            row[f"{other} / this"] = {str(number): others[number] / sizes[number] for number in shared}
        rows.append(row)
    return rows


def _same(weights: Any, spikes: jax.Array) -> jax.Array:
    del weights
    return spikes


def _scaled(weights: jax.Array, spikes: jax.Array) -> jax.Array:
    return weights * spikes


NODE_SCHEMES = {
    "carry autodiff": ("autodiff", network.CARRY),
    "lif autodiff": ("autodiff", network.LIF),
    "lif arctan autodiff": ("autodiff", spiking.LIF(leak=network.LEAK, surrogate=spiking.Arctan())),
    "lif hard arctan autodiff": (
        "autodiff",
        spiking.LIF(leak=network.LEAK, reset="hard", surrogate=spiking.Arctan()),
    ),
    "packed": ("packed", network.LIF),
    "reversible": ("reversible", network.CARRY),
    "reversible_standard": ("reversible_standard", network.CARRY),
}


def nodes(steps: Sequence[int] = NODE_STEPS, neurons: int = NODES) -> list[dict[str, Any]]:
    """What bare neurons keep between the passes, inputs and outputs excluded, and with the synapse that they drive.

    The synapse behind is one weight: its gradient needs the spikes, which plain JAX keeps, `packed` has in its bits,
    and `reversible` computes again.
    """
    rows = []
    for number in steps:
        currents = jax.ShapeDtypeStruct((number, 1, neurons), jnp.float32)
        for name, (residuals, neuron) in NODE_SCHEMES.items():
            row: dict[str, Any] = {"node": name, "steps": number, "neurons": neurons}
            alone = (spiking.Layer(_same, neuron),)
            behind = (*alone, spiking.Layer(_scaled))
            for key, layers in (("bytes", alone), ("bytes_with_synapse", behind)):

                def run(weight: jax.Array, currents: jax.Array, layers: Any = layers, mode: str = residuals) -> Any:
                    params = [{"synapse": (), "neuron": ()}, {"synapse": weight, "neuron": ()}][: len(layers)]
                    return spiking.multi_step(layers, params, currents, residuals=mode)

                row[key] = spiking.residual_bytes(run, jax.ShapeDtypeStruct((), jnp.float32), currents)
            row["bytes_per_neuron_step"] = row["bytes"] / neurons / number
            row["bytes_per_neuron_step_with_synapse"] = row["bytes_with_synapse"] / neurons / number
            rows.append(row)
    return rows


def branch(residuals: str, channels: int) -> Callable[[Any, jax.Array], jax.Array]:
    """Neurons over all steps, then a convolution of their spikes."""
    synapse = spiking.Convolution(features=channels, grid_bits=network.GRID_BITS, gain=network.GAIN)
    layers = (spiking.Layer(_same, network.LIF), spiking.Layer(synapse))

    def change(params: Any, stream: jax.Array) -> jax.Array:
        weights = [{"synapse": (), "neuron": ()}, {"synapse": params, "neuron": ()}]
        return spiking.multi_step(layers, weights, stream, residuals=residuals)[0]

    return change


def coupled_loss(backward: str, inside: str, channels: int) -> Callable[[Any, Any], jax.Array]:
    """`(params, streams) -> number` through all blocks; each stream has half of the channels."""
    change = branch(inside, channels // 2)

    def loss(params: Any, streams: spiking.Streams) -> jax.Array:
        out = spiking.reversible_sequence(change, change, params, streams, backward=backward)
        return jnp.mean(out.first**2) + jnp.mean(out.second**2)

    return loss


def coupled_arguments(blocks: int, steps: int, channels: int, side: int, batch: int = network.BATCH) -> Any:
    """Shapes of the blocks' kernels and of the streams."""
    half = channels // 2
    kernel = {"kernel": jax.ShapeDtypeStruct((blocks, 3, 3, half, half), jnp.float32)}
    stream = jax.ShapeDtypeStruct((steps, batch, side, side, half), jnp.float32)
    return (kernel, kernel), spiking.Streams(stream, stream)


def coupled(
    blocks: Sequence[int] = BLOCKS,
    steps: int = BLOCK_STEPS,
    channels: int = network.CHANNELS,
    side: int = network.SIDE,
    tell: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Temporary memory of the gradient of coupled blocks, by depth, and its exponents."""
    rows = []
    for name, (backward, inside) in COUPLED.items():
        for number in blocks:
            arguments = coupled_arguments(number, steps, channels, side)
            bytes_ = spiking.peak_bytes(jax.grad(coupled_loss(backward, inside, channels)), *arguments)
            rows.append({"scheme": name, "blocks": number, "temp_bytes": bytes_})
            tell(f"coupled, {name}, {number} blocks: {bytes_ / 1e6:.2f} MB")
    sizes = {name: {row["blocks"]: row["temp_bytes"] for row in rows if row["scheme"] == name} for name in COUPLED}
    ratios = {name: {str(number): sizes["plain"][number] / of[number] for number in of} for name, of in sizes.items()}
    return {
        "steps": steps,
        "rows": rows,
        "exponents": {name: exponent(of) for name, of in sizes.items()},
        "plain / this": ratios,
    }


def draw(entry: Mapping[str, Any], path: Path) -> None:
    """Memory against time steps, and against depth."""
    from matplotlib.figure import Figure

    from modicum.systems import drawing

    cells = entry["cells"]
    depths = sorted({cell["depth"] for cell in cells.values()})
    # one depth is no curve
    several = len(depths) > 1
    figure = Figure(figsize=(13 if several else 9, 4.2), layout="constrained")
    steps_axes, *between, blocks_axes = figure.subplots(1, 3 if several else 2)
    middle = 16 if 16 in depths else depths[len(depths) // 2]
    longest = max(cell["steps"] for cell in cells.values() if cell["steps"] <= max(STEPS))
    for number, scheme in enumerate(dict.fromkeys(cell["scheme"] for cell in cells.values())):
        style = {"color": f"C{number}", "marker": "o", "markersize": 3, "label": scheme}
        sizes = by_steps(cells, scheme, middle)
        steps_axes.plot(list(sizes), [value / 1e6 for value in sizes.values()], **style)
        deep = {depth: by_steps(cells, scheme, depth).get(longest, math.nan) for depth in depths}
        for depth_axes in between:
            depth_axes.plot(list(deep), [value / 1e6 for value in deep.values()], **style)
    steps_axes.set(title=f"{middle} layers", xlabel="time steps", ylabel="temporary memory of the gradient, MB")
    for depth_axes in between:
        depth_axes.set(title=f"{longest} steps", xlabel="layers")
    for number, name in enumerate(COUPLED):
        rows = [row for row in entry["coupled"]["rows"] if row["scheme"] == name]
        style = {"color": f"C{number}", "marker": "o", "markersize": 3, "label": name}
        blocks_axes.plot([row["blocks"] for row in rows], [row["temp_bytes"] / 1e6 for row in rows], **style)
    blocks_axes.set(title=f"coupled blocks, {entry['coupled']['steps']} steps", xlabel="blocks")
    shown = (
        sorted({cell["steps"] for cell in cells.values()}),
        *([depths] if several else []),
        sorted({row["blocks"] for row in entry["coupled"]["rows"]}),
    )
    for axes, sizes in zip((steps_axes, *between, blocks_axes), shown, strict=True):
        axes.set(xscale="log", yscale="log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=6)
    drawing.save(figure, path)
