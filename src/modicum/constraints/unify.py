"""Micro-structured unification: the weights of a block share one absolute value."""

from dataclasses import dataclass, field, replace
from numbers import Number
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from modicum.constraints import base, direct, magnitudes, unify_format
from modicum.constraints.base import Traceable
from modicum.constraints.levels import Levels
from modicum.constraints.magnitudes import Problem, SharedMagnitudes
from modicum.constraints.microblocks import Blocking, checked_block
from modicum.constraints.patterns import NaturalPatterns, Patterns
from modicum.core import Packed, check


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Unified(direct.Direct):
    """In each super-block a share of the blocks has one absolute value each, a further share is zero.

    A weight is seen as `(taps, in, out)`: the positions of a window, input and output channels; a dense one has one
    tap. A block that is unified becomes `sign(w) mean(|w|)` (the sign of 0 is positive) and loses
    `||w||^2 - n mean(|w|)^2`; one that is pruned becomes zero and loses `||w||^2`. The projection finds the blocks
    for which the total is least, both classes at once; ties go to the lower block. A zero block is unified too.

    Args:
        block: `(taps, in, out)` of a block, or `(in, out)` with one tap; blocks at an edge may be shorter.
        fraction: share of the blocks of a super-block that is unified, from 0 to 1: `round(fraction * blocks)`. May
            be traced (`vmap` over rates), but not to encode.
        pruned: share that is zero, counted apart; with `fraction` at most 1. May be traced, but not to encode.
        superblock: size of a super-block, multiples of `block`; None for the whole layer.
        levels: a grid for magnitudes and free weights; set by `nest`.
        patterns: kernel patterns that zero elements of all blocks, and unify on the rest; set by `nest`.

    Example:
        >>> Unified((1, 2), 0.5).project(jnp.array([[1.0, -3.0, 4.0, -0.5]])).tolist()
        [[2.0, -2.0, 4.0, -0.5]]

    Reference:
        Micro-structured weight unification (blocks inside super-blocks, one absolute value, pruning as its special
        case); the joint exact projection of both is ours.
    """

    block: tuple[int, ...] = field(metadata={"static": True})
    fraction: Traceable
    pruned: Traceable = 0.0
    superblock: tuple[int, ...] | None = field(default=None, metadata={"static": True})
    levels: Levels | None = field(default=None, kw_only=True)
    patterns: Patterns | NaturalPatterns | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "block", checked_block("block", self.block))
        if self.superblock is not None:
            object.__setattr__(self, "superblock", checked_block("superblock", self.superblock))
            if any(big % small for big, small in zip(self.superblock, self.block, strict=True)):
                raise ValueError(f"superblock must be a multiple of block {self.block}, got {self.superblock}")
        shares = {name: getattr(self, name) for name in ("fraction", "pruned")}
        known = {name: share for name, share in shares.items() if isinstance(share, Number | str)}
        check.between(0, 1, **known)
        if len(known) == 2 and float(self.fraction) + float(self.pruned) > 1 + 1e-6:
            raise ValueError(f"fraction and pruned must add up to at most 1, got {self.fraction} and {self.pruned}")

    @property
    def exact(self) -> bool:
        """Whether `project` is the nearest point; not where a scale or a library is still to be read off."""
        return all(part is None or part.exact for part in (self.levels, self.patterns))

    @property
    def layout(self) -> str:
        """Name of the packed format."""
        return "unified" + "+patterns" * (self.patterns is not None) + "+levels" * (self.levels is not None)

    def check(self, shape: tuple[int, ...]) -> None:
        """Whether weights of that shape can lie in the set.

        Raises:
            ValueError: naming what does not fit.
        """
        direct.check_size(shape)
        if len(shape) not in (2, 4):
            raise ValueError(f"w must have 2 axes (in, out) or 4 (kh, kw, in, out), got shape {tuple(shape)}")
        direct.check_levels(self.levels, shape)
        if self.patterns is not None:
            self.patterns.check(shape)
            if self.block[0] < shape[0] * shape[1]:
                raise ValueError(
                    f"block must hold whole kernels of {shape[0] * shape[1]} taps to nest with patterns, "
                    f"got {self.block}"
                )

    def fit(self, w: Float[Array, " ..."]) -> "Unified":
        """The same set with its library and the scale of its levels frozen, read off the weights."""
        self.check(w.shape)
        fitted = self if self.patterns is None else replace(self, patterns=self.patterns.fit(w))
        if fitted.levels is None or fitted.levels.scale is not None:
            return fitted
        return replace(fitted, levels=direct.fitted_levels(fitted.levels, replace(fitted, levels=None), w))

    def nested(self, others: list[Any]) -> "Unified":
        """These blocks with levels and patterns; see `nest`."""
        result = self
        for other in others:
            if isinstance(other, Levels) and result.levels is None:
                result = replace(result, levels=other)
            elif isinstance(other, Patterns | NaturalPatterns) and result.patterns is None:
                _check_patterns(other)
                result = replace(result, patterns=other)
            elif isinstance(other, Levels | Patterns | NaturalPatterns):
                raise ValueError(f"nest takes each kind of set once, got another {other!r}")
            else:
                raise ValueError(
                    f"Unified nests with Levels and patterns only, because another set's choices would depend on "
                    f"which blocks are unified, got {other!r}"
                )
        return result

    def relaxed(self, shape: tuple[int, ...], share: Traceable) -> "Unified":
        """The set on the way there: both shares times `1 - share`.

        Args:
            shape: of the weight.
            share: from 0 to 1; may be traced.
        """
        self.check(shape)
        keep = 1 - jnp.asarray(share, jnp.float32)
        return replace(self, fraction=self.fraction * keep, pruned=self.pruned * keep)

    def problem(self, w: Array) -> Problem:
        """What is asked of a weight of that shape, by numbers."""
        fitted = self if self.exact else self.fit(w)
        blocking = Blocking.of(w.shape, self.block, self.superblock)
        unified, pruned = unify_counts(blocking, self.fraction, self.pruned)
        part = {} if fitted.patterns is None else {"table": _table(fitted.patterns, blocking.view[0])}
        if fitted.levels is not None:
            part |= {"scale": fitted.levels.scale, "grid": direct.grid_of(fitted.levels)}
        prunes = not isinstance(pruned, np.ndarray) or bool(pruned.any())
        width = 0 if fitted.patterns is None else pattern_width(fitted.patterns)
        return Problem(unified=unified, pruned=pruned, blocking=blocking, width=width, prunes=prunes, **part)

    def nearest(self, w: Array) -> Array:
        """The nearest point."""
        return magnitudes.project(self.problem(w), w)

    def chart(self, w: Float[Array, " *shape"]) -> tuple[Float[Array, " *shape"], SharedMagnitudes]:
        """Free coordinates of the projected point, for training inside the set.

        Returns:
            `(theta, build)`: float32 coordinates in the shape of `w`, and a pytree to call. `build` keeps the
            classes of blocks, the signs of unified ones and the patterns: it gives a unified block the mean of its
            `theta` along the signs as magnitude, at least 0. `build(theta)` equals `project(w)`.
        """
        self.ready(w)
        return magnitudes.chart(self.problem(w), w)

    def encode(self, w: Float[Array, " ..."]) -> Packed:
        """`project(w)` in packed form; see `unify_format`.

        Raises:
            ValueError: if the shape does not fit, or a share is traced: it sizes the arrays.
        """
        self.ready(w)
        for name, share in (("fraction", self.fraction), ("pruned", self.pruned)):
            if not base.is_concrete(share):
                raise ValueError(f"{name} must be a concrete number to encode, because it sizes the packed arrays")
        return unify_format.encode(self.problem(w), w, self.layout)

    def unpack(self, packed: Packed) -> Array:
        """The weight of packed arrays."""
        return unify_format.decode(packed)


