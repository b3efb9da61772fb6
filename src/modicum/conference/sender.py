"""The sending end of a call, as a pure step."""

import zlib
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from modicum.conference import blending, codec, coding, packets, residual, still, video
from modicum.conference.call import CallSpec, Kept, keep, state_hash
from modicum.conference.codec import FaceCodec
from modicum.conference.packets import Kind, Unit


class SenderState(NamedTuple):
    """What the next step needs.

    Attributes:
        spec: settings of the call.
        codec: the model.
        waiting: frames that do not fill a packet yet.
        sequence: packets sent.
        frame: frames sent.
        sources: kept sources.
        source_count: sources sent.
        motion: last quantized motion, or None before the first.
        residual: what the receiver holds of the residual.
        carry: bytes saved so far against the target; below 0 where too many were sent.
        source_credit: bytes that sources may take by now.
        usual: running mean of the drawn picture's PSNR in dB, or None before the first.
        lost: whether conventional video is being sent.
    """

    spec: CallSpec
    codec: FaceCodec
    waiting: tuple[np.ndarray, ...]
    sequence: int
    frame: int
    sources: tuple[Kept, ...]
    source_count: int
    motion: np.ndarray | None
    residual: residual.Coefficients
    carry: float
    source_credit: float
    usual: float | None
    lost: bool


class SenderInfo(NamedTuple):
    """What a reader of the call may want to know of a packet.

    Attributes:
        sizes: bytes by kind of unit.
        drawn_psnr: of the pictures without residual, in dB; NaN where none was drawn.
    """

    sizes: dict[str, int]
    drawn_psnr: float


def sender_init(face: FaceCodec, spec: CallSpec) -> SenderState:
    """The state before the first frame.

    Args:
        face: the model that both ends hold.
        spec: settings of the call.
    """
    empty = residual.zero(face.spec.size)
    return SenderState(spec, face, (), 0, 0, (), 0, None, empty, 0.0, 0.0, None, False)


def sender_step(state: SenderState, frame: UInt8[np.ndarray, " n n 3"]) -> tuple[SenderState, bytes]:
    """Takes a frame; every `group` frames a packet comes out, else empty bytes.

    Args:
        state: from `sender_init` or the step before.
        frame: RGB, of the model's size.

    Returns:
        The new state and a packet, or `b""` while frames are collected.

    Raises:
        ValueError: if the frame has another size than the model.
    """
    size = state.codec.spec.size
    if frame.shape != (size, size, 3):
        raise ValueError(f"frame must have shape {(size, size, 3)}, got {frame.shape}")
    state = state._replace(waiting=(*state.waiting, frame))
    if len(state.waiting) < state.spec.group:
        return state, b""
    return flush(state)[:2]


def flush(state: SenderState) -> tuple[SenderState, bytes, SenderInfo]:
    """Sends the frames that wait, however few; the end of a call needs it.

    Args:
        state: with at least one frame waiting; else no packet comes out.
    """
    if not state.waiting:
        return state, b"", SenderInfo({}, float("nan"))
    frames, spec = np.stack(state.waiting), state.spec
    motion = codec.encode(state.codec, frames, spec.group)
    numbers = coding.quantized(motion, spec.step)
    state = state._replace(waiting=(), source_credit=state.source_credit + spec.bytes_of(spec.source_kbps, len(frames)))
    budget = float("inf")
    if spec.target_kbps is not None:
        budget = state.carry + spec.bytes_of(spec.target_kbps, len(frames))
    units: list[Unit] = []
    if not state.sources:
        state, units = _new_source(state, frames[0], None)
    drawn = _drawn(state, numbers)
    quality = _psnr(drawn, frames)
    if units == [] and _source_due(state, numbers, quality):
        limit = int(min(state.source_credit, max(budget * 0.8, 0)))
        new, units = _new_source(state, frames[int(_distances(state, numbers).argmax())], limit)
        if units:
            state, drawn = new, _drawn(new, numbers)
            quality = _psnr(drawn, frames)
    # a face that is lost must come back clearly before it is believed
    lost = spec.fallback and quality < spec.floor + (2.0 if state.lost else 0.0)
    if lost:
        state, more = _conventional(state, frames, budget - _size(units))
        units += more
    else:
        state, more = _face(state, frames, numbers, drawn, budget - _size(units))
        units += more
        usual = quality if state.usual is None else 0.95 * state.usual + 0.05 * quality
        state = state._replace(usual=usual)
    packet = packets.write(state.sequence, state.frame, len(frames), units)
    carry = 0.0
    if spec.target_kbps is not None:
        # what easy groups save is not saved up for longer than a second
        carry = min(budget - len(packet), spec.bytes_of(spec.target_kbps, 1) * spec.fps)
    state = state._replace(sequence=state.sequence + 1, frame=state.frame + len(frames), carry=carry, lost=lost)
    return state, packet, SenderInfo({unit.kind.name.lower(): len(unit.payload) for unit in units}, quality)


