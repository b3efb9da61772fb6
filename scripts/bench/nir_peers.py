"""Other libraries run the NIR files that we write, spike for spike: their own importers, the same input.

python scripts/bench/nir_peers.py --torch ENV/bin/python     writes scripts/bench/results/nir-peers.json, in a minute

ENV is an environment of Python 3.11 apart from ours (SpikingJelly asks for more than its exchange of NIR needs):

    python3.11 -m venv ENV && ENV/bin/pip install torch==2.13.0 snntorch==1.0.0 nirtorch==2.6 'nir>=1.0.7' \
        loguru tqdm scipy && ENV/bin/pip install --no-deps spikingjelly==2.0.0

Spyx is taken from our own environment. Each peer is a process that imports the file; its spike trains are compared with
ours, layer by layer. The other way round, SpikingJelly writes a network of its own, which `from_nir` reads. Spyx puts a
spike out one step after its cause: its trains are compared that many steps later.
"""

import argparse
import importlib.metadata
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "nir-peers.json"
STEPS, BATCH, DT = 50, 4, 1e-4
PACKAGES = {"spikingjelly": ("spikingjelly", "torch"), "snntorch": ("snntorch", "torch"), "spyx": ("spyx", "jax")}
DELAYS = {"spyx": 1}


def channels_first(images: np.ndarray) -> np.ndarray:
    """`(..., h, w, c)` as `(..., c, h, w)`; vectors as they are."""
    return np.moveaxis(images, -1, -3) if images.ndim == 5 else images


# what a peer's process runs, where neither modicum nor JAX need be


