"""Two small constraints that stand on the protocol alone: `mobile` must not depend on the library's members."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from modicum.core import Packed


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Grid:
    """Weights `scale * integer`, 8 bits each."""

    scale: float
    exact = True

    def fit(self, w):
        return self

    def codes(self, w):
        return jnp.clip(jnp.round(w / self.scale), -127, 127).astype(jnp.int8)

    def project(self, w):
        return self.codes(w).astype(jnp.float32) * jnp.float32(self.scale)

    def violation(self, w):
        return jnp.linalg.norm(w - self.project(w)) / jnp.maximum(jnp.linalg.norm(w), 1e-30)

    def gain(self, w):
        return jnp.sum(w**2) - jnp.sum((w - self.project(w)) ** 2)

    def chart(self, w):
        return self.project(w), self.project

    def encode(self, w):
        return Packed(
            payload={"codes": self.codes(w)},
            metadata={"scale": jnp.float32(self.scale)},
            layout="grid8",
            shape=w.shape,
            dtype="float32",
        )

    def decode(self, packed):
        return packed.payload["codes"].astype(jnp.float32) * packed.metadata["scale"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Largest:
    """The `k` largest entries: their values, and one bit per position."""

    k: int = field(metadata={"static": True})
    exact = True

    def fit(self, w):
        return self

    def project(self, w):
        rank = jnp.argsort(jnp.argsort(-jnp.abs(w).reshape(-1), stable=True), stable=True)
        return jnp.where((rank < self.k).reshape(w.shape), w, jnp.zeros_like(w))

    def violation(self, w):
        return jnp.linalg.norm(w - self.project(w)) / jnp.maximum(jnp.linalg.norm(w), 1e-30)

    def gain(self, w):
        return jnp.sum(self.project(w) ** 2)

    def chart(self, w):
        return self.project(w), self.project

    def encode(self, w):
        flat = np.asarray(self.project(w)).reshape(-1)
        kept = np.sort(np.argsort(-np.abs(flat), kind="stable")[: self.k])
        return Packed(
            payload={"values": jnp.asarray(flat[kept])},
            index={"mask": jnp.asarray(np.packbits(np.isin(np.arange(flat.size), kept)))},
            layout="bitmask",
            shape=w.shape,
            dtype=w.dtype.name,
            static=(("k", self.k), ("order", ("row", "major"))),
        )

    def decode(self, packed):
        size = int(np.prod(packed.shape))
        # not jnp.unpackbits: IREE 3.13 refuses the reversed uint8 range inside it
        shifts = jnp.arange(8, dtype=jnp.int32)[None]
        mask = (packed.index["mask"].astype(jnp.int32)[:, None] >> (7 - shifts) & 1).reshape(-1)[:size]
        place = jnp.clip(jnp.cumsum(mask) - 1, 0, self.k - 1)
        values = packed.payload["values"]
        return jnp.where(mask == 1, values[place], jnp.zeros((), values.dtype)).reshape(packed.shape)


def projected(params, rules):
    """`(params in their sets, constraints tree)` for constraints chosen by a function of path and leaf."""
    constraints = jax.tree_util.tree_map_with_path(
        lambda path, w: rules(jax.tree_util.keystr(path, simple=True, separator="/"), w), params
    )
    leaves, structure = jax.tree.flatten(params)
    chosen = structure.flatten_up_to(constraints)
    members = [w if c is None else c.project(w) for w, c in zip(leaves, chosen, strict=True)]
    return jax.tree.unflatten(structure, members), constraints


def kernels(path, w):
    """The largest half of a matrix as a bitmask, everything with more axes on the grid, vectors dense."""
    if w.ndim == 2:
        return Largest(k=w.size // 2)
    return Grid(scale=2.0**-6) if w.ndim > 2 else None
