"""Kernel patterns: each convolution kernel keeps the positions of one pattern out of a small library."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from modicum.constraints.base import Traceable, is_concrete
from modicum.constraints.member import Member
from modicum.constraints.natural import center
from modicum.core import check

Library = tuple[tuple[int, ...], ...]
"""Kept positions of each pattern, numbered row by row: `0 ... kh * kw - 1`."""


def _drawn(*pictures: str) -> Library:
    """Patterns from pictures such as `.1. 111 ...`, three rows each."""
    return tuple(tuple(at for at, mark in enumerate(picture.replace(" ", "")) if mark == "1") for picture in pictures)


PCONV_4 = _drawn(".1. 111 ...", ".1. 11. .1.", "... 111 .1.", ".1. .11 .1.")
"""The four sparse convolution patterns of PCONV: a cross without one of its arms."""

MEST_8 = _drawn(
    *("... .11 .11", "... 11. 11.", ".11 .11 ...", "11. 11. ..."),
    *("... ..1 111", "... 111 .1.", ".1. .11 .1.", ".1. 11. .1."),
)
"""Eight patterns of the authors' later code (MEST, `prune_utils`): four corner squares, three T shapes, and one
that does not keep the center."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Patterns(Member):
    """Every kernel is zero outside one pattern of a library.

    The projection gives each kernel the pattern of largest retained energy, `argmax_p sum_(j in p) w_j^2`; equal
    ones go to the earlier pattern.

    Args:
        library: kept positions of each pattern, row by row in the `kh x kw` window; at least one pattern.
        group: consecutive filters that share the pattern of an input channel (what vector units like); the last
            group may be smaller.

    Reference:
        PatDNN and PCONV (kernel patterns); sharing by groups is ours.
    """

    library: Library = field(metadata={"static": True})
    group: int = field(default=1, metadata={"static": True})

    def __post_init__(self) -> None:
        object.__setattr__(self, "library", _checked(self.library))
        check.integer(1, group=self.group)

    def part(self) -> dict[str, Any]:
        """A library."""
        return {"library": self.library, "pattern_group": self.group}


def _checked(library: Sequence[Sequence[int]]) -> Library:
    """The library as sorted tuples of whole numbers."""
    allowed = "a non-empty sequence of different patterns, each of distinct positions from 0 up"
    try:
        patterns = [list(pattern) for pattern in library]
    except TypeError:
        raise ValueError(f"library must be {allowed}, got {library!r}") from None
    whole = all(isinstance(at, Integral) and not isinstance(at, bool) for pattern in patterns for at in pattern)
    if not whole or not patterns or any(not p or len(set(p)) < len(p) or min(p) < 0 for p in patterns):
        raise ValueError(f"library must be {allowed}, got {library!r}")
    result = tuple(tuple(sorted(map(int, pattern))) for pattern in patterns)
    if len(set(result)) < len(result):
        raise ValueError(f"library must be {allowed}, got {library!r}")
    return result


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NaturalPatterns(Member):
    """Every kernel is zero outside one of the `k` patterns that the weights show most often by themselves.

    `fit` reads the library off a weight inside a compiled program, as `natural_library` does outside: it may be
    mapped over seeds, and a stage of ADMM may read it again at each update of the duals. Without a `table`,
    `project` reads it off the weight it is given. Fit on the weights that are to be projected, not on the projected
    ones: where zeros lie inside its pattern (levels and signs make some), a kernel no longer tells which one it had.

    Args:
        k: patterns in the library; a 3x3 window with `size` 4 has 56.
        size: positions of each pattern, the center of the window among them; windows of up to 30 positions.
        group: consecutive filters that share the pattern of an input channel, as in `Patterns`.
        table: which positions each pattern keeps, bool `(k, kh * kw)` with `size` True in each row; may be traced.
            None until `fit`.

    Example:
        >>> import jax.numpy as jnp
        >>> fitted = NaturalPatterns(1).fit(jnp.arange(9.0).reshape(3, 3, 1, 1))
        >>> jnp.flatnonzero(fitted.table[0]).tolist()
        [4, 6, 7, 8]

    Reference:
        PatDNN and PCONV select library and weights together; see `natural_library`.
    """

    k: int = field(metadata={"static": True})
    size: int = field(default=4, metadata={"static": True})
    group: int = field(default=1, metadata={"static": True})
    table: Traceable | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        check.integer(1, k=self.k, size=self.size, group=self.group)

    def __eq__(self, other: object) -> bool:
        """Whether numbers and library are equal; traced libraries only if they are one and the same."""
        if not isinstance(other, NaturalPatterns):
            return NotImplemented
        mine, theirs = self.table, other.table
        same = mine is theirs
        if mine is not None and theirs is not None and is_concrete(mine) and is_concrete(theirs):
            same = np.array_equal(mine, theirs)
        return same and (self.k, self.size, self.group) == (other.k, other.size, other.group)

    def part(self) -> dict[str, Any]:
        """A library that is read off the weights."""
        return {"natural": (self.k, self.size), "table": self.table, "pattern_group": self.group}

    def fit(self, w: Float[Array, " kh kw i o"]) -> "NaturalPatterns":
        """The same set with the most frequent natural patterns of `w` frozen, unless it has a library."""
        return replace(self, table=self._ready(w).table)


