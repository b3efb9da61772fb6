"""One peer on one piece of work, in its own environment: prints one line of JSON. Called by scripts/bench/analog.py."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from timing import timed

SIZE, BATCH = 512, 256


def aihwkit(name: str, work: str) -> Any:
    """A layer of aihwkit on its C++ tile, or on torch's: weight noise, 8-bit converters, output noise."""
    from aihwkit.nn import AnalogConv2d, AnalogLinear
    from aihwkit.simulator.configs import InferenceRPUConfig, TorchInferenceRPUConfig
    from aihwkit.simulator.parameters.enums import WeightModifierType

    config = (TorchInferenceRPUConfig if name == "aihwkit_torch" else InferenceRPUConfig)()
    config.forward.inp_res = config.forward.out_res = 1 / 254
    config.forward.out_noise = 0.05
    config.modifier.type = WeightModifierType.ADD_NORMAL
    config.modifier.std_dev = 0.05
    if work == "linear":
        return AnalogLinear(SIZE, SIZE, bias=False, rpu_config=config)
    return AnalogConv2d(64, 64, 3, padding=1, bias=False, rpu_config=config)


def lightning(work: str) -> Any:
    """A layer of aihwkit-lightning: the same."""
    from aihwkit_lightning.nn import AnalogConv2d, AnalogLinear
    from aihwkit_lightning.simulator.configs import TorchInferenceRPUConfig, WeightModifierType

    config = TorchInferenceRPUConfig()
    config.forward.inp_res = config.forward.out_res = 1 / 254
    config.forward.out_bound = 12.0
    config.forward.out_noise = 0.05
    config.modifier.type = WeightModifierType.ADD_NORMAL
    config.modifier.std_dev = 0.05
    config.pre_post.input_range.enable = True
    if work == "linear":
        return AnalogLinear(SIZE, SIZE, bias=False, rpu_config=config)
    return AnalogConv2d(64, 64, 3, padding=1, bias=False, rpu_config=config)


def on_torch(name: str, work: str, repeats: int) -> dict[str, Any]:
    """Forward, and forward with both gradients, in training mode."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(2)
    if name == "torch":
        plain = torch.nn.Linear(SIZE, SIZE, bias=False)
        layer = plain if work == "linear" else torch.nn.Conv2d(64, 64, 3, padding=1, bias=False)
    else:
        layer = lightning(work) if name == "lightning" else aihwkit(name, work)
    layer.train()
    shape = (BATCH, SIZE) if work == "linear" else (16, 64, 32, 32)
    inputs = torch.rand(shape, requires_grad=True)
    output = layer(inputs)
    assert torch.isfinite(output).all()

    def forward() -> None:
        with torch.no_grad():
            layer(inputs)

    def both() -> None:
        layer.zero_grad()
        inputs.grad = None
        (layer(inputs) ** 2).sum().backward()

    return {
        "forward": timed(forward, repeats),
        "forward and backward": timed(both, repeats),
        "torch": torch.__version__,
    }


def cross_sim(repeats: int) -> dict[str, Any]:
    """ISAAC as CrossSim configures it, with 8-bit weights and inputs, each input bit and cell converted."""
    import simulator
    from simulator import AnalogCore, CrossSimParameters

    path = Path(simulator.__file__).parent / "configs" / "ISAAC.json"
    params = CrossSimParameters().from_json(str(path))
    params.core.weight_bits = 8
    params.core.bit_sliced.num_slices = 4
    params.core.mapping.inputs.mvm.min, params.core.mapping.inputs.mvm.max = -1.0, 1.0
    params.xbar.dac.mvm.bits = 8
    params.xbar.device.infinite_on_off_ratio = True
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(SIZE, SIZE)) / SIZE**0.5
    inputs = rng.uniform(size=(BATCH, SIZE))
    core = AnalogCore(weights.T, params=params)
    output = core @ inputs.T
    exact = weights.T @ inputs.T
    difference = float(np.linalg.norm(output - exact) / np.linalg.norm(exact))
    # at 16-bit inputs it is .008 off; what 8 bits leave of it is CrossSim's own arithmetic and in the results
    assert difference < 0.5, f"CrossSim's product is {difference} off"
    return {"forward": timed(lambda: core @ inputs.T, repeats), "relative_difference": difference}


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("work")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    if arguments.name == "cross_sim":
        found = cross_sim(arguments.repeats)
    else:
        found = on_torch(arguments.name, arguments.work, arguments.repeats)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
