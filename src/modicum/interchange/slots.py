"""Where the parameters of the networks of `modicum.models` lie in torch: names, in the order of the forward pass.

VGG-16, the ResNets with projections and MobileNetV2 are named as torchvision names them. LeNet-5 is `conv1`, `conv2`,
`fc1`, `fc2`, ... ; a GRU is `gru` (one `torch.nn.GRU` of all layers) and `fc`; the ResNets of CIFAR end in `fc` or
`linear`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import flax.linen as nn

from modicum.models import VGG16, GRUClassifier, LeNet5, MobileNetV2, ResNet

_VGG_DEPTHS = (2, 2, 3, 3, 3)
_INVERTED = ((1, 1), (6, 2), (6, 3), (6, 4), (6, 3), (6, 3), (6, 1))
"""MobileNetV2's expansion and blocks of each stage."""
HEADS = ("fc.{}", "linear.{}", "classifier.{}", "classifier.0.{}", "classifier.1.{}", "head.{}")
"""Names of a single dense layer."""


@dataclass(frozen=True)
class Slot:
    """One operator with weights.

    Attributes:
        kind: "conv", "dense" or "gru".
        ours: flax's name of the module, `Conv_0`.
        names: what torch may call its parameters, with `{}` in place of `weight`; the first is the usual one.
        norm: flax's name of the batch normalization behind it; empty where there is none.
        norm_names: what torch may call that.
    """

    kind: str
    ours: str
    names: tuple[str, ...]
    norm: str = ""
    norm_names: tuple[str, ...] = ()


def slots(model: nn.Module, normalized: bool) -> tuple[Slot, ...]:
    """All operators of a model.

    Args:
        model: one of `modicum.models`.
        normalized: whether torch's network has batch normalization; VGG-16's layers are numbered differently then.

    Raises:
        ValueError: if the model is no network whose names are known.
    """
    match model:
        case LeNet5():
            return tuple(_lenet(model))
        case VGG16():
            return tuple(_vgg(model, normalized))
        case ResNet():
            return tuple(_resnet(model))
        case MobileNetV2():
            return tuple(_mobilenet())
        case GRUClassifier():
            return tuple(_gru(model))
    allowed = "LeNet5, VGG16, ResNet, MobileNetV2, GRUClassifier"
    raise ValueError(f"model must be one of {allowed}, got {type(model).__name__}")


def _normalized(number: int, conv: tuple[str, ...], norm: tuple[str, ...]) -> Slot:
    return Slot("conv", f"Conv_{number}", conv, f"BatchNorm_{number}", norm)


def _lenet(model: LeNet5) -> Iterator[Slot]:
    for number in range(len(model.widths)):
        yield Slot("conv", f"Conv_{number}", (f"conv{number + 1}.{{}}",))
    for number in range(len(model.hidden) + 1):
        yield Slot("dense", f"Dense_{number}", (f"fc{number + 1}.{{}}",))


def _vgg(model: VGG16, normalized: bool) -> Iterator[Slot]:
    place, number = 0, 0
    for depth in _VGG_DEPTHS:
        for _ in range(depth):
            yield _normalized(number, (f"features.{place}.{{}}",), (f"features.{place + 1}.{{}}",))
            # convolution, perhaps batch normalization, ReLU
            place, number = place + (3 if normalized else 2), number + 1
        place += 1
    for number in range(len(model.hidden) + 1):
        # between dense layers are a ReLU and dropout
        names = (f"classifier.{3 * number}.{{}}",)
        yield Slot("dense", f"Dense_{number}", names if model.hidden else (*names, *HEADS))


def _resnet(model: ResNet) -> Iterator[Slot]:
    yield _normalized(0, ("conv1.{}",), ("bn1.{}",))
    number, channels, growth = 1, model.widths[0], 4 if model.bottleneck else 1
    for stage, (count, width) in enumerate(zip(model.blocks, model.widths, strict=True)):
        for block in range(count):
            home = f"layer{stage + 1}.{block}"
            for part in range(1, 4 if model.bottleneck else 3):
                yield _normalized(number, (f"{home}.conv{part}.{{}}",), (f"{home}.bn{part}.{{}}",))
                number += 1
            changes = channels != growth * width or (stage > 0 and block == 0)
            channels = growth * width
            if model.projection and changes:
                kinds = ("downsample", "shortcut")
                yield _normalized(
                    number,
                    tuple(f"{home}.{kind}.0.{{}}" for kind in kinds),
                    tuple(f"{home}.{kind}.1.{{}}" for kind in kinds),
                )
                number += 1
    yield Slot("dense", "Dense_0", HEADS)


def _mobilenet() -> Iterator[Slot]:
    yield _normalized(0, ("features.0.0.{}",), ("features.0.1.{}",))
    number, place = 1, 1
    for expansion, count in _INVERTED:
        for _ in range(count):
            home = f"features.{place}.conv"
            places = [(f"{home}.0.0", f"{home}.0.1")]
            if expansion > 1:
                places += [(f"{home}.1.0", f"{home}.1.1")]
            # the linear 1x1 convolution stands by itself
            places += [(f"{home}.{len(places)}", f"{home}.{len(places) + 1}")]
            for conv, norm in places:
                yield _normalized(number, (f"{conv}.{{}}",), (f"{norm}.{{}}",))
                number += 1
            place += 1
    yield _normalized(number, (f"features.{place}.0.{{}}",), (f"features.{place}.1.{{}}",))
    yield Slot("dense", "Dense_0", ("classifier.1.{}", *HEADS))


def _gru(model: GRUClassifier) -> Iterator[Slot]:
    layers = 1 if isinstance(model.features, int) else len(model.features)
    for number in range(layers):
        names = (f"gru.{{}}_l{number}", f"rnn.{{}}_l{number}", f"gru{number + 1}.{{}}_l0")
        yield Slot("gru", f"GRULayer_{number}", names)
    yield Slot("dense", "Dense_0", HEADS)