def unify_counts(blocking: Blocking, fraction: Traceable, pruned: Traceable) -> tuple[Any, Any]:
    """Blocks to unify and to prune in each super-block, `(g,)`; NumPy arrays where the shares are known."""
    xp = np if base.is_concrete(fraction) and base.is_concrete(pruned) else jnp
    blocks = blocking.real().any(axis=-1).sum(axis=-1).astype(np.float32)
    zero = xp.round(xp.asarray(pruned, np.float32) * blocks)
    unified = xp.minimum(xp.round(xp.asarray(fraction, np.float32) * blocks), blocks - zero)
    return unified.astype(np.int32), zero.astype(np.int32)


def _check_patterns(patterns: Patterns | NaturalPatterns) -> None:
    if patterns.group > 1:
        raise ValueError(
            f"group must be 1 to nest patterns with Unified, because filters that share a pattern would tie blocks "
            f"of different kinds together, got {patterns.group}"
        )
    if isinstance(patterns, Patterns) and len(set(map(len, patterns.library))) > 1:
        raise ValueError(
            "library must hold patterns of one size to nest with Unified, because a magnitude shared by more "
            f"elements loses less and so sizes would have to be weighed against each other, got {patterns.library}"
        )


def pattern_width(patterns: Patterns | NaturalPatterns) -> int:
    """Positions that each pattern keeps."""
    return patterns.size if isinstance(patterns, NaturalPatterns) else len(patterns.library[0])


def _table(patterns: Patterns | NaturalPatterns, taps: int) -> Any:
    """Which positions each pattern keeps, `(p, taps)`."""
    if isinstance(patterns, NaturalPatterns):
        return patterns.table
    return np.array([[tap in pattern for tap in range(taps)] for pattern in patterns.library])
