"""Deep spiking networks of coupled blocks: a ResNet and a transformer that train in the memory of one block."""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from modicum.core import Key, Params, check
from modicum.spiking.by_layer import packed_neuron
from modicum.spiking.coupled import Streams, reversible_sequence
from modicum.spiking.grid import dyadic
from modicum.spiking.layers import PackableNeuron
from modicum.spiking.populations import LIF
from modicum.spiking.synapses import Convolution, Dense, differentiable

_GRID_BITS = 12
_GAIN = 2.0
"""Initial standard deviation of a current where every input spikes: about 1 at the usual rates."""


def _over_steps(synapse: Convolution | Dense, params: Params, spikes: Array) -> Array:
    """The synapse's currents for `(steps, batch, ...)` at once."""
    steps, batch = spikes.shape[:2]
    current = differentiable(synapse)(synapse.prepare(params), spikes.reshape(steps * batch, *spikes.shape[2:]))
    return current.reshape(steps, batch, *current.shape[1:])


def _fire(neuron: PackableNeuron, currents: Array) -> Array:
    return packed_neuron(neuron, (), currents, neuron.init_state(currents.shape[1:]))[0]


def _stacked(init: Callable[[Key], Params], key: Key, blocks: int) -> Params:
    return jax.vmap(init)(jax.random.split(key, blocks))


def _convolution_branch(neuron: PackableNeuron, synapse: Convolution, params: Params, currents: Array) -> Array:
    """`conv(spikes(currents))`: spikes are whole and weights on a grid, so that the sum is exact."""
    return _over_steps(synapse, params, _fire(neuron, currents))


class ReversibleSpikingResNet(nn.Module):
    """Stages of coupled blocks `a <- a + conv(spikes(b))`, `b <- b + conv(spikes(a))`, halved in size in between.

    The image is one constant current (direct coding). Inside a stage the backward pass keeps nothing but a few bits
    of the block at hand; each change of size keeps its input.

    Attributes:
        classes: number of outputs.
        widths: channels of each stream in each stage.
        blocks: coupled blocks of each stage.
        steps: time steps.
        neuron: of all blocks; its potentials must sum exactly: leak 1 or 1/2.
        backward: as in `reversible_sequence`.

    Reference:
        Zhang et al., "Memory-efficient reversible spiking neural networks", AAAI 2024; ours rounds weights to a grid
        and standardizes them in place of batch normalization, whose statistics a replay would have to see.
    """

    classes: int = 10
    widths: tuple[int, ...] = (16, 32, 64)
    blocks: tuple[int, ...] = (2, 2, 2)
    steps: int = 4
    neuron: PackableNeuron = LIF(leak=0.5)
    backward: str = "streamlined"

    @nn.compact
    def __call__(self, images: Float[Array, " b h w i"]) -> Float[Array, " b classes"]:
        """Logits, the mean over time.

        Raises:
            ValueError: if a stage cannot be halved, or `widths` and `blocks` are not as many.
        """
        check.integer(1, steps=self.steps)
        if len(self.widths) != len(self.blocks):
            raise ValueError(f"blocks must be one number for each of {len(self.widths)} widths, got {self.blocks}")
        check.divides(2 ** (len(self.widths) - 1), height=images.shape[1], width=images.shape[2])
        stem = Convolution(features=2 * self.widths[0], grid_bits=_GRID_BITS, standardize=True, bias=True)
        params = self.param("stem", stem.init, images.shape[1:])
        current = differentiable(stem)(stem.prepare(params), images)
        streams = jnp.broadcast_to(dyadic(current, _GRID_BITS)[None], (self.steps, *current.shape))
        for number, (width, blocks) in enumerate(zip(self.widths, self.blocks, strict=True)):
            if number:
                streams = self._halved(f"down_{number}", streams, 2 * width)
            streams = self._stage(f"stage_{number}", streams, width, blocks)
        head = Dense(features=self.classes, pool=streams.shape[2])
        spikes = _fire(self.neuron, streams)
        return _over_steps(head, self.param("head", head.init, spikes.shape[2:]), spikes).mean(0)

    def _stage(self, name: str, streams: Array, width: int, blocks: int) -> Array:
        synapse = Convolution(features=width, grid_bits=_GRID_BITS, standardize=True, gain=1.0)
        shape = (*streams.shape[2:4], width)
        params = tuple(
            self.param(
                f"{name}_{branch}", functools.partial(_stacked, functools.partial(synapse.init, shape=shape)), blocks
            )
            for branch in ("f", "g")
        )
        branch = functools.partial(_convolution_branch, self.neuron, synapse)
        halves = Streams(streams[..., :width], streams[..., width:])
        return jnp.concatenate(reversible_sequence(branch, branch, params, halves, backward=self.backward), axis=-1)

    def _halved(self, name: str, streams: Array, width: int) -> Array:
        synapse = Convolution(features=width, pool=2, grid_bits=_GRID_BITS, standardize=True, gain=1.4)
        spikes = _fire(self.neuron, streams)
        return _over_steps(synapse, self.param(name, synapse.init, spikes.shape[2:]), spikes)


def _power_of_two(value: float) -> float:
    return 2.0 ** round(math.log2(value))


