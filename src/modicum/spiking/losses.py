"""Losses of one output train, `(time steps, classes)`; batch them by `vmap`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from modicum.core import check

Label = Int[Array, ""] | int
"""The right class, counted from 0. One that does not exist makes a loss NaN, which stops a training."""


def _cross_entropy(logits: Float[Array, " c"], label: Label) -> Float[Array, ""]:
    right = jnp.arange(logits.shape[0]) == label
    loss = -jnp.sum(jnp.where(right, jax.nn.log_softmax(logits), 0))
    return jnp.where(jnp.any(right), loss, jnp.nan)


def _right(classes: int, label: Label, correct: float, incorrect: float) -> Float[Array, " c"]:
    right = jnp.arange(classes) == label
    return jnp.where(jnp.any(right), jnp.where(right, correct, incorrect), jnp.nan)


def rate_cross_entropy(spikes: Float[Array, " t c"], label: Label, *, scale: float = 1.0) -> Float[Array, ""]:
    """Cross-entropy of the firing rates: `-log softmax(scale * mean_t S_t)[label]`.

    Args:
        spikes: of the output neurons, one per class.
        label: the right class, from 0.
        scale: of the rates, finite, above 0. Rates end at 1, so that the loss of `c` classes ends at
            `log(1 + (c - 1) exp(-scale))`; the number of steps makes counts of the rates.

    Returns:
        The loss, in nats; NaN for a label that does not exist.

    Raises:
        ValueError: if `scale` is out of its range.

    Example:
        >>> round(float(rate_cross_entropy(jnp.array([[1.0, 0.0], [1.0, 0.0]]), 0)), 4)
        0.3133

    Reference:
        Eshraghian et al., "Training spiking neural networks using lessons from deep learning", Proceedings of the
        IEEE 2023 (cross-entropy spike rate).
    """
    check.finite_positive(scale=scale)
    return _cross_entropy(scale * spikes.mean(0), label)


def membrane_cross_entropy(
    potentials: Float[Array, " t c"], label: Label, *, over_time: str = "mean"
) -> Float[Array, ""]:
    """Cross-entropy of the potentials: `-log softmax(mean_t V_t)[label]`, or the largest over time for the mean.

    Args:
        potentials: of output neurons, one per class, best without a reset.
        label: the right class, from 0.
        over_time: `'mean'`, or `'max'`, which trains the one step at which a potential peaks.

    Returns:
        The loss, in nats; NaN for a label that does not exist.

    Raises:
        ValueError: for an unknown `over_time`.

    Reference:
        Eshraghian et al. 2023 (see `rate_cross_entropy`; maximum membrane); Cramer et al., "The
        Heidelberg spiking data sets", IEEE TNNLS 2020 (`'max'`).
    """
    check.one_of(("mean", "max"), over_time=over_time)
    return _cross_entropy(potentials.mean(0) if over_time == "mean" else potentials.max(0), label)


def count_mean_squared_error(
    spikes: Float[Array, " t c"], label: Label, *, correct: float = 0.8, incorrect: float = 0.2
) -> Float[Array, ""]:
    """Mean over classes of `(mean_t S_t - target)^2`: how far the rates are from those wanted.

    Args:
        spikes: of the output neurons, one per class.
        label: the right class, from 0.
        correct: rate wanted of the right class, from 0 to 1.
        incorrect: rate wanted of the others, from 0 to 1; above 0 lest these neurons fall silent for good.

    Returns:
        The loss; NaN for a label that does not exist.

    Raises:
        ValueError: for a rate out of its range.

    Example:
        >>> round(float(count_mean_squared_error(jnp.array([[1.0, 0.0], [1.0, 0.0]]), 0)), 4)
        0.04

    Reference:
        Shrestha and Orchard, "SLAYER: spike layer error reassignment in time", NeurIPS 2018 (target spike counts), as
        snnTorch's `mse_count_loss` divides it by time.
    """
    check.between(0, 1, correct=correct, incorrect=incorrect)
    target = _right(spikes.shape[1], label, correct, incorrect).astype(spikes.dtype)
    return jnp.mean((spikes.mean(0) - target) ** 2)


def first_spike_time(spikes: Float[Array, " t *n"]) -> Float[Array, " *n"]:
    """When each neuron first spikes, counted from 0; the number of steps if it never does.

    `sum_t prod_(v <= t) (1 - S_v)` counts the steps before the first spike. It is linear in each spike, so that its
    derivative is the exact difference which that spike makes: a spike at `t` before the first, `t_0`, would advance
    it by `t_0 - t`; without the first the next one would be it; later ones make no difference. The surrogate of each
    step then tells how near its neuron was to making that difference.

    Args:
        spikes: 0 or 1, differentiable through the surrogate that made them.

    Returns:
        The time in steps.

    Example:
        >>> first_spike_time(jnp.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])).tolist()
        [1.0, 3.0]
        >>> [int(slope) for slope in jax.grad(first_spike_time)(jnp.array([0.0, 0.0, 1.0, 0.0, 1.0]))]
        [-2, -1, -2, 0, 0]

    Reference:
        This project. Others differentiate the time with respect to the potential at the spike (Bohte, Kok and La
        Poutre, "SpikeProp", Neurocomputing 2002), which gives silent neurons no gradient.
    """
    return jnp.cumprod(1 - spikes, axis=0).sum(0)


def first_spike_cross_entropy(
    spikes: Float[Array, " t c"], label: Label, *, temperature: float = 1.0
) -> Float[Array, ""]:
    """Cross-entropy of who spikes first: `-log softmax(-first_spike_time / temperature)[label]`.

    Args:
        spikes: of the output neurons, one per class.
        label: the right class, from 0.
        temperature: in steps, finite, above 0: an advance of so many steps is worth a factor `e` in probability.

    Returns:
        The loss, in nats; NaN for a label that does not exist.

    Raises:
        ValueError: if `temperature` is out of its range.

    Reference:
        Eshraghian et al. 2023 (see `rate_cross_entropy`; cross-entropy latency). Of the ways to make logits of times
        this is the negative time; the gradient is that of `first_spike_time`.
    """
    check.finite_positive(temperature=temperature)
    return _cross_entropy(-first_spike_time(spikes) / temperature, label)


def spike_rate_regularizer(
    spikes: Float[Array, " t *n"], *, lowest: float = 0.0, highest: float = 1.0
) -> Float[Array, ""]:
    """Mean over neurons of the squared distance between their rate and `[lowest, highest]`.

    `mean_n(max(0, lowest - r_n)^2 + max(0, r_n - highest)^2)` with `r = mean_t S_t`: wakes silent neurons, and makes
    busy ones cheaper.

    Args:
        spikes: of any layer.
        lowest: rate below which a neuron is penalized, from 0 to 1.
        highest: rate above which it is, from `lowest` to 1.

    Returns:
        The penalty, 0 within the bounds.

    Raises:
        ValueError: for a rate out of its range.

    Reference:
        Zenke and Vogels, "The remarkable robustness of surrogate gradient learning for instilling complex function in
        spiking neural networks", Neural Computation 2021, methods (lower and upper bounds on activity).
    """
    check.between(0, 1, lowest=lowest)
    check.between(lowest, 1, highest=highest)
    rate = spikes.mean(0)
    return jnp.mean(jnp.maximum(lowest - rate, 0) ** 2 + jnp.maximum(rate - highest, 0) ** 2)
