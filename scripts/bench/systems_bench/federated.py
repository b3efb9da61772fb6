"""Rows of SEFL and of the system with SGX (ESMFL)."""

from collections.abc import Callable, Sequence

from secure_bench.tables import GOALS

from systems_bench.rows import Figure, Results, Row, times

LOWER = ("bytes_per_parameter", "client_cpu_ms", "servers_cpu_ms_per_client")
"""Figures that are to be small; of the others, larger is better."""


def goal(shown: Sequence[tuple[str, str]], beside: tuple[str, str] | None = None) -> Callable[[Results], Figure | None]:
    """Figures of secure sums against the goals that stand beside them in the JSON.

    Args:
        shown: name of each, and how it is shown: `"{:.1f}x"`.
        beside: one that follows them and has no goal.
    """

    def find(results: Results) -> Figure | None:
        found = results("secure-sum")
        if not all(name in found.get("ratios", {}) for name, _ in shown):
            return None
        values = [found["ratios"][name] for name, _ in shown]
        met = [
            value <= found["goals"][name] if name.startswith(LOWER) else value >= found["goals"][name]
            for (name, _), value in zip(shown, values, strict=True)
        ]
        text = ", ".join(form.format(value) for (_, form), value in zip(shown, values, strict=True))
        if beside is not None:
            text += beside[1].format(found["ratios"][beside[0]])
        return Figure(text, all(met), [found["versions"]])

    return find


def aims(*names: str) -> str:
    """Their goals in words."""
    return ", ".join(GOALS[name][1] for name in names)


def _perplexity(results: Results) -> Figure | None:
    found = results("federated")
    if not {"wikitext2", "wikitext2_hankel"} <= set(found):
        return None
    dense, hankel = found["wikitext2"], found["wikitext2_hankel"]
    fewer = dense["result"]["upload_bytes"] / hankel["result"]["upload_bytes"]
    text = f"{dense['result']['test_perplexity']:.1f} dense, {hankel['result']['test_perplexity']:.1f} in Hankel blocks"
    return Figure(f"{text}, {fewer:.1f}x fewer bytes", None, [dense["versions"], hankel["versions"]])


def _cases(results: Results) -> Figure | None:
    found = results("secure-sum-cases")
    if not found:
        return None
    kinds = [found[protocol] for protocol in ("secagg", "sefl")]
    exact, refused, wrong = (sum(kind[name] for kind in kinds) for name in ("exact", "refused", "wrong"))
    text = f"{exact} exact, {refused} refused (too few), {wrong} wrong"
    return Figure(text, wrong == 0 and exact + refused >= 1000, [found["versions"]])


def accuracy(run: str, aim: float, saved: float) -> Callable[[Results], Figure | None]:
    """Of a federated run, with the share of its upload that sparsity saves."""

    def find(results: Results) -> Figure | None:
        found = results("federated").get(run)
        if not found:
            return None
        made = found["result"]
        text = f"{100 * made['test_accuracy']:.2f}% with {100 * made['upload_bytes_saved']:.1f}% fewer bytes, 1 seed"
        met = made["test_accuracy"] >= aim and made["upload_bytes_saved"] >= saved
        return Figure(text, met, [found["versions"]])

    return find


def _elapsed(results: Results) -> Figure | None:
    found = results("enclave")
    if not found:
        return None
    cells = found["rounds"]["LeNet-5"]["fractions"].values()
    best = max((cell for cell in cells if cell["bytes_saved"] > 0), key=lambda cell: cell["bytes_saved"])
    text = f"{times(best['faster'])} measured between processes of one machine; computed with a link: "
    text += ", ".join(f"{times(value)} at {link}" for link, value in best["faster_computed"].items())
    return Figure(text, best["faster"] >= 1.8, [found["versions"]])


def _mobile_bytes(results: Results) -> Figure | None:
    found = results("enclave")
    if not found:
        return None
    cells = found["rounds"]["MobileNetV2"]["fractions"].values()
    saved = sorted(cell["bytes_saved"] for cell in cells if cell["bytes_saved"] > 0)
    text = f"{' or '.join(f'{100 * value:.1f}%' for value in saved)}, by the share of entries sent"
    return Figure(text, saved[0] >= 0.1585, [found["versions"]])


