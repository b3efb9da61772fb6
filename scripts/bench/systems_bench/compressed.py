"""Rows of PatDNN, pattern-based sparsity, RTMobile and micro-structured unification."""

from collections.abc import Callable, Mapping
from typing import Any

from speed_tables import ENGINES, OURS
from tabular import interval, percent

from systems_bench.rows import Figure, Results, Row, mean, paired, seeds, times

NO_TEXT = "no figure available to us"


def cells(results: Results, table: str, row: str, arm: str = "admm") -> list[dict[str, Any]]:
    """The seeds of a row of an accuracy table, in order."""
    found = results(f"accuracy-{table}").get("cells", {})
    return [cell for name, cell in found.items() if name.startswith(f"{row} | {arm} | ")]


def loss(table: str, row: str, aim: float) -> Callable[[Results], Figure | None]:
    """Points lost against the dense network, at most `aim` on the mean."""

    def find(results: Results) -> Figure | None:
        chosen = cells(results, table, row)
        if not chosen:
            return None
        lost = mean([cell["dense_accuracy"] - cell["accuracy"] for cell in chosen])
        # a hundredth of a point is one image of ten thousand
        return Figure(paired(chosen), 100 * lost <= aim + 1e-9, chosen)

    return find


def engines(results: Results, network: str, threads: int) -> dict[str, float]:
    """Median milliseconds by engine of full precision."""
    found = results("latency").get("cells", {})
    return {
        cell["engine"]: cell["wall_ms_median"]
        for cell in found.values()
        if cell["network"] == network and cell["threads"] == threads and not cell["reduced_precision"]
    }


def made(results: Results, *networks: str) -> list[Mapping[str, Any]]:
    """Versions of latencies."""
    return [cell for cell in results("latency").get("cells", {}).values() if cell["network"] in networks]


def _peers(times_by_engine: Mapping[str, float]) -> dict[str, float]:
    return {name: time for name, time in times_by_engine.items() if not name.startswith(OURS)}


def fastest(network: str, aim: float) -> Callable[[Results], Figure | None]:
    """Over the fastest dense engine, on one thread and on two."""

    def find(results: Results) -> Figure | None:
        found = {threads: engines(results, network, threads) for threads in (1, 2)}
        if not all(OURS in times_by_engine for times_by_engine in found.values()):
            return None
        ratios = {threads: min(_peers(at).values()) / at[OURS] for threads, at in found.items()}
        names = {threads: ENGINES[min(_peers(at), key=_peers(at).__getitem__)] for threads, at in found.items()}
        text = ", ".join(
            f"{times(ratios[threads])} {name} on {'one thread' if threads == 1 else 'two'}"
            for threads, name in names.items()
        )
        return Figure(text, min(ratios.values()) >= aim, made(results, network))

    return find


def _phone_peers(results: Results) -> Figure | None:
    at = engines(results, "vgg16_8x", 1)
    if not {OURS, "litert", "mnn", "onnxruntime"} <= set(at):
        return None
    ratios = {name: at[name] / at[OURS] for name in ("litert", "mnn", "onnxruntime")}
    text = ", ".join(f"{times(ratio)} {ENGINES[name]}" for name, ratio in ratios.items())
    return Figure(text, ratios["litert"] >= 9 and ratios["onnxruntime"] >= 7, made(results, "vgg16_8x"))


def _unstructured(results: Results) -> Figure | None:
    chosen = cells(results, "mnist", "unstructured, 71x")
    if not chosen:
        return None
    rate = min(cell["constrained_weights"] / cell["constrained_kept"] for cell in chosen)
    scores = [cell["accuracy"] for cell in chosen]
    text = f"{rate:.1f}x at {percent(scores)}, {seeds(len(chosen))}"
    return Figure(text, rate >= 71 and mean(scores) >= 0.992, chosen)


