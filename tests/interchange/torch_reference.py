"""Networks as torch computes them, channels first, in NumPy's float64: straight from a state dict, by torch's names."""

import numpy as np


def conv(x, weight, bias=None, stride=1, padding=0, groups=1):
    """torch.nn.functional.conv2d."""
    x = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    batch, channels, height, width = windows.shape[:4]
    windows = windows.reshape(batch, groups, channels // groups, height, width, *weight.shape[2:])
    weight = weight.reshape(groups, -1, *weight.shape[1:])
    y = np.einsum("bgchwij,gocij->bgohw", windows, weight, optimize=True).reshape(batch, -1, height, width)
    return y if bias is None else y + bias[:, None, None]


def norm(x, state, name, epsilon=1e-5):
    """torch.nn.BatchNorm2d in evaluation."""
    mean, var, weight, bias = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    scale = weight / np.sqrt(var + epsilon)
    return x * scale[:, None, None] + (bias - mean * scale)[:, None, None]


def linear(x, state, name):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def relu(x):
    return np.maximum(x, 0)


def relu6(x):
    return np.clip(x, 0, 6)


def max_pool(x, size=2, stride=2, padding=0):
    x = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)], constant_values=-np.inf)
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), (2, 3))[:, :, ::stride, ::stride].max((4, 5))


def lenet(state, x):
    x = max_pool(relu(conv(x, state["conv1.weight"], state["conv1.bias"], padding=2)))
    x = max_pool(relu(conv(x, state["conv2.weight"], state["conv2.bias"])))
    x = relu(linear(x.reshape(len(x), -1), state, "fc1"))
    return linear(relu(linear(x, state, "fc2")), state, "fc3")


def vgg(state, x, normalized, hidden, epsilon=1e-5):
    """torchvision.models.vgg16 and vgg16_bn, whose convolutions have biases, too."""
    place = 0
    for depth in (2, 2, 3, 3, 3):
        for _ in range(depth):
            x = conv(x, state[f"features.{place}.weight"], state[f"features.{place}.bias"], padding=1)
            if normalized:
                place += 1
                x = norm(x, state, f"features.{place}", epsilon)
            x, place = relu(x), place + 2
        x, place = max_pool(x), place + 1
    x = x.reshape(len(x), -1)
    for layer in range(hidden):
        x = relu(linear(x, state, f"classifier.{3 * layer}"))
    return linear(x, state, f"classifier.{3 * hidden}")


def bottleneck_resnet(state, x, blocks):
    """torchvision.models.resnet50: the stride in the 3x3 convolution."""
    x = relu(norm(conv(x, state["conv1.weight"], stride=2, padding=3), state, "bn1"))
    x = max_pool(x, 3, 2, 1)
    for stage, count in enumerate(blocks):
        for block in range(count):
            home, stride = f"layer{stage + 1}.{block}", 2 if stage and not block else 1
            y = relu(norm(conv(x, state[f"{home}.conv1.weight"]), state, f"{home}.bn1"))
            y = relu(norm(conv(y, state[f"{home}.conv2.weight"], stride=stride, padding=1), state, f"{home}.bn2"))
            y = norm(conv(y, state[f"{home}.conv3.weight"]), state, f"{home}.bn3")
            if not block:
                x = norm(conv(x, state[f"{home}.downsample.0.weight"], stride=stride), state, f"{home}.downsample.1")
            x = relu(x + y)
    return linear(x.mean((2, 3)), state, "fc")


def cifar_resnet(state, x, blocks, both):
    """He et al.'s shortcuts A: every second pixel; channels of zeros on both sides, or at the end."""
    x = relu(norm(conv(x, state["conv1.weight"], padding=1), state, "bn1"))
    for stage, count in enumerate(blocks):
        for block in range(count):
            home, stride = f"layer{stage + 1}.{block}", 2 if stage and not block else 1
            y = relu(norm(conv(x, state[f"{home}.conv1.weight"], stride=stride, padding=1), state, f"{home}.bn1"))
            y = norm(conv(y, state[f"{home}.conv2.weight"], padding=1), state, f"{home}.bn2")
            if stride == 2:
                added = y.shape[1] - x.shape[1]
                sides = (added // 2, added - added // 2) if both else (0, added)
                x = np.pad(x[:, :, ::2, ::2], [(0, 0), sides, (0, 0), (0, 0)])
            x = relu(x + y)
    return linear(x.mean((2, 3)), state, "linear")


def mobilenet(state, x):
    """torchvision.models.mobilenet_v2."""

    def unit(x, name, **how):
        return norm(conv(x, state[f"{name}.0.weight"], **how), state, f"{name}.1")

    x, place = relu6(unit(x, "features.0", stride=2, padding=1)), 1
    for expansion, count, first in ((1, 1, 1), (6, 2, 2), (6, 3, 2), (6, 4, 2), (6, 3, 1), (6, 3, 2), (6, 1, 1)):
        for block in range(count):
            home, y, part = f"features.{place}.conv", x, 0
            if expansion > 1:
                y, part = relu6(unit(y, f"{home}.0")), 1
            y = relu6(unit(y, f"{home}.{part}", stride=1 if block else first, padding=1, groups=y.shape[1]))
            y = norm(conv(y, state[f"{home}.{part + 1}.weight"]), state, f"{home}.{part + 2}")
            x = x + y if x.shape == y.shape else y
            place += 1
    x = relu6(unit(x, f"features.{place}"))
    return linear(x.mean((2, 3)), state, "classifier.1")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru_classifier(state, x, layers):
    """torch.nn.GRU by the equations of its documentation, the mean over time, a linear layer."""
    for layer in range(layers):
        driven, returned = state[f"gru.weight_ih_l{layer}"], state[f"gru.weight_hh_l{layer}"]
        given, fed_back = state[f"gru.bias_ih_l{layer}"], state[f"gru.bias_hh_l{layer}"]
        h, states = np.zeros((len(x), returned.shape[1])), []
        for frame in np.moveaxis(x, 1, 0):
            from_input = np.split(frame @ driven.T + given, 3, axis=1)
            from_state = np.split(h @ returned.T + fed_back, 3, axis=1)
            r, z = (sigmoid(from_input[gate] + from_state[gate]) for gate in (0, 1))
            n = np.tanh(from_input[2] + r * from_state[2])
            h = (1 - z) * n + z * h
            states.append(h)
        x = np.stack(states, axis=1)
    return linear(x.mean(1), state, "fc")
