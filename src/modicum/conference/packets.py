"""Packets: a header, units, a checksum. The layout stands in the docstring of `modicum.conference`."""

import binascii
import zlib
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from modicum.core import check

VERSION = 1
MOST_FRAMES = 64
"""Frames that one packet may describe."""
MOST_BYTES = 65_507
"""The longest packet: what fits into one UDP datagram."""
_HEADER = 6
_SHORT = 128
"""Packets up to this length end with a CRC of 16 bits, longer ones with one of 32."""


class Kind(IntEnum):
    """What a unit holds."""

    SOURCE = 1
    MOTION = 2
    RESIDUAL = 3
    VIDEO = 4
    HASH = 5


class Unit(NamedTuple):
    """A part of a packet: its kind and its bytes."""

    kind: Kind
    payload: bytes


class Packet(NamedTuple):
    """What a packet says.

    Attributes:
        sequence: number of the packet, modulo 65,536.
        frame: number of the first frame, modulo 65,536.
        frames: how many frames it describes, from 0 to 64.
        units: in order; at most one of each kind.
    """

    sequence: int
    frame: int
    frames: int
    units: tuple[Unit, ...]

    def unit(self, kind: Kind) -> bytes | None:
        """The bytes of the unit of a kind, or None where the packet has none."""
        return next((unit.payload for unit in self.units if unit.kind is kind), None)


def _checksum(body: bytes) -> bytes:
    if len(body) + 2 <= _SHORT:
        return binascii.crc_hqx(body, 0xFFFF).to_bytes(2, "big")
    return zlib.crc32(body).to_bytes(4, "big")


def write(sequence: int, frame: int, frames: int, units: Sequence[Unit]) -> bytes:
    """A packet as bytes.

    Args:
        sequence: number of the packet; counted modulo 65,536.
        frame: number of the first frame; counted modulo 65,536.
        frames: from 0 to 64.
        units: at most one of each kind.

    Raises:
        ValueError: if a number is out of range, a kind appears twice, or the packet would not fit into a datagram.

    Example:
        >>> write(1, 20, 10, [Unit(Kind.MOTION, b"ab")]).hex(" ")
        '01 00 01 00 14 0a 02 02 61 62 64 d3'
    """
    check.integer(0, MOST_FRAMES, frames=frames)
    check.integer(0, sequence=sequence, frame=frame)
    body = bytes([VERSION]) + (sequence % 65536).to_bytes(2, "big") + (frame % 65536).to_bytes(2, "big")
    body += bytes([frames])
    if len({unit.kind for unit in units}) < len(units):
        raise ValueError(f"units must be of different kinds, got {[unit.kind.name for unit in units]}")
    for kind, payload in units:
        body += bytes([kind]) + _varint(len(payload)) + payload
    packet = body + _checksum(body)
    if len(packet) > MOST_BYTES:
        raise ValueError(f"units must fit into a packet of {MOST_BYTES} bytes, got {len(packet)}")
    return packet


def parse(packet: bytes) -> Packet | None:
    """What a packet says, or None where it is damaged, of another version, or no packet at all.

    Args:
        packet: any bytes.
    """
    if not _HEADER + 2 <= len(packet) <= MOST_BYTES:
        return None
    end = len(packet) - (2 if len(packet) <= _SHORT else 4)
    if packet[0] != VERSION or _checksum(packet[:end]) != packet[end:] or packet[5] > MOST_FRAMES:
        return None
    units: list[Unit] = []
    place = _HEADER
    while place < end:
        kind = packet[place]
        length, place = _read_varint(packet, place + 1, end)
        if length is None or place + length > end:
            return None
        # kinds that a later version may add are passed over
        if kind in Kind.__members__.values():
            units.append(Unit(Kind(kind), packet[place : place + length]))
        place += length
    if len({unit.kind for unit in units}) < len(units):
        return None
    return Packet(int.from_bytes(packet[1:3], "big"), int.from_bytes(packet[3:5], "big"), packet[5], tuple(units))


def ahead(number: int, reference: int) -> int:
    """How far a 16-bit number lies ahead of another, from -32,768 to 32,767, around the wrap.

    Args:
        number: from 0 to 65,535.
        reference: likewise.

    Example:
        >>> ahead(2, 65535), ahead(65535, 2)
        (3, -3)
    """
    return (number - reference + 32768) % 65536 - 32768


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last have their highest bit set."""
    parts = []
    while value >= 128:
        parts.append(value % 128 + 128)
        value //= 128
    return bytes([*parts, value])


def _read_varint(packet: bytes, place: int, end: int) -> tuple[int | None, int]:
    value = 0
    for count in range(3):
        if place + count >= end:
            return None, end
        byte = packet[place + count]
        value += (byte & 127) << (7 * count)
        if byte < 128:
            return value, place + count + 1
    return None, end
