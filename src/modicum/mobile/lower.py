"""From a function and its packed weights to portable modules."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jax import export

from modicum.core import Constraint, Packed
from modicum.mobile import stablehlo
from modicum.mobile.weights import unpack

PLATFORMS = ("cpu", "cuda", "tpu")
"""What an artifact is exported for, where the model lowers without custom calls on all of them."""

SHAPE_ASSERTION = "shape_assertion"
"""How `jax.export` writes down that a symbolic batch is at least 1; it resolves this call itself."""


class Lowered(NamedTuple):
    """What leaves the compiler."""

    exported: export.Exported
    """For `jax.export`: several platforms, perhaps a symbolic batch."""
    module: bytes
    """For other consumers: pure portable StableHLO with the example's shapes."""


def bake(
    fun: Callable[..., Any], packed: Mapping[str, Packed], chosen: Mapping[str, Constraint], structure: Any
) -> Callable[[Any], Any]:
    """`fun(params, x)` as a function of `x` that holds the packed weights and decodes them.

    The weights enter an inner `jit` as arguments, so that `decode` sees tracers only: nothing can be decoded while
    tracing, and the module holds the packed arrays, not what they decode to.
    """

    @jax.jit
    def apply(leaves: list[Packed], x: Any) -> Any:
        return fun(unpack(dict(zip(packed, leaves, strict=True)), chosen, structure), x)

    def model(x: Any) -> Any:
        return apply(list(packed.values()), x)  # a list, as a dict would come back in alphabetical order

    return model


def lower(model: Callable[[Any], Any], example: Any, batch: str) -> Lowered:
    """Portable modules of `model(x)`.

    Args:
        model: a function of one pytree of arrays.
        example: shapes and dtypes of `x` (arrays or `jax.ShapeDtypeStruct`).
        batch: `"fixed"`, or `"any"` for a symbolic first axis (1 or more), shared by all arrays of `x`.

    Raises:
        ValueError: if the model does not lower to pure StableHLO, or does not trace with a symbolic batch.
    """
    spec = jax.eval_shape(lambda x: x, example)
    jax.eval_shape(model, spec)  # an error of the model's own comes out here, as it is
    single = _export(model, spec, PLATFORMS[:1])
    if batch == "any":
        spec = _symbolic(spec)
    try:
        exported = _export(model, spec, PLATFORMS, f", batch={batch!r}")
    except ValueError:
        # Some operators have no pure form on one of the platforms: stay on the one that has.
        exported = _export(model, spec, PLATFORMS[:1], f", batch={batch!r}")
    return Lowered(exported, stablehlo.plain(single.mlir_module_serialized))


def _export(model: Callable[[Any], Any], spec: Any, platforms: tuple[str, ...], how: str = "") -> export.Exported:
    try:
        exported = export.export(jax.jit(model), platforms=platforms)(spec)
        portable = stablehlo.without_locations(exported.mlir_module_serialized)
        exported = dataclasses.replace(exported, mlir_module_serialized=portable)
        exported.serialize()  # refuses pytrees that it cannot write down
    except Exception as error:  # jax raises many kinds, of which the caller needs the reason alone
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise ValueError(f"fun must lower to portable StableHLO ({'/'.join(platforms)}{how}), got: {reason}") from error
    calls = set(stablehlo.custom_calls(portable)) - {SHAPE_ASSERTION}
    if calls:
        raise ValueError(f"fun must lower to StableHLO without custom calls, got {', '.join(sorted(calls))}")
    return exported


def _symbolic(spec: Any) -> Any:
    scope = export.SymbolicScope()

    def leaf(struct: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        if not struct.shape:
            raise ValueError("example must have a batch axis in every array for batch='any', got a scalar")
        sizes = ", ".join(["b", *map(str, struct.shape[1:])])
        return jax.ShapeDtypeStruct(export.symbolic_shape(f"({sizes},)", scope=scope), struct.dtype)

    return jax.tree.map(leaf, spec)
