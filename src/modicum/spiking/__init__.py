"""Spiking networks whose backward pass forgets nothing that it can compute again."""

from modicum.spiking.activity import Activity, LayerActivity, activity_report, record_activity
from modicum.spiking.adaptive import AdaptiveLIF, AlifParams, AlifState, ParametricLIF, PlifParams, alif, plif
from modicum.spiking.by_layer import packed_neuron
from modicum.spiking.circle import Carry, CarryState
from modicum.spiking.classifier import SpikingClassifier
from modicum.spiking.coding import delta_code, direct_code, latency_code, rate_code
from modicum.spiking.coupled import Streams, coupled, reversible_sequence, uncoupled
from modicum.spiking.deep import ReversibleSpikingResNet, SpikingTransformer
from modicum.spiking.fixed_point import FixedPointLIF, FixedPointState
from modicum.spiking.grid import dyadic, pack, unpack
from modicum.spiking.interchange import from_nir, to_nir
from modicum.spiking.izhikevich import Izhikevich, IzhikevichParams, IzhikevichState, izhikevich
from modicum.spiking.layers import (
    InvertibleNeuron,
    Layer,
    Neuron,
    PackableNeuron,
    Readout,
    ReadoutState,
    init,
    network_step,
    prepared,
)
from modicum.spiking.losses import (
    count_mean_squared_error,
    first_spike_cross_entropy,
    first_spike_time,
    membrane_cross_entropy,
    rate_cross_entropy,
    spike_rate_regularizer,
)
from modicum.spiking.memory import Plan, memory_plan, peak_bytes, residual_bytes
from modicum.spiking.networks import (
    event_convnet,
    sequential_mlp,
    spiking_convnet,
    spiking_lenet,
    spiking_vgg9,
    spiking_vgg11,
)
from modicum.spiking.neurons import IfParams, LifParams, LifState, integrate_and_fire, lif
from modicum.spiking.normalization import Normalized, batch_moments, fold
from modicum.spiking.populations import IF, LIF
from modicum.spiking.reversible import reversible
from modicum.spiking.smooth_surrogates import Arctan, FastSigmoid, Sigmoid, Triangular, superspike
from modicum.spiking.surrogates import Boxcar, LeveledSurrogate, Staircase, Surrogate, spike
from modicum.spiking.synapses import Convolution, Dense, Synapse
from modicum.spiking.two_group import Pair, TwoGroup, drift, two_group
from modicum.spiking.unrolled import multi_step

__all__ = [
    "IF",
    "LIF",
    "Activity",
    "AdaptiveLIF",
    "AlifParams",
    "AlifState",
    "Arctan",
    "Boxcar",
    "Carry",
    "CarryState",
    "Convolution",
    "Dense",
    "FastSigmoid",
    "FixedPointLIF",
    "FixedPointState",
    "IfParams",
    "InvertibleNeuron",
    "Izhikevich",
    "IzhikevichParams",
    "IzhikevichState",
    "Layer",
    "LayerActivity",
    "LeveledSurrogate",
    "LifParams",
    "LifState",
    "Neuron",
    "Normalized",
    "PackableNeuron",
    "Pair",
    "ParametricLIF",
    "Plan",
    "PlifParams",
    "Readout",
    "ReadoutState",
    "ReversibleSpikingResNet",
    "Sigmoid",
    "SpikingClassifier",
    "SpikingTransformer",
    "Staircase",
    "Streams",
    "Surrogate",
    "Synapse",
    "Triangular",
    "TwoGroup",
    "activity_report",
    "alif",
    "batch_moments",
    "count_mean_squared_error",
    "coupled",
    "delta_code",
    "direct_code",
    "drift",
    "dyadic",
    "event_convnet",
    "first_spike_cross_entropy",
    "first_spike_time",
    "fold",
    "from_nir",
    "init",
    "integrate_and_fire",
    "izhikevich",
    "latency_code",
    "lif",
    "membrane_cross_entropy",
    "memory_plan",
    "multi_step",
    "network_step",
    "pack",
    "packed_neuron",
    "peak_bytes",
    "plif",
    "prepared",
    "rate_code",
    "rate_cross_entropy",
    "record_activity",
    "residual_bytes",
    "reversible",
    "reversible_sequence",
    "sequential_mlp",
    "spike",
    "spike_rate_regularizer",
    "spiking_convnet",
    "spiking_lenet",
    "spiking_vgg9",
    "spiking_vgg11",
    "superspike",
    "to_nir",
    "two_group",
    "uncoupled",
    "unpack",
]
