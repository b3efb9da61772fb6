"""Native kernels against float64 NumPy, over random shapes, strides, paddings, supports and instruction sets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.mobile import native
from modicum.mobile.graph import Add, Affine, Conv, Dense, Graph, Mean, Pool, Reshape

pytest.importorskip("ziglang")


def convolved(x, weight, stride, padding, groups):
    """The definition, tap by tap, in float64."""
    x = np.pad(x.astype(np.float64), ((0, 0), *padding, (0, 0)))
    kh, kw, inner, outputs = weight.shape
    height, width = ((x.shape[1 + axis] - (kh, kw)[axis]) // stride[axis] + 1 for axis in (0, 1))
    result = np.zeros((x.shape[0], height, width, outputs))
    step = outputs // groups
    for group in range(groups):
        mine, of = slice(group * step, (group + 1) * step), slice(group * inner, (group + 1) * inner)
        for dy in range(kh):
            for dx in range(kw):
                rows = slice(dy, dy + (height - 1) * stride[0] + 1, stride[0])
                columns = slice(dx, dx + (width - 1) * stride[1] + 1, stride[1])
                result[..., mine] += x[:, rows, columns, of] @ weight[dy, dx, :, mine].astype(np.float64)
    return result


def activated(y, activation):
    return {"none": y, "relu": np.maximum(y, 0), "relu6": np.clip(y, 0, 6)}[activation]


def evaluate(graph, x):
    """The graph by its definition, in float64."""
    values = {graph.input: x.astype(np.float64)}
    for layer in graph.layers:
        first, *others = (values[name] for name in layer.inputs)
        if isinstance(layer, Conv):
            y = convolved(first, layer.weight, layer.stride, layer.padding, layer.groups)
            y = y * (1 if layer.scale is None else layer.scale) + layer.bias + (others[0] if others else 0)
        elif isinstance(layer, Dense):
            y = first @ layer.weight.astype(np.float64) * (1 if layer.scale is None else layer.scale) + layer.bias
        elif isinstance(layer, Pool):
            y = pooled(first, layer)
        elif isinstance(layer, Mean):
            y = first.mean(tuple(range(1, first.ndim - 1)))
        elif isinstance(layer, Add):
            y = first + others[0]
        elif isinstance(layer, Affine):
            y = first * layer.scale + layer.shift
        else:
            y = first.reshape(layer.shape)
        values[layer.output] = activated(y, getattr(layer, "activation", "none"))
        assert values[layer.output].shape == layer.shape
    return values[graph.output]


def pooled(x, layer):
    (kh, kw), (down, across) = layer.window, layer.stride
    padded = np.pad(x, ((0, 0), *layer.padding, (0, 0)), constant_values=np.nan)
    reduce = np.nanmax if layer.kind == "max" else np.nanmean
    return np.stack(
        [
            np.stack(
                [
                    reduce(padded[:, y * down : y * down + kh, z * across : z * across + kw], axis=(1, 2))
                    for z in range(layer.shape[2])
                ],
                axis=1,
            )
            for y in range(layer.shape[1])
        ],
        axis=1,
    )


def agree(graph, machine=None, threads=1, seed=0, **choices):
    machine = native.host() if machine is None else machine
    program = native.build(graph, machine, "net", choices)
    x = np.random.default_rng(seed).normal(size=graph.input_shape).astype(np.float32)
    library = native.load(program, machine, threads)
    expected = evaluate(graph, x)
    # scratch memory is whatever it was: nothing may depend on it
    arena = native.aligned(program.arena)
    arena.view(np.float32)[:] = np.nan
    found = library.run(x, arena)
    size = np.abs(expected).max() + 1e-6
    np.testing.assert_allclose(found / size, expected / size, atol=3e-6)
    return program, library, x, found


SETTINGS = st.fixed_dictionaries(
    {
        "window": st.sampled_from([(1, 1), (3, 3), (3, 3), (5, 5), (2, 3), (7, 7)]),
        "extent": st.tuples(st.integers(7, 19), st.integers(7, 19)),
        "inputs": st.integers(1, 40),
        "outputs": st.integers(1, 70),
        "stride": st.tuples(st.integers(1, 2), st.integers(1, 2)),
        "pads": st.tuples(*[st.floats(0, 1)] * 4),
        "kind": st.sampled_from(["dense", "free", "shared", "scattered", "depthwise", "groups", "zero"]),
        "scaled": st.booleans(),
        "activation": st.sampled_from(["none", "relu", "relu6"]),
        "seed": st.integers(0, 2**31),
    }
)


def convolution(window, extent, inputs, outputs, stride, pads, kind, scaled, activation, seed):
    """A graph of one convolution whose zeros are of some kind."""
    generator, groups = np.random.default_rng(seed), 1
    shares = [round(share * (window[at // 2] // 2)) for at, share in enumerate(pads)]
    padding = ((shares[0], shares[1]), (shares[2], shares[3]))
    if kind == "depthwise":
        outputs = groups = inputs
    elif kind == "groups":
        inputs, outputs, groups = 2 * inputs, 2 * outputs, 2
    weight = generator.normal(size=(*window, inputs // groups, outputs))
    if kind == "free":
        weight *= generator.random(weight.shape) < 0.4
    elif kind == "scattered":
        weight *= generator.random(weight.shape) < 0.05
    elif kind == "shared":
        masks = generator.random((*window, inputs, -(-outputs // 16))) < 0.3
        weight *= np.repeat(masks, 16, axis=-1)[..., :outputs]
    elif kind == "zero":
        weight *= 0
    sizes = [
        (size + sum(pad) - side) // step + 1
        for size, pad, side, step in zip(extent, padding, window, stride, strict=True)
    ]
    conv = Conv(
        name="conv",
        inputs=("x",),
        output="y",
        shape=(2, *sizes, outputs),
        weight=weight.astype(np.float32),
        scale=generator.normal(size=outputs).astype(np.float32) if scaled else None,
        bias=generator.normal(size=outputs).astype(np.float32),
        stride=stride,
        padding=padding,
        groups=groups,
        activation=activation,
    )
    return Graph("x", (2, *extent, inputs), "y", (conv,))


@settings(max_examples=25, deadline=None)
@given(chosen=SETTINGS, threads=st.integers(1, 3))
def test_convolutions(chosen, threads):
    agree(convolution(**chosen), threads=threads)
