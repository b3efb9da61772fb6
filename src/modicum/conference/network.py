"""The model: a motion encoder, a source encoder, dense motion, and a generator fed by warped features.

A reconstruction: the full text of FAIVConf (arXiv 2207.04090) could not be read. Its generator is taken to be of the
family of first-order motion models (Siarohin et al., 2019): features of a kept source picture are bent by a dense flow,
hidden where an occlusion map says so, and decoded. Here motion is a short learned vector (no key-points are labeled),
several kept sources are mixed by weights ("view interpolation"), and the last layer also says which pixels are face.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from modicum.conference.spec import FaceSpec
from modicum.conference.warp import enlarge, warp
from modicum.core import Params

MOTION_LIMIT = 120.0
"""Motion numbers stay below it, so that rounded ones fit into a signed byte."""


class Source(NamedTuple):
    """What the generator needs of a kept picture.

    Attributes:
        picture: the decoded picture, (size, size, 3), from 0 to 1.
        motion: its motion vector, (latents,).
        features: features by level, from full resolution down.
    """

    picture: Array
    motion: Array
    features: tuple[Array, ...]


class Drawn(NamedTuple):
    """What the generator makes of a motion vector.

    Attributes:
        picture: (size, size, 3), from 0 to 1.
        mask: (size, size, 1): how far a pixel belongs to what moves, from 0 to 1.
        flow: (bottom, bottom, 2), displacement into the first source as shares of the side.
        occlusion: (bottom, bottom, levels + 1), visibility in the first source by level, from 0 to 1.
    """

    picture: Array
    mask: Array
    flow: Array
    occlusion: Array


def _conv(features: int, stride: int = 1, size: int = 3) -> nn.Conv:
    return nn.Conv(features, (size, size), (stride, stride))


class MotionEncoder(nn.Module):
    """Pictures (batch, size, size, 3) to motion vectors (batch, latents) in units of the quantizer's step."""

    spec: FaceSpec

    @nn.compact
    def __call__(self, pictures: Array) -> Array:
        """Strided convolutions down to 4 x 4, then one product."""
        x = pictures - 0.5
        # larger pictures are first averaged down: motion is coarse, and the encoder is to cost little
        for _ in range(1 if self.spec.size == 256 else 0):
            x = nn.avg_pool(x, (2, 2), (2, 2))
        width, side = self.spec.width, x.shape[1]
        while side > 4:
            x = nn.silu(_conv(width, 2)(x))
            width, side = min(width + 16, 64), side // 2
        x = nn.Dense(self.spec.latents)(x.reshape(x.shape[0], -1))
        # from one frame to another an untrained product moves by some thousandths: the gain lifts that above the
        # quantizer's step, below which nothing would be learned
        return MOTION_LIMIT * jnp.tanh(256 * x / MOTION_LIMIT)


class SourceEncoder(nn.Module):
    """Pictures (batch, size, size, 3) to features by level."""

    spec: FaceSpec

    @nn.compact
    def __call__(self, pictures: Array) -> tuple[Array, ...]:
        """The picture itself at full resolution, two convolutions at each level below.

        A warped picture needs no gradient of its own, whose scatter would be the dearest part of a step.
        """
        x = pictures - 0.5
        features = [x]
        for width in self.spec.widths[1:]:
            x = nn.silu(_conv(width)(nn.silu(_conv(width, 2)(x))))
            features.append(x)
        return tuple(features)


class Modulated(nn.Module):
    """A convolution whose outputs are scaled and shifted by the motion: `silu(conv(x) * (1 + a) + b)`."""

    features: int

    @nn.compact
    def __call__(self, x: Array, code: Array) -> Array:
        """Inputs (batch, h, w, c), code (batch, n)."""
        scale, shift = jnp.split(nn.Dense(2 * self.features, name="modulation")(code), 2, axis=-1)
        return nn.silu(_conv(self.features)(x) * (1 + scale[:, None, None]) + shift[:, None, None])


class DenseMotion(nn.Module):
    """Flow and occlusion, at the lowest resolution, from the source's features and both motions."""

    spec: FaceSpec

    @nn.compact
    def __call__(self, features: Array, code: Array) -> tuple[Array, Array]:
        """Inputs (batch, bottom, bottom, c), code (batch, n)."""
        bottom, width = self.spec.bottom, 2 * self.spec.width
        place = self.param("place", nn.initializers.normal(0.3), (bottom, bottom, 8))
        x = jnp.concatenate([features, jnp.broadcast_to(place, (*features.shape[:3], 8))], -1)
        x = Modulated(width)(Modulated(width)(x, code), code)
        # `init_params` starts from no motion; and all is visible
        flow = nn.Conv(2, (3, 3), name="flow")(x)
        occlusion = nn.Conv(self.spec.levels + 1, (3, 3), name="occlusion")(x)
        return 0.5 * jnp.tanh(flow), nn.sigmoid(occlusion + 2)


class Decoder(nn.Module):
    """Warped features by level to a picture and a mask."""

    spec: FaceSpec

    @nn.compact
    def __call__(self, features: Sequence[Array], code: Array) -> tuple[Array, Array]:
        """Features from full resolution down, code (batch, n)."""
        spec = self.spec
        ground = self.param("ground", nn.initializers.normal(0.3), (spec.bottom, spec.bottom, spec.width))
        batch = features[-1].shape[0]
        x = jnp.concatenate([features[-1], jnp.broadcast_to(ground, (batch, *ground.shape))], -1)
        width = spec.widths[-1]
        x = Modulated(width)(x, code)
        for _ in range(spec.blocks):
            x = x + Modulated(width)(Modulated(width)(x, code), code)
        for level in reversed(range(spec.levels)):
            x = _conv(spec.widths[level])(x).repeat(2, axis=1).repeat(2, axis=2)
            x = Modulated(spec.widths[level])(jnp.concatenate([x, features[level]], -1), code)
        x = _conv(4)(x)
        return nn.sigmoid(x[..., :3]), nn.sigmoid(x[..., 3:])


