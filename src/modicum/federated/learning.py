"""Federated learning over stacked clients: local steps by `vmap`, then one step of the server.

FedAvg, FedProx and FedOpt are one algorithm: each client starts from the global model and makes some steps on
`loss + proximal / 2 ||params - global||^2`; the server takes the mean of how far they moved as a negative gradient.
With plain gradient descent of rate 1 at the server it is FedAvg, with a proximal term FedProx, with any other optax
transformation FedOpt (FedAvgM, FedAdam, FedYogi).

How updates travel is not decided here: the sum may be plain, or come out of `sefl`, `secagg` or an enclave.

Reference:
    McMahan et al. (AISTATS 2017), Li et al., Federated Optimization in Heterogeneous Networks (MLSys 2020), Reddi et
    al., Adaptive Federated Optimization (ICLR 2021).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

from modicum.core import Constraint, Params, check, leaves_by_path, loops_on_device

LossFn = Callable[[Params, Any], tuple[Array, Mapping[str, Array]]]
"""`(params, batch) -> (loss, metrics)`."""


class ClientsState(NamedTuple):
    """All clients at work, the first axis of each leaf."""

    params: Params
    opt_state: Any


LocalStep = Callable[[ClientsState, Any, Params, Mapping[str, Array]], tuple[ClientsState, Array]]


def local_step(
    loss_fn: LossFn, optimizer: optax.GradientTransformation, proximal: float = 0.0, pull: float = 0.0
) -> LocalStep:
    """One step of all clients at once.

    Args:
        loss_fn: what each client minimizes.
        optimizer: how; its state starts anew in each round.
        proximal: FedProx's `mu`, the pull towards the global model, at least 0.
        pull: weight of the pull towards `target`, ADMM's rho, at least 0.

    Returns:
        `(state, batches, params, target) -> (state, losses)`, compiled: batches stacked by client, `params` the global
        model, `target` what some of its leaves are pulled towards, by path (`pull_target`; `{}` for none).
    """
    check.non_negative(proximal=proximal, pull=pull)

    def penalized(params: Params, batch: Any, center: Params, target: Mapping[str, Array]) -> tuple[Array, Array]:
        loss, _ = loss_fn(params, batch)
        total = loss
        if proximal:
            total = total + proximal / 2 * optax.tree.norm(optax.tree.sub(params, center), squared=True)
        leaves = leaves_by_path(params)
        for name, anchor in target.items():
            total = total + pull / 2 * jnp.sum((leaves[name] - anchor) ** 2)
        return total, loss

    def one(state: ClientsState, batch: Any, center: Params, target: Mapping[str, Array]) -> tuple[ClientsState, Array]:
        (_, loss), gradient = jax.value_and_grad(penalized, has_aux=True)(state.params, batch, center, target)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        return ClientsState(optax.apply_updates(state.params, updates), opt_state), loss

    return jax.jit(jax.vmap(one, in_axes=(0, 0, None, None)), donate_argnums=0)


def clients_start(params: Params, optimizer: optax.GradientTransformation, clients: int) -> ClientsState:
    """So many clients at the global model."""

    def stacked(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf)[None], clients, axis=0), tree)

    return ClientsState(stacked(params), stacked(optimizer.init(params)))


def local_training(
    step: LocalStep,
    state: ClientsState,
    batch_fn: Callable[[Any], Any],
    steps: int,
    params: Params,
    target: Mapping[str, Array],
) -> tuple[Params, Float[Array, " clients"]]:
    """Some local steps of all clients.

    Args:
        step: see `local_step`; pass the same object in each round and nothing is compiled twice.
        state: see `clients_start`; its buffers are given up.
        batch_fn: `number of the step -> batches stacked by client`, traceable.
        steps: at least 1.
        params: the global model.
        target: see `local_step`.

    Returns:
        How far each client moved, stacked, and its mean loss. One compiled loop where these run well
        (`core.loops_on_device`), else one dispatch for each step.
    """
    check.integer(1, steps=steps)
    clients = jax.tree.leaves(state.params)[0].shape[0]
    losses = jnp.zeros(clients)
    if loops_on_device():

        def body(at: Array, carry: tuple[ClientsState, Array]) -> tuple[ClientsState, Array]:
            state, loss = step(carry[0], batch_fn(at), params, target)
            return state, carry[1] + loss

        state, losses = lax.fori_loop(0, steps, body, (state, losses))
    else:
        for at in range(steps):
            state, loss = step(state, batch_fn(at), params, target)
            losses = losses + loss
    moved = jax.tree.map(lambda mine, center: mine - center[None], state.params, params)
    return moved, losses / steps


def server_update(
    optimizer: optax.GradientTransformation, params: Params, opt_state: Any, mean: Params
) -> tuple[Params, Any]:
    """The server's step: the mean of the clients' moves is a negative gradient.

    Args:
        optimizer: `optax.sgd(1.0)` for FedAvg.
        params: the global model.
        opt_state: its state.
        mean: mean of the moves.
    """
    updates, opt_state = optimizer.update(optax.tree.scale(-1.0, mean), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def weighted_mean(moved: Params, weights: Float[Array, " clients"]) -> Params:
    """Mean of stacked moves, each client by its weight: what secure sums are compared with."""
    share = weights / jnp.sum(weights)
    return jax.tree.map(lambda leaf: jnp.tensordot(share, leaf, axes=1), moved)


class DualState(NamedTuple):
    """ADMM at the server: the projected model and the scaled dual variable, trees of the constrained leaves."""

    projected: dict[str, Array]
    dual: dict[str, Array]


def dual_start(leaves: Mapping[str, Array], constraints: Mapping[str, Constraint]) -> DualState:
    """Before the first round: `Z = project(W)`, `U = 0`.

    Args:
        leaves: the model's leaves by path (`core.leaves_by_path`).
        constraints: the set of each constrained leaf, by the same paths.

    Raises:
        ValueError: for a constraint on a leaf that there is not.
    """
    for name in constraints:
        check.one_of(tuple(leaves), constraint=name)
    return DualState(
        {name: constraint.project(leaves[name]) for name, constraint in constraints.items()},
        {name: jnp.zeros_like(leaves[name]) for name in constraints},
    )


def dual_update(state: DualState, leaves: Mapping[str, Array], constraints: Mapping[str, Constraint]) -> DualState:
    """After a round: `Z <- project(W + U)`, `U <- U + W - Z`. Server only, on the global model: no client sees it."""
    projected = {name: constraint.project(leaves[name] + state.dual[name]) for name, constraint in constraints.items()}
    return DualState(projected, {name: state.dual[name] + leaves[name] - projected[name] for name in constraints})


def pull_target(state: DualState) -> dict[str, Array]:
    """What clients are pulled towards: `Z - U` of each constrained leaf."""
    return {name: projected - state.dual[name] for name, projected in state.projected.items()}
