"""Replace what the sites of a function compute, and nothing else."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jaxtyping import Array

from modicum.core import compat
from modicum.core.sites import Site, sites_by_place
from modicum.core.types import Params

Rule = Callable[[Site, Array, Array], Array]


def identity_rule(site: Site, weight: Array, inputs: Array) -> Array:
    """The rule that changes nothing: `rewrite(fun, identity_rule)` is bit-equal to `fun`."""
    return site.apply(weight, inputs)


def rewrite(fun: Callable[..., Any], rule: Rule) -> Callable[..., Any]:
    """The same function, each site computed by `rule(site, weight, inputs)`.

    The rule returns an array of the site's output shape and dtype; with `identity_rule` the result is bit-equal to
    `fun`. Composes with `jit`, `grad` and `vmap`. Everything without a site inside is
    evaluated as it was, so that custom derivative rules (surrogate gradients) stay intact.

    Args:
        fun: any JAX function whose first argument is the parameter tree. Static arguments must be closed over.
        rule: what to compute at a site.

    Returns:
        A function of the same arguments.

    Raises:
        ValueError: when called, if the rule returns another shape or dtype, and when differentiated, if a site
            lies inside a `custom_vjp` or `custom_jvp` whose derivative rule the rewrite would contradict.

    Example:
        >>> import jax.numpy as jnp
        >>> ternary = lambda site, w, x: site.apply(jnp.sign(w), x)
        >>> rewrite(lambda w, x: x @ w, ternary)(jnp.array([[2.0], [-3.0]]), jnp.array([[1.0, 5.0]]))
        Array([[-4.]], dtype=float32)
    """

    def rewritten(params: Params, *args: Any, **kwargs: Any) -> Any:
        closed, shape = jax.make_jaxpr(fun, return_shape=True)(params, *args, **kwargs)
        places = sites_by_place(closed, params)
        flat = jax.tree.leaves((params, args, kwargs))
        parts = compat.program(closed)
        outputs = _evaluate(parts, parts.consts, flat, (), places, rule)
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    return rewritten


def _evaluate(
    parts: compat.Program,
    consts: Sequence[Any],
    args: Sequence[Any],
    where: tuple[int, ...],
    places: dict[tuple[int, ...], Site],
    rule: Rule,
) -> list[Any]:
    values = dict(zip(parts.constvars, consts, strict=True))
    values.update(zip(parts.invars, args, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if compat.is_literal(atom) else values[atom]

    for number, eqn in enumerate(parts.eqns):
        operands = [read(atom) for atom in eqn.invars]
        here = (*where, number)
        if here in places:
            results = [_apply_rule(places[here], operands, rule)]
        elif any(place[: len(here)] == here for place in places):
            inside = {place: site for place, site in places.items() if place[: len(here)] == here}
            results = _rebuild(eqn, operands, here, inside, rule)
        else:
            results = compat.bind(eqn, operands)
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in parts.outvars]


def _apply_rule(site: Site, operands: Sequence[Array], rule: Rule) -> Array:
    weight, inputs = operands[site.weight_operand], operands[1 - site.weight_operand]
    output = rule(site, weight, inputs)
    got = (getattr(output, "shape", None), getattr(output, "dtype", None))
    if got != (site.output.shape, site.output.dtype):
        raise ValueError(
            f"rule must return shape {site.output.shape} and dtype {site.output.dtype} for site {site.name}, "
            f"got shape {got[0]} and dtype {got[1]}"
        )
    return output


def _rebuild(eqn: Any, operands: list[Any], here: tuple[int, ...], inside: dict, rule: Rule) -> list[Any]:
    """An equation with sites somewhere in its jaxprs, stated again through JAX's public functions."""

    def branch(number: int) -> Callable[..., list[Any]]:
        parts = compat.program(compat.sub_jaxprs(eqn)[number])
        return lambda *args: _evaluate(parts, parts.consts, args, (*here, number), inside, rule)

    name = eqn.primitive.name
    with eqn.ctx.manager:
        if name == "scan":
            return _rebuild_scan(eqn, operands, branch(0))
        if name == "while":
            return _rebuild_while(eqn.params, operands, branch(0), branch(1))
        if name == "cond":
            branches = [branch(number) for number in range(len(compat.sub_jaxprs(eqn)))]
            return lax.switch(operands[0], branches, *operands[1:])
        if name in compat.REMAT:
            options = {option: eqn.params[option] for option in ("policy", "prevent_cse")}
            return jax.checkpoint(branch(0), **options)(*operands)
        if name in compat.CUSTOM:
            return _forward_only(branch(0), name, next(iter(inside.values())))(*operands)
        if name in compat.CALLS:
            return jax.jit(branch(0))(*operands)
    raise AssertionError(f"analysis entered {name}, which rewrite cannot rebuild")


def _rebuild_scan(eqn: Any, operands: list[Any], body: Callable[..., list[Any]]) -> list[Any]:
    num_consts, num_carry = compat.scan_counts(eqn)
    consts = operands[:num_consts]
    init, slices = operands[num_consts : num_consts + num_carry], operands[num_consts + num_carry :]

    def step(carry: list[Any], slice_: list[Any]) -> tuple[list[Any], list[Any]]:
        results = body(*consts, *carry, *slice_)
        return results[:num_carry], results[num_carry:]

    options = {option: eqn.params[option] for option in ("length", "reverse", "unroll")}
    carry, stacked = lax.scan(step, init, slices, **options)
    return carry + stacked


def _rebuild_while(
    params: dict[str, Any], operands: list[Any], condition: Callable[..., list[Any]], body: Callable[..., list[Any]]
) -> list[Any]:
    first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    outer, inner, init = operands[:first], operands[first:second], operands[second:]
    return lax.while_loop(lambda carry: condition(*outer, *carry)[0], lambda carry: body(*inner, *carry), init)


def _forward_only(block: Callable[..., list[Any]], primitive: str, site: Site) -> Callable[..., list[Any]]:
    # The author's derivative rule belongs to the operator that was there: using it, or dropping it, would be wrong.
    kind = "custom_jvp" if primitive == "custom_jvp_call" else "custom_vjp"

    def refuse(*_: Any) -> Any:
        raise ValueError(
            f"site {site.name} lies inside a {kind} and cannot be rewritten for training: "
            f"rewrite the block first, then give it its custom derivative"
        )

    if kind == "custom_jvp":
        guarded = jax.custom_jvp(block)
        guarded.defjvp(refuse)
        return guarded
    guarded = jax.custom_vjp(block)
    guarded.defvjp(refuse, refuse)
    return guarded
