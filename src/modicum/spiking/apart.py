"""What keeps two computations apart that XLA would merge."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from modicum.core.backend import loops_on_device


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


def once(number: Any, fun: Callable[..., Any], *args: Any) -> Any:
    """`fun(*args)`, computed once and kept, whatever it costs to compute it again.

    XLA's CPU compiler fuses cheap functions into each of their readers, and then keeps the arguments of all of them:
    floats and whole states of every layer, where the results are codes of a byte. Accelerators run a branch at the
    price of a round trip to the host, so there the choice is left to the compiler.

    Args:
        number: of the step, not below 0, traced.
        fun: a pure function.
        args: its arguments.
    """
    return fun(*args) if loops_on_device() else apart(number, fun, *args)
