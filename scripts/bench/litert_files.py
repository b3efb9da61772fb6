"""Networks of `modicum.models` as LiteRT files, and what LiteRT's interpreter makes of them.

python scripts/bench/litert_files.py             writes scripts/bench/results/litert-files.json (a minute)
python scripts/bench/litert_files.py --tiny      the smallest two, printed only

Weights are random. The file is made with one random input and run on another; the difference is the largest over all
outputs, relative to the largest output.
"""

import argparse
import importlib.metadata
import time
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from modicum import interchange, models, train

RESULTS = Path(__file__).parent / "results" / "litert-files.json"
NETWORKS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "LeNet-5": (models.LeNet5(), (1, 28, 28, 1)),
    "GRU, 2 x 64, 40 frames": (models.GRUClassifier(10, (64, 64)), (1, 40, 39)),
    "ResNet-20": (models.resnet20(), (1, 32, 32, 3)),
    "MobileNetV2": (models.MobileNetV2(classes=1000), (1, 224, 224, 3)),
    "ResNet-50": (models.resnet50(), (1, 224, 224, 3)),
}
"""By name: the network, and the shape of an input."""


def measure(model: nn.Module, shape: tuple[int, ...]) -> dict[str, Any]:
    """Size of the file, seconds to make it, and how far its answer is from the network's."""
    weights, first, second = jax.random.split(jax.random.key(0), 3)
    variables = model.init(weights, jnp.zeros(shape))
    started = time.perf_counter()
    content = interchange.to_litert(lambda x: model.apply(variables, x), jax.random.normal(first, shape))
    seconds = time.perf_counter() - started
    other = jax.random.normal(second, shape)
    expected, got = np.asarray(model.apply(variables, other)), interchange.litert_outputs(content, other)["output"]
    return {
        "weights": sum(leaf.size for leaf in jax.tree.leaves(variables)),
        "bytes": len(content),
        "relative_difference": float(np.abs(got - expected).max() / np.abs(expected).max()),
        "same_classes": bool((got.argmax(-1) == expected.argmax(-1)).all()),
        "seconds": seconds,
    }


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="the smallest two, nothing written")
    tiny = parser.parse_args().tiny
    rows = {}
    for name, (model, shape) in list(NETWORKS.items())[: 2 if tiny else None]:
        rows[name] = measure(model, shape)
        print(name, rows[name], flush=True)
    if not tiny:
        packages = {name: importlib.metadata.version(name) for name in ("litert-converter", "ai-edge-litert")}
        train.report.write_json(RESULTS, {"rows": rows, "packages": packages, "versions": train.report.versions()})


if __name__ == "__main__":
    main()
