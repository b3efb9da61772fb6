"""Kernels whose vectors hold pixels, and the format of their weights, against float64 NumPy."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.mobile import native
from modicum.mobile.graph import Conv, Graph, Pool, Reshape
from modicum.mobile.native import families, fkw
from modicum.mobile.native.choose import candidates
from modicum.mobile.native.pixels import Grid
from tests.mobile.native_reference import MACHINES
from tests.mobile.test_native import agree, chain, head

pytest.importorskip("ziglang")


def patterned(generator, window, inputs, outputs, kind, keep):
    """Weights with a pattern for each kernel that is kept, or with zeros anywhere; sums are of the size of inputs."""
    positions = window[0] * window[1]
    size = 1 / np.sqrt(positions * inputs)
    weight = generator.normal(0, size, (*window, inputs, outputs)).astype(np.float32)
    if kind == "patterns":
        library = generator.permuted(np.tile(np.arange(positions), (8, 1)), axis=1) < 4
        weight *= library[generator.integers(8, size=(inputs, outputs))].transpose(2, 0, 1).reshape(weight.shape)
        weight *= generator.random((inputs, outputs)) < keep
    elif kind == "scattered":
        weight *= generator.random(weight.shape) < keep
    elif kind == "zero":
        weight *= 0
    return weight


def by_pixels(problem, machine, rank):
    """A choice of the family, one of those that the model likes or of those that it does not."""
    found = sorted(families.grids(problem, machine), key=lambda grid: (grid.sums, grid.down))
    assert families.eligible(problem)
    return found[int(rank * (len(found) - 1))]


SETTINGS = st.fixed_dictionaries(
    {
        "window": st.sampled_from([(3, 3), (3, 3), (1, 1), (5, 5), (2, 3), (1, 7)]),
        "extent": st.tuples(st.integers(1, 24), st.integers(1, 40)),
        "inputs": st.integers(1, 40),
        "outputs": st.integers(1, 40),
        "stride": st.tuples(st.integers(1, 3), st.integers(1, 2)),
        "pads": st.tuples(*[st.floats(0, 1)] * 4),
        "kind": st.sampled_from(["patterns", "patterns", "scattered", "dense", "zero"]),
        "keep": st.sampled_from([0.28, 0.05, 0.7]),
        "activation": st.sampled_from(["none", "relu", "relu6"]),
        "residual": st.booleans(),
        "seed": st.integers(0, 2**31),
    }
)


def network(window, extent, inputs, outputs, stride, pads, kind, keep, activation, residual, seed):
    """A convolution of the input for blocks of channels, the one in question, and a third one to read it."""
    generator = np.random.default_rng(seed)
    # the window must fit
    extent = tuple(max(size, side) for size, side in zip(extent, window, strict=True))
    shares = [round(share * (window[at // 2] - 1)) for at, share in enumerate(pads)]
    padding = ((shares[0], shares[1]), (shares[2], shares[3]))
    sizes = [
        (size + sum(pad) - side) // step + 1
        for size, pad, side, step in zip(extent, padding, window, stride, strict=True)
    ]
    first = Conv(
        name="first",
        inputs=("x",),
        output="a",
        shape=(1, *extent, inputs),
        weight=generator.normal(size=(1, 1, 3, inputs)).astype(np.float32),
        bias=np.zeros(inputs, np.float32),
    )
    side = Conv(
        name="side",
        inputs=("a",),
        output="r",
        shape=(1, *sizes, outputs),
        weight=patterned(generator, window, inputs, outputs, kind, 1.0),
        bias=np.zeros(outputs, np.float32),
        stride=stride,
        padding=padding,
    )
    main = Conv(
        name="main",
        inputs=("a", "r") if residual else ("a",),
        output="y",
        shape=(1, *sizes, outputs),
        weight=patterned(generator, window, inputs, outputs, kind, keep),
        scale=generator.normal(size=outputs).astype(np.float32),
        bias=generator.normal(size=outputs).astype(np.float32),
        stride=stride,
        padding=padding,
        activation=activation,
    )
    return Graph("x", (1, *extent, 3), "y", (first, side, main) if residual else (first, main))


@settings(max_examples=25, deadline=None)
@given(
    chosen=SETTINGS,
    machine=st.sampled_from([MACHINES[0], *MACHINES]),
    threads=st.integers(1, 3),
    rank=st.floats(0, 1),
)
def test_convolutions(chosen, machine, threads, rank):
    def chooser(layer, problem):
        ours = layer.name != "first" and families.eligible(problem)
        return by_pixels(problem, machine, rank) if ours else candidates(problem, machine)[0][1]

    agree(network(**chosen), machine, threads, chooser=chooser)


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_networks(machine):
    """Both families in one network, whatever the model chooses and with all that can be of this one."""
    layers, side, generator = chain(7)
    flat = Reshape(name="flat", inputs=("j",), output="flat", shape=(2, side * side * 40))
    graph = Graph("x", (2, 12, 12, 3), "y", (*layers, flat, head("y", "flat", side * side * 40, generator)))

    def chooser(layer, problem):
        return by_pixels(problem, machine, 0.8) if families.eligible(problem) else candidates(problem, machine)[0][1]

    program, *_ = agree(graph, machine, 2, chooser=chooser)
    kernels = [built.kernel for built in program.built]
    assert sum(kernel.startswith("pixels") for kernel in kernels) == 4
    agree(graph, machine, chooser=lambda _, problem: families.every(problem, machine)[0][1])


def pooled(channels, side, generator):
    weight = patterned(generator, (3, 3), channels, channels, "patterns", 0.5)
    conv = Conv(
        name="conv",
        inputs=("x",),
        output="a",
        shape=(1, side, side, channels),
        weight=weight,
        # a negative scale makes the least the largest
        scale=generator.normal(size=channels).astype(np.float32),
        bias=generator.normal(size=channels).astype(np.float32),
        padding=((1, 1), (1, 1)),
        activation="relu",
    )
    half = side // 2
    shape = (1, half, half, channels)
    pool = Pool(name="pool", inputs=("a",), output="y", shape=shape, kind="max", window=(2, 2), stride=(2, 2))
    return Graph("x", (1, side, side, channels), "y", (conv, pool))


def test_every_grid_gives_the_same():
    """Tiles that reach over the image, chunks that leave sums in memory, several sums, pools in registers."""
    generator = np.random.default_rng(0)
    graph = pooled(48, 22, generator)
    for grid in (
        Grid(4, 4, 2, 4, 16),
        Grid(1, 16, 4, 2, 32, 1, 2, 3),
        Grid(16, 1, 2, 2, 48, 2),
        Grid(8, 2, 2, 12, 64, 1, 9),
    ):
        # compilers split vectors that are wider than the processor's
        program, *_ = agree(graph, dataclasses.replace(native.host(), lanes=16), 2, chooser=lambda *_, grid=grid: grid)
        assert program.built[1].kernel.endswith(f"of {grid.rows}x{grid.columns} + pool")


@settings(max_examples=60, deadline=None)
@given(
    window=st.sampled_from([(1, 1), (3, 3), (5, 5), (2, 4), (7, 7)]),
    inputs=st.integers(1, 90),
    outputs=st.integers(1, 50),
    kind=st.sampled_from(["patterns", "scattered", "dense", "zero"]),
    keep=st.floats(0, 1),
    lanes=st.sampled_from([4, 8, 16]),
    more=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    chunk=st.sampled_from([16, 48, 64]),
    taps=st.integers(1, 9),
    shapes=st.integers(1, 12),
    seed=st.integers(0, 2**31),
)
def test_format_holds_every_weight(window, inputs, outputs, kind, keep, lanes, more, chunk, taps, shapes, seed):
    weight = patterned(np.random.default_rng(seed), window, inputs, outputs, kind, keep)
    patch = tuple(size + extra for size, extra in zip(window, more, strict=True))
    stored = fkw.encode(weight, lanes, patch, chunk=chunk, taps=taps, shapes=shapes)
    np.testing.assert_array_equal(stored.decode(), weight)
    assert stored.stride.sum() == len(stored.index)


def test_index_is_small():
    """At 8.1x, against compressed rows with a column of 32 bits for each weight."""
    generator = np.random.default_rng(0)
    for channels in (64, 256):
        weight = np.zeros((9, channels, channels), np.float32)
        library = generator.permuted(np.tile(np.arange(9), (8, 1)), axis=1)[:, :4]
        for output in range(channels):
            for kept in generator.choice(channels, round(channels / 3.6), replace=False):
                weight[library[generator.integers(8)], kept, output] = generator.normal(size=4)
        weight = weight.reshape(3, 3, channels, channels)
        stored = fkw.encode(weight, 16, (6, 9))
        count = np.count_nonzero(weight)
        assert stored.weight.size == count
        assert stored.index_bytes <= 0.2 * (4 * count + 4 * (channels + 1))


def test_no_more_places_than_an_index_can_name():
    with pytest.raises(ValueError, match=r"chunk must have at most 65536 places, got 256 channels of \(20, 20\)"):
        fkw.encode(np.ones((3, 3, 8, 8), np.float32), 16, (20, 20), chunk=256)


@pytest.mark.parametrize(("group", "family"), [(1, Grid), (16, native.Choice)])
def test_family_by_what_filters_share(group, family):
    """Patterns of their own go to pixels in lanes, patterns that 16 filters share to filters in lanes."""
    generator = np.random.default_rng(0)
    masks = patterned(generator, (3, 3), 64, 64 // group, "patterns", 0.28) != 0
    weight = generator.normal(size=(3, 3, 64, 64)) * np.repeat(masks, group, axis=-1)
    conv = Conv(
        name="conv",
        inputs=("x",),
        output="y",
        shape=(1, 28, 28, 64),
        weight=weight.astype(np.float32),
        bias=np.zeros(64, np.float32),
        padding=((1, 1), (1, 1)),
    )
    program = native.build(Graph("x", (1, 28, 28, 64), "y", (conv,)), native.AVX512)
    assert isinstance(program.built[1].choice, family)


def test_tuning_takes_both_families(tmp_path):
    generator = np.random.default_rng(1)
    graph = pooled(32, 16, generator)
    tuner = native.Tuner(native.host(), first=3, folder=tmp_path)
    program, *_ = agree(graph, chooser=tuner)
    again, *_ = agree(graph, chooser=native.Tuner(native.host(), folder=tmp_path, seconds=1e-9))
    assert isinstance(program.built[1].choice, Grid)
    assert program.built == again.built
