"""Markdown tables of what `scripts/bench/spiking.py` and `scripts/bench/spiking_accuracy.py` measured."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tabular import grid

SHOWN_STEPS = (4, 16, 64, 128, 256, 1024)
SHOWN_DEPTH = 16


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}x" if value >= 100 else f"{value:.1f}x"


def _made(entry: dict[str, Any]) -> str:
    made = entry["versions"]
    return f"{made['machine']['cores']} cores, jax {made['jax']}, commit {made['commit'][:7]}."


def memory_table(entry: dict[str, Any]) -> str:
    """Megabytes of the gradient by time steps, at one depth, and what plain JAX and checkpoints take besides."""
    depths = {row["depth"] for row in entry["summary"]}
    depth = SHOWN_DEPTH if SHOWN_DEPTH in depths else max(depths)
    cells = {(cell["scheme"], cell["steps"]): cell for cell in entry["cells"].values() if cell["depth"] == depth}
    steps = [number for number in SHOWN_STEPS if any(number == of for _, of in cells)]
    rows = []
    for row in entry["summary"]:
        if row["depth"] != depth:
            continue
        scheme = row["scheme"]
        megabytes = [
            f"{cells[scheme, number]['temp_bytes'] / 1e6:.1f}" if (scheme, number) in cells else "" for number in steps
        ]
        kind = "lif" if scheme.startswith(("lif", "packed")) else "carry"
        plain, root = (row.get(f"{kind} {name} / this", {}) for name in ("autodiff", "sqrt"))
        compared = [_times(values.get(number)) for values, number in ((plain, "128"), (plain, "256"), (root, "256"))]
        rows.append((scheme, *megabytes, f"{row['exponent']:.3f}", *compared))
    head = ("scheme", *(f"T = {number}, MB" for number in steps), "exponent in T")
    title = f"**Temporary memory of the gradient, {depth} layers of {entry['channels']} channels**"
    compared_with = ("plain / this, T = 128", "T = 256", "sqrt / this, T = 256")
    return f"{title}\n\n{grid((*head, *compared_with), rows)}"


def node_table(entry: dict[str, Any]) -> str:
    """What a bare neuron keeps between the passes."""
    nodes = {(row["node"], row["steps"]): row for row in entry["nodes"]}
    steps = sorted({row["steps"] for row in entry["nodes"]})
    kept = "bytes_per_neuron_step"
    rows = [
        (
            name,
            *(
                f"{nodes[name, number][kept]:.3g} / {nodes[name, number][kept + '_with_synapse']:.3g}"
                for number in steps
            ),
        )
        for name in dict.fromkeys(row["node"] for row in entry["nodes"])
    ]
    title = "**Bytes per neuron and step kept for the backward pass: the node alone / with the synapse behind it**"
    return f"{title}\n\n{grid(('node', *(f'T = {number}' for number in steps)), rows)}"


def coupled_table(entry: dict[str, Any]) -> str:
    """Megabytes of coupled blocks by their number."""
    found = entry["coupled"]
    blocks = sorted({row["blocks"] for row in found["rows"]})
    sizes = {(row["scheme"], row["blocks"]): row["temp_bytes"] / 1e6 for row in found["rows"]}
    rows = []
    for name, slope in found["exponents"].items():
        ratio = _times(found["plain / this"][name][str(blocks[-1])])
        rows.append((name, *(f"{sizes[name, number]:.1f}" for number in blocks), f"{slope:.3f}", ratio))
    head = (
        "coupled blocks",
        *(f"{number}, MB" for number in blocks),
        "exponent in depth",
        f"plain / this, {blocks[-1]}",
    )
    return grid(head, rows)


def _memory(entry: dict[str, Any]) -> str:
    return "\n\n".join([memory_table(entry), node_table(entry), coupled_table(entry), _made(entry)])


def _time(entry: dict[str, Any]) -> str:
    parts = []
    sizes = [(found["depth"], found["steps"]) for found in entry["networks"]]
    names = list(entry["networks"][0]["times"])
    rows = [
        (name, *(f"{found['times'][name]['cpu_seconds_min']:.3f}" for found in entry["networks"])) for name in names
    ]
    columns = [f"D = {depth}, T = {steps}" for depth, steps in sizes]
    parts.append(
        f"**Training step, CPU seconds, the least of {entry['rounds']}**\n\n{grid(('scheme', *columns), rows)}"
    )
    ratios = [
        (pair, *(f"{found['ratios'][pair]['min']:.2f}" for found in entry["networks"]))
        for pair in entry["networks"][0]["ratios"]
    ]
    parts.append(grid(("ratio", *columns), ratios))
    others = [
        ("two-group node", entry["nodes"]),
        *((f"{row['blocks']} coupled blocks", row) for row in entry["coupled"]),
    ]
    lines = [(name, pair, f"{value['min']:.2f}") for name, of in others for pair, value in of["ratios"].items()]
    parts += [grid(("what", "ratio", "CPU time"), lines), _made(entry)]
    return "\n\n".join(parts)


def _peers(entry: dict[str, Any]) -> str:
    head, rows = ["engine"], {}
    for number, found in enumerate(entry["results"]):
        head += [f"T = {found['steps']}: CPU ms", "MB", "time / packed", "memory / packed", "memory / reversible"]
        ratios = found["ratios"]
        for row in found["rows"]:
            line = rows.setdefault(row["engine"], [row["engine"]])
            line += [""] * (1 + 5 * number - len(line))
            if "error" in row:
                continue
            ours = [ratios.get(f"modicum_{name}", {}).get(row["engine"], {}) for name in ("packed", "reversible")]
            line += [f"{row['cpu_ms_median']:.0f}", f"{row['step_bytes'] / 1e6:.1f}", _times(ours[0].get("time"))]
            line += [_times(of.get("memory")) for of in ours]
    title = f"**Training step beside other libraries, {entry['depth']} layers, one thread**"
    width = max(map(len, rows.values()))
    return "\n\n".join([title, grid(head, [line + [""] * (width - len(line)) for line in rows.values()]), _made(entry)])


def _accelerator(entry: dict[str, Any]) -> str:
    found = entry["networks"]
    columns = [f"T = {cell['steps']}: {what}" for cell in found for what in ("MB", "ms", "largest difference")]
    rows = []
    for name in found[0]["rows"]:
        line = [name]
        for row in (cell["rows"][name] for cell in found):
            time = f"{1e3 * row['wall_seconds_median']:.1f}" if "wall_seconds_median" in row else "does not fit"
            difference = f"{row['update_difference']:.1e}" if "update_difference" in row else ""
            line += [f"{row['temporary_bytes'] / 1e6:.0f}", time, difference]
        rows.append(line)
    title = (
        f"**Training step on one {entry['device']}, {found[0]['depth']} layers of {entry['channels']} channels, "
        f"batch {entry['batch']}; differences of updated weights from plain autodiff's**"
    )
    inverse = ", ".join(f"{name} {differ}" for name, differ in entry["long_inverse_differs"].items())
    note = f"States that differ after 4,096 steps forward and back again: {inverse}."
    return "\n\n".join([title, grid(("scheme", *columns), rows), f"{note} {_made(entry)}"])


def accuracy_table(cells: dict[str, Any], percent: Callable[[list[float]], str], interval: Callable) -> str:
    """Held-out accuracy by task and neuron, differences to the plain arctan neuron paired by seed.

    Args:
        cells: by `task | neuron | seed`; a cell without accuracy is passed over.
        percent: mean and deviation of accuracies.
        interval: mean and confidence interval of paired differences.
    """
    found: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for name, cell in cells.items():
        if "test_accuracy" in cell:
            task, neuron, seed = name.split(" | ")
            found.setdefault((task, neuron), {})[int(seed)] = cell
    rows = []
    for (task, neuron), seeds in found.items():
        first = next(iter(seeds.values()))
        plain = found.get((task, "arctan LIF"), {})
        shared = sorted(set(plain) & set(seeds)) if neuron != "arctan LIF" else []
        difference = interval([seeds[s]["test_accuracy"] - plain[s]["test_accuracy"] for s in shared]) if shared else ""
        score = percent([seeds[seed]["test_accuracy"] for seed in sorted(seeds)])
        length = (
            f"{first['config']['epochs']}"
            if first["config"]["steps"] is None
            else f"{first['config']['steps']:,} steps"
        )
        columns = (task, neuron, first["residuals"], str(first["time_steps"]), length, str(len(seeds)))
        rows.append((*columns, score, difference))
    head = ("task", "neuron", "residuals", "T", "epochs", "seeds", "held out", "minus arctan LIF, points")
    commits = ", ".join(sorted({cell["commit"][:7] for cell in cells.values()}))
    return f"{grid(head, rows)}\n\nCommits {commits}." if rows else ""


def tables(results: Path, percent: Callable[[list[float]], str], interval: Callable) -> str:
    """All of them that there are results of; arguments as of `accuracy_table`, and the folder of the results."""
    parts = []
    for name, make in (("memory", _memory), ("time", _time), ("accelerator", _accelerator), ("peers", _peers)):
        path = results / f"spiking-{name}.json"
        if path.exists():
            parts.append(make(json.loads(path.read_text())))
    path = results / "spiking-accuracy.json"
    if path.exists():
        parts.append(accuracy_table(json.loads(path.read_text())["cells"], percent, interval))
    return "\n\n".join(part for part in parts if part)
