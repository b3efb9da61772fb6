"""Networks with batch normalization: published parameter counts and costs, a NumPy pass, exact statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum import core
from modicum.models import (
    VGG16,
    LeNet5,
    MobileNetV2,
    ResNet,
    apply_training,
    calibrate,
    resnet20,
    resnet50,
    small_resnet,
)

# convolutions, scales and offsets, head
SMALL = 9 * (3 * 16 + 2 * 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64) + 2 * (3 * 16 + 2 * 32 + 2 * 64) + 650


@pytest.mark.parametrize(
    ("model", "side", "count", "weights"),
    [
        # torchvision's vgg16_bn, less the 4,224 biases of its convolutions, which batch normalization makes idle
        (VGG16(classes=1000, hidden=(4096, 4096)), 224, 138_365_992 - 4224, 16),
        # torchvision's resnet50 and mobilenet_v2
        (resnet50(), 224, 25_557_032, 54),
        (MobileNetV2(classes=1000), 224, 3_504_872, 53),
        (MobileNetV2(classes=10, small_images=True), 32, 3_504_872 - 1281 * 990, 53),
        # 0.27 million in table 6 of He et al.; nets with option A have 20 weight layers
        (resnet20(), 32, 269_722, 20),
        (small_resnet(), 32, SMALL, 8),
        (VGG16(), 32, 14_728_266 - 4224, 14),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "classes") else None,
)
def test_published_counts(model, side, count, weights):
    x = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    logits, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
    assert logits.shape == (1, model.classes)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count
    for fun in (model.apply, apply_training(model)):
        found = core.sites(fun, variables, x)
        assert len(found) == weights
        assert all(site.leaf == site.name and site.calls == 1 for site in found)


def test_published_cost():
    """300 million multiply-adds (Sandler et al., table 4), those on padding included, which are not counted here."""
    model, x = MobileNetV2(classes=1000), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    assert sum(site.macs for site in core.sites(model.apply, variables, x)) == pytest.approx(300e6, rel=0.01)


def convolution(x, kernel, stride):
    """A convolution by loops over the kernel, margins of zeros on both sides, in float64."""
    side = kernel.shape[0]
    x = np.pad(x, ((0, 0), (side // 2, side // 2), (side // 2, side // 2), (0, 0)))
    rows = (x.shape[1] - side) // stride + 1
    out = np.zeros((len(x), rows, rows, kernel.shape[-1]))
    for i in range(side):
        for j in range(side):
            out += x[:, i : i + rows * stride : stride, j : j + rows * stride : stride][:, :rows, :rows] @ kernel[i, j]
    return out


def normal(x, layer, stats=None):
    mean = x.mean((0, 1, 2)) if stats is None else np.float64(stats["mean"])
    var = x.var((0, 1, 2)) if stats is None else np.float64(stats["var"])
    return (x - mean) / np.sqrt(var + 1e-5) * np.float64(layer["scale"]) + np.float64(layer["bias"])


def reference(variables, x, training, moments=None):
    """A ResNet of one block, then one that halves and widens; `moments` collects what the norms see."""
    params, stats = variables["params"], variables["batch_stats"]

    def layer(i, x, stride=1):
        x = convolution(x, np.float64(params[f"Conv_{i}"]["kernel"]), stride)
        if moments is not None:
            moments.append((x.mean((0, 1, 2)), x.var((0, 1, 2))))
        return normal(x, params[f"BatchNorm_{i}"], None if training else stats[f"BatchNorm_{i}"])

    x = np.maximum(layer(0, np.float64(x), 2), 0)
    x = np.maximum(layer(2, np.maximum(layer(1, x), 0)) + x, 0)
    y = layer(4, np.maximum(layer(3, x, 2), 0))
    x = np.maximum(y + np.concatenate([x[:, ::2, ::2], np.zeros((*y.shape[:3], 2))], axis=-1), 0)
    head = {name: np.float64(value) for name, value in params["Dense_0"].items()}
    return x.mean((1, 2)) @ head["kernel"] + head["bias"]


def test_a_resnet_and_its_statistics_against_numpy(key):
    model = ResNet(classes=3, blocks=(1, 1), widths=(4, 6), stem="3x3/2")
    first, second = 3 + jax.random.normal(key, (2, 5, 12, 12, 2)) * jnp.array([1.0, 4.0]).reshape(2, 1, 1, 1, 1)
    variables = jax.jit(model.init)(key, first)
    variables = {**variables, "params": jax.tree.map(lambda leaf: leaf + 0.1, variables["params"])}
    evaluated = jax.jit(model.apply)
    in_training = jax.jit(apply_training(model))(variables, first)
    np.testing.assert_allclose(in_training, reference(variables, first, True), rtol=1e-4, atol=1e-4)
    # one batch: the stored statistics are its own
    once = calibrate(model, variables, [first])
    np.testing.assert_allclose(evaluated(once, first), in_training, rtol=1e-4, atol=1e-4)
    # two batches: mean of means, and the mean of var + mean^2 less its square
    twice, moments = calibrate(model, variables, [first, second]), ([], [])
    for batch, seen in zip((first, second), moments, strict=True):
        reference(variables, batch, True, seen)
    for i, ((mean_a, var_a), (mean_b, var_b)) in enumerate(zip(*moments, strict=True)):
        mean = (mean_a + mean_b) / 2
        var = (var_a + mean_a**2 + var_b + mean_b**2) / 2 - mean**2
        found = twice["batch_stats"][f"BatchNorm_{i}"]
        np.testing.assert_allclose(found["mean"], mean, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found["var"], var, rtol=1e-3)
    np.testing.assert_allclose(evaluated(twice, second), reference(twice, second, False), rtol=1e-4, atol=1e-4)
    # and one image alone is evaluated as in its batch
    np.testing.assert_allclose(evaluated(twice, second[1]), evaluated(twice, second)[1], rtol=1e-4, atol=1e-4)


def test_training_mode_neither_reads_nor_changes_stored_statistics(key):
    model = ResNet(classes=3, blocks=(1,), widths=(4,))
    images = jax.random.normal(key, (4, 8, 8, 3))
    variables = jax.jit(model.init)(key, images)
    gradient = jax.jit(jax.grad(lambda v: (apply_training(model)(v, images) ** 2).sum()))(variables)
    assert all(np.abs(leaf).max() == 0 for leaf in jax.tree.leaves(gradient["batch_stats"]))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient["params"]))
    wild = {**variables, "batch_stats": jax.tree.map(lambda leaf: leaf + 9, variables["batch_stats"])}
    training = jax.jit(apply_training(model))
    np.testing.assert_array_equal(training(variables, images), training(wild, images))
    assert apply_training(model) is apply_training(ResNet(classes=3, blocks=(1,), widths=(4,)))


def test_a_model_without_batch_normalization_has_one_mode(key):
    model, images = LeNet5(widths=(2, 2), hidden=()), jax.random.normal(key, (2, 8, 8, 1))
    variables = jax.jit(model.init)(key, images)
    assert apply_training(model) == model.apply
    assert calibrate(model, variables, []) is variables


def test_bad_arguments(key):
    images = jnp.zeros((2, 8, 8, 3))
    with pytest.raises(ValueError, match="stem must be one of '3x3', '3x3/2', '7x7/2', got '5x5'"):
        ResNet(stem="5x5").init(key, images)
    with pytest.raises(ValueError, match="widths must be one for each of 2 stages"):
        ResNet(blocks=(1, 1), widths=(4,)).init(key, images)
    with pytest.raises(ValueError, match="width must be above 0, got 0"):
        MobileNetV2(width=0).init(key, images)
    with pytest.raises(ValueError, match="batches must hold at least one batch of inputs, got none"):
        calibrate(ResNet(), {"params": {}, "batch_stats": {}}, [])


def test_what_an_image_costs_the_small_resnet():
    """By hand with the taps on padding: stem, three stages, head; `sites` leaves those out."""
    x = jnp.zeros((1, 32, 32, 3))
    model = small_resnet()
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    stem, first = 16**2 * 27 * 16, 2 * 16**2 * 9 * 16 * 16
    others = sum(side**2 * 9 * (width // 2 + width) * width for side, width in ((8, 32), (4, 64)))
    assert stem + first + others + 64 * 10 == pytest.approx(3.06e6, rel=0.002)
    assert sum(site.macs for site in core.sites(model.apply, variables, x)) == pytest.approx(2.6e6, rel=0.01)
