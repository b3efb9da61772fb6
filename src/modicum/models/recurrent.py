"""A recurrent classifier of sequences."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float


class GRUClassifier(nn.Module):
    """A gated recurrent unit scanned over time, the mean of its states, a dense head.

    Attributes:
        classes: number of outputs.
        features: width of the state.

    Reference:
        Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014, equations 5-8. The mean
        over time stands in for their last state: speech that ends early is followed by silence.
    """

    classes: int = 10
    features: int = 64

    @nn.compact
    def __call__(self, frames: Float[Array, " *b t i"]) -> Float[Array, " *b classes"]:
        """Logits of sequences (batch optional)."""
        states: Any = nn.RNN(nn.GRUCell(self.features))(frames)
        return nn.Dense(self.classes)(states.mean(-2))
