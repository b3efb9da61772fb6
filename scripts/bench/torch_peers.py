"""Networks of torch and torchvision, imported by `modicum.interchange`, beside torch itself: outputs compared.

python scripts/bench/torch_peers.py --torch ENV/bin/python     writes scripts/bench/results/torch-peers.json

ENV is an environment of Python 3.11 apart from ours, with torch, torchvision, onnx, onnxscript and safetensors:

    python3.11 -m venv ENV && ENV/bin/pip install torch==2.13.0 torchvision==0.28.0 onnx==1.23.2 onnxscript safetensors

It makes each network with random weights and statistics, computes its outputs for some random inputs, and writes the
state dict as .safetensors and the network as ONNX, by the exporter of today and, where it still has it, by the one
before, which folds batch normalization. Each file is imported and run here. The difference is the largest over all
outputs, relative to the largest output.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "torch-peers.json"
NETWORKS = ["lenet", "vgg16", "vgg16_bn", "resnet20", "resnet50", "mobilenet_v2", "gru"]
FILES = {"safetensors": "state.safetensors", "ONNX": "new.onnx", "ONNX, folded": "old.onnx"}


# what the environment of torch runs, where neither modicum nor JAX need be


def declare_detection() -> Any:
    """Torchvision registers operators of detection even where its compiled part, a build for GPUs, does not load."""
    import torch

    try:
        import torchvision  # noqa: F401 - whether it can be imported
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        return library
    return None


def torch_networks() -> Iterator[tuple[str, Any, tuple[int, ...]]]:
    """Name, network and shape of its inputs."""
    import torch
    import torchvision.models as zoo
    from torch import nn

    class LeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
            self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

        def forward(self, x: Any) -> Any:
            for conv in (self.conv1, self.conv2):
                x = nn.functional.max_pool2d(torch.relu(conv(x)), 2)
            return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x.flatten(1))))))

    class Block(nn.Module):
        def __init__(self, given: int, width: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(given, width, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
            self.added, self.stride = (width - given) // 2, stride

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            if self.stride > 1:
                x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.added, self.added))
            return torch.relu(x + y)

    class ResNet20(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
            for stage, (given, width) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
                blocks = [Block(given, width, 2 if stage > 1 else 1), Block(width, width, 1), Block(width, width, 1)]
                setattr(self, f"layer{stage}", nn.Sequential(*blocks))
            self.linear = nn.Linear(64, 10)

        def forward(self, x: Any) -> Any:
            x = self.layer3(self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x))))))
            return self.linear(x.mean((2, 3)))

    class Speech(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.fc = nn.GRU(39, 128, 2, batch_first=True), nn.Linear(128, 10)

        def forward(self, x: Any) -> Any:
            return self.fc(self.gru(x)[0].mean(1))

    images = (2, 3, 224, 224)
    yield "lenet", LeNet(), (2, 1, 28, 28)
    yield "vgg16", zoo.vgg16(num_classes=10), images
    yield "vgg16_bn", zoo.vgg16_bn(num_classes=10), images
    yield "resnet20", ResNet20(), (2, 3, 32, 32)
    yield "resnet50", zoo.resnet50(), images
    yield "mobilenet_v2", zoo.mobilenet_v2(), images
    yield "gru", Speech(), (2, 50, 39)


def torch_side(folder: Path, wanted: list[str]) -> None:
    """Writes, for each network, its inputs, outputs and files; what an exporter refuses is one line of text."""
    # what it declares goes with it
    held = declare_detection()
    import onnx
    import safetensors.torch
    import torch
    import torchvision

    made = {"torch": torch.__version__, "torchvision": torchvision.__version__, "onnx": onnx.__version__}
    for name, network, shape in torch_networks():
        if name not in wanted:
            continue
        place = folder / name
        place.mkdir()
        generator = torch.Generator().manual_seed(0)
        for part in network.modules():
            # statistics as after a training: fresh ones are zeros and ones, which would hide a mistake
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.2, generator=generator)
                part.running_var.uniform_(0.5, 1.5, generator=generator)
                torch.nn.init.uniform_(part.weight, 0.5, 1.5, generator=generator)
                torch.nn.init.normal_(part.bias, 0, 0.2, generator=generator)
        network = network.eval()
        inputs = torch.randn(shape, generator=generator)
        with torch.no_grad():
            outputs = network(inputs).numpy()
        np.savez(place / "run.npz", inputs=inputs.numpy(), outputs=outputs)
        safetensors.torch.save_file(network.state_dict(), place / FILES["safetensors"])
        for kind, newer in (("ONNX", True), ("ONNX, folded", False)):
            try:
                torch.onnx.export(network, (inputs,), place / FILES[kind], dynamo=newer)
            except Exception as error:
                (place / f"{FILES[kind]}.txt").write_text(f"{type(error).__name__}: {str(error).splitlines()[0]}")
    (folder / "versions.json").write_text(json.dumps(made))
    del held


# what ours runs


def ours(name: str) -> Any:
    """The network of ours that a name of torch's stands for."""
    from modicum import models

    wide = {"classes": 10, "hidden": (4096, 4096)}
    return {
        "lenet": models.LeNet5(),
        "vgg16": models.VGG16(**wide),
        "vgg16_bn": models.VGG16(**wide),
        "resnet20": models.resnet20(),
        "resnet50": models.resnet50(),
        "mobilenet_v2": models.MobileNetV2(1000),
        "gru": models.GRUClassifier(10, (128, 128)),
    }[name]


