"""Recurrent classifiers of sequences."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from modicum.core import Key, check

_GATES = 3


def _orthogonal_gates(key: Key, shape: tuple[int, int], dtype: Any = jnp.float32) -> Float[Array, " f gates"]:
    """One orthogonal matrix for each gate, side by side."""
    square = (shape[0], shape[1] // _GATES)
    gate = nn.initializers.orthogonal()
    return jnp.concatenate([gate(part, square, dtype) for part in jax.random.split(key, _GATES)], axis=1)


class GRULayer(nn.Module):
    """A layer of gated recurrent units, from left to right; its three gates lie side by side in two matrices.

    `r, z = sigmoid(x W + h U)`, `n = tanh(x W + r (h U + candidate_bias))`, `h <- (1 - z) n + z h`, where `W` is
    `input_kernel` (inputs, 3 features), `U` is `recurrent_kernel` (features, 3 features), and the columns of both
    belong to `r`, `z` and `n` in turn; `input_bias` is added to `x W`. The products with `W` are one product for all
    frames; only those with `U` run one after the other.

    Attributes:
        features: width of the state.

    Reference:
        Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014, equations 5-8, with the
        reset after the recurrent product, as cuDNN and `flax.linen.GRUCell` have it.
    """

    features: int

    @nn.compact
    def __call__(self, frames: Float[Array, " *b t i"]) -> Float[Array, " *b t f"]:
        """The state after each frame, from a state of zeros (batch optional)."""
        width, batch = self.features, frames.shape[:-2]
        # as many ones in front as there are batch axes, since nothing here broadcasts silently
        ones = (1,) * len(batch)
        input_kernel = self.param("input_kernel", nn.initializers.lecun_normal(), (frames.shape[-1], _GATES * width))
        input_bias = self.param("input_bias", nn.initializers.zeros, (_GATES * width,))
        recurrent_kernel = self.param("recurrent_kernel", _orthogonal_gates, (width, _GATES * width))
        candidate_bias = self.param("candidate_bias", nn.initializers.zeros, (width,)).reshape(*ones, width)

        def step(state: Array, driven: Array) -> tuple[Array, Array]:
            returned = jnp.dot(state, recurrent_kernel)
            gates = nn.sigmoid(driven[..., : 2 * width] + returned[..., : 2 * width])
            reset, update = gates[..., :width], gates[..., width:]
            candidate = jnp.tanh(driven[..., 2 * width :] + reset * (returned[..., 2 * width :] + candidate_bias))
            state = (1 - update) * candidate + update * state
            return state, state

        driven = jnp.dot(frames, input_kernel) + input_bias.reshape(*ones, 1, _GATES * width)
        start = jnp.zeros((*batch, width), driven.dtype)
        _, states = jax.lax.scan(step, start, jnp.moveaxis(driven, -2, 0))
        return jnp.moveaxis(states, 0, -2)


class GRUClassifier(nn.Module):
    """A stack of GRU layers, the mean over time of the last one's states, a dense head.

    Attributes:
        classes: number of outputs.
        features: widths of the layers, at least one; a number stands for one layer.

    Reference:
        `GRULayer`. The mean over time stands in for the last state: speech that ends early is followed by silence.
    """

    classes: int = 10
    features: tuple[int, ...] | int = (512, 512)

    @nn.compact
    def __call__(self, frames: Float[Array, " *b t i"]) -> Float[Array, " *b classes"]:
        """Logits of sequences (batch optional).

        Raises:
            ValueError: if there is no layer, or one without units.
        """
        widths = (self.features,) if isinstance(self.features, int) else tuple(self.features)
        check.integer(1, layers=len(widths))
        states = frames
        for width in widths:
            check.integer(1, features=width)
            states = GRULayer(width)(states)
        return nn.Dense(self.classes)(states.mean(-2))


def rtmobile_gru(features: int = 1024, classes: int = 10) -> GRUClassifier:
    """RTMobile's network: two GRU layers; of 1,024 units, with 9,556,992 weights at 39 inputs.

    Args:
        features: units in each of the two layers.
        classes: number of outputs.

    Reference:
        `TIMIT_GRU_mfcc.cfg` in CoCoPIE-ModelZoo, the code of Dong et al., "RTMobile: beyond real-time mobile
        acceleration of RNNs for speech recognition", DAC 2020. Theirs labels each frame with a phone and drops
        units out in training; ours labels a whole recording.
    """
    return GRUClassifier(classes=classes, features=(features, features))
