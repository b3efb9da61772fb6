"""MNIST (60,000 to train, 10,000 held out): two convolutions of LIF neurons, 34,906 parameters, 4 time steps.

Paper: Lei et al., "Towards zero memory footprint spiking neural network training", arXiv 2308.08649, whose neurons
are those of `spiking.two_group`; here plain LIF neurons, of which a step back needs two bits each (`packed`).
Command: python scripts/train.py configs/spiking/mnist.py
Time: `python scripts/tables.py` (spiking).
Score: likewise.
"""

from modicum.spiking.layers import Neuron
from modicum.spiking.networks import DEFAULT_NEURON, spiking_lenet
from modicum.train import DataConfig, Experiment, OptimizerConfig


def config(
    neuron: Neuron = DEFAULT_NEURON, residuals: str = "packed", code: str = "direct", gain: float = 1.0
) -> Experiment:
    """The experiment."""
    return Experiment(
        data=DataConfig(name="mnist", augment=True, shift=1, mirror=False),
        model=spiking_lenet(neuron, gain=gain, residuals=residuals, code=code),
        optimizer=OptimizerConfig(learning_rate=4e-3, warmup=100),
        epochs=8,
        batch=32,
    )
