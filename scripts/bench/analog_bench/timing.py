"""Process CPU time of calls; nothing is imported that a peer's environment may lack."""

import statistics
import time
from collections.abc import Callable
from typing import Any


def timed(call: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Milliseconds of process CPU and wall time of a call that waits for its result; the first one is not counted."""
    call()
    processed, walls = [], []
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        call()
        processed.append(1e3 * (time.process_time() - cpu))
        walls.append(1e3 * (time.perf_counter() - wall))
    return {
        "cpu_ms": round(min(processed), 3),
        "cpu_ms_median": round(statistics.median(processed), 3),
        "wall_ms": round(min(walls), 3),
    }
