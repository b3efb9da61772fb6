"""What a call looks like beside conventional video: a static page, its clips, and a figure of rate and quality."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from modicum.conference import quality, video
from modicum.conference.extra import package
from modicum.systems.drawing import save


class Shown(NamedTuple):
    """A clip on the page.

    Attributes:
        name: what it is.
        frames: (t, size, size, 3) uint8.
        kbps: rate in kilobits a second, None for the original.
        measures: `psnr`, `ssim`, `ms_ssim` against the original; empty for the original.
    """

    name: str
    frames: np.ndarray
    kbps: float | None
    measures: Mapping[str, float]


def write_video(path: Path, frames: np.ndarray, fps: float, *, side: int = 256) -> None:
    """A clip as an MP4 that browsers play, enlarged by whole pixels to about `side`.

    Args:
        path: where to, ending in `.mp4`.
        frames: (t, size, size, 3) uint8.
        fps: frames a second.
        side: wanted side.
    """
    import fractions

    av = package("av")
    factor = max(side // frames.shape[1], 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fractions.Fraction(fps).limit_denominator(1000))
        stream.width = stream.height = factor * frames.shape[1]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "14", "preset": "fast"}
        for frame in frames:
            larger = np.ascontiguousarray(frame.repeat(factor, 0).repeat(factor, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(larger, format="rgb24")))
        container.mux(stream.encode(None))


def nearest_conventional(frames: np.ndarray, codec: str, kbps: float, fps: float) -> Shown:
    """What a codec makes of a clip at the least rate that is not below a given one, or at its own floor.

    Args:
        frames: the original.
        codec: one of `video.CODECS`.
        kbps: the rate to be compared with.
        fps: frames a second.
    """
    low, high = video.QUALITY_RANGES[codec]
    best: tuple[float, np.ndarray] | None = None
    while low <= high:
        middle = (low + high) // 2
        packets, extra = video.encode(frames, codec, middle, fps=fps)
        rate = (sum(map(len, packets)) + len(extra)) * 8 * fps / len(frames) / 1000
        if rate >= kbps:
            best, low = (rate, video.decode(packets, codec, size=frames.shape[1], extradata=extra)), middle + 1
        else:
            high = middle - 1
    if best is None:
        # even the best quality is cheaper than that: it is what the codec has to show
        packets, extra = video.encode(frames, codec, video.QUALITY_RANGES[codec][0], fps=fps)
        rate = (sum(map(len, packets)) + len(extra)) * 8 * fps / len(frames) / 1000
        best = rate, video.decode(packets, codec, size=frames.shape[1], extradata=extra)
    return Shown(codec, best[1], best[0], quality.measure(frames, best[1]))


def curve(frames: np.ndarray, codec: str, fps: float, numbers: Sequence[int]) -> list[dict[str, float]]:
    """Rate and quality of a codec at some of its quality numbers.

    Args:
        frames: the original.
        codec: one of `video.CODECS`.
        fps: frames a second.
        numbers: within `video.QUALITY_RANGES`.
    """
    points = []
    for number in numbers:
        packets, extra = video.encode(frames, codec, number, fps=fps)
        decoded = video.decode(packets, codec, size=frames.shape[1], extradata=extra)
        kbps = (sum(map(len, packets)) + len(extra)) * 8 * fps / len(frames) / 1000
        points.append({"kbps": kbps, **quality.measure(frames, decoded)})
    return points


def draw(path: Path, curves: Mapping[str, Sequence[Mapping[str, float]]], clips: Sequence[Shown]) -> None:
    """Curves of PSNR and MS-SSIM over the rate, and one frame of each clip.

    Args:
        path: of the PNG.
        curves: points by name.
        clips: whose middle frames are shown.
    """
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(3, 2))
    top, bottom = parts
    labels = {"psnr": "PSNR, dB", "ms_ssim": "MS-SSIM"}
    for axes, (measure, label) in zip(top.subplots(1, 2), labels.items(), strict=True):
        for name, points in curves.items():
            ordered = sorted(points, key=lambda point: point["kbps"])
            style = "o-" if name == "Modicum" else ".--"
            axes.plot([point["kbps"] for point in ordered], [point[measure] for point in ordered], style, label=name)
        axes.set(xscale="log", xlabel="kbps, every byte counted", ylabel=label)
        axes.xaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
        axes.legend()
    for axes, clip in zip(np.atleast_1d(bottom.subplots(1, len(clips))), clips, strict=True):
        axes.imshow(clip.frames[len(clip.frames) // 2], interpolation="nearest")
        rate = "" if clip.kbps is None else f"\n{clip.kbps:.2f} kbps, {clip.measures['psnr']:.1f} dB"
        axes.set(title=clip.name + rate, xticks=[], yticks=[])
    save(figure, path)


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
    "figure{display:inline-block;margin:0 1rem 1rem 0}figcaption{max-width:256px}video{width:256px;"
    "image-rendering:pixelated}img{max-width:100%}table{border-collapse:collapse}td,th{padding:.2rem .8rem;"
    "text-align:right;border-bottom:1px solid #ccc}td:first-child,th:first-child{text-align:left}"
)


def write_page(
    folder: Path,
    title: str,
    clips: Sequence[Shown],
    curves: Mapping[str, Sequence[Mapping[str, float]]],
    notes: Sequence[str],
    fps: float,
) -> Path:
    """A page without scripts from elsewhere: clips side by side, the figure, a table.

    Args:
        folder: where `index.html`, `figure.png` and the clips go.
        title: of the page.
        clips: the original first.
        curves: points by name, for the figure.
        notes: sentences below the clips.
        fps: frames a second.

    Returns:
        The path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    players, rows = [], []
    for number, clip in enumerate(clips):
        name = f"clip-{number}.mp4"
        write_video(folder / name, clip.frames, fps)
        rate = "" if clip.kbps is None else f": {clip.kbps:.2f} kbps"
        players.append(
            f'<figure><video src="{name}" autoplay loop muted playsinline controls></video>'
            f"<figcaption>{html.escape(clip.name)}{rate}</figcaption></figure>"
        )
        if clip.kbps is not None:
            values: dict[str, Any] = dict(clip.measures)
            cells = (f"{clip.kbps:.2f}", f"{values['psnr']:.2f}", f"{values['ssim']:.3f}", f"{values['ms_ssim']:.3f}")
            rows.append(f"<tr><td>{html.escape(clip.name)}</td>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>")
    draw(folder / "figure.png", curves, clips)
    text = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style><h1>{html.escape(title)}</h1>'
        f"{''.join(players)}{text}"
        "<table><tr><th></th><th>kbps</th><th>PSNR, dB</th><th>SSIM</th><th>MS-SSIM</th></tr>"
        f'{"".join(rows)}</table><p><img src="figure.png" alt="Rate and quality of each codec"></p></html>\n'
    )
    (folder / "index.html").write_text(page, encoding="utf-8")
    return folder / "index.html"
