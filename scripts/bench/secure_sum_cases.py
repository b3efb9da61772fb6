"""Random rounds with drop-outs: every sum is bit-equal to the plain one, or refused where too few are left.

python scripts/bench/secure_sum_cases.py             writes scripts/bench/results/secure-sum-cases.json (minutes)
python scripts/bench/secure_sum_cases.py --tiny      a few, printed only

SecAgg: 3 to 24 clients, of whom 0 to 40% drop at one of its five stages or spread over them; in a tenth of the cases
each shares with a random number of neighbours alone; one more round has 1,000 clients on a graph. SEFL: 2 to 1,000
clients, of whom 0 to 40% drop, rings of 20 to 32 bits.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from secure_bench import ours

from modicum import train
from modicum.federated import FixedPointSpec, RefusedError, SecAggSpec, SeflSpec, ciphers, secagg, secagg_graph, sefl

RESULTS = Path(__file__).parent / "results" / "secure-sum-cases.json"


def secrets_of(clients: int, case: int) -> list[bytes]:
    """Randomness of all parties."""
    return [ciphers.digest(b"case", case.to_bytes(4, "little"), at.to_bytes(4, "little")) for at in range(clients + 2)]


def secagg_case(case: int) -> str:
    """One round: exact, refused where it must be, or wrong."""
    rng = np.random.default_rng((1, case))
    clients = int(rng.integers(3, 25))
    keys, public = ours.identities(clients)
    threshold = clients // 2 + 1
    dimension, neighbours = int(rng.integers(1, 50)), None
    if case % 20 in (0, 11):
        neighbours = int(rng.integers(1, clients // 2 + 1)) * 2 if clients % 2 else int(rng.integers(2, clients))
        threshold = (neighbours + 1) // 2 + 1
    spec = SecAggSpec(round_id=case, dimension=dimension, threshold=threshold, identities=public, neighbours=neighbours)
    vectors = rng.integers(0, 2**32, (clients, spec.dimension), dtype=np.uint32)
    gone = rng.permutation(clients)[: int(rng.integers(0, int(0.4 * clients) + 1))]
    stages = np.full(clients, 5)
    stages[gone] = rng.integers(0, 5, gone.size) if case % 2 else int(rng.integers(0, 5))
    dropped = np.array([stages == stage for stage in range(5)])
    around = np.array([[at in near for at in range(clients)] for near in spec.graph])
    started, kept = (around & (stages > 0)).sum(axis=1), (around & (stages > 4)).sum(axis=1)
    enough = (started[stages > 0] >= threshold).all() and (kept[stages > 1] >= threshold).all()
    try:
        result = secagg.run_round(spec, vectors, keys, secrets_of(clients, case)[:clients], dropped)
    except RefusedError:
        return "wrong" if enough else "refused"
    exact = (result.total == vectors[stages > 2].sum(axis=0, dtype=np.uint32)).all() and enough
    return "exact" if exact else "wrong"


def thousand() -> dict[str, Any]:
    """A thousand clients, each with as many neighbours as 5% drop-outs ask for, of whom 50 drop at random stages."""
    clients, rng = 1000, np.random.default_rng(3)
    neighbours, threshold = secagg_graph.graph_size(clients, dropped=0.05, corrupted=0)
    keys, public = ours.identities(clients)
    spec = SecAggSpec(round_id=0, dimension=100, threshold=threshold, identities=public, neighbours=neighbours)
    vectors, stages = rng.integers(0, 2**32, (clients, 100), dtype=np.uint32), np.full(clients, 5)
    stages[rng.permutation(clients)[:50]] = rng.integers(0, 5, 50)
    dropped, started = np.array([stages == stage for stage in range(5)]), time.process_time()
    result = secagg.run_round(spec, vectors, keys, secrets_of(clients, 0)[:clients], dropped)
    return {
        "clients": clients,
        "neighbours": neighbours,
        "threshold": threshold,
        "exact": bool((result.total == vectors[stages > 2].sum(axis=0, dtype=np.uint32)).all()),
        "cpu_seconds_all_parties": round(time.process_time() - started, 1),
    }


def sefl_case(case: int) -> str:
    """One round, likewise."""
    rng = np.random.default_rng((2, case))
    clients = int(np.exp(rng.uniform(np.log(2), np.log(1001))))
    keys, public = ours.identities(clients)
    secret, bits = ciphers.digest(b"case provider"), int(rng.integers(20, 33))
    fixed = FixedPointSpec(clients=clients, clip=1.0, fraction_bits=4, ring_bits=bits)
    least = max(2, int(rng.integers(clients // 2, clients + 1)))
    spec = SeflSpec(
        round_id=case,
        dimension=int(rng.integers(1, 300)),
        identities=public,
        provider_key=ciphers.public_key(secret),
        fixed_point=fixed,
        least=least,
    )
    vectors = rng.integers(0, 2**bits, (clients, spec.dimension), dtype=np.uint32)
    dropped = rng.random(clients) < rng.uniform(0, 0.4)
    enough = int((~dropped).sum()) >= least
    try:
        provider = sefl.ProviderState(secret)
        _, result = sefl.run_round(spec, provider, vectors, keys, secrets_of(clients, case), dropped)
    except RefusedError:
        return "wrong" if enough else "refused"
    expected = vectors[~dropped].sum(axis=0, dtype=np.uint32) & np.uint32(2**bits - 1)
    return "exact" if (result.total == expected).all() and enough else "wrong"


def main() -> None:
    """Counts, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a few cases, nothing written")
    tiny = parser.parse_args().tiny
    entry: dict[str, Any] = {}
    for name, run, cases in (("secagg", secagg_case, 6 if tiny else 600), ("sefl", sefl_case, 6 if tiny else 400)):
        found = [run(case) for case in track(range(cases), name)]
        entry[name] = {kind: found.count(kind) for kind in ("exact", "refused", "wrong")}
    if not tiny:
        entry["secagg, a thousand on a graph"] = thousand()
    entry |= {"versions": train.report.versions()}
    print(json.dumps({name: found for name, found in entry.items() if name != "versions"}))
    if not tiny:
        train.report.write_json(RESULTS, entry)


if __name__ == "__main__":
    main()
