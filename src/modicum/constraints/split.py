"""Intersections that do not nest: one copy per set in ADMM, a search for a near point outside it."""

import functools
import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from modicum.constraints import base, direct, packing, payload
from modicum.constraints.base import Traceable
from modicum.constraints.blocks import BlockColumnRow
from modicum.constraints.chart import Box
from modicum.constraints.grid import Grid, dequantize
from modicum.constraints.levels import Levels
from modicum.constraints.member import Member
from modicum.constraints.unify import Unified
from modicum.core import Packed

_STEPS, _FIRST_RHO, _GROWTH = 12, 0.1, 1.5
_FAINT = 2.0**-12  # weight of what others exclude, enough to settle ties
_DISCOUNTS = (0.3, 0.2, 0.1, _FAINT, _FAINT, _FAINT)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Split(direct.Direct):
    """An intersection of sets whose groups cross; made by `split`.

    ADMM gives each part a copy of its own, and the copies meet. `project` returns a point of the intersection: the
    nearest among the parts applied one after the other and what a fixed number of consensus steps and turns finds. It
    is never further away than one part after the other, and not proven to be the nearest.

    Attributes:
        parts: the sets; each stays a set when elements of its members become zero.
    """

    parts: tuple[Any, ...]

    exact = False

    @property
    def layout(self) -> str:
        """Name of the packed format."""
        return "sparse" if all(_grid(part)[0] is None for part in self.parts) else "sparse+levels"

    def check(self, shape: tuple[int, ...]) -> None:
        """Whether weights of that shape can lie in every part.

        Raises:
            ValueError: naming what does not fit.
        """
        for part in self.parts:
            part.check(shape)

    def fit(self, w: Float[Array, " ..."]) -> "Split":
        """The same parts with what they read off the weights frozen: a scale off those that the others keep."""
        if not any(map(_unread, self.parts)):
            self.check(w.shape)
            return self
        fitted, left = {}, w
        for at in _order(self):
            part = self.parts[at]
            fitted[at] = part.fit(w if _grid(part)[0] is None else left)
            left = fitted[at].project(left)
        return Split(tuple(fitted[at] for at in range(len(self.parts))))

    def relaxed(self, shape: tuple[int, ...], share: Traceable) -> "Split":
        """All parts on the way there.

        Args:
            shape: of the weight.
            share: from 0 to 1; may be traced.
        """
        return Split(tuple(part.relaxed(shape, share) for part in self.parts))

    def nearest(self, w: Array) -> Array:
        """A near point of the intersection."""
        return _search(self.fit(w), w)

    def violations(self, w: Float[Array, " ..."]) -> Float[Array, " parts"]:
        """The violation of each part: all 0 certify a member of the intersection."""
        return jnp.stack([part.violation(w) for part in self.parts])

    def chart(self, w: Float[Array, " *shape"]) -> tuple[Float[Array, " *shape"], Box]:
        """Free coordinates of the projected point: what all parts leave free; see `Member.chart`."""
        self.ready(w)
        fitted = self.fit(w)
        p = _search(fitted, w)
        boxes = [part.chart(p)[1] for part in fitted.parts]
        box = next((box for box in boxes if box.grid is not None), boxes[0])
        low = functools.reduce(jnp.maximum, [each.low for each in boxes])
        high = functools.reduce(jnp.minimum, [each.high for each in boxes])
        return p.astype(jnp.float32), replace(box, low=low, high=high)

    def encode(self, w: Float[Array, " ..."]) -> Packed:
        """`project(w)` as its non-zeros and their places: payload `values`, index `places`, metadata `scale`.

        Places are a list or a bitmap, whichever is smaller. The number of non-zeros is that of the weight where it
        is concrete, else the largest that the parts allow.

        Raises:
            ValueError: if the shape does not fit.
        """
        self.ready(w)
        fitted = self.fit(w)
        p = _search(fitted, w)
        places = max(int(jnp.sum(p != 0)), 1) if base.is_concrete(p) else _capacity(self, w.shape)
        return _encode(fitted, p, places, self.layout)

    def unpack(self, packed: Packed) -> Array:
        """The weight of packed arrays."""
        return _decode(packed)


