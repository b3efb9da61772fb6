"""MNIST pixel by pixel: 784 time steps through two layers without recurrence, and a clock; 25,482 parameters.

Paper: Le, Jaitly and Hinton, "A simple way to initialize recurrent networks of rectified linear units", 2015 (the
task, there for recurrent networks without a clock). Nothing of the past is kept (`reversible`).
Command: python scripts/train.py configs/spiking/sequential_mnist.py
Time: `python scripts/tables.py` (spiking).
Score: likewise.
"""

from modicum.spiking.circle import Carry
from modicum.spiking.layers import Neuron
from modicum.spiking.networks import sequential_mlp
from modicum.train import DataConfig, Experiment, OptimizerConfig


def config(neuron: Neuron = Carry(), residuals: str = "reversible") -> Experiment:  # noqa: B008 - frozen
    """The experiment."""
    return Experiment(
        data=DataConfig(name="mnist"),
        model=sequential_mlp(neuron, gain=2.0, residuals=residuals),
        optimizer=OptimizerConfig(learning_rate=3e-3, clip=1.0),
        steps=1000,
        batch=32,
    )