def _roof(results: Results) -> Figure | None:
    found = results("roofline-vgg16_8x")
    if not found:
        return None
    peak = found["peaks"]["fma_gflops"]
    slowest = max(found["peaks"]["loads"], key=lambda level: level["bytes"])["gb_per_second"]
    shares = {"conv": [], "dense": []}
    for layer in found["layers"]:
        kind = "dense" if layer["kernel"].startswith("dense") else "conv"
        of = layer["gflops"] / peak if kind == "conv" else layer["bytes"] / layer["seconds"] / 1e9 / slowest
        shares[kind].append(of)
    text = f"convolutions {100 * min(shares['conv']):.0f}% of the peak or more, dense layers at the bandwidth of memory"
    return Figure(text, min(shares["conv"]) >= 0.65 and min(shares["dense"]) >= 0.7, [found])


def _free(results: Results) -> Figure | None:
    found = results("latency").get("cells", {})
    layers = sorted({cell["network"] for cell in found.values() if "_free_8x" in cell["network"]} - {"vgg16_free_8x"})
    layers = [name for name in layers if name.startswith("layer_")]
    ratios = [engines(results, name, 1)["onnxruntime"] / engines(results, name, 1)[OURS] for name in layers]
    if not ratios:
        return None
    text = f"{times(min(ratios))} to {times(max(ratios))} over {len(ratios)} layers of VGG-16"
    return Figure(text, min(ratios) >= 3.5, made(results, *layers))


def _sharing(results: Results) -> Figure | None:
    parts, versions = [], []
    for table, name in (("digits", "digits"), ("cifar10", "CIFAR-10")):
        shared = {cell["seed"]: cell for cell in cells(results, table, "same, shared by 16 filters")}
        free = {cell["seed"]: cell for cell in cells(results, table, "patterns + connectivity, 8x")}
        both = sorted(set(shared) & set(free))
        if both:
            difference = interval([shared[seed]["accuracy"] - free[seed]["accuracy"] for seed in both])
            parts.append(f"{name} {difference} points, {seeds(len(both))}")
            versions += [*shared.values(), *free.values()]
    return Figure("; ".join(parts), None, versions) if parts else None


def _training_cost(results: Results) -> Figure | None:
    found = results("admm-cost")
    if not found:
        return None
    projected = max(row["median_seconds"] for row in found["projection"])
    ratio = max(row["ratio"] for row in found["step"])
    compiled = found["vmap"]["cache_size"]
    text = f"{projected:.2f} s, {ratio:.2f}x, {compiled} compilation for {found['vmap']['seeds']} seeds"
    return Figure(text, projected < 0.5 and ratio <= 1.15 and compiled == 1, [found["versions"]])


def _control(results: Results) -> Figure | None:
    name = "block columns and rows, 10x"
    ours, control = (cells(results, "spoken_digit", name, arm) for arm in ("admm", "one_shot"))
    if not ours or len(ours) != len(control):
        return None
    differences = [first["accuracy"] - second["accuracy"] for first, second in zip(ours, control, strict=True)]
    text = f"{interval(differences)} points, {seeds(len(differences))}"
    return Figure(text, mean(differences) > 0, [*ours, *control])


def _curve(results: Results) -> Figure | None:
    parts, versions = [], []
    for rate in (80, 103):
        chosen = cells(results, "spoken_digit", f"block columns and rows, {rate}x")
        if chosen:
            parts.append(f"{rate}x: {100 * mean([c['accuracy'] - c['dense_accuracy'] for c in chosen]):+.2f}")
            versions += chosen
    return Figure(f"{', '.join(parts)} points", None, versions) if parts else None


def _gru(results: Results) -> Figure | None:
    found = results("gru-latency")
    if not found:
        return None
    here = [row for row in found["rows"] if row["size"] == 1024]
    peer = min(row["us_median"] for row in here if row["engine"] != OURS)
    ratios = {row["rate"]: peer / row["us_median"] for row in here if row["engine"] == OURS}
    aims = {10.0: 12, 20.0: 60, 100.0: 200}
    text = ", ".join(f"{times(ratios[rate])} at {rate:.0f}x" for rate in aims)
    return Figure(text, all(ratios[rate] >= aim for rate, aim in aims.items()), [found["versions"]])


