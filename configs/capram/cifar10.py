"""A ResNet on CIFAR-10 in CAP-RAM macros: the small one that a CPU trains, or ResNet-20 (which wants a GPU).

Weights are ternary numbers of 3 bits, activations have 4; the first convolution takes 5-bit weights and 8-bit inputs
(two cycles), the head 5-bit weights. Batch normalization stays digital, its statistics are measured on a chip. Trained
through the macro, noise and all.

Anchor: CAP-RAM (JSSC 2021), section IV-B.3: ResNet-20, 89.0% of 500 images, 1.6 points below software; its last layers
take two macros.
Command: python scripts/simulate.py configs/capram/cifar10.py
Time and score: `python scripts/tables.py` (chips).
"""

from modicum.analog import ChargeSpec
from modicum.systems.dense import on_cifar10
from modicum.systems.simulation_config import ChipTraining, Simulation


def config(model: str = "small") -> Simulation:
    """The experiment.

    Args:
        model: small (a ResNet for CPUs) or resnet20, vgg16, mobilenet_v2.
    """
    return Simulation(
        network=on_cifar10(model),
        spec=ChargeSpec(weight_bits=3),
        layers=(
            ("Conv_0", ChargeSpec(weight_bits=5, input_bits=8, copies=4)),
            ("Dense", ChargeSpec(weight_bits=5, copies=2)),
        ),
        quantile=0.999,
        fit_weights=True,
        training=ChipTraining(steps=6000 if model == "small" else 20000, learning_rate=1e-3, batch=64),
        chips=4,
        variations=(0.0, 0.02, 0.05),
    )
