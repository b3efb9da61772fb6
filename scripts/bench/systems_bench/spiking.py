"""Rows of the reversible spiking node."""

from typing import Any

from tabular import percent

from systems_bench.rows import Figure, Results, Row, mean, seeds, times

STEPS = (15, 64)
LONG = (64, 128, 256)
PEERS = {"spikingjelly": "SpikingJelly", "snntorch": "snnTorch", "spyx": "Spyx"}


def _node(results: Results) -> Figure | None:
    found = results("spiking-memory")
    if not found:
        return None
    kept = {(row["node"], row["steps"]): row["bytes_with_synapse"] for row in found["nodes"]}
    few, many = (kept["lif autodiff", steps] / kept["reversible", steps] for steps in STEPS)
    text = f"{times(few)} at T = {STEPS[0]}, {times(many)} at T = {STEPS[1]}"
    return Figure(text, few >= 58.65 and many >= 256, [found["versions"]])


def _summary(found: dict[str, Any], scheme: str) -> dict[str, Any]:
    deepest = max(row["depth"] for row in found["summary"])
    (row,) = (row for row in found["summary"] if row["scheme"] == scheme and row["depth"] == deepest)
    return row


def _network(results: Results) -> Figure | None:
    found = results("spiking-memory")
    if not found:
        return None
    ratios = _summary(found, "reversible")["lif autodiff / this"]
    text = ", ".join(f"{times(ratios[str(steps)])} at T = {steps}" for steps in LONG)
    return Figure(text, ratios["128"] >= 55 and ratios["256"] >= 110, [found["versions"]])


def _growth(results: Results) -> Figure | None:
    found = results("spiking-memory")
    if not found:
        return None
    steps, blocks = _summary(found, "reversible")["exponent"], found["coupled"]["exponents"]["streamlined"]
    return Figure(f"{steps:.3f} in T, {blocks:.3f} in depth", max(steps, blocks) <= 0.02, [found["versions"]])


def _streamlined(results: Results) -> Figure | None:
    found = results("spiking-time")
    if not found:
        return None
    (network,) = (row for row in found["networks"] if row["depth"] == 16)
    whole = network["ratios"]["reversible / reversible_standard"]
    node = found["nodes"]["ratios"]["streamlined / standard"]
    text = "; ".join(
        f"{what} {100 * (1 - ratio['min']):.1f}% by minima, {100 * (1 - ratio['median']):.1f}% by medians"
        for what, ratio in (("node", node), ("network", whole))
    )
    return Figure(text, node["min"] <= 0.6 and whole["min"] <= 1 - 0.238, [found["versions"]])


def _modes(results: Results) -> Figure | None:
    found = results("spiking-time")
    if not found:
        return None
    (network,) = (row for row in found["networks"] if row["depth"] == 16)
    pairs = ("packed / lif autodiff", "reversible / carry autodiff", "packed / reversible_standard")
    ratios = [network["ratios"][pair]["min"] for pair in pairs]
    text = "packed {:.2f} of plain, reversible {:.2f} of plain, packed {:.3f} of standard reversible".format(*ratios)
    met = all(ratio <= aim for ratio, aim in zip(ratios, (0.80, 1.05, 0.62), strict=True))
    return Figure(text, met, [found["versions"]])


def _peers(results: Results) -> Figure | None:
    found = results("spiking-peers")
    if not found:
        return None
    (at,) = (row["ratios"] for row in found["results"] if row["steps"] == 64)
    time = {peer: ratio["time"] for peer, ratio in at["modicum_packed"].items()}
    memory = at["modicum_reversible"]["spyx"]["memory"]
    shown = ", ".join(f"{name} {time[peer]:.2f}x" for peer, name in PEERS.items())
    text = f"time of others / packed: {shown}; Spyx' memory / reversible {times(memory)}"
    return Figure(text, min(time.values()) > 1 and memory >= 22, [found["versions"]])


def _mnist(results: Results) -> Figure | None:
    cells = results("spiking-accuracy").get("cells", {})
    chosen = {name: cell for name, cell in cells.items() if name.startswith("mnist, direct | ")}
    found: dict[str, list[float]] = {}
    for name, cell in chosen.items():
        found.setdefault(name.split(" | ")[1], []).append(cell["test_accuracy"])
    if not found:
        return None
    parts = [f"{neuron} {percent(found[neuron])}" for neuron in ("packed LIF", "carry") if neuron in found]
    text = f"{', '.join(parts)}, {seeds(min(map(len, found.values())))}"
    exact = [found[neuron] for neuron in ("packed LIF", "carry") if neuron in found]
    return Figure(text, all(mean(values) >= 0.992 for values in exact), list(chosen.values()))


def _cifar10(results: Results) -> Figure | None:
    cells = results("spiking-accuracy").get("cells", {})
    deep = {name: cell for name, cell in cells.items() if name.startswith("cifar10, VGG-11")}
    if not deep:
        return None
    best = max(deep.values(), key=lambda cell: cell["test_accuracy"])
    text = f"{percent(best['test_accuracy'])} at T = {best['time_steps']}, {seeds(1)}"
    return Figure(text, best["test_accuracy"] >= 0.92, [best])


ROWS = (
    Row(
        "what a node keeps for the backward pass: plain LIF's / the reversible node's",
        "58.65x less than the current node (abstract)",
        "58.65x from T = 15, 256x at T = 64",
        "spiking.py memory",
        _node,
    ),
    Row(
        "gradient of 16 layers, temporary memory: plain LIF's / reversible",
        "not available to us",
        "55x at T = 128, 110x at T = 256",
        "spiking.py memory",
        _network,
    ),
    Row(
        "growth of that memory: exponent in T; in depth, for coupled blocks",
        "towards zero memory footprint (title)",
        "0.02 at most",
        "spiking.py memory",
        _growth,
    ),
    Row(
        "training time that the streamlined backward pass saves against the standard reversible one",
        "23.8% (abstract)",
        "node 40%, network of 16 layers 23.8%",
        "spiking.py time",
        _streamlined,
        missed="the forward pass that it leaves out is one of about five equal parts of a network's step, and the "
        "node's streamlined pass has little fewer operations (`flops` in the results) than the standard one here",
    ),
    Row(
        "CPU time of a training step of 16 layers, by minima",
        "slower than an ordinary network (its reviews)",
        "0.80, 1.05 and 0.62 at most",
        "spiking.py time",
        _modes,
        missed="packed bits against the standard reversible pass miss it by a hair, by minima; both ratios to the "
        "plain network are reached, and by medians all three are",
    ),
    Row(
        "training step beside SpikingJelly, snnTorch and Spyx, T = 64",
        "no such comparison known to us",
        "faster than each, 22x less memory than Spyx",
        "spiking.py peers",
        _peers,
        missed="SpikingJelly without its memory optimization takes as long as ours on one thread (in many times "
        "the memory)",
    ),
    Row(
        "MNIST, spiking LeNet, T = 4",
        "not available to us",
        "99.2% with T <= 8",
        "spiking_accuracy.py",
        _mnist,
    ),
    Row(
        "CIFAR-10, spiking VGG-11",
        "not available to us",
        "92%",
        "spiking_accuracy.py",
        _cifar10,
        missed="the time lent on a GPU was not enough for all epochs of its config",
    ),
)
