"""ADMM, hard projection and retraining as pure functions: a scan of scans that jits and vmaps.

The dual update stands outside the inner scan instead of behind a branch on a counter, so that a batched state
(`vmap` over seeds, rho, rates) does not make every step pay for a projection.
"""

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from modicum.admm import leaves
from modicum.admm.config import CompressConfig
from modicum.admm.leaves import Constraints, as_tuple, constrained_by_path, on_constrained
from modicum.admm.sets import Arrays, Sets, fitted_sets, split
from modicum.admm.transform import AdmmState, dual_update, init, penalize, pull
from modicum.core import Params

LossFn = Callable[[Params, Any], Any]
"""`(params, batch) -> scalar`."""

Batches = Any
"""A traceable function `step -> batch`, or a pytree with a leading axis of steps that is used cyclically."""


class AdmmCarry(NamedTuple):
    """What one outer iteration hands to the next.

    Attributes:
        params: the weights.
        optimizer: state of the optimizer.
        admm: copies, duals and rho.
        fitted: arrays of the fitted constraints (`sets.split`); they move in the first `refit` iterations.
    """

    params: Params
    optimizer: Any
    admm: AdmmState
    fitted: Arrays


class AdmmInfo(NamedTuple):
    """What an outer iteration shows.

    Attributes:
        losses: loss at each inner step.
        rho: penalty strength of these steps.
        primal: `norm(W - Z) / norm(W)` after the dual update, by path; of a split constraint the largest.
        dual: `norm(Z - Z_old) / norm(Z)`, likewise.
    """

    losses: Array
    rho: Array
    primal: dict[str, Array]
    dual: dict[str, Array]


class RetrainCarry(NamedTuple):
    """What one retraining step hands to the next: the free coordinates and the optimizer's state."""

    theta: Params
    optimizer: Any


class StagesInfo(NamedTuple):
    """What `stages` shows beside the weights.

    Attributes:
        admm: history of the ADMM stage, a leading axis of outer iterations on each array; NaN where it had stopped.
        outer: outer iterations made, fewer than `config.outer` where `config.stop` ended them.
        projected: parameters right after the hard projection.
        retrain_losses: loss at each retraining step.
        violation_projected: violation right after the hard projection, by path.
        violation_retrained: violation at the end, by path; exactly 0.
        constraints: the constraints as last fitted, which the weights satisfy.
    """

    admm: AdmmInfo
    outer: Array
    projected: Params
    retrain_losses: Array
    violation_projected: dict[str, Array]
    violation_retrained: dict[str, Array]
    constraints: Constraints


def batch_at(batches: Batches, step: Any) -> Any:
    """The batch of a step.

    Args:
        batches: a traceable function `step -> batch`, or a pytree with a leading axis of steps, used cyclically.
        step: number of the step, from 0; may be traced.

    Returns:
        The batch.

    Raises:
        ValueError: if the leaves of a pytree differ in their number of steps, or hold none.

    Example:
        >>> float(batch_at(jnp.array([1.0, 2.0, 3.0]), 4))
        2.0
    """
    if callable(batches):
        return batches(step)
    lengths = {jnp.shape(leaf)[0] if jnp.ndim(leaf) else 0 for leaf in jax.tree.leaves(batches)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"batches must share one leading axis of at least one step, got lengths {sorted(lengths)}")
    (length,) = lengths
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[step % length], batches)


def _relative(a: Iterable[Array], b: Iterable[Array]) -> Array:
    """The largest `norm(a - b) / norm(a)` over pairs."""

    def one(a: Array, b: Array) -> Array:
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
        norm = jnp.linalg.norm(a)
        return jnp.linalg.norm(a - b) / jnp.where(norm > 0, norm, 1)

    return functools.reduce(jnp.maximum, map(one, a, b))


def _step(optimizer: Any, loss_fn: LossFn, params: Params, state: Any, batch: Any, edit: Any) -> Any:
    """Loss, updates and new optimizer state; line searches and loss-driven optimizers get what they ask for."""
    loss, gradients = jax.value_and_grad(loss_fn)(params, batch)
    gradients = edit(gradients)
    updates, state = optax.with_extra_args_support(optimizer).update(
        gradients, state, params, value=loss, grad=gradients, value_fn=lambda params: loss_fn(params, batch)
    )
    return jnp.asarray(loss, jnp.float32), updates, state


