"""Tables of simulated chips for the README: accuracy, effective cycles against the paper, time against others."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tabular import grid


def _stored(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def chips(results: Path, percent: Callable[..., str]) -> str:
    """Accuracy and cost per image; `scripts/bench/chips.py` measured them."""
    cells = _stored(results / "chips.json").get("cells", {})
    if not cells:
        return ""
    rows = []
    for name, cell in cells.items():
        mean = sum(cell["chips"]) / len(cell["chips"])
        total = cell["total"]
        rows.append(
            (
                f"{cell['model']} on {cell['data']}: {name}",
                percent(cell["software"]),
                percent(cell["chips"]),
                f"{min(100 * value for value in cell['chips']):.2f}%",
                f"{100 * (mean - cell['software']):+.2f}",
                f"{len(cell['chips'])} x {cell['test_examples']:,}",
                f"{1e9 * total['energy_joules']:.0f} / {1e6 * total['latency_seconds']:.1f}",
                f"{total['crossbars']:,} / {total['area_mm2']:.2f}",
                cell["anchor"],
            )
        )
    head = (
        "network",
        "software",
        "chips",
        "worst chip",
        "chips - software, points",
        "chips x images",
        "nJ / us an image",
        "arrays / mm2",
        "published",
    )
    commits = ", ".join(sorted({str(cell["commit"])[:7] for cell in cells.values()}))
    variation = _variation(cells)
    foot = (
        "Arrays are macros for CAP-RAM, counted layer by layer; those of LeNet-5 fit one macro together. "
        f"Commits {commits}."
    )
    return "\n\n".join(part for part in ("**Accuracy on simulated chips**", grid(head, rows), variation, foot) if part)


def _variation(cells: dict[str, Any]) -> str:
    """What polarization adds to the loss under variation, in points."""
    names = ("FORMS, fragments of 8, sigma 0.1", "not polarized, sigma 0.1")
    if not all(name in cells for name in names):
        return ""
    losses = [100 * (cells[name]["software"] - sum(cells[name]["chips"]) / len(cells[name]["chips"])) for name in names]
    return (
        f"Loss by variation of sigma 0.1: {losses[0]:.3f} points polarized, {losses[1]:.3f} not; polarization adds "
        f"{losses[0] - losses[1]:+.3f}."
    )


def cycles(results: Path) -> str:
    """Effective input cycles and the speed-up over ISAAC, beside FORMS' own figures."""
    stored = _stored(results / "effective-cycles.json")
    if not stored:
        return ""
    rows = []
    for name, cell in stored["cells"].items():
        network, fragment, input_format = name.split(" | ")
        rows.append(
            (
                network,
                input_format,
                fragment,
                f"{cell['mean_cycles']:.2f} of {cell['input_bits']}",
                f"{stored['full_crossbar'][fragment]:.3f}x",
                f"{cell['unskipped_speedup']:.3f}x",
                f"{cell['skip_gain']:.2f}x",
                f"{cell['speedup']:.2f}x",
                f"{cell['speedup_per_area']:.2f}x",
                f"{cell['work_per_joule']:.2f}x",
                f"{cell['speedup_slowest_layer']:.2f}x",
            )
        )
    head = (
        "network",
        "inputs",
        "rows of a fragment",
        "effective cycles, mean of layers",
        "full crossbar, no skipping",
        "these layers, no skipping",
        "skipping gains",
        "speed-up over ISAAC",
        "per area",
        "per joule",
        "slowest layer's",
    )
    full = stored["full_crossbar"]["8"]
    gaps = (
        "FORMS reports 10.7 of 16 cycles at 4 rows (ResNet-50), throughput of .546 (8 rows) and .776 (16) of ISAAC's "
        "without skipping, and 1.12 to 2.4 times ISAAC's frames with it (1.50 per area, 1.93 per watt at 16 rows). "
        f"Where ours differ: its own clock and converters give a full crossbar {full:.3f} at 8 rows, of which the "
        f"paper's .546 is {0.546 / full:.2f} times, unexplained; its skipping gains 2.6 to 3.45 times (8 rows) where "
        "its own 10.7 cycles would give 1.5; layers of fewer than 128 rows, as in small networks, have fewer fragments "
        "to go through, which ISAAC's whole columns cannot use; and how many leading zeros there are is decided by the "
        "input format, which the paper does not state."
    )
    return "\n\n".join(("**Effective input cycles, and FORMS against ISAAC**", grid(head, rows), gaps))


def speed(results: Path) -> str:
    """CPU time of simulation; `scripts/bench/analog.py` measured it."""
    stored = _stored(results / "analog.json")
    parts = stored.get("parts", {})
    if not parts:
        return ""
    rows: list[tuple[str, ...]] = []

    def add(name: str, entry: dict[str, Any], peers: dict[str, Any], kind: str | None) -> None:
        told = [
            f"{peer} {found[kind]['cpu_ms']:.3g} ({found[kind]['cpu_ms'] / entry['simulated']['cpu_ms']:.1f}x)"
            for peer, found in peers.items()
            if kind is not None and kind in found
        ]
        times = (f"{entry['dense']['cpu_ms']:.3g}", f"{entry['simulated']['cpu_ms']:.3g}")
        rows.append((name, *times, f"{entry['ratio']:.1f}x", ", ".join(told)))

    for part, entry in parts.items():
        peers = entry.get("peers", {})
        if part in ("linear layer", "convolutional layer"):
            for kind in ("forward", "forward and backward"):
                add(f"hardware-aware {part}, {kind}", entry[kind], peers, kind)
        elif part == "128 rows":
            for path in ("fold", "packed"):
                add(f"128 rows, 9-bit converters, by {path}", entry[path], peers, "forward")
        elif part != "chips":
            add({"apply": "reads of 8 rows, apply"}.get(part, part), entry, peers, None)
    head = ("what", "dense, CPU ms", "simulated, CPU ms", "ratio", "others, CPU ms (times ours)")
    made = stored["versions"]
    foot = f"{made['machine']['cores']} cores, jax {made['jax']}, commit {str(made['commit'])[:7]}."
    if "chips" in parts:
        foot = f"100 chips of 512 x 512 at batch 256: {parts['chips']['cpu_ms'] / 1e3:.1f} CPU seconds. {foot}"
    return "\n\n".join(("**Time of simulation**", grid(head, rows), foot))


def tables(results: Path, percent: Callable[..., str]) -> str:
    """All of them.

    Args:
        results: folder of JSON.
        percent: how shares are written.
    """
    return "\n\n".join(part for part in (chips(results, percent), cycles(results), speed(results)) if part)