def _bytes(results: Results) -> Figure | None:
    chosen = cells(results, "mnist", "unified 4x4, 75% of blocks")
    if not chosen:
        return None
    size = mean([cell["dense_bytes"] / cell["packed_bytes"] for cell in chosen])
    return Figure(f"{size:.1f}x fewer bytes, indices and scales counted", None, chosen)


def _either(results: Results) -> Figure | None:
    joint = cells(results, "cifar10_gpu", "vgg16: 50% unified, 25% pruned")
    alone = cells(results, "cifar10_gpu", "vgg16: unified 4x4, 75% of blocks")
    if not joint or not alone:
        return None
    better = mean([cell["accuracy"] for cell in joint]) - mean([cell["accuracy"] for cell in alone])
    return Figure(f"{100 * better:+.2f} points", better > 0, [*joint, *alone])


def _none(_: Results) -> None:
    return None


WANTS_A_GPU = "it wants a GPU, and none has trained it to the end yet (accuracy.py cifar10_gpu has its cells)"
SMALL_NET = (
    "the network for CPUs is small and has no weight to spare on CIFAR-10, whatever the library or the arm; larger "
    "ones want a GPU"
)
PATDNN = (
    Row(
        "VGG-16, 224 px, 8x fewer weights in patterns shared by 16 filters, one image: over the fastest dense engine",
        "up to 11.4x TVM on phones (abstract)",
        "4x, on one thread and on two",
        "latency.py",
        fastest("vgg16_8x", 4),
    ),
    Row(
        "the same over the engines of phones",
        "up to 44.5x TFLite, 7.1x MNN, of 2019 (abstract)",
        "9x LiteRT (once TFLite), 7x ONNX Runtime, one thread",
        "latency.py",
        _phone_peers,
        missed="today's LiteRT runs level with ONNX Runtime and OpenVINO on this machine, and over ONNX Runtime the "
        "aim is reached",
    ),
    Row(
        "VGG-16, 32 px, likewise",
        NO_TEXT,
        "8x, on one thread and on two",
        "latency.py",
        fastest("vgg16_cifar_8x", 8),
        missed="on two threads so short a run shrinks less than those of the dense engines; on one it is reached",
    ),
    Row(
        "kernels of VGG-16 at 8x under the roof of one core",
        NO_TEXT,
        "65% of the peak, or 70% of the bandwidth",
        "roofline.py",
        _roof,
    ),
    Row(
        "MNIST, LeNet-5, unstructured",
        "71x at 99.2% (kaiqzhan/admm-pruning)",
        "71x at 99.2%",
        "accuracy.py mnist",
        _unstructured,
    ),
    Row(
        "CIFAR-10, VGG-16, 8 patterns and connectivity, 8x: lost",
        "no accuracy compromise (abstract)",
        "0.3 points at most",
        "accuracy.py cifar10_gpu",
        loss("cifar10_gpu", "vgg16: patterns + connectivity, 8x", 0.3),
        absent=WANTS_A_GPU,
    ),
)
PATTERN = (
    Row(
        "MNIST, LeNet-5, patterns and connectivity, 8x: difference to dense",
        NO_TEXT,
        "0.1 points lost at most",
        "accuracy.py mnist",
        loss("mnist", "patterns + connectivity, 8x", 0.1),
    ),
    Row(
        "CIFAR-10, small ResNet, patterns alone",
        "patterns raise accuracy (ECCV 2020, abstract)",
        "0.1 points lost at most",
        "accuracy.py cifar10",
        loss("cifar10", "natural patterns (8)", 0.1),
        missed=SMALL_NET,
    ),
    Row(
        "CIFAR-10, small ResNet, patterns and connectivity, 8x",
        "no accuracy loss (PCONV, abstract)",
        "0.3 points lost at most",
        "accuracy.py cifar10",
        loss("cifar10", "patterns + connectivity, 8x", 0.3),
        missed=SMALL_NET,
    ),
    Row(
        "what it costs to share patterns by 16 filters, as the fastest kernels want",
        "not asked",
        "",
        "accuracy.py",
        _sharing,
    ),
    Row(
        "free patterns, 8x, single layers, one thread: over ONNX Runtime",
        "up to 39.2x TFLite, 11.4x TVM, 6.3x MNN on phones (PCONV, abstract)",
        "3.5x for each",
        "latency.py",
        _free,
        missed="the layer of 64 channels at 224 px falls short by a little; the others reach it",
    ),
    Row(
        "patterns, connectivity and weights trained at once: projection of ResNet-50, an ADMM step / a plain one",
        "extraction, selection and training at once (ECCV 2020, abstract)",
        "0.5 s, 1.15x, compiled once",
        "admm_cost.py",
        _training_cost,
    ),
)
RTMOBILE = (
    Row(
        "spoken digits, GRU of 2 x 512, 10x fewer weights: difference to dense",
        "TIMIT: 18.8% phone errors (authors' log)",
        "0.5 points lost at most",
        "accuracy.py spoken_digit",
        loss("spoken_digit", "block columns and rows, 10x", 0.5),
    ),
    Row(
        "the same, 29x",
        "19.6%: 0.8 points more than at 10x (authors' log)",
        "1.5 points lost at most",
        "accuracy.py spoken_digit",
        loss("spoken_digit", "block columns and rows, 29x", 1.5),
    ),
    Row(
        "the same, up to 103x",
        "80x 21.5%, 103x 23.2%: 2.7 and 4.4 points more than at 10x (authors' log)",
        "",
        "accuracy.py spoken_digit",
        _curve,
    ),
    Row(
        "ADMM - one-shot projection with as many steps, 10x",
        "not compared",
        "above 0",
        "accuracy.py spoken_digit",
        _control,
        missed="the network is so much larger than its task that retraining alone, which gets all the steps of that "
        "arm, reaches the dense network, too",
    ),
    Row(
        "a step of a GRU of 1,024, batch 1: over the fastest dense engine",
        "real-time on phones (abstract)",
        "12x at 10x, 60x at 20x, 200x at 100x",
        "gru_latency.py",
        _gru,
        missed="the fewer weights are left, the less of a step of microseconds is theirs: at 10x it is reached, beyond "
        "it the time falls more slowly than the weights",
    ),
    Row(
        "energy of a frame on a phone",
        "40x more efficient than an FPGA (abstract)",
        "",
        "",
        _none,
        absent="no phone and no meter are at hand: the C for aarch64 is checked for correctness alone",
    ),
)
UNIFICATION = (
    Row(
        "MNIST, LeNet-5, blocks of 4x4, 75% of them unified: difference to dense",
        NO_TEXT,
        "0.1 points lost at most",
        "accuracy.py mnist",
        loss("mnist", "unified 4x4, 75% of blocks", 0.1),
    ),
    Row("size of that network", NO_TEXT, "", "accuracy.py mnist", _bytes),
    Row(
        "CIFAR-10, VGG-16, the same",
        NO_TEXT,
        "0.3 points lost at most",
        "accuracy.py cifar10_gpu",
        loss("cifar10_gpu", "vgg16: unified 4x4, 75% of blocks", 0.3),
        absent=WANTS_A_GPU,
    ),
    Row(
        "CIFAR-10, VGG-16, half unified and a quarter pruned - unified alone",
        "both together are best (a summary of the paper)",
        "above 0",
        "accuracy.py cifar10_gpu",
        _either,
        absent=WANTS_A_GPU,
    ),
)
