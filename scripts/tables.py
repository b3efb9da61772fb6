"""The results tables of the README, from the results that runs wrote; no figure is typed by hand.

python scripts/tables.py                          prints the tables of scripts/bench/results/*.json
python scripts/tables.py --collect RUN_FOLDER     takes the results of a finished quickstart run in
python scripts/tables.py --write                  puts the tables into README.md
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "scripts" / "bench" / "results"

sys.path.insert(0, str(ROOT / "scripts" / "bench"))
from tabular import grid, header, line  # noqa: E402 - it stands beside the benches


def percent(values: float | list[float]) -> str:
    """One accuracy, or mean and standard deviation of several."""
    values = values if isinstance(values, list) else [values]
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{100 * mean:.2f}%"
    deviation = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    return f"{100 * mean:.2f} ± {100 * deviation:.2f}%"


def row(entry: dict) -> tuple[str, ...]:
    """The cells of one line."""
    result, made = entry["results"], entry["versions"]
    return (
        f"{result['data']}, {result['test_images']:,} held out, {result['seeds']} seed(s)",
        percent(result["dense"]),
        percent(result["one_shot"]),
        percent(result["admm"]),
        f"{percent(result['chip_median'])} / {percent(result['chip_worst'])}",
        f"{result['weights_kept']:,} of {result['weights']:,}",
        f"{result['dense_bytes']:,} → {result['packed_bytes']:,}",
        f"{result['violation']:g}",
        f"jax {made['jax']}, {made['machine']['cores']} cores, {made['commit'][:7]}",
    )


def interval(differences: list[float]) -> str:
    """Mean of paired differences in points, and half the width of its 95% confidence interval (Student's t)."""
    from scipy import stats

    size = len(differences)
    mean = 100 * sum(differences) / size
    if size == 1:
        return f"{mean:+.2f}"
    variance = sum((100 * value - mean) ** 2 for value in differences) / (size - 1)
    return f"{mean:+.2f} ± {stats.t.ppf(0.975, size - 1) * (variance / size) ** 0.5:.2f}"


def anchors(table: str) -> dict[str, str]:
    """What others published, by row."""
    import accuracy

    return {row.name: row.anchor for row in accuracy.TABLES.get(table, ())}


def comparisons(table: str, cells: dict[str, dict]) -> list[str]:
    """Rows against rows: differences paired by seed, where both are measured."""
    import accuracy

    def of(row: str, arm: str) -> dict[int, dict]:
        return {cell["seed"]: cell for name, cell in cells.items() if name.startswith(f"{row} | {arm} | ")}

    lines = []
    for first, second in accuracy.COMPARISONS.get(table, ()):
        chosen = [of(row, arm) for row, arm in (first, second)]
        seeds = sorted(set(chosen[0]) & set(chosen[1]))
        if seeds:
            difference = interval([chosen[0][seed]["accuracy"] - chosen[1][seed]["accuracy"] for seed in seeds])
            lines.append(f"- {first[0]} - {second[0]}: {difference} ({len(seeds)} seeds)")
    return lines


def accuracy_row(name: str, cells: list[dict], anchor: str) -> str:
    """One line: a set of weights, all its arms and seeds."""
    arms: dict[str, dict[int, dict]] = {}
    for cell in cells:
        arms.setdefault(cell["arm"], {})[cell["seed"]] = cell

    def paired(first: str, second: str | None) -> str:
        ours, theirs = arms.get(first, {}), arms.get(second or first, {})
        seeds = sorted(set(ours) & set(theirs))
        reference = "dense_accuracy" if second is None else "accuracy"
        return interval([ours[seed]["accuracy"] - theirs[seed][reference] for seed in seeds]) if seeds else ""

    def scores(arm: str) -> str:
        chosen = [cell for _, cell in sorted(arms.get(arm, {}).items())]
        if not chosen:
            return ""
        hard = sum(cell["hard_accuracy"] for cell in chosen) / len(chosen)
        return f"{100 * hard:.1f} → {percent([cell['accuracy'] for cell in chosen])}"

    dense = {cell["seed"]: cell["dense_accuracy"] for cell in cells}
    best = list(arms.get("admm", next(iter(arms.values()))).values())
    rate = sum(cell["constrained_weights"] / cell["constrained_kept"] for cell in best) / len(best)
    size = sum(cell["dense_bytes"] / cell["packed_bytes"] for cell in best) / len(best)
    columns = (
        name,
        f"{rate:.1f}x",
        f"{size:.1f}x",
        percent([dense[seed] for seed in sorted(dense)]),
        scores("admm"),
        scores("one_shot"),
        scores("gradual"),
        paired("admm", None),
        paired("admm", "one_shot"),
        f"{max(cell['violation'] for cell in cells):g}",
        f"{len(dense)} x {cells[0]['steps']:,}",
        # a cell that was resumed counts its last part only, hence the longest
        f"{max(cell.get('cpu_seconds', 0) for cell in best):.0f}",
        anchor,
    )
    return line(columns)


def accuracy_table(path: Path) -> str:
    """The table of one file of cells; `scripts/bench/accuracy.py` measured them."""
    head = (
        "sets",
        "weights",
        "bytes",
        "dense",
        "ADMM: projected → retrained",
        "one-shot, equal steps",
        "gradual, equal steps",
        "ADMM - dense",
        "ADMM - one-shot",
        "violation",
        "seeds x steps",
        "CPU s per ADMM run",
        "published",
    )
    rows: dict[str, list[dict]] = {}
    cells, table = json.loads(path.read_text())["cells"], path.stem.removeprefix("accuracy-")
    for name, cell in cells.items():
        rows.setdefault(name.split(" | ")[0], []).append(cell)
    published = anchors(table)
    order = [name for name in published if name in rows] + [name for name in rows if name not in published]
    lines = header(head)
    lines += [accuracy_row(name, rows[name], published.get(name, "")) for name in order]
    compared = comparisons(table, cells)
    return "\n".join(
        [*lines, *(["", "Differences of accuracy in points, paired by seed:", ""] if compared else []), *compared]
    )


def accuracy_tables() -> str:
    """All tables of cells, each under its title."""
    parts = []
    for path in sorted(RESULTS.glob("accuracy-*.json")):
        cell = next(iter(json.loads(path.read_text())["cells"].values()))
        title = f"**{cell['data']}, {cell['model']}** ({cell['test_examples']:,} held out)"
        parts.append(f"{title}\n\n{accuracy_table(path)}")
    return "\n\n".join(parts)


def table() -> str:
    """The whole table in Markdown."""
    head = (
        "data",
        "dense",
        "one-shot + retraining, equal steps",
        "ADMM + retraining",
        "simulated chips: median / worst",
        "weights kept",
        "bytes",
        "violation",
        "measured with",
    )
    entries = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("quickstart-*.json"))]
    return grid(head, map(row, entries))


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


