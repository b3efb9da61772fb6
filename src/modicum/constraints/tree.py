"""The exact projection onto sets whose groups form a tree.

Each set here is a tree: a layer keeps some of its filters, a layer or a filter keeps `k` of its kernels, a kernel
takes a library pattern, a fragment takes one sign, a weight takes a level. The nearest point is found from the leaves
up: every node reports what it loses in each state an ancestor may put it in (a state is a sign), and every choice is
the best over its children.

Losses rather than gains decide patterns and signs. The two agree in exact arithmetic, but a sum of losses is
exactly 0 for a weight inside the set and for no other choice, while in a sum of gains a small weight drowns.

Reference:
    The nested rule: `max` over states of sums of children's gains; common sets are the case of one member.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from modicum.constraints import knapsack
from modicum.constraints.base import (
    as_view,
    floored,
    from_view,
    rank_mask,
    unit,
)
from modicum.constraints.plan import Plan, fragment_rows, pattern_table

_EXACT = lax.Precision.HIGHEST  # accelerators would round energies to bfloat16


class Choice(NamedTuple):
    """The discrete part of a projected point; None where the set has no such part."""

    kept: Bool[Array, " o i"] | None
    pattern: Int[Array, " o i"] | None
    negative: Bool[Array, " ..."] | None
    """Sign per fragment: `(o, i, fragments of a kernel)`, or `(o, fragments of a column)`."""
    filters: Bool[Array, " o"] | None = None


class _Leaf(NamedTuple):
    gain: Array
    kept: Array
    """Loss of a weight that stays."""
    dropped: Array
    """Loss of a weight that is set to zero."""


def _on_grid(plan: Plan, x: Array, dtype: Any) -> Array:
    return x if plan.grid is None else plan.grid.round(x, plan.scale, dtype)


def _leaf(plan: Plan, x: Array, dtype: Any) -> tuple[Array, _Leaf]:
    """Where each weight goes if it stays, and what that costs in units of the largest energy."""
    value = _on_grid(plan, x, dtype)
    factor = unit(x)
    a, b = x * factor, value * factor
    gain = floored(b * (2 * a - b), value == 0)
    return value, _Leaf(gain, floored(jnp.square(a - b), value == x), floored(jnp.square(a), x == 0))


def _share(x: Array, group: int, axis: int = 0) -> Array:
    """Sums over `group` consecutive filters; the last group may be shorter."""
    if group == 1:
        return x
    padded = jnp.pad(x, [(0, -x.shape[axis] % group if at == axis else 0) for at in range(x.ndim)])
    return padded.reshape(*x.shape[:axis], -1, group, *x.shape[axis + 1 :]).sum(axis + 1)


def _spread(x: Array, group: int, outputs: int) -> Array:
    """Gives each of `outputs` filters what its group chose."""
    return x if group == 1 else jnp.repeat(x, group, axis=0)[:outputs]


def _states(leaf: _Leaf, value: Array) -> Array:
    """What a weight loses when it stays under a positive and under a negative sign."""
    return jnp.stack([jnp.where(value > 0, leaf.kept, leaf.dropped), jnp.where(value < 0, leaf.kept, leaf.dropped)])


def _solve_inside(plan: Plan, leaf: _Leaf, value: Array, rows: int) -> Choice:
    """Fragments lie inside kernels, or there are none: each kernel is a subtree of its own."""
    outputs, kernels, taps = value.shape
    table = pattern_table(plan, taps)
    on = table.astype(jnp.float32)
    parts = taps // rows if rows else 1
    states = _states(leaf, value) if rows else leaf.kept[None]
    states = states.reshape(-1, outputs, kernels, parts, taps // parts)
    dropped = leaf.dropped.reshape(states.shape[1:])
    pieces = on.reshape(-1, parts, taps // parts)

    pattern = None
    if plan.patterns:
        loss = jnp.einsum("soifm,pfm->soifp", states, pieces, precision=_EXACT)
        loss = loss + jnp.einsum("oifm,pfm->oifp", dropped, 1 - pieces, precision=_EXACT)[None]
        kernel_loss = loss.min(axis=0).sum(axis=2)
        pattern = jnp.argmin(_share(kernel_loss, plan.pattern_group), axis=-1).astype(jnp.int32)
        pattern = _spread(pattern, plan.pattern_group, outputs)
    support = jnp.ones(value.shape, bool) if pattern is None else table[pattern]

    negative = None
    if rows:
        stays = support.reshape(dropped.shape)
        loss = jnp.where(stays[None], states, dropped[None]).sum(axis=-1)
        negative = loss[1] < loss[0]
        signs = jnp.repeat(negative, rows, axis=-1).reshape(value.shape)
        support = support & (signs == (value < 0))

    kept = None
    if plan.k is not None:
        group = plan.group or outputs
        gain = _share(jnp.where(support, leaf.gain, 0.0).sum(axis=-1), group)
        chosen = rank_mask(gain if plan.balanced else gain.reshape(-1), plan.k).reshape(gain.shape)
        kept = _spread(chosen, group, outputs)
    return Choice(kept, pattern, negative)


def _solve_spanning(plan: Plan, leaf: _Leaf, value: Array, span: int) -> Choice:
    """Each fragment spans several kernels: a kernel reports one loss per sign."""
    outputs, kernels, taps = value.shape
    table = pattern_table(plan, taps)
    on = table.astype(jnp.float32)
    states = _states(leaf, value)
    loss = jnp.einsum("soie,pe->soip", states, on, precision=_EXACT)
    loss = loss + jnp.einsum("oie,pe->oip", leaf.dropped, 1 - on, precision=_EXACT)[None]
    pattern = jnp.argmin(loss, axis=-1).astype(jnp.int32)
    kernel_loss = loss.min(axis=-1)

    # Pad after all choices inside kernels, with kernels that neither gain nor lose.
    pad = -kernels % span

    def fragments(x: Array) -> Array:
        padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, pad)])
        return padded.reshape(*x.shape[:-1], -1, span)

    kept = None
    if plan.k is None:
        total = fragments(kernel_loss).sum(axis=-1)
        negative = total[1] < total[0]
    else:
        agrees = jnp.stack([value > 0, value < 0]) & table[pattern]
        gain = jnp.where(agrees, leaf.gain[None], 0.0).sum(axis=-1)
        real = fragments(jnp.ones((kernels,), bool))
        most = kernels if plan.most is None else min(plan.most, kernels)  # a group may be shorter than it says
        dropped = fragments(leaf.dropped.sum(axis=-1))
        k = jnp.minimum(plan.k, kernels)
        chosen, negative = knapsack.split(fragments(kernel_loss), dropped, fragments(gain), real, k, most)
        kept = chosen.reshape(outputs, -1)[:, :kernels]
    if not plan.patterns:
        return Choice(kept, None, negative)
    sign = jnp.repeat(negative, span, axis=1)[:, :kernels]
    return Choice(kept, jnp.where(sign, pattern[1], pattern[0]), negative)


def solve(plan: Plan, x: Array, dtype: Any) -> Choice:
    """The discrete choices of the nearest point of `x`, `(o, i, e)` in float32, as numbers of `dtype`."""
    x = lax.stop_gradient(x)
    value, leaf = _leaf(plan, x, dtype)
    rows, span = fragment_rows(plan, *x.shape[1:])
    choice = _solve_spanning(plan, leaf, value, span) if span else _solve_inside(plan, leaf, value, rows)
    if plan.filters is None:
        return choice
    gain = jnp.where(_stays(plan, value, choice), leaf.gain, 0.0).sum(axis=(1, 2))
    return choice._replace(filters=rank_mask(gain, plan.filters))


def element_signs(plan: Plan, choice: Choice, shape: tuple[int, int, int]) -> Bool[Array, " o i e"] | None:
    """Whether the fragment of each element is negative."""
    if choice.negative is None:
        return None
    rows, span = fragment_rows(plan, *shape[1:])
    if not span:
        return jnp.repeat(choice.negative, rows, axis=-1).reshape(shape)
    return jnp.broadcast_to(jnp.repeat(choice.negative, span, axis=1)[:, : shape[1], None], shape)


def support(plan: Plan, choice: Choice, shape: tuple[int, int, int]) -> Bool[Array, " o i e"]:
    """Which elements may differ from zero."""
    mask = jnp.ones(shape, bool)
    if choice.pattern is not None:
        mask = pattern_table(plan, shape[-1])[choice.pattern]
    if choice.filters is not None:
        mask = mask & choice.filters[:, None, None]
    return mask if choice.kept is None else mask & choice.kept[..., None]


def _stays(plan: Plan, value: Array, choice: Choice) -> Bool[Array, " o i e"]:
    """Which elements stay: those on the support that are not zero and have the sign of their fragment."""
    outputs, kernels, taps = value.shape
    shape = (outputs, kernels, taps)
    stays = support(plan, choice, shape) & (value != 0)
    negative = element_signs(plan, choice, shape)
    return stays if negative is None else stays & (negative == (value < 0))


def place(plan: Plan, x: Array, choice: Choice, dtype: Any) -> Float[Array, " o i e"]:
    """The projected point that has these choices; zeros are positive."""
    value = _on_grid(plan, x, dtype)
    return jnp.where(_stays(plan, value, choice), value, 0.0)


@functools.partial(jax.jit, inline=True)
def project(plan: Plan, w: Array) -> Array:
    """The nearest point of the set, in the dtype of `w`."""
    x = as_view(w, plan.view).astype(jnp.float32)
    p = place(plan, x, solve(plan, x, w.dtype), w.dtype)
    return from_view(p, w.shape, plan.view).astype(w.dtype)
