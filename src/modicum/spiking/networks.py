"""Networks of spiking neurons, by name: builders of `SpikingClassifier`, each with any neuron."""

import dataclasses
from typing import Any

from modicum.core import check
from modicum.spiking.classifier import ClockedDense, SpikingClassifier
from modicum.spiking.layers import Layer, Neuron
from modicum.spiking.normalization import Normalized
from modicum.spiking.populations import LIF
from modicum.spiking.synapses import Convolution, Dense

NORMALIZE = ("weights", "batch", "none")
DEFAULT_NEURON = LIF(leak=0.5)
"""What builders use unless told otherwise: its powers of two make `packed` bit-equal to autodiff."""


def chain(
    neuron: Neuron,
    widths: tuple[int, ...],
    pools: tuple[int, ...],
    hidden: tuple[int, ...] = (),
    classes: int = 10,
    *,
    kernel: int = 3,
    gain: float = 1.0,
    grid_bits: int | None = None,
    normalize: str = "weights",
) -> tuple[Layer, ...]:
    """Convolutions, then dense layers, each with neurons, and a readout; what goes into neurons is normalized.

    Args:
        neuron: of all layers but the last.
        widths: channels of the convolutions.
        pools: side of the windows whose mean is taken before each convolution and, at last, before the first dense
            layer.
        hidden: widths of the dense layers before the last.
        classes: outputs of the last.
        kernel: side of the kernels, odd.
        gain: initial standard deviation of a current, where the mean square of what comes in is 1.
        grid_bits: round the weights to multiples of `2**-grid_bits`, or None.
        normalize: "weights" standardizes the weights into neurons; "batch" normalizes their currents over the batch
            and time (`Normalized`), which asks for `order="layer"`; "none" leaves both as they are, for weights that
            are to lie in a set.

    Returns:
        The layers.

    Raises:
        ValueError: if there is not one of `pools` for each convolution and one more, or `normalize` is no such mode.

    Reference:
        Brock et al., "High-performance large-scale image recognition without normalization", ICML 2021 (standardized
        weights, in place of batch normalization); for the other see `Normalized`.
    """
    if len(pools) != len(widths) + 1:
        raise ValueError(f"pools must hold one for each of {len(widths)} convolutions and one more, got {pools}")
    check.one_of(NORMALIZE, normalize=normalize)
    common: dict[str, Any] = {"bias": True, "grid_bits": grid_bits}
    inner: dict[str, Any] = {**common, "standardize": normalize == "weights", "gain": gain}

    def layer(kind: type[Convolution] | type[Dense], **settings: Any) -> Layer:
        if normalize != "batch":
            return Layer(kind(**settings, **inner), neuron)
        return Layer(Normalized(synapse=kind(**settings, grid_bits=grid_bits), gain=gain), neuron, over_time=True)

    # what is pooled before the first dense layer, whichever that is
    dense = [pools[-1], *(1 for _ in hidden)]
    return (
        *(
            layer(Convolution, features=width, pool=pool, kernel=kernel)
            for width, pool in zip(widths, pools, strict=False)
        ),
        *(layer(Dense, features=width, pool=pool) for width, pool in zip(hidden, dense, strict=False)),
        Layer(Dense(features=classes, pool=dense[-1], **common)),
    )


