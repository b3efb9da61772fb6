"""Conventional video through PyAV: the fall-back of a call, and what it is compared with."""

import fractions

import numpy as np
from jaxtyping import UInt8

from modicum.conference import coding
from modicum.conference.extra import package
from modicum.core import check

X265_QUIET = "info=0:log-level=none:pools=none:frame-threads=1"

CODECS: dict[str, tuple[str, str, dict[str, str]]] = {
    "H.264": (
        "libx264",
        "h264",
        {"preset": "veryslow", "tune": "zerolatency", "x264-params": "keyint=infinite:threads=1"},
    ),
    "H.265": (
        "libx265",
        "hevc",
        {"preset": "slow", "tune": "zerolatency", "x265-params": f"{X265_QUIET}:keyint=-1:ctu=32"},
    ),
    "AV1": (
        "libsvtav1",
        "av1",
        {"preset": "4", "svtav1-params": "pred-struct=1:lookahead=0:lp=1:keyint=-1:scd=0"},
    ),
    "VP9": (
        "libvpx-vp9",
        "vp9",
        {"deadline": "good", "cpu-used": "1", "lag-in-frames": "0", "b": "0", "auto-alt-ref": "0", "threads": "1"},
    ),
}
"""Encoder, decoder and low-delay settings: no frame waits for a later one, slow presets, one key-frame."""

QUALITY_RANGES = {"H.264": (18, 51), "H.265": (18, 51), "AV1": (20, 63), "VP9": (20, 63)}
"""Constant-quality numbers that each codec takes here, best first."""


def encode(
    frames: UInt8[np.ndarray, " t n n 3"], codec: str, quality: int, *, fps: float = 25.0
) -> tuple[list[bytes], bytes]:
    """A clip by a conventional codec at constant quality, low delay.

    Args:
        frames: RGB.
        codec: "H.264", "H.265", "AV1" or "VP9".
        quality: its CRF, see `QUALITY_RANGES`; the lower, the better.
        fps: frames a second.

    Returns:
        The packets, and what a decoder needs beside them (empty where the packets hold it).

    Raises:
        ValueError: if the codec or the quality is out of range.
        ImportError: without the extra `conference`.
    """
    check.one_of(CODECS, codec=codec)
    check.integer(*QUALITY_RANGES[codec], quality=quality)
    av = package("av")
    name, _, options = CODECS[codec]
    context = av.CodecContext.create(name, "w")
    context.width, context.height, context.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
    rate = fractions.Fraction(fps).limit_denominator(1000)
    context.framerate, context.time_base = rate, 1 / rate
    # VP9's constant quality wants a bit rate of 0
    context.options = {**options, "crf": str(quality)}
    if codec == "VP9":
        context.bit_rate = 0
    packets = []
    for index, picture in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format="yuv420p")
        frame.pts = index
        packets += [bytes(packet) for packet in context.encode(frame)]
    packets += [bytes(packet) for packet in context.encode(None)]
    return packets, bytes(context.extradata or b"")


def decode(
    packets: list[bytes], codec: str, *, size: int, extradata: bytes = b"", most: int | None = None
) -> UInt8[np.ndarray, " t n n 3"]:
    """The frames of a stream, as far as they can be decoded.

    Args:
        packets: in order.
        codec: as for `encode`.
        size: side of the frames; others are left out.
        extradata: as `encode` returned it.
        most: frames to return at most.
    """
    check.one_of(CODECS, codec=codec)
    av = package("av")
    context = av.CodecContext.create({"av1": "libdav1d"}.get(CODECS[codec][1], CODECS[codec][1]), "r")
    context.thread_count = 1
    context.options = {"max_pixels": str((size + 64) ** 2)}
    if extradata:
        context.extradata = extradata
    frames = []
    for data in [*packets, None]:
        try:
            decoded = context.decode(av.Packet(data) if data is not None else None)
        except (av.error.FFmpegError, ValueError):
            continue
        frames += [frame.to_ndarray(format="rgb24") for frame in decoded if (frame.width, frame.height) == (size, size)]
        if most is not None and len(frames) >= most:
            break
    return np.stack([np.zeros((size, size, 3), np.uint8), *frames[:most]])[1:]


def encode_within(frames: UInt8[np.ndarray, " t n n 3"], limit: int, *, fps: float = 25.0) -> bytes:
    """A group of frames as one H.265 stream that stands for itself: the best that is no longer than a limit.

    Args:
        frames: RGB.
        limit: bytes; the shortest stream is returned where none is that short.
        fps: frames a second.
    """

    def whole(quality: int) -> bytes:
        packets, _ = encode(frames, "H.265", quality, fps=fps)
        return b"".join(packets)

    return coding.within(whole, QUALITY_RANGES["H.265"], limit)


def decode_whole(stream: bytes, size: int, most: int) -> UInt8[np.ndarray, " t n n 3"]:
    """The frames of a stream that `encode_within` made, or of anything else as far as it holds frames.

    Args:
        stream: an HEVC elementary stream.
        size: side of the frames.
        most: frames to return at most.
    """
    av = package("av")
    parser = av.CodecContext.create("hevc", "r")
    try:
        packets = [bytes(packet) for data in (stream, None) for packet in parser.parse(data)]
    except (av.error.FFmpegError, ValueError):
        return np.zeros((0, size, size, 3), np.uint8)
    return decode(packets, "H.265", size=size, most=most)
