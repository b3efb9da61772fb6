"""Networks as NIR: there and back bit for bit, and what NIR's documented equations make of the file."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.spiking.adaptive import AdaptiveLIF, ParametricLIF
from modicum.spiking.circle import Carry
from modicum.spiking.interchange import from_nir, to_nir
from modicum.spiking.layers import Layer
from modicum.spiking.populations import IF, LIF
from modicum.spiking.surrogates import Boxcar
from modicum.spiking.synapses import Convolution, Dense
from modicum.spiking.unrolled import multi_step
from tests.spiking.interchange_reference import (
    SHAPE,
    averaged,
    correlate,
    kind,
    network,
    outputs,
    parameters,
    simulated,
    spikes,
)

nir = pytest.importorskip("nir")


def without_metadata(graph):
    nodes = {
        name: dataclasses.replace(node, metadata={}) if kind(node) not in ENDS else node
        for name, node in graph.nodes.items()
    }
    return nir.NIRGraph(nodes=nodes, edges=graph.edges, metadata={})


ENDS = ("Input", "Output", "AvgPool2d", "Flatten", "Linear", "Affine")


# there and back


@pytest.mark.parametrize(
    ("first", "second", "settings"),
    [
        (LIF(0.9), LIF(0.3, 0.7, "hard"), {}),
        (LIF(0.5, reset="hard"), IF(1.25), {"standardize": True, "grid_bits": 6}),
        (IF(reset="hard"), LIF(0.0, 0.5), {"standardize": True}),
        (LIF(0.97, 0.3), LIF(1.0), {"grid_bits": 8}),
    ],
)
def test_round_trip_is_bit_equal(first, second, settings, tmp_path):
    layers = network(first, second, **settings)
    params = parameters(layers)
    graph = to_nir(layers, params, SHAPE)
    inputs = spikes()
    back, weights = from_nir(graph)
    trains = outputs(layers, params, inputs)
    assert [bool(0.01 < train.mean() < 0.99) for train in trains[:-1]] == [True] * 3
    for one, other in zip(trains, outputs(back, weights, inputs), strict=True):
        assert one.tobytes() == other.tobytes()
    assert np.asarray(multi_step(back, weights, jnp.asarray(inputs))[0]).tobytes() == trains[-1].tobytes()
    nir.write(tmp_path / "network.nir", graph)
    read, stored = from_nir(nir.read(tmp_path / "network.nir"))
    assert read == back
    jax.tree.map(np.testing.assert_array_equal, stored, weights)


@pytest.mark.parametrize("discretization", ["euler", "exponential"])
@pytest.mark.parametrize("dt", [1e-4, 1.0, 3.7])
def test_settings_come_back(dt, discretization):
    layers = network(LIF(0.9, 0.3, "soft"), LIF(0.25, 2.0, "hard"))
    graph = to_nir(layers, parameters(layers), SHAPE, dt=dt, discretization=discretization)
    back, _ = from_nir(graph, surrogate=Boxcar(width=2.0), detach_reset=True)
    extra = {"surrogate": Boxcar(width=2.0), "detach_reset": True}
    assert [layer.neuron for layer in back[:2]] == [dataclasses.replace(layer.neuron, **extra) for layer in layers[:2]]
    assert [type(layer.synapse) for layer in back] == [Convolution, Convolution, Dense, Dense]
    assert [(layer.synapse.bias, layer.synapse.pool) for layer in back] == [
        (False, 1),
        (True, 2),
        (True, 2),
        (False, 1),
    ]


@pytest.mark.parametrize("discretization", ["euler", "exponential"])
def test_the_nodes_alone_say_it_all_but_a_soft_reset(discretization):
    layers = network(LIF(0.875, 0.5), LIF(0.6, 0.3))
    params = parameters(layers)
    graph = to_nir(layers, params, SHAPE, dt=1.0, discretization=discretization)
    back, weights = from_nir(without_metadata(graph), dt=1.0, discretization=discretization, reset="soft")
    for ours, theirs in zip(layers[:2], back[:2], strict=True):
        assert np.float32(theirs.neuron.leak) == pytest.approx(np.float32(ours.neuron.leak), abs=6e-8)
        assert np.float32(theirs.neuron.threshold) == np.float32(ours.neuron.threshold)
    for one, other in zip(params, weights, strict=True):
        np.testing.assert_array_equal(one["synapse"]["kernel"], other["synapse"]["kernel"])
    assert {layer.neuron.reset for layer in from_nir(without_metadata(graph), dt=1.0)[0][:3]} == {"hard"}


def test_numbers_count_where_a_note_says_otherwise():
    layers = (Layer(Dense(features=3), LIF(0.5)),)
    graph = to_nir(layers, parameters(layers, (4,)), (4,), dt=1.0)
    graph.nodes["lif_0"].tau = graph.nodes["lif_0"].tau * 2
    (layer,), _ = from_nir(graph)
    assert layer.neuron.leak == 0.75


def test_another_step_scales_currents_as_the_equation_does():
    layers = (Layer(Dense(features=3, bias=True), LIF(0.5, reset="hard")),)
    params = parameters(layers, (4,))
    graph = to_nir(layers, params, (4,), dt=1.0)
    (layer,), (weights,) = from_nir(graph, dt=0.5)
    assert layer.neuron == LIF(0.75, float(np.nextafter(np.float32(1), np.float32(0)) + 2**-24), "hard")
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(weights["synapse"][name], params[0]["synapse"][name] / 2, rtol=1e-6)


def test_a_trained_leak_is_exported_as_it_is():
    layers = network(ParametricLIF(0.8), ParametricLIF(0.5, reset="hard"))
    params = parameters(layers)
    params[0]["neuron"]["raw_leak"] = jnp.float32(0.3)
    back = from_nir(to_nir(layers, params, SHAPE))
    assert back[0][0].neuron.leak == float(jax.nn.sigmoid(jnp.float32(0.3)))
    for one, other in zip(outputs(layers, params, spikes()), outputs(*back, spikes()), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_axes_that_are_no_image_keep_their_order():
    layers = (Layer(Dense(features=6), LIF()), Layer(Dense(features=2), LIF()))
    params = parameters(layers, (3, 5))
    inputs = spikes(shape=(3, 5))
    back = from_nir(to_nir(layers, params, (3, 5)))
    np.testing.assert_array_equal(outputs(layers, params, inputs)[1], outputs(*back, inputs)[1])


# NIR's own equations


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize(
    ("first", "second", "dt", "grid_bits"),
    [
        (LIF(0.5), IF(), 1.0, 4),  # exact sums that reach the threshold exactly, time and again
        (LIF(0.875), LIF(0.75, 0.5), 0.5, 5),
        (LIF(0.9), LIF(0.37, 0.7), 1e-4, None),
        (IF(0.8), LIF(0.95), 1e-3, None),
    ],
)
def test_the_documented_equations_give_the_same_spikes(first, second, dt, grid_bits, reset):
    first, second = (dataclasses.replace(neuron, reset=reset) for neuron in (first, second))
    layers = network(first, second, grid_bits=grid_bits)
    params = parameters(layers)
    inputs = spikes(steps=25, batch=1)
    ours = outputs(layers, params, inputs)
    graph = to_nir(layers, params, SHAPE, dt=dt)
    theirs = simulated(graph, inputs[:, 0].transpose(0, 3, 1, 2), dt, reset)
    names = [name for name in theirs if kind(graph.nodes[name]) in ("LIF", "IF")]
    assert len(names) == 3
    for train, name in zip(ours[:-1], names, strict=True):
        expected = theirs[name].transpose(0, 2, 3, 1) if theirs[name].ndim == 4 else theirs[name]
        assert 0.02 < expected.mean() < 0.98
        np.testing.assert_array_equal(train[:, 0], expected)
    np.testing.assert_allclose(ours[-1][:, 0], theirs["linear_3"], atol=1e-5)


def test_a_threshold_of_the_same_number_would_miss_spikes():
    """The naive mapping fails: NIR's neurons spike above their threshold, ours at it."""
    layers = (Layer(Dense(features=1), IF()),)
    params = ({"synapse": {"kernel": jnp.full((1, 1), 0.5)}, "neuron": ()},)
    graph = to_nir(layers, params, (1,), dt=1.0)
    assert simulated(graph, np.ones((4, 1)), 1.0, "hard")["if_0"].sum() == 2
    assert outputs(layers, params, jnp.ones((4, 1, 1)))[0].sum() == 2
    graph.nodes["if_0"].v_threshold = np.ones(1, np.float32)
    assert simulated(graph, np.ones((4, 1)), 1.0, "hard")["if_0"].sum() == 1


