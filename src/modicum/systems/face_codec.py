"""The face codec's model: trained on the first part of a call, or on many calls, saved, and loaded again."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Float
from rich.console import Console

from modicum.conference import losses, network, still
from modicum.conference.blending import blurred
from modicum.conference.codec import FaceCodec
from modicum.conference.coding import MotionPrior
from modicum.conference.spec import FaceSpec
from modicum.conference.warp import warp
from modicum.core import Key, Params, check
from modicum.systems.progress import bars
from modicum.train import fit, init_state, make_train_step, report

FRAMES_STEP = 1024
"""Frames are padded to a multiple of it."""


@dataclass(frozen=True, kw_only=True)
class FaceTraining:
    """How a face model is trained.

    Attributes:
        spec: the model.
        steps: optimizer steps, at least 1.
        batch: frames in a step, at least 1.
        learning_rate: peak of Adam's rate, which rises over 5% of the steps (50 at least, half of them at most) and
            falls to 0 by a cosine.
        sources: coded source pictures per clip to draw from, at least 2.
        quantizer: HEVC quantizer of the sources.
        blur: largest sigma, as share of the side, by which a source is blurred before it is coded.
        augment: how far frames are moved at most, up, down and sideways, as share of the side, and how much they are
            enlarged or reduced, as share of themselves; from 0 to 0.2. A frame and the one before move alike, sources
            stay. The model then knows more positions than the call has shown.
        weights: of the loss.
        seed: of parameters, order and noise.
    """

    spec: FaceSpec = field(default_factory=FaceSpec)
    steps: int = 2000
    batch: int = 8
    learning_rate: float = 1.5e-3
    sources: int = 24
    quantizer: int = 37
    blur: float = 0.0
    augment: float = 0.0
    weights: losses.LossWeights = field(default_factory=losses.LossWeights)
    seed: int = 0

    def __post_init__(self):
        check.integer(1, steps=self.steps, batch=self.batch)
        check.finite_positive(learning_rate=self.learning_rate)
        check.integer(2, sources=self.sources)
        check.integer(*still.QUALITIES, quantizer=self.quantizer)
        check.between(0, 0.2, blur=self.blur, augment=self.augment)


def coded_sources(clip: np.ndarray, config: FaceTraining, console: Console | None = None) -> np.ndarray:
    """Pictures of a clip as a receiver sees them: evenly spaced, every second one blurred where that is asked for."""
    chosen = np.linspace(0, len(clip) - 1, config.sources).astype(int)
    pictures = []
    with bars(console) as progress:
        for count, index in enumerate(progress.track(chosen, description="sources")):
            picture = clip[index]
            if config.blur and count % 2:
                picture = blurred(picture, config.blur)
            decoded = still.decode(still.encode(picture, config.quantizer), config.spec.size)
            assert decoded is not None
            pictures.append(decoded)
    return np.stack(pictures)


def _batch(config: FaceTraining, frames: Any, sources: Any, bounds: Any, key: Key, step: Any) -> losses.Batch:
    """The batch of a step: clips drawn evenly, a frame and two sources of each.

    Every second example has one source alone: one or two, both are learned. All numbers come from one draw, since each
    draw by itself takes XLA a second to compile.
    """
    size, latents = config.batch, config.spec.latents
    drawn = jax.random.uniform(jax.random.fold_in(key, step), (size, latents + 8))
    noise, (clip, frame, first, second, share), places = drawn[:, 8:] - 0.5, drawn[:, :5].T, 2 * drawn[:, 5:8] - 1

    def one_of(low: Any, count: Any, uniform: Any) -> Any:
        return low + jnp.minimum((uniform * count).astype(jnp.int32), count - 1)

    clip = one_of(0, sources.shape[0], clip)
    # not the very first frame of a clip: none is before it
    start, stop = bounds[clip, 0] + 1, bounds[clip, 1]
    index = one_of(start, stop - start, frame)
    chosen = one_of(0, config.sources, jnp.stack([first, second], 1))
    share = jnp.where(jnp.arange(size) % 2 == 0, 1.0, share)

    def scaled(pictures: Any) -> Any:
        return pictures.astype(jnp.float32) / 255

    pictures = scaled(sources[clip[:, None], chosen])
    targets = scaled(frames[index]), scaled(frames[index - 1])
    if config.augment:
        targets = tuple(jax.vmap(moved)(target, config.augment * places) for target in targets)
    return losses.Batch(noise, share, pictures, *targets)


def moved(picture: Float[jax.Array, " n n c"], place: Float[jax.Array, " 3"]) -> Float[jax.Array, " n n c"]:
    """A picture moved and enlarged, bilinear, its edges repeated where it ends.

    Args:
        picture: square.
        place: shift downwards and to the right as shares of the side, and by how much it is enlarged, as share of
            itself.
    """
    side = picture.shape[0]
    from_middle = (jnp.arange(side) - (side - 1) / 2) / side
    nearer = from_middle / (1 + place[2]) - from_middle
    rows, columns = jnp.meshgrid(nearer - place[0], nearer - place[1], indexing="ij")
    return warp(picture, jnp.stack([rows, columns], -1))


def _check_clips(clips: Sequence[np.ndarray], config: FaceTraining) -> None:
    side = config.spec.size
    for index, clip in enumerate(clips):
        if clip.ndim != 4 or clip.shape[1:] != (side, side, 3) or len(clip) < 2:
            raise ValueError(f"clips[{index}] must have shape (at least 2, {side}, {side}, 3), got {clip.shape}")


def face_batches(
    clips: Sequence[np.ndarray], config: FaceTraining, console: Console | None = None
) -> jax.tree_util.Partial:
    """A traceable function `step -> losses.Batch` of clips.

    Args:
        clips: as for `train_face`.
        config: how.
        console: where progress is drawn.

    Raises:
        ValueError: if a clip has another size than the model.
    """
    _check_clips(clips, config)
    sources = np.stack([coded_sources(clip, config, console) for clip in clips])
    ends = np.cumsum([len(clip) for clip in clips])
    bounds = np.stack([np.concatenate([[0], ends[:-1]]), ends], 1)
    order_key = jax.random.fold_in(jax.random.key(config.seed), 1)
    frames = np.concatenate(clips)
    # calls of about one length share a compiled program
    padding = -len(frames) % FRAMES_STEP
    frames = np.concatenate([frames, np.zeros((padding, *frames.shape[1:]), np.uint8)])
    return jax.tree_util.Partial(
        _Batches(config), jnp.asarray(frames), jnp.asarray(sources), jnp.asarray(bounds), order_key
    )


def train_face(
    clips: Sequence[np.ndarray],
    config: FaceTraining,
    folder: str | Path | None = None,
    console: Console | None = None,
    mesh: Mesh | None = None,
) -> Params:
    """Trains a model: personalized where the clips are one call's first part, generic where they are many people's.

    Args:
        clips: (frames, size, size, 3) uint8 each, at least two frames.
        config: how.
        folder: run folder; the same call goes on with a run that was interrupted, and ends bit-equal.
        console: where progress is drawn.
        mesh: the devices that share each batch, see `core.parallel.data_mesh`; one device where None.

    Returns:
        The parameters.

    Raises:
        ValueError: if a clip has another size than the model, or the folder holds another run.
    """
    _check_clips(clips, config)
    described = {"frames": [len(clip) for clip in clips], "config": repr(config)}
    if folder is not None:
        report.open_folder(folder, described)
    batches = face_batches(clips, config, console)
    # a short training rises as slowly as a long one: at once at its full rate the last layer dies in saturation
    rising = min(max(config.steps // 20, 50), (config.steps + 1) // 2)
    schedule = optax.warmup_cosine_decay_schedule(0, config.learning_rate, rising, config.steps)
    # as one vector: dozens of small updates would take longer to compile and to run
    optimizer = optax.flatten(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b2=0.99)))
    step_fn = make_train_step(
        lambda params, batch: losses.loss(params, batch, config.spec, config.weights), optimizer, has_aux=True
    )
    state = init_state(network.init_params(jax.random.key(config.seed), config.spec), optimizer)
    every = {"folder": folder, "checkpoint_every": 100, "console": console, "mesh": mesh}
    return fit(state, step_fn, batches, config.steps, **every).params


@dataclass(frozen=True)
class _Batches:
    """`_batch` of one config: equal configs are equal functions, so that nothing is compiled twice."""

    config: FaceTraining

    def __call__(self, frames: Any, sources: Any, bounds: Any, key: Key, step: Any) -> losses.Batch:
        return _batch(self.config, frames, sources, bounds, key, step)


def save_model(path: str | Path, face: FaceCodec) -> None:
    """Writes a model as one file of arrays (`.npz`) that holds its spec and the prior of its motion.

    Args:
        path: where to.
        face: the model, trained.
    """
    arrays = {jax.tree_util.keystr(place): np.asarray(leaf) for place, leaf in jax.tree.leaves_with_path(face.params)}
    spec = face.spec
    numbers = np.array([spec.size, spec.latents, spec.width, spec.blocks])
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, spec=numbers, prior=np.stack(face.prior), **arrays)  # pyrefly: ignore[bad-argument-type]


def load_model(path: str | Path) -> FaceCodec:
    """A model that `save_model` wrote.

    Args:
        path: the file.

    Raises:
        ValueError: if the file is no such model.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            size, latents, width, blocks = map(int, stored["spec"])
            spec = FaceSpec(size=size, latents=latents, width=width, blocks=blocks)
            params = jax.tree_util.tree_map_with_path(
                lambda place, like: jnp.asarray(stored[jax.tree_util.keystr(place)].reshape(like.shape)),
                network.param_shapes(spec),
            )
            return FaceCodec(spec, params, MotionPrior(*stored["prior"].astype(np.int64)))
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"path must be a model that save_model wrote, got {path}: {error}") from None