def compare(place: Path) -> dict[str, dict[str, Any]]:
    """How far the outputs of each imported file are from torch's."""
    import jax

    from modicum import interchange

    model, rows = ours(place.name), {}
    with np.load(place / "run.npz") as held:
        inputs, expected = held["inputs"], held["outputs"]
    inputs = np.moveaxis(inputs, 1, -1) if inputs.ndim == 4 else inputs
    for kind, file in FILES.items():
        refused = place / f"{file}.txt"
        if refused.exists():
            rows[kind] = {"refused by torch": refused.read_text()}
            continue
        read = interchange.from_torch if kind == "safetensors" else interchange.from_onnx
        try:
            variables = read(model, place / file, inputs)
        except ValueError as error:
            rows[kind] = {"refused by modicum": str(error).replace(f"{place}/", "")}
            continue
        outputs = np.asarray(jax.jit(model.apply)(variables, inputs))
        error = float(np.abs(outputs - expected).max() / np.abs(expected).max())
        agree = bool((outputs.argmax(-1) == expected.argmax(-1)).all())
        numbers = sum(leaf.size for leaf in jax.tree.leaves(variables))
        rows[kind] = {"relative_difference": error, "same_classes": agree, "numbers": numbers}
        print(f"{place.name:14}{kind:14}{error:.2e}", flush=True)
    return rows


def main() -> int:
    """Lets torch write, imports, compares, prints and writes."""
    parser = argparse.ArgumentParser(description="Imported networks beside torch.")
    parser.add_argument("--torch", type=Path, help="the interpreter of an environment with torch")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS, help="which; all by default")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures go")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        torch_side(arguments.write, arguments.networks)
        return 0
    if not arguments.torch or not arguments.torch.is_file():
        print(f"torch_peers.py: --torch must be an interpreter, got {arguments.torch}", file=sys.stderr)
        return 2
    from modicum import train

    with tempfile.TemporaryDirectory() as folder:
        command = [str(arguments.torch), __file__, "--write", folder, "--networks", *arguments.networks]
        subprocess.run(command, check=True)
        # networks that are not asked for keep what was measured before
        rows = json.loads(arguments.results.read_text())["rows"] if arguments.results.is_file() else {}
        rows |= {place.name: compare(place) for place in sorted(Path(folder).iterdir()) if place.is_dir()}
        made = json.loads((Path(folder) / "versions.json").read_text())
    entry = {"what": "largest difference of outputs, relative to the largest output of torch", "rows": rows}
    train.report.write_json(arguments.results, {**entry, "peers": made, "versions": train.report.versions()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
