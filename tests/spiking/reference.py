"""Neurons as plain loops in float64, and how the tests run ours."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


@functools.partial(jax.jit, static_argnums=0)
def run(neuron, params, state, currents):
    """States and spikes of every step."""

    def body(state, current):
        state, spikes = neuron.step(params, state, current)
        return state, (state, spikes)

    return jax.lax.scan(body, state, currents)[1]


def spike_times(neuron, current, steps):
    currents = jnp.full((steps, 1), current, jnp.float32)
    return np.nonzero(np.asarray(run(neuron, neuron.init_params(), neuron.init_state((1,)), currents)[1])[:, 0])[0]


def lif_reference(currents, leak, threshold, reset, beta=0.0, rho=0.0):
    potential, adaptation, potentials, spikes = np.zeros(currents.shape[1]), 0.0, [], []
    for current in currents.astype(np.float64):
        before = leak * potential + current
        limit = threshold + beta * adaptation
        fired = (before >= limit) * 1.0
        potential = before - limit * fired if reset == "soft" else np.where(fired, 0, before)
        adaptation = rho * adaptation + fired
        potentials.append(potential)
        spikes.append(fired)
    return np.array(potentials), np.array(spikes)


def lif_gradient_reference(currents, weights, leak, threshold, reset, detach, height=1.0, width=1.0):
    """Of `sum(weights * spikes)` with respect to the currents, by hand, boxcar surrogate, float64."""
    potential, tape = np.zeros(currents.shape[1]), []
    for current in currents.astype(np.float64):
        before = leak * potential + current
        fired = (before >= threshold) * 1.0
        potential = before - threshold * fired if reset == "soft" else before * (1 - fired)
        tape.append((before, fired))
    slope_of = lambda before: height * (np.abs(before - threshold) <= width / 2)  # noqa: E731
    carried, gradients = np.zeros(currents.shape[1]), []
    for (before, fired), weight in zip(tape[::-1], weights[::-1].astype(np.float64), strict=True):
        through_reset = -threshold if reset == "soft" else -before
        kept = 1.0 if reset == "soft" else 1 - fired
        total = weight + (0 if detach else through_reset * carried)
        gradients.append(kept * carried + slope_of(before) * total)
        carried = leak * gradients[-1]
    return np.array(gradients[::-1])


def izhikevich_reference(a, b, c, d, dt, currents, v, u):
    times = []
    for step, current in enumerate(currents):
        v, u = v + dt * (0.04 * v**2 + 5 * v + 140 - u + current), u + dt * a * (b * v - u)
        if v >= 30:
            v, u = c, u + d
            times.append(step)
    return v, u, times
