"""Markdown tables of scripts/bench/results/video.json, which scripts/bench/video.py measured."""

import json
from pathlib import Path
from typing import Any

from tabular import header, line

CODECS = ("H.264", "H.265", "AV1", "VP9")
MEASURES = {"psnr": "PSNR", "ms_ssim": "MS-SSIM"}
BASE = "motion only"


def rate_of(
    points: list[dict[str, float]], measure: str, quality: float, skips: tuple[int, ...] = (1, 2)
) -> float | None:
    """The least rate at which a codec reaches a quality, at full or half the rate of frames."""
    from modicum.conference import quality as measures

    found = []
    for every in skips:
        curve = [(point["kbps"], point[measure]) for point in points if point["every"] == every]
        rate = measures.rate_at(curve, quality) if len(curve) > 1 else None
        if rate is not None:
            found.append(rate)
    return min(found) if found else None


def saving(points: list[dict[str, float]], ours: dict[str, Any], measure: str, skips: tuple[int, ...] = (1, 2)) -> str:
    """How many fewer bits ours takes at its own quality, and what the codec needs there."""
    rate = rate_of(points, measure, ours[measure], skips)
    if rate is not None:
        return f"{100 * (ours['kbps'] / rate - 1):+.0f}% ({rate:.1f})"
    lowest = min(points, key=lambda point: point[measure])
    side = "below" if ours[measure] < lowest[measure] else "above"
    return f"{side} its curve"


COMPARED = (BASE, "target 3 kbps", "target 5 kbps", "target 8 kbps", "target 20 kbps")


def table(cells: dict[str, dict]) -> str:
    """Ours by clip, and the difference of rate at equal quality."""
    head = ["clip, pixels", "kbps", "PSNR", "SSIM", "MS-SSIM", "frames of the others"]
    head += [f"{codec} at equal {name}" for codec in CODECS for name in MEASURES.values()]
    lines = header(head)
    ours = [(name.split(" | "), cell) for name, cell in cells.items() if " | ours | " in name]
    for parts, cell in sorted(ours, key=lambda entry: (entry[0][0], entry[1]["kbps"])):
        if parts[3] not in COMPARED:
            continue
        for shown, skips in (("all", (1,)), ("all, or every second", (1, 2))):
            columns = [f"{parts[0]}, {parts[1]}", f"{cell['kbps']:.2f}", f"{cell['psnr']:.2f}"]
            columns += [f"{cell['ssim']:.3f}", f"{cell['ms_ssim']:.3f}", shown]
            for codec in CODECS:
                anchor = cells.get(f"{parts[0]} | {parts[1]} | {codec}")
                columns += [saving(anchor["points"], cell, measure, skips) if anchor else "" for measure in MEASURES]
            lines.append(line(columns))
    return "\n".join(lines)


def settings_table(cells: dict[str, dict]) -> str:
    """Every setting of ours that is measured: rate, quality, what the bytes were spent on."""
    kinds = ("source", "motion", "residual", "hash", "video", "packet")
    head = ["clip", "setting", "kbps", "PSNR", "MS-SSIM", *(f"bytes: {kind}" for kind in kinds), "2 s off target"]
    lines = header(head)
    for name, cell in sorted(cells.items(), key=lambda entry: (entry[0].split(" | ")[0], entry[1].get("kbps", 0))):
        parts = name.split(" | ")
        if parts[2:3] != ["ours"]:
            continue
        error = f"{100 * cell['worst_rate_error']:.1f}%" if "worst_rate_error" in cell else ""
        spent = [f"{cell['bytes'].get(kind, 0):,}" for kind in kinds]
        columns = [parts[0], parts[3], f"{cell['kbps']:.2f}", f"{cell['psnr']:.2f}", f"{cell['ms_ssim']:.3f}"]
        lines.append(line([*columns, *spent, error]))
    return "\n".join(lines)


def tables(folder: Path) -> str:
    """All of it; empty where nothing is measured."""
    path = folder / "video.json"
    if not path.exists():
        return ""
    cells = json.loads(path.read_text())["cells"]
    parts = []
    measured = [cell for name, cell in cells.items() if " | ours | " in name]
    if measured:
        commits = ", ".join(sorted({cell["commit"][:7] for cell in measured}))
        facts = f"{measured[0]['frames']} held-out frames a clip at most, {measured[0]['steps']:,} training steps, "
        facts += f"{measured[0]['machine']['cores']} cores, jax {measured[0]['jax']}, commits {commits}."
        parts += [table(cells), facts, settings_table(cells)]
    if "fuzz" in cells:
        cell = cells["fuzz"]
        parts.append(
            f"{cell['streams']:,} fuzzed streams under right checksums: {cell['crashes']} crashes, the longest step "
            f"{1000 * cell['longest_step_seconds']:.0f} ms, {cell['memory_grown_mb']:.0f} MB more memory."
        )
    return "\n\n".join(parts)
