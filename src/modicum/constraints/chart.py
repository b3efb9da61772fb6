"""Free coordinates of a projected point: what retraining may move without leaving the set."""

import functools
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from modicum.constraints.base import Traceable, as_view, from_view, in_dtype, view_shape
from modicum.constraints.grid import Grid
from modicum.constraints.plan import Plan
from modicum.constraints.tree import element_signs, place, solve, support


@jax.custom_vjp
def settle(theta: Array, value: Array, low: Array, high: Array) -> Array:
    """`value`, the point of a box-and-grid that stands for `theta`, with a gradient straight through to `theta`.

    The gradient is that of `theta` itself (projected gradient, straight through rounding), except where `theta`
    is at a bound or past it and a descent step would push it further out: there it is zero. So an entry
    outside its support stays put, and an entry that was clamped to zero still comes back when the loss asks for it.

    Args:
        theta: free coordinates.
        value: what the forward pass returns.
        low: lower bound of each coordinate; equal to `high` where it is fixed.
        high: upper bound of each coordinate.
    """
    del theta, low, high
    return value


def _settle_forward(theta: Array, value: Array, low: Array, high: Array) -> tuple[Array, tuple[Array, Array]]:
    return value, (theta <= low, theta >= high)


def _settle_backward(residuals: tuple[Array, Array], g: Array) -> tuple[Array, None, None, None]:
    at_low, at_high = residuals
    return jnp.where((at_low & (g > 0)) | (at_high & (g < 0)), 0.0, g), None, None, None


settle.defvjp(_settle_forward, _settle_backward)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Box:
    """Builds a member of a set from free coordinates: a bound on each, and a grid.

    A pytree that is called; so it may leave a jitted function, or be mapped over.

    Attributes:
        low: lower bounds, in the weight's shape; 0 off the support and where a fragment is positive.
        high: upper bounds; 0 off the support and where a fragment is negative.
        scale: spacing of the grid; None for none.
        grid: which multiples of the scale are levels; None for no grid.
        dtype: dtype of the weight.
    """

    low: Any
    high: Any
    scale: Any = None
    grid: Grid | None = field(default=None, metadata={"static": True})
    dtype: str = field(default="float32", metadata={"static": True})

    def __call__(self, theta: Float[Array, " *shape"]) -> Float[Array, " *shape"]:
        """The member of the set that `theta` stands for, by clamping and rounding; see `settle` for its gradient."""
        value = jnp.clip(theta, self.low, self.high)
        if self.grid is None:
            value = in_dtype(jnp.where(value == 0, 0.0, value), self.dtype)
        else:
            value = self.grid.round(value, self.scale, self.dtype)
        value = jax.lax.stop_gradient(value)
        return settle(theta, value, self.low, self.high).astype(self.dtype)


@functools.partial(jax.jit, inline=True)
def chart(plan: Plan, w: Array) -> tuple[Array, Box]:
    """Coordinates of the projected point, and the box its discrete choices leave free."""
    x = as_view(w, plan.view).astype(jnp.float32)
    choice = solve(plan, x, w.dtype)
    limit: Traceable = jnp.inf
    if plan.grid is not None:
        limit = jnp.asarray(plan.scale, jnp.float32) * plan.grid.top
    shape = view_shape(w.shape, plan.view)
    free = support(plan, choice, shape)
    negative = element_signs(plan, choice, shape)
    may_fall, may_rise = (free, free) if negative is None else (free & negative, free & ~negative)
    low, high = (
        from_view(jnp.where(mask, bound, 0.0), w.shape, plan.view)
        for mask, bound in ((may_fall, -limit), (may_rise, limit))
    )
    box = Box(low=low, high=high, scale=plan.scale, grid=plan.grid, dtype=str(w.dtype))
    return from_view(place(plan, x, choice, w.dtype), w.shape, plan.view), box
