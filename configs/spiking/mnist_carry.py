"""MNIST (60,000 to train, 10,000 held out): two convolutions of carry neurons, 34,906 parameters, 4 time steps.

Paper: Lei et al., "Towards zero memory footprint spiking neural network training", arXiv 2308.08649: nothing of the
past is kept. There pairs of neurons run backward, here integrate-and-fire on a circle (`spiking.Carry`).
Command: python scripts/train.py configs/spiking/mnist_carry.py
Time: `python scripts/tables.py` (spiking).
Score: likewise.
"""

from modicum.spiking.circle import Carry
from modicum.spiking.networks import spiking_lenet
from modicum.train import DataConfig, Experiment, OptimizerConfig


def config() -> Experiment:
    """The experiment."""
    return Experiment(
        data=DataConfig(name="mnist", augment=True, shift=1, mirror=False),
        model=spiking_lenet(Carry(), residuals="reversible"),
        optimizer=OptimizerConfig(learning_rate=4e-3, warmup=100),
        epochs=8,
        batch=32,
    )
