"""A talking head without a camera: scikit-image's picture of an astronaut, moved by known warps."""

import numpy as np
from jaxtyping import Float, UInt8

from modicum.conference.extra import package
from modicum.core import check

_HEAD = (0, 80, 300, 380)
"""Rows and columns of the picture (512 x 512, public domain) that are shown: top, left, bottom, right."""
_CENTER, _RADIUS = np.array([0.36, 0.47]), np.array([0.34, 0.24])
"""Of the head in it, as shares of the side: row and column."""
_MOUTH, _MOUTH_RADIUS = np.array([0.49, 0.47]), np.array([0.06, 0.09])


def pose(time_seconds: Float[np.ndarray, " t"]) -> Float[np.ndarray, " t 4"]:
    """Where the head is: shift down, shift right and roll (radians), and how far the mouth is open, from 0 to 1.

    Sums of sines without a common period, so that later seconds are not those before.

    Args:
        time_seconds: times.
    """

    def swing(*parts: tuple[float, float, float]) -> np.ndarray:
        return np.sum([size * np.sin(2 * np.pi * hertz * time_seconds + phase) for size, hertz, phase in parts], axis=0)

    down = swing((0.015, 0.31, 0.0), (0.008, 0.83, 1.0))
    right = swing((0.03, 0.17, 0.5), (0.012, 0.47, 2.0))
    roll = swing((0.09, 0.21, 1.0), (0.04, 0.59, 0.3))
    mouth = np.clip(0.5 + swing((0.5, 1.9, 0.0), (0.4, 2.7, 1.7)), 0, 1)
    return np.stack([down, right, roll, mouth], -1)


def flow(size: int, where: Float[np.ndarray, " 4"]) -> Float[np.ndarray, " n n 2"]:
    """Where each pixel of a frame looks in the still picture, as a displacement in shares of the side.

    Args:
        size: side of the frame.
        where: one row of `pose`.
    """
    rows, columns = (np.mgrid[:size, :size] + 0.5) / size
    place = np.stack([rows, columns], -1)
    from_center = place - _CENTER
    # rigid inside the head, nothing at twice its size: shoulders and background stay
    reach = np.clip(2 - np.linalg.norm(from_center / _RADIUS, axis=-1), 0, 1)[..., None]
    down, right, roll, mouth = where
    turned = np.stack(
        [
            np.cos(roll) * from_center[..., 0] - np.sin(roll) * from_center[..., 1],
            np.sin(roll) * from_center[..., 0] + np.cos(roll) * from_center[..., 1],
        ],
        -1,
    )
    field = reach * (turned - from_center - np.array([down, right]))
    moved = place + field - _MOUTH
    lips = np.exp(-0.5 * ((moved / _MOUTH_RADIUS) ** 2).sum(-1))
    # lips part: what lies above the mouth's line looks down, what lies below looks up
    field[..., 0] -= 0.035 * mouth * lips * np.tanh(moved[..., 0] / 0.02)
    return field


def clip(size: int, seconds: float = 20.0, *, fps: float = 25.0, start: float = 0.0) -> UInt8[np.ndarray, " t n n 3"]:
    """Frames of the moving picture.

    Args:
        size: side of the frames.
        seconds: length.
        fps: frames a second.
        start: time of the first frame in seconds.

    Raises:
        ImportError: without the extra `conference`.
    """
    import cv2

    check.integer(16, size=size)
    check.finite_positive(seconds=seconds, fps=fps)
    top, left, bottom, right = _HEAD
    still = package("skimage.data").astronaut()[top:bottom, left:right]
    still = cv2.resize(still, (size, size), interpolation=cv2.INTER_AREA)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    frames = []
    for where in pose(start + np.arange(round(seconds * fps)) / fps):
        field = size * flow(size, where).astype(np.float32)
        frames.append(
            cv2.remap(
                still, columns + field[..., 1], rows + field[..., 0], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
            )
        )
    return np.stack(frames)
