"""How long imports take, beside `import jax`: `python scripts/bench/import_time.py`.

Fresh interpreters take turns: a bare one, `import jax`, `import modicum` and each package by itself. The first round,
which writes byte code, is not counted. Writes scripts/bench/results/import-time.json: medians of process CPU and wall
time, what the interpreter itself takes left out, and their ratio to `import jax`.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import modicum

RESULTS = Path(__file__).parent / "results" / "import-time.json"
BARE, JAX = "bare interpreter", "jax"
PROGRAMS = {BARE: "", JAX: "import jax", "modicum": "import modicum"}
PROGRAMS |= {f"modicum.{name}": f"import modicum.{name}" for name in modicum.__all__}


def seconds(program: str) -> tuple[float, float]:
    """Process CPU time, of user and system, and wall time of one interpreter."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", program])
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ValueError(f"program must run, got exit code {process.returncode} of {program!r}")
    return used.ru_utime + used.ru_stime, time.perf_counter() - started


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Medians over rounds in which every program has its turn.

    Args:
        rounds: how many are counted, at least 1.
    """
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
    for number in range(rounds + 1):
        for name, program in PROGRAMS.items():
            once = seconds(program)
            if number:
                taken[name].append(once)
    medians = {name: tuple(map(statistics.median, zip(*times, strict=True))) for name, times in taken.items()}
    rows = {}
    for name, (cpu, wall) in medians.items():
        row = {"cpu_seconds": cpu, "wall_seconds": wall}
        if name != BARE:
            own, reference = cpu - medians[BARE][0], medians[JAX][0] - medians[BARE][0]
            row |= {"own_cpu_seconds": own, "cpu_ratio_to_jax": own / reference}
        rows[name] = {key: round(value, 4) for key, value in row.items()}
    return rows


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description="How long imports take, beside `import jax`.")
    parser.add_argument("--rounds", type=int, default=9, help="turns that are counted")
    rounds = parser.parse_args().rounds
    rows = measure(rounds)
    for name, row in rows.items():
        print(f"{name:22}" + "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    from modicum import train

    entry = {"what": "medians of fresh processes that take turns", "rounds": rounds, "rows": rows}
    train.report.write_json(RESULTS, {**entry, "load_average": os.getloadavg()[0], "versions": train.report.versions()})


if __name__ == "__main__":
    main()
