"""Numbers as spike trains: time is the first axis of what these functions return."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Shaped

from modicum.core import Key, check


def rate_code(
    key: Key, intensity: Float[Array, " *n"], steps: int, dtype: DTypeLike = jnp.float32
) -> Shaped[Array, " t *n"]:
    """Independent spikes, each with the intensity as its probability.

    Step `t` is drawn from `fold_in(key, t)`: a longer train begins with the shorter one, and a scan can draw the same
    train step by step.

    Args:
        key: which spikes.
        intensity: probability of a spike per step, from 0 to 1; less never fires, more always does.
        steps: length of the train, at least 1.
        dtype: of the spikes; `uint8` takes a quarter of the memory.

    Returns:
        Spikes of 0 or 1, `(steps, *intensity.shape)`.

    Raises:
        ValueError: if `steps` is not a whole number of at least 1.

    Example:
        >>> import jax
        >>> rate_code(jax.random.key(0), jnp.array([0.0, 1.0]), steps=2).tolist()
        [[0.0, 1.0], [0.0, 1.0]]

    Reference:
        Eshraghian et al., "Training spiking neural networks using lessons from deep learning", Proceedings of the
        IEEE 2023, on rate coding.
    """
    check.integer(1, steps=steps)

    def draw(step: Array) -> Array:
        return jax.random.bernoulli(jax.random.fold_in(key, step), intensity)

    return jax.vmap(draw)(jnp.arange(steps)).astype(dtype)


def latency_code(
    intensity: Float[Array, " *n"],
    steps: int,
    *,
    tau: float | None = None,
    threshold: float = 0.01,
    dtype: DTypeLike = jnp.float32,
) -> Shaped[Array, " t *n"]:
    """At most one spike, the earlier the larger the intensity.

    The spike falls into the step nearest to

        linear:      (steps - 1) * (1 - intensity),                       of intensities clipped at 1
        logarithmic: tau * log(intensity / (intensity - threshold)),      when a leaky integrator reaches the threshold

    Intensities not above the threshold do not spike, nor do those whose spike would fall behind the last step.

    Args:
        intensity: from 0 to 1.
        steps: length of the train, at least 1.
        tau: time constant of the logarithmic form, in steps, finite, above 0; None takes the linear form.
        threshold: below which nothing spikes, from 0 to 1; above 0 in the logarithmic form.
        dtype: of the spikes.

    Returns:
        Spikes of 0 or 1, `(steps, *intensity.shape)`, at most one along time.

    Raises:
        ValueError: for a number out of its range.

    Example:
        >>> latency_code(jnp.array([0.0, 0.5, 1.0]), steps=3).tolist()
        [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]

    Reference:
        Eshraghian et al. 2023 (see `rate_code`), on latency coding; the forms are those of snnTorch's
        `spikegen.latency`, where by default weak inputs spike at the last step instead of never.
    """
    check.integer(1, steps=steps)
    check.between(0, 1, threshold=threshold)
    # the 8 bits of a bfloat16 number would not tell the steps of a long train apart
    intensity = intensity.astype(jnp.float32)
    if tau is None:
        time = (steps - 1) * (1 - jnp.minimum(intensity, 1))
    else:
        check.finite_positive(tau=tau, threshold=threshold)
        # -log1p is exact for intensities far above the threshold, where the quotient is near 1
        above = jnp.where(intensity > threshold, intensity, jnp.inf)
        time = -tau * jnp.log1p(-threshold / above)
    time = jnp.where(intensity > threshold, jnp.round(time), steps)
    step = jnp.arange(steps).reshape((steps,) + (1,) * intensity.ndim)
    return (step == time[None]).astype(dtype)


def direct_code(values: Shaped[Array, " *n"], steps: int) -> Shaped[Array, " t *n"]:
    """The values themselves at every step, as a current: the first layer of a network turns them into spikes.

    Args:
        values: any array.
        steps: how often to repeat it, at least 1.

    Returns:
        `(steps, *values.shape)`.

    Raises:
        ValueError: if `steps` is not a whole number of at least 1.

    Reference:
        Rueckauer et al., "Conversion of continuous-valued deep networks to efficient event-driven networks for image
        classification", Frontiers in Neuroscience 2017 (analog input).
    """
    check.integer(1, steps=steps)
    return jnp.broadcast_to(values, (steps, *values.shape))


def delta_code(
    signal: Float[Array, " t *n"], threshold: float, dtype: DTypeLike = jnp.float32
) -> Shaped[Array, " t *n 2"]:
    """Events where a signal has moved since its last event, as an event camera's pixels send them.

    Each element remembers a reference, at first `signal[0]`. A step at which the signal is a threshold or more above
    it is an ON event, a threshold or more below an OFF event; either makes that value the new reference. Slow drift
    thus adds up to events, and the signal is always known to within a threshold.

    Args:
        signal: over time, at least one step.
        threshold: smallest change that is an event, in units of the signal, finite, above 0.
        dtype: of the events.

    Returns:
        Events of 0 or 1, `(*signal.shape, 2)`: channel 0 is ON, channel 1 OFF. The first step has none.

    Raises:
        ValueError: for a threshold out of its range.

    Example:
        >>> delta_code(jnp.array([0.0, 0.6, 1.2, 0.2]), threshold=1.0).T.tolist()
        [[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]

    Reference:
        Lichtsteiner, Posch and Delbruck, "A 128x128 120 dB 15 us latency asynchronous temporal contrast vision
        sensor", IEEE Journal of Solid-State Circuits 2008. snnTorch's `spikegen.delta` compares neighboring steps.
    """
    check.finite_positive(threshold=threshold)

    def compare(reference: Array, value: Array) -> tuple[Array, Array]:
        change = value - reference
        events = jnp.stack([change >= threshold, -change >= threshold], axis=-1)
        return jnp.where(jnp.abs(change) >= threshold, value, reference), events.astype(dtype)

    return jax.lax.scan(compare, signal[0], signal)[1]
