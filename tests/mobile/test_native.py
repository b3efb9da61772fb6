"""Native kernels against float64 NumPy, over random shapes, strides, paddings, supports and instruction sets."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.mobile import native
from modicum.mobile.graph import Add, Affine, Conv, Dense, Graph, Mean, Other, Pool, Reshape
from modicum.mobile.native import Choice, Tile

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


def agree(graph, machine=None, threads=1, seed=0, chooser=None):
    machine = native.host() if machine is None else machine
    program = native.build(graph, machine, "net", chooser)
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


def chain(seed, size=12, channels=20):
    """Every kind of layer in one network: a stem with a stride, a fused pool, a block with a residual, a head."""
    generator = np.random.default_rng(seed)

    def conv(name, source, output, shape, window, inner, **more):
        weight = generator.normal(size=(window, window, inner, shape[-1])) * (generator.random() + 0.1)
        weight *= generator.random(weight.shape) < 0.5
        bias = generator.normal(size=shape[-1]).astype(np.float32)
        pads = ((window // 2, window // 2),) * 2
        options = {"padding": pads, "weight": weight.astype(np.float32), "bias": bias, **more}
        return Conv(name=name, inputs=source, output=output, shape=(2, *shape), **options)

    half, quarter = size // 2, size // 4
    layers = (
        conv("stem", ("x",), "a", (size, size, channels), 3, 3, activation="relu", stride=(1, 1)),
        Pool(
            name="p",
            inputs=("a",),
            output="b",
            shape=(2, half, half, channels),
            kind="max",
            window=(2, 2),
            stride=(2, 2),
        ),
        conv("one", ("b",), "c", (half, half, channels), 1, channels, activation="relu6"),
        conv("depth", ("c",), "d", (half, half, channels), 3, 1, groups=channels, activation="relu"),
        conv("two", ("d", "b"), "e", (half, half, channels), 3, channels, activation="relu"),
        conv("side", ("e",), "f", (quarter, quarter, 40), 1, channels, stride=(2, 2)),
        conv("main", ("e",), "g", (quarter, quarter, 40), 3, channels, stride=(2, 2)),
        Add(name="add", inputs=("f", "g"), output="h", shape=(2, quarter, quarter, 40), activation="relu"),
        Affine(
            name="affine",
            inputs=("h",),
            output="i",
            shape=(2, quarter, quarter, 40),
            scale=generator.normal(size=40).astype(np.float32),
            shift=generator.normal(size=40).astype(np.float32),
        ),
        Pool(
            name="q",
            inputs=("i",),
            output="j",
            shape=(2, quarter, quarter, 40),
            kind="mean",
            window=(3, 3),
            stride=(1, 1),
            padding=((1, 1), (1, 1)),
        ),
    )
    return layers, quarter, generator


def head(name, source, inner, generator, outputs=10):
    weight = generator.normal(size=(inner, outputs)).astype(np.float32)
    return Dense(
        name=name, inputs=(source,), output=name, shape=(2, outputs), weight=weight, bias=np.ones(outputs, "f")
    )


@pytest.mark.parametrize("machine", [native.AVX512, native.AVX2, dataclasses.replace(native.AVX2, lanes=4)], ids=str)
@pytest.mark.parametrize("threads", [1, 3])
def test_networks(machine, threads):
    layers, side, generator = chain(threads)
    flat = Reshape(name="flat", inputs=("j",), output="flat", shape=(2, side * side * 40))
    agree(
        Graph("x", (2, 12, 12, 3), "y", (*layers, flat, head("y", "flat", side * side * 40, generator))),
        machine,
        threads,
    )
    mean = Mean(name="mean", inputs=("j",), output="mean", shape=(2, 40))
    agree(Graph("x", (2, 12, 12, 3), "y", (*layers, mean, head("y", "mean", 40, generator))), machine, threads)


def always(choice):
    return lambda layer, problem: choice


def test_every_choice_gives_the_same():
    """Register tiles that overlap at the end, several sums, chunks: all are the same product."""
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(3, 3, 40, 64)) * np.repeat(generator.random((3, 3, 40, 4)) < 0.4, 16, -1)
    conv = Conv(
        name="conv",
        inputs=("x",),
        output="y",
        shape=(1, 7, 9, 64),
        weight=weight.astype("f"),
        bias=np.zeros(64, "f"),
        padding=((1, 1), (1, 1)),
    )
    graph = Graph("x", (1, 7, 9, 40), "y", (conv,))
    for tile in (Tile(2, 5), Tile(3, 2, 2, 2), Tile(7, 3), Tile(1, 9, 1, 1, 2), Tile(1, 1, 4, 2)):
        for taps, shapes, chunk in ((4, 12, 64), (1, 1, 7), (9, 3, 16)):
            agree(graph, chooser=always(Choice(tile, taps, shapes, chunk)))


def test_in_jax():
    layers, _, generator = chain(5)
    mean = Mean(name="mean", inputs=("j",), output="mean", shape=(2, 40))
    _, library, x, found = agree(
        Graph("x", (2, 12, 12, 3), "y", (*layers, mean, head("y", "mean", 40, generator))), threads=2
    )
    np.testing.assert_array_equal(jax.jit(library)(x), found)
    np.testing.assert_array_equal(library(jnp.concatenate([x, x, x]))[2:4], found)
    with pytest.raises(ValueError, match=r"x must have shape \('batch', 12, 12, 3\), got \(2, 12, 3\)"):
        library.run(x[:, 0])


def test_memory_is_shared_by_what_is_not_alive_together():
    layers, _, _ = chain(1, size=64)
    program = native.build(Graph("x", (2, 64, 64, 3), "j", layers), native.host(), "net")
    every = sum(built.target for built in program.built)
    assert program.arena < 0.6 * every


def test_operators_without_kernels_are_named():
    other = Other(name="sort_0", inputs=("x",), output="y", shape=(1, 4), operator="sort", function=np.sort)
    with pytest.raises(ValueError, match="layers must have kernels, got operator 'sort' at 'sort_0'"):
        native.build(Graph("x", (1, 4), "y", (other,)), native.host())
