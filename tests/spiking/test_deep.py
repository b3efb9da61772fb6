"""Networks of coupled blocks: one value and one gradient whatever is kept, and memory that depth does not move."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum import spiking

NETWORKS = {
    "resnet": functools.partial(spiking.ReversibleSpikingResNet, widths=(4, 6), blocks=(2, 1), steps=3),
    "transformer": functools.partial(spiking.SpikingTransformer, width=16, heads=2, blocks=2, steps=3),
}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS.keys())
def test_gradients(make, key):
    images = jax.random.normal(key, (2, 8, 8, 3))
    params = jax.jit(make().init)(key, images)

    @functools.partial(jax.jit, static_argnums=1)
    def gradient(params, backward):
        return jax.value_and_grad(lambda p: jnp.sum(jnp.sin(3 * make(backward=backward).apply(p, images))))(params)

    expected = gradient(params, "autodiff")
    for leaf in jax.tree.leaves(expected):
        assert float(jnp.abs(leaf).max()) > 0
    for backward in ("streamlined", "standard"):
        for left, right in zip(*map(jax.tree.leaves, (gradient(params, backward), expected)), strict=True):
            # spikes recomputed wrongly would be off by far more than the order of a sum
            np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-5)


def test_memory_does_not_grow_with_depth():
    def peak(blocks):
        model = spiking.ReversibleSpikingResNet(widths=(8,), blocks=(blocks,), steps=4)
        images = jax.ShapeDtypeStruct((4, 16, 16, 3), jnp.float32)
        params = jax.eval_shape(model.init, jax.random.key(0), images)
        weights = sum(leaf.size * 4 for leaf in jax.tree.leaves(params))
        used = spiking.peak_bytes(jax.grad(lambda p, x: jnp.sum(model.apply(p, x) ** 2)), params, images)
        return used - 3 * weights

    assert peak(32) <= 1.02 * peak(4)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (spiking.ReversibleSpikingResNet(widths=(4, 4), blocks=(1,)), "blocks must be one number for each of 2 widths"),
        (spiking.ReversibleSpikingResNet(widths=(4,) * 5, blocks=(1,) * 5), "height must be a multiple of 16"),
        (spiking.ReversibleSpikingResNet(steps=0), "steps must be a whole number of at least 1, got 0"),
        (spiking.SpikingTransformer(heads=3), "width must be a multiple of 3"),
        (spiking.SpikingTransformer(patch=5), "height must be a multiple of 5"),
    ],
)
def test_bad_settings(model, sentence):
    with pytest.raises(ValueError, match=sentence):
        model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
