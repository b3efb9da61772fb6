"""Surrogate gradients: a step that fires, with a finite slope in place of its true derivative."""

import functools
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, UInt8

from modicum.core import check


@runtime_checkable
class Surrogate(Protocol):
    """A step function and what stands in for its derivative. Members are frozen, hashable dataclasses of numbers."""

    @property
    def levels(self) -> int | None:
        """Number of values `derivative` can take, None if they are too many to be stored as a code."""
        ...

    def derivative(self, excess: Array) -> Array:
        """The pseudo-derivative at `excess = potential - threshold`, elementwise, in units of 1/potential."""
        ...

    def __call__(self, excess: Array) -> Array:
        """Spikes: 1 where `excess >= 0`, else 0."""
        ...


@runtime_checkable
class LeveledSurrogate(Surrogate, Protocol):
    """A surrogate of at most 128 levels: beside a spike's bit, its derivative fits into one byte."""

    @property
    def levels(self) -> int:
        """Number of values `derivative` can take."""
        ...

    def code(self, excess: Array) -> Array:
        """Which level the derivative has, as uint8 below `levels`."""
        ...

    def decode(self, code: Array, dtype: DTypeLike = jnp.float32) -> Array:
        """The derivative of that level, bit for bit what `derivative` returns in that dtype."""
        ...


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def spike(surrogate: Surrogate, excess: Float[Array, " *n"]) -> Float[Array, " *n"]:
    """The step `1 if excess >= 0 else 0`, differentiated as `surrogate.derivative`.

    Args:
        surrogate: whose derivative to use; a static argument.
        excess: potential over threshold, in units of potential. NaN gives 0.

    Returns:
        Spikes, in the dtype of `excess`.

    Reference:
        Neftci, Mostafa and Zenke, "Surrogate gradient learning in spiking neural networks", IEEE Signal Processing
        Magazine 2019.
    """
    del surrogate
    return (excess >= 0).astype(excess.dtype)


@spike.defjvp
def _spike_jvp(surrogate: Surrogate, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (excess,), (tangent,) = primals, tangents
    return spike(surrogate, excess), surrogate.derivative(excess) * tangent


class Fires:
    """What every surrogate of ours does when called."""

    def __call__(self: Any, excess: Float[Array, " *n"]) -> Float[Array, " *n"]:
        """Spikes."""
        return spike(self, excess)


@dataclass(frozen=True)
class Boxcar(Fires):
    """`height` where `|excess| <= width / 2`, else 0: two values, so that one bit stores the derivative.

    Args:
        width: of the whole window, in units of potential, above 0. A power of two makes the default height one as
            well, and products with it exact.
        height: in units of 1/potential, above 0; None is `1 / width`, which makes the area 1, the height of the step.

    Raises:
        ValueError: for a number that is not finite and above 0.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> excess = jnp.array([-2.0, -0.5, 0.0, 0.5])
        >>> Boxcar(width=2.0)(excess).tolist()
        [0.0, 0.0, 1.0, 1.0]
        >>> jax.grad(lambda x: Boxcar(width=2.0)(x).sum())(excess).tolist()
        [0.0, 0.5, 0.5, 0.5]

    Reference:
        Wu et al., "Spatio-temporal backpropagation for training high-performance spiking neural networks", Frontiers
        in Neuroscience 2018 (the rectangular `h_1`).
    """

    width: float = 1.0
    height: float | None = None

    def __post_init__(self) -> None:
        check.finite_positive(width=self.width)
        if self.height is not None:
            check.finite_positive(height=self.height)

    @property
    def levels(self) -> int:
        """Inside and outside."""
        return 2

    def code(self, excess: Float[Array, " *n"]) -> UInt8[Array, " *n"]:
        """1 inside, 0 outside."""
        return (jnp.abs(excess) <= float(self.width) / 2).astype(jnp.uint8)

    def decode(self, code: UInt8[Array, " *n"], dtype: DTypeLike = jnp.float32) -> Float[Array, " *n"]:
        """`height` for 1, 0 for 0."""
        height = 1 / self.width if self.height is None else self.height
        return jnp.where(code > 0, jnp.asarray(height, dtype), jnp.asarray(0, dtype))

    def derivative(self, excess: Float[Array, " *n"]) -> Float[Array, " *n"]:
        """`height` inside the window, 0 outside."""
        return self.decode(self.code(excess), excess.dtype)


DEFAULT = Boxcar()
"""What neurons use unless told otherwise: window and height 1, exact in any product, one bit to store."""


@dataclass(frozen=True)
class Staircase(Fires):
    """The triangle rounded to few levels: a derivative of `ceil(log2(levels))` bits that still falls off gradually.

    `height` times the number nearest to `max(0, 1 - |excess| / width)` among 0 and the powers of two
    `2^-(levels - 2), ..., 1/2, 1`, a tie going to the larger: windows of growing width and halving height. Two levels
    are `Boxcar(width)`. The area is that of the triangle, `width * height`, for any number of levels. The spikes stay
    binary; it is the derivative that is quantized, and to powers of two because products with these are exact: a
    gradient does not depend on which product a compiler fuses with which sum.

    Args:
        levels: values of the derivative, 0 among them, from 2 to 8 (3 bits).
        width: half of the base, which is the full width at half of the height; in units of potential, above 0.
        height: in units of 1/potential, above 0; None is `1 / width`, for an area of 1.

    Raises:
        ValueError: for a number out of its range.

    Example:
        >>> import jax.numpy as jnp
        >>> Staircase(levels=4).derivative(jnp.array([0.25, 0.5, 0.75, 1.0])).tolist()
        [1.0, 0.5, 0.25, 0.0]

    Reference:
        This project; the triangle is that of Esser et al. (see `Triangular`).
    """

    levels: int = 4
    width: float = 1.0
    height: float | None = None

    def __post_init__(self) -> None:
        check.integer(2, 8, levels=self.levels)
        check.finite_positive(width=self.width)
        if self.height is not None:
            check.finite_positive(height=self.height)

    def _windows(self) -> list[float]:
        """Half widths, the narrowest first: where the triangle passes the middle of two neighboring levels."""
        middles = [0.75 * 2.0**-j for j in range(self.levels - 2)] + [0.5 * 2.0 ** (2 - self.levels)]
        return [float(self.width) * (1 - middle) for middle in middles]

    def code(self, excess: Float[Array, " *n"]) -> UInt8[Array, " *n"]:
        """How many windows hold the excess."""
        distance = jnp.abs(excess)
        return functools.reduce(jnp.add, [(distance <= half).astype(jnp.uint8) for half in self._windows()])

    def decode(self, code: UInt8[Array, " *n"], dtype: DTypeLike = jnp.float32) -> Float[Array, " *n"]:
        """0 for 0, `height` for `levels - 1`, and half of it for each level less."""
        height = 1 / self.width if self.height is None else self.height
        derivative = jnp.zeros(code.shape, dtype)
        for level in range(1, self.levels):
            value = jnp.asarray(height * 2.0 ** (level + 1 - self.levels), dtype)
            derivative = jnp.where(code == level, value, derivative)
        return derivative

    def derivative(self, excess: Float[Array, " *n"]) -> Float[Array, " *n"]:
        """The height of the stair at that excess."""
        return self.decode(self.code(excess), excess.dtype)
