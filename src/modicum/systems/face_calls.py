"""A whole call through both ends, over a wire that loses, delays and damages packets, with every byte counted."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from modicum.conference.call import CallSpec
from modicum.conference.codec import FaceCodec
from modicum.conference.receiver import ReceiverState, receiver_init, receiver_step
from modicum.conference.sender import flush, sender_init
from modicum.core import check
from modicum.systems.progress import bars


@dataclass(frozen=True, kw_only=True)
class WireSpec:
    """What happens to packets on their way; each is drawn independently.

    Attributes:
        loss: share of packets that never arrive.
        damaged: share of packets with one flipped bit.
        twice: share of packets that arrive twice.
        swapped: share of packets that arrive after the next.
        seed: of the draws.
    """

    loss: float = 0.0
    damaged: float = 0.0
    twice: float = 0.0
    swapped: float = 0.0
    seed: int = 0

    def __post_init__(self):
        check.between(0, 1, loss=self.loss, damaged=self.damaged, twice=self.twice, swapped=self.swapped)


class CallResult(NamedTuple):
    """What came of a call.

    Attributes:
        frames: shown by the receiver, (t, size, size, 3).
        packets: as they were sent.
        sizes: bytes of each packet by kind of unit, "packet" for header, lengths and checksum.
        kbps: of all bytes sent.
        receiver: its last state.
    """

    frames: np.ndarray
    packets: list[bytes]
    sizes: list[dict[str, int]]
    kbps: float
    receiver: ReceiverState


def send(
    face: FaceCodec, frames: np.ndarray, spec: CallSpec, console: Console | None = None
) -> tuple[list[bytes], list[dict[str, int]]]:
    """The packets of a clip, and what each consists of.

    Args:
        face: the model.
        frames: (t, size, size, 3) uint8.
        spec: settings of the call.
        console: where progress is drawn.
    """
    state, sent, sizes = sender_init(face, spec), [], []
    with bars(console) as progress:
        task = progress.add_task("sending", total=len(frames))
        for start in range(0, len(frames), spec.group):
            group = tuple(frames[start : start + spec.group])
            # what `sender_step` does frame by frame, with what it knows of the packet
            state, packet, info = flush(state._replace(waiting=group))
            sent.append(packet)
            sizes.append({**info.sizes, "packet": len(packet) - sum(info.sizes.values())})
            progress.update(task, advance=len(group))
    return sent, sizes


def deliver(sent: list[bytes], wire: WireSpec) -> list[bytes]:
    """What arrives, in the order in which it does.

    Args:
        sent: packets.
        wire: what happens to them.
    """
    generator = np.random.default_rng(wire.seed)
    arrived: list[tuple[float, bytes]] = []
    for number, packet in enumerate(sent):
        lost, damaged, twice, swapped = generator.random(4) < (wire.loss, wire.damaged, wire.twice, wire.swapped)
        if lost:
            continue
        if damaged:
            bit = int(generator.integers(8 * len(packet)))
            changed = bytearray(packet)
            changed[bit // 8] ^= 1 << bit % 8
            packet = bytes(changed)
        arrived.append((number + 1.5 * swapped, packet))
        if twice:
            arrived.append((number + 0.25, packet))
    return [packet for _, packet in sorted(arrived, key=lambda entry: entry[0])]


def receive(
    face: FaceCodec, arrived: list[bytes], spec: CallSpec, console: Console | None = None
) -> tuple[ReceiverState, np.ndarray]:
    """What a receiver shows of the packets that arrive, and its last state.

    Args:
        face: the model.
        arrived: packets.
        spec: settings of the call.
        console: where progress is drawn.
    """
    state, shown = receiver_init(face, spec), []
    with bars(console) as progress:
        for packet in progress.track(arrived, description="receiving"):
            state, frames = receiver_step(state, packet)
            shown.append(frames)
    return state, np.concatenate(shown) if shown else np.zeros((0, *state.shown.shape), np.uint8)


def call(
    face: FaceCodec,
    frames: np.ndarray,
    spec: CallSpec,
    wire: WireSpec | None = None,
    console: Console | None = None,
) -> CallResult:
    """A clip through both ends.

    Args:
        face: the model.
        frames: (t, size, size, 3) uint8.
        spec: settings of the call.
        wire: what happens to packets on their way; nothing where None.
        console: where progress is drawn.
    """
    sent, sizes = send(face, frames, spec, console)
    state, shown = receive(face, deliver(sent, wire or WireSpec()), spec, console)
    kbps = sum(map(len, sent)) * 8 * spec.fps / len(frames) / 1000
    return CallResult(shown, sent, sizes, kbps, state)


def byte_shares(sizes: list[dict[str, int]]) -> dict[str, int]:
    """Bytes of a call by kind of unit.

    Args:
        sizes: of a `CallResult`.
    """
    total: dict[str, Any] = {}
    for packet in sizes:
        for kind, count in packet.items():
            total[kind] = total.get(kind, 0) + count
    return total


def worst_rate_error(packets: list[bytes], spec: CallSpec, seconds: float = 2.0) -> float:
    """How far the rate of any window of packets is from the target, as a share of it; the first second is left out.

    Args:
        packets: of a call with a target.
        spec: its settings.
        seconds: length of the window.

    Raises:
        ValueError: if there is no target, or the call is too short for one window.
    """
    if spec.target_kbps is None:
        raise ValueError("target_kbps must be a number where its error is asked for, got None")
    count, first = round(seconds * spec.fps / spec.group), int(np.ceil(spec.fps / spec.group))
    sizes = np.array([len(packet) for packet in packets])[first:]
    if len(sizes) < count:
        raise ValueError(f"packets must last {seconds + 1} s at least, got {len(packets)} packets")
    windows = np.convolve(sizes, np.ones(count), "valid")
    wanted = spec.bytes_of(spec.target_kbps, count * spec.group)
    return float(np.abs(windows / wanted - 1).max())
