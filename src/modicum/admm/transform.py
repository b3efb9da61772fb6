"""ADMM as an optax transformation, and the pure pieces it is made of.

Minimize `f(W)` with every `W_l` in a set `S_l`. Split `W = Z` and keep a scaled dual `U`:

- W: in the prox form (default) any optimizer's step, then `W <- (W + t (Z - U)) / (1 + t)`, `t = learning_rate rho`;
  in the penalty form the gradient of `f + rho/2 norm(W - Z + U)^2` through the optimizer;
- Z: `Z = proj(W + U)`;
- U: `U <- U + W - Z`;
- rho: `rho <- growth rho`, `U <- U / growth`, so that the unscaled dual `rho U` stays.

A constraint with a tuple `parts`, an intersection of `n` sets without a projection of its own, holds in consensus:
each part has its own `Z_i` and `U_i`, `W <- (W+ + t sum_i (Z_i - U_i)) / (1 + n t)`, and the penalty is
`rho/2 sum_i norm(W - Z_i + U_i)^2`. PatDNN's two splits, patterns and connectivity, are the case of two parts.

The penalty form is the literature's. An adaptive optimizer rescales its penalty by `1 / sqrt(v)`, so that rho means
another thing in each layer. The prox form is the exact minimizer of `norm(W - W+)^2 / 2 + t/2 norm(W - Z + U)^2`,
where `W+` is the optimizer's step: stable for every rho.

Reference: Boyd et al., "Distributed Optimization and Statistical Learning via ADMM" (2011), sections 3.1.1, 3.4.1,
7.1 and 9.1; Zhang et al., "A Systematic DNN Weight Pruning Framework using ADMM" (ECCV 2018). Differences: the
prox form, and the rescaled dual (the first-party code grows rho and leaves U as it is).
"""

import functools
from numbers import Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from modicum.admm.leaves import (
    Constraints,
    as_tuple,
    constrained_by_path,
    on_constrained,
    on_constrained_or_keep,
    per_part,
    resolve,
)
from modicum.core import Params, check

FORMS = ("prox", "penalty")

# A penalty this strong is an equality; beyond it float32 products learning_rate * rho could overflow.
_MAX_RHO = 1e30


class AdmmState(NamedTuple):
    """What the next step needs.

    Attributes:
        z: projected copies, float32 at constrained leaves (a tuple where the constraint is split), `None` elsewhere.
        u: scaled duals, likewise.
        rho: penalty strength.
        step: optimizer steps taken.
    """

    z: Params
    u: Params
    rho: Float[Array, ""]
    step: Int[Array, ""]


def _float32(w: Any) -> Array:
    return jnp.asarray(w, jnp.float32)


def init(params: Params, constraints: Constraints, rho: Any) -> AdmmState:
    """The state at the start: `Z = proj(W)`, `U = 0`.

    Args:
        params: the parameters.
        constraints: pytree of constraints or `None` (see `leaves.resolve`).
        rho: penalty strength, above 0; may be traced.

    Returns:
        The state, with memory for constrained leaves only.
    """

    def projected(constraint: Any, w: Array) -> Any:
        return per_part(lambda part: part.project(_float32(w)), constraint)

    z = on_constrained(projected, constraints, params)
    u = jax.tree.map(jnp.zeros_like, z)
    return AdmmState(z, u, jnp.asarray(rho, jnp.float32), jnp.zeros((), jnp.int32))


def pull(updates: Params, state: AdmmState, params: Params, constraints: Constraints, learning_rate: Any) -> Params:
    """The prox form's share of one step: `W <- (W+ + t sum_i (Z_i - U_i)) / (1 + n t)` with `W+ = W + updates`.

    Args:
        updates: what the optimizer would add to the parameters.
        state: the ADMM state; only `z`, `u` and `rho` are read.
        params: the parameters before the step.
        constraints: pytree of constraints or `None`.
        learning_rate: step size of the optimizer that made `updates`; `t = learning_rate * rho`.

    Returns:
        Updates that lead to the pulled weights; those of free leaves are returned as they came.
    """
    t = jnp.asarray(learning_rate, jnp.float32) * state.rho

    def pulled(_: Any, update: Array, w: Array, z: Any, u: Any) -> Array:
        moved = _float32(w) + _float32(update)
        gaps = [z - u - moved for z, u in zip(as_tuple(z), as_tuple(u), strict=True)]
        return (moved + t / (1 + len(gaps) * t) * sum(gaps[1:], gaps[0]) - _float32(w)).astype(update.dtype)

    return on_constrained_or_keep(pulled, constraints, updates, params, state.z, state.u)


