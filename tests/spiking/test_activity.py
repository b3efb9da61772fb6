"""What a network does, counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum import spiking
from modicum.spiking import activity, pictures

STEPS = 9


def network(key):
    layers = (
        spiking.Layer(spiking.Convolution(features=3, gain=2.0), spiking.IF()),
        spiking.Layer(spiking.Dense(features=4), spiking.Carry()),
        spiking.Layer(spiking.Dense(features=2)),
    )
    return layers, spiking.init(key, layers, (5, 4, 2))


def test_operations_are_counted_one_by_one(key):
    layers, params = network(key)
    events = jax.random.bernoulli(key, 0.3, (STEPS, 2, 5, 4, 2)).astype(jnp.uint8)
    rows = activity.activity_report(layers, params, events)
    seen = activity.record_activity(layers, params, events)
    # each event meets 3 output channels at each of its neighbors that lie in the image
    count = 0
    for _, _, y, x, _ in np.argwhere(np.asarray(events)):
        neighbors = (min(y + 1, 4) - max(y - 1, 0) + 1) * (min(x + 1, 3) - max(x - 1, 0) + 1)
        count += 3 * neighbors
    assert rows[0].operations == count / 2
    assert rows[1].operations == 4 * float(seen.spikes[0].sum()) / 2
    assert rows[1].spike_rate == pytest.approx(float(jnp.abs(seen.spikes[1]).mean()))
    assert rows[1].dense_operations == 5 * 4 * 3 * 4
    assert rows[1].joules == pytest.approx(0.9e-12 * rows[1].operations)
    assert rows[0].neurons == 60


def test_outputs_are_those_of_multi_step(key):
    layers, params = network(key)
    image = jax.random.normal(key, (2, 5, 4, 2))
    seen = activity.record_activity(layers, params, image, steps=STEPS)
    outputs, states = spiking.multi_step(layers, params, image, steps=STEPS)
    np.testing.assert_array_equal(seen.spikes[-1], outputs)
    np.testing.assert_array_equal(seen.states[1].membrane_potential[-1], states[1].membrane_potential)
    # an image is multiplied, not added
    first = activity.activity_report(layers, params, image, steps=STEPS)[0]
    assert first.operations == STEPS * first.dense_operations
    assert first.joules == pytest.approx(4.6e-12 * first.operations)


def test_a_synapse_without_kernel_cannot_be_counted():
    layers = (spiking.Layer(lambda weights, spikes: spikes, spiking.IF()),)
    with pytest.raises(ValueError, match="synapse of layer 0 must have a kernel"):
        activity.activity_report(layers, ({"synapse": (), "neuron": ()},), jnp.zeros((2, 1, 3)))


def test_pictures_show_every_spike():
    from matplotlib.figure import Figure

    spikes = np.zeros((6, 5))
    spikes[1, 2] = spikes[4, 0] = 1
    spikes[3, 3] = -1
    axes = Figure().add_subplot()
    pictures.raster(axes, spikes)
    positive, negative = (points.get_offsets().tolist() for points in axes.collections)
    assert sorted(positive) == [[1, 2], [4, 0]]
    assert negative == [[3, 3]]
    pictures.membrane_trace(axes, np.linspace(0, 1, 6), spikes[:, 2])
    assert axes.lines[0].get_ydata()[-1] == 1
