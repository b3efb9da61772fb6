"""CIFAR-10 (50,000 to train, 10,000 held out), on a GPU: VGG-11 of LIF neurons, batch normalization over time.

Paper: Lei et al., "Towards zero memory footprint spiking neural network training", arXiv 2308.08649, trains a spiking
VGG-11; Zheng et al., AAAI 2021, is where the normalization is from.
Command: python scripts/train.py configs/spiking/cifar10_vgg11.py
Time: `python scripts/tables.py` (spiking).
Score: likewise.
"""

from modicum.spiking.layers import Neuron
from modicum.spiking.networks import DEFAULT_NEURON, spiking_vgg11
from modicum.train import DataConfig, Experiment, OptimizerConfig


def config(
    neuron: Neuron = DEFAULT_NEURON, residuals: str = "packed", width: int = 64, epochs: int = 100, cutout: int = 0
) -> Experiment:
    """The experiment.

    Args:
        neuron: of all layers but the last.
        residuals: how the backward pass gets at the past.
        width: channels of the first convolution.
        epochs: passes over the training images.
        cutout: side of the square that is cut out of them, 16 in the paper on cutout.
    """
    return Experiment(
        data=DataConfig(name="cifar10", augment=True, cutout=cutout),
        model=spiking_vgg11(neuron, width=width, normalize="batch", residuals=residuals),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.1, warmup=400, weight_decay=5e-4),
        epochs=epochs,
        batch=128,
        checkpoint_every=2000,
    )