def test_weights_lie_as_torch_has_them():
    layers = (Layer(Convolution(features=3, kernel=3, bias=True)), Layer(Dense(features=4, pool=2)))
    params = parameters(layers, (4, 6, 2))
    image = spikes(1, 1, (4, 6, 2))
    convolved, product = outputs(layers, params, image)
    graph = to_nir(layers, params, (4, 6, 2))
    first = correlate(image[0, 0].transpose(2, 0, 1), graph.nodes["conv2d_0"])
    np.testing.assert_allclose(first.transpose(1, 2, 0), convolved[0, 0], atol=1e-5)
    flat = averaged(first, graph.nodes["avgpool2d_1"]).reshape(-1)
    np.testing.assert_allclose(graph.nodes["linear_1"].weight @ flat, product[0, 0], atol=1e-5)
    assert list(graph.nodes) == ["input", "conv2d_0", "avgpool2d_1", "flatten_1", "linear_1", "output"]
    assert tuple(graph.nodes["input"].input_type["input"]) == (2, 4, 6)
    assert graph.nodes["conv2d_0"].padding == (1, 1)


# a peer's own import


def test_spyx_runs_the_file(tmp_path):
    """Spyx resets softly and spikes a step later; of what it imports, IF keeps its dynamics (its LIF does not leak the
    threshold that it subtracts, pools are left out, and products after images keep their rows)."""
    spyx_nir = pytest.importorskip("spyx.nir")
    grid = {"grid_bits": 6}
    # biases of later layers would act before the first spikes get there; one channel has the same rows in both orders
    synapses = Convolution(features=6, bias=True, **grid), Convolution(features=1, **grid), Dense(features=6, **grid)
    layers, shape = tuple(Layer(synapse, IF(0.75)) for synapse in synapses), (5, 4, 2)
    params, inputs = parameters(layers, shape), spikes(steps=20, shape=shape)
    nir.write(tmp_path / "network.nir", to_nir(layers, params, shape, dt=1.0))
    longer = jnp.concatenate([inputs, np.zeros((3, *inputs.shape[1:]), np.float32)])
    with jax.numpy_rank_promotion("allow"):
        _, theirs = spyx_nir.from_nir(nir.read(tmp_path / "network.nir"), longer, dt=1.0)
    ours = outputs(layers, params, inputs)[-1]
    assert 0.1 < ours.mean() < 0.9
    np.testing.assert_array_equal(ours, theirs[3:])


