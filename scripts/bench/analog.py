"""What simulating chips costs on this CPU, beside a dense product and beside other simulators.

python scripts/bench/analog.py                                        ours alone
python scripts/bench/analog.py --peers ../env --cross-sim CHECKOUT    with the peers that are there

Writes scripts/bench/results/analog.json. Everything runs in one process tree in turns, ours first, outputs are checked
before anything is timed, and what is compared is process CPU time: the least and the median of some calls, compilation
apart. `scripts/bench/analog_bench/setup.sh` makes the environments of aihwkit and aihwkit-lightning.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results" / "analog.json"
PEERS = {"aihwkit": "aihwkit", "aihwkit_torch": "aihwkit", "lightning": "lightning", "torch": "lightning"}
"""Peers, and whose environment they run in."""


def peer(python: Path, name: str, work: str, cross_sim: Path | None, repeats: int) -> dict[str, Any]:
    """One peer on one piece of work, in its own environment; `{"missing": reason}` where it cannot run."""
    script = [str(python), str(FOLDER / "analog_bench" / "peers.py"), name, work, "--repeats", str(repeats)]
    environment = dict(os.environ)
    if cross_sim is not None:
        environment["PYTHONPATH"] = str(cross_sim)
    done = subprocess.run(script, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        return {"missing": (done.stderr.strip().splitlines() or ["no word"])[-1][:200]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> int:
    """Measures everything, or some parts, and writes the results after each."""
    sys.path.insert(0, str(FOLDER))
    from analog_bench import ours

    parser = argparse.ArgumentParser(description="Times simulated chips beside dense products and other simulators.")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(ours.PARTS)}; all where none is given")
    parser.add_argument("--peers", type=Path, help="folder of peers-lightning and peers-aihwkit")
    parser.add_argument("--cross-sim", type=Path, help="a checkout of CrossSim")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    unknown = [part for part in arguments.parts if part not in ours.PARTS]
    if unknown:
        parser.error(f"parts must be of {', '.join(ours.PARTS)}, got {unknown[0]!r}")

    from modicum.train import report

    stored = json.loads(arguments.results.read_text()) if arguments.results.exists() else {"parts": {}}

    def python(environment: str) -> Path:
        return arguments.peers / f"peers-{environment}" / "bin" / "python"

    for part in arguments.parts or ours.PARTS:
        entry = ours.PARTS[part](arguments.repeats)
        if arguments.peers is not None and part in ("linear layer", "convolutional layer"):
            work = "linear" if part == "linear layer" else "convolution"
            entry["peers"] = {
                name: peer(python(environment), name, work, None, arguments.repeats)
                for name, environment in PEERS.items()
            }
        if arguments.peers is not None and arguments.cross_sim is not None and part == "128 rows":
            entry["peers"] = {
                "cross_sim": peer(python("lightning"), "cross_sim", "linear", arguments.cross_sim.resolve(), 2)
            }
        entry["load_average"] = os.getloadavg()[0]
        stored["parts"][part] = entry
        report.write_json(arguments.results, {**stored, "versions": report.versions()})
        print(part, json.dumps(entry), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
