"""What keeps two computations apart that XLA would merge."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def apart(number: Any, fun: Callable[..., Any], *args: Any) -> Any:
    """`fun(*args)`, as a branch that XLA neither merges with what comes after it nor fuses into it.

    Baselines need it: a reversible layer that inverts and then runs forward again does so in two passes. XLA's CPU
    compiler drops `jax.lax.optimization_barrier` before it looks for common parts.

    Args:
        number: of the step, not below 0, traced: what the compiler cannot know.
        fun: a pure function.
        args: its arguments.
    """
    shapes = jax.eval_shape(fun, *args)

    def never(*_: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    return jax.lax.cond(number >= 0, fun, never, *args)
