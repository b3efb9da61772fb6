"""CIFAR-10 (50,000 to train, 10,000 held out): three convolutions of LIF neurons, 101,194 parameters, 4 time steps.

Paper: Lei et al., "Towards zero memory footprint spiking neural network training", arXiv 2308.08649, whose VGG is
far larger (`spiking.networks.spiking_vgg11`) and trained for longer.
Command: python scripts/train.py configs/spiking/cifar10.py
Time: `python scripts/tables.py` (spiking).
Score: likewise.
"""

from modicum.spiking.layers import Neuron
from modicum.spiking.networks import DEFAULT_NEURON, spiking_convnet
from modicum.train import DataConfig, Experiment, OptimizerConfig


def config(neuron: Neuron = DEFAULT_NEURON, residuals: str = "packed") -> Experiment:
    """The experiment."""
    return Experiment(
        data=DataConfig(name="cifar10"),
        model=spiking_convnet(neuron, gain=2.0, residuals=residuals),
        optimizer=OptimizerConfig(learning_rate=3e-3),
        epochs=6,
        batch=64,
    )
