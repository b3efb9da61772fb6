"""Pictures by a real still codec: HEVC intra (x265) through PyAV."""

import fractions
import functools

import numpy as np
from jaxtyping import UInt8

from modicum.conference import coding
from modicum.conference.extra import package
from modicum.core import check

QUALITIES = (10, 51)
"""Quantizers of HEVC that are allowed: the lower, the better."""


def encode(picture: UInt8[np.ndarray, " n n 3"], quantizer: int) -> bytes:
    """One picture as an HEVC elementary stream of one intra frame, parameter sets included.

    Args:
        picture: RGB.
        quantizer: HEVC's QP, from 10 to 51.

    Raises:
        ValueError: if the quantizer is out of range.
        ImportError: without the extra `conference`.
    """
    check.integer(*QUALITIES, quantizer=quantizer)
    av = package("av")
    context = av.CodecContext.create("libx265", "w")
    context.width, context.height, context.pix_fmt = picture.shape[1], picture.shape[0], "yuv420p"
    context.time_base = fractions.Fraction(1, 25)
    # one thread and no info message: the same picture gives the same bytes
    settings = f"qp={quantizer}:keyint=1:info=0:log-level=none:pools=none:frame-threads=1:ctu=32"
    context.options = {"preset": "veryslow", "x265-params": settings}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format="yuv420p")
    frame.pts = 0
    return b"".join(bytes(packet) for part in (frame, None) for packet in context.encode(part))


def decode(payload: bytes, size: int) -> UInt8[np.ndarray, " n n 3"] | None:
    """The picture of a stream, or None where it holds none of `size` x `size` pixels.

    Never allocates more than a picture of that size needs, whatever the stream claims.

    Args:
        payload: what `encode` returned, or anything.
        size: side of the picture.
    """
    av = package("av")
    context = av.CodecContext.create("hevc", "r")
    context.thread_count = 1
    # HEVC pads to whole coding units; beyond that a stream's claim is refused before memory is taken
    context.options = {"max_pixels": str((size + 64) ** 2)}
    frames = []
    try:
        for part in (av.Packet(payload), None) if payload else ():
            frames += context.decode(part)
    except (av.error.FFmpegError, ValueError):
        return None
    if not frames or (frames[0].width, frames[0].height) != (size, size):
        return None
    return frames[0].to_ndarray(format="rgb24")


def encode_within(picture: UInt8[np.ndarray, " n n 3"], limit: int, *, best: int = 22) -> bytes:
    """The best stream that is no longer than a limit, or the shortest where none is.

    Args:
        picture: RGB.
        limit: bytes.
        best: quantizer below which nothing is tried.
    """
    return coding.within(functools.partial(encode, picture), (best, QUALITIES[1]), limit)