def pattern_space(window: tuple[int, int] = (3, 3), size: int = 4) -> Library:
    """All patterns of `size` positions that keep the center of a window, in lexicographic order.

    Args:
        window: height and width.
        size: positions each pattern keeps, from 1 to `kh * kw`.

    Example:
        >>> len(pattern_space())
        56
    """
    check.integer(1, kh=window[0], kw=window[1])
    check.integer(1, window[0] * window[1], size=size)
    middle = center(*window)
    others = [at for at in range(window[0] * window[1]) if at != middle]
    return tuple(sorted(tuple(sorted((middle, *rest))) for rest in itertools.combinations(others, size - 1)))


def natural_library(w: Float[Array, " kh kw i o"] | Sequence[Array], k: int, size: int = 4) -> Library:
    """The `k` patterns that trained kernels show most often by themselves.

    Each kernel's natural pattern is its center and the `size - 1` largest other magnitudes; equal magnitudes go
    to the lower position, equally frequent patterns to the lexicographically lower. A kernel that is all zero has no
    vote. Where fewer than `k` occur, the first ones that do not fill up.

    Args:
        w: HWIO kernel of a trained layer, or several of equal window; concrete.
        k: patterns wanted; a 3x3 window with `size` 4 has `C(8, 3) = 56`.
        size: positions each pattern keeps, from 1 to `kh * kw`.

    Returns:
        A hashable library, most frequent pattern first.

    Raises:
        ValueError: for other shapes, unequal windows, non-finite weights, or more patterns than there are.

    Example:
        >>> import jax.numpy as jnp
        >>> natural_library(jnp.arange(9.0).reshape(3, 3, 1, 1), 1)
        ((4, 6, 7, 8),)

    Reference:
        PatDNN: natural patterns keep the center and three others; the library is the most frequent 6, 8 or 12.
    """
    layers = [np.asarray(layer, np.float32) for layer in (w if isinstance(w, list | tuple) else [w])]
    for layer in layers:
        check.rank((4,), w=layer)
        check.finite(w=layer)
        check.shape(layers[0].shape[:2], window=np.empty(layer.shape[:2]))
    kh, kw = layers[0].shape[:2]
    possible = pattern_space((kh, kw), size)
    check.integer(1, len(possible), k=k)
    magnitude = np.concatenate([np.abs(layer).reshape(kh * kw, -1).T for layer in layers])
    magnitude = magnitude[magnitude.any(axis=1)]
    magnitude[:, center(kh, kw)] = np.inf
    kept = np.sort(np.argsort(-magnitude, axis=1, kind="stable")[:, :size], axis=1)
    counts = Counter(dict.fromkeys(possible, 0))
    counts.update(map(tuple, kept.tolist()))
    return tuple(sorted(counts, key=lambda pattern: (-counts[pattern], pattern))[:k])
