"""A network as a short list of layers, read off any JAX function.

`trace` makes the list, `fuse` folds normalization, activations and residuals into products, `run` computes it in JAX.
"""

from modicum.mobile.graph.evaluate import layer, run
from modicum.mobile.graph.fusion import fuse
from modicum.mobile.graph.layers import (
    Add,
    Affine,
    Conv,
    Dense,
    Graph,
    Gru,
    Layer,
    Mean,
    Other,
    Pool,
    Reshape,
)
from modicum.mobile.graph.tracing import trace

__all__ = [
    "Add",
    "Affine",
    "Conv",
    "Dense",
    "Graph",
    "Gru",
    "Layer",
    "Mean",
    "Other",
    "Pool",
    "Reshape",
    "fuse",
    "layer",
    "run",
    "trace",
]
