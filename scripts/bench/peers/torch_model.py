"""A network as a PyTorch module, channels first by shape and channels last in memory."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it

from peers.network import Network, is_padded


class Module(torch.nn.Module):
    """The layers in order, each a call of `torch.nn.functional`."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.weights = torch.nn.ParameterDict()
        for index, layer in enumerate(network.layers):
            for name in ("weight", "bias", "scale", "shift"):
                if name in layer:
                    self.weights[f"{index}_{name}"] = torch.nn.Parameter(_arranged(layer, name), requires_grad=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The output for an image `(1, c, h, w)`."""
        values = {self.network.input: image}
        for index, layer in enumerate(self.network.layers):
            x, *more = (values[name] for name in layer["inputs"])
            match layer["kind"]:
                case "Conv":
                    y = self._convolve(index, layer, x)
                    y = y + more[0] if more else y
                case "Dense":
                    y = F.linear(x, self.weights[f"{index}_weight"], self.weights[f"{index}_bias"])
                case "Pool":
                    y = _pool(layer, x)
                case "Mean":
                    y = x.mean(dim=(2, 3))
                case "Add":
                    y = x + more[0]
                case "Affine":
                    y = x * self.weights[f"{index}_scale"] + self.weights[f"{index}_shift"]
                case _:
                    y = _reshape(layer, x)
            activation = layer.get("activation", "none")
            if activation != "none":
                y = F.relu(y) if activation == "relu" else F.relu6(y)
            values[layer["output"]] = y
        return values[self.network.output]

    def _convolve(self, index: int, layer: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
        (top, bottom), (left, right) = layer["padding"]
        padding = (top, left)
        if (top, left) != (bottom, right):
            x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
        weight, bias = self.weights[f"{index}_weight"], self.weights[f"{index}_bias"]
        return F.conv2d(x, weight, bias, tuple(layer["stride"]), padding, groups=layer["groups"])


def _arranged(layer: dict[str, Any], name: str) -> torch.Tensor:
    """One of a layer's arrays in PyTorch's order of axes."""
    array = torch.from_numpy(layer[name])
    if name == "weight":
        return array.permute(3, 2, 0, 1).contiguous() if layer["kind"] == "Conv" else array.T.contiguous()
    return array[:, None, None] if layer["kind"] == "Affine" and len(layer["shape"]) == 4 else array


def _pool(layer: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
    (top, bottom), (left, right) = layer["padding"]
    window, stride = tuple(layer["window"]), tuple(layer["stride"])
    if layer["pool"] == "max":
        x = F.pad(x, (left, right, top, bottom), value=-torch.inf) if is_padded(layer) else x
        return F.max_pool2d(x, window, stride)
    if (top, left) != (bottom, right):
        raise ValueError(f"padding of mean pool {layer['name']} must be even, got {layer['padding']}")
    return F.avg_pool2d(x, window, stride, (top, left), count_include_pad=False)


def _reshape(layer: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
    shape = layer["shape"]
    x = x.permute(0, 2, 3, 1).reshape(shape) if x.ndim == 4 else x.reshape(shape)
    return x.permute(0, 3, 1, 2) if len(shape) == 4 else x
