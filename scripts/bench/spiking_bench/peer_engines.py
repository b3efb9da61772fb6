"""Training steps of one network in several libraries; speaks the protocol of `peers/worker.py`.

python peer_engines.py ENGINE FOLDER --threads 1      times on demand (see peers/worker.py)
python peer_engines.py ENGINE FOLDER --facts          prints one line of JSON: memory, loss, gradient norm, parameters

FOLDER holds network.json (leak, learning rate, pool), weights.npz (kernels HWIO, the last one of the readout) and
data.npz (events `(steps, batch, side, side, 2)`, labels). Each engine imports its own library only.
"""

import gc
import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

LOADERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "spikingjelly": ("torch_engines", "spikingjelly", {}),
    "spikingjelly_memopt": ("torch_engines", "spikingjelly", {"mode": "memopt"}),
    "spikingjelly_memopt_chunks": ("torch_engines", "spikingjelly", {"mode": "memopt_chunks"}),
    "snntorch": ("torch_engines", "snntorch", {}),
    "spyx": ("jax_engines", "spyx", {}),
    "spyx_trained_leak": ("jax_engines", "spyx", {"trained_leak": True}),
    "modicum_autodiff": ("jax_engines", "modicum", {"scheme": "lif autodiff"}),
    "modicum_packed": ("jax_engines", "modicum", {"scheme": "packed"}),
    "modicum_packed_layer": ("jax_engines", "modicum", {"scheme": "packed layer"}),
    "modicum_reversible": ("jax_engines", "modicum", {"scheme": "reversible"}),
}
"""Module, function and arguments of each engine."""


def load(engine: str, folder: Path, threads: int) -> Any:
    """An engine, ready to run."""
    if engine not in LOADERS:
        raise ValueError(f"engine must be one of {', '.join(LOADERS)}, got {engine!r}")
    from spiking_bench.problem import Problem

    module, function, arguments = LOADERS[engine]
    if module == "torch_engines":
        import torch

        torch.set_num_threads(threads)
    return getattr(import_module(f"spiking_bench.{module}"), function)(Problem(folder), **arguments)


def resident(name: str) -> int:
    """A figure of this process in bytes: VmRSS, or VmHWM, the highest since it was last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise ValueError(f"name must stand in /proc/self/status, got {name!r}")


def growth(run: Callable[[], Any]) -> int | None:
    """By how many bytes the process grows at most while it runs; None where the kernel keeps no resettable peak."""
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def facts(name: str, folder: Path) -> dict[str, Any]:
    """Memory and numbers of one engine, in a process of its own."""
    engine = load(name, folder, 1)
    engine.run()
    grown = growth(engine.run)
    return {"engine": name, "version": engine.version, **engine.facts(), "resident_growth_bytes": grown}


if __name__ == "__main__":
    # the worker's protocol and the other modules lie beside this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    if sys.argv[-1] == "--facts":
        print(json.dumps(facts(sys.argv[1], Path(sys.argv[2]))))
        sys.exit(0)
    from peers.worker import serve

    sys.exit(serve(load))
