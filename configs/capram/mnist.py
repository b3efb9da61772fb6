"""LeNet-5 on MNIST in one CAP-RAM macro: every weight of it fits the 512 x 128 cells at once.

The first convolution is held in two's complement (4 bits), the others as ternary digits; activations have 4 bits, the
converters 7 (6 in two's complement), every conversion has the measured noise. The 25 rows of the first layer lie five
times, the 32 of the last four times in 128 lines, which makes their sums as much larger than that noise. Trained
through the macro (its reads as one product with noise) after a short training without it.

Anchor: CAP-RAM (JSSC 2021), section IV-B.3: 98.8% of 500 images, as in software; LeNet-5 with 19,149 weights left by
pruning, whose layers its Table I gives (not available). Ours has 20,082 parameters, none pruned; its second convolution
takes two ternary digits.
Command: python scripts/simulate.py configs/capram/mnist.py
Time and score: `python scripts/tables.py` (chips).
"""

from modicum.analog import ChargeSpec
from modicum.models import LeNet5
from modicum.systems.simulation_config import ChipTraining, Simulation
from modicum.train import DataConfig, Experiment, OptimizerConfig


def config() -> Simulation:
    """The experiment."""
    return Simulation(
        network=Experiment(
            data=DataConfig(name="mnist"),
            model=LeNet5(widths=(4, 32), hidden=(32,), first_padding="VALID"),
            optimizer=OptimizerConfig(learning_rate=2e-3),
            epochs=6,
            batch=128,
        ),
        spec=ChargeSpec(weight_bits=2),
        layers=(
            # one pass, as the paper's 576 cycles of this layer say: what is darker than the mean pixel is read as 0
            ("Conv_0", ChargeSpec(encoding="twos_complement", weight_bits=4, input_format="unsigned", copies=5)),
            ("Conv_1", ChargeSpec(weight_bits=3)),
            ("Dense_1", ChargeSpec(weight_bits=3, copies=4)),
        ),
        quantile=0.995,
        fit_weights=True,
        training=ChipTraining(steps=5000, learning_rate=2e-3, batch=64),
        chips=8,
        variations=(0.0, 0.02, 0.05),
    )
