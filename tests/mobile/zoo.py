"""The models of `modicum.models` at sizes that a test can afford, with random statistics: each `(model, shape)`."""

import jax
import jax.numpy as jnp
import numpy as np

from modicum import models

ZOO = {
    "caffe_lenet": (models.caffe_lenet(), (2, 28, 28, 1)),
    "lenet5": (models.LeNet5(), (2, 28, 28, 1)),
    "lenet5 of digits": (models.LeNet5(), (3, 8, 8, 1)),
    "small_conv_net": (models.SmallConvNet(hidden=(12,)), (2, 9, 11, 1)),
    "vgg16": (models.VGG16(widths=(8, 12, 16, 24, 24)), (2, 32, 32, 3)),
    "vgg16 of ImageNet": (models.VGG16(classes=20, widths=(4, 4, 8, 8, 8), hidden=(32, 24)), (1, 96, 96, 3)),
    "resnet20": (models.resnet20(), (2, 16, 16, 3)),
    "small_resnet": (models.small_resnet(), (2, 32, 32, 3)),
    "resnet50": (
        models.ResNet(
            classes=12, blocks=(3, 4, 6, 3), widths=(4, 8, 8, 16), bottleneck=True, projection=True, stem="7x7/2"
        ),
        (1, 64, 64, 3),
    ),
    "mobilenet": (models.MobileNetV2(width=0.25, small_images=True), (2, 16, 16, 3)),
    "gru": (models.GRUClassifier(features=(7, 5)), (2, 6, 4)),
}


def zoo(name, key):
    """`(fun, params, inputs)` of a model whose every bias, scale and batch statistic is random."""
    model, shape = ZOO[name]
    key, inputs_key = jax.random.split(key)
    inputs = jax.random.normal(inputs_key, shape)
    shapes = jax.eval_shape(model.init, key, inputs)
    return model.apply, random_variables(shapes, key), inputs


def random_variables(shapes, key):
    """Random numbers for each leaf: variances and scales about 1, matrices that keep the size of what they multiply."""
    # NumPy's, as JAX would compile a generator for each shape
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))

    def leaf(path, struct):
        if path[-1].key in ("scale", "var"):
            numbers = generator.uniform(0.5, 1.5, struct.shape)
        else:
            deviation = 0.3 if len(struct.shape) < 2 else np.sqrt(2 * struct.shape[-1] / struct.size)
            numbers = deviation * generator.standard_normal(struct.shape)
        return jnp.asarray(numbers, jnp.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes)
