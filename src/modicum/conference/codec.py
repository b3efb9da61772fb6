"""A trained model as both ends of a call hold it, and what it computes on NumPy pictures."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from modicum.conference import blending, network
from modicum.conference.coding import MotionPrior, motion_prior
from modicum.conference.network import Source
from modicum.conference.spec import FaceSpec
from modicum.core import Params

KEPT = 2
"""Sources that one picture is drawn from at most."""


class FaceCodec(NamedTuple):
    """What both ends hold before a call: the model, and what is known of its motion vectors."""

    spec: FaceSpec
    params: Params
    prior: MotionPrior


@dataclass(frozen=True)
class _Programs:
    """Compiled functions of one spec; equal specs share them through `jax.jit`'s cache."""

    spec: FaceSpec

    def encode(self, params: Any, pictures: Any) -> Any:
        return network.encode(params, self.spec, pictures.astype(jnp.float32) / 255)

    def read(self, params: Any, picture: Any) -> Any:
        return network.read(params, self.spec, picture[None].astype(jnp.float32) / 255)

    def draw(self, params: Any, sources: Any, weights: Any, motion: Any, swap: Any) -> Any:
        batch = motion.shape[0]
        # a source is read once and serves every frame of a group
        spread = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (KEPT, batch, *leaf.shape[2:])), sources)
        drawn = network.draw(params, self.spec, spread, weights, motion)
        first = weights.argmax(0)
        portrait = spread.picture[first, jnp.arange(batch)]
        swapped = jax.vmap(blending.swapped)(drawn.picture, drawn.mask, portrait)
        return jnp.where(swap, swapped, drawn.picture), drawn.mask


_encode = jax.jit(lambda programs, *args: programs.encode(*args), static_argnums=0)
_read = jax.jit(lambda programs, *args: programs.read(*args), static_argnums=0)
_draw = jax.jit(lambda programs, *args: programs.draw(*args), static_argnums=0)


def _filled(array: np.ndarray, group: int) -> np.ndarray:
    """An array of `group` rows: one program serves shorter groups, too."""
    return np.concatenate([array, np.repeat(array[-1:], group - len(array), 0)])


def encode(codec: FaceCodec, frames: UInt8[np.ndarray, " t n n 3"], group: int) -> Float[np.ndarray, " t latents"]:
    """Motion vectors of frames, in units of the quantizer's step 1.

    Args:
        codec: the model.
        frames: at least one.
        group: frames in one dispatch.
    """
    rows = [
        np.asarray(_encode(_Programs(codec.spec), codec.params, _filled(frames[start : start + group], group)))
        for start in range(0, len(frames), group)
    ]
    return np.concatenate(rows)[: len(frames)]


def read(codec: FaceCodec, picture: UInt8[np.ndarray, " n n 3"]) -> Source:
    """What to keep of a decoded source, with a leading axis of 1.

    Args:
        codec: the model.
        picture: the source as the receiver sees it.
    """
    return _read(_Programs(codec.spec), codec.params, picture)


def draw(
    codec: FaceCodec, sources: tuple[Source, ...], motion: np.ndarray, group: int, *, interpolate: bool, swap: bool
) -> Float[np.ndarray, " t n n 3"]:
    """Pictures of motion vectors from the kept sources nearest to each, from 0 to 1.

    A source's share falls with the squared distance of its pose: `exp(-(d^2 - d_min^2) / (2 n))` over the two nearest,
    distances in units of what is usual for the speaker, n the length of the vectors ("view interpolation").

    Args:
        codec: the model.
        sources: at least one.
        motion: (frames, latents), at most `group` frames.
        group: frames in one dispatch.
        interpolate: whether to mix two sources; the nearest alone where not.
        swap: whether to keep the background of the nearest source.
    """
    rows = _filled(motion.astype(np.float32), group)
    distances = np.stack([pose_distance(codec, np.asarray(source.motion[0]), rows) for source in sources])
    # the two sources that most frames of the group are near to: one program draws all of them
    order = np.argsort(distances.sum(1), kind="stable")[:KEPT]
    chosen = [int(index) for index in order] + [int(order[0])] * (KEPT - len(order))
    near = distances[chosen] ** 2
    weights = np.exp(-0.5 * (near - near.min(0)) * 1.0)
    weights[len(order) :] = 0
    if not interpolate:
        weights = (np.arange(KEPT)[:, None] == weights.argmax(0)[None]).astype(float)
    weights = (weights / weights.sum(0)).astype(np.float32)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[sources[index] for index in chosen])
    picture, _ = _draw(_Programs(codec.spec), codec.params, stacked, weights, rows, np.bool_(swap))
    return np.asarray(picture)[: len(motion)]


def pose_distance(codec: FaceCodec, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Root mean square of the differences of motion vectors, each number by its usual spread.

    Args:
        codec: the model.
        first: (latents,).
        second: (..., latents).
    """
    spread = codec.prior.spread / 16.0
    return np.sqrt((((second - first) / spread) ** 2).mean(-1))


def make_codec(spec: FaceSpec, params: Params, frames: UInt8[np.ndarray, " t n n 3"]) -> FaceCodec:
    """A codec of a trained model; its prior is measured on frames of its training.

    Args:
        spec: the model.
        params: trained.
        frames: of training, in order, at least two.
    """
    unknown = MotionPrior(*(np.ones(spec.latents, np.int64),) * 3)
    codec = FaceCodec(spec, params, unknown)
    return codec._replace(prior=motion_prior(encode(codec, frames, 50)))
