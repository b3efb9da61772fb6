"""Native kernels against float64 NumPy, over random shapes, strides, paddings, supports and instruction sets."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.mobile import native
from modicum.mobile.graph import Conv, Graph, Mean, Other, Reshape
from modicum.mobile.native import Choice, Tile
from modicum.mobile.native.choose import candidates
from tests.mobile.native_reference import MACHINES, chain, convolution, evaluate, head

pytest.importorskip("ziglang")


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
    # rounding is relative to the sums, which an activation may cut
    last = dataclasses.replace(
        graph.layers[-1], **({"activation": "none"} if hasattr(graph.layers[-1], "activation") else {})
    )
    sums = evaluate(Graph(graph.input, graph.input_shape, graph.output, (*graph.layers[:-1], last)), x)
    size = np.abs(sums).max() + 1e-6
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


@settings(max_examples=25, deadline=None)
@given(chosen=SETTINGS, threads=st.integers(1, 3))
def test_convolutions(chosen, threads):
    agree(convolution(**chosen), threads=threads)


@pytest.mark.parametrize("machine", MACHINES, ids=str)
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


@pytest.mark.parametrize(("largest", "kind", "bytes_"), [(7, "int4", 0.5), (127, "int8", 1), (200, "float32", 4)])
@pytest.mark.parametrize("vectors", [1, 3])
def test_weights_on_a_grid_are_stored_as_integers(largest, kind, bytes_, vectors):
    """Three taps of one or three vectors are odd numbers of vectors: a half of the last byte stays empty."""
    generator = np.random.default_rng(largest)
    numbers = generator.integers(-largest, largest + 1, (3, 3, 24, 48)) * (generator.random((3, 3, 24, 1)) < 0.6)
    conv = Conv(
        name="conv",
        inputs=("x",),
        output="y",
        shape=(1, 9, 9, 48),
        weight=(numbers * np.float32(0.0137)).astype("f"),
        scale=generator.normal(size=48).astype("f"),
        bias=generator.normal(size=48).astype("f"),
        padding=((1, 1), (1, 1)),
        activation="relu",
    )
    graph = Graph("x", (1, 9, 9, 24), "y", (conv,))
    program, *_ = agree(graph, threads=2, chooser=always(Choice(Tile(2, 3, vectors), 4)))
    (built,) = [built for built in program.built if built.macs]
    assert (kind in built.kernel) == (kind != "float32")
    least = bytes_ * built.macs / 81
    assert least <= built.payload <= 2 * least if kind == "int4" else built.payload == least


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
    # the other family has scratch memory of its own
    blocked = lambda _, problem: candidates(problem, native.host())[0][1]  # noqa: E731
    program = native.build(Graph("x", (2, 64, 64, 3), "j", layers), native.host(), "net", blocked)
    every = sum(built.target for built in program.built)
    assert program.arena < 0.6 * every


def test_operators_without_kernels_are_named():
    other = Other(name="sort_0", inputs=("x",), output="y", shape=(1, 4), operator="sort", function=np.sort)
    with pytest.raises(ValueError, match="layers must have kernels, got operator 'sort' at 'sort_0'"):
        native.build(Graph("x", (1, 4), "y", (other,)), native.host())
