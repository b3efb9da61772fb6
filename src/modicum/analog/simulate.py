"""Run any JAX function on analog devices."""

import zlib
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from modicum.analog.chip import program
from modicum.analog.cost import FORMS, Architecture, activity, cost
from modicum.analog.crossbar import read
from modicum.analog.spec import CrossbarSpec
from modicum.core import Key, MatmulForm, Params, Site, matmul_form, rewrite

Spec = TypeVar("Spec", bound=Any)
_MIX = 0x9E3779B1  # odd, of no pattern: 2^32 over the golden ratio


class Device(NamedTuple):
    """A device: static numbers and pure functions of them. Matrices are `(rows, columns)`."""

    spec: Any
    program: Callable[..., Any]
    """`(key, weights, spec) -> chip`, a pytree."""
    read: Callable[..., Array]
    """`(key, chip, inputs, spec) -> outputs`, in place of `inputs @ weights`, with their gradients."""
    cost: Callable[..., Any]
    """`(site, spec, activity=None) -> Cost` of one call."""
    activity: Callable[..., Any] | None = None
    """`(weights, inputs, spec) -> activity`: what `cost` wants to know of the data, if anything."""


Devices = Device | Callable[[Site], Device | None]
"""One device for every site, or a function that picks each site's; `None` leaves a site digital."""


def crossbar(spec: CrossbarSpec | None = None, *, architecture: Architecture = FORMS, **changes: Any) -> Device:
    """A ReRAM crossbar as a device.

    Args:
        spec: its numbers, by default `CrossbarSpec()`.
        architecture: component tables for the cost.
        **changes: fields of the spec to replace.

    Raises:
        ValueError: for an unknown field or a number out of its range.

    Example:
        >>> crossbar(fragment=9, weight_bits=4).spec.cells
        2
    """
    chosen = changed("crossbar", CrossbarSpec() if spec is None else spec, changes)
    return Device(chosen, program, read, partial(cost, architecture=architecture), activity)


def changed(name: str, spec: Spec, changes: dict[str, Any]) -> Spec:
    """The spec with some fields replaced; `name` is the device's, for the message.

    Raises:
        ValueError: for an unknown field or a number out of its range.
    """
    known = [field.name for field in fields(spec)]
    unknown = set(changes) - set(known)
    if unknown:
        raise ValueError(f"{name} takes the fields {', '.join(known)}, got {min(unknown)!r}")
    return replace(spec, **changes)


def pick(device: Devices, site: Site) -> Device | None:
    """The device that computes a site, `None` if it stays digital."""
    return device if isinstance(device, Device) else device(site)


def simulate(fun: Callable[..., Any], device: Devices) -> Callable[..., Any]:
    """The function as a chip computes it: `(key, params, *args)` with every site on the device.

    Each site is programmed with a key folded with its leaf's path, so that one key is one chip, also across the
    steps of a scan and for two sites that read the same leaf. (A scan over *stacked* weights therefore draws the same
    variation for each of its layers.) The noise of reads inside a loop is drawn anew for inputs that differ; the same
    inputs are read with the same noise, so that a step computed again, for a gradient, is the same step. `jax.grad`
    trains through the chip, straight through; `jax.vmap` over keys is a Monte-Carlo over chips, which `jax.lax.map`
    runs in less memory.

    Args:
        fun: any JAX function whose first argument is the parameter tree.
        device: for every site, or a function from a `core.Site` to its device, which also is the way to give each
            leaf its own `weight_scale`; `None` leaves the site digital.

    Example:
        >>> import jax.numpy as jnp
        >>> noisy = simulate(lambda w, x: x @ w, crossbar(weight_bits=4, sigma=0.1))
        >>> keys = jax.random.split(jax.random.key(0), 5)
        >>> jax.vmap(noisy, in_axes=(0, None, None))(keys, jnp.ones((8, 3)), jnp.ones((2, 8))).shape
        (5, 2, 3)
    """

    def simulated(key: Key, params: Params, *args: Any, **kwargs: Any) -> Any:
        def rule(site: Site, weight: Array, inputs: Array) -> Array:
            chosen = pick(device, site)
            if chosen is None:
                return site.apply(weight, inputs)
            return on_chip(key, chosen, site, weight, inputs)

        return rewrite(fun, rule)(params, *args, **kwargs)

    return simulated


def site_key(key: Key, site: Site) -> Key:
    """The key a site is programmed with: the chip's, folded with the path of the leaf the site reads."""
    return jax.random.fold_in(key, zlib.crc32((site.name if site.leaf is None else site.leaf).encode()))


def on_chip(key: Key, device: Device, site: Site, weight: Array, inputs: Array) -> Array:
    """What a device computes in place of one site; `key` is the chip's."""
    repeated = site.calls != 1
    computed = _computed(site_key(key, site), device, matmul_form(site), weight, inputs, repeated)
    return computed.astype(site.output.dtype)


def _computed(key: Key, device: Device, form: MatmulForm, weight: Array, inputs: Array, repeated: bool) -> Array:
    def product(key: Key, weights: Array, vectors: Array) -> Array:
        programming, reading = jax.random.split(key)
        if repeated:
            reading = jax.random.fold_in(reading, _fingerprint(vectors))
        chip = device.program(programming, weights, device.spec)
        return device.read(reading, chip, vectors, device.spec)

    weights, vectors = form.weight(weight), form.inputs(inputs)
    if form.groups == 1:
        return form.output(product(key, weights[0], vectors[0])[None])
    return form.output(jax.vmap(product)(jax.random.split(key, form.groups), weights, vectors))


def _fingerprint(vectors: Array) -> Array:
    """A number that other inputs hardly share: a loop has no other to tell its steps apart by.

    The sum of the bits of all numbers, each times an odd one that its place decides.
    """
    bits = jax.lax.bitcast_convert_type(vectors.ravel().astype(jnp.float32), jnp.uint32)
    places = jnp.arange(bits.size, dtype=jnp.uint32)
    return jnp.sum(bits * (2 * places * jnp.uint32(_MIX) + 1), dtype=jnp.uint32)
