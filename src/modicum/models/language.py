"""Recurrent language models: the next word, after each word."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_GATES = 4


class LSTMLayer(nn.Module):
    """A layer of long short-term memory, from left to right; its four gates lie side by side in two matrices.

    `i, f, o = sigmoid(x W + h U + b)`, `g = tanh(x W + h U + b)`, `c <- f c + i g`, `h = o tanh(c)`, where `W` is
    `input_kernel` (inputs, 4 features), `U` is `recurrent_kernel` (features, 4 features), and their columns belong to
    `i`, `f`, `o` and `g` in turn. The forget gate's bias starts at 1.

    Attributes:
        features: width of the state.

    Reference:
        Hochreiter and Schmidhuber, "Long short-term memory", 1997, with the forget gate of Gers et al., 2000.
    """

    features: int

    @nn.compact
    def __call__(self, inputs: Float[Array, " b t i"]) -> Float[Array, " b t f"]:
        """The state after each input, from a state of zeros."""
        width, batch = self.features, inputs.shape[0]
        scaled = nn.initializers.lecun_normal()
        input_kernel = self.param("input_kernel", scaled, (inputs.shape[-1], _GATES * width))
        recurrent_kernel = self.param("recurrent_kernel", scaled, (width, _GATES * width))

        def remembers(*_: object) -> Array:
            return jnp.zeros(_GATES * width).at[width : 2 * width].set(1.0)

        bias = self.param("bias", remembers)

        def step(state: tuple[Array, Array], driven: Array) -> tuple[tuple[Array, Array], Array]:
            hidden, cell = state
            gates = driven + hidden @ recurrent_kernel
            let_in, kept, shown = jnp.split(nn.sigmoid(gates[:, : 3 * width]), 3, axis=1)
            cell = kept * cell + let_in * jnp.tanh(gates[:, 3 * width :])
            hidden = shown * jnp.tanh(cell)
            return (hidden, cell), hidden

        driven = inputs @ input_kernel + bias[None, None]
        start = (jnp.zeros((batch, width)), jnp.zeros((batch, width)))
        _, states = jax.lax.scan(step, start, jnp.moveaxis(driven, 1, 0))
        return jnp.moveaxis(states, 0, 1)


class LSTMLanguageModel(nn.Module):
    """Words are embedded, go through LSTM layers, and the same table turns states into logits.

    Attributes:
        words: size of the vocabulary.
        features: width of embedding and layers.
        layers: how many.

    Reference:
        Press and Wolf, "Using the output embedding to improve language models", EACL 2017, for the shared table.
    """

    words: int = 2000
    features: int = 256
    layers: int = 1

    @nn.compact
    def __call__(self, words: Int[Array, " b t"]) -> Float[Array, " b t words"]:
        """Logits of the word after each word."""
        table = self.param("embedding", nn.initializers.normal(self.features**-0.5), (self.words, self.features))
        states = table[words]
        for _ in range(self.layers):
            states = LSTMLayer(self.features)(states)
        return states @ table.T + self.param("bias", nn.initializers.zeros, (self.words,))[None, None]