def latency_table() -> str:
    """Whole networks and single layers, one image; `scripts/bench/latency.py` measured them."""
    import latency

    path = RESULTS / "latency.json"
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


def gru_table() -> str:
    """Median microseconds of a step of a GRU, batch 1, one thread, from `scripts/bench/gru_latency.py`."""
    path = RESULTS / "gru-latency.json"
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


def training_table() -> str:
    """Configs of scripts/train.py; `scripts/bench/training.py` measured them."""
    runs: dict[str, list[dict]] = {}
    for name, cell in json.loads((RESULTS / "training.json").read_text()).items():
        runs.setdefault(name.split(" | ")[0], []).append(cell)
    head = ("config", "model", "weights", "steps", "seeds", "held out", "seconds of a run")
    lines = header(head)
    for config, cells in sorted(runs.items()):
        first, seconds = cells[0], sum(cell["seconds"] for cell in cells) / len(cells)
        score = percent([cell["test_accuracy"] for cell in cells])
        counts = (f"{first['parameters']:,}", f"{first['steps']:,}", str(len(cells)))
        lines.append(line((config, first["model"], *counts, score, f"{seconds:.0f}")))
    commits = ", ".join(sorted({cell["commit"][:7] for cells in runs.values() for cell in cells}))
    facts = next(iter(runs.values()))[0]
    return "\n".join([*lines, "", f"{facts['machine']['cores']} cores, jax {facts['jax']}, commits {commits}."])