def penalize(gradients: Params, state: AdmmState, params: Params, constraints: Constraints) -> Params:
    """The penalty form's share of one step: gradients plus `rho sum_i (W - Z_i + U_i)`.

    Args:
        gradients: gradients of the loss.
        state: the ADMM state; only `z`, `u` and `rho` are read.
        params: the parameters.
        constraints: pytree of constraints or `None`.

    Returns:
        Gradients of `f + rho/2 |W - Z + U|^2`; those of free leaves are returned as they came.
    """

    def penalized(_: Any, gradient: Array, w: Array, z: Any, u: Any) -> Array:
        gaps = [_float32(w) - z + u for z, u in zip(as_tuple(z), as_tuple(u), strict=True)]
        return (_float32(gradient) + state.rho * sum(gaps[1:], gaps[0])).astype(gradient.dtype)

    return on_constrained_or_keep(penalized, constraints, gradients, params, state.z, state.u)


def residual(state: AdmmState, params: Params, constraints: Constraints) -> Float[Array, ""]:
    """Relative primal residual `|W - Z| / |W|` over all constrained leaves together; 0 where all weights are 0.

    Of a split constraint the part that lies furthest away counts.
    """

    def square(_: Any, w: Array, z: Any) -> tuple[Array, Array]:
        far = [jnp.sum((_float32(w) - each) ** 2) for each in as_tuple(z)]
        return functools.reduce(jnp.maximum, far), jnp.sum(_float32(w) ** 2)

    squares = on_constrained(square, constraints, params, state.z)
    pairs = constrained_by_path(constraints, squares).values()
    distance = jnp.sqrt(sum((pair[0] for pair in pairs), jnp.zeros(())))
    norm = jnp.sqrt(sum((pair[1] for pair in pairs), jnp.zeros(())))
    return distance / jnp.where(norm > 0, norm, 1)


def dual_update(
    state: AdmmState, params: Params, constraints: Constraints, growth: Any = 1.0, tolerance: float = 0.0
) -> AdmmState:
    """The outer step: `Z = proj(W + U)`, `U <- U + W - Z`, `rho <- growth rho`, `U <- U rho_old / rho_new`.

    Each part of a split constraint makes it on its own.

    Args:
        state: the ADMM state.
        params: the parameters `W`.
        constraints: pytree of constraints or `None`.
        growth: factor of rho, above 0; may be traced.
        tolerance: rho stays once `residual` lies below it.

    Returns:
        The state after the update; `step` is untouched.
    """

    def moved(constraint: Any, w: Array, u: Any) -> Any:
        return per_part(lambda _, u: _float32(w) + u, constraint, u)

    def projected(constraint: Any, target: Any) -> Any:
        return per_part(lambda part, v: part.project(v), constraint, target)

    target = on_constrained(moved, constraints, params, state.u)
    z = on_constrained(projected, constraints, target)
    settled = residual(state._replace(z=z), params, constraints) < tolerance
    rho = jnp.where(settled, state.rho, jnp.minimum(state.rho * growth, _MAX_RHO))
    # rho = 0, the control arm of a sweep, has no dual to keep
    rescale = jnp.where(rho > 0, state.rho / jnp.where(rho > 0, rho, 1), 1)
    u = jax.tree.map(lambda v, z: rescale * (v - z), target, z)
    return state._replace(z=z, u=u, rho=rho)