def split(*constraints: Any) -> Any:
    """The intersection of sets that do not nest: N:M along the inputs with patterns in the window, for instance.

    Args:
        *constraints: sets of the library or nests of them, or splits; all but `Unified`, and one with levels at most.

    Returns:
        A constraint whose `parts` are the sets; the argument itself where there is one only.

    Raises:
        ValueError: for anything else.

    Example:
        >>> from modicum.constraints import Polarized, TopK
        >>> both = split(TopK(2), Polarized(2))
        >>> both.project(jnp.array([[3.0], [-2.0], [1.0]])).T.tolist()
        [[3.0, 0.0, 1.0]]

    Reference:
        PatDNN's ADMM has two splits, patterns and connectivity; consensus ADMM (Boyd et al. 2011, section 7).
    """
    parts = tuple(part for each in constraints for part in (each.parts if isinstance(each, Split) else (each,)))
    if not parts:
        raise ValueError("split must be given at least one constraint, got none")
    for part in parts:
        if isinstance(part, Unified):
            raise ValueError(
                f"split takes sets whose members may lose elements, but a unified block with one zero must be all "
                f"zero, so the search may end outside the intersection, got {part!r}"
            )
        if not isinstance(part, Member | BlockColumnRow):
            raise ValueError(f"split takes constraints of this library, got {part!r}")
    if sum(_grid(part)[0] is not None for part in parts) > 1:
        raise ValueError(f"split takes one set with levels at most, because two grids share little, got {parts!r}")
    return parts[0] if len(parts) == 1 else Split(parts)


def _grid(part: Any) -> tuple[Grid | None, Traceable | None]:
    """Grid and scale of a part."""
    if isinstance(part, BlockColumnRow):
        return (None, None) if part.levels is None else _grid(part.levels)
    return part.plan.grid, part.plan.scale


def _unread(part: Any) -> bool:
    """Whether a part has something to read off the weights."""
    if isinstance(part, BlockColumnRow):
        return part.levels is not None and part.levels.scale is None
    return part.plan.unread


def _order(split: Split) -> list[int]:
    """The parts as they are applied one after the other: the one with levels last."""
    return sorted(range(len(split.parts)), key=lambda at: _grid(split.parts[at])[0] is not None)


class _Search(NamedTuple):
    """A weight and the sets it must meet, in the order they are applied."""

    order: tuple[Any, ...]
    w: Array

    def through(self, x: Array) -> Array:
        """The parts one after the other: from any point into all of them, as each only zeroes or rounds."""
        return functools.reduce(lambda x, part: part.project(x), self.order, x)

    def nearer(self, best: tuple[Array, Array], p: Array) -> tuple[Array, Array]:
        """The nearer of two points, the first unless the second gains; each with its squared distance."""
        factor = base.unit(self.w.astype(jnp.float32))
        a, b = self.w.astype(jnp.float32) * factor, p.astype(jnp.float32) * factor
        new = jnp.sum(jnp.where(self.w == p, 0.0, jnp.maximum(jnp.square(a - b), base.TINY)))
        return jnp.where(new < best[1], p, best[0]), jnp.minimum(new, best[1])

    def region(self, part: Any, x: Array) -> Bool[Array, " ..."]:
        """Which elements of the weight fit the choices that a part makes for `x`."""
        box = part.chart(x)[1]
        return ((self.w > 0) & (box.high > 0)) | ((self.w < 0) & (box.low < 0))