def _size(units: list[Unit]) -> int:
    """Bytes of units with what surrounds them in a packet."""
    return sum(len(unit.payload) + 2 + (len(unit.payload) > 127) for unit in units)


def _drawn(state: SenderState, numbers: np.ndarray) -> np.ndarray:
    spec = state.spec
    motion = numbers * coding.STEPS[spec.step]
    sources = tuple(kept.source for kept in state.sources)
    return codec.draw(state.codec, sources, motion, spec.group, interpolate=spec.interpolate, swap=spec.swap)


def _psnr(drawn: np.ndarray, frames: np.ndarray) -> float:
    return float(-10 * np.log10(max(np.mean((drawn - frames / 255.0) ** 2), 1e-10)))


def _distances(state: SenderState, numbers: np.ndarray) -> np.ndarray:
    """How far each frame's pose is from the nearest source."""
    motion = numbers * coding.STEPS[state.spec.step]
    each = [codec.pose_distance(state.codec, np.asarray(kept.source.motion[0]), motion) for kept in state.sources]
    return np.min(each, axis=0)


def _source_due(state: SenderState, numbers: np.ndarray, quality: float) -> bool:
    spec = state.spec
    if not spec.source_kbps or state.source_credit <= 0:
        return False
    far = float(_distances(state, numbers).max()) > spec.pose_limit
    return far or (state.usual is not None and quality < state.usual - spec.quality_drop)


def _new_source(state: SenderState, picture: np.ndarray, limit: int | None) -> tuple[SenderState, list[Unit]]:
    """Codes and keeps a source; no unit where it would not fit into its limit (None: any size)."""
    spec, size = state.spec, state.codec.spec.size
    stream = still.encode(blending.blurred(picture, spec.blur), spec.quantizer)
    if limit is not None and len(stream) > limit:
        return state, []
    decoded = still.decode(stream, size)
    if decoded is None:
        raise RuntimeError("x265 wrote a picture that it cannot read back")
    number = state.source_count % 256
    new = Kept(number, zlib.crc32(stream), codec.read(state.codec, decoded))
    state = state._replace(
        sources=keep(state.sources, new, spec.kept),
        source_count=state.source_count + 1,
        source_credit=state.source_credit - len(stream) if limit is not None else state.source_credit,
    )
    return state, [Unit(Kind.SOURCE, bytes([number]) + stream)]


def _conventional(state: SenderState, frames: np.ndarray, budget: float) -> tuple[SenderState, list[Unit]]:
    spec = state.spec
    allowed = budget - 12 if np.isfinite(budget) else spec.bytes_of(spec.fallback_kbps, len(frames))
    stream = video.encode_within(frames, int(max(allowed, 0)), fps=spec.fps)
    # the face starts anew when it comes back
    state = state._replace(motion=None, residual=residual.zero(state.codec.spec.size))
    return state, [Unit(Kind.VIDEO, stream)]


def _face(
    state: SenderState, frames: np.ndarray, numbers: np.ndarray, drawn: np.ndarray, budget: float
) -> tuple[SenderState, list[Unit]]:
    """Motion, a hash now and then, and as much residual as there is room for."""
    spec = state.spec
    alone = state.motion is None or state.sequence % spec.alone_every == 0
    payload = coding.encode_motion(numbers, None if alone else state.motion, state.codec.prior, spec.step)
    units = [Unit(Kind.MOTION, payload)]
    if state.sequence % spec.hash_every == 0:
        units.append(Unit(Kind.HASH, state_hash(state.sources, spec.step, numbers[-1])))
    held = state.residual
    if spec.target_kbps is None:
        return state._replace(motion=numbers[-1]), units
    room = budget - _size(units) - 13
    wanted = [residual.forward(255 * (frame / 255.0 - picture)) for frame, picture in zip(frames, drawn, strict=True)]
    best = _fitting(wanted, held, room)
    if best is None:
        for _ in frames:
            held = residual.faded(held)
    else:
        units.append(Unit(Kind.RESIDUAL, best[0]))
        held = best[1][-1]
    return state._replace(motion=numbers[-1], residual=held), units


def _fitting(
    wanted: list[residual.Coefficients], held: residual.Coefficients, room: float
) -> tuple[bytes, list[residual.Coefficients]] | None:
    """The finest residual that fits into the room, by bisection over steps; None where none does."""
    low, high, best = 0, len(residual.STEPS) - 1, None
    while low <= high:
        middle = (low + high) // 2
        found = residual.encode(wanted, held, middle)
        if len(found[0]) <= room:
            best, high = found, middle - 1
        else:
            low = middle + 1
    return best
