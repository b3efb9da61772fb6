"""The networks: parameter counts worked out by hand, shapes, batching, and NumPy references of what they compute."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.models import GRUClassifier, LeNet5, SmallConvNet, caffe_lenet
from modicum.models.convolutional import max_pool

IMAGES = {"digits": (8, 8, 1), "mnist": (28, 28, 1), "cifar10": (32, 32, 3)}


def size(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def abstract(model, shape):
    return jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), jnp.zeros(shape)))


@pytest.mark.parametrize(
    ("model", "shape", "count"),
    [
        # 5*5*6+6, 5*5*6*16+16, 400*120+120, 120*84+84, 84*10+10
        (LeNet5(), (28, 28, 1), 156 + 2416 + 48120 + 10164 + 850),
        (LeNet5(), (28, 28, 1), 61_706),
        # 5*5*20+20, 5*5*20*50+50, 4*4*50*500+500, 500*10+10
        (caffe_lenet(), (28, 28, 1), 520 + 25050 + 400_500 + 5010),
        (LeNet5(), (8, 8, 1), 156 + 2416 + (2 * 2 * 16 * 120 + 120) + 10164 + 850),
        (SmallConvNet(), (8, 8, 1), 160 + 4640 + 18496 + 650),
        (SmallConvNet(), (28, 28, 1), 160 + 4640 + 18496 + (3 * 3 * 64 * 10 + 10)),
        (SmallConvNet(), (32, 32, 3), 448 + 4640 + 18496 + (4 * 4 * 64 * 10 + 10)),
        (SmallConvNet(widths=(4,), hidden=(5,)), (8, 8, 1), 40 + (4 * 4 * 4 * 5 + 5) + 60),
        # input kernels 3*32*64+3*64, recurrent 3*64*64 and the one bias inside the reset, head
        (GRUClassifier(features=64), (64, 32), 3 * (32 * 64 + 64) + 3 * 64 * 64 + 64 + 650),
    ],
)
def test_parameter_count(model, shape, count):
    logits, params = abstract(model, (2, *shape))
    assert size(params) == count
    assert logits.shape == (2, 10)
    assert logits.dtype == jnp.float32


@pytest.mark.parametrize("shape", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize(
    "model", [LeNet5(classes=7), SmallConvNet(classes=7), caffe_lenet(7)], ids=lambda m: repr(m)[:6]
)
def test_every_image_size(model, shape):
    assert abstract(model, (3, *shape))[0].shape == (3, 7)
    assert abstract(model, shape)[0].shape == (7,)


@pytest.mark.parametrize(
    ("model", "shape"), [(LeNet5(), (8, 8, 1)), (SmallConvNet(), (8, 8, 1)), (GRUClassifier(features=8), (7, 5))]
)
def test_a_batch_is_its_examples(model, shape, key):
    inputs = jax.random.normal(key, (3, *shape))
    params = jax.jit(model.init)(key, inputs)
    together = jax.jit(model.apply)(params, inputs)
    apart = jax.jit(jax.vmap(model.apply, in_axes=(None, 0)))(params, inputs)
    np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-5)
    assert float(jnp.abs(together[0] - together[1]).max()) > 1e-3


@pytest.mark.parametrize("model", [LeNet5(), SmallConvNet(), GRUClassifier(features=8)], ids=["lenet", "conv", "gru"])
def test_parameters_are_plain_dicts_and_all_have_a_gradient(model, key):
    inputs = jax.random.normal(key, (4, 7, 5) if isinstance(model, GRUClassifier) else (4, 8, 8, 1))
    params = jax.jit(model.init)(key, inputs)
    assert type(params) is dict
    assert type(params["params"]) is dict
    gradient = jax.jit(jax.grad(lambda p: (model.apply(p, inputs) ** 2).sum()))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.abs(leaf).max() > 0, path


def test_images_too_small_are_refused(key):
    with pytest.raises(ValueError, match="at least 8 pixels a side, got shape"):
        SmallConvNet().init(key, jnp.zeros((2, 4, 8, 1)))


def convolution(x, kernel, bias, pad):
    """A convolution by loops over the kernel, in float64."""
    height, width = kernel.shape[:2]
    x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
    rows, columns = x.shape[0] - height + 1, x.shape[1] - width + 1
    out = np.zeros((rows, columns, kernel.shape[-1]))
    for i in range(height):
        for j in range(width):
            out += x[i : i + rows, j : j + columns] @ kernel[i, j]
    return out + bias


def pooled(x):
    x = x[: x.shape[0] // 2 * 2, : x.shape[1] // 2 * 2]
    return x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, -1).max((1, 3))


def test_the_gradient_of_pooling_goes_to_the_largest_and_is_shared_among_equals(key):
    x = jax.random.permutation(key, 2 * 5 * 4 * 3).reshape(2, 5, 4, 3).astype(jnp.float32)
    found = jax.grad(lambda x: (3 * max_pool(x)).sum())(x)
    largest = np.stack([np.repeat(np.repeat(pooled(image), 2, 0), 2, 1) for image in np.asarray(x)])
    np.testing.assert_array_equal(found[:, :4], 3.0 * (np.asarray(x)[:, :4] == largest))
    assert not found[:, 4].any()
    np.testing.assert_array_equal(jax.grad(lambda x: max_pool(x).sum())(jnp.zeros((2, 2, 1))), np.full((2, 2, 1), 0.25))


def weights(params, name):
    layer = params["params"][name]
    return [np.asarray(layer[part], np.float64) for part in ("kernel", "bias")]


def test_lenet_against_numpy(key):
    image = jax.random.normal(key, (28, 28, 1))
    params = jax.jit(LeNet5().init)(key, image)
    x = np.asarray(image, np.float64)
    x = pooled(np.maximum(convolution(x, *weights(params, "Conv_0"), 2), 0))
    x = pooled(np.maximum(convolution(x, *weights(params, "Conv_1"), 0), 0))
    assert x.shape == (5, 5, 16)
    x = x.ravel()
    for i in range(3):
        kernel, bias = weights(params, f"Dense_{i}")
        x = x @ kernel + bias
        x = np.maximum(x, 0) if i < 2 else x
    np.testing.assert_allclose(LeNet5().apply(params, image), x, rtol=1e-4, atol=1e-5)


def test_small_conv_net_against_numpy(key):
    model = SmallConvNet(widths=(4, 6), hidden=(5,))
    image = jax.random.normal(key, (9, 8, 2))
    params = jax.jit(model.init)(key, image)
    x = np.asarray(image, np.float64)
    for name in ("Conv_0", "Conv_1"):
        x = pooled(np.maximum(convolution(x, *weights(params, name), 1), 0))
    for name in ("Dense_0", "Dense_1"):
        kernel, bias = weights(params, name)
        x = x.ravel() @ kernel + bias
        x = np.maximum(x, 0) if name == "Dense_0" else x
    np.testing.assert_allclose(model.apply(params, image), x, rtol=1e-4, atol=1e-5)
