"""Run a saved module on two engines and compare with what the network should say."""

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from modicum.core import check
from modicum.mobile import signature
from modicum.mobile.compiled import Compiled, load


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How one engine's outputs compare.

    Attributes:
        name: `jax` or `iree`.
        max_abs_error: largest difference of any number of any output; NaN if either side holds NaN.
        argmax_equal: whether the largest entry along the last axis is the same everywhere.
    """

    name: str
    max_abs_error: float
    argmax_equal: bool


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What `verify` found, one entry per engine."""

    engines: tuple[Engine, ...]

    @property
    def max_abs_error(self) -> float:
        """The worst engine's; NaN if any is."""
        return float(np.max([engine.max_abs_error for engine in self.engines]))

    @property
    def argmax_equal(self) -> bool:
        """Whether all engines agree on every largest entry."""
        return all(engine.argmax_equal for engine in self.engines)


def verify(
    folder: str | os.PathLike[str], example: Any, expected: Any, *, engines: Sequence[str] = ("jax", "iree")
) -> Verification:
    """Runs the saved module and compares its outputs with `expected`.

    Args:
        folder: a bundle; it is verified as by `load`.
        example: an input `x`. IREE runs the module with the shapes given to `compile`.
        expected: the output the network should give, `fun(params, x)`.
        engines: `jax` (`model.stablehlo` through `jax.export`) and `iree` (`model.mlir` through IREE, the extra
            `modicum[iree]`).

    Returns:
        Errors per engine, as data: nothing raises because outputs differ.

    Raises:
        ValueError: if the bundle is refused, or shapes do not fit.
        ModuleNotFoundError: if IREE is asked for and not installed.
    """
    for engine in engines:
        check.one_of(tuple(_ENGINES), engine=engine)
    if not engines:
        raise ValueError(f"engines must name at least one of {', '.join(_ENGINES)}, got none")
    compiled = load(Path(folder))
    signature.check_inputs(compiled.exported, example)
    wanted = [np.asarray(leaf) for leaf in jax.tree.leaves(expected)]
    runs = ((name, [np.asarray(leaf) for leaf in _ENGINES[name](compiled, example)]) for name in engines)
    return Verification(engines=tuple(compare(name, outputs, wanted) for name, outputs in runs))


def compare(name: str, outputs: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> Engine:
    """One engine's outputs against the expected ones, in float64.

    Raises:
        ValueError: if their number or shapes differ.
    """
    shapes, wanted = [out.shape for out in outputs], [out.shape for out in expected]
    if shapes != wanted:
        raise ValueError(f"expected must have shapes {shapes}, as the module's outputs, got {wanted}")
    errors, equal = [0.0], True
    for output, target in zip(outputs, expected, strict=True):
        output, target = output.astype(np.float64), target.astype(np.float64)
        # An infinity less itself is NaN: where both are equal there is nothing to subtract.
        difference = np.abs(np.subtract(output, target, where=output != target, out=np.zeros(output.shape)))
        errors.append(float(difference.max(initial=0.0)))
        if output.size:
            equal &= bool((np.atleast_1d(output).argmax(-1) == np.atleast_1d(target).argmax(-1)).all())
    return Engine(name=name, max_abs_error=float(np.max(errors)), argmax_equal=equal)


def _run_jax(compiled: Compiled, example: Any) -> list[Any]:
    return jax.tree.leaves(compiled(example))


def _run_iree(compiled: Compiled, example: Any) -> list[Any]:
    try:
        compiler, runtime = importlib.import_module("iree.compiler"), importlib.import_module("iree.runtime")
    except ImportError as error:
        raise ModuleNotFoundError("IREE is not installed: pip install modicum[iree]") from error
    given = [list(np.shape(leaf)) for leaf in jax.tree.leaves(example)]
    if given != compiled.settings["shapes"]:
        raise ValueError(
            f"example must have the shapes given to compile for IREE, {compiled.settings['shapes']}, got {given}"
        )
    blob = compiler.compile_str(
        compiled.module,
        target_backends=["llvm-cpu"],
        input_type="stablehlo",
        extra_args=["--iree-llvmcpu-target-cpu=host"],
    )
    config = runtime.Config("local-sync")
    module = runtime.load_vm_module(runtime.VmModule.copy_buffer(config.vm_instance, blob), config)
    arrays = [
        np.asarray(leaf, dtype=jax.numpy.dtype(tensor.dtype))
        for leaf, tensor in zip(jax.tree.leaves(example), signature.inputs(compiled.exported), strict=True)
    ]
    outputs = module.main(*arrays)
    return [out.to_host() for out in (outputs if isinstance(outputs, tuple | list) else (outputs,))]


_ENGINES: dict[str, Callable[[Compiled, Any], list[Any]]] = {"jax": _run_jax, "iree": _run_iree}
