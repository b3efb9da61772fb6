"""Small constraint sets with known projections, and a problem to train, for the tests of admm."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from modicum.core import Packed


class _Member:
    exact = True

    def fit(self, w):
        return self

    def violation(self, w):
        w = w.astype(jnp.float32)
        projected, norm = self.project(w), jnp.linalg.norm(w)
        # equal is 0 even where the compiler fuses the projection's product into the difference
        return jnp.linalg.norm(jnp.where(w == projected, 0, w - projected)) / jnp.where(norm > 0, norm, 1)

    def gain(self, w):
        return jnp.sum(w**2) - jnp.sum((w - self.project(w)) ** 2)

    def chart(self, w):
        return w, self.project

    def encode(self, w):
        return Packed(payload={"values": self.project(w)}, layout="plain", shape=w.shape, dtype=str(w.dtype))

    def decode(self, packed):
        return packed.payload["values"]


def _masked(kept, theta):
    return jnp.where(kept, theta, 0)


def _rounded(grid, theta):  # straight-through: q + 0 keeps q bit for bit
    return jax.lax.stop_gradient(grid.project(theta)) + (theta - jax.lax.stop_gradient(theta))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Keep(_Member):
    """At most `k` weights are not 0; k may be traced."""

    k: Any

    def _kept(self, w):
        order = jnp.argsort(-jnp.abs(w.ravel().astype(jnp.float32)), stable=True)
        return (jnp.argsort(order) < self.k).reshape(w.shape)

    def relaxed(self, shape, share):
        return Keep(jnp.asarray(jnp.ceil(self.k + share * (math.prod(shape) - self.k)), jnp.int32))

    def project(self, w):
        return jnp.where(self._kept(w), w, 0)

    def chart(self, w):
        kept = self._kept(w)
        return w, jax.tree_util.Partial(_masked, kept)  # a pytree, like the builds of the library's own sets


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Grid(_Member):
    """Whole multiples of `step` up to `levels` of them either way; a step of None is read off the weight."""

    levels: int = dataclasses.field(metadata={"static": True})
    step: Any = None

    def fit(self, w):
        return (
            self if self.step is not None else Grid(self.levels, jnp.max(jnp.abs(w)).astype(jnp.float32) / self.levels)
        )

    def project(self, w):
        step = self.fit(w).step
        return (jnp.clip(jnp.round(w.astype(jnp.float32) / step), -self.levels, self.levels) * step).astype(w.dtype)

    def chart(self, w):
        return w, jax.tree_util.Partial(_rounded, self)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Box(_Member):
    """The convex set `low <= w <= high`."""

    low: Any
    high: Any

    def project(self, w):
        return jnp.clip(w, self.low, self.high)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Plane(_Member):
    """The convex set of weights whose sum is `total`."""

    total: Any

    def project(self, w):
        return w + (self.total - jnp.sum(w)) / w.size


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Columns(_Member):
    """At most `k` weights of each output (last axis) are not 0."""

    k: int = dataclasses.field(metadata={"static": True})

    def _kept(self, w):
        return jax.vmap(Keep(self.k)._kept, in_axes=-1, out_axes=-1)(w)

    def project(self, w):
        return jnp.where(self._kept(w), w, 0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Split(_Member):
    """An intersection held in consensus; its own projection goes from part to part, which ends in all of them."""

    parts: tuple

    exact = False

    def fit(self, w):
        return Split(tuple(part.fit(w) for part in self.parts))

    def project(self, w):
        for part in self.parts:
            w = part.project(w)
        return w

    def chart(self, w):
        kept = self.project(w) != 0
        return w, jax.tree_util.Partial(_masked, kept)


PARAMS = {
    "first": {"kernel": 0.5 * jax.random.normal(jax.random.key(0), (5, 8)), "bias": jnp.zeros(8)},
    "second": {"kernel": 0.5 * jax.random.normal(jax.random.key(1), (8, 2))},
}
_INPUTS = jax.random.normal(jax.random.key(2), (6, 16, 5))
BATCHES = (_INPUTS, jnp.stack([jnp.sin(_INPUTS[..., 0]), 0.5 * _INPUTS[..., 1]], axis=-1))
CONSTRAINTS = {"first": {"kernel": Keep(10), "bias": None}, "second": {"kernel": Grid(7)}}


def loss_fn(params, batch):
    """Squared error of a two-layer net on smooth targets."""
    inputs, targets = batch
    hidden = jnp.tanh(inputs @ params["first"]["kernel"] + params["first"]["bias"][None, :])
    return jnp.mean((hidden @ params["second"]["kernel"] - targets) ** 2)