def _attention_branch(neuron: PackableNeuron, heads: int, width: int, params: Params, currents: Array) -> Array:
    """Spiking self-attention without softmax: `(Q K^T) V` of spikes is whole, and its scale a power of two."""
    synapse = Dense(features=width, grid_bits=_GRID_BITS, standardize=True)
    tokens = currents.shape[2]

    def dense(name: str, spikes: Array) -> Array:
        flat = spikes.reshape(spikes.shape[0], -1, width)
        return _over_steps(synapse, params[name], flat).reshape(spikes.shape)

    spikes = _fire(neuron, currents)
    query, key, value = (
        _fire(neuron, dense(name, spikes)).reshape(*spikes.shape[:-1], heads, width // heads)
        for name in ("query", "key", "value")
    )
    # about 1 where a fifth of the queries, keys and values fire
    scale = _power_of_two(125 * heads / (tokens * width))
    scores = jnp.einsum("tbnhd,tbmhd->tbhnm", query, key)
    mixed = jnp.einsum("tbhnm,tbmhd->tbnhd", scores, value) * scale
    return dense("out", _fire(neuron, mixed.reshape(spikes.shape)))


def _mixing_branch(neuron: PackableNeuron, width: int, expansion: int, params: Params, currents: Array) -> Array:
    """Two dense layers on each token."""

    def dense(name: str, features: int, spikes: Array) -> Array:
        synapse = Dense(features=features, grid_bits=_GRID_BITS, standardize=True)
        flat = spikes.reshape(spikes.shape[0], -1, spikes.shape[-1])
        return _over_steps(synapse, params[name], flat).reshape(*spikes.shape[:-1], features)

    hidden = dense("up", expansion * width, _fire(neuron, currents))
    return dense("down", width, _fire(neuron, hidden))


class SpikingTransformer(nn.Module):
    """A small spiking transformer of coupled blocks: `f` is self-attention of spikes, `g` two dense layers.

    Attributes:
        classes: number of outputs.
        width: features of a token in each stream.
        heads: attention heads; a divisor of `width`.
        blocks: coupled blocks.
        patch: side of the patches that become tokens; the image must be a multiple of it.
        expansion: hidden width of the dense layers over `width`.
        steps: time steps.
        neuron: of all blocks; its potentials must sum exactly: leak 1 or 1/2.
        backward: as in `reversible_sequence`.

    Reference:
        Zhou et al., "Spikformer: when spiking neural network meets transformer", ICLR 2023 (attention without
        softmax); Mangalam et al., "Reversible vision transformers", CVPR 2022 (the coupling).
    """

    classes: int = 10
    width: int = 64
    heads: int = 4
    blocks: int = 4
    patch: int = 4
    expansion: int = 2
    steps: int = 4
    neuron: PackableNeuron = LIF(leak=0.5)
    backward: str = "streamlined"

    @nn.compact
    def __call__(self, images: Float[Array, " b h w i"]) -> Float[Array, " b classes"]:
        """Logits, the mean over time and tokens.

        Raises:
            ValueError: if the image is no multiple of `patch`, or `width` none of `heads`.
        """
        check.integer(1, steps=self.steps, blocks=self.blocks, heads=self.heads)
        check.divides(self.heads, width=self.width)
        check.divides(self.patch, height=images.shape[1], columns=images.shape[2])
        tokens = self._tokens(images)
        streams = jnp.broadcast_to(dyadic(tokens, _GRID_BITS)[None], (self.steps, *tokens.shape))
        halves = Streams(streams[..., : self.width], streams[..., self.width :])
        params = (
            self._branch_params("attention", dict.fromkeys(("query", "key", "value", "out"), (self.width,) * 2)),
            self._branch_params(
                "mixing",
                {"up": (self.width, self.width * self.expansion), "down": (self.width * self.expansion, self.width)},
            ),
        )
        attention = functools.partial(_attention_branch, self.neuron, self.heads, self.width)
        mixing = functools.partial(_mixing_branch, self.neuron, self.width, self.expansion)
        halves = reversible_sequence(attention, mixing, params, halves, backward=self.backward)
        spikes = _fire(self.neuron, jnp.concatenate(halves, axis=-1)).mean(2)
        head = Dense(features=self.classes)
        return _over_steps(head, self.param("head", head.init, spikes.shape[2:]), spikes).mean(0)

    def _tokens(self, images: Array) -> Array:
        batch, height, width, channels = images.shape
        rows, columns = height // self.patch, width // self.patch
        patches = images.reshape(batch, rows, self.patch, columns, self.patch, channels).swapaxes(2, 3)
        patches = patches.reshape(batch, rows * columns, -1)
        embed = Dense(features=2 * self.width, standardize=True, gain=_GAIN)
        params = self.param("embed", embed.init, patches.shape[2:])
        place = self.param("place", nn.initializers.normal(0.02), (rows * columns, 2 * self.width))
        return jnp.dot(patches, embed.prepare(params)["kernel"]) + place[None]

    def _branch_params(self, name: str, shapes: dict[str, Any]) -> Params:
        def one(key: Key) -> Params:
            keys = jax.random.split(key, len(shapes))
            return {
                part: Dense(features=outputs, standardize=True, gain=_GAIN).init(part_key, (inputs,))
                for part_key, (part, (inputs, outputs)) in zip(keys, shapes.items(), strict=True)
            }

        return self.param(name, functools.partial(_stacked, one), self.blocks)
