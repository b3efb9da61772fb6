"""Surrogate gradients whose derivative is a continuous curve."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from modicum.core import check
from modicum.spiking.surrogates import Fires


class _Smooth(Fires):
    """A derivative of too many values to be stored as a code."""

    @property
    def levels(self) -> None:
        """None."""


@dataclass(frozen=True)
class Triangular(_Smooth):
    """`height * max(0, 1 - |excess| / width)`.

    Args:
        width: half of the base, which is the full width at half of the height; in units of potential, above 0.
        height: in units of 1/potential, above 0; None is `1 / width`, for an area of 1. Bellec et al. take 0.3.

    Raises:
        ValueError: for a number that is not finite and above 0.

    Reference:
        Esser et al., "Convolutional networks for fast, energy-efficient neuromorphic computing", PNAS 2016; Bellec et
        al., "Long short-term memory and learning-to-learn in networks of spiking neurons", NeurIPS 2018.
    """

    width: float = 1.0
    height: float | None = None

    def __post_init__(self) -> None:
        check.finite_positive(width=self.width)
        if self.height is not None:
            check.finite_positive(height=self.height)

    def derivative(self, excess: Float[Array, " *n"]) -> Float[Array, " *n"]:
        """The triangle at that excess."""
        height = float(1 / self.width if self.height is None else self.height)
        return height * jnp.maximum(1 - jnp.abs(excess) / float(self.width), 0)


@dataclass(frozen=True)
class Sigmoid(_Smooth):
    """`slope * sigmoid(slope * excess) * sigmoid(-slope * excess)`, the derivative of the logistic function; area 1.

    Args:
        slope: in units of 1/potential, above 0; the height is a quarter of it.

    Raises:
        ValueError: for a number that is not finite and above 0.

    Reference:
        Neftci, Mostafa and Zenke 2019 (see `spike`); the default slope is SpikingJelly's.
    """

    slope: float = 4.0

    def __post_init__(self) -> None:
        check.finite_positive(slope=self.slope)

    def derivative(self, excess: Float[Array, " *n"]) -> Float[Array, " *n"]:
        """The bell at that excess."""
        # sigmoid(-z) rather than 1 - sigmoid(z), which cancels for large z
        scaled = float(self.slope) * excess
        return float(self.slope) * jax.nn.sigmoid(scaled) * jax.nn.sigmoid(-scaled)


@dataclass(frozen=True)
class Arctan(_Smooth):
    """`slope / 2 / (1 + (pi / 2 * slope * excess)^2)`, the derivative of an arctangent; area 1.

    Args:
        slope: in units of 1/potential, above 0; the height is half of it.

    Raises:
        ValueError: for a number that is not finite and above 0.

    Reference:
        Fang et al., "Incorporating learnable membrane time constant to enhance learning of spiking neural networks",
        ICCV 2021 (slope 2); SpikingJelly's `ATan`.
    """

    slope: float = 2.0

    def __post_init__(self) -> None:
        check.finite_positive(slope=self.slope)

    def derivative(self, excess: Float[Array, " *n"]) -> Float[Array, " *n"]:
        """The Cauchy curve at that excess."""
        scaled = float(jnp.pi / 2 * self.slope) * excess
        return float(self.slope) / 2 / (1 + scaled * scaled)


@dataclass(frozen=True)
class FastSigmoid(_Smooth):
    """`1 / (slope * |excess| + 1)^2`, the derivative of `x / (1 + slope |x|)`; height 1, area `2 / slope`.

    Args:
        slope: in units of 1/potential, above 0.

    Raises:
        ValueError: for a number that is not finite and above 0.

    Reference:
        Zenke and Ganguli, "SuperSpike: supervised learning in multilayer spiking neural networks", Neural Computation
        2018; the default slope is snnTorch's.
    """

    slope: float = 25.0

    def __post_init__(self) -> None:
        check.finite_positive(slope=self.slope)

    def derivative(self, excess: Float[Array, " *n"]) -> Float[Array, " *n"]:
        """The peak at that excess."""
        scaled = float(self.slope) * jnp.abs(excess) + 1
        return 1 / (scaled * scaled)


def superspike(slope: float = 100.0) -> FastSigmoid:
    """The surrogate of SuperSpike: a `FastSigmoid`, as steep as it is used under this name.

    Args:
        slope: in units of 1/potential, above 0.

    Returns:
        `FastSigmoid(slope)`: the literature has two names for one curve.

    Raises:
        ValueError: for a number that is not finite and above 0.

    Reference:
        Zenke and Ganguli 2018 (see `FastSigmoid`); 100 is the default of Norse and of Zenke's tutorial SpyTorch.
    """
    return FastSigmoid(slope)
