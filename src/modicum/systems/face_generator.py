"""The face codec's generator on hardware-shaped weights: compressed by ADMM, compiled to kernels of its own.

What a receiver computes for a frame falls in two: dense motion and warping, which XLA runs, and the decoder, nearly all
of the multiplications, whose 3 x 3 kernels can lie on pattern sets and be written as native code.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from modicum import admm, constraints, mobile
from modicum.conference import losses, network
from modicum.conference.network import FaceModel, Source
from modicum.conference.spec import FaceSpec
from modicum.core import Params, check

_SUMMARY = 64
"""Numbers of the motion's summary that modulates the decoder."""


def decoder_shapes(spec: FaceSpec) -> tuple[tuple[int, ...], ...]:
    """Shapes of the decoder's inputs for one frame: warped features by level, then the motion's summary.

    Args:
        spec: the model.
    """
    sides = [spec.size >> level for level in range(spec.levels + 1)]
    widths = (3, *spec.widths[1:])
    return (*((1, side, side, width) for side, width in zip(sides, widths, strict=True)), (1, _SUMMARY))


def joined(inputs: tuple[Array, ...]) -> Float[Array, " one n"]:
    """The decoder's inputs as one row, since a compiled network takes one array.

    Args:
        inputs: of `decoder_shapes`.
    """
    return jnp.concatenate([part.reshape(1, -1) for part in inputs], axis=1)


@functools.lru_cache(maxsize=8)
def decoder(spec: FaceSpec) -> Callable[[Params, Any], Any]:
    """The decoder as a function `(params, row) -> (1, size, size, 4)`: RGB and mask; the same object for equal specs.

    Args:
        spec: the model.
    """
    shapes = decoder_shapes(spec)

    def fun(params: Params, row: Any) -> Any:
        parts, place = [], 0
        for shape in shapes:
            count = int(np.prod(shape))
            parts.append(row[:, place : place + count].reshape(shape))
            place += count

        def run(model: FaceModel, features: Any, code: Any) -> Any:
            return jnp.concatenate(model.decoder(features, code), axis=-1)

        return FaceModel(spec).apply({"params": params}, parts[:-1], parts[-1], method=run)

    return fun


def decoder_inputs(params: Params, spec: FaceSpec, source: Source, motion: Float[Array, " b n"]) -> tuple[Any, ...]:
    """What comes before the decoder, for one source and one frame: warped features and the summary.

    Args:
        params: of `FaceModel`.
        spec: the model.
        source: leaves with a leading axis of 1.
        motion: (1, latents).
    """

    def run(model: FaceModel, kept: Source, weights: Any, numbers: Any) -> Any:
        return model.mix(kept, weights, numbers)[:2]

    kept = jax.tree.map(lambda leaf: leaf[None], source)
    mixed, code = FaceModel(spec).apply({"params": params}, kept, jnp.ones((1, 1)), motion, method=run)
    return (*mixed, code)


def pattern_sets(params: Params, patterns: int = 8, group: int = 16) -> Any:
    """Patterns for the decoder's 3 x 3 kernels whose filters the group divides, nothing for all else.

    Args:
        params: of `FaceModel`; each kernel's library is read off its weights.
        patterns: in a library, from 1 to 126.
        group: filters that share the pattern of an input channel.
    """
    check.integer(1, 126, patterns=patterns)
    check.integer(1, group=group)

    def chosen(path: Any, leaf: Any) -> Any:
        name = jax.tree_util.keystr(path)
        if "decoder" not in name or leaf.ndim != 4 or leaf.shape[:2] != (3, 3) or leaf.shape[-1] % group:
            return None
        return constraints.Patterns(constraints.natural_library(leaf, patterns), group=group)

    return jax.tree_util.tree_map_with_path(chosen, params)


def projected(params: Params, sets: Any) -> Params:
    """The nearest weights in the sets.

    Args:
        params: any weights.
        sets: of `pattern_sets`.
    """
    leaves, structure = jax.tree.flatten(params)
    chosen = structure.flatten_up_to(sets)
    return structure.unflatten([w if s is None else s.project(w) for w, s in zip(leaves, chosen, strict=True)])


@functools.lru_cache(maxsize=8)
def _loss(spec: FaceSpec, weights: losses.LossWeights) -> Callable[[Params, losses.Batch], Any]:
    return lambda params, batch: losses.loss(params, batch, spec, weights)[0]


def compress_face(
    params: Params,
    spec: FaceSpec,
    batches: Callable[[Any], losses.Batch],
    config: admm.CompressConfig | None = None,
    **settings: Any,
) -> Any:
    """A trained model whose decoder lies on pattern sets, by ADMM and retraining.

    Args:
        params: trained.
        spec: the model.
        batches: a traceable function `step -> losses.Batch`, see `face_codec.face_batches`.
        config: the schedule of `admm.compress`.
        settings: `patterns`, `group` of `pattern_sets`; `folder`, `progress` of `admm.compress`.

    Returns:
        What `admm.compress` returns.
    """
    shape = {name: settings.pop(name) for name in ("patterns", "group") if name in settings}
    sets = pattern_sets(params, **shape)
    return admm.compress(_loss(spec, losses.LossWeights()), params, batches, sets, config, **settings)


class NativeDecoder(NamedTuple):
    """A decoder compiled for one model.

    Attributes:
        compiled: what `mobile.compile` returned; called with `joined` inputs.
        portable: the same weights by XLA, jitted, with the same argument.
    """

    compiled: Any
    portable: Callable[[Any], Any]


def native_decoder(params: Params, spec: FaceSpec, sets: Any = None, *, threads: int = 1) -> NativeDecoder:
    """The decoder as native kernels for its shapes and zeros, with what has no kernel left to XLA.

    Args:
        params: members of their sets.
        spec: the model.
        sets: of `pattern_sets`, or None for dense weights.
        threads: of a call.
    """
    example = jax.ShapeDtypeStruct((1, sum(int(np.prod(shape)) for shape in decoder_shapes(spec))), jnp.float32)
    fun = decoder(spec)
    compiled = mobile.compile(fun, params, example, constraints=sets, threads=threads, kernels="native")
    return NativeDecoder(compiled, jax.jit(lambda row: fun(params, row)))


def random_inputs(spec: FaceSpec, seed: int = 0) -> tuple[Params, Source, Any]:
    """An untrained model, one source and one motion: what a measurement of time needs.

    Args:
        spec: the model.
        seed: of all three.
    """
    keys = jax.random.split(jax.random.key(seed), 3)
    params = network.init_params(keys[0], spec)
    picture = jax.random.uniform(keys[1], (1, spec.size, spec.size, 3))
    source = jax.jit(network.read, static_argnums=1)(params, spec, picture)
    return params, source, 3 * jax.random.normal(keys[2], (1, spec.latents))
