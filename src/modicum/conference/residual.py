"""The residual layer: what the generator missed, as coefficients of an 8 x 8 cosine transform, range-coded.

The decoded residual of a frame is kept and faded (`LEAK`), and only its correction is sent: what stays wrong in the
same place is paid for once, and a lost packet is forgotten within two seconds.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from modicum.conference import coding

BLOCK = 8
LEAK = 0.94
STEPS = tuple(1.5 * 2.0 ** (index / 12) for index in range(96))
"""Steps by index, in levels of 255: 1.5 to 362, each 6% wider."""
_BANDS = 12
_SCALES = tuple(0.04 * 1.5**index for index in range(16))
_RGB_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
"""JPEG's full-range conversion (ITU-T T.871)."""
_DEAD_ZONE = 0.33


class Coefficients(NamedTuple):
    """A residual in the transform's domain: brightness, and both colors at half the resolution.

    Attributes:
        luma: (blocks, blocks, 8, 8).
        chroma: (2, blocks / 2, blocks / 2, 8, 8).
    """

    luma: np.ndarray
    chroma: np.ndarray


def zero(size: int) -> Coefficients:
    """No residual at all.

    Args:
        size: side of the picture, a multiple of 16.
    """
    blocks = size // BLOCK
    return Coefficients(np.zeros((blocks, blocks, BLOCK, BLOCK)), np.zeros((2, blocks // 2, blocks // 2, BLOCK, BLOCK)))


def _cosines() -> np.ndarray:
    rows, columns = np.mgrid[:BLOCK, :BLOCK]
    matrix = np.cos(np.pi * (2 * columns + 1) * rows / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    matrix[0] /= np.sqrt(2)
    return matrix


_C = _cosines()


def _blocks(plane: np.ndarray) -> np.ndarray:
    count = plane.shape[0] // BLOCK
    return plane.reshape(count, BLOCK, count, BLOCK).swapaxes(1, 2)


def forward(residual: Float[np.ndarray, " n n 3"]) -> Coefficients:
    """Coefficients of a residual in levels of 255, orthonormal.

    Args:
        residual: original less drawn picture, RGB.
    """
    ycc = residual @ _RGB_TO_YCC.T
    half = ycc.reshape(ycc.shape[0] // 2, 2, ycc.shape[1] // 2, 2, 3).mean((1, 3))
    chroma = np.stack([_C @ _blocks(half[..., channel]) @ _C.T for channel in (1, 2)])
    return Coefficients(_C @ _blocks(ycc[..., 0]) @ _C.T, chroma)


def inverse(coefficients: Coefficients) -> Float[np.ndarray, " n n 3"]:
    """The residual of coefficients, colors doubled by repetition.

    Args:
        coefficients: as `forward` gives them.
    """

    def plane(blocks: np.ndarray) -> np.ndarray:
        count = blocks.shape[0]
        return (_C.T @ blocks @ _C).swapaxes(1, 2).reshape(count * BLOCK, count * BLOCK)

    colors = [plane(part).repeat(2, 0).repeat(2, 1) for part in coefficients.chroma]
    return np.stack([plane(coefficients.luma), *colors], -1) @ np.linalg.inv(_RGB_TO_YCC).T


def _band() -> np.ndarray:
    """Which scale a coefficient of a block uses: by its diagonal, the far ones together."""
    rows, columns = np.mgrid[:BLOCK, :BLOCK]
    return np.minimum(rows + columns, 7)


_LUMA_BAND, _CHROMA_BAND = _band(), 8 + np.minimum(_band(), 3)


def encode(wanted: list[Coefficients], before: Coefficients, step: int) -> tuple[bytes, list[Coefficients]]:
    """Corrections of consecutive frames, and what a receiver makes of them.

    One byte: the index of the step; six: the scales of twelve bands, four bits each; then the range coder's bytes.

    Args:
        wanted: coefficients of each frame's residual.
        before: what the receiver holds.
        step: index into `STEPS`.
    """
    width, held, numbers, decoded = STEPS[step], before, [], []
    for frame in wanted:
        corrections = [
            np.clip(_dead_zone((part - LEAK * kept) / width), -coding.LARGEST, coding.LARGEST)
            for part, kept in zip(frame, held, strict=True)
        ]
        numbers.append(corrections)
        held = _add(held, corrections, width)
        decoded.append(held)
    indices = _scale_indices(numbers)
    table = np.array(_SCALES)[indices]
    scales = [np.broadcast_to(table[band], part.shape) for frame in numbers for part, band in _parts(frame)]
    nibbles = bytes(int(16 * high + low) for high, low in indices.reshape(-1, 2))
    coded = coding.pack([part for frame in numbers for part in frame], scales)
    return bytes([step]) + nibbles + coded, decoded


def decode(payload: bytes, before: Coefficients, frames: int) -> list[Coefficients] | None:
    """What `encode` meant, or None where the payload is too short or of an unknown step.

    Args:
        payload: what `encode` returned, or anything.
        before: what the receiver holds.
        frames: how many.
    """
    if len(payload) < 1 + _BANDS // 2 or payload[0] >= len(STEPS):
        return None
    indices = np.array([nibble for byte in payload[1 : 1 + _BANDS // 2] for nibble in (byte >> 4, byte & 15)])
    table, decoder = np.array(_SCALES)[indices], coding.Decoder(payload[1 + _BANDS // 2 :])
    held, decoded = before, []
    for _ in range(frames):
        corrections = [decoder.read(np.broadcast_to(table[band], part.shape)) for part, band in _parts(held)]
        held = _add(held, corrections, STEPS[payload[0]])
        decoded.append(held)
    return decoded


def faded(held: Coefficients) -> Coefficients:
    """What is left of a residual one frame later where no correction came.

    Args:
        held: coefficients.
    """
    return Coefficients(LEAK * held.luma, LEAK * held.chroma)


def _parts(frame: object) -> list[tuple[np.ndarray, np.ndarray]]:
    luma, chroma = frame  # pyrefly: ignore[not-iterable]
    return [(luma, _LUMA_BAND), (chroma, _CHROMA_BAND)]


def _dead_zone(values: np.ndarray) -> np.ndarray:
    """Rounded, but to 0 up to two thirds: what a lone small number would gain is not worth its bits."""
    return (np.sign(values) * np.floor(np.abs(values) + _DEAD_ZONE)).astype(np.int64)


def _add(held: Coefficients, corrections: list[np.ndarray], width: float) -> Coefficients:
    luma, chroma = (LEAK * kept + width * part for kept, part in zip(held, corrections, strict=True))
    return Coefficients(luma, chroma)


def _scale_indices(numbers: list[list[np.ndarray]]) -> np.ndarray:
    """For each band the scale nearest to what its numbers have on average."""
    sums, counts = np.zeros(_BANDS), np.zeros(_BANDS)
    for frame in numbers:
        for part, band in _parts(frame):
            place = np.broadcast_to(band, part.shape).ravel()
            sums += np.bincount(place, np.abs(part).ravel(), _BANDS)
            counts += np.bincount(place, minlength=_BANDS)
    mean = sums / counts
    # the mean size of rounded Laplace numbers of scale s: exp(-1/2s) / (1 - exp(-1/s))
    sizes = np.array([np.exp(-0.5 / scale) / (1 - np.exp(-1 / scale)) for scale in _SCALES])
    return np.abs(np.log(np.maximum(mean, 1e-9))[:, None] - np.log(sizes)[None]).argmin(1)
