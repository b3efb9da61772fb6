"""Networks that were trained in torch, as variables of `modicum.models`."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np

from modicum.core import Params, check
from modicum.interchange import files
from modicum.interchange.assembly import Assembly, reorder_streams
from modicum.interchange.slots import slots
from modicum.models import ResNet

ZEROS = ("both", "end")


def from_torch(
    model: nn.Module,
    source: str | Path | Mapping[str, Any],
    example: Any,
    *,
    rename: Mapping[str, str] | None = None,
    ignore: Sequence[str] = (),
    epsilon: float = 1e-5,
    zero_channels: str = "both",
) -> Params:
    """Variables for `model.apply` from a torch `state_dict`.

    Names are torchvision's (`interchange.slots`). VGG-16 comes with or without batch normalization: a convolution with
    a bias alone gets one that changes nothing. What is around the weights is not in a state dict, and must agree: see
    the network's own docstring (LeNet-5 pads its first convolution; the GRU takes the mean over time), and how images
    are normalized.

    Args:
        model: `LeNet5`, `VGG16`, `ResNet`, `MobileNetV2` or `GRUClassifier`, of the trained network's widths.
        source: arrays by name (torch tensors, NumPy or JAX arrays); or a file, `.safetensors`, or `.pt` and `.pth`,
            which torch must be there to read.
        example: an input, channels last, or its `jax.ShapeDtypeStruct`: the size of the images decides in which order
            the first dense layer sees them.
        rename: replacements by regular expression, for names that differ; by default a leading `module.` goes.
        ignore: regular expressions of names that may be left over.
        epsilon: what torch's batch normalization adds to the variance.
        zero_channels: for ResNets without projections: whether shortcuts add channels of zeros on "both" sides, as most
            torch code for CIFAR does, or at the "end", as the first published code did and ours does.

    Returns:
        `{"params": ...}`, with `"batch_stats"` where there is batch normalization; float32.

    Raises:
        ValueError: if parameters are missing, left over or of a wrong shape (all are named), or the model is none of
            these.
        ImportError: without the extra `interchange`, or torch, for a file that needs it.

    Example:
        >>> from modicum import models
        >>> weights = {"fc.weight": np.ones((2, 3)), "fc.bias": np.zeros(2), "gru.weight_ih_l0": np.ones((9, 4)),
        ...     "gru.weight_hh_l0": np.ones((9, 3)), "gru.bias_ih_l0": np.ones(9), "gru.bias_hh_l0": np.ones(9)}
        >>> variables = from_torch(models.GRUClassifier(2, 3), weights, np.zeros((5, 4), np.float32))
        >>> variables["params"]["GRULayer_0"]["input_bias"].tolist()
        [2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0]
    """
    check.one_of(ZEROS, zero_channels=zero_channels)
    check.finite_positive(epsilon=epsilon)
    arrays = _arrays(source, {r"^module\.": ""} if rename is None else rename)
    what = "source" if isinstance(source, Mapping) else f"source {source}"
    return assemble(model, arrays, example, {}, ignore, epsilon, zero_channels, what)


def assemble(
    model: nn.Module,
    arrays: Mapping[str, np.ndarray],
    example: Any,
    names: Mapping[str, str],
    ignore: Sequence[str],
    epsilon: float,
    zero_channels: str,
    what: str,
) -> Params:
    """Variables from arrays in torch's layouts under torch's names; see `from_torch` and `Assembly.finish`."""
    normalized = any(name.endswith(".running_mean") for name in arrays)
    assembly = Assembly(model, example, arrays, epsilon)
    for slot in slots(model, normalized):
        assembly.add(slot)
    if isinstance(model, ResNet) and not model.projection and zero_channels == "both":
        reorder_streams(model, assembly.variables)
    return assembly.finish(names, (r"num_batches_tracked$", *ignore), what)


def _arrays(source: str | Path | Mapping[str, Any], rename: Mapping[str, str]) -> dict[str, np.ndarray]:
    """NumPy arrays by their new names."""
    held = source if isinstance(source, Mapping) else _read(Path(source))
    arrays = {}
    for old, value in held.items():
        name = str(old)
        for pattern, text in rename.items():
            name = re.sub(pattern, text, name)
        if name in arrays:
            raise ValueError(f"rename must keep names apart, got {name} twice")
        arrays[name] = _numpy(value)
    return arrays


def _numpy(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        # a torch tensor: NumPy has no bfloat16 of torch's
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
    return np.asarray(value)


def _read(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".safetensors":
        return files.read(path)
    if path.suffix not in (".pt", ".pth", ".bin"):
        raise ValueError(f"source must be a file .safetensors, .pt, .pth or .bin, got {path}")
    try:
        import torch  # pyrefly: ignore[missing-import]
    except ImportError as error:
        raise ImportError(
            f"this needs the package torch, to read {path}: install it, or let torch write the file with "
            "safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
        ) from error
    held = torch.load(path, map_location="cpu", weights_only=True)
    # what trainers save beside the optimizer's state
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
    if not isinstance(held, Mapping):
        raise ValueError(f"source must be the file of a state_dict, got {path} with a {type(held).__name__}")
    return held