def start_admm(params: Params, constraints: Constraints, config: CompressConfig) -> AdmmCarry:
    """The state before the first outer iteration: `Z = proj(W)`, `U = 0`, a fresh optimizer.

    Args:
        params: the parameters.
        constraints: pytree of fitted constraints or `None`.
        config: the schedule.
    """
    optimizer = config.optimizer(config.learning_rate)
    fitted, _ = split(constraints)
    return AdmmCarry(params, optimizer.init(params), init(params, constraints, config.rho), fitted)


def admm_step(
    loss_fn: LossFn, constraints: Constraints, config: CompressConfig, carry: AdmmCarry, batches: Batches
) -> tuple[AdmmCarry, Array]:
    """One optimizer step pulled towards the sets.

    Args:
        loss_fn: `(params, batch) -> scalar`.
        constraints: pytree of fitted constraints or `None`.
        config: the schedule.
        carry: the state before; `carry.admm.step` says which batch comes next.
        batches: see `batch_at`.

    Returns:
        The state after, and the loss.
    """
    params, state, admm, _ = carry
    prox = config.form == "prox"
    loss, updates, state = _step(
        config.optimizer(config.learning_rate),
        loss_fn,
        params,
        state,
        batch_at(batches, admm.step),
        lambda gradients: gradients if prox else penalize(gradients, admm, params, constraints),
    )
    if prox:
        rate = config.learning_rate(admm.step) if callable(config.learning_rate) else config.learning_rate
        updates = pull(updates, admm, params, constraints, rate)
    params = optax.apply_updates(params, updates)
    return carry._replace(params=params, optimizer=state, admm=admm._replace(step=admm.step + 1)), loss


def dual_step(
    sets: Sets, config: CompressConfig, carry: AdmmCarry, losses: Array, number: Any
) -> tuple[AdmmCarry, AdmmInfo]:
    """The dual update that ends an outer iteration; in the first `config.refit` the constraints are fitted anew.

    Args:
        sets: the constraints; `carry.fitted` holds the arrays of the fitted ones.
        config: the schedule.
        carry: the state before.
        losses: what the iteration's steps gave, for the record.
        number: of the outer iteration, from 0; may be traced.

    Returns:
        The state after, and what there is to show.
    """
    params, state, before, arrays = carry
    if config.refit:
        # the number is the same for all that a vmap batches, so that this stays a branch
        arrays = jax.lax.cond(
            number < config.refit, lambda: sets.refit(carry.fitted, params, before.u), lambda: carry.fitted
        )
    constraints = sets.fitted(arrays)
    after = dual_update(before, params, constraints, config.growth, config.tolerance)
    primal = on_constrained(lambda _, w, z: _relative(itertools.repeat(w), as_tuple(z)), constraints, params, after.z)
    dual = on_constrained(lambda _, z, old: _relative(as_tuple(z), as_tuple(old)), constraints, after.z, before.z)
    info = AdmmInfo(
        losses, before.rho, constrained_by_path(constraints, primal), constrained_by_path(constraints, dual)
    )
    return AdmmCarry(params, state, after, arrays), info


def outer_iteration(
    loss_fn: LossFn, sets: Sets, config: CompressConfig, carry: AdmmCarry, batches: Batches, number: Any
) -> tuple[AdmmCarry, AdmmInfo]:
    """`config.inner` optimizer steps pulled towards the sets, then one dual update.

    Args:
        loss_fn: see `admm_step`.
        sets: see `dual_step`.
        config: the schedule.
        carry: the state before.
        batches: see `batch_at`.
        number: see `dual_step`.
    """
    constraints = sets.fitted(carry.fitted)
    carry, losses = jax.lax.scan(
        lambda carry, _: admm_step(loss_fn, constraints, config, carry, batches), carry, length=config.inner
    )
    return dual_step(sets, config, carry, losses, number)


def _settled(info: AdmmInfo, config: CompressConfig) -> Array:
    """Whether the residual of every leaf lies below `config.stop`."""
    return functools.reduce(jnp.maximum, info.primal.values(), jnp.zeros(())) < config.stop


def _until_settled(
    iteration: Callable[[AdmmCarry, Any], tuple[AdmmCarry, AdmmInfo]], config: CompressConfig, start: AdmmCarry
) -> tuple[AdmmCarry, AdmmInfo, Array]:
    """The outer iterations, their history, and how many were made before all residuals lay below `config.stop`."""
    if not config.stop:
        carry, info = jax.lax.scan(iteration, start, jnp.arange(config.outer))
        return carry, info, jnp.asarray(config.outer)

    def idle(carry: AdmmCarry, number: Any) -> tuple[AdmmCarry, AdmmInfo]:
        _, shapes = jax.eval_shape(iteration, carry, number)
        return carry, jax.tree.map(lambda shape: jnp.full(shape.shape, jnp.nan, shape.dtype), shapes)

    def step(state: tuple[AdmmCarry, Array], number: Any) -> tuple[tuple[AdmmCarry, Array], tuple[AdmmInfo, Array]]:
        carry, running = state
        carry, info = jax.lax.cond(running, iteration, idle, carry, number)
        return (carry, running & ~_settled(info, config)), (info, running)

    (carry, _), (info, running) = jax.lax.scan(step, (start, jnp.asarray(True)), jnp.arange(config.outer))
    return carry, info, jnp.sum(running)


