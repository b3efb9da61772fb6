"""A reversible spiking network, polarized with 4-bit weights by ADMM, on FORMS and CAP-RAM chips.

Carry neurons train without a tape; each weight of a fragment has one sign; chips differ by programming variation.

Anchor: none; no published system joins these.
Command: modicum pipeline pipelines/spiking_chips (small: data=digits)
Time and score: `modicum tables` (pipelines).
"""

from modicum import analog
from modicum.constraints import Levels, Polarized, nest
from modicum.spiking.circle import Carry
from modicum.spiking.networks import spiking_lenet
from modicum.systems.compression_config import Recipe, Schedule
from modicum.systems.pipelines import OnDevices
from modicum.systems.simulation_config import ChipTraining, Simulation
from modicum.train import DataConfig, Experiment, OptimizerConfig


def config(
    data: str = "mnist", epochs: int = 8, admm: int = 20, fit: int = 1500, chips: int = 16, images: int = 2000
) -> OnDevices:
    """The pipeline.

    Args:
        data: mnist, or digits.
        epochs: of the training before.
        admm: dual updates; there are 75 steps before each, and 20 times as many of retraining.
        fit: steps of training through CAP-RAM, whose converters have fewer bits than its sums.
        chips: of each device.
        images: held-out images a chip reads.
    """
    network = Recipe(
        dense=Experiment(
            data=DataConfig(name=data),
            # standardized weights would not lie in the sets that their kernels are constrained to
            model=spiking_lenet(Carry(), residuals="reversible", normalize="none"),
            optimizer=OptimizerConfig(learning_rate=4e-3, warmup=100),
            epochs=epochs,
            batch=32,
        ),
        rules=(("kernel", nest(Polarized(8), Levels(4))),),
        schedule=Schedule(outer=admm, inner=75, retrain=20 * admm, rho=1.0, batch=32),
    )
    forms = Simulation(
        network=network,
        spec=analog.CrossbarSpec(encoding="polarized", weight_bits=4, sigma=0.1),
        quantile=0.999,
        variations=(0.0, 0.05),
        chips=chips,
        images=images,
        batch=min(500, images),
    )
    capram = Simulation(
        network=network,
        spec=analog.ChargeSpec(weight_bits=3),
        quantile=0.995,
        fit_weights=True,
        training=ChipTraining(steps=fit, batch=32),
        chips=chips,
        images=images,
        batch=min(500, images),
    )
    return OnDevices(network=network, devices=(("forms", forms), ("capram", capram)))
