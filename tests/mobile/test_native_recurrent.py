"""Native recurrent layers against float64 NumPy: sizes, supports, instruction sets, threads; and one step alone."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.constraints import BlockColumnRow
from modicum.mobile import native
from modicum.mobile.graph import Dense, Graph, Gru, Mean
from modicum.mobile.native import recurrent, strips
from modicum.models import rtmobile_gru
from tests.mobile.native_reference import MACHINES

pytest.importorskip("ziglang")


def states(layer, x):
    """The definition, in float64."""
    sizes = (layer.input_kernel, layer.recurrent_kernel, layer.input_bias, layer.candidate_bias)
    w, u, bias, own = (array.astype(np.float64) for array in sizes)
    f, h, every = len(own), np.zeros((len(x), len(own))), []
    for frame in np.moveaxis(x.astype(np.float64), 1, 0):
        driven, returned = frame @ w + bias, h @ u
        gates = (1 + np.tanh((driven + returned)[:, : 2 * f] / 2)) / 2
        r, z = gates[:, :f], gates[:, f:]
        n = np.tanh(driven[:, 2 * f :] + r * (returned[:, 2 * f :] + own))
        h = (1 - z) * n + z * h
        every.append(h)
    return np.stack(every, 1)


def blocks(shape, density, rows, generator):
    """Which weights a set of blocks keeps: columns of each block of each strip, and rows of the matrix."""
    strips_, pieces = min(6, shape[1]), min(3, shape[0])
    strip, block = -(-shape[1] // strips_), -(-shape[0] // pieces)
    columns = np.repeat(generator.random((shape[0], strips_)) < density, strip, axis=1)[:, : shape[1]]
    # every block of a strip keeps a column, as the sets have it
    columns[::block] = True
    return columns & (generator.random(shape[1]) < rows)


def pruned(weight, kind, density, generator):
    if kind == "scattered":
        return weight * (generator.random(weight.shape) < density)
    if kind == "set":
        return np.array(BlockColumnRow(2, 200, strips=23, blocks=4, sweeps=1).project(jnp.asarray(weight)))
    if kind.startswith("bsp"):
        kept = blocks(weight.shape, density, 0.3 if "rows" in kind else 1.0, generator)
        # a grid of levels makes zeros of some weights in the set
        return weight * kept * (generator.random(weight.shape) < (0.9 if "holes" in kind else 1.0))
    return weight * (kind == "dense")


def gru(name, source, output, shape, inputs, generator, kind="dense", density=1.0):
    """A layer whose pre-activations are of order one."""

    def kernel(size):
        weight = generator.normal(size=(size, 3 * shape[-1])).astype(np.float32)
        weight = pruned(weight, kind, density, generator)
        return (weight / np.sqrt((weight**2).sum(0).mean() + 1e-6)).astype(np.float32)

    return Gru(
        name=name,
        inputs=(source,),
        output=output,
        shape=shape,
        input_kernel=kernel(inputs),
        recurrent_kernel=kernel(shape[-1]),
        input_bias=generator.normal(size=3 * shape[-1]).astype(np.float32),
        candidate_bias=generator.normal(size=shape[-1]).astype(np.float32),
    )


def ran(graph, x, machine, threads):
    """Outputs, with scratch memory that was not a number."""
    program = native.build(graph, machine, "net")
    arena = native.aligned(program.arena)
    arena.view(np.float32)[:] = np.nan
    return program, native.load(program, machine, threads).run(x, arena)


LAYERS = st.fixed_dictionaries(
    {
        "frames": st.sampled_from([1, 2, 3, 9]),
        "inputs": st.integers(1, 90),
        "features": st.integers(5, 200),
        "kind": st.sampled_from(["dense", "scattered", "bsp", "bsp rows", "bsp holes", "zero"]),
        "density": st.floats(0.03, 0.5),
        "seed": st.integers(0, 2**31),
    }
)


@settings(max_examples=15, deadline=None)
@given(chosen=LAYERS, machine=st.sampled_from(MACHINES), threads=st.integers(1, 3), shared=st.booleans())
def test_layers(chosen, machine, threads, shared):
    generator = np.random.default_rng(chosen["seed"])
    frames, inputs, features = chosen["frames"], chosen["inputs"], chosen["features"]
    layer = gru("gru", "x", "y", (2, frames, features), inputs, generator, chosen["kind"], chosen["density"])
    x = generator.normal(size=(2, frames, inputs)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        if shared:
            patch.setattr(recurrent, "WORTH_THREADS", 0)
        program, found = ran(Graph("x", x.shape, "y", (layer,)), x, machine, threads)
    np.testing.assert_allclose(found, states(layer, x), atol=1.5e-6)
    assert [built.name for built in program.built] == ["input", "gru.input", "gru", "output"]


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_long_sequences_stay_accurate(machine):
    generator = np.random.default_rng(0)
    layer = gru("gru", "x", "y", (1, 500, 70), 39, generator, "bsp", 0.3)
    x = 3 * generator.normal(size=(1, 500, 39)).astype(np.float32)
    x[:, 100] *= 1e4
    _, found = ran(Graph("x", x.shape, "y", (layer,)), x, machine, 1)
    np.testing.assert_allclose(found, states(layer, x), atol=3e-6)


def test_not_a_number_is_not_hidden():
    layer = gru("gru", "x", "y", (1, 3, 20), 4, np.random.default_rng(0))
    x = np.zeros((1, 3, 4), np.float32)
    x[0, 1, 2] = np.nan
    _, found = ran(Graph("x", x.shape, "y", (layer,)), x, native.host(), 1)
    assert np.isfinite(found[0, 0]).all()
    assert np.isnan(found[0, 1:]).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_classifiers(threads):
    """The network of spoken digits with weights as its recipe prunes them, and the mean and the head after it."""
    generator, frames, width = np.random.default_rng(threads), 12, 512
    assert rtmobile_gru(width).features == (width, width)
    layers, inputs = [], 39
    for number in (0, 1):
        layer = gru(f"g{number}", f"h{number}", f"h{number + 1}", (2, frames, width), inputs, generator)
        small, large = (
            BlockColumnRow(max(1, size // 40), None if size == 39 else 800, strips=24, blocks=4, sweeps=0)
            for size in (inputs, width)
        )
        layers.append(
            dataclasses.replace(
                layer,
                input_kernel=3 * np.array(small.project(jnp.asarray(layer.input_kernel))),
                recurrent_kernel=5 * np.array(large.project(jnp.asarray(layer.recurrent_kernel))),
            )
        )
        inputs = width
    weight = generator.normal(size=(width, 10)).astype(np.float32)
    mean = Mean(name="mean", inputs=("h2",), output="mean", shape=(2, width))
    head = Dense(name="head", inputs=("mean",), output="y", shape=(2, 10), weight=weight, bias=np.ones(10, np.float32))
    x = generator.normal(size=(2, frames, 39)).astype(np.float32)
    program, found = ran(Graph("h0", x.shape, "y", (*layers, mean, head)), x, native.host(), threads)
    expected = states(layers[1], states(layers[0], x)).mean(1) @ weight + 1
    np.testing.assert_allclose(found, expected, atol=2e-5)
    loops = [built for built in program.built if built.name in ("g0", "g1")]
    assert all(built.macs < built.dense_macs / 15 for built in loops)


def cell_of(layer, machine, threads=1):
    kernels = (layer.input_kernel, layer.recurrent_kernel)
    return native.gru_cell(*kernels, layer.input_bias, layer.candidate_bias, machine, threads)


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize(("kind", "features", "threads"), [("dense", 50, 1), ("set", 130, 2)])
def test_a_cell_is_the_layer_frame_by_frame(machine, kind, features, threads, monkeypatch):
    monkeypatch.setattr(recurrent, "WORTH_THREADS", 0)
    generator = np.random.default_rng(features)
    layer = gru("gru", "x", "y", (1, 9, features), 39, generator, kind, 0.2)
    x = generator.normal(size=(1, 9, 39)).astype(np.float32)
    cell, expected = cell_of(layer, machine, threads), states(layer, x)
    h = np.zeros(features, np.float32)
    for frame in range(9):
        h = cell.step(x[0, frame], h)
        np.testing.assert_allclose(h, expected[0, frame], atol=1.5e-6)
    np.testing.assert_array_equal(cell.frames(x[0], np.zeros(features, np.float32)), h)


def test_cells_refuse_other_shapes():
    cell = cell_of(gru("gru", "x", "y", (1, 1, 6), 4, np.random.default_rng(0)), native.host())
    with pytest.raises(ValueError, match=r"x must have shape \('frames', 4\), got \(1, 6\)"):
        cell.step(np.zeros(6, np.float32), np.zeros(6, np.float32))
    with pytest.raises(ValueError, match=r"h must have shape \(6,\), got \(4,\)"):
        cell.step(np.zeros(4, np.float32), np.zeros(4, np.float32))


def test_rows_without_weights_are_left_out_and_columns_are_named_once():
    """Two strips of 32 rows with 8 of 64 columns each; half of the rows of each, scattered, are zero."""
    generator = np.random.default_rng(0)
    weight = np.zeros((64, 64), np.float32)
    for strip in range(2):
        kept = 32 * strip + generator.permutation(32)[:16]
        weight[np.ix_(generator.permutation(64)[:8], kept)] = 1
    found = strips.strips(weight, 16)
    assert found.values.size == 2 * 8 * 16
    assert found.offsets.size == 2 * 8
    assert not found.covered
    np.testing.assert_array_equal(np.sort(found.rows.reshape(-1)), np.flatnonzero(weight.any(0)))
    with pytest.raises(ValueError, match="weight must have at most 65536 inputs and outputs"):
        strips.strips(np.zeros((1, 65537), np.float32), 16)
