"""N-MNIST, a part of 1,000 recordings to train and 100 held out: convolutions of LIF neurons, 10 bins of 34 ms.

Paper: Orchard et al., "Converting static image datasets to spiking neuromorphic datasets using saccades", Frontiers
in Neuroscience 2015 (60,000 and 10,000 recordings there).
Command: python scripts/train.py configs/spiking/nmnist.py
Time: `python scripts/tables.py` (spiking).
Score: likewise; of 100 recordings, each is a whole point.
"""

from modicum.spiking.layers import Neuron
from modicum.spiking.networks import DEFAULT_NEURON, event_convnet
from modicum.train import DataConfig, Experiment, OptimizerConfig


def config(neuron: Neuron = DEFAULT_NEURON, residuals: str = "packed") -> Experiment:
    """The experiment."""
    return Experiment(
        data=DataConfig(name="nmnist-small", bin_milliseconds=34, augment=True),
        model=event_convnet(neuron, gain=2.0, residuals=residuals),
        optimizer=OptimizerConfig(learning_rate=4e-3),
        epochs=30,
        batch=20,
    )
