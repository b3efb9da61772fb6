"""What a backward pass costs in memory, read off the program; and the fastest mode that fits a budget."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core as jex
from jaxtyping import Array

from modicum.core import Params, check
from modicum.spiking.layers import Layer
from modicum.spiking.unrolled import multi_step

CANDIDATES = (
    ("packed", "time"),
    ("autodiff", "time"),
    ("reversible", "time"),
    ("remat", "time"),
    ("sqrt", "time"),
)
"""Modes and orders from the fastest to the slowest, as `scripts/bench/spiking.py time` finds them."""


def residual_bytes(fun: Callable[..., Any], *args: Any) -> int:
    """Bytes kept between the forward and the backward pass of `fun`, its inputs and outputs not counted.

    Args:
        fun: a differentiable function of arrays.
        args: its arguments, arrays or their shapes and dtypes.

    Example:
        >>> residual_bytes(lambda x: jnp.sin(x).sum(), jnp.ones(8))  # the cosine, in float32
        32
    """

    def forward(*args: Any) -> Any:
        outputs, pull = jax.vjp(fun, *args)
        return jax.tree.leaves(outputs), jax.tree.leaves(pull)

    closed, shapes = jax.make_jaxpr(forward, return_shape=True)(*args)
    number = len(shapes[0])
    counted = {atom for atom in closed.jaxpr.outvars[:number] if not isinstance(atom, jex.Literal)}
    counted |= set(closed.jaxpr.invars) | set(closed.jaxpr.constvars)
    total = 0
    for atom in closed.jaxpr.outvars[number:]:
        if not isinstance(atom, jex.Literal) and atom not in counted:
            counted.add(atom)
            kept: Any = atom.aval
            total += kept.size * kept.dtype.itemsize
    return total


def peak_bytes(fun: Callable[..., Any], *args: Any) -> int:
    """Largest temporary memory of the compiled function in bytes, arguments and results not counted.

    Args:
        fun: any function that can be jitted: `jax.grad(loss)`, say.
        args: its arguments, arrays or their shapes and dtypes.
    """
    analysis: Any = jax.jit(fun).lower(*args).compile().memory_analysis()
    return analysis.temp_size_in_bytes


class Plan(NamedTuple):
    """How to run a network within a budget.

    Attributes:
        residuals: for `multi_step`.
        order: for `multi_step`.
        peak_bytes: temporary memory of the gradient.
        considered: `(residuals, order, peak_bytes)` of every candidate up to the one chosen.
    """

    residuals: str
    order: str
    peak_bytes: int
    considered: tuple[tuple[str, str, int], ...]


def memory_plan(
    layers: Sequence[Layer],
    params: Sequence[dict[str, Params]],
    inputs: Any,
    budget_bytes: float,
    *,
    steps: int | None = None,
    candidates: Sequence[tuple[str, str]] = CANDIDATES,
) -> Plan:
    """The first of the candidates, fastest first, whose gradient fits the budget.

    Compiles the gradient of the summed output for one candidate after the other, so the figures are XLA's own, for
    this backend. Candidates that do not fit a neuron are passed over.

    Args:
        layers: the chain.
        params: its parameters, or their shapes and dtypes.
        inputs: as `multi_step` takes them, or their shape and dtype.
        budget_bytes: temporary memory that the gradient may take, above 0.
        steps: as in `multi_step`.
        candidates: modes and orders, in order of preference.

    Returns:
        The mode and order to pass to `multi_step`.

    Raises:
        ValueError: if none fits; the sentence says what the leanest needs.
    """
    check.positive(budget_bytes=budget_bytes)
    considered = []
    for residuals, order in candidates:

        def total(params: Any, inputs: Array, residuals: str = residuals, order: str = order) -> Array:
            outputs, _ = multi_step(layers, params, inputs, residuals=residuals, order=order, steps=steps)
            return jnp.sum(outputs)

        try:
            used = peak_bytes(jax.grad(total), params, inputs)
        except ValueError:
            continue  # the mode does not fit a neuron
        considered.append((residuals, order, used))
        if used <= budget_bytes:
            return Plan(residuals, order, used, tuple(considered))
    least = min(considered, key=lambda entry: entry[2], default=None)
    found = "no candidate fits the neurons" if least is None else f"{least[0]} by {least[1]} takes {least[2]:,}"
    raise ValueError(f"budget_bytes must leave room for one of the modes, got {budget_bytes:,}: {found}")
