"""The dense networks that recipes start from: recipes that name the same one share its training run."""

import flax.linen as nn

from modicum.core import check
from modicum.models import VGG16, MobileNetV2, caffe_lenet, resnet20, rtmobile_gru, small_resnet
from modicum.systems.compression_config import Schedule
from modicum.train import DataConfig, Experiment, OptimizerConfig

CIFAR_MODELS: dict[str, tuple[nn.Module, int]] = {
    "small": (small_resnet(), 30),
    "resnet20": (resnet20(), 100),
    "vgg16": (VGG16(), 100),
    "mobilenet_v2": (MobileNetV2(small_images=True), 100),
}
"""Networks for CIFAR-10 and the epochs they are trained: the first on a CPU, the others on a GPU."""


def lenet_on_mnist() -> Experiment:
    """LeNet-5 as Caffe has it, 431,080 parameters."""
    return Experiment(
        data=DataConfig(name="mnist"),
        model=caffe_lenet(),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        epochs=6,
        batch=128,
    )


def on_cifar10(model: str) -> Experiment:
    """A network on CIFAR-10 with random crops and mirror images.

    Args:
        model: a name in `CIFAR_MODELS`.

    Raises:
        ValueError: if there is no such model.
    """
    check.one_of(tuple(CIFAR_MODELS), model=model)
    network, epochs = CIFAR_MODELS[model]
    return Experiment(
        data=DataConfig(name="cifar10", augment=True),
        model=network,
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup=200, weight_decay=1e-4),
        epochs=epochs,
        batch=64 if model == "small" else 128,
        # a large network's checkpoint takes as long as hundreds of steps
        checkpoint_every=200 if model == "small" else 4000,
    )


def schedule_on_cifar10(model: str) -> Schedule:
    """How a network on CIFAR-10 is compressed: 6,000 steps of the small one, 26,000 of the others.

    The small one's schedule was chosen on the last tenth of the training images, `dense.data.train=train[:90%]` and
    `dense.data.test=train[90%:]`, not on the held-out ones.

    Args:
        model: a name in `CIFAR_MODELS`.
    """
    if model == "small":
        return Schedule(outer=30, inner=50, retrain=4500, rho=1.0, growth=1.2, refit=8, retrain_learning_rate=2e-3)
    return Schedule(outer=25, inner=400, retrain=16000, rho=0.1, refit=8, retrain_learning_rate=2e-3, batch=128)


def gru_on_spoken_digits(features: int, speaker: str | None) -> Experiment:
    """Two GRU layers over 39 cepstral features of the Free Spoken Digit Dataset.

    Args:
        features: units of each layer.
        speaker: whom to hold out, None for takes 0-4 of all.
    """
    return Experiment(
        data=DataConfig(name="spoken_digit", features="mfcc", speaker=speaker),
        model=rtmobile_gru(features),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup=50, clip=1.0),
        epochs=10,
        batch=32,
    )
