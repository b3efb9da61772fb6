"""Tables of secure sums, enclaves and federated runs, from their results JSON."""

import json
from pathlib import Path
from typing import Any

from tabular import header, line

GOALS = {
    "bytes_per_parameter": ("upload, bytes a parameter", "<= 4.02"),
    "bytes_per_parameter_20_bits": ("upload, ring of 20 bits", "<= 2.6"),
    "bytes_per_parameter_20_bits_hankel_16": ("upload, 20 bits, Hankel blocks of 16", "<= 0.35"),
    "client_cpu_ms": ("SEFL: client, CPU ms", "<= 5"),
    "servers_cpu_ms_per_client": ("SEFL: both servers, CPU ms a client", "<= 2"),
    "hankel_32_faster": ("SEFL: all parties, ten million numbers: Hankel blocks of 32 against dense", ">= 13.7x"),
    "shares_faster": ("SecAgg: keys and shares, against Flower's SecAgg+", ">= 20x"),
    "masking_faster": ("SecAgg: masking, likewise", ">= 3x"),
    "unmasking_faster": ("SecAgg: the server's unmasking, likewise", ">= 10x"),
    "rlwe_faster_than_paillier": ("RLWE: encrypting, against packed Paillier of 2,048 bits", ">= 200x"),
    "rlwe_adds_faster_than_tenseal": ("RLWE: adding, against TenSEAL's fastest", ">= 5x"),
}


def made_with(versions: dict[str, Any]) -> str:
    """Machine and commit."""
    return f"{versions['machine']['cores']} cores, jax {versions['jax']}, commit {str(versions['commit'])[:7]}"


def sums(path: Path) -> str:
    """What goals came to."""
    entry = json.loads(path.read_text())
    sizes, found = entry["sizes"], entry["ratios"]
    lines = [
        f"**Secure sums: {sizes['clients']} clients of {sizes['dimension']:,} numbers, {sizes['dropped']} dropped**",
        "",
        *header(("", "measured", "goal")),
    ]
    for name, (title, goal) in GOALS.items():
        if name in found:
            value = f"{found[name]:.3g}" + ("x" if goal.endswith("x") else "")
            lines.append(line((title, value, goal)))
    lines += ["", f"CPU time of the process; {made_with(entry['versions'])}."]
    lines[-1] += (
        f" Of a million numbers, Hankel blocks of 32 save {found['hankel_32_faster_million']:.1f}x: signatures and key "
        "agreements take as long for few numbers as for many."
    )
    if entry["flower"]:
        lines[-1] += (
            f" Flower {entry['flower']['version']} makes masks from seeds of 32 bits, ours from keys of 256 bits; "
            f"its upload is {entry['flower']['upload_bytes'] / sizes['dimension']:.2f} bytes a parameter."
        )
    return "\n".join(lines)


def sealed(path: Path) -> str:
    """Sparse against dense in the enclave."""
    entry = json.loads(path.read_text())
    links = list(next(iter(entry["rounds"].values()))["fractions"]["1"]["faster_computed"])
    head = (
        "model",
        "entries sent",
        "bytes saved",
        "elapsed, measured",
        *(f"faster at {link}, computed" for link in links),
    )
    lines = [
        f"**Updates sealed for the enclave's process, {entry['clients']} clients, against dense ones**",
        "",
        *header(head),
    ]
    for name, cell in entry["rounds"].items():
        for fraction, found in cell["fractions"].items():
            cells = (
                f"{name}, {cell['dimension']:,}",
                f"{100 * float(fraction):.0f}%",
                f"{100 * found['bytes_saved']:.2f}%",
                f"{1e3 * found['elapsed_seconds']:.0f} ms, {found['faster']:.2f}x",
                *(f"{found['faster_computed'][link]:.2f}x" for link in links),
            )
            lines.append(line(cells))
    times = ", ".join(f"{name.split('_')[0].upper()} {value:.1f} ms" for name, value in entry["quote_cpu_ms"].items())
    return "\n".join([*lines, "", f"Verifying a genuine quote: {times} of CPU. {made_with(entry['versions'])}."])


def score(found: dict[str, Any]) -> str:
    """Accuracy, or perplexity."""
    if "test_perplexity" in found:
        return f"perplexity {found['test_perplexity']:.1f}"
    return f"{100 * found['test_accuracy']:.2f}%"


def runs(path: Path) -> str:
    """Federated runs."""
    head = (
        "config",
        "model",
        "numbers sent",
        "clients x rounds",
        "held out",
        "upload",
        "bytes saved",
        "protocol, CPU s",
    )
    lines = ["**Federated runs**", "", *header(head)]
    commits = set()
    for name, cell in json.loads(path.read_text()).items():
        found = cell["result"]
        commits.add(str(cell["versions"]["commit"])[:7])
        cells = (
            name,
            found["model"],
            f"{found['parameters']:,}",
            f"{found['clients']} x {found['rounds']}",
            score(found),
            f"{found['upload_bytes'] / 1e6:.1f} MB",
            f"{100 * found['upload_bytes_saved']:.2f}%",
            f"{found['protocol_cpu_seconds']:.1f}",
        )
        lines.append(line(cells))
    return "\n".join([*lines, "", f"One seed each; commits {', '.join(sorted(commits))}."])


def tables(results: Path) -> str:
    """All that are measured."""
    parts = (("federated.json", runs), ("secure-sum.json", sums), ("enclave.json", sealed))
    return "\n\n".join(make(results / name) for name, make in parts if (results / name).is_file())
