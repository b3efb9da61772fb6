"""Secure sums against Flower's SecAgg+, TenSEAL and Paillier: CPU seconds by stage and bytes, on the same sizes.

python scripts/bench/secure_sum.py             writes scripts/bench/results/secure-sum.json (minutes)
python scripts/bench/secure_sum.py --tiny      the same on small sizes, printed only; peers that are there

Peers run in environments of their own (scripts/bench/secure_bench/setup.sh); those that are absent are left out. All
times are CPU seconds of the process (the least of some repetitions), since others may use the machine; what carries
messages is not timed. Beside the speed stands what the masks are made from: Flower's seeds are 32 bits wide, ours 256.
"""

import argparse
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from secure_bench import ours

from modicum import train

RESULTS = Path(__file__).parent / "results" / "secure-sum.json"
PEERS = Path(os.environ.get("MODICUM_PEERS", Path(__file__).parents[3] / "env"))
GOALS = {
    "bytes_per_parameter": 4.02,
    "bytes_per_parameter_20_bits": 2.6,
    "bytes_per_parameter_20_bits_hankel_16": 0.35,
    "shares_faster": 20,
    "masking_faster": 3,
    "unmasking_faster": 10,
    "client_cpu_ms": 5,
    "servers_cpu_ms_per_client": 2,
    "hankel_32_faster": 13.7,
    "rlwe_faster_than_paillier": 200,
    "rlwe_adds_faster_than_tenseal": 5,
}


def peer(name: str, script: str, *numbers: int) -> dict[str, Any] | None:
    """What a peer's script prints, or None where its environment is absent."""
    python = PEERS / f"peers-{name}" / "bin" / "python"
    if not python.is_file():
        print(f"secure_sum.py: {name} is left out, there is no {python}")
        return None
    command = [str(python), str(Path(__file__).parent / "secure_bench" / script), *map(str, numbers)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if made.returncode:
        print(f"secure_sum.py: {name} is left out: {' '.join(made.stderr.split())[-300:]}")
        return None
    return json.loads(made.stdout.strip().splitlines()[-1])


def least(results: list[dict[str, Any]]) -> dict[str, Any]:
    """One of some results, with the least of each time in it."""
    merged = dict(results[0])
    for name, value in merged.items():
        if name == "cpu_seconds":
            merged[name] = {stage: min(each[name][stage] for each in results) for stage in value}
        elif "cpu_ms" in name:
            merged[name] = min(each[name] for each in results)
    return merged


def all_parties(cell: dict[str, Any]) -> float:
    """CPU ms of a client and of both servers for it."""
    return cell["client_cpu_ms"] + cell["servers_cpu_ms_per_client"]


def ratios(entry: dict[str, Any]) -> dict[str, float]:
    """What the goals are about."""
    own, two = entry["secagg"]["cpu_seconds"], entry["sefl"]
    found = {
        "bytes_per_parameter": two["bits 32"]["bytes_per_parameter"],
        "bytes_per_parameter_20_bits": two["bits 20"]["bytes_per_parameter"],
        "bytes_per_parameter_20_bits_hankel_16": two["bits 20, hankel 16"]["bytes_per_parameter"],
        "client_cpu_ms": two["bits 32"]["client_cpu_ms"],
        "servers_cpu_ms_per_client": two["bits 32"]["servers_cpu_ms_per_client"],
    }
    large = entry["large"]
    found["hankel_32_faster"] = all_parties(large["dense"]) / all_parties(large["hankel 32"])
    found["hankel_32_faster_million"] = all_parties(two["bits 32"]) / all_parties(two["bits 32, hankel 32"])
    if entry["flower"]:
        theirs = entry["flower"]["cpu_seconds"]
        found["shares_faster"] = (theirs["setup"] + theirs["shares"]) / (own["setup"] + own["shares"])
        found["masking_faster"] = theirs["masking"] / own["masking"]
        found["unmasking_faster"] = theirs["unmasking"] / own["server opening"]
    if entry["homomorphic"]:
        times, rlwe = entry["homomorphic"], entry["rlwe"]["cpu_seconds"]
        found["rlwe_faster_than_paillier"] = times["paillier_2048_packed"]["cpu_seconds"]["encrypt"] / rlwe["encrypt"]
        best = min(cell["cpu_seconds"]["add"] for name, cell in times.items() if name.startswith("tenseal"))
        found["rlwe_adds_faster_than_tenseal"] = best / rlwe["add"]
    return found


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="small sizes, nothing written")
    tiny = parser.parse_args().tiny
    clients, dimension, repeats = (5, 20_000, 1) if tiny else (50, 1_000_000, 2)
    threshold, dropped = clients // 2 + 1, clients // 10
    ours.secagg_round(clients, 100, threshold, dropped)  # compiles
    sizes = (clients, dimension, threshold, dropped)
    entry: dict[str, Any] = {
        "goals": GOALS,
        "sizes": {"clients": clients, "dimension": dimension, "threshold": threshold, "dropped": dropped},
        "secagg": least([ours.secagg_round(*sizes) for _ in range(repeats)]),
        "flower": peer("flower", "flower.py", *sizes),
        "sefl": {
            f"bits {bits}": least([ours.sefl_round(clients, dimension, bits) for _ in range(repeats)])
            for bits in (32, 20)
        },
        "rlwe": least([ours.rlwe(dimension) for _ in range(repeats)]),
        "homomorphic": peer("secure", "homomorphic.py", dimension),
    }
    for bits, side in ((20, 16), (32, 16), (32, 32)):
        cell = least([ours.hankel(dimension, side, clients, bits) for _ in range(repeats)])
        entry["sefl"][f"bits {bits}, hankel {side}"] = cell
    large = 10 * dimension
    entry["large"] = {
        "clients": 10,
        "dimension": large,
        "dense": least([ours.sefl_round(10, large) for _ in range(repeats)]),
        "hankel 32": least([ours.hankel(large, 32, 10, 32) for _ in range(repeats)]),
    }
    entry |= {"ratios": ratios(entry), "load_average": os.getloadavg()[0], "versions": train.report.versions()}
    print(json.dumps({name: value for name, value in entry.items() if name != "versions"}, indent=1))
    if not tiny:
        train.report.write_json(RESULTS, entry)


if __name__ == "__main__":
    main()
