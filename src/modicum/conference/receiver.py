"""The receiving end of a call, as a pure step that nothing on the wire can break."""

import zlib
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from modicum.conference import codec, coding, packets, residual, still, video
from modicum.conference.call import CallSpec, Kept, keep, state_hash
from modicum.conference.codec import FaceCodec
from modicum.conference.packets import Kind, Packet

LONGEST_GAP = 64
"""Missing frames that are filled in at most; after a longer gap the call goes on where it is."""


class ReceiverState(NamedTuple):
    """What the next step needs.

    Attributes:
        spec: settings of the call.
        codec: the model.
        sequence: number of the last packet used, or None before the first.
        frame: number of the next frame, modulo 65,536.
        sources: kept sources.
        motion: step index and last row of quantized motion, or None where it is not known.
        residual: the residual held.
        shown: the last frame given out.
        damaged: packets that were refused.
        late: packets that came too late or twice.
        missing: frames that were filled in.
        apart: whether the last hash differed from the sender's.
    """

    spec: CallSpec
    codec: FaceCodec
    sequence: int | None
    frame: int
    sources: tuple[Kept, ...]
    motion: tuple[int, np.ndarray] | None
    residual: residual.Coefficients
    shown: np.ndarray
    damaged: int
    late: int
    missing: int
    apart: bool


def receiver_init(face: FaceCodec, spec: CallSpec) -> ReceiverState:
    """The state before the first packet; a gray picture is shown until a face comes.

    Args:
        face: the model that both ends hold.
        spec: settings of the call.
    """
    size = face.spec.size
    gray = np.full((size, size, 3), 128, np.uint8)
    return ReceiverState(spec, face, None, 0, (), None, residual.zero(size), gray, 0, 0, 0, False)


def receiver_step(state: ReceiverState, packet: bytes) -> tuple[ReceiverState, UInt8[np.ndarray, " t n n 3"]]:
    """Takes a packet; gives the frames that are to be shown by it, those that went missing before it included.

    Damaged packets are refused, packets that come late or twice give no frames (a source in them is kept all the
    same), gaps are filled in by motion between what is known on both sides. Empty bytes say that a packet is overdue:
    the last frame is shown on for as long as a packet lasts.

    Args:
        state: from `receiver_init` or the step before.
        packet: any bytes.

    Returns:
        The new state and (frames, size, size, 3), none to 128 frames.
    """
    nothing = np.zeros((0, *state.shown.shape), np.uint8)
    if not packet:
        count = state.spec.group
        state = state._replace(missing=state.missing + count, frame=(state.frame + count) % 65536)
        return state, np.repeat(state.shown[None], count, 0)
    parsed = packets.parse(packet)
    if parsed is None:
        return state._replace(damaged=state.damaged + 1), nothing
    source = parsed.unit(Kind.SOURCE)
    if source is not None:
        state = _take_source(state, source)
    step = 1 if state.sequence is None else packets.ahead(parsed.sequence, state.sequence)
    if step <= 0:
        return state._replace(late=state.late + 1), nothing
    return _take_frames(state, parsed, step)


def _take_source(state: ReceiverState, payload: bytes) -> ReceiverState:
    picture = still.decode(payload[1:], state.codec.spec.size) if payload else None
    if picture is None:
        return state._replace(damaged=state.damaged + 1)
    new = Kept(payload[0], zlib.crc32(payload[1:]), codec.read(state.codec, picture))
    return state._replace(sources=keep(state.sources, new, state.spec.kept))


def _take_frames(
    state: ReceiverState, parsed: Packet, step: int
) -> tuple[ReceiverState, UInt8[np.ndarray, " t n n 3"]]:
    gap = 0 if state.sequence is None else packets.ahead(parsed.frame, state.frame)
    # frames that an overdue packet's place was filled with already are not shown again
    skipped = min(max(-gap, 0), parsed.frames)
    gap = min(max(gap, 0), LONGEST_GAP)
    before = state.motion if step == 1 else None
    state = state._replace(
        sequence=parsed.sequence,
        frame=(parsed.frame + parsed.frames) % 65536,
        missing=state.missing + gap,
    )
    conventional = parsed.unit(Kind.VIDEO)
    if conventional is not None:
        shown = video.decode_whole(conventional, state.codec.spec.size, parsed.frames)
        state = state._replace(motion=None, residual=residual.zero(state.codec.spec.size))
        return _show(state, shown, gap, parsed.frames, skipped)
    payload = parsed.unit(Kind.MOTION)
    found = None
    if payload is not None and state.sources:
        found = coding.decode_motion(payload, parsed.frames, before, state.codec.prior)
    if found is None:
        state = state._replace(motion=None)
        return _show(state, np.zeros((0, *state.shown.shape), np.uint8), gap, parsed.frames, skipped)
    return _show(*_face(state, parsed, found, gap), 0, gap + parsed.frames, skipped)


def _face(
    state: ReceiverState, parsed: Packet, found: tuple[int, np.ndarray], gap: int
) -> tuple[ReceiverState, np.ndarray]:
    """Draws the frames of a packet, and those missing before it on the way from the last known motion."""
    index, numbers = found
    motion = numbers * coding.STEPS[index]
    if gap:
        last = motion[0] if state.motion is None else state.motion[1] * coding.STEPS[state.motion[0]]
        shares = np.arange(1, gap + 1)[:, None] / (gap + 1)
        motion = np.concatenate([last + shares * (motion[0] - last), motion])
    spec, sources = state.spec, tuple(kept.source for kept in state.sources)
    drawn = np.concatenate(
        [
            codec.draw(
                state.codec, sources, motion[start : start + spec.group], spec.group,
                interpolate=spec.interpolate, swap=spec.swap,
            )
            for start in range(0, len(motion), spec.group)
        ]
    )  # fmt: skip
    held, layers = state.residual, []
    for _ in range(gap):
        held = residual.faded(held)
        layers.append(held)
    payload = parsed.unit(Kind.RESIDUAL)
    decoded = None if payload is None else residual.decode(payload, held, parsed.frames)
    for count in range(parsed.frames):
        held = residual.faded(held) if decoded is None else decoded[count]
        layers.append(held)
    if any(layer.luma.any() or layer.chroma.any() for layer in layers):
        drawn = drawn + np.stack([residual.inverse(layer) for layer in layers]) / 255
    expected, apart = parsed.unit(Kind.HASH), state.apart
    if expected is not None:
        apart = expected != state_hash(state.sources, index, numbers[-1])
    state = state._replace(motion=(index, numbers[-1]), residual=held, apart=apart)
    return state, np.round(255 * np.clip(drawn, 0, 1)).astype(np.uint8)


def _show(
    state: ReceiverState, frames: np.ndarray, gap: int, wanted: int, skipped: int
) -> tuple[ReceiverState, np.ndarray]:
    """Frames in their places: the last one shown fills a gap before them, the last of them what is missing after."""
    frames = np.concatenate([np.repeat(state.shown[None], gap, 0), frames])
    missing = gap + wanted - len(frames)
    if missing > 0:
        filler = frames[-1] if len(frames) else state.shown
        frames = np.concatenate([frames, np.repeat(filler[None], missing, 0)])
    frames = frames[: gap + wanted][skipped:]
    return (state._replace(shown=frames[-1]) if len(frames) else state), frames
