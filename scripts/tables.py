"""The results tables of the README, from the results that runs wrote; no figure is typed by hand.

python scripts/tables.py                          prints the tables of scripts/bench/results/*.json
python scripts/tables.py rtmobile                 prints one system: claims and figures, and its tables
python scripts/tables.py --collect RUN_FOLDER     takes the results of a finished quickstart run in
python scripts/tables.py --write                  puts the tables into README.md
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "scripts" / "bench" / "results"

sys.path.insert(0, str(ROOT / "scripts" / "bench"))
from tabular import grid, header, interval, line, percent  # noqa: E402 - it stands beside the benches


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


def accuracy_tables(*names: str) -> str:
    """Compressed networks, on all data or on those that are named; `scripts/bench/accuracy.py` measured them."""
    import accuracy_tables

    return accuracy_tables.tables(RESULTS, names or None)


def speed_tables() -> str:
    """Latency of networks; `scripts/bench/latency.py` and `gru_latency.py` measured it."""
    import speed_tables

    return speed_tables.tables(RESULTS)


def system_tables() -> str:
    """What the papers claim and what became of it, from all results."""
    from systems_bench import tables

    return tables.tables(RESULTS)


def house_tables() -> str:
    """Import times; `scripts/bench/import_time.py` measured them."""
    import house_tables

    return house_tables.import_table(RESULTS)


def peer_tables() -> str:
    """Networks from torch and to LiteRT; `scripts/bench/torch_peers.py` and `litert_files.py` measured them."""
    import house_tables

    return house_tables.interchange_tables(RESULTS)


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
    "systems": system_tables,
    "accuracy": accuracy_tables,
    "speed": speed_tables,
    "training": training_table,
    "spiking": spiking_tables,
    "video": video_tables,
    "chips": chip_tables,
    "federated": federated_tables,
    "pipelines": pipeline_tables,
    "imports": house_tables,
    "interchange": peer_tables,
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


DETAILS: dict[str, tuple[Callable[[], str], ...]] = {
    "spiking": (spiking_tables,),
    "patdnn": (speed_tables, partial(accuracy_tables, "mnist", "cifar10_gpu")),
    "pattern": (partial(accuracy_tables, "digits", "mnist", "cifar10", "cifar10_gpu"),),
    "rtmobile": (speed_tables, partial(accuracy_tables, "spoken_digit")),
    "unification": (partial(accuracy_tables, "mnist", "cifar10_gpu"),),
    "forms": (chip_tables, partial(accuracy_tables, "mnist")),
    "capram": (chip_tables,),
    "sefl": (federated_tables,),
    "enclave": (federated_tables,),
    "conference": (video_tables,),
    "pipelines": (pipeline_tables,),
}
"""The tables behind the rows of each system."""


def system(name: str) -> int:
    """Prints one system's rows, and the tables behind them; returns the exit code."""
    from systems_bench import tables

    if name not in DETAILS:
        print(f"tables.py: system must be one of {', '.join(DETAILS)}, got {name!r}", file=sys.stderr)
        return 2
    print(tables.table(name, RESULTS), *filter(None, (make() for make in DETAILS[name])), sep="\n\n")
    return 0


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
    parser.add_argument("system", nargs="?", help=f"one system alone: {', '.join(DETAILS)}")
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
    if arguments.system is not None:
        return system(arguments.system)
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
