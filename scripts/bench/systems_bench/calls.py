"""Rows of FAIVConf, and of pipelines across systems."""

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import video_tables

from systems_bench.rows import Figure, Results, Row, mean, times

NO_TEXT = "in words alone (abstract)"
CODECS = ("H.264", "H.265")
SPEED_ROW = "decoder, patterns, native"


def _calls(results: Results, size: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Settings of ours by clip."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, cell in results("video").get("cells", {}).items():
        parts = name.split(" | ")
        if len(parts) == 4 and parts[1:3] == [str(size), "ours"]:
            found.setdefault(parts[0], {})[parts[3]] = cell
    return found


def _saved(cells: Mapping[str, Any], clip: str, size: int, ours: Mapping[str, Any]) -> float:
    """The least share of bits saved against a codec, frame by frame, at equal PSNR and at equal MS-SSIM.

    -1 where no rate of a codec gives our quality, be it below or above its curve: that counts for neither.
    """
    shares = []
    for codec in CODECS:
        points = cells[f"{clip} | {size} | {codec}"]["points"]
        for measure in video_tables.MEASURES:
            rate = video_tables.rate_of(points, measure, ours[measure], (1,))
            shares.append(-1.0 if rate is None else 1 - ours["kbps"] / rate)
    return min(shares)


def _devices(cells: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the models were trained on."""
    return sorted({"CPU" if name == "cpu" else name for cell in cells for name in cell["training"]["devices"]})


def bits(size: int) -> Callable[[Results], Figure | None]:
    """Clips with 70% fewer bits than both codecs by both measures, face motion alone."""

    def find(results: Results) -> Figure | None:
        cells, clips = results("video").get("cells", {}), _calls(results, size)
        motion = {clip: settings[video_tables.BASE] for clip, settings in clips.items()}
        if not motion:
            return None
        shares = [_saved(cells, clip, size, cell) for clip, cell in motion.items()]
        reached = sum(share >= 0.7 for share in shares)
        text = f"{reached} of {len(shares)} clips at {mean([cell['kbps'] for cell in motion.values()]):.1f} kbps, "
        text += f"models trained on {', '.join(_devices(motion.values()))}"
        return Figure(text, reached >= 4, list(motion.values()))

    return find


def _rate(results: Results) -> Figure | None:
    clips = _calls(results, 64)
    chosen = [
        (name, cell)
        for settings in clips.values()
        for name, cell in settings.items()
        if name.startswith("target ") and 5 <= float(name.split()[1]) <= 50
    ]
    if not chosen:
        return None
    # a clip of less than two seconds has no such stretch
    worst = max(cell.get("worst_rate_error", 0.0) for _, cell in chosen)
    whole = max(abs(cell["kbps"] / float(name.split()[1]) - 1) for name, cell in chosen)
    text = f"{100 * worst:.1f}% at worst over 2 s, {100 * whole:.1f}% over a call"
    return Figure(text, worst <= 0.05, [cell for _, cell in chosen])


def _fuzz(results: Results) -> Figure | None:
    cell = results("video").get("cells", {}).get("fuzz")
    if not cell:
        return None
    text = (
        f"{cell['streams']:,} streams, {cell['crashes']} crashes, {1e3 * cell['longest_step_seconds']:.0f} ms a step, "
    )
    text += f"{cell['memory_grown_mb']:.0f} MB"
    return Figure(text, cell["streams"] >= 10_000 and not cell["crashes"], [cell])


def _designs(results: Results) -> Figure | None:
    clips = _calls(results, 64)
    names = {
        "swap": "face swap",
        "blurred source": "blur",
        "sources, 0.5 kbps": "later sources",
        "sources, one view": "without interpolation",
    }
    gains: dict[str, list[float]] = {name: [] for name in names}
    for settings in clips.values():
        for name in names:
            gains[name].append(settings[name]["psnr"] - settings[video_tables.BASE]["psnr"])
    if not clips:
        return None
    text = ", ".join(f"{names[name]} {mean(values):+.2f} dB" for name, values in gains.items())
    return Figure(text, None, [settings[name] for settings in clips.values() for name in names])


def _frames(results: Results) -> Figure | None:
    found = results("video-speed")
    if not found:
        return None
    stages = found["stages"]
    # coding is timed for ten frames
    frame = sum(
        row["wall_ms"] / (10 if "ten frames" in name else 1)
        for name, row in stages.items()
        if name != "decoder, dense, XLA"
    )
    ratio = stages["decoder, dense, XLA"]["wall_ms"] / stages[SPEED_ROW]["wall_ms"]
    text = f"{1e3 / frame:.1f} frames a second at {found['size']} px, decoder {times(ratio)} faster than dense XLA"
    return Figure(text, 1e3 / frame >= 25 and ratio >= 2, [found["versions"]])


ROWS = (
    Row(
        "64 px, face motion alone: clips with 70% fewer bits than H.264 and than H.265, frame by frame, at equal PSNR "
        "and at equal MS-SSIM",
        f"fewer bits and better pictures, {NO_TEXT}",
        "4 of 6",
        "video.py",
        bits(64),
    ),
    Row(
        "the same at 128 px",
        f"likewise, {NO_TEXT}",
        "4 of 6",
        "video.py",
        bits(128),
        missed="the models of this size had too few steps, and draw most clips too badly for so few bits",
    ),
    Row(
        "rate control at 64 px, targets of 5 to 50 kbps",
        "not available to us",
        "5% over any 2 s",
        "video.py",
        _rate,
        missed="a picture is never cut, and a packet spans ten frames: within two seconds one packet more or less "
        "counts; over a call it is reached",
    ),
    Row("damaged streams", "not available to us", "10,000, no crash", "video.py", _fuzz),
    Row(
        "the four designs at 64 px, PSNR against face motion alone",
        f"each helps, {NO_TEXT}",
        "",
        "video.py",
        _designs,
    ),
    Row(
        "sender and receiver, generator on pattern sets compiled, 2 cores",
        "not available to us",
        "25 frames a second, 2x dense XLA",
        "video_speed.py",
        _frames,
        absent="its script has no finished run yet",
    ),
)


def _pipeline(name: str, results: Results) -> Figure | None:
    found = results("pipelines").get(name)
    if not found:
        return None
    from modicum.systems import pipelines

    last = found["lines"][-1]
    return Figure(f"{last['stage']}: {pipelines.in_words(last['figures'])}", None, [found["versions"]])


PIPELINES = {
    "spiking_chips": "a spiking network without a tape, polarized in 4 bits, on FORMS and CAP-RAM",
    "private_phone": "a network pruned while it trains under SEFL, as a phone's bundle",
    "speech": "a GRU pruned by blocks: native code beside crossbars",
    "face_call": "a face generator on patterns, compiled, on a call",
    "frontier": "one network under every kind of constraint",
}
"""By the config in configs/pipelines."""


def pipeline_rows(configs: Path) -> tuple[Row, ...]:
    """A row for each config.

    Args:
        configs: configs/pipelines of the repository.
    """
    return tuple(
        Row(
            PIPELINES.get(path.stem, path.stem),
            "none",
            "",
            "pipelines.py",
            functools.partial(_pipeline, path.stem),
            absent=f"`modicum pipeline pipelines/{path.stem}` has no finished run at full size yet",
        )
        for path in sorted(configs.glob("*.py"))
    )
