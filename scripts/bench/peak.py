"""One core's float32 multiply-add peak and load bandwidth, measured: `python scripts/bench/peak.py` prints them."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent / "peak.c"


def compiler() -> list[str]:
    """The command of a C compiler: clang, then `ziglang`'s, then the system's.

    Raises:
        RuntimeError: if there is none.
    """
    if shutil.which("clang"):
        return ["clang"]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    for name in ("cc", "gcc"):
        if shutil.which(name):
            return [name]
    raise RuntimeError("no C compiler was found: install ziglang, clang or gcc")


def vector_flags() -> list[str]:
    """Flags for the widest vectors of this machine, read off the system: gcc 12 misjudges the newest processors."""
    try:
        words = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        words = []
    if "avx512f" in words:
        return ["-mavx512f", "-mfma"]
    return ["-mavx2", "-mfma"] if "avx2" in words and "fma" in words else ["-march=native"]


def measure(core: int | None = None) -> dict[str, Any]:
    """Compiles and runs `peak.c`, pinned to a core.

    Args:
        core: which; by default the first that this process may use.

    Returns:
        "vector_bytes"; "fma_gflops", an FMA counting twice; "loads", for each buffer size "bytes", "gb_per_second" and
        "gb_per_second_huge_pages"; "load_average" before.

    Raises:
        RuntimeError: if there is no compiler or the program fails.
    """
    core = min(os.sched_getaffinity(0)) if core is None else core
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peak"
        flags = ["-O3", "-ffp-contract=fast", *vector_flags()]
        # zig keeps what it builds of its own libraries in a cache
        environment = {"ZIG_GLOBAL_CACHE_DIR": str(Path(tempfile.gettempdir()) / "modicum-zig"), **os.environ}
        try:
            subprocess.run(
                [*compiler(), *flags, "-o", str(program), str(SOURCE)],
                capture_output=True,
                text=True,
                check=True,
                env=environment,
            )
            before = os.sched_getaffinity(0)
            os.sched_setaffinity(0, {core})
            try:
                done = subprocess.run([str(program)], capture_output=True, text=True, check=True, timeout=120)
            finally:
                os.sched_setaffinity(0, before)
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"peak.c did not compile or run: {error.stderr.strip()[:300]}") from error
    return {**json.loads(done.stdout), "load_average": load_average}


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