def start_retraining(theta: Params, config: CompressConfig) -> RetrainCarry:
    """The state before the first retraining step: the free coordinates and a fresh optimizer."""
    return RetrainCarry(theta, config.optimizer(config.retrain_schedule).init(theta))


def retrain_step(
    loss_fn: LossFn,
    build: Callable[[Params], Params],
    config: CompressConfig,
    carry: RetrainCarry,
    batches: Batches,
    number: Any,
) -> tuple[RetrainCarry, Array]:
    """One optimizer step in the free coordinates, which never leaves the sets.

    Args:
        loss_fn: `(params, batch) -> scalar`.
        build: from free coordinates to parameters (`leaves.chart` of the hard-projected ones).
        config: the schedule.
        carry: the state before.
        batches: see `batch_at`.
        number: of the step within the stage; may be traced.

    Returns:
        The state after, and the loss.
    """
    loss, updates, state = _step(
        config.optimizer(config.retrain_schedule),
        lambda theta, batch: loss_fn(build(theta), batch),
        carry.theta,
        carry.optimizer,
        batch_at(batches, config.admm_steps + number),
        lambda gradients: gradients,
    )
    return RetrainCarry(optax.apply_updates(carry.theta, updates), state), loss


def stages(
    loss_fn: LossFn, constraints: Constraints, config: CompressConfig
) -> Callable[[Params, Batches], tuple[Params, StagesInfo]]:
    """ADMM, hard projection and retraining inside the sets as one pure function.

    Level scales, pattern libraries and other numbers that a constraint reads off the weights are fitted to the given
    weights, once more at each of the first `config.refit` dual updates, and stay from there on: refitted throughout,
    Z would chase itself. So with `refit` one program extracts libraries, selects patterns and connectivity, and
    trains the weights, all at a time; under `vmap` each seed has its own.

    Once the residuals lie below `config.stop` the remaining outer iterations leave everything as it is. Retraining
    makes `config.retrain` steps all the same (`compress` gives it the steps saved). Under `vmap` the branch becomes
    a select: the work is done, and its outcome dropped.

    It jits (with `static_argnums=1` where `batches` is a function), and vmaps over parameters (seeds), over
    `config.rho` and over numbers inside constraints (rates)::

        jax.jit(jax.vmap(stages(loss_fn, constraints, config), in_axes=(0, None)))(stacked_params, batches)
        jax.vmap(lambda rho: stages(loss_fn, constraints, dataclasses.replace(config, rho=rho))(params, batches))(rhos)

    Args:
        loss_fn: `(params, batch) -> scalar`; randomness comes with the batch.
        constraints: pytree like params with a constraint or `None` at each leaf, or a callable `params -> pytree`.
        config: the schedule.

    Returns:
        `fn(params, batches) -> (params, info)`. A loss that is not finite shows in `info`; nothing is raised.
    """

    def run(params: Params, batches: Batches) -> tuple[Params, StagesInfo]:
        sets, arrays = fitted_sets(leaves.resolve(constraints, params), params)

        def iteration(carry: AdmmCarry, number: Any) -> tuple[AdmmCarry, AdmmInfo]:
            return outer_iteration(loss_fn, sets, config, carry, batches, number)

        start = start_admm(params, sets.fitted(arrays), config)
        carry, admm_info, made = _until_settled(iteration, config, start)
        fitted = sets.fitted(carry.fitted)
        projected = leaves.project(fitted, carry.params)
        theta, build = leaves.chart(fitted, projected)
        retrained, losses = jax.lax.scan(
            lambda carry, number: retrain_step(loss_fn, build, config, carry, batches, number),
            start_retraining(theta, config),
            jnp.arange(config.retrain),
        )
        params = build(retrained.theta)
        certificates = leaves.violations(fitted, projected), leaves.violations(fitted, params)
        return params, StagesInfo(admm_info, made, projected, losses, *certificates, fitted)

    return run
