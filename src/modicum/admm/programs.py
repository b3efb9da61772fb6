"""The jitted chunks of a compression run, shared between runs that differ in numbers only."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from modicum.admm import leaves
from modicum.admm.config import CompressConfig
from modicum.admm.sets import Arrays, Sets, join, split
from modicum.admm.stages import (
    AdmmCarry,
    AdmmInfo,
    LossFn,
    RetrainCarry,
    admm_step,
    dual_step,
    outer_iteration,
    retrain_step,
)
from modicum.core import Params, loops_on_device


class Programs(NamedTuple):
    """Functions of a run. `arrays` are those of the fitted constraints, `given` those of the constraints as given.

    Attributes:
        outer: `(carry, given, number, data) -> (carry, info)`, one outer iteration.
        project: `(params, arrays) -> (params, theta)`, the hard projection and its free coordinates.
        builders: `(projected, arrays) -> builders`, what `retrain` and `finish` take.
        retrain: `(carry, builders, arrays, data, first, steps) -> (carry, losses)`, some retraining steps.
        finish: `(carry, builders, arrays) -> params`, the point that the free coordinates stand for.
    """

    outer: Callable[..., tuple[AdmmCarry, AdmmInfo]]
    project: Callable[..., tuple[Params, Params]]
    builders: Callable[..., Any]
    retrain: Callable[..., tuple[RetrainCarry, jax.Array]]
    finish: Callable[..., Params]


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Static:
    """A hashable value that leaves a jitted function beside its arrays."""

    value: Any


@functools.lru_cache(maxsize=16)
def compiled(
    loss_fn: LossFn, batch_fn: Callable[..., Any] | None, config: CompressConfig, rest: Any, given_rest: Any
) -> Programs:
    """The programs of a run, the same ones for the same arguments; nothing is compiled before the first call.

    Args:
        loss_fn: `(params, batch) -> scalar`.
        batch_fn: `step -> batch`, or `None` where the batches come as the argument `data`.
        config: the schedule, hashable (`CompressConfig.concrete`).
        rest: the second part of `split` of the fitted constraints.
        given_rest: the same of the constraints as given.

    Returns:
        The programs.
    """
    outer = _outer(loss_fn, batch_fn, config, rest, given_rest)
    return Programs(outer, *_projection(rest), *_retraining(loss_fn, batch_fn, config, rest))


def _outer(loss_fn: LossFn, batch_fn: Any, config: CompressConfig, rest: Any, given_rest: Any) -> Callable[..., Any]:
    def sets(given: Arrays) -> Sets:
        return Sets(join(given_rest, given), rest)

    @jax.jit
    def step(carry: AdmmCarry, data: Any) -> tuple[AdmmCarry, jax.Array]:
        return admm_step(loss_fn, join(rest, carry.fitted), config, carry, batch_fn or data)

    @jax.jit
    def dual(carry: AdmmCarry, given: Arrays, number: Any, losses: Any) -> tuple[AdmmCarry, AdmmInfo]:
        return dual_step(sets(given), config, carry, losses, number)

    @jax.jit
    def looped(carry: AdmmCarry, given: Arrays, number: Any, data: Any) -> tuple[AdmmCarry, AdmmInfo]:
        return outer_iteration(loss_fn, sets(given), config, carry, batch_fn or data, number)

    def stepped(carry: AdmmCarry, given: Arrays, number: Any, data: Any) -> tuple[AdmmCarry, AdmmInfo]:
        losses = []
        for _ in range(config.inner):
            carry, loss = step(carry, data)
            losses.append(loss)
        return dual(carry, given, number, np.array(jax.device_get(losses)))

    return looped if loops_on_device() else stepped


def _projection(rest: Any) -> tuple[Callable[..., tuple[Params, Params]], Callable[..., Any]]:
    @jax.jit
    def project(params: Params, arrays: Arrays) -> tuple[Params, Params]:
        projected = leaves.project(join(rest, arrays), params)
        return projected, leaves.chart(join(rest, arrays), projected)[0]

    def charted(projected: Params, arrays: Arrays) -> tuple[Arrays, Any]:
        return split(leaves.on_constrained(lambda constraint, w: constraint.chart(w)[1], join(rest, arrays), projected))

    @jax.jit
    def traced(projected: Params, arrays: Arrays) -> tuple[Arrays, _Static]:
        built, kind = charted(projected, arrays)
        return built, _Static(kind)

    def builders(projected: Params, arrays: Arrays) -> Any:
        built, kind = traced(projected, arrays)
        _, numbers = kind.value
        # a function that closes over arrays cannot leave a traced one: it is made outside
        return charted(projected, arrays) if any(map(callable, numbers)) else (built, kind.value)

    return project, builders


def _retraining(loss_fn: LossFn, batch_fn: Any, config: CompressConfig, rest: Any) -> tuple[Any, Any]:
    @functools.partial(jax.jit, static_argnames=("kind", "steps"))
    def some_steps(
        carry: RetrainCarry, built: Arrays, arrays: Arrays, data: Any, first: Any, kind: Any, steps: int
    ) -> tuple[RetrainCarry, jax.Array]:
        def one(carry: RetrainCarry, number: Any) -> tuple[RetrainCarry, jax.Array]:
            build = functools.partial(leaves.build, join(rest, arrays), join(kind, built))
            return retrain_step(loss_fn, build, config, carry, batch_fn or data, number)

        if steps == 1:
            carry, loss = one(carry, first)
            return carry, loss[None]
        return jax.lax.scan(one, carry, first + jnp.arange(steps))

    def retrain(
        carry: RetrainCarry, builders: Any, arrays: Arrays, data: Any, first: int, steps: int
    ) -> tuple[RetrainCarry, Any]:
        built, kind = builders
        if loops_on_device():
            return some_steps(carry, built, arrays, data, first, kind, steps)
        losses = []
        for number in range(first, first + steps):
            carry, loss = some_steps(carry, built, arrays, data, number, kind, 1)
            losses.append(loss)
        return carry, np.concatenate(jax.device_get(losses))

    @functools.partial(jax.jit, static_argnames="kind")
    def final(carry: RetrainCarry, built: Arrays, arrays: Arrays, kind: Any) -> Params:
        return leaves.build(join(rest, arrays), join(kind, built), carry.theta)

    def finish(carry: RetrainCarry, builders: Any, arrays: Arrays) -> Params:
        built, kind = builders
        return final(carry, built, arrays, kind)

    return retrain, finish