@functools.partial(jax.jit, inline=True)
def _search(split: Split, w: Array) -> Array:
    """The nearest of several points of the intersection.

    Consensus ADMM brings the parts' choices close. By turns each part then chooses again, with what the others
    exclude discounted, at last to nothing: from there on no turn ends further away.
    """
    order = tuple(split.parts[at] for at in _order(split))
    sets = [part for part in order if not isinstance(part, Levels)]
    search = _Search(order, w)
    target = w.astype(jnp.float32)

    def refine(x: Array, _: None) -> tuple[Array, Array]:
        # What the parts make of a point says which elements stay; of these the weight's own values are the nearest.
        p = search.through(x)
        return jnp.where(p != 0, w, jnp.zeros_like(w)), p

    def step(carry: tuple[Any, ...], rho: Array) -> tuple[tuple[Any, ...], Array]:
        copies, duals, best = carry
        pulls = sum(z - u for z, u in zip(copies, duals, strict=True))
        x = (target + rho * pulls) / (1 + rho * len(order))
        copies = tuple(part.project(x + u) for part, u in zip(order, duals, strict=True))
        duals = tuple((u + x - z) / _GROWTH for u, z in zip(duals, copies, strict=True))
        _, candidates = lax.scan(refine, x.astype(w.dtype), length=2)
        return (copies, duals, search.nearer(best, candidates[1])), x

    def turn(carry: tuple[Any, Any], discount: Array) -> tuple[tuple[Any, Any], None]:
        regions, best = list(carry[0]), carry[1]
        for at, part in enumerate(sets):
            others = regions[:at] + regions[at + 1 :]
            outside = sum(((~region).astype(jnp.float32) for region in others), jnp.zeros_like(target))
            regions[at] = search.region(part, target * discount**outside)
        inside = functools.reduce(jnp.logical_and, regions)
        best = search.nearer(best, search.through(jnp.where(inside, w, jnp.zeros_like(w))))
        return (tuple(regions), best), None

    start = search.through(w)
    best = search.nearer((start, jnp.float32(jnp.inf)), start)
    copies, duals = tuple(target for _ in order), tuple(jnp.zeros_like(target) for _ in order)
    rhos = _FIRST_RHO * _GROWTH ** jnp.arange(_STEPS, dtype=jnp.float32)
    (_, _, best), points = lax.scan(step, (copies, duals, best), rhos)
    regions = tuple(search.region(part, points[-1] + _FAINT * target) for part in sets)
    (_, best), _ = lax.scan(turn, (regions, best), jnp.array(_DISCOUNTS))
    return best[0]


def _capacity(split: Split, shape: tuple[int, ...]) -> int:
    """The most non-zeros that a part allows; all elements where a part is traced."""
    if not all(base.is_concrete(leaf) for leaf in jax.tree.leaves(split)):
        return math.prod(shape)
    with jax.ensure_compile_time_eval():
        full = jnp.full(shape, 2.0**60)  # above every level
        return min(int(jnp.sum(part.project(full) != 0)) for part in split.parts)


@functools.partial(jax.jit, static_argnames=("places", "layout"), inline=True)
def _encode(split: Split, p: Array, places: int, layout: str) -> Packed:
    grid, scale = next((found for found in map(_grid, split.parts) if found[0] is not None), (None, None))
    flat = p.reshape(-1).astype(jnp.float32)
    mask = base.rank_mask((flat != 0).astype(jnp.float32), places)[None]
    kept = flat[packing.kept_places(mask, places)[0]]
    numbers = kept if grid is None else grid.quantize(kept, scale)
    return Packed(
        payload={"values": payload.pack_values(grid, False, numbers, p.dtype)},
        index={"places": packing.pack_places(mask, places)},
        metadata={} if grid is None else {"scale": jnp.asarray(scale, jnp.float32)},
        layout=layout,
        shape=p.shape,
        dtype=str(p.dtype),
        static=(("places", places), ("grid", () if grid is None else tuple(grid))),
    )


@functools.partial(jax.jit, inline=True)
def _decode(packed: Packed) -> Array:
    """The weight that was encoded, bit for bit, by gathers."""
    static = dict(packed.static)
    grid = Grid(*static["grid"]) if static["grid"] else None
    size = math.prod(packed.shape)
    mask, slot = packing.unpack_places(packed.index["places"], 1, size, static["places"])
    values = payload.unpack_values(grid, False, packed.payload["values"], static["places"], packed.dtype)
    if grid is not None:
        values = dequantize(values, packed.metadata["scale"], packed.dtype)
    return jnp.where(mask[0], values[slot[0]], 0.0).reshape(packed.shape).astype(packed.dtype)
