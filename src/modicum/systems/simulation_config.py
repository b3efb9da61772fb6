"""Settings of a network on simulated chips: which network, which device, how it is fitted to it, what is measured."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import optax

from modicum import analog, train
from modicum.core import check
from modicum.systems.compression_config import ARMS, Recipe

Spec = analog.CrossbarSpec | analog.ChargeSpec

DEVICES: dict[str, Spec] = {
    "forms": analog.CrossbarSpec(encoding="polarized"),
    "isaac": analog.CrossbarSpec(fragment=128, adc_bits=8, encoding="offset"),
    "differential": analog.CrossbarSpec(),
    "capram": analog.ChargeSpec(),
}
"""What a config that names a network only is simulated on. FORMS' fragments are 8 rows, its converters have 4 bits."""

ARCHITECTURES = {"forms": analog.FORMS, "isaac": analog.ISAAC}


@dataclass(frozen=True, kw_only=True)
class ChipTraining:
    """Training through the device, noise and all, before anything is measured.

    Attributes:
        steps: optimizer steps, at least 0; each draws a new chip, so that the network suits any.
        learning_rate: of Adam, falling to 0 by a cosine.
        batch: examples in a step.
        functional: whether CAP-RAM's reads are one product with noise there (`analog.capram_functional`), many times
            faster; what is measured afterwards are the reads themselves.
    """

    steps: int = 0
    learning_rate: float = 1e-3
    batch: int = 128
    functional: bool = True

    def __post_init__(self) -> None:
        check.integer(0, steps=self.steps)
        check.integer(1, batch=self.batch)
        check.positive(learning_rate=self.learning_rate)

    def optimizer(self) -> optax.GradientTransformation:
        """Adam with its schedule."""
        return optax.adam(optax.cosine_decay_schedule(self.learning_rate, max(self.steps, 1)))


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A network on chips.

    Attributes:
        network: how it is made: a training experiment, or a compression recipe.
        spec: the device of every layer.
        layers: pairs of a pattern (regular expression) on parameter paths and a spec, or None for a layer left
            digital; the first pattern that is found decides, `spec` where none is.
        architecture: component tables of crossbars, "forms" or "isaac".
        arm: of a recipe, see `compression.ARMS`.
        quantile: of the inputs of each layer, on training examples, that gets the highest input code
            (`analog.scaled`); 0 leaves the specs' own scales.
        fit_weights: whether `analog.scaled` fixes the steps of weights, too.
        calibration_examples: training examples for that, and for batch statistics measured on a chip.
        training: through the device.
        chips: how many are measured, each programmed with a key of its own.
        images: held-out examples, or None for all.
        batch: examples of one call.
        variations: sizes of programming variation (`sigma` of a crossbar, `gain_sigma` of CAP-RAM) that are measured
            beside the spec's own.
        seed: of all chips.
    """

    network: train.Experiment | Recipe
    spec: Spec = field(default_factory=analog.CrossbarSpec)
    layers: tuple[tuple[str, Spec | None], ...] = ()
    architecture: str = "forms"
    arm: str = "admm"
    quantile: float = 0.0
    fit_weights: bool = False
    calibration_examples: int = 1000
    training: ChipTraining = field(default_factory=ChipTraining)
    chips: int = 8
    images: int | None = None
    batch: int = 500
    variations: tuple[float, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        check.one_of(tuple(ARCHITECTURES), architecture=self.architecture)
        check.one_of(ARMS, arm=self.arm)
        check.between(0, 1, quantile=self.quantile)
        check.integer(1, calibration_examples=self.calibration_examples, chips=self.chips, batch=self.batch)
        check.integer(0, 2**32 - 1, seed=self.seed)
        if self.images is not None:
            check.integer(1, images=self.images)
        for sigma in self.variations:
            check.non_negative(variations=sigma)

    @property
    def experiment(self) -> train.Experiment:
        """Data, model and training of the network before any compression."""
        return self.network.dense if isinstance(self.network, Recipe) else self.network

    def spec_of(self, path: str) -> Spec | None:
        """The spec of the layer whose weight lies at a path.

        Args:
            path: of a parameter, such as `params/Conv_0/kernel`.
        """
        return next((spec for pattern, spec in self.layers if re.search(pattern, path)), self.spec)

    def varied(self, sigma: float) -> "Simulation":
        """The same with another size of programming variation, in every layer."""

        def change(spec: Spec | None) -> Spec | None:
            return None if spec is None else _varied(spec, sigma)

        layers = tuple((pattern, change(spec)) for pattern, spec in self.layers)
        return replace(self, spec=_varied(self.spec, sigma), layers=layers)


def _varied(spec: Spec, sigma: float) -> Spec:
    return replace(spec, sigma=sigma) if isinstance(spec, analog.CrossbarSpec) else replace(spec, gain_sigma=sigma)


def load_simulation(path: str | Path, overrides: Sequence[str] = (), device: str = "differential") -> Simulation:
    """The simulation of a config file: its own, or that of the experiment or recipe it makes, on a device.

    Args:
        path: a Python file of `configs/capram`, `configs/train`, `configs/forms`, ...
        overrides: `name=value`; a name that `config` takes as an argument goes to it, any other must be a setting of
            the simulation, such as `chips`, `spec.sigma` or `network.seed`.
        device: a name in `DEVICES`, where the config makes a network only.

    Raises:
        ValueError: if there is no such file or device, or an override does not fit.
    """
    check.one_of(tuple(DEVICES), device=device)
    made, others = train.configured(path, overrides)
    if isinstance(made, train.Experiment | Recipe):
        architecture = "isaac" if device == "isaac" else "forms"
        made = Simulation(network=made, spec=DEVICES[device], architecture=architecture)
    if not isinstance(made, Simulation):
        raise ValueError(
            f"config() of {path} must return a Simulation, an Experiment or a Recipe, got {type(made).__name__}"
        )
    return train.parse_overrides(made, others)


def device_name(simulation: Simulation) -> str:
    """The name of the device among `DEVICES`, as folders have it."""
    spec = simulation.spec
    if isinstance(spec, analog.ChargeSpec):
        return "capram"
    return {"polarized": "forms", "offset": "isaac"}.get(spec.encoding, spec.encoding)
