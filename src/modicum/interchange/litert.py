"""Any JAX function as a LiteRT file (`.tflite`), by way of StableHLO: TensorFlow is not needed.

Google's `litert-converter` turns StableHLO into LiteRT's operators, and `ai-edge-litert` runs them: what it answers is
compared with what the function answers before a file is written. Both come without an extra, since a pin of the
converter (typing-extensions below 4.13, for a part that is not used here) contradicts one of optax's (from 4.15 on):

    pip install --no-deps litert-converter ai-edge-litert
"""

import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np

from modicum.core import check, compat, leaves_by_path

SIGNATURE = "serving_default"
"""The name of the only signature of our files."""


def _package(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = {"litert_converter": "litert-converter"}.get(module.partition(".")[0], "ai-edge-litert")
        raise ImportError(
            f"this needs the package {name}: pip install --no-deps litert-converter ai-edge-litert"
        ) from error


def require() -> None:
    """Refuses at once where long work would end without a file.

    Raises:
        ImportError: without `litert-converter` or `ai-edge-litert`.
    """
    _package("litert_converter.converter_api_ext")
    _package("ai_edge_litert.interpreter")


def _names(tree: Any, alone: str) -> list[str]:
    """Of the leaves in order: their paths; `alone` where the tree is one array."""
    if jax.tree.structure(tree).num_leaves == 1 and not isinstance(tree, Mapping | list | tuple):
        return [alone]
    return [name or alone for name in leaves_by_path(tree)]


def _loops(jaxpr: Any) -> bool:
    """Whether there is a loop anywhere in it."""
    return any(
        equation.primitive.name in ("scan", "while") or any(map(_loops, compat.sub_jaxprs(equation)))
        for equation in compat.program(jaxpr).eqns
    )


def _traced(flat: Callable[..., Any], leaves: list[Any]) -> Any:
    """The jaxpr of a function, without loops: the converter leaves the bodies of loops where no file can hold them."""
    traced = jax.make_jaxpr(flat)(*leaves)
    if not _loops(traced):
        return traced
    with jax.disable_jit():
        unrolled = jax.make_jaxpr(flat)(*leaves)
    if _loops(unrolled):
        raise ValueError("fun must have no loops but scan and fori_loop of fixed length, got one that does not unroll")
    return unrolled


def _converted(artifact: bytes, inputs: list[str], outputs: list[str]) -> bytes:
    api, ir = _package("litert_converter.converter_api_ext"), _package("litert_converter.mlir.ir")
    passes = _package("litert_converter.mlir.passmanager")
    stablehlo = _package("litert_converter.mlir.dialects.stablehlo")
    with ir.Context() as context:
        api.prepare_mlir_context(context)
        try:
            module = stablehlo.deserialize_portable_artifact(context, artifact)
            (main,) = (found for found in module.body.operations if str(found.name) == '"main"')
            api.set_signature(main, SIGNATURE, inputs, outputs)
            api.run_convert_to_tfl_passes(module, passes.PassManager(), api.ConvertToTFLConfig())
            return api.export_flatbuffer_to_bytes(module.operation)
        except (ValueError, RuntimeError, ir.MLIRError) as error:
            said = " ".join(str(error).split())
            raise ValueError(f"fun must be made of operators that LiteRT has, got another: {said[:500]}") from error


def litert_outputs(model: bytes | str | Path, example: Any) -> dict[str, np.ndarray]:
    """What LiteRT's interpreter answers.

    Args:
        model: a file, or what it holds; written by `to_litert`.
        example: an input, or a tree of inputs, as `to_litert` was given.

    Returns:
        Outputs by name: `{"output": ...}` where the function gave one array.

    Raises:
        ValueError: if there is an operator that this interpreter does not have, or an input of another shape.
        ImportError: without `ai-edge-litert`.
    """
    interpreter = _package("ai_edge_litert.interpreter")
    content = model if isinstance(model, bytes) else Path(model).read_bytes()
    inputs = dict(zip(_names(example, "input"), jax.tree.leaves(example), strict=True))
    try:
        run = interpreter.Interpreter(model_content=content, num_threads=1).get_signature_runner(SIGNATURE)
        return run(**{name: np.asarray(jnp.asarray(value)) for name, value in inputs.items()})
    except (ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"model must be one that LiteRT's interpreter runs on this input: {said[:500]}") from error


def _compare(expected: Any, got: Mapping[str, np.ndarray], names: list[str], tolerance: float) -> None:
    for name, value in zip(names, jax.tree.leaves(expected), strict=True):
        value, answer = np.asarray(value), got[name]
        scale = max(float(np.abs(value).max(initial=0)), np.finfo(np.float32).tiny)
        difference = float(np.abs(answer.astype(np.float64) - value.astype(np.float64)).max(initial=0)) / scale
        if answer.shape != value.shape or not difference <= tolerance:
            raise ValueError(
                f"LiteRT must give what fun gives within {tolerance:g} of its largest number, got {difference:.3g} "
                f"at {name}, of shape {answer.shape} for {value.shape}"
            )


def to_litert(
    fun: Callable[[Any], Any], example: Any, path: str | Path | None = None, *, tolerance: float = 1e-4
) -> bytes:
    """A function as a LiteRT model, checked by LiteRT's interpreter on the example.

    Shapes are those of the example, its batch among them. Weights that `fun` closes over become constants, in their
    own type: zeros of a compressed network are kept as zeros, float32 stays float32. `scan` and `fori_loop` are
    unrolled; loops whose end depends on data, sorts, shifts of bits and native kernels (custom calls) have no place in
    a file.

    Args:
        fun: of one argument: an array, or a tree of arrays; gives such.
        example: an input, real data where it can be had: it is what the check runs on.
        path: where the file goes; none is written where `None`. It is whole or not there.
        tolerance: largest difference from what `fun` gives, relative to its largest number; positive.

    Returns:
        The content of the file.

    Raises:
        ValueError: if an operator has no counterpart, the interpreter lacks it, or the two answers differ.
        ImportError: without `litert-converter` or `ai-edge-litert`.

    Example:
        >>> import modicum.interchange as interchange
        >>> model = interchange.to_litert(lambda x: jax.nn.relu(x) + 1, np.ones((1, 4), np.float32))  # doctest: +SKIP
        >>> interchange.litert_outputs(model, np.full((1, 4), -2, np.float32))["output"]  # doctest: +SKIP
        array([[1., 1., 1., 1.]], dtype=float32)
    """
    check.finite_positive(tolerance=tolerance)
    require()
    leaves, tree = jax.tree.flatten(jax.tree.map(jnp.asarray, example))

    def flat(*values: Any) -> tuple[Any, ...]:
        return tuple(jax.tree.leaves(fun(jax.tree.unflatten(tree, values))))

    expected = jax.jit(fun)(jax.tree.unflatten(tree, leaves))
    names = _names(example, "input"), _names(expected, "output")
    alone = jax.jit(jax.extend.core.jaxpr_as_fun(_traced(flat, leaves)))
    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    try:
        exported = jax.export.export(alone, platforms=["cpu"])(*shapes)
    except (NotImplementedError, ValueError) as error:
        raise ValueError(f"fun must be a program of its own, without callbacks or native kernels: {error}") from error
    content = _converted(exported.mlir_module_serialized, *names)
    _compare(expected, litert_outputs(content, example), names[1], tolerance)
    if path is not None:
        path = Path(path)
        unfinished = path.with_name(f"{path.name}.tmp")
        try:
            unfinished.write_bytes(content)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    return content