def speed_tables() -> str:
    """Latency of convolutional and recurrent networks."""
    return "\n\n".join(part for part in (latency_table(), gru_table()) if part)


def spiking_tables() -> str:
    """Memory, time, peers and accuracy of spiking networks; `scripts/bench/spiking*.py` measured them."""
    from spiking_bench import tables

    return tables.tables(RESULTS, percent, interval)


def chip_tables() -> str:
    """Networks on simulated chips; `scripts/bench/{chips,effective_cycles,analog}.py` measured them."""
    from analog_bench import tables

    return tables.tables(RESULTS, percent)


def federated_tables() -> str:
    """Secure sums, enclaves, federated runs; `scripts/bench/secure_sum.py`, `enclave.py`, `federated.py` wrote them."""
    from secure_bench import tables

    return tables.tables(RESULTS)


def video_tables() -> str:
    """The face codec beside video codecs; `scripts/bench/video.py` measured it."""
    import video_tables

    return video_tables.tables(RESULTS)


def pipeline_tables() -> str:
    """Several systems in a row; `scripts/bench/pipelines.py` collected the runs."""
    import pipeline_tables

    return pipeline_tables.tables(RESULTS)


SECTIONS = {
    "results": table,
    "accuracy": accuracy_tables,
    "speed": speed_tables,
    "training": training_table,
    "spiking": spiking_tables,
    "video": video_tables,
    "chips": chip_tables,
    "federated": federated_tables,
    "pipelines": pipeline_tables,
}
"""What makes the tables between the marks of each name."""


def marks(name: str) -> tuple[str, str]:
    """What stands in the README before and behind the tables of a section."""
    return f"<!-- {name}: scripts/tables.py -->", f"<!-- end of {name} -->"


def written(readme: str) -> str:
    """The README with the tables between their marks renewed; tables without marks are left out."""
    for name, make in SECTIONS.items():
        start, end = marks(name)
        if start not in readme:
            continue
        before, rest = readme.split(start)
        _, after = rest.split(end)
        readme = f"{before}{start}\n{make()}\n{end}{after}"
    return readme


def collect(run: Path) -> Path:
    """Copies results, versions and figure of a finished run into the repository."""
    results = json.loads((run / "results.json").read_text())
    entry = {"results": results, "versions": json.loads((run / "versions.json").read_text())}
    target = RESULTS / f"quickstart-{results['data']}.json"
    target.write_text(json.dumps(entry, indent=1) + "\n")
    shutil.copyfile(run / "figure.png", target.with_suffix(".png"))
    return target


def main() -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(description="The results table, from the results that runs wrote.")
    parser.add_argument("--collect", metavar="RUN_FOLDER", type=Path, help="take in the results of a finished run")
    parser.add_argument("--write", action="store_true", help="put the tables into README.md")
    parser.add_argument("--check", action="store_true", help="whether README.md holds what the results say")
    arguments = parser.parse_args()
    try:
        if arguments.collect:
            print(collect(arguments.collect))
    except OSError as error:
        print(
            f"tables.py: run folder must hold results.json, versions.json and figure.png, got {error}", file=sys.stderr
        )
        return 2
    readme = ROOT / "README.md"
    if arguments.check and written(readme.read_text()) != readme.read_text():
        print("tables.py: README.md must hold what the results say: run scripts/tables.py --write", file=sys.stderr)
        return 1
    if arguments.write:
        readme.write_text(written(readme.read_text()))
    elif not arguments.check:
        print(*(make() for make in SECTIONS.values()), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