def torch_trains(module: Any, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Spikes of all neuron modules, by the names of their nodes, and the `output`, step by step."""
    import torch

    trains: dict[str, list[np.ndarray]] = {}

    def record(name: str, value: Any) -> None:
        spikes = value[0] if isinstance(value, tuple) else value
        trains.setdefault(name, []).append(spikes.detach().numpy().copy())

    for name, part in module.named_children():
        if name.startswith(("lif_", "if_")):
            part.register_forward_hook(lambda _, __, value, name=name: record(name, value))
    state = None
    for step in inputs:
        value, state = module(torch.from_numpy(step), state)
        record("output", value)
    return {name: np.array(values) for name, values in trains.items()}


def spikingjelly(path: Path, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """`spikingjelly.activation_based.nir_exchange`."""
    from spikingjelly.activation_based.nir_exchange.from_nir import import_from_nir

    return torch_trains(import_from_nir(path, dt=DT), np.ascontiguousarray(channels_first(inputs)))


def snntorch(path: Path, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """`snntorch.import_nir`, one example at a time: its flatten, as NIR writes it, would take the batch along."""
    import nir
    from snntorch.import_nir import import_from_nir

    batch = np.ascontiguousarray(channels_first(inputs).swapaxes(0, 1))
    examples = [torch_trains(import_from_nir(nir.read(path)), example) for example in batch]
    return {name: np.stack([trains[name] for trains in examples], 1) for name in examples[0]}


def spyx(path: Path, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """`spyx.nir.from_nir`, the last layer alone: it shows no other spikes."""
    import nir
    import spyx.nir

    return {"output": np.asarray(spyx.nir.from_nir(nir.read(path), inputs, dt=DT)[1])}


def spikingjelly_writes(folder: Path) -> None:
    """A network of SpikingJelly's own, as it writes it, and what it puts out."""
    import torch
    from spikingjelly.activation_based import functional, layer, neuron
    from spikingjelly.activation_based.nir_exchange.to_nir import export_to_nir

    torch.manual_seed(0)
    first = neuron.LIFNode(tau=2.0, decay_input=True, v_threshold=0.1)
    second = neuron.LIFNode(tau=1.5, decay_input=False, v_threshold=0.1)
    net = torch.nn.Sequential(
        *(layer.Conv2d(2, 6, 3, padding=1), first, layer.AvgPool2d(2, 2), layer.Conv2d(6, 5, 3, padding=1), second),
        *(layer.Flatten(), layer.Linear(80, 7), neuron.IFNode(v_threshold=0.3)),
    )
    inputs = (torch.rand(STEPS, BATCH, 2, 8, 8) < 0.4).float()
    export_to_nir(net, inputs[0], folder / "theirs.nir", dt=DT)
    functional.reset_net(net)
    outputs = np.array([net(step).detach().numpy() for step in inputs])
    np.savez(folder / "theirs.npz", inputs=inputs.numpy().transpose(0, 1, 3, 4, 2), output=outputs)


def peer(name: str, folder: Path) -> None:
    """One peer's answer to all networks that it can import: trains, or the sentence with which it refuses."""
    importer = {"spikingjelly": spikingjelly, "snntorch": snntorch, "spyx": spyx}[name]
    answers: dict[str, Any] = {"versions": {package: importlib.metadata.version(package) for package in PACKAGES[name]}}
    for path in sorted(folder.glob("ours-*.nir")):
        try:
            np.savez(folder / f"{name}-{path.stem}.npz", **importer(path, np.load(folder / f"{path.stem}.npy")))
            answers[path.stem] = "ran"
        except Exception as error:  # whatever a peer raises is its answer
            answers[path.stem] = f"{type(error).__name__}: {str(error).splitlines()[0]}" if str(error) else repr(error)
    if name == "spikingjelly":
        spikingjelly_writes(folder)
    (folder / f"{name}.json").write_text(json.dumps(answers))


# what runs here


def networks() -> Iterator[tuple[str, tuple[Any, ...], tuple[int, ...]]]:
    """Names, layers and input shapes: all kinds of nodes, and a plain chain of products, which every peer imports."""
    from modicum.spiking.layers import Layer
    from modicum.spiking.populations import IF, LIF
    from modicum.spiking.synapses import Convolution, Dense

    neurons = {
        "lif 0.9 hard": (LIF(0.9, reset="hard"), None),
        "lif 0.5 hard, on a grid": (LIF(0.5, reset="hard"), 5),
        "if hard": (IF(reset="hard"), None),
        "lif 0.9 soft": (LIF(0.9), None),
        "if soft": (IF(), None),
        "if soft, on a grid": (IF(), 5),
    }
    for name, (neuron, bits) in neurons.items():
        grid = {"grid_bits": bits}
        yield (
            f"images, {name}",
            (
                Layer(Convolution(features=8, bias=True, **grid), neuron),
                Layer(Convolution(features=8, kernel=5, pool=2, **grid), neuron),
                Layer(Dense(features=16, pool=2, bias=True, **grid), neuron),
                Layer(Dense(features=5, **grid), neuron),
            ),
            (16, 16, 2),
        )
        yield f"vectors, {name}", tuple(Layer(Dense(features=size, **grid), neuron) for size in (64, 48, 32)), (40,)


def drawn(layers: tuple[Any, ...], shape: tuple[int, ...], rng: np.random.Generator) -> tuple[dict[str, Any], ...]:
    """Parameters with some drive, so that all layers spike, and biases other than 0, as after training."""
    import jax
    import jax.numpy as jnp

    from modicum.spiking.layers import init

    def moved(leaf: Any) -> Any:
        drive = 0.2 / np.sqrt(np.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.05
        return jnp.asarray(1.5 * leaf + drive * rng.normal(1, 0.1, leaf.shape), jnp.float32)

    return jax.tree.map(moved, init(jax.random.key(0), layers, shape))


def trains_of(layers: Any, params: Any, inputs: np.ndarray) -> list[np.ndarray]:
    """What each of our layers puts out."""
    import jax.numpy as jnp

    from modicum.spiking.unrolled import multi_step

    spikes, trains = jnp.asarray(inputs), []
    for layer, entry in zip(layers, params, strict=True):
        spikes = multi_step((layer,), (entry,), spikes)[0]
        trains.append(np.asarray(spikes))
    return trains


def compared(ours: list[np.ndarray], theirs: dict[str, np.ndarray], delay: int) -> dict[str, Any]:
    """Shares of equal spikes and our rates, layer by layer as far as the peer shows them."""
    shown = {len(ours): theirs["output"]}
    shown |= {int(name.rpartition("_")[2]) + 1: train for name, train in theirs.items() if name != "output"}
    layers = []
    for depth, train in sorted(shown.items()):
        lag = depth * delay
        mine = channels_first(ours[depth - 1])[: STEPS - lag]
        layers.append({"layer": depth, "equal": float((mine == train[lag:]).mean()), "rate": float(mine.mean())})
    lag = len(ours) * delay
    counts = ours[-1][: STEPS - lag].sum(0) - theirs["output"][lag:].sum(0)
    return {"layers": layers, "largest_difference_of_counts": float(abs(counts).max())}


def read_theirs(folder: Path) -> dict[str, Any]:
    """SpikingJelly's own network, read by `from_nir`."""
    import nir

    from modicum.spiking.interchange import from_nir

    stored = np.load(folder / "theirs.npz")
    layers, params = from_nir(nir.read(folder / "theirs.nir"))
    return compared(trains_of(layers, params, stored["inputs"]), {"output": stored["output"]}, 0)


def measured(folder: Path, torch_python: Path) -> dict[str, Any]:
    """Writes all networks, lets the peers run them, compares."""
    import nir

    from modicum import train
    from modicum.spiking.interchange import to_nir

    rng, ours = np.random.default_rng(0), {}
    for number, (name, layers, shape) in enumerate(networks()):
        params = drawn(layers, shape, rng)
        inputs = (rng.random((STEPS, BATCH, *shape)) < 0.3).astype(np.float32)
        nir.write(folder / f"ours-{number:02}.nir", to_nir(layers, params, shape, dt=DT))
        np.save(folder / f"ours-{number:02}.npy", inputs)
        ours[f"ours-{number:02}"] = name, trains_of(layers, params, inputs)
    peers = {}
    for name in PACKAGES:
        python = sys.executable if name == "spyx" else torch_python
        subprocess.run([python, __file__, "--peer", name, "--folder", folder], check=True)
        answers = json.loads((folder / f"{name}.json").read_text())
        peers[name] = {"versions": answers["versions"], "networks": {}}
        for stem, (network, trains) in ours.items():
            theirs = folder / f"{name}-{stem}.npz"
            outcome = compared(trains, dict(np.load(theirs)), DELAYS.get(name, 0)) if theirs.exists() else answers[stem]
            peers[name]["networks"][network] = outcome
    entry = {"steps": STEPS, "batch": BATCH, "dt": DT, "peers": peers, "spikingjelly_network_read": read_theirs(folder)}
    return {**entry, "versions": train.report.versions()}


def main() -> None:
    """Parses the command line; prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", type=Path, help="the interpreter of an environment with SpikingJelly and snnTorch")
    parser.add_argument("--peer", choices=PACKAGES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        return peer(args.peer, args.folder)
    if args.torch is None:
        parser.error("--torch must name the interpreter of the peers' environment")
    with tempfile.TemporaryDirectory() as folder:
        entry = measured(Path(folder), args.torch)
    RESULTS.write_text(json.dumps(entry, indent=1) + "\n")
    rows = [(peer, *row) for peer, answer in entry["peers"].items() for row in answer["networks"].items()]
    for name, network, outcome in [*rows, ("spikingjelly", "its own, read here", entry["spikingjelly_network_read"])]:
        if isinstance(outcome, dict):
            equal = " ".join(f"{layer['equal']:.4%} at {layer['rate']:.2f}" for layer in outcome["layers"])
            outcome = f"{equal}; counts differ by up to {outcome['largest_difference_of_counts']:g}"
        print(f"{name:13} {network:34} {outcome}")
    return None


if __name__ == "__main__":
    main()