# sentences


@pytest.mark.parametrize(
    ("neuron", "instead"),
    [(Carry(), "got Carry: take IF with a soft reset instead"), (AdaptiveLIF(), "got AdaptiveLIF: take LIF instead")],
)
def test_neurons_without_a_word_in_nir(neuron, instead):
    layers = (Layer(Dense(features=2), LIF()), Layer(Dense(features=2), neuron))
    with pytest.raises(ValueError, match=f"neuron of layer 1 must be LIF, IF, ParametricLIF or Readout .* {instead}"):
        to_nir(layers, parameters(layers, (3,)), (3,))


def test_bad_arguments_of_to_nir():
    layers = (Layer(Convolution(features=2, pool=2), LIF(0.0)),)
    params = parameters(layers, (4, 4, 1))
    with pytest.raises(ValueError, match="leak of layer 0 must be above 0 with discretization='exponential'"):
        to_nir(layers, params, (4, 4, 1), discretization="exponential")
    with pytest.raises(ValueError, match="discretization must be one of 'euler', 'exponential', got 'zoh'"):
        to_nir(layers, params, (4, 4, 1), discretization="zoh")
    with pytest.raises(ValueError, match="height must be a multiple of 2, got 3"):
        to_nir(layers, params, (3, 4, 1))
    with pytest.raises(ValueError, match=r"shape must be \(height, width, channels\) before pooling in layer 0"):
        to_nir(layers, params, (16,))
    with pytest.raises(ValueError, match=r"shape must be \(height, width, 1\) before layer 0, got \(2, 2, 3\)"):
        to_nir(layers, params, (4, 4, 3))
    with pytest.raises(ValueError, match="kernel of layer 0 must be finite"):
        to_nir(layers, jax.tree.map(lambda leaf: leaf * jnp.nan, params), (4, 4, 1))
    dense = (Layer(Dense(features=2), LIF()),)
    with pytest.raises(ValueError, match=r"shape must have 5 entries before layer 0, got \(4,\)"):
        to_nir(dense, parameters(dense, (5,)), (4,))
    with pytest.raises(ValueError, match="synapse of layer 0 must be a Convolution or a Dense of one time step"):
        to_nir((Layer(jnp.matmul),), ({"synapse": jnp.ones((2, 2)), "neuron": ()},), (2,))


def test_without_nir_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "nir", None)
    layers = (Layer(Dense(features=2), LIF()),)
    with pytest.raises(ModuleNotFoundError, match=r"pip install modicum\[nir\]"):
        to_nir(layers, parameters(layers, (3,)), (3,))
