"""Graphs that others wrote: which are layers here, and the sentence that refuses any other."""

import itertools

import numpy as np
import pytest

from modicum.spiking.interchange import from_nir, to_nir
from modicum.spiking.layers import Layer
from modicum.spiking.populations import LIF
from modicum.spiking.synapses import Convolution, Dense
from tests.spiking.interchange_reference import kind, outputs, parameters, simulated, spikes

nir = pytest.importorskip("nir")


def neuron_node(size=2, **fields):
    return nir.LIF(
        **{
            name: np.full(size, value)
            for name, value in {"tau": 2.0, "r": 2.0, "v_leak": 0.0, "v_threshold": 1.0, **fields}.items()
        }
    )


def convolution_node(**fields):
    settings = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, "bias": np.zeros(2), **fields}
    return nir.Conv2d((4, 4), np.ones((2, 1, 3, 3)), **settings)


def chain(shape, *nodes, **settings):
    names = ["input", *(f"{kind(node).lower()}_{number}" for number, node in enumerate(nodes)), "output"]
    ends = (nir.Input({"input": np.array(shape)}), nir.Output({"output": np.array([2])}))
    named = dict(zip(names, (ends[0], *nodes, ends[1]), strict=True))
    return nir.NIRGraph(named, list(itertools.pairwise(names)), type_check=False)


LINEAR = nir.Linear(np.ones((2, 4)))


@pytest.mark.parametrize(
    ("graph", "sentence"),
    [
        (
            chain([4], LINEAR, nir.Threshold(np.ones(2))),
            r"got Threshold at edge \('linear_0', 'threshold_1'\): no such",
        ),
        (chain([4], LINEAR, nir.I(np.ones(2))), r"got I at edge \('linear_0', 'i_1'\)"),
        (chain([4], neuron_node(4), LINEAR), r"got LIF at edge \('input', 'lif_0'\): neurons must follow"),
        (chain([4], LINEAR, neuron_node(v_leak=0.1)), "got LIF at .*: v_leak and v_reset must be 0"),
        (chain([4], LINEAR, neuron_node(v_reset=-1.0)), "got LIF at .*: v_leak and v_reset must be 0"),
        (chain([4], LINEAR, neuron_node(tau=np.array([1, 2.0]))), "its tau must be one finite number here"),
        (chain([4], LINEAR, neuron_node(tau=0.5)), "its tau must be at least dt, 1, got 0.5"),
        (chain([4], LINEAR, neuron_node(tau=np.inf)), "its tau must be one finite number here"),
        (chain([5], LINEAR), r"got Linear at .*: weight of shape \(2, 4\) does not fit what arrives, \(5,\)"),
        (chain([1, 2, 2], LINEAR), "got Linear at .*: weight of shape"),
        (chain([1, 4, 4], convolution_node(stride=2)), "got Conv2d at .*: stride, dilation and groups must be 1"),
        (chain([1, 4, 4], convolution_node(padding=0)), "got Conv2d at .* the size kept"),
        (chain([3, 4, 4], convolution_node()), "got Conv2d at .*: weight of shape"),
        (
            chain([1, 4, 4], nir.Flatten({"input": np.array([1, 4, 4])})),
            "got Flatten at .*: all 3 axes .* must go, got 1 to -1",
        ),
        (chain([1, 4, 4], nir.AvgPool2d(np.array([2, 2]), np.array([1, 1]), np.array([0, 0]))), "windows must tile"),
        (chain([1, 4, 4], nir.AvgPool2d(np.array([3, 3]), np.array([3, 3]), np.array([0, 0]))), "multiples of 3"),
        (
            chain([1, 4, 4], convolution_node(), nir.AvgPool2d(*np.array([[2, 2], [2, 2], [0, 0]]))),
            r"got Output at edge \('avgpool2d_1', 'output'\): pooling and flattening must come before",
        ),
        (chain([4]), "graph must hold at least 1 Conv2d, Linear or Affine node"),
    ],
)
def test_graphs_that_are_no_chain_of_layers(graph, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_nir(graph, dt=1.0)


def test_graphs_that_branch_or_loop():
    layers = (Layer(Dense(features=3), LIF()), Layer(Dense(features=3), LIF()))
    graph = to_nir(layers, parameters(layers, (3,)), (3,))

    def changed(*more, without=()):
        edges = [edge for edge in graph.edges if edge not in without] + list(more)
        return nir.NIRGraph(dict(graph.nodes), edges, type_check=False)

    with pytest.raises(ValueError, match=r"got LIF at edge \('lif_0', 'linear_1'\): so does \('lif_0', 'linear_0'\)"):
        from_nir(changed(("lif_0", "linear_0")))
    with pytest.raises(
        ValueError, match=r"got Output at edge \('lif_1', 'output'\): so does \('lif_0', 'output'\) enter"
    ):
        from_nir(changed(("lif_0", "output"), without=[("lif_0", "linear_1")]))
    with pytest.raises(ValueError, match="graph must end in an Output node, got 'lif_1' at its end"):
        from_nir(changed(("lif_1", "input"), without=[("lif_1", "output")]))
    with pytest.raises(ValueError, match=r"graph must have both nodes of edge \('lif_1', 'other'\)"):
        from_nir(changed(("lif_1", "other"), without=[("lif_1", "output")]))
    with pytest.raises(ValueError, match="graph must end in an Output node, got 'lif_0' at its end"):
        from_nir(changed(without=[("lif_0", "linear_1")]))
    with pytest.raises(ValueError, match="graph must be one chain from Input to Output, got 'linear_1' beside it"):
        from_nir(changed(("lif_0", "output"), without=[("lif_0", "linear_1"), ("lif_1", "output")]))


def test_a_graph_of_others():
    """As torch libraries write it: r of 1 scales the current, scalars, 'same' padding, strict threshold of 1."""
    rng = np.random.default_rng(0)
    weight, dense = rng.normal(size=(2, 1, 3, 3)), rng.normal(size=(2, 32))
    graph = chain(
        [1, 4, 4],
        nir.Conv2d((4, 4), weight, 1, "same", 1, 1, np.zeros(2)),
        neuron_node((), r=1.0),
        nir.Flatten({"input": np.array([2, 4, 4])}, start_dim=0),
        nir.Affine(dense, np.ones(2)),
    )
    layers, params = from_nir(graph, dt=1.0)
    (convolution, product), above = layers, float(np.nextafter(np.float32(1), np.float32(2)))
    assert convolution == Layer(Convolution(features=2), LIF(0.5, above, "hard"))
    assert product.synapse == Dense(features=2, bias=True)
    np.testing.assert_allclose(params[0]["synapse"]["kernel"], weight.transpose(2, 3, 1, 0) / 2, rtol=1e-6)
    images = spikes(steps=15, batch=1, shape=(4, 4, 1))
    theirs = simulated(graph, images[:, 0].transpose(0, 3, 1, 2), 1.0, "hard")
    train, product = outputs(layers, params, images)
    np.testing.assert_array_equal(train[:, 0], theirs["lif_1"].transpose(0, 2, 3, 1))
    np.testing.assert_allclose(product[:, 0], theirs["affine_3"], atol=1e-5)