def _settings(normalize: str, settings: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    """Settings of a `SpikingClassifier`: what a normalization asks for, the builder's, and the caller's over them."""
    return {**({"order": "layer"} if normalize == "batch" else {}), **defaults, **settings}


def spiking_lenet(
    neuron: Neuron = DEFAULT_NEURON,
    *,
    widths: tuple[int, int] = (24, 48),
    hidden: tuple[int, ...] = (),
    classes: int = 10,
    gain: float = 1.0,
    grid_bits: int | None = None,
    normalize: str = "weights",
    steps: int | None = 4,
    **settings: Any,
) -> SpikingClassifier:
    """Two 3x3 convolutions and a dense head for MNIST: 34,906 parameters, 7,056 neurons.

    The first looks at squares of 2 x 2 pixels, so that both are cheap; images must be a multiple of 4 pixels a side.

    Args:
        neuron: of all layers but the last.
        widths: channels of the convolutions.
        hidden: widths of dense layers before the last.
        classes: number of logits.
        gain: of the initial weights, see `chain`; the sparser the spikes that come in, the larger.
        grid_bits: of the grid of weights, see `chain`.
        normalize: "weights", "batch" or "none", see `chain`.
        steps: time steps; None with `code="events"`.
        **settings: others of `SpikingClassifier`.
    """
    layers = chain(neuron, widths, (1, 2, 1), hidden, classes, gain=gain, grid_bits=grid_bits, normalize=normalize)
    return SpikingClassifier(layers, **_settings(normalize, settings, steps=steps, patch=2))


def spiking_convnet(
    neuron: Neuron = DEFAULT_NEURON,
    *,
    widths: tuple[int, ...] = (32, 64, 128),
    hidden: tuple[int, ...] = (),
    classes: int = 10,
    gain: float = 1.0,
    grid_bits: int | None = None,
    normalize: str = "weights",
    steps: int | None = 4,
    **settings: Any,
) -> SpikingClassifier:
    """3x3 convolutions that halve the side each, and a dense head: 101,194 parameters, 14,336 neurons on CIFAR.

    The first looks at squares of 2 x 2 pixels, the others and the head at means over 2 x 2; images must be a multiple
    of `2**(len(widths) + 1)` pixels a side.

    Args:
        neuron: of all layers but the last.
        widths: channels of the convolutions.
        hidden: widths of dense layers before the last.
        classes: number of logits.
        gain: of the initial weights, see `chain`; the sparser the spikes that come in, the larger.
        grid_bits: of the grid of weights, see `chain`.
        normalize: "weights", "batch" or "none", see `chain`.
        steps: time steps; None with `code="events"`.
        **settings: others of `SpikingClassifier`.
    """
    layers = chain(
        neuron, widths, (1, *(2 for _ in widths)), hidden, classes, gain=gain, grid_bits=grid_bits, normalize=normalize
    )
    return SpikingClassifier(layers, **_settings(normalize, settings, steps=steps, patch=2))


def event_convnet(
    neuron: Neuron = DEFAULT_NEURON, *, widths: tuple[int, ...] = (32, 48), **settings: Any
) -> SpikingClassifier:
    """`spiking_convnet` for the middle 32 x 32 of N-MNIST's 34 x 34 pixels: 23,978 parameters, 11,264 neurons.

    Args:
        neuron: of all layers but the last.
        widths: channels of the convolutions, at most 4.
        **settings: others of `spiking_convnet` and `SpikingClassifier`.
    """
    chosen: dict[str, Any] = {"widths": widths, "steps": None, "code": "events", "crop": 32, **settings}
    return spiking_convnet(neuron, **chosen)


def spiking_vgg9(
    neuron: Neuron = DEFAULT_NEURON,
    *,
    width: int = 64,
    hidden: tuple[int, ...] = (1024,),
    classes: int = 10,
    gain: float = 1.0,
    grid_bits: int | None = None,
    normalize: str = "weights",
    steps: int | None = 4,
    **settings: Any,
) -> SpikingClassifier:
    """Seven 3x3 convolutions and two dense layers for CIFAR: 5,943,242 parameters, 246,784 neurons.

    Args:
        neuron: of all layers but the last.
        width: channels of the first two convolutions; those after a pooling have twice and four times as many.
        hidden: widths of dense layers before the last.
        classes: number of logits.
        gain: of the initial weights, see `chain`; the sparser the spikes that come in, the larger.
        grid_bits: of the grid of weights, see `chain`.
        normalize: "weights", "batch" or "none", see `chain`.
        steps: time steps; None with `code="events"`.
        **settings: others of `SpikingClassifier`.

    Reference:
        Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015; in
        this size Rathi et al., "Enabling deep spiking neural networks with hybrid conversion and spike timing
        dependent backpropagation", ICLR 2020. Ours takes means for pooling.
    """
    widths = (width, width, 2 * width, 2 * width, 4 * width, 4 * width, 4 * width)
    layers = chain(
        neuron, widths, (1, 1, 2, 1, 2, 1, 1, 2), hidden, classes, gain=gain, grid_bits=grid_bits, normalize=normalize
    )
    return SpikingClassifier(layers, **_settings(normalize, settings, steps=steps))


def spiking_vgg11(
    neuron: Neuron = DEFAULT_NEURON,
    *,
    width: int = 64,
    hidden: tuple[int, ...] = (512, 512),
    classes: int = 10,
    gain: float = 1.0,
    grid_bits: int | None = None,
    normalize: str = "weights",
    steps: int | None = 4,
    **settings: Any,
) -> SpikingClassifier:
    """Eight 3x3 convolutions and three dense layers for CIFAR.

    9,754,698 parameters, 152,576 neurons. Arguments and reference as of `spiking_vgg9`; the paper's configuration A.
    """
    widths = (width, 2 * width, 4 * width, 4 * width, 8 * width, 8 * width, 8 * width, 8 * width)
    layers = chain(
        neuron,
        widths,
        (1, 2, 2, 1, 2, 1, 2, 1, 2),
        hidden,
        classes,
        gain=gain,
        grid_bits=grid_bits,
        normalize=normalize,
    )
    return SpikingClassifier(layers, **_settings(normalize, settings, steps=steps))


def sequential_mlp(
    neuron: Neuron = DEFAULT_NEURON,
    *,
    hidden: tuple[int, ...] = (128, 128),
    classes: int = 10,
    gain: float = 1.0,
    grid_bits: int | None = None,
    **settings: Any,
) -> SpikingClassifier:
    """Dense layers without recurrence that get an image pixel by pixel, and a clock: 25,482 parameters.

    Args:
        neuron: of all layers but the last.
        hidden: widths of the layers before the last.
        classes: number of logits.
        gain: of the initial weights, see `chain`; the sparser the spikes that come in, the larger.
        grid_bits: of the grid of weights, see `chain`.
        **settings: others of `SpikingClassifier`.
    """
    first, *rest = chain(neuron, (), (1,), hidden, classes, gain=gain, grid_bits=grid_bits)
    # the same settings, for a row and a column besides
    clocked = ClockedDense(**dataclasses.asdict(first.synapse))  # type: ignore[call-overload]
    chosen: dict[str, Any] = {"code": "pixels", "clock": True, **settings}
    layers = (dataclasses.replace(first, synapse=clocked), *rest) if chosen["clock"] else (first, *rest)
    return SpikingClassifier(layers, **chosen)