def check_settings(rho: Any, growth: Any, tolerance: Any, form: str) -> None:
    """Refuse settings outside their range; traced or array values pass."""
    for name, value in {"rho": rho, "growth": growth}.items():
        if isinstance(value, Real) or not hasattr(value, "dtype"):
            check.positive(**{name: value})
    check.non_negative(tolerance=tolerance)
    check.one_of(FORMS, form=form)


def admm(
    constraints: Constraints,
    rho: Any,
    growth: Any = 1.3,
    every: int | None = 100,
    form: str = "prox",
    *,
    learning_rate: Any = 1.0,
    tolerance: float = 1e-3,
) -> optax.GradientTransformationExtraArgs:
    """Pulls weights onto their constraint sets while any optimizer trains them.

    Chain the prox form after the optimizer and the penalty form before it::

        optax.chain(optax.adam(schedule), admm(constraints, rho=3.0, learning_rate=schedule))
        optax.chain(admm(constraints, rho=1e-2, form="penalty"), optax.adam(schedule))

    A constraint that fits itself to weights (a level scale of `None`) does so at each projection; freeze it with
    `constraint.fit(w)` beforehand to hold Z still.

    Args:
        constraints: pytree like params with a constraint or `None` at each leaf, or a callable `params -> pytree`.
        rho: penalty strength, above 0; may be traced. With `t = learning_rate * rho` a step of the prox form keeps
            the share `1 / (1 + t)` of a weight's distance to `Z - U`.
        growth: factor of rho at each dual update, above 0.
        every: steps between dual updates. `None`: the caller makes them with `dual_update`, which is the form for
            states that come in batched: under `vmap` over the state the branch on the step counter becomes a select,
            and the projection would run in every step (58 times slower where it was measured).
        form: "prox" (after the optimizer) or "penalty" (before it).
        learning_rate: step size of the optimizer before, a number or an optax schedule: give both the same. The
            default 1 makes rho itself the pull of one step. The penalty form does not read it: its penalty goes
            through the optimizer.
        tolerance: rho stops growing once `|W - Z| / |W|` lies below it.

    Returns:
        The transformation; its state is an `AdmmState`. Its `update` needs `params`.

    Raises:
        ValueError: if an argument is out of range, if the trees do not match, or if `update` gets no params.

    Example:
        >>> from modicum.constraints import TopK
        >>> optimizer = optax.chain(optax.sgd(0.1), admm({"w": TopK(1)}, rho=1.0, learning_rate=0.1))
        >>> state = optimizer.init({"w": jnp.array([2.0, 1.0])})
        >>> state[1].z["w"].tolist()
        [2.0, 0.0]

    Reference:
        Boyd et al. (2011), section 9.1; prox form and dual rescaling as in the module's docstring.
    """
    check_settings(rho, growth, tolerance, form)
    if every is not None:
        check.integer(1, every=every)

    def init_fn(params: Params) -> AdmmState:
        return init(params, resolve(constraints, params), rho)

    def maybe_dual_update(due: Any, state: AdmmState, params: Params, tree: Constraints) -> AdmmState:
        if every is None:
            return state
        return jax.lax.cond(
            due, lambda state: dual_update(state, params, tree, growth, tolerance), lambda state: state, state
        )

    def update_fn(updates: Params, state: Any, params: Params | None = None, **extra: Any) -> tuple[Params, AdmmState]:
        del extra
        if params is None:
            raise ValueError("params must be given to the update of admm, got None")
        tree = resolve(constraints, params)
        step = state.step + 1
        if form == "penalty":
            # The optimizer comes after, so a step's outcome is first seen in the next one.
            state = maybe_dual_update((state.step > 0) & (state.step % (every or 1) == 0), state, params, tree)
            return penalize(updates, state, params, tree), state._replace(step=step)
        rate = learning_rate(state.step) if callable(learning_rate) else learning_rate
        updates = pull(updates, state, params, tree, rate)
        moved = optax.apply_updates(params, updates)
        return updates, maybe_dual_update(step % (every or 1) == 0, state._replace(step=step), moved, tree)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