SEFL = (
    Row(
        "time of all parties for a sum of ten million numbers (of one million): dense / in Hankel blocks of 32",
        "up to 13.7x (abstract)",
        aims("hankel_32_faster"),
        "secure_sum.py",
        goal([("hankel_32_faster", "{:.1f}x")], ("hankel_32_faster_million", " ({:.1f}x)")),
    ),
    Row(
        "upload, bytes a parameter: 32 bits; 20 bits; 20 bits in Hankel blocks of 16",
        "not available to us",
        aims("bytes_per_parameter", "bytes_per_parameter_20_bits", "bytes_per_parameter_20_bits_hankel_16"),
        "secure_sum.py",
        goal(
            [
                ("bytes_per_parameter", "{:.2f}"),
                ("bytes_per_parameter_20_bits", "{:.2f}"),
                ("bytes_per_parameter_20_bits_hankel_16", "{:.3f}"),
            ]
        ),
    ),
    Row(
        "a million numbers, CPU ms: a client; both servers for each client",
        "not available to us",
        aims("client_cpu_ms", "servers_cpu_ms_per_client"),
        "secure_sum.py",
        goal([("client_cpu_ms", "{:.1f}"), ("servers_cpu_ms_per_client", "{:.1f}")]),
        missed="the servers make each client's stream of masks once more and add up twice; the client's aim is "
        "reached, and in Hankel blocks both are",
    ),
    Row(
        "SecAgg beside Flower's SecAgg+: unmasking by the server after drop-outs",
        "survives drop-outs (abstract)",
        aims("unmasking_faster"),
        "secure_sum.py",
        goal([("unmasking_faster", "{:.1f}x")]),
    ),
    Row(
        "likewise: shares; masking by the clients",
        "no such comparison known to us",
        aims("shares_faster", "masking_faster"),
        "secure_sum.py",
        goal([("shares_faster", "{:.1f}x"), ("masking_faster", "{:.2f}x")]),
    ),
    Row(
        "lattice encryption: packed Paillier's time to encrypt / ours; TenSEAL's to add / ours",
        "not available to us",
        aims("rlwe_faster_than_paillier", "rlwe_adds_faster_than_tenseal"),
        "secure_sum.py",
        goal([("rlwe_faster_than_paillier", "{:.0f}x"), ("rlwe_adds_faster_than_tenseal", "{:.2f}x")]),
        missed="the fastest of TenSEAL's schemes has too few bits for these sums (`largest_error` in the results); "
        "beside those that have enough it is reached",
    ),
    Row(
        "WikiText-2, LSTM: perplexity, dense and in Hankel blocks",
        "not available to us",
        "",
        "federated.py",
        _perplexity,
    ),
    Row(
        "random rounds with drop-outs at every stage",
        "survives drop-outs (abstract)",
        "1,000 cases, none wrong",
        "secure_sum_cases.py",
        _cases,
        absent="its script has no finished run yet",
    ),
)
ENCLAVE = (
    Row(
        "MNIST, LeNet-5, IID",
        "98.78%, 34.85% fewer bytes (abstract)",
        "the same",
        "federated.py",
        accuracy("enclave-mnist", 0.9878, 0.3485),
    ),
    Row(
        "MNIST, LeNet-5, two digits a client",
        "97.60% non-IID, 34.85% fewer bytes (abstract)",
        "the same",
        "federated.py",
        accuracy("enclave-mnist_shards", 0.9760, 0.3485),
    ),
    Row(
        "elapsed time of a round, LeNet-5: dense / sparse, sealed",
        "1.8x (abstract)",
        "1.8x",
        "enclave.py",
        _elapsed,
        missed="between processes of one machine fewer bytes save nothing, and choosing them costs; over a link of the "
        "rates shown the sum of measured and computed time is faster",
    ),
    Row(
        "MobileNet-V2, bytes saved",
        "15.85% (abstract)",
        "15.85%",
        "enclave.py",
        _mobile_bytes,
    ),
    Row(
        "MobileNet-V2, accuracy, IID",
        "85.40% (abstract)",
        "85.40%",
        "federated.py",
        accuracy("enclave-cifar10", 0.8540, 0.1585),
        absent="it wants a GPU: no federated run of it has a config yet",
    ),
)
