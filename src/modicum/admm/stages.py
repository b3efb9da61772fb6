"""ADMM, hard projection and retraining as pure functions: a scan of scans that jits and vmaps.

The dual update stands outside the inner scan instead of behind a branch on a counter, so that a batched state
(`vmap` over seeds, rho, rates) does not make every step pay for a projection.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from modicum.admm import leaves
from modicum.admm.config import CompressConfig
from modicum.admm.leaves import Constraints, constrained_by_path, on_constrained
from modicum.admm.transform import AdmmState, dual_update, init, penalize, pull
from modicum.core import Params

LossFn = Callable[[Params, Any], Any]
"""`(params, batch) -> scalar`."""

Batches = Any
"""A traceable function `step -> batch`, or a pytree with a leading axis of steps that is used cyclically."""


class AdmmCarry(NamedTuple):
    """What one outer iteration hands to the next."""

    params: Params
    optimizer: Any
    admm: AdmmState


class AdmmInfo(NamedTuple):
    """What an outer iteration shows.

    Attributes:
        losses: loss at each inner step.
        rho: penalty strength of these steps.
        primal: `norm(W - Z) / norm(W)` after the dual update, by path.
        dual: `norm(Z - Z_old) / norm(Z)`, by path.
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
        admm: history of the ADMM stage, a leading axis of outer iterations on each array.
        projected: parameters right after the hard projection.
        retrain_losses: loss at each retraining step.
        violation_projected: violation right after the hard projection, by path.
        violation_retrained: violation at the end, by path; exactly 0.
        constraints: the fitted constraints that the weights satisfy.
    """

    admm: AdmmInfo
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


def _relative(a: Array, b: Array) -> Array:
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    norm = jnp.linalg.norm(a)
    return jnp.linalg.norm(a - b) / jnp.where(norm > 0, norm, 1)


def _step(optimizer: Any, loss_fn: LossFn, params: Params, state: Any, batch: Any, edit: Any) -> Any:
    """Loss, updates and new optimizer state; line searches and loss-driven optimizers get what they ask for."""
    loss, gradients = jax.value_and_grad(loss_fn)(params, batch)
    gradients = edit(gradients)
    updates, state = optax.with_extra_args_support(optimizer).update(
        gradients, state, params, value=loss, grad=gradients, value_fn=lambda params: loss_fn(params, batch)
    )
    return jnp.asarray(loss, jnp.float32), updates, state


def start_admm(params: Params, constraints: Constraints, config: CompressConfig) -> AdmmCarry:
    """The state before the first outer iteration: `Z = proj(W)`, `U = 0`, a fresh optimizer."""
    optimizer = config.optimizer(config.learning_rate)
    return AdmmCarry(params, optimizer.init(params), init(params, constraints, config.rho))


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
    params, state, admm = carry
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
    return AdmmCarry(params, state, admm._replace(step=admm.step + 1)), loss


def dual_step(
    constraints: Constraints, config: CompressConfig, carry: AdmmCarry, losses: Array
) -> tuple[AdmmCarry, AdmmInfo]:
    """The dual update that ends an outer iteration.

    Args:
        constraints: pytree of fitted constraints or `None`.
        config: the schedule.
        carry: the state before.
        losses: what the iteration's steps gave, for the record.

    Returns:
        The state after, and what there is to show.
    """
    params, state, before = carry
    after = dual_update(before, params, constraints, config.growth, config.tolerance)
    primal = on_constrained(lambda _, w, z: _relative(w, z), constraints, params, after.z)
    dual = on_constrained(lambda _, z, old: _relative(z, old), constraints, after.z, before.z)
    info = AdmmInfo(
        losses, before.rho, constrained_by_path(constraints, primal), constrained_by_path(constraints, dual)
    )
    return AdmmCarry(params, state, after), info


def outer_iteration(
    loss_fn: LossFn, constraints: Constraints, config: CompressConfig, carry: AdmmCarry, batches: Batches
) -> tuple[AdmmCarry, AdmmInfo]:
    """`config.inner` optimizer steps pulled towards the sets, then one dual update; arguments as in `admm_step`."""
    carry, losses = jax.lax.scan(
        lambda carry, _: admm_step(loss_fn, constraints, config, carry, batches), carry, length=config.inner
    )
    return dual_step(constraints, config, carry, losses)


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

    Level scales and other numbers that a constraint reads off the weights are fitted to the given weights and stay:
    refitted on the way, Z would chase itself.

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
        fitted = leaves.fit(leaves.resolve(constraints, params), params)

        def outer(carry: AdmmCarry, _: None) -> tuple[AdmmCarry, AdmmInfo]:
            return outer_iteration(loss_fn, fitted, config, carry, batches)

        carry, admm_info = jax.lax.scan(outer, start_admm(params, fitted, config), length=config.outer)
        projected = leaves.project(fitted, carry.params)
        theta, build = leaves.chart(fitted, projected)
        start = start_retraining(theta, config)
        retrained, losses = jax.lax.scan(
            lambda carry, number: retrain_step(loss_fn, build, config, carry, batches, number),
            start,
            jnp.arange(config.retrain),
        )
        params = build(retrained.theta)
        certificates = leaves.violations(fitted, projected), leaves.violations(fitted, params)
        return params, StagesInfo(admm_info, projected, losses, *certificates, fitted)

    return run