class FaceModel(nn.Module):
    """All parts; `init` with `__call__`, then use `encode`, `read` and `draw` below."""

    spec: FaceSpec

    def setup(self):
        """The parts by name."""
        self.motion = MotionEncoder(self.spec)
        self.source = SourceEncoder(self.spec)
        self.dense = DenseMotion(self.spec)
        self.decoder = Decoder(self.spec)
        self.summary = nn.Dense(64)

    def encode(self, pictures: Array) -> Array:
        """Motion vectors (batch, latents) of pictures (batch, size, size, 3)."""
        return self.motion(pictures)

    def read(self, pictures: Array) -> Source:
        """What to keep of source pictures (batch, size, size, 3)."""
        return Source(pictures, self.motion(pictures), self.source(pictures))

    def draw(self, sources: Source, weights: Array, motion: Array) -> Drawn:
        """Pictures for motions (batch, latents) from sources with leading axes (kept, batch) and weights (kept, batch).

        Weights sum to 1 over the kept sources.
        """
        mixed, code, flow, occlusion = self.mix(sources, weights, motion)
        picture, mask = self.decoder(mixed, code)
        return Drawn(picture, mask, flow, occlusion)

    def mix(self, sources: Source, weights: Array, motion: Array) -> tuple[list[Array], Array, Array, Array]:
        """What the decoder takes, warped features by level and the motion's summary; the first flow and occlusion."""
        kept = weights.shape[0]
        spec, scale = self.spec, 0.1
        mixed: list[Array] = []
        first: tuple[Array, Array] | None = None
        for index in range(kept):
            features = tuple(level[index] for level in sources.features)
            code = nn.silu(self.summary(scale * jnp.concatenate([motion, motion - sources.motion[index]], -1)))
            flow, occlusion = self.dense(features[-1], code)
            first = first or (flow, occlusion)
            share = weights[index][:, None, None, None]
            for level, here in enumerate(features):
                factor = 1 << (spec.levels - level)
                larger = jax.vmap(lambda maps, factor=factor: enlarge(maps, factor))
                seen = jax.vmap(warp)(here, larger(flow)) * larger(occlusion[..., level : level + 1]) * share
                if index:
                    mixed[level] = mixed[level] + seen
                else:
                    mixed.append(seen)
        code = nn.silu(self.summary(scale * jnp.concatenate([motion, motion], -1)))
        assert first is not None
        return mixed, code, *first

    def __call__(self, pictures: Array) -> Drawn:
        """Reconstructs pictures from themselves: what `init` is to see."""
        sources = jax.tree.map(lambda leaf: leaf[None], self.read(pictures))
        return self.draw(sources, jnp.ones((1, pictures.shape[0])), self.encode(pictures))


def param_shapes(spec: FaceSpec) -> Params:
    """Shapes and dtypes of the parameters, a plain dict of `jax.ShapeDtypeStruct`.

    Args:
        spec: the model.
    """
    pictures = jax.ShapeDtypeStruct((1, spec.size, spec.size, 3), jnp.float32)
    return jax.eval_shape(FaceModel(spec).init, jax.random.key(0), pictures)["params"]


def init_params(key: Array, spec: FaceSpec) -> Params:
    """Parameters before training, a plain dict.

    Args:
        key: PRNG key.
        spec: the model.
    """
    shapes = param_shapes(spec)
    # one draw for all: a program that draws each leaf by itself takes XLA minutes to compile
    total = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    normal = np.asarray(jax.random.normal(key, (total,)))
    leaves, start = [], 0
    for path, leaf in jax.tree.leaves_with_path(shapes):
        drawn = normal[start : start + leaf.size].reshape(leaf.shape)
        leaves.append(jnp.asarray(_scale(jax.tree_util.keystr(path), leaf.shape) * drawn))
        start += leaf.size
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def _scale(name: str, shape: tuple[int, ...]) -> float:
    """Standard deviation of a leaf at first: `1 / sqrt(inputs)` of a kernel (LeCun), 0 of a bias."""
    if "bias" in name:
        return 0.0
    if "flow" in name:
        return 1e-3
    return float(np.prod(shape[:-1])) ** -0.5 if "kernel" in name else 0.3


def _apply(params: Params, spec: FaceSpec, method: str, *args: Any) -> Any:
    return FaceModel(spec).apply({"params": params}, *args, method=method)


def encode(params: Params, spec: FaceSpec, pictures: Float[Array, " b n n 3"]) -> Float[Array, " b latents"]:
    """Motion vectors of pictures, in units of the quantizer's step.

    Args:
        params: of `FaceModel`.
        spec: the model.
        pictures: from 0 to 1.
    """
    return _apply(params, spec, "encode", pictures)


def read(params: Params, spec: FaceSpec, pictures: Float[Array, " b n n 3"]) -> Source:
    """Features of source pictures, computed once per source.

    Args:
        params: of `FaceModel`.
        spec: the model.
        pictures: decoded sources, from 0 to 1.
    """
    return _apply(params, spec, "read", pictures)


def draw(
    params: Params,
    spec: FaceSpec,
    sources: Source,
    weights: Float[Array, " kept b"],
    motion: Float[Array, " b latents"],
) -> Drawn:
    """Pictures for motion vectors from one or several kept sources.

    Args:
        params: of `FaceModel`.
        spec: the model.
        sources: leaves with leading axes (kept, batch).
        weights: share of each source, summing to 1 over the first axis.
        motion: motion vectors.
    """
    return _apply(params, spec, "draw", sources, weights, motion)
