"""Intersections whose groups form a tree, and constraints by parameter path."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
from jaxtyping import Array, Float

from modicum.constraints.levels import Levels
from modicum.constraints.member import Member
from modicum.constraints.patterns import Patterns
from modicum.constraints.polarize import Polarized
from modicum.constraints.sparse import Kernels, TopK
from modicum.core import Constraint, Params, leaves_by_path, map_by_path, select_by_path

_OUTSIDE_IN = (TopK, Kernels, Patterns, Polarized, Levels)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Nest(Member):
    """An intersection of sets whose groups form a tree; made by `nest`.

    Attributes:
        members: the sets, outermost first.
    """

    members: tuple[Any, ...]

    def part(self) -> dict[str, Any]:
        """All that the members demand."""
        return functools.reduce(lambda demands, member: demands | member.part(), self.members, {})

    def fit(self, w: Float[Array, " ..."]) -> "Nest":
        """The same sets with the scale of their levels frozen: searched on the weights that the others keep."""
        plan = self._ready(w)
        members = tuple(replace(each, scale=plan.scale) if isinstance(each, Levels) else each for each in self.members)
        return replace(self, members=members)


def _refusal(kinds: dict[type, Any]) -> str | None:
    """Why these sets do not form a tree, if they do not."""
    if TopK in kinds:
        for kind in (Kernels, Patterns, Polarized):
            if kind in kinds:
                return f"TopK counts elements across all groups of {kind.__name__}, so the two do not form a tree"
    if Kernels in kinds and Patterns in kinds:
        kernels, shared = kinds[Kernels].group, kinds[Patterns].group
        if kernels % shared:
            return (
                f"Kernels must have a group that is a multiple of {shared}, the group of Patterns, so that filters "
                f"sharing a pattern also keep the same kernels (got {kernels})"
            )
    return None


def nest(*constraints: Any) -> Any:
    """The intersection of several sets, with its exact Euclidean projection.

    The groups of the sets must form a tree: a layer or filter that keeps `k` kernels, a kernel that takes a pattern,
    a fragment that takes a sign, a weight that takes a level. The projection then goes from the leaves
    up; projecting onto one set after the other ends further away. An intersection has no order, so neither have
    the arguments: they are sorted from the outside in (`TopK` or `Kernels`, `Patterns`, `Polarized`, `Levels`).

    Fragments must divide a kernel's elements or be a multiple of them. Where one spans several kernels, the count
    per filter is met by dynamic programming.

    Args:
        *constraints: `TopK`, `Kernels`, `Patterns`, `Polarized`, `Levels`, or nests of these, each kind once.

    Returns:
        A constraint; the argument itself where there is one only.

    Raises:
        ValueError: if the sets do not nest; the shape of the weight may rule them out later, at `project`.

    Example:
        >>> import jax.numpy as jnp
        >>> both = nest(TopK(1), Levels(bits=3, scale=1.0))
        >>> both.project(jnp.array([1.4, 0.9])).tolist()
        [1.0, 0.0]

    Reference:
        Nested rule by bottom-up gains; here by losses, see `tree`.
    """
    flat = [member for each in constraints for member in (each.members if isinstance(each, Nest) else (each,))]
    if not flat:
        raise ValueError("nest must be given at least one constraint, got none")
    for member in flat:
        if not isinstance(member, _OUTSIDE_IN):
            names = ", ".join(kind.__name__ for kind in _OUTSIDE_IN)
            raise ValueError(f"nest takes {names} and nests of these, got {member!r}")
    kinds = {type(member): member for member in flat}
    if len(kinds) < len(flat):
        raise ValueError(f"nest takes each kind of set once, got {', '.join(type(each).__name__ for each in flat)}")
    reason = _refusal(kinds)
    if reason:
        raise ValueError(reason)
    members = tuple(kinds[kind] for kind in _OUTSIDE_IN if kind in kinds)
    return members[0] if len(members) == 1 else Nest(members)


def by_path(rules: Mapping[str, Any], params: Params | None = None) -> Any:
    """One constraint per parameter, by regular expressions on its path.

    Args:
        rules: constraints (or None: leave alone) by pattern, tried in order with `re.search` on paths such as
            `params/Conv_0/kernel`; the first that is found decides.
        params: the tree to match; None returns a function that takes it.

    Returns:
        A tree with the structure of `params` whose leaves are constraints or None; or `params -> tree`.

    Raises:
        ValueError: if a value is no constraint, a pattern matches no path, or a weight's shape does not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> by_path({"kernel": TopK(2)}, {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)})
        {'bias': None, 'kernel': TopK(k=2)}
    """
    for pattern, constraint in rules.items():
        if constraint is not None and not isinstance(constraint, Constraint):
            raise ValueError(f"rules must map patterns to constraints or None, got {constraint!r} for {pattern!r}")

    def matched(params: Params) -> Params:
        chosen = select_by_path(rules, params)
        leaves = leaves_by_path(chosen, is_leaf=lambda leaf: leaf is None or isinstance(leaf, Constraint))

        def checked(path: str, leaf: Any) -> Any:
            constraint = leaves[path]
            if isinstance(constraint, Member):
                try:
                    constraint.check(leaf.shape)
                except ValueError as error:
                    raise ValueError(f"{path}: {error}") from None
            return constraint

        return map_by_path(checked, params)

    if params is None:
        fun: Callable[[Params], Params] = matched
        return fun
    return matched(params)
