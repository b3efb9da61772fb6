"""Pictures of spiking networks: rasters of spikes, traces of membrane potentials."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float, Shaped

from modicum.core import check


def raster(axes: Any, spikes: Shaped[Array | np.ndarray, " t *neurons"], *, most: int = 400) -> None:
    """A dot for each spike: time to the right, neurons upward; negative spikes in another color.

    Args:
        axes: matplotlib's.
        spikes: of one example.
        most: largest number of neurons drawn; of more, that many evenly spread ones.
    """
    check.integer(1, most=most)
    trains = np.asarray(spikes).reshape(len(spikes), -1)
    chosen = np.unique(np.linspace(0, trains.shape[1] - 1, min(most, trains.shape[1])).astype(int))
    for sign, color in ((1, "C0"), (-1, "C3")):
        times, neurons = np.nonzero(np.sign(trains[:, chosen]) == sign)
        axes.scatter(times, neurons, s=2, marker="|", color=color, linewidths=0.8)
    axes.set(xlim=(-0.5, len(trains) - 0.5), ylim=(-0.5, len(chosen) - 0.5), xlabel="time step", ylabel="neuron")


def membrane_trace(
    axes: Any,
    potentials: Float[Array | np.ndarray, " t"],
    spikes: Shaped[Array | np.ndarray, " t"],
    *,
    threshold: float = 1.0,
) -> None:
    """The potential of one neuron after each step, its threshold, and a mark at each spike.

    Args:
        axes: matplotlib's.
        potentials: after each step's reset.
        spikes: of the same neuron.
        threshold: where it fires.
    """
    steps = np.arange(len(potentials))
    axes.plot(steps, np.asarray(potentials), color="C0", linewidth=1)
    axes.axhline(threshold, color="gray", linestyle="--", linewidth=0.8)
    fired = np.nonzero(np.asarray(spikes))[0]
    axes.scatter(fired, np.full(len(fired), threshold), marker="^", color="C3", s=12)
    axes.set(xlabel="time step", ylabel="membrane potential")
