"""Fixed point in the ring of whole numbers mod 2^32, or of fewer bits: what secure sums add.

A float becomes `round(x 2^f)` in two's complement. Sums wrap nowhere, because the budget is checked when the
specification is built: as many clients as are named, each at the clip, stay below half of the ring.
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, UInt32

from modicum.core import check


@dataclass(frozen=True, kw_only=True)
class FixedPointSpec:
    """How floats become ring elements, with room for the sum.

    Args:
        clients: most vectors that are ever added up, at least 1.
        clip: values are clipped to `[-clip, clip]`, above 0; rounded down to a float32.
        fraction_bits: bits `f` after the point, from 0 to 30; the step is `2^-f`.
        ring_bits: bits `b` of the ring, from 8 to 32; elements lie in uint32 whatever it is, and fewer bits are fewer
            bytes once packed (`wire.pack`).

    Raises:
        ValueError: where `clients * round(clip * 2^f)` exceeds `2^(b - 1) - 1`, or the clip is below one step.

    Example:
        >>> FixedPointSpec(clients=100, clip=8.0, fraction_bits=20).capacity
        255
    """

    clients: int
    clip: float
    fraction_bits: int
    ring_bits: int = 32

    def __post_init__(self) -> None:
        check.integer(1, clients=self.clients)
        check.positive(clip=self.clip)
        check.integer(0, 30, fraction_bits=self.fraction_bits)
        check.integer(8, 32, ring_bits=self.ring_bits)
        if not self.step <= self.clip <= self.largest:
            raise ValueError(f"clip must lie from one step ({self.step}) to {self.largest}, got {self.clip!r}")
        if self.clients * self.limit > self.largest:
            raise ValueError(
                f"clients must be at most {self.capacity} for clip {self.clip} and fraction_bits "
                f"{self.fraction_bits}, or their sum may wrap around 2^{self.ring_bits}, got {self.clients}"
            )

    @property
    def largest(self) -> int:
        """Largest magnitude that a sum may reach, in steps: half of the ring, in two's complement."""
        return 2 ** (self.ring_bits - 1) - 1

    @property
    def step(self) -> float:
        """Distance between neighboring values, `2^-f`."""
        return 2.0**-self.fraction_bits

    @property
    def bound(self) -> float:
        """The clip as a float32 that does not exceed it, so that device and host clip at the same number."""
        nearest = np.float32(self.clip)
        return float(nearest if float(nearest) <= self.clip else np.nextafter(nearest, np.float32(0)))

    @property
    def limit(self) -> int:
        """Largest magnitude of one encoded value, in steps."""
        return round(self.bound / self.step)

    @property
    def capacity(self) -> int:
        """Most clients whose sum cannot wrap around with this clip and step."""
        return self.largest // max(self.limit, 1)


class Encoded(NamedTuple):
    """Ring elements and what could not be kept as it was."""

    ring: Any
    """Pytree of uint32 arrays in the shapes of the values."""
    clipped: Int[Array, ""]
    """How many values lay outside the clip (infinite ones too)."""
    non_finite: Int[Array, ""]
    """How many values were NaN or infinite; always 0 outside of `jit`, where they are refused."""


def encode(spec: FixedPointSpec, values: Any) -> Encoded:
    """Ring elements `round(clip(x) 2^f) mod 2^32`, halves to the even step.

    Nothing can be refused inside `jit`: there NaN becomes 0, an infinity the clip, and both are counted in
    `non_finite`, which the caller must look at before it sends anything.

    Args:
        spec: the fixed point.
        values: pytree of float arrays; shorter types than float32 are widened, float64 stays.

    Returns:
        Uint32 arrays of the same tree, the counts of clipped and of non-finite values as int32.

    Raises:
        ValueError: for leaves that are not floats, and for non-finite values outside of `jit`.

    Example:
        >>> spec = FixedPointSpec(clients=3, clip=2.0, fraction_bits=2)
        >>> encode(spec, jnp.array([0.25, -0.25, 9.0])).ring.tolist()
        [1, 4294967295, 8]
    """
    flat, tree = jax.tree_util.tree_flatten_with_path(values)
    ring, clipped, non_finite = [], jnp.int32(0), jnp.int32(0)
    for path, leaf in flat:
        name = f"values{jax.tree_util.keystr(path)}"
        x = jnp.asarray(leaf)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"{name} must be an array of floats, got dtype {x.dtype}")
        if not isinstance(x, jax.core.Tracer):
            check.finite(**{name: x})
        part = _encode(spec, x)
        ring.append(part.ring)
        clipped, non_finite = clipped + part.clipped, non_finite + part.non_finite
    return Encoded(jax.tree.unflatten(tree, ring), clipped, non_finite)


@functools.partial(jax.jit, static_argnums=0)
def _encode(spec: FixedPointSpec, x: Float[Array, " *shape"]) -> Encoded:
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    bound = jnp.asarray(spec.bound, x.dtype)
    numbers = jnp.where(jnp.isnan(x), jnp.zeros_like(x), x)
    steps = jnp.round(jnp.clip(numbers, -bound, bound) * jnp.asarray(1 / spec.step, x.dtype))
    # negative floats do not convert to unsigned integers in a defined way: through int32
    ring = lax.bitcast_convert_type(steps.astype(jnp.int32), jnp.uint32)
    return Encoded(
        ring,
        jnp.sum(jnp.abs(numbers) > bound, dtype=jnp.int32),
        jnp.sum(~jnp.isfinite(x), dtype=jnp.int32),
    )


def ring_sum(stacked: Any) -> Any:
    """Sum over the first axis of each leaf, mod 2^32.

    Args:
        stacked: pytree of uint32 arrays, one row per client.

    Returns:
        The same tree without the first axis, uint32 with x64 on too, where a plain sum would be uint64.
    """
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0, dtype=jnp.uint32), stacked)


def decode(spec: FixedPointSpec, ring: Any) -> Any:
    """The float32 numbers nearest to what ring elements, or a sum of them, stand for.

    Exact for magnitudes up to 2^24 steps, rounded to float32 beyond; `decode_exact` rounds nothing.

    Args:
        spec: the fixed point.
        ring: pytree of uint32 arrays; sums of at most `spec.clients` encoded values.
    """
    unused = jnp.uint32(32 - spec.ring_bits)

    def one(leaf: UInt32[Array, " *shape"]) -> Float[Array, " *shape"]:
        # the sign bit of the ring moves to that of int32 and back, which fills the bits above it
        signed = lax.bitcast_convert_type(leaf << unused, jnp.int32) >> unused.astype(jnp.int32)
        return signed.astype(jnp.float32) * jnp.float32(spec.step)

    return jax.tree.map(lambda leaf: one(jnp.asarray(leaf)), ring)


def decode_exact(spec: FixedPointSpec, ring: Any) -> Any:
    """What ring elements stand for, exactly: NumPy float64 on the host, where `decode` may have to round.

    Args:
        spec: the fixed point.
        ring: pytree of concrete uint32 arrays.
    """
    unused = 32 - spec.ring_bits

    def one(leaf: Any) -> np.ndarray:
        signed = (np.asarray(leaf, np.uint32) << np.uint32(unused)).view(np.int32) >> np.int32(unused)
        return signed.astype(np.float64) * spec.step

    return jax.tree.map(one, ring)
