"""What the sets outside the tree have in common: blocks, unification, splits."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from modicum.constraints import base, payload
from modicum.constraints.grid import Grid, dequantize
from modicum.constraints.levels import Levels
from modicum.core import Packed, check


class Direct:
    """The methods that follow from a set's own `check`, `nearest` and `unpack`.

    A subclass is a frozen dataclass and a pytree, as a `Member` is, but no part of a tree of groups: it brings its
    own projection, chart and packed form.
    """

    @property
    def layout(self) -> str:
        """Name of the packed format."""
        raise NotImplementedError

    def check(self, shape: tuple[int, ...]) -> None:
        """Whether weights of that shape can lie in the set; raises a `ValueError` where not."""
        raise NotImplementedError

    def nearest(self, w: Array) -> Array:
        """The projection of a weight that was checked."""
        raise NotImplementedError

    def unpack(self, packed: Packed) -> Array:
        """The weight of packed arrays in this set's layout."""
        raise NotImplementedError

    def nested(self, others: list[Any]) -> Any:
        """This set intersected with others; what `nest` calls.

        Raises:
            ValueError: if they do not nest.
        """
        raise ValueError(f"nest takes no {type(self).__name__} among several sets, got {others!r}")

    def ready(self, w: Array) -> None:
        """Checks shape and, where it is concrete, content of a weight.

        Raises:
            ValueError: if the shape does not fit the set, or a concrete `w` holds NaN or infinity.
        """
        check_size(w.shape)
        self.check(tuple(w.shape))
        if base.is_concrete(w):
            check.finite(w=w.astype(jnp.float32))

    def project(self, w: Float[Array, " *shape"]) -> Float[Array, " *shape"]:
        """A point of the set near `w`, the nearest where `exact`; float32 inside, ties to the lower index.

        Raises:
            ValueError: if the shape does not fit the set, or a concrete `w` holds NaN or infinity.
        """
        self.ready(w)
        return self.nearest(w)

    def violation(self, w: Float[Array, " ..."]) -> Float[Array, ""]:
        """Relative distance `||w - project(w)|| / ||w||`; exactly 0 for a member of the set, and for it alone."""
        return base.relative_distance(w, self.project(w))

    def gain(self, w: Float[Array, " ..."]) -> Float[Array, ""]:
        """Energy the projection keeps, `||w||^2 - ||w - project(w)||^2`."""
        return base.kept_energy(w, self.project(w))

    def decode(self, packed: Packed) -> Array:
        """The weight that was encoded, bit for bit; gathers only, so that it can run inside an exported module.

        Raises:
            ValueError: if `packed` has another layout than this set writes.
        """
        if packed.layout != self.layout:
            raise ValueError(f"packed must have layout {self.layout!r}, got {packed.layout!r}")
        return self.unpack(packed)


def check_size(shape: tuple[int, ...]) -> None:
    """Whether a weight has elements at all."""
    if not shape or 0 in shape:
        raise ValueError(f"w must have at least one axis and one element, got shape {tuple(shape)}")


def grid_of(levels: Levels) -> Grid:
    """The grid of levels, which never lacks."""
    grid = levels.plan.grid
    assert grid is not None
    return grid


def on_grid(x: Array, levels: Levels | None, dtype: Any) -> Array:
    """The nearest level of each float32 number; the number itself where there are no levels."""
    return x if levels is None else grid_of(levels).round(x, levels.scale, dtype)


def pack_values(values: Array, levels: Levels | None, dtype: Any, unsigned: bool = False) -> Array:
    """Float32 numbers of the set as a payload; `unsigned` ones without their sign bits."""
    if levels is None:
        return payload.pack_values(None, unsigned, values, dtype)
    grid = grid_of(levels)
    return payload.pack_values(grid, unsigned, grid.quantize(values, levels.scale), dtype)


def unpack_values(packed: Packed, name: str, count: int, unsigned: bool = False) -> Array:
    """Inverse of `pack_values`: `count` float32 numbers of the payload `name`."""
    numbers = dict(packed.static)["grid"]
    grid = Grid(*numbers) if numbers else None
    values = payload.unpack_values(grid, unsigned, packed.payload[name], count, packed.dtype)
    return values if grid is None else dequantize(values, packed.metadata["scale"], packed.dtype)


def static_grid(levels: Levels | None) -> tuple[str, tuple[Any, ...]]:
    """The grid as what `decode` must know: a pair of `Packed.static`; nothing for floats."""
    return "grid", () if levels is None else tuple(grid_of(levels))


def scale_metadata(levels: Levels | None) -> dict[str, Array]:
    """The scale as one float32, where there are levels."""
    return {} if levels is None else {"scale": jnp.asarray(levels.scale, jnp.float32)}


def check_levels(levels: Levels | None, shape: tuple[int, ...]) -> None:
    """Whether the scale of the levels, if they are given, is a number above 0."""
    if levels is not None:
        levels.check(shape)


def only_levels(name: str, has: Levels | None, others: list[Any]) -> Levels:
    """The one `Levels` among the others a set nests with.

    Raises:
        ValueError: if there are other sets, or a second grid.
    """
    for other in others:
        if not isinstance(other, Levels):
            raise ValueError(f"{name} nests with Levels only, because its groups cross those of others, got {other!r}")
    if len(others) + (has is not None) != 1:
        raise ValueError(f"nest takes each kind of set once, got {', '.join([name, *['Levels'] * (len(others) + 1)])}")
    return others[0]


def kept(mask: Bool[Array, " *shape"], value: Float[Array, " *shape"]) -> Float[Array, " *shape"]:
    """The values where the mask holds; zeros are positive."""
    return jnp.where(mask & (value != 0), value, jnp.zeros_like(value))


def fitted_levels(levels: Levels, free: Any, w: Array) -> Levels:
    """Levels with a scale for the weights another set keeps; see `member._fitted`."""
    return levels.fit(jax.lax.stop_gradient(free.project(w)))
