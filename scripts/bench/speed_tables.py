"""Markdown tables of latency.json and gru-latency.json: ours beside dense engines."""

import json
from pathlib import Path

from tabular import grid, header, line

OURS = "modicum"
ENGINES = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "litert": "LiteRT",
    "mnn": "MNN",
    "ncnn": "ncnn",
    "torch": "torch",
    "deepsparse": "DeepSparse",
    "xla": "XLA",
    "openvino_bf16": "OpenVINO, bf16",
}
"""Peers of the latency table, the last in reduced precision."""


def latency_row(network: str, threads: str, cells: dict[str, dict]) -> str:
    """One network by so many threads: median wall times, and ratios to ours."""
    times = {engine: cell["wall_ms_median"] for engine, cell in cells.items()}
    exact = {name: times[name] for name in ENGINES if name in times and not cells[name]["reduced_precision"]}
    fastest = min(exact, key=lambda name: exact[name])

    def shown(engine: str) -> str:
        return f"{times[engine]:.3g}" if engine in times else ""

    def ratio(engine: str) -> str:
        return f"{times[engine] / times[OURS]:.1f}x" if engine in times else ""

    best = f"{ENGINES[fastest]}, {ratio(fastest)}"
    columns = (network, threads, shown(OURS), *map(shown, ENGINES), best, ratio("onnxruntime"), ratio("litert"))
    return line(columns)


def latency_table(folder: Path) -> str:
    """Whole networks and single layers, one image; `scripts/bench/latency.py` measured them."""
    import latency

    path = folder / "latency.json"
    if not path.exists():
        return ""
    stored = json.loads(path.read_text())
    rows: dict[tuple[str, str], dict[str, dict]] = {}
    for name, cell in stored["cells"].items():
        network, engine, threads = name.split(" | ")
        rows.setdefault((network, threads), {})[engine] = cell
    ratios = ("fastest float32 peer", "times ONNX Runtime", "times LiteRT")
    head = ("network", "threads", "ours, ms", *ENGINES.values(), *ratios)
    order = list(latency.NETWORKS)
    lines = header(head)
    for network, threads in sorted(rows, key=lambda key: (order.index(key[0]) if key[0] in order else -1, key[1])):
        if OURS in rows[network, threads]:
            lines.append(latency_row(network, threads, rows[network, threads]))
    cell = next(iter(stored["cells"].values()))
    commits = ", ".join(sorted({cell["commit"][:7] for cell in stored["cells"].values()}))
    machine = f"{cell['machine']['model']}, {cell['machine']['cores']} cores, jax {cell['jax']}, commits {commits}"
    peak = stored.get("peaks", {}).get("fma_gflops")
    foot = f"{machine}; one core multiplies and adds at {peak} GFLOP/s."
    return "\n\n".join(["\n".join(lines), foot, ablation(rows)])


PARTS = {
    "modicum": "tuned",
    "modicum_untuned": "the model's choice",
    "modicum_no_elimination": "without load elimination",
    "modicum_no_reorder": "without kernel reorder",
}
"""Our own engines; the last two differ from the model's choice in one thing."""


def ablation(rows: dict[tuple[str, str], dict[str, dict]]) -> str:
    """What each part of the generator is worth, in milliseconds."""
    head = ("network", "threads", *PARTS.values())
    found = (
        (network, threads, *(f"{cells[name]['wall_ms_median']:.3g}" for name in PARTS))
        for (network, threads), cells in sorted(rows.items())
        if all(name in cells for name in PARTS)
    )
    return grid(head, found)


def gru_table(folder: Path) -> str:
    """Median microseconds of a step of a GRU, batch 1, one thread, from `scripts/bench/gru_latency.py`."""
    path = folder / "gru-latency.json"
    if not path.exists():
        return ""
    stored = json.loads(path.read_text())["rows"]
    head = ("units = inputs", "weights kept", "ours, us a step", "fastest float32 dense peer", "ratio")
    lines = header(head)
    for size in sorted({row["size"] for row in stored}):
        here = [row for row in stored if row["size"] == size]
        peer = min((row for row in here if row["engine"] != OURS), key=lambda row: row["us_median"])
        name = f"{ENGINES.get(peer['engine'], peer['engine'])}, {peer['us_median']:.0f}"
        for row in here:
            if row["engine"] == OURS:
                ratio = peer["us_median"] / row["us_median"]
                times = (f"1 of {row['kept']:.1f}", f"{row['us_median']:.2f}", name, f"{ratio:.1f}x")
                lines.append(line((str(size), *times)))
    return "\n".join(lines)


def tables(folder: Path) -> str:
    """Latency of convolutional and recurrent networks."""
    return "\n\n".join(part for part in (latency_table(folder), gru_table(folder)) if part)
