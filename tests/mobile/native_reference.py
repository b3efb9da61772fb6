"""Graphs of layers at random, and what they mean in float64: shared by the tests of native kernels."""

import dataclasses
import subprocess

import numpy as np

from modicum.mobile import native
from modicum.mobile.graph import Add, Affine, Conv, Dense, Graph, Gru, Mean, Pool


def _machines():
    """Instruction sets that this processor has, and one of narrow vectors."""
    sets = {"avx512": (native.AVX512, native.AVX2), "avx2": (native.AVX2,), "neon": (native.NEON,)}[native.host().name]
    return *sets, dataclasses.replace(sets[-1], lanes=4)


MACHINES = _machines()


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
        elif isinstance(layer, Gru):
            y = recurrent(first, layer)
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


def recurrent(x, layer):
    """Gates r, z, n; the candidate's recurrent part has a bias of its own, inside the product with r."""
    kernels = layer.input_kernel.astype(np.float64), layer.recurrent_kernel.astype(np.float64)
    width = len(layer.candidate_bias)
    state, states = np.zeros((x.shape[0], width)), []
    for at in range(x.shape[1]):
        driven, returned = x[:, at] @ kernels[0] + layer.input_bias, state @ kernels[1]
        gates = 1 / (1 + np.exp(-(driven + returned)[:, : 2 * width]))
        reset, update = gates[:, :width], gates[:, width:]
        candidate = np.tanh(driven[:, 2 * width :] + reset * (returned[:, 2 * width :] + layer.candidate_bias))
        state = (1 - update) * candidate + update * state
        states.append(state)
    return np.stack(states, axis=1)


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


def small(seed=3):
    """Zeros of both kinds, a stride of 2, a residual, a sum, a fused pool, a depthwise layer, a head."""
    layers, _, generator = chain(seed)
    shared = np.repeat(generator.random((3, 3, 20, 2)) < 0.4, 16, axis=-1)[..., :20]
    layers = [
        dataclasses.replace(layer, weight=(layer.weight * shared).astype("f")) if layer.name == "two" else layer
        for layer in layers
    ]
    mean = Mean(name="mean", inputs=("j",), output="mean", shape=(2, 40))
    return Graph("x", (2, 12, 12, 3), "y", (*layers, mean, head("y", "mean", 40, generator)))


def recurrence(seed):
    """A recurrent layer: its steps meet inside."""
    generator = np.random.default_rng(seed)

    def pruned(*shape):
        return (generator.normal(size=shape) / 4 * (generator.random(shape) < 0.3)).astype("f")

    gru = Gru(
        name="gru",
        inputs=("x",),
        output="y",
        shape=(2, 5, 24),
        input_kernel=pruned(7, 72),
        recurrent_kernel=pruned(24, 72),
        input_bias=pruned(72),
        candidate_bias=pruned(24),
    )
    return Graph("x", (2, 5, 7), "y", (gru,))


def numbers(graph, seed=0):
    return np.random.default_rng(seed).normal(size=graph.input_shape).astype(np.float32)


def close(found, expected, atol):
    size = np.abs(expected).max() + 1e-6
    np.testing.assert_allclose(found / size, expected / size, atol=atol)


def runs(command, folder, timeout=240, **more):
    """A command that must end well; the timeout is for what waits forever."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout, **more)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
