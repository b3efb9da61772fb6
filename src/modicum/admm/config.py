"""Settings of a compression run."""

import dataclasses
import functools
from dataclasses import dataclass
from numbers import Real
from typing import Any

import optax

from modicum.admm.transform import check_settings
from modicum.core import check


@dataclass(frozen=True, kw_only=True)
class CompressConfig:
    """Schedule of ADMM, hard projection and retraining.

    The ADMM stage makes `outer` dual updates, `inner` optimizer steps before each; retraining makes `retrain` steps.
    Learning rates are numbers or optax schedules over the steps of their own stage, starting at 0.

    Attributes:
        outer: dual updates, at least 0; 0 leaves ADMM out: one-shot projection and retraining.
        inner: optimizer steps before each dual update, at least 1.
        retrain: optimizer steps after the hard projection, at least 0.
        rho: penalty strength at the start, above 0; may be traced.
        growth: factor of rho at each dual update, above 0; may be traced.
        tolerance: rho stops growing once `norm(W - Z) / norm(W)` lies below it.
        form: "prox" or "penalty", see `admm`.
        refit: outer iterations, from the first, whose dual update reads again what constraints read off weights
            (level scales, pattern libraries: their `fit`) from `W + U`; after them it is frozen. 0 reads it once,
            from the given weights.
        stop: the ADMM stage ends once `norm(W - Z) / norm(W)` of every leaf lies below it after a dual update;
            `compress` gives the steps saved to retraining, so that runs stay equal in steps. 0 never stops.
        learning_rate: step size of the ADMM stage, above 0.
        retrain_learning_rate: step size of retraining, above 0.
        retrain_decay: "cosine" brings a numeric `retrain_learning_rate` down to 0 over the stage, "constant" keeps it.
        optimizer: makes an optax optimizer from a learning rate; every stage starts a fresh one.
        chunk: retraining steps in one dispatch of `compress`, at least 1 (progress and checkpoints lie between).
        save_seconds: least time between two checkpoints, at least 0; writing one of a large network takes a while.
    """

    outer: int = 16
    inner: int = 40
    retrain: int = 400
    rho: Any = 3.0
    growth: Any = 1.3
    tolerance: float = 1e-3
    form: str = "prox"
    refit: int = 0
    stop: float = 0.0
    learning_rate: Any = 2e-3
    retrain_learning_rate: Any = 2e-3
    retrain_decay: str = "cosine"
    optimizer: Any = optax.adam
    chunk: int = 200
    save_seconds: float = 0.0

    def __post_init__(self) -> None:
        check.integer(0, outer=self.outer, retrain=self.retrain, refit=self.refit)
        check.integer(1, inner=self.inner, chunk=self.chunk)
        check_settings(self.rho, self.growth, self.tolerance, self.form)
        check.non_negative(stop=self.stop, save_seconds=self.save_seconds)
        check.one_of(("cosine", "constant"), retrain_decay=self.retrain_decay)
        for name in ("learning_rate", "retrain_learning_rate"):
            value = getattr(self, name)
            if not callable(value) and (isinstance(value, Real) or not hasattr(value, "dtype")):
                check.positive(**{name: value})
        if not callable(self.optimizer):
            raise ValueError(
                f"optimizer must be a function from a learning rate to an optimizer, got {self.optimizer!r}"
            )

    @property
    def admm_steps(self) -> int:
        """Optimizer steps of the ADMM stage."""
        return self.outer * self.inner

    @property
    def total_steps(self) -> int:
        """Optimizer steps of both stages."""
        return self.admm_steps + self.retrain

    @property
    def retrain_schedule(self) -> Any:
        """Learning rate of retraining: a number or a schedule."""
        if callable(self.retrain_learning_rate) or self.retrain_decay == "constant" or not self.retrain:
            return self.retrain_learning_rate
        return optax.cosine_decay_schedule(self.retrain_learning_rate, self.retrain)

    def stopped(self, outer: int) -> "CompressConfig":
        """The schedule of a run whose ADMM stage ended after `outer` iterations: the steps saved go to retraining."""
        return dataclasses.replace(self, outer=outer, retrain=self.total_steps - outer * self.inner)

    def pieces(self) -> "CompressConfig":
        """The schedule of `gradual` in place of the ADMM stage: its steps and its learning rate, inside sets."""
        changes = {"retrain": self.admm_steps, "retrain_learning_rate": self.learning_rate, "chunk": self.inner}
        return dataclasses.replace(self, outer=0, retrain_decay="constant", **changes)

    def one_shot(self) -> "CompressConfig":
        """The control arm: no ADMM, and retraining with the same total number of steps."""
        return dataclasses.replace(self, outer=0, retrain=self.total_steps)

    def concrete(self) -> "CompressConfig":
        """The same settings with arrays turned to numbers, which makes them hashable."""
        names = ("rho", "growth", "learning_rate", "retrain_learning_rate")
        arrays = {name: getattr(self, name) for name in names if hasattr(getattr(self, name), "dtype")}
        return dataclasses.replace(self, **{name: float(value) for name, value in arrays.items()})

    def describe(self) -> dict[str, Any]:
        """The settings as JSON-able values; functions by their qualified names."""
        return {field.name: _described(getattr(self, field.name)) for field in dataclasses.fields(self)}


def _described(value: Any) -> Any:
    if isinstance(value, functools.partial):
        parts = [*map(_described, value.args), *(f"{k}={_described(v)}" for k, v in value.keywords.items())]
        return f"{_described(value.func)}({', '.join(map(str, parts))})"
    if callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return value if isinstance(value, bool | int | float | str | None) else float(value)
