"""StableHLO artifacts: what a portable module holds, read and rewritten by jaxlib's own MLIR."""

import re
from typing import Any

from jax.extend import mlir as portable
from jax.interpreters.mlir import make_ir_context
from jaxlib.mlir import ir, passmanager
from jaxlib.mlir.dialects import func


def text(artifact: bytes) -> str:
    """The module of a portable artifact as MLIR text, without source locations."""
    module = _module(artifact)
    return module.operation.get_asm(enable_debug_info=False)


def without_locations(artifact: bytes) -> bytes:
    """The same artifact without source locations.

    Locations hold the paths of the author's files: they would travel to whoever gets the bundle, and make two
    equal modules differ.
    """
    return _serialize(_without_locations(artifact), artifact, mixed=True)


def plain(artifact: bytes) -> bytes:
    """The same module without locations, in operators of the StableHLO specification alone.

    JAX writes `top_k`, `erf` and others as composites: a name of its own and a function that says what it means in
    plain StableHLO. Here each becomes a call of that function, for readers that do not know the name.
    """
    module = _without_locations(artifact)
    with module.context, ir.Location.unknown():
        for operation in _operations(module, "stablehlo.composite"):
            meaning = ir.FlatSymbolRefAttr(operation.attributes["decomposition"])
            with ir.InsertionPoint(operation):
                call = func.CallOp([result.type for result in operation.results], meaning, list(operation.operands))
            for result, replacement in zip(operation.results, call.results, strict=True):
                result.replace_all_uses_with(replacement)
            operation.erase()
    return _serialize(module, artifact, mixed=False)


def custom_calls(artifact: bytes) -> tuple[str, ...]:
    """Targets of the custom calls in a portable artifact, sorted."""
    module = _module(artifact)  # named: the operations do not keep the module that holds them alive
    operations = _operations(module, "stablehlo.custom_call")
    return tuple(sorted({ir.StringAttr(operation.attributes["call_target_name"]).value for operation in operations}))


def _module(artifact: bytes) -> Any:
    return portable.deserialize_portable_artifact(artifact, make_ir_context())


def _without_locations(artifact: bytes) -> Any:
    module = _module(artifact)
    with module.context:
        passmanager.PassManager.parse("builtin.module(strip-debuginfo)").run(module.operation)
    return module


def _serialize(module: Any, artifact: bytes, *, mixed: bool) -> bytes:
    # The version to stay compatible with is the one jax.export chose. `mixed` lets operators that have no place in
    # the portable dialect through, as jax.export does.
    found = re.search(rb"StableHLO_v(\d+\.\d+\.\d+)", artifact[:64])
    if found is None:
        raise ValueError(f"artifact must be portable StableHLO, got bytes that start with {artifact[:16]!r}")
    return portable.serialize_portable_artifact(module, found[1].decode(), mixed)


def _operations(module: Any, name: str) -> list[Any]:
    found = []

    def visit(operation: Any) -> Any:
        if operation.name == name:
            found.append(operation)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    return found
