"""Clips as arrays: decoded, cropped to the head, resized by area, at one frame rate."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from modicum.conference.extra import package
from modicum.core import check


def read(
    path: str | Path,
    size: int,
    *,
    crop: tuple[int, int, int, int] | None = None,
    fps: float = 25.0,
    limit: int | None = None,
) -> UInt8[np.ndarray, " t n n 3"]:
    """The frames of a video file.

    A file with more frames a second than `fps` loses some, one with fewer keeps its own rate: none is invented.

    Args:
        path: anything FFmpeg reads.
        size: side of the square frames returned.
        crop: x0, y0, x1, y1 of the part to keep; the largest centered square where None.
        fps: frames a second.
        limit: most frames returned.

    Raises:
        ValueError: if the file holds no video that can be read.
        ImportError: without the extra `conference`.
    """
    import cv2

    check.integer(1, size=size)
    check.finite_positive(fps=fps)
    av = package("av")
    frames: list[np.ndarray] = []
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            ratio = max(float(stream.average_rate or fps) / fps, 1.0)
            for index, frame in enumerate(container.decode(stream)):
                if int((index + 1) / ratio) == int(index / ratio):
                    continue
                frames.append(_cut(frame.to_ndarray(format="rgb24"), size, crop, cv2))
                if limit is not None and len(frames) >= limit:
                    break
    except (av.error.FFmpegError, IndexError, OSError) as error:
        raise ValueError(f"path must be a video that FFmpeg reads, got {path}: {error}") from None
    if not frames:
        raise ValueError(f"path must be a video with at least 1 frame, got {path}")
    return np.stack(frames)


def _cut(frame: np.ndarray, size: int, crop: tuple[int, int, int, int] | None, cv2: object) -> np.ndarray:
    height, width = frame.shape[:2]
    side = min(height, width)
    x0, y0 = (width - side) // 2, (height - side) // 2
    x0, y0, x1, y1 = crop or (x0, y0, x0 + side, y0 + side)
    part = np.ascontiguousarray(frame[y0:y1, x0:x1])
    # averaging downwards, cubic upwards
    method = cv2.INTER_AREA if part.shape[0] >= size else cv2.INTER_CUBIC  # pyrefly: ignore[missing-attribute]
    return cv2.resize(part, (size, size), interpolation=method)  # pyrefly: ignore[missing-attribute]


def listed(folder: str | Path) -> dict[str, dict[str, Any]]:
    """What a folder's `clips.json` says of each clip: `crop_x0_y0_x1_y1`, `source_fps` and more.

    Args:
        folder: holds `clips.json` and the clips.

    Raises:
        ValueError: if there is no such list.
    """
    path = Path(folder) / "clips.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"folder must hold clips.json, got {folder}: {error}") from None


def read_listed(folder: str | Path, name: str, size: int) -> UInt8[np.ndarray, " t n n 3"]:
    """A clip of a folder whose `clips.json` gives the crop of each.

    Args:
        folder: holds `clips.json` and the clips.
        name: name of the file.
        size: side of the frames.

    Raises:
        ValueError: if the folder does not list the clip.
    """
    entries = listed(folder)
    check.one_of(sorted(entries), name=name)
    x0, y0, x1, y1 = entries[name]["crop_x0_y0_x1_y1"]
    return read(Path(folder) / name, size, crop=(x0, y0, x1, y1))


def split(frames: UInt8[np.ndarray, " t n n 3"], share: float = 0.75) -> tuple[np.ndarray, np.ndarray]:
    """The first part of a call, to train on, and the rest, never seen in training.

    Args:
        frames: the call.
        share: of the first part, from 0.1 to 0.9.
    """
    check.between(0.1, 0.9, share=share)
    cut = int(len(frames) * share)
    return frames[:cut], frames[cut:]
