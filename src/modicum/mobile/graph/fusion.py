"""Layers that take in what follows them."""

from collections import Counter
from dataclasses import replace

import numpy as np

from modicum.mobile.graph.layers import Add, Affine, Conv, Dense, Graph, Layer, Reshape


def fuse(graph: Graph) -> Graph:
    """The same function in fewer layers.

    Folds an `Affine` into the `Conv`, `Dense` or `Affine` before it (batch normalization becomes scale and bias; the
    weight stays as it is), an activation into the layer before it, the addition of a residual into the later of its
    convolutions, and a `Reshape` into one before it. Nothing is folded whose intermediate value is read elsewhere or
    is the output. Scales and biases are combined in float64.

    Args:
        graph: what `trace` made.

    Returns:
        A graph of the same input, and of the same output to float32's rounding. A fused layer keeps its name and
        stands where the last layer stood that it took in.
    """
    readers = Counter([graph.output, *(name for layer in graph.layers for name in layer.inputs)])
    shapes = {graph.input: graph.input_shape, **{layer.output: layer.shape for layer in graph.layers}}
    made: dict[str, Layer] = {}  # by output, in order
    same: dict[str, str] = {}  # values that turned out to be earlier ones
    for original in graph.layers:
        layer = replace(original, inputs=tuple(same.get(name, name) for name in original.inputs))
        # the last made first: of two convolutions it is the later that adds
        for producer in reversed([made[name] for name in made if name in layer.inputs and readers[name] == 1]):
            fused = _fused(producer, layer)
            if fused is not None:
                del made[producer.output]
                layer = fused
                break
        if isinstance(layer, Reshape) and shapes[layer.inputs[0]] == layer.shape:
            (read,) = layer.inputs
            same[layer.output] = read
            readers[read] += readers[layer.output] - 1
        else:
            made[layer.output] = layer
    return Graph(graph.input, graph.input_shape, same.get(graph.output, graph.output), tuple(made.values()))


def _fused(producer: Layer, layer: Layer) -> Layer | None:
    """Both layers in one, where the second alone reads what the first makes; None if no layer does both."""
    if isinstance(layer, Reshape) and isinstance(producer, Reshape):
        return replace(producer, output=layer.output, shape=layer.shape)
    if isinstance(layer, Add):
        return _with_residual(producer, layer)
    if not isinstance(layer, Affine) or not isinstance(producer, Conv | Dense | Affine | Add):
        return None
    if producer.activation != "none":
        return None
    if _only_activates(layer):
        return replace(producer, output=layer.output, activation=layer.activation)
    # a residual, or the second value of a sum, would have to be scaled as well
    if isinstance(producer, Add) or len(producer.inputs) > 1:
        return None
    return _with_affine(producer, layer)


def _only_activates(layer: Affine) -> bool:
    return bool((layer.scale == 1).all() and (layer.shift == 0).all())


def _with_residual(producer: Layer, layer: Add) -> Conv | None:
    if not isinstance(producer, Conv) or producer.activation != "none" or len(producer.inputs) > 1:
        return None
    (residual,) = (name for name in layer.inputs if name != producer.output)
    inputs = (*producer.inputs, residual)
    return replace(producer, inputs=inputs, output=layer.output, activation=layer.activation)


def _with_affine(producer: Conv | Dense | Affine, layer: Affine) -> Layer:
    factor = layer.scale.astype(np.float64)
    if isinstance(producer, Affine):
        scale, shift = factor * producer.scale, factor * producer.shift + layer.shift
        return replace(
            producer,
            output=layer.output,
            scale=scale.astype(np.float32),
            shift=shift.astype(np.float32),
            activation=layer.activation,
        )
    scale = factor if producer.scale is None else factor * producer.scale
    bias = factor * producer.bias + layer.shift
    return replace(
        producer,
        output=layer.output,
        scale=None if (scale == 1).all() else scale.astype(np.float32),
        bias=bias.astype(np.float32),
        activation=layer.activation,
    )
