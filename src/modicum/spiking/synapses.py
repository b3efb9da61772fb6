"""Synapses: what turns the spikes of one layer into the currents of the next, with gradients that are fast in loops.

A synapse is a frozen dataclass with

- `init(key, shape) -> params` for incoming spikes of `shape` (without the batch axis),
- `prepare(params) -> weights`, done once for all time steps (rounding to a grid, standardization),
- `__call__(weights, spikes) -> current`, a plain JAX function, so that `core.rewrite` and `analog.simulate` see it,
- optionally `pull(weights, spikes, current_cotangent, spikes_needed) -> (weights_cotangent, spikes_cotangent)`.

Any other function `(weights, spikes) -> current` will do in a `Layer`, too; JAX then differentiates it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from modicum.core import Key, check
from modicum.spiking.convolutions import computed_after, convolved, crossed, crossed_cotangents, kernel_cotangent
from modicum.spiking.grid import dyadic

Synapse = Callable[[Any, Array], Array]
Weights = Any


def pooled(spikes: Float[Array, " b *hw i"], pool: int) -> Float[Array, " b *pq i"]:
    """Means over windows of `pool x pool`; exact for whole spikes where `pool` is a power of two."""
    if pool == 1:
        return spikes
    batch, height, width, channels = spikes.shape
    windows = spikes.reshape(batch, height // pool, pool, width // pool, pool, channels)
    return windows.sum((2, 4)) * (1 / pool**2)


def _unpooled(cotangent: Array, pool: int) -> Array:
    if pool == 1:
        return cotangent
    batch, height, width, channels = cotangent.shape
    spread = (cotangent * (1 / pool**2))[:, :, None, :, None, :]
    return jnp.broadcast_to(spread, (batch, height, pool, width, pool, channels)).reshape(
        batch, height * pool, width * pool, channels
    )


def _initial(key: Key, shape: tuple[int, ...], gain: float) -> Array:
    fan_in = math.prod(shape[:-1])
    return gain * jax.random.normal(key, shape) / math.sqrt(fan_in)


def _standardized(kernel: Array, gain: Array) -> Array:
    """Weights of zero mean and variance `gain^2 / fan_in` into each output (Brock et al., NF-nets, 2021, eq. 1)."""
    axes = tuple(range(kernel.ndim - 1))
    fan_in = math.prod(kernel.shape[:-1])
    centered = kernel - kernel.mean(axes, keepdims=True)
    scale = lax.rsqrt(jnp.mean(centered**2, axes, keepdims=True) * fan_in + 1e-8)
    return centered * scale * gain.reshape((1,) * len(axes) + (-1,))


@dataclass(frozen=True, kw_only=True)
class _Linear:
    """What `Convolution` and `Dense` share: settings and the weights made of the parameters."""

    features: int
    pool: int = 1
    bias: bool = False
    standardize: bool = False
    grid_bits: int | None = None
    gain: float = 1.0

    def __post_init__(self) -> None:
        check.integer(1, features=self.features, pool=self.pool)
        check.positive(gain=self.gain)
        if self.grid_bits is not None:
            check.integer(0, 23, grid_bits=self.grid_bits)

    @property
    def _precision(self) -> lax.Precision | None:
        """All of float32 where sums are to be exact.

        GPUs and TPUs would else round the weights to fewer bits, in one pass perhaps and not in the other: which
        algorithm computes a convolution is found by trial.
        """
        return None if self.grid_bits is None else lax.Precision.HIGHEST

    def _params(self, key: Key, kernel_shape: tuple[int, ...]) -> dict[str, Array]:
        params = {"kernel": _initial(key, kernel_shape, self.gain)}
        if self.standardize:
            params["gain"] = jnp.full((self.features,), self.gain, jnp.float32)
        if self.bias:
            params["bias"] = jnp.zeros((self.features,))
        return params

    def prepare(self, params: dict[str, Array]) -> dict[str, Array]:
        """The weights that all time steps use: standardized and rounded, where the synapse does so."""
        weights = {name: value for name, value in params.items() if name != "gain"}
        if self.standardize:
            weights["kernel"] = _standardized(params["kernel"], params["gain"])
        if self.grid_bits is not None:
            weights = {name: dyadic(value, self.grid_bits) for name, value in weights.items()}
        return weights


def _biased(weights: dict[str, Array], current: Array) -> Array:
    if "bias" not in weights:
        return current
    return current + weights["bias"].reshape((1,) * (current.ndim - 1) + (-1,))


def _with_bias(weights: dict[str, Array], kernel: Array, cotangent: Array) -> dict[str, Array]:
    if "bias" not in weights:
        return {"kernel": kernel}
    return {"kernel": kernel, "bias": cotangent.sum(tuple(range(cotangent.ndim - 1)))}


@dataclass(frozen=True, kw_only=True)
class Convolution(_Linear):
    """A convolution of NHWC spikes, stride 1, padded so that the image keeps its size; pooled before, if asked.

    Its derivatives are a forward convolution and one product for each tap of the kernel: XLA's own gradients of a
    convolution run over ten times slower inside a loop on CPUs (`scripts/bench/spiking.py operators`).

    Attributes:
        features: output channels.
        pool: side of the windows whose mean is taken first; 1 for none.
        bias: whether a constant current is added.
        standardize: whether kernels are standardized to zero mean and a trained gain.
        grid_bits: round the weights to multiples of `2**-grid_bits` (`dyadic`), or None.
        gain: initial standard deviation of a weight times the square root of its fan-in.
        kernel: side of the kernel, odd.
    """

    kernel: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check.integer(1, kernel=self.kernel)
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {self.kernel}")

    def init(self, key: Key, shape: tuple[int, ...]) -> dict[str, Array]:
        """Parameters for incoming images of `shape` (height, width, channels).

        Raises:
            ValueError: if `shape` is no image, or not a multiple of `pool`.
        """
        if len(shape) != 3:
            raise ValueError(f"shape must be (height, width, channels) before a Convolution, got {shape}")
        check.divides(self.pool, height=shape[0], width=shape[1])
        return self._params(key, (self.kernel, self.kernel, shape[-1], self.features))

    def __call__(self, weights: dict[str, Array], spikes: Float[Array, " b h w i"]) -> Float[Array, " b p q o"]:
        """The current, `(b, h / pool, w / pool, features)`."""
        return _biased(weights, convolved(pooled(spikes, self.pool), weights["kernel"], self._precision))

    def pull(
        self, weights: dict[str, Array], spikes: Array, cotangent: Array, spikes_needed: bool = True
    ) -> tuple[dict[str, Array], Array | None]:
        """The vector-Jacobian product, of the same bits wherever it is computed."""
        images = computed_after(cotangent, pooled(spikes, self.pool))
        if crossed(images, cotangent, self.kernel):
            kernel, back = crossed_cotangents(images, cotangent, weights["kernel"], spikes_needed)
        else:
            kernel = kernel_cotangent(images, cotangent, self.kernel)
            # the transpose of a stride-1 convolution is a convolution with the kernel turned around
            turned = computed_after(kernel, weights["kernel"])[::-1, ::-1].swapaxes(2, 3)
            back = convolved(cotangent, turned) if spikes_needed else None
        return _with_bias(weights, kernel, cotangent), None if back is None else _unpooled(back, self.pool)


@dataclass(frozen=True, kw_only=True)
class Dense(_Linear):
    """A matrix product; whatever axes follow the batch are flattened, images pooled first, if asked.

    Attributes:
        features: outputs.
        pool: side of the windows whose mean is taken first, for images; 1 for none.
        bias: whether a constant current is added.
        standardize: whether the columns are standardized to zero mean and a trained gain.
        grid_bits: round the weights to multiples of `2**-grid_bits` (`dyadic`), or None.
        gain: initial standard deviation of a weight times the square root of its fan-in.
    """

    def init(self, key: Key, shape: tuple[int, ...]) -> dict[str, Array]:
        """Parameters for incoming spikes of `shape`.

        Raises:
            ValueError: if images are not a multiple of `pool`, or `pool` is asked of something else.
        """
        if self.pool > 1:
            check.integer(3, 3, axes=len(shape))
            check.divides(self.pool, height=shape[0], width=shape[1])
            shape = (shape[0] // self.pool, shape[1] // self.pool, shape[2])
        return self._params(key, (math.prod(shape), self.features))

    def __call__(self, weights: dict[str, Array], spikes: Float[Array, " b *shape"]) -> Float[Array, " b o"]:
        """The current, `(b, features)`."""
        flat = pooled(spikes, self.pool).reshape(len(spikes), -1)
        return _biased(weights, jnp.matmul(flat, weights["kernel"], precision=self._precision))

    def pull(
        self, weights: dict[str, Array], spikes: Array, cotangent: Array, spikes_needed: bool = True
    ) -> tuple[dict[str, Array], Array | None]:
        """The vector-Jacobian product, of the same bits wherever it is computed."""
        small = pooled(spikes, self.pool)
        kernel = small.reshape(len(spikes), -1).T @ cotangent
        params = _with_bias(weights, kernel, cotangent)
        if not spikes_needed:
            return params, None
        back = cotangent @ computed_after(kernel, weights["kernel"]).T
        return params, _unpooled(back.reshape(small.shape), self.pool)


@dataclass(frozen=True)
class WithoutPull:
    """A synapse without its own derivative: JAX finds that of whatever computes the current instead, of a chip, say.

    Attributes:
        synapse: with `init`, and with a `pull` that is not used.
    """

    synapse: Any

    def init(self, key: Key, shape: tuple[int, ...]) -> Any:
        """Its parameters."""
        return self.synapse.init(key, shape)

    def prepare(self, params: Any) -> Weights:
        """Its weights."""
        return self.synapse.prepare(params)

    def __call__(self, weights: Weights, spikes: Array) -> Array:
        """Its current."""
        return self.synapse(weights, spikes)


def differentiable(synapse: Synapse) -> Synapse:
    """The synapse with its own `pull` as its derivative, where it has one."""
    if not hasattr(synapse, "pull"):
        return synapse
    able: Any = synapse
    fun = jax.custom_vjp(lambda weights, spikes: able(weights, spikes))
    fun.defvjp(
        lambda weights, spikes: (able(weights, spikes), (weights, spikes)),
        lambda kept, cotangent: able.pull(*kept, cotangent),
    )
    return fun
