"""A face codec for video calls, after FAIVConf (arXiv 2207.04090), and its bitstream.

The full text of the paper could not be read: what is here is a reconstruction from its abstract (a generator driven
by face motion, face swap, facial blur, dynamic source update with view interpolation), and no figure here is the
paper's.

A call is two pure steps: `sender_step(state, frame) -> (state, packet)` and `receiver_step(state, packet) -> (state,
frames)`. Both ends hold a `FaceCodec`: a trained model and the prior of its motion vectors. The sender turns each
frame into a short motion vector and sends, now and then, a picture ("source"); the receiver bends the features of
kept sources by a dense flow and draws the frame.

**Packets.** Whole bytes; numbers of several bytes are big-endian.

| bytes | what |
|---|---|
| 1 | version, 1 |
| 2 | sequence number, modulo 65,536 |
| 2 | number of the first frame, modulo 65,536 |
| 1 | frames described, 0 to 64 |
| | units, see below |
| 2 or 4 | checksum of all before |

A unit is 1 byte kind, its length (seven bits a byte, lowest first, the highest bit set on all but the last; at most 3
bytes), and that many bytes. Each kind appears at most once, and unknown kinds are passed over. The checksum is CRC-16
(polynomial 0x1021, start 0xFFFF, not reflected) where the packet has up to 128 bytes with it, else CRC-32 (zlib's). A
packet has at most 65,507 bytes. One whose checksum is wrong does not exist for a receiver.

**Kind 1, source.** 1 byte number of the source (rising, modulo 256), then an HEVC elementary stream of one intra
frame, parameter sets included, of the model's size. It is kept before the packet's frames are drawn; the oldest goes
where more than `CallSpec.kept` would be kept. Its motion vector is what the model's encoder makes of the decoded
picture. A source is used even where its packet comes too late.

**Kind 2, motion.** 1 byte: index of the quantizer's step (`coding.STEPS`, `2 ** (index / 4 - 2)`), plus 128 where the
first frame stands for itself. Then range-coded integers q, frame by frame, number by number: the motion is q times
the step. Coded are differences from the frame before; from the last frame of the packet before for the first one, or
from the prior's mean (rounded to the step) where it stands for itself. Sums are limited to -127 to 127. Each
difference has a Laplace distribution about 0, quantized on -127 to 127 as `constriction` 0.5 does it
(`QuantizedLaplace`, 24 bits of precision; `RangeEncoder` with 32-bit words), of scale b limited to 0.05 to 500: the
prior's spread for a first frame that stands for itself; else (6 c + s) / (6 + k), with c the prior's change, s the
sum of absolute differences coded so far in this packet (a first frame that stands for itself apart), k the number of
frames these come from; prior and change in sixteenths, divided by the step. Words are written
most significant byte first; what is missing at their end is read as zero.

**Kind 3, residual.** 1 byte: index of the step (`residual.STEPS`, `1.5 * 2 ** (index / 12)`, in levels of 255); 6
bytes: twelve scale indices of four bits, the higher half first, into `0.04 * 1.5 ** index`; then range-coded integers
as above. For each frame: luma blocks of 8 x 8 row by row, then Cb and Cr at half the resolution, coefficients of the
orthonormal DCT-II row by row. Held coefficients become 0.94 times themselves plus the integer times the step. Band of
a coefficient in row r and column c: min(r + c, 7) in luma, 8 + min(r + c, 3) in color. Colors are JPEG's (T.871). The
residual is added to the drawn picture; without this unit the held one fades by the same factor, and conventional
video sets it to zero.

**Kind 4, conventional video.** An HEVC elementary stream of the packet's frames that stands for itself: what is sent
while no face is seen.

**Kind 5, hash.** 2 bytes: the lower half of CRC-32 over the kept sources sorted by number (1 byte number, 4 bytes
CRC-32 of their streams), 1 byte step index, the last frame's integers (16 bits each).

Not encrypted and not authenticated: a checksum is no protection from an attacker, only a receiver that does not fall.
Codec libraries read what a peer sends; packets are to be carried by something like SRTP.
"""

from modicum.conference import clips, coding, demonstration, losses, packets, quality, residual, still, video, warp
from modicum.conference.blending import blurred, swapped
from modicum.conference.call import CallSpec
from modicum.conference.codec import FaceCodec, draw, encode, make_codec, pose_distance, read
from modicum.conference.network import Drawn, FaceModel, Source, init_params
from modicum.conference.receiver import ReceiverState, receiver_init, receiver_step
from modicum.conference.sender import SenderInfo, SenderState, flush, sender_init, sender_step
from modicum.conference.spec import FaceSpec
from modicum.conference.warp import enlarge

__all__ = [
    "CallSpec",
    "Drawn",
    "FaceCodec",
    "FaceModel",
    "FaceSpec",
    "ReceiverState",
    "SenderInfo",
    "SenderState",
    "Source",
    "blurred",
    "clips",
    "coding",
    "demonstration",
    "draw",
    "encode",
    "enlarge",
    "flush",
    "init_params",
    "losses",
    "make_codec",
    "packets",
    "pose_distance",
    "quality",
    "read",
    "receiver_init",
    "receiver_step",
    "residual",
    "sender_init",
    "sender_step",
    "still",
    "swapped",
    "video",
    "warp",
]
