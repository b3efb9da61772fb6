"""The vocabulary every part of Modicum shares.

Shape letters used in annotations:

| letter | meaning |
|---|---|
| `i`, `o` | input and output features (or channels) of a layer |
| `h`, `w` | height and width of a convolution kernel or an image |
| `b` | batch: independent rows of a product |
| `k`, `n` | rows (contraction) and columns of a weight matrix |
| `f`, `m` | fragments of a crossbar column, and rows in a fragment |
| `c`, `s` | cells of a weight (bit slices), bits of an input |
| `p` | patterns in a library |
| `t` | time steps |
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jaxtyping import Array, PRNGKeyArray

Params = Any
"""Any pytree whose leaves are arrays: what an optimizer trains."""

Key = PRNGKeyArray


class Bytes(NamedTuple):
    """What a packed weight costs, in bytes, part by part."""

    payload: int
    """The values themselves."""
    index: int
    """What says where the values belong."""
    metadata: int
    """Scales, pattern libraries and other numbers kept once per array."""

    @property
    def total(self) -> int:
        """All three parts together."""
        return self.payload + self.index + self.metadata


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Packed:
    """A weight in compressed form: what its constraint's `encode` returns.

    A pytree whose leaves are the arrays, so that it can be traced, saved and baked
    into an exported module. Sub-byte numbers lie bit-packed in `uint8` arrays.

    Attributes:
        payload: arrays that hold the values.
        index: arrays that say where the values belong.
        metadata: arrays kept once per weight (scales, libraries).
        layout: name of the format, for reports.
        shape: shape of the decoded weight.
        dtype: name of the decoded weight's dtype.
        static: further numbers that `decode` needs, as pairs; hashable and JSON-able.
    """

    payload: Mapping[str, Array]
    index: Mapping[str, Array] = field(default_factory=dict)
    metadata: Mapping[str, Array] = field(default_factory=dict)
    layout: str = field(metadata={"static": True})
    shape: tuple[int, ...] = field(metadata={"static": True})
    dtype: str = field(metadata={"static": True})
    static: tuple[tuple[str, Any], ...] = field(default=(), metadata={"static": True})

    @property
    def nbytes(self) -> Bytes:
        """Exact size in bytes: payload, index and metadata apart."""

        def size(arrays: Mapping[str, Array]) -> int:
            return sum(int(array.size) * array.dtype.itemsize for array in arrays.values())

        return Bytes(size(self.payload), size(self.index), size(self.metadata))


@runtime_checkable
class Constraint(Protocol):
    """A set of weights. Members are frozen dataclasses of static numbers."""

    @property
    def exact(self) -> bool:
        """Whether `project` is proven to return the nearest point."""
        ...

    def fit(self, w: Array) -> "Constraint":
        """The same constraint with what it reads off the weights (a scale) frozen."""
        ...

    def project(self, w: Array) -> Array:
        """The nearest point of the set, in Euclidean distance."""
        ...

    def violation(self, w: Array) -> Array:
        """Relative distance `||w - project(w)|| / ||w||`; 0 certifies membership."""
        ...

    def gain(self, w: Array) -> Array:
        """`||w||^2 - ||w - project(w)||^2`: the energy the set keeps."""
        ...

    def chart(self, w: Array) -> tuple[Any, Any]:
        """Free coordinates `theta` of the projected point and `build(theta) -> weight`."""
        ...

    def encode(self, w: Array) -> Packed:
        """The compressed form of the projected point."""
        ...

    def decode(self, packed: Packed) -> Array:
        """The weight that was encoded, bit for bit; traceable."""
        ...


@runtime_checkable
class Product(Protocol):
    """What a site computes instead: `(key, weight, inputs) -> output` of the site's shape."""

    def __call__(self, key: Key, weight: Array, inputs: Array) -> Array:
        """The product on some device."""
        ...
