"""The settings of a call, and what its two ends have in common."""

import zlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from modicum.conference import coding, packets, still
from modicum.conference.network import Source
from modicum.core import check


@dataclass(frozen=True, kw_only=True)
class CallSpec:
    """How a call is made. Both ends need `interpolate`, `swap` and `kept` alike; the rest is the sender's.

    Attributes:
        fps: frames a second.
        group: frames of one packet, from 1 to 64: each more saves header bytes and waits longer.
        step: index into `coding.STEPS` of the motion quantizer; 8 is what models are trained for.
        alone_every: every so many packets one's motion does not need the packet before, at least 1.
        hash_every: every so many packets one carries a hash of the state, at least 1.
        kept: sources that both ends keep, at least 1.
        quantizer: HEVC quantizer of source pictures, from 10 to 51.
        target_kbps: rate to be kept by the residual layer; without it nothing but motion and sources is sent.
        source_kbps: rate that later sources may take on average; with 0 there is one source only.
        pose_limit: pose distance from every kept source beyond which a new one is due.
        quality_drop: fall of the drawn picture's PSNR below its mean so far, in dB, at which a new source is due.
        floor: PSNR of the drawn picture in dB below which the face is taken for lost; conventional video is sent then.
        fallback: whether to fall back on conventional video at all.
        fallback_kbps: rate of that video where no target is set.
        interpolate: whether two sources are mixed by pose distance.
        swap: whether the face is put into the still background of its source.
        blur: sigma, as share of the side, by which faces are blurred before they are coded as sources.

    Raises:
        ValueError: if a number is out of range.
    """

    fps: float = 25.0
    group: int = 10
    step: int = 8
    alone_every: int = 4
    hash_every: int = 8
    kept: int = 4
    quantizer: int = 37
    target_kbps: float | None = None
    source_kbps: float = 0.0
    pose_limit: float = 1.5
    quality_drop: float = 2.0
    floor: float = 14.0
    fallback: bool = True
    fallback_kbps: float = 15.0
    interpolate: bool = True
    swap: bool = False
    blur: float = 0.0

    def __post_init__(self):
        check.finite_positive(fps=self.fps, pose_limit=self.pose_limit, fallback_kbps=self.fallback_kbps)
        check.integer(1, packets.MOST_FRAMES, group=self.group)
        check.integer(0, len(coding.STEPS) - 1, step=self.step)
        check.integer(1, alone_every=self.alone_every, hash_every=self.hash_every)
        check.integer(1, 16, kept=self.kept)
        check.integer(*still.QUALITIES, quantizer=self.quantizer)
        check.non_negative(source_kbps=self.source_kbps, floor=self.floor, quality_drop=self.quality_drop)
        check.between(0, 0.2, blur=self.blur)
        if self.target_kbps is not None:
            check.finite_positive(target_kbps=self.target_kbps)

    def bytes_of(self, kbps: float, frames: int) -> float:
        """Bytes that so many frames may take at a rate."""
        return kbps * 1000 / 8 * frames / self.fps


class Kept(NamedTuple):
    """A source that an end keeps.

    Attributes:
        number: of the source, modulo 256, rising in the order in which they were sent.
        checksum: CRC-32 of its bytes.
        source: what the generator needs of it.
    """

    number: int
    checksum: int
    source: Source


def keep(held: tuple[Kept, ...], new: Kept, most: int) -> tuple[Kept, ...]:
    """The kept sources with a new one: the oldest goes where there would be too many.

    Args:
        held: in order of age.
        new: the newest; a number that is held already replaces that source.
        most: how many are kept.
    """
    return (*(kept for kept in held if kept.number != new.number), new)[-most:]


def state_hash(held: tuple[Kept, ...], step: int, motion: np.ndarray) -> bytes:
    """Two bytes that differ where two ends do: of the kept sources' checksums and the last quantized motion.

    Args:
        held: kept sources, sorted here by number.
        step: index of the motion quantizer's step.
        motion: the last row of quantized motion.
    """
    words = sorted((kept.number, kept.checksum) for kept in held)
    content = b"".join(bytes([number]) + checksum.to_bytes(4, "big") for number, checksum in words)
    return (zlib.crc32(content + bytes([step]) + motion.astype(">i2").tobytes()) & 0xFFFF).to_bytes(2, "big")
