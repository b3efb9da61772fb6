"""The settings of the main job, and what follows from them: the model, the sets of its weights, the chips."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from modicum import admm, analog, constraints
from modicum.core import Params, Site, check
from modicum.models import SmallConvNet


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig:
    """Everything the main job can be told.

    Attributes:
        data: `digits` (bundled), `mnist`, `cifar10` or any other image set of `train.load`.
        seeds: independent runs, at least 1: initial weights and order of the examples.
        widths: output channels of the 3x3 convolutions.
        batch: examples in a step.
        dense_steps: optimizer steps before compression.
        dense_learning_rate: step size of Adam, falling to 0 by a cosine.
        patterns: size of the library taken from the dense weights.
        connectivity: share of its kernels that each filter keeps, above 0, at most 1.
        fragment: rows of a crossbar column that share a sign; 18 are two 3x3 kernels.
        read_rows: rows read together, a divisor of `fragment`.
        bits: bits of a weight, sign included.
        outer: dual updates of ADMM.
        inner: optimizer steps before each.
        retrain: optimizer steps inside the set; the control arm gets `outer * inner + retrain`.
        rho: penalty strength at the start.
        growth: its factor at each dual update.
        learning_rate: step size during ADMM.
        retrain_learning_rate: step size of retraining, falling to 0 by a cosine.
        chips: simulated chips, at least 1.
        chip_images: held-out images each chip sees: the first of the split.
        chip_batch: chips simulated side by side.
        sigma: standard deviation of the log-normal programming variation.
        adc_bits: bits of the converter.
        input_bits: bits of an activation.
    """

    data: str = "digits"
    seeds: int = 3
    widths: tuple[int, ...] = (16, 32, 64)
    batch: int = 64
    dense_steps: int = 600
    dense_learning_rate: float = 3e-3
    patterns: int = 8
    connectivity: float = 0.5
    fragment: int = 18
    read_rows: int = 9
    bits: int = 4
    outer: int = 16
    inner: int = 40
    retrain: int = 400
    rho: float = 3.0
    growth: float = 1.3
    learning_rate: float = 2e-3
    retrain_learning_rate: float = 2e-3
    chips: int = 64
    chip_images: int = 500
    chip_batch: int = 8
    sigma: float = 0.1
    adc_bits: int = 4
    input_bits: int = 8

    def __post_init__(self) -> None:
        counts = ("read_rows", "seeds", "batch", "dense_steps", "inner", "chips", "chip_images", "chip_batch")
        check.integer(1, **{name: getattr(self, name) for name in counts})
        if len(self.widths) < 2:
            raise ValueError(f"widths must have at least two convolutions, got {self.widths}")
        check.integer(1, 56, patterns=self.patterns)
        check.integer(2, 8, bits=self.bits)
        check.integer(1, 128, fragment=self.fragment)
        check.divides(self.read_rows, fragment=self.fragment)
        check.positive(connectivity=self.connectivity)
        check.between(0, 1, connectivity=self.connectivity)
        check.positive(dense_learning_rate=self.dense_learning_rate)
        self.compression()
        self.device()

    def compression(self) -> admm.CompressConfig:
        """The schedule of ADMM and retraining."""
        return admm.CompressConfig(
            outer=self.outer,
            inner=self.inner,
            retrain=self.retrain,
            rho=self.rho,
            growth=self.growth,
            learning_rate=self.learning_rate,
            retrain_learning_rate=self.retrain_learning_rate,
        )

    def device(self, **changes: Any) -> Callable[[Site], analog.Device]:
        """The crossbars: magnitudes and one sign per fragment, as FORMS has it; two columns for the first layer."""
        numbers: dict[str, Any] = {
            "fragment": self.read_rows,
            "weight_bits": self.bits,
            "adc_bits": self.adc_bits,
            "input_bits": self.input_bits,
            "sigma": self.sigma,
        }
        polarized = analog.crossbar(**(numbers | changes), encoding="polarized")
        differential = analog.crossbar(**(numbers | changes), encoding="differential")
        return lambda site: differential if "Conv_0" in site.name else polarized


def default_config(data: str) -> QuickstartConfig:
    """The settings that suit a data set: the digits' own, and a longer schedule for full-size images."""
    config = QuickstartConfig(data=data)
    if data == "digits":
        return config
    return replace(
        config, seeds=1, batch=128, dense_steps=1400, outer=16, inner=40, retrain=700, chips=64, chip_images=500
    )


def network(config: QuickstartConfig, classes: int) -> SmallConvNet:
    """The model of a run."""
    return SmallConvNet(classes=classes, widths=config.widths)


def sets_for(config: QuickstartConfig, params: Params) -> Params:
    """The constraints of each leaf, the pattern library read off the dense weights.

    Inner convolutions keep a share of the kernels of each filter, each kernel one of the library's patterns, each
    fragment one sign, each weight `bits` bits; the dense head takes signs and bits. The first convolution takes
    bits alone: it holds under 1% of the weights, and one sign for the single kernel of a filter would leave it no
    edge to detect.
    """
    signs = constraints.Polarized(config.fragment), constraints.Levels(config.bits)
    rules = {"Dense.*kernel": constraints.nest(*signs), "Conv_0/kernel": constraints.Levels(config.bits)}
    for layer, channels in enumerate(config.widths[:-1], start=1):
        weight = params["params"][f"Conv_{layer}"]["kernel"]
        rules[f"Conv_{layer}/kernel"] = constraints.nest(
            constraints.Kernels(max(1, round(config.connectivity * channels))),
            constraints.Patterns(constraints.natural_library(weight, config.patterns)),
            *signs,
        )
    return constraints.by_path(rules, params)
