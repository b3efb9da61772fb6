"""Settings of a compression experiment: the dense run, the sets, the schedule."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optax

from modicum import admm, constraints, train
from modicum.core import Params, check

ARMS = ("admm", "one_shot", "gradual")
"""ADMM; one-shot projection and retraining; gradual magnitude pruning. All make the same number of steps."""


@dataclass(frozen=True)
class Keep:
    """A rule: the set that keeps a share of what it counts in a weight, whatever its shape.

    Attributes:
        kind: `TopK`, `Kernels` or `Channels`.
        share: share kept, above 0, at most 1; counts are rounded, and at least 1.
        options: further arguments of the set, as pairs.

    Example:
        >>> import jax.numpy as jnp
        >>> Keep(constraints.TopK, 0.1)(jnp.ones((20, 5)))
        TopK(k=10)
    """

    kind: type
    share: float
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        check.positive(share=self.share)
        check.between(0, 1, share=self.share)

    def __call__(self, w: Any) -> Any:
        """The set for one weight."""
        options = dict(self.options)
        per_filter = self.kind is constraints.Kernels and options.get("balanced", True)
        if self.kind is constraints.TopK:
            count = w.size
        elif self.kind is constraints.Kernels:
            count = w.shape[-2] * (1 if per_filter else w.shape[-1])
        else:
            count = w.shape[options.get("axis", -1)]
        return self.kind(max(1, round(self.share * count)), **options)


@dataclass(frozen=True)
class Together:
    """A rule: the exact intersection of several sets or rules.

    Attributes:
        parts: constraints, or rules that make one from a weight.
    """

    parts: tuple[Any, ...]

    def __call__(self, w: Any) -> Any:
        """The set for one weight."""
        return constraints.nest(*(part(w) if callable(part) else part for part in self.parts))


@dataclass(frozen=True)
class ByWindow:
    """A rule: one for the 3x3 kernels of a network, another for its 1x1 kernels and matrices.

    Attributes:
        three: constraint, rule or None for windows of 3x3.
        other: for all others.
    """

    three: Any
    other: Any = None

    def __call__(self, w: Any) -> Any:
        """The set for one weight."""
        chosen = self.three if w.ndim == 4 and w.shape[:2] == (3, 3) else self.other
        return chosen(w) if callable(chosen) else chosen


def together(*parts: Any) -> Together:
    """`nest` for rules: parts may depend on the weight's shape."""
    return Together(parts)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Numbers of `admm.CompressConfig` that a command line may set, and how examples are drawn.

    Attributes:
        outer: dual updates.
        inner: optimizer steps before each.
        retrain: optimizer steps after the hard projection.
        rho: penalty strength at the start.
        growth: its factor at each dual update.
        learning_rate: step size of Adam during ADMM.
        retrain_learning_rate: step size of retraining, falling to 0 by a cosine; for the control arms, too.
        clip: largest norm of a gradient, inf for none.
        refit: outer iterations in which libraries and scales are still read off the weights anew.
        batch: examples in a step.
    """

    outer: int = 20
    inner: int = 75
    retrain: int = 1500
    rho: float = 3.0
    growth: float = 1.3
    learning_rate: float = 1e-3
    retrain_learning_rate: float = 1e-3
    clip: float = float("inf")
    refit: int = 0
    batch: int = 64

    def __post_init__(self) -> None:
        check.integer(1, batch=self.batch)
        check.positive(clip=self.clip)
        self.config()

    def config(self) -> admm.CompressConfig:
        """The schedule as `admm.compress` takes it."""
        return admm.CompressConfig(
            outer=self.outer,
            inner=self.inner,
            retrain=self.retrain,
            rho=self.rho,
            growth=self.growth,
            learning_rate=self.learning_rate,
            retrain_learning_rate=self.retrain_learning_rate,
            refit=self.refit,
            save_seconds=30.0,
            optimizer=functools.partial(clipped_adam, clip=self.clip) if math.isfinite(self.clip) else optax.adam,
        )


def clipped_adam(learning_rate: Any, clip: float) -> optax.GradientTransformation:
    """Adam on gradients whose norm is at most `clip`."""
    return optax.chain(optax.clip_by_global_norm(clip), optax.adam(learning_rate))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A compression experiment.

    Attributes:
        dense: how the dense network is trained: data, model, optimizer, seed.
        rules: pairs of a pattern on parameter paths and a constraint, a rule that makes one from the weight, or None;
            the first pattern that is found decides (`constraints.by_path`).
        schedule: ADMM and retraining; the control arms make as many steps.
    """

    dense: train.Experiment
    rules: tuple[tuple[str, Any], ...]
    schedule: Schedule = field(default_factory=Schedule)

    def sets(self, params: Params) -> Params:
        """The constraint of each leaf.

        Args:
            params: trained parameters; only their shapes are read.
        """
        return constraints.by_path(dict(self.rules), params)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe that a config file's `config(...)` returns.

    Args:
        path: a Python file.
        overrides: `name=value`; a name that `config` takes as an argument goes to it, `rate=29` for instance, any other
            must be a setting of the recipe, such as `schedule.rho` or `dense.seed`.

    Raises:
        ValueError: if there is no such file, it makes no recipe, or an override does not fit.
    """
    recipe, others = train.configured(path, overrides)
    if not isinstance(recipe, Recipe):
        raise ValueError(f"config() of {path} must return a Recipe, got {type(recipe).__name__}")
    return train.parse_overrides(recipe, others)
