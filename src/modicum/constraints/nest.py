"""Intersections whose groups form a tree, and constraints by parameter path."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
from jaxtyping import Array, Float

from modicum.constraints.base import Traceable
from modicum.constraints.direct import Direct
from modicum.constraints.levels import Levels
from modicum.constraints.member import Member
from modicum.constraints.patterns import NaturalPatterns, Patterns
from modicum.constraints.polarize import Polarized
from modicum.constraints.sparse import Channels, Kernels, NofM, TopK
from modicum.core import Constraint, Params, leaves_by_path, map_by_path, select_by_path

_OUTSIDE_IN = (TopK, Channels, Kernels, NofM, Patterns, NaturalPatterns, Polarized, Levels)


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
        """The same sets with what they read off the weights frozen.

        A library is that of `w` itself, a scale is searched on the weights that the other sets keep.
        """
        plan = self._ready(w)

        def frozen(member: Any) -> Any:
            if isinstance(member, Levels):
                return replace(member, scale=plan.scale)
            return replace(member, table=plan.table) if isinstance(member, NaturalPatterns) else member

        return replace(self, members=tuple(frozen(member) for member in self.members))

    def _relaxed(self, shape: tuple[int, ...], share: Traceable) -> "Nest":
        return replace(self, members=tuple(member.relaxed(shape, share) for member in self.members))


def _refusal(kinds: dict[type, Any]) -> str | None:
    """Why these sets do not form a tree, if they do not."""
    if TopK in kinds:
        for kind in _OUTSIDE_IN[1:-1]:
            if kind in kinds:
                return f"TopK counts elements across all groups of {kind.__name__}, so the two do not form a tree"
    if Patterns in kinds and NaturalPatterns in kinds:
        return "nest takes one library, because a kernel has one pattern, got Patterns and NaturalPatterns"
    patterns = kinds.get(Patterns, kinds.get(NaturalPatterns))
    if NofM in kinds:
        return _refusal_of_groups(kinds)
    if Channels in kinds:
        return _refusal_of_channels(kinds, patterns)
    if Kernels in kinds and patterns is not None and kinds[Kernels].group % patterns.group:
        return (
            f"Kernels must have a group that is a multiple of {patterns.group}, the group of "
            f"{type(patterns).__name__}, so that filters sharing a pattern also keep the same kernels "
            f"(got {kinds[Kernels].group})"
        )
    return None


def _refusal_of_groups(kinds: dict[type, Any]) -> str | None:
    for kind in (Channels, Kernels, Patterns, NaturalPatterns):
        if kind in kinds:
            return (
                f"NofM nests with Polarized and Levels only, because its groups of consecutive input channels lie "
                f"across kernels, got {kind.__name__}"
            )
    if Polarized in kinds and kinds[Polarized].fragment != kinds[NofM].m:
        return (
            f"NofM must have m = {kinds[Polarized].fragment}, the fragment of Polarized, so that each of its groups "
            f"has one sign of its own, got m = {kinds[NofM].m}"
        )
    return None


def _refusal_of_channels(kinds: dict[type, Any], patterns: Any) -> str | None:
    if kinds[Channels].axis == -2:
        if Kernels in kinds:
            return (
                "Channels of inputs and Kernels do not form a tree, because a filter's kernels lie in all input "
                "channels, and an input channel's kernels in all filters"
            )
        return None
    for member in (kinds.get(Kernels), patterns):
        if member is not None and member.group > 1:
            return (
                f"{type(member).__name__} must have group 1 to nest with Channels, because a group would cross "
                f"filters that go and filters that stay, got {member.group}"
            )
    if Kernels in kinds and not kinds[Kernels].balanced:
        return (
            "Kernels must be balanced per filter to nest with Channels, which drops whole filters, got balanced=False"
        )
    return None


def nest(*constraints: Any) -> Any:
    """The intersection of several sets, with its exact Euclidean projection.

    The groups of the sets must form a tree: a layer that keeps `k` filters, a layer or filter that keeps `k` kernels,
    a kernel that takes a pattern, a fragment that takes a sign, a weight that takes a level. The projection then goes
    from the leaves up; projecting onto one set after the other ends further away. An intersection has no order, so
    neither have the arguments: they are sorted from the outside in.

    | sets | nest with |
    |---|---|
    | `TopK` | `Levels` |
    | `NofM` | `Polarized` of one group per fragment, `Levels` |
    | `Channels` of filters | `Kernels` balanced per filter, patterns, each of group 1; `Polarized`, `Levels` |
    | `Channels` of inputs | patterns, `Polarized` with fragments inside kernels, `Levels` |
    | `Kernels` | patterns, `Polarized`, `Levels` |
    | `Patterns` or `NaturalPatterns` | `Polarized`, `Levels` |

    Fragments must divide a kernel's elements or be a multiple of them. Where one spans several kernels, the count
    per filter is met by dynamic programming.

    Args:
        *constraints: sets of the table, or nests of these, each kind once; or `BlockColumnRow` with `Levels`; or
            `Unified` with `Levels` and patterns.

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
    for at, member in enumerate(flat):
        if isinstance(member, Direct) and len(flat) > 1:
            return member.nested([*flat[:at], *flat[at + 1 :]])
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
            `params/Conv_0/kernel`; the first that is found decides. A function stands for what it returns for the
            parameter, so that a rate may depend on the shape: `{"kernel": lambda w: TopK(w.size // 10)}`.
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
    for pattern, rule in rules.items():
        if not (_is_choice(rule) or callable(rule)):
            raise ValueError(
                f"rules must map patterns to constraints, None, or functions of a weight, got {rule!r} for {pattern!r}"
            )

    def matched(params: Params) -> Params:
        chosen = leaves_by_path(select_by_path(rules, params), is_leaf=_is_choice)

        def checked(path: str, leaf: Any) -> Any:
            rule = chosen[path]
            try:
                constraint = rule if _is_choice(rule) else rule(leaf)
                if isinstance(constraint, Member | Direct):
                    constraint.check(leaf.shape)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
            if not _is_choice(constraint):
                raise ValueError(f"{path}: a rule must return a constraint or None, got {constraint!r}")
            return constraint

        return map_by_path(checked, params)

    if params is None:
        fun: Callable[[Params], Params] = matched
        return fun
    return matched(params)


def _is_choice(value: Any) -> bool:
    return value is None or isinstance(value, Constraint)
