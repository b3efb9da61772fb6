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


COMPARED = (BASE, "target 8 kbps")
KINDS = ("source", "motion", "residual", "hash", "video", "packet")


def _ours(cells: dict[str, dict]) -> dict[tuple[str, str], dict[str, dict]]:
    """Settings and their cells by (clip, pixels), small pictures first."""
    found: dict[tuple[str, str], dict[str, dict]] = {}
    for name, cell in cells.items():
        if " | ours | " in name:
            clip, size, _, setting = name.split(" | ")
            found.setdefault((clip, size), {})[setting] = cell
    return dict(sorted(found.items(), key=lambda entry: (int(entry[0][1]), entry[0][0])))


def table(cells: dict[str, dict]) -> str:
    """Ours by clip, and the difference of rate at equal quality."""
    head = ["clip, pixels", "kbps", "PSNR", "SSIM", "MS-SSIM", "frames of the others"]
    head += [f"{codec} at equal {name}" for codec in CODECS for name in MEASURES.values()]
    lines = header(head)
    for (clip, size), settings in _ours(cells).items():
        for cell in (settings[name] for name in COMPARED if name in settings):
            for shown, skips in (("all", (1,)), ("all, or every second", (1, 2))):
                columns = [f"{clip}, {size}", f"{cell['kbps']:.2f}", f"{cell['psnr']:.2f}"]
                columns += [f"{cell['ssim']:.3f}", f"{cell['ms_ssim']:.3f}", shown]
                for codec in CODECS:
                    anchor = cells.get(f"{clip} | {size} | {codec}")
                    columns += [
                        saving(anchor["points"], cell, measure, skips) if anchor else "" for measure in MEASURES
                    ]
                lines.append(line(columns))
    return "\n".join(lines)


def curve_of(settings: dict[str, dict], measure: str) -> list[tuple[float, float]]:
    """Ours from face motion alone to the highest rate: (kbps, quality)."""
    named = [cell for name, cell in settings.items() if name == BASE or name.startswith("target ")]
    return [(cell["kbps"], cell[measure]) for cell in named]


def curves_table(cells: dict[str, dict]) -> str:
    """The Bjontegaard difference of rate of the whole curve, frame by frame."""
    from modicum.conference import quality

    lines = header(["clip, pixels", *(f"{codec}, {name}" for codec in CODECS for name in MEASURES.values())])
    for (clip, size), settings in _ours(cells).items():
        columns = [f"{clip}, {size}"]
        for codec in CODECS:
            points = cells.get(f"{clip} | {size} | {codec}", {"points": []})["points"]
            for measure in MEASURES:
                theirs = [(point["kbps"], point[measure]) for point in points if point["every"] == 1]
                difference = quality.bd_rate(theirs, curve_of(settings, measure)) if theirs else None
                columns.append("" if difference is None else f"{100 * difference:+.0f}%")
        lines.append(line(columns))
    return "\n".join(lines)


def settings_table(cells: dict[str, dict]) -> str:
    """Every setting of ours, means over the clips of a size: rate, quality, what the bytes were spent on."""
    head = ["pixels", "setting", "clips", "kbps", "PSNR", "MS-SSIM", *(f"bytes: {kind}" for kind in KINDS)]
    lines = header([*head, "2 s off target, at worst"])
    by_setting: dict[tuple[str, str], list[dict]] = {}
    for (_, size), settings in _ours(cells).items():
        for name, cell in settings.items():
            by_setting.setdefault((size, name), []).append(cell)
    for (size, name), found in by_setting.items():

        def mean(values: Any, found: list[dict] = found) -> float:
            return sum(values) / len(found)

        errors = [cell["worst_rate_error"] for cell in found if "worst_rate_error" in cell]
        columns = [size, name, str(len(found)), f"{mean(cell['kbps'] for cell in found):.2f}"]
        columns += [f"{mean(cell['psnr'] for cell in found):.2f}", f"{mean(cell['ms_ssim'] for cell in found):.3f}"]
        columns += [f"{mean(cell['bytes'].get(kind, 0) for cell in found):,.0f}" for kind in KINDS]
        lines.append(line([*columns, f"{100 * max(errors):.1f}%" if errors else ""]))
    return "\n".join(lines)


def trainings(cells: list[dict]) -> str:
    """How the models were trained, in words."""
    found: dict[tuple, list[float]] = {}
    for cell in cells:
        made = cell["training"]
        key = (cell["size"], made["steps"], made["augment"], " ".join(made["devices"]))
        found.setdefault(key, []).append(made["seconds"])
    return "; ".join(
        f"at {size} pixels {steps:,} steps, augment {augment:g}, on {device}, up to {max(seconds):.0f} s"
        for (size, steps, augment, device), seconds in sorted(found.items())
    )


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
        facts = f"{max(cell['frames'] for cell in measured)} held-out frames a clip at most, "
        facts += f"{measured[0]['machine']['cores']} cores, jax {measured[0]['jax']}, commits {commits}. "
        facts += f"Models were trained {trainings(measured)}."
        curves = "Difference of rate over the whole curve (Bjontegaard), at the full rate of frames:"
        parts += [table(cells), facts, f"{curves}\n\n{curves_table(cells)}", settings_table(cells)]
    if "fuzz" in cells:
        cell = cells["fuzz"]
        parts.append(
            f"{cell['streams']:,} fuzzed streams under right checksums: {cell['crashes']} crashes, the longest step "
            f"{1000 * cell['longest_step_seconds']:.0f} ms, {cell['memory_grown_mb']:.0f} MB more memory."
        )
    return "\n\n".join(parts)
