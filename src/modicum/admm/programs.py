"""The jitted chunks of a compression run, shared between runs that differ in numbers only."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from modicum.admm import leaves
from modicum.admm.config import CompressConfig
from modicum.admm.leaves import Constraints
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
    """Functions of a run; the argument `arrays` of each is the first part of `split`.

    Attributes:
        outer: `(carry, arrays, data) -> (carry, info)`, one outer iteration.
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


def split(constraints: Constraints) -> tuple[list[Any], tuple[Any, tuple[Any, ...]]]:
    """Arrays of the constraints, and the rest of them as a hashable key: structure and plain numbers.

    Plain numbers stay what they are, so that a constraint may still use them as shapes.
    """
    flat, treedef = jax.tree.flatten(constraints)
    arrays = [leaf if isinstance(leaf, jax.Array | np.ndarray) else None for leaf in flat]
    numbers = tuple(leaf if array is None else None for leaf, array in zip(flat, arrays, strict=True))
    return arrays, (treedef, numbers)


@functools.lru_cache(maxsize=8)
def compiled(loss_fn: LossFn, batch_fn: Callable[..., Any] | None, config: CompressConfig, rest: Any) -> Programs:
    """The programs of a run, the same ones for the same arguments; nothing is compiled before the first call.

    Args:
        loss_fn: `(params, batch) -> scalar`.
        batch_fn: `step -> batch`, or `None` where the batches come as the argument `data`.
        config: the schedule, hashable (`CompressConfig.concrete`).
        rest: the second part of `split`.

    Returns:
        The programs.
    """
    join = functools.partial(_joined, rest)

    @jax.jit
    def step(carry: AdmmCarry, arrays: list[Any], data: Any) -> tuple[AdmmCarry, jax.Array]:
        return admm_step(loss_fn, join(arrays), config, carry, batch_fn or data)

    @jax.jit
    def dual(carry: AdmmCarry, arrays: list[Any], losses: Any) -> tuple[AdmmCarry, AdmmInfo]:
        return dual_step(join(arrays), config, carry, losses)

    @jax.jit
    def looped_outer(carry: AdmmCarry, arrays: list[Any], data: Any) -> tuple[AdmmCarry, AdmmInfo]:
        return outer_iteration(loss_fn, join(arrays), config, carry, batch_fn or data)

    def stepped_outer(carry: AdmmCarry, arrays: list[Any], data: Any) -> tuple[AdmmCarry, AdmmInfo]:
        losses = []
        for _ in range(config.inner):
            carry, loss = step(carry, arrays, data)
            losses.append(loss)
        return dual(carry, arrays, np.array(jax.device_get(losses)))

    @jax.jit
    def project(params: Params, arrays: list[Any]) -> tuple[Params, Params]:
        projected = leaves.project(join(arrays), params)
        return projected, leaves.chart(join(arrays), projected)[0]

    def builders(projected: Params, arrays: list[Any]) -> Any:
        return split(leaves.on_constrained(lambda constraint, w: constraint.chart(w)[1], join(arrays), projected))

    @functools.partial(jax.jit, static_argnames=("kind", "steps"))
    def some_steps(
        carry: RetrainCarry, built: list[Any], arrays: list[Any], data: Any, first: Any, kind: Any, steps: int
    ) -> tuple[RetrainCarry, jax.Array]:
        def one(carry: RetrainCarry, number: Any) -> tuple[RetrainCarry, jax.Array]:
            build = functools.partial(leaves.build, join(arrays), _joined(kind, built))
            return retrain_step(loss_fn, build, config, carry, batch_fn or data, number)

        if steps == 1:
            carry, loss = one(carry, first)
            return carry, loss[None]
        return jax.lax.scan(one, carry, first + jnp.arange(steps))

    def retrain(
        carry: RetrainCarry, builders: Any, arrays: list[Any], data: Any, first: int, steps: int
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
    def final(carry: RetrainCarry, built: list[Any], arrays: list[Any], kind: Any) -> Params:
        return leaves.build(join(arrays), _joined(kind, built), carry.theta)

    def finish(carry: RetrainCarry, builders: Any, arrays: list[Any]) -> Params:
        built, kind = builders
        return final(carry, built, arrays, kind)

    return Programs(looped_outer if loops_on_device() else stepped_outer, project, builders, retrain, finish)


def _joined(rest: tuple[Any, tuple[Any, ...]], arrays: list[Any]) -> Any:
    """The inverse of `split`."""
    treedef, numbers = rest
    return treedef.unflatten(
        [number if array is None else array for array, number in zip(arrays, numbers, strict=True)]
    )
