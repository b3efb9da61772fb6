"""Steps of weights and inputs that suit a network: what `'max'` and `'grid'` leave to the data of each call, fixed."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from modicum.analog.simulate import Device, Devices, pick
from modicum.core import Params, Site, check, matmul_form, rewrite

_STEPS = 200
"""Steps tried for a matrix, as parts of the largest one."""


def scaled(
    fun: Callable[..., Any], device: Devices, params: Params, *args: Any, quantile: float = 0.999, weights: bool = True
) -> Callable[[Site], Device | None]:
    """The device of each site with steps, and the format of inputs, fixed by what the network does with some data.

    An input step puts a quantile of the inputs' magnitudes at the highest code; what lies above saturates. Inputs
    that never are negative are streamed unsigned, in one pass; a spec that is unsigned already stays so. A weight step
    is the one of least squared error, of rounding and saturation together. Sites that read the same leaf share its
    steps.

    Args:
        fun: any JAX function whose first argument is the parameter tree; it runs once, digitally.
        device: as in `simulate`; its specs have `input_scale`, `input_format` and, where there is one, `weight_scale`.
        params: the parameters.
        *args: further arguments, such as a batch of training examples.
        quantile: above 0, at most 1; 1 is the largest magnitude.
        weights: whether weight steps are fixed, too; those of weights on a grid had better be left to it.

    Returns:
        What `simulate`, `report` and `measured` take as a device.

    Raises:
        ValueError: for a quantile out of its range.

    Example:
        >>> from modicum.analog.simulate import crossbar, simulate
        >>> fun, w, x = lambda w, x: x @ w, jnp.ones((2, 1)), jnp.array([[0.25, 1.5]])
        >>> simulate(fun, scaled(fun, crossbar(input_bits=2, adc_bits=None), w, x, quantile=1.0))(
        ...     jax.random.key(0), w, jnp.array([[0.25, 9.0]]))
        Array([[1.5]], dtype=float32)

    Reference: Chen et al., CAP-RAM, IEEE JSSC 2021, section IV-B.3 (quantized activations of trained ranges).
    """
    check.positive(quantile=quantile)
    check.between(0, 1, quantile=quantile)
    seen: dict[str, list[tuple[float, float]]] = {}

    def record(leaf: str, size: Array, least: Array) -> None:
        seen.setdefault(leaf, []).append((float(size), float(least)))

    def rule(site: Site, weight: Array, inputs: Array) -> Array:
        if pick(device, site) is not None:
            size = jnp.quantile(jnp.abs(inputs).ravel(), quantile)
            jax.debug.callback(partial(record, _leaf(site)), size, jnp.min(inputs))
            if weights:
                jax.debug.callback(partial(matrices.__setitem__, _leaf(site)), matmul_form(site).weight(weight))
        return site.apply(weight, inputs)

    matrices: dict[str, np.ndarray] = {}
    jax.block_until_ready(jax.jit(rewrite(fun, rule))(params, *args))
    jax.effects_barrier()

    def chosen(site: Site) -> Device | None:
        picked, leaf = pick(device, site), _leaf(site)
        if picked is None or leaf not in seen:
            return picked
        size = max(largest for largest, _ in seen[leaf])
        least = min(low for _, low in seen[leaf])
        signed = least < 0 and picked.spec.input_format == "signed"
        changes: dict[str, Any] = {"input_format": "signed" if signed else "unsigned"}
        if size > 0:
            changes["input_scale"] = size / (2**picked.spec.input_bits - 1)
        if leaf in steps:
            changes["weight_scale"] = steps[leaf]
        return picked._replace(spec=replace(picked.spec, **changes))

    # steps of a leaf depend on the levels of its device, which only a site tells
    steps: dict[str, float] = {}

    def with_steps(site: Site) -> Device | None:
        picked, leaf = pick(device, site), _leaf(site)
        if picked is not None and hasattr(picked.spec, "weight_scale") and leaf in matrices and leaf not in steps:
            steps[leaf] = least_squares_step(np.asarray(matrices[leaf]), picked.spec)
        return chosen(site)

    return with_steps


def _leaf(site: Site) -> str:
    return site.name if site.leaf is None else site.leaf


def least_squares_step(weights: np.ndarray, spec: Any) -> float:
    """The weight step of least squared error, saturation counted, among 200 parts of `max|w|`.

    Args:
        weights: any shape.
        spec: reads `levels`: the largest magnitude, or the lowest and the highest level.

    Example:
        >>> from modicum.analog.charge_spec import ChargeSpec
        >>> round(least_squares_step(np.array([1.0, 1.0, -1.0, 0.1, 3.0]), ChargeSpec()), 6)  # 3 saturates
        1.5
    """
    levels = spec.levels
    lowest, highest = levels if isinstance(levels, tuple) else (-levels, levels)
    largest = float(np.max(np.abs(weights)))
    if largest == 0:
        return 1.0
    flat = weights.astype(np.float64).ravel()
    steps = largest / max(highest, -lowest) * np.arange(1, _STEPS + 1) / _STEPS

    def error(step: float) -> float:
        return float(np.square(flat - step * np.clip(np.rint(flat / step), lowest, highest)).sum())

    return float(min(steps, key=error))
