"""What every member of the library has in common: it states its part of the tree, the rest follows."""

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from modicum.constraints import base, chart, formats, tree
from modicum.constraints.grid import search_scale
from modicum.constraints.natural import center, natural_table
from modicum.constraints.plan import Plan
from modicum.constraints.plan import check as check_plan
from modicum.core import Packed, check


class Member:
    """The methods of a constraint, derived from one `Plan`.

    A subclass is a frozen dataclass and a pytree (numbers that may be traced are its data, structure is static),
    and says in `part` what it demands. It holds no state, and overrides nothing but `fit` and `exact`.
    """

    def part(self) -> dict[str, Any]:
        """The fields of `Plan` this set fills in."""
        raise NotImplementedError

    @property
    def plan(self) -> Plan:
        """The set as numbers."""
        part = self.part()
        most, filters = (base.known_integer(part.get(name)) for name in ("k", "filters"))
        return Plan(**part, most=most, most_filters=filters)

    @property
    def exact(self) -> bool:
        """Whether `project` is the nearest point; not where a scale or a library is still to be read off."""
        return not self.plan.unread

    def check(self, shape: tuple[int, ...]) -> None:
        """Whether weights of that shape can lie in the set.

        Raises:
            ValueError: naming what does not fit.
        """
        check_plan(self.plan, tuple(shape))

    def fit(self, w: Float[Array, " ..."]) -> "Member":
        """The same set with what it reads off the weights frozen: a scale, a library."""
        self.check(w.shape)
        return self

    def _ready(self, w: Array) -> Plan:
        self.check(w.shape)
        if base.is_concrete(w):
            check.finite(w=w.astype(jnp.float32))
        plan = self.plan
        return _fitted(plan, w) if plan.unread else plan

    def relaxed(self, shape: tuple[int, ...], share: base.Traceable) -> Any:
        """The same set with larger counts: `k + round((n - k) share)` of the `n` there are; for gradual pruning.

        Args:
            shape: shape of the weight.
            share: from 0 (this set) to 1 (all are kept); may be traced.

        Returns:
            A set whose counts are int32 arrays; this one where it counts nothing.

        Raises:
            ValueError: if the shape does not fit, or `share` lies outside its range.
        """
        self.check(shape)
        known = base.concrete_number("share", share)
        if known is not None:
            check.between(0, 1, share=known)
        return self._relaxed(tuple(shape), share)

    def _relaxed(self, shape: tuple[int, ...], share: base.Traceable) -> Any:
        del shape, share
        return self

    def project(self, w: Float[Array, " *shape"]) -> Float[Array, " *shape"]:
        """The nearest point of the set, `argmin_p ||w - p||`; float32 inside, ties to the lower index.

        Args:
            w: a dense `(in, out)` or HWIO weight.

        Raises:
            ValueError: if the shape does not fit the set, or a concrete `w` holds NaN or infinity.
        """
        return tree.project(self._ready(w), w)

    def violation(self, w: Float[Array, " ..."]) -> Float[Array, ""]:
        """Relative distance `||w - project(w)|| / ||w||`; exactly 0 for a member of the set, and for it alone."""
        return base.relative_distance(w, self.project(w))

    def gain(self, w: Float[Array, " ..."]) -> Float[Array, ""]:
        """Energy the set keeps, `||w||^2 - ||w - project(w)||^2`."""
        return base.kept_energy(w, self.project(w))

    def chart(self, w: Float[Array, " *shape"]) -> tuple[Float[Array, " *shape"], chart.Box]:
        """Free coordinates of the projected point, for training inside the set.

        Returns:
            `(theta, build)`: float32 coordinates in the shape of `w`, and a pytree to call. `build(theta)` lies in
            the set for every finite `theta` and has the support, signs and scale of `project(w)`; it equals
            `project(w)` at the `theta` returned. Coordinates off the support are dead.
        """
        return chart.chart(self._ready(w), w)

    def encode(self, w: Float[Array, " ..."]) -> Packed:
        """`project(w)` in packed form.

        Raises:
            ValueError: if the shape does not fit, or `k` is traced: it sizes the arrays.
        """
        return formats.encode(self._ready(w), w)

    def decode(self, packed: Packed) -> Array:
        """The weight that was encoded, bit for bit.

        Raises:
            ValueError: if `packed` has another layout than this set writes.
        """
        if packed.layout != self.plan.layout:
            raise ValueError(f"packed must have layout {self.plan.layout!r}, got {packed.layout!r}")
        return formats.decode(packed)


@functools.partial(jax.jit, inline=True)
def _fitted(plan: Plan, w: Array) -> Plan:
    """The plan with its library extracted and its scale searched.

    Under other constraints the scale is that of the weights they keep: fitted once to the projection without
    levels, and once more to the weights on the support chosen with that scale; the closer one wins.
    """
    if plan.natural is not None and plan.table is None:
        k, size = plan.natural
        kernels = base.as_view(w, "kernels").astype(jnp.float32)
        plan = replace(plan, table=natural_table(kernels, k, size, center(*w.shape[:2])))
    if plan.grid is None or plan.scale is not None:
        return plan
    free = replace(plan, grid=None)
    if not free.layout:
        return replace(plan, scale=search_scale(w, plan.grid))
    scale = base.closer_scale(
        functools.partial(search_scale, grid=plan.grid),
        lambda scale: tree.project(replace(plan, scale=scale), w),
        w,
        tree.project(free, w),
    )
    return replace(plan, scale=scale)
