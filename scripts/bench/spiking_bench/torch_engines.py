"""SpikingJelly and snnTorch, by their public interfaces."""

import gc
from collections.abc import Callable
from typing import Any

import numpy as np

from spiking_bench.problem import Problem


class TorchEngine:
    """A module and how it is run over time.

    Args:
        problem: the folder.
        module: what holds the parameters.
        outputs: events `(t, b, c, h, w)` -> logits `(t, b, classes)`.
        version: of the library.
    """

    def __init__(self, problem: Problem, module: Any, outputs: Callable[[Any], Any], version: str) -> None:
        import torch

        self.version, self.module, self._outputs = version, module, outputs
        self._events = torch.from_numpy(np.ascontiguousarray(problem.events.transpose(0, 1, 4, 2, 3)))
        self._labels = torch.from_numpy(problem.labels.astype(np.int64))
        self._optimizer = torch.optim.SGD(module.parameters(), lr=problem.settings["learning_rate"])
        self._loss = torch.nn.CrossEntropyLoss()

    def forward(self) -> Any:
        """The loss, with its graph."""
        self._optimizer.zero_grad(set_to_none=True)
        return self._loss(self._outputs(self._events).mean(0), self._labels)

    def run(self) -> np.ndarray:
        """A training step; returns its loss."""
        loss = self.forward()
        loss.backward()
        self._optimizer.step()
        return loss.detach().numpy().reshape(1)

    def facts(self) -> dict[str, Any]:
        """Memory of a step, by torch's allocator and by its hooks, and what the step found."""
        import torch

        weights = {parameter.data_ptr() for parameter in self.module.parameters()}
        given = {self._events.untyped_storage().data_ptr()} | weights
        held: dict[int, int] = {}

        def pack(tensor: Any) -> Any:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in given:
                held[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = self.forward()
        saved = sum(held.values())
        loss.backward()
        norm = sum(float((parameter.grad**2).sum()) for parameter in self.module.parameters()) ** 0.5
        del loss
        gc.collect()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            value = self.run()
        events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
        level = peak = 0
        for event in sorted(events, key=lambda event: event.start_ns()):
            level += event.nbytes()
            peak = max(peak, level)
        return {
            "loss": float(value[0]),
            "gradient_norm": norm,
            "parameters": sum(parameter.numel() for parameter in self.module.parameters()),
            "saved_tensor_bytes": saved,
            "allocator_peak_bytes": peak,
        }


def _torch_weights(problem: Problem) -> list[Any]:
    """Kernels as torch has them, channels first; the readout's rows follow the order of torch's flattening."""
    import torch

    convolutions = [np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)) for kernel in problem.kernels[:-1]]
    height, width, channels = problem.shape
    pool = problem.settings["pool"]
    readout = problem.kernels[-1].reshape(height // pool, width // pool, channels, -1)
    readout = np.ascontiguousarray(readout.transpose(3, 2, 0, 1)).reshape(readout.shape[-1], -1)
    return [torch.from_numpy(array.copy()) for array in (*convolutions, readout)]


def _set_weights(problem: Problem, modules: list[Any]) -> None:
    for module, weight in zip(modules, _torch_weights(problem), strict=True):
        module.weight.data.copy_(weight)


def spikingjelly(problem: Problem, mode: str = "plain") -> TorchEngine:
    """SpikingJelly, multi-step; memory-optimized with `mode` "memopt" or "memopt_chunks"."""
    from importlib.metadata import version

    import torch
    from spikingjelly.activation_based import functional, layer, memopt, neuron, surrogate

    class Block(torch.nn.Sequential):
        """What is checkpointed: a convolution and its neurons."""

    def block(kernel: np.ndarray) -> Block:
        convolution = layer.Conv2d(*kernel.shape[2:], kernel.shape[0], padding="same", bias=False, step_mode="m")
        tau = 1 / (1 - problem.settings["leak"])
        settings = {"decay_input": False, "v_reset": None, "surrogate_function": surrogate.Rect(), "step_mode": "m"}
        return Block(convolution, neuron.LIFNode(tau, **settings))

    blocks = [block(kernel) for kernel in problem.kernels[:-1]]
    pool = layer.AvgPool2d(problem.settings["pool"], step_mode="m")
    readout = layer.Linear(*problem.kernels[-1].shape, bias=False, step_mode="m")
    _set_weights(problem, [*(block[0] for block in blocks), readout])
    model = torch.nn.Sequential(*blocks, pool, layer.Flatten(step_mode="m"), readout)

    def outputs(events: Any) -> Any:
        functional.reset_net(model)
        return model(events)

    engine = TorchEngine(problem, model, outputs, f"spikingjelly {version('spikingjelly')}, torch {torch.__version__}")
    if mode == "memopt":
        # levels above 1 search by peaks of CUDA memory
        memopt.optimize_memory(model, Block, lambda _: outputs(engine._events), level=1)
    if mode == "memopt_chunks":
        for number in range(len(blocks)):
            packed = memopt.BitSpikeCompressor()
            model[number] = memopt.checkpoint_module(blocks[number], compressor=packed, chunks=4)
    functional.reset_net(model)
    return engine


def snntorch(problem: Problem) -> TorchEngine:
    """snnTorch, step by step; its resets have no gradient and come one step later, above the threshold only."""
    from importlib.metadata import version

    import snntorch
    import torch
    from snntorch import surrogate

    def boxcar(excess: Any, cotangent: Any, spikes: Any) -> Any:
        del spikes
        return cotangent * (excess.abs() <= 0.5)

    kernels = problem.kernels[:-1]
    convolutions = [
        torch.nn.Conv2d(*kernel.shape[2:], kernel.shape[0], padding="same", bias=False) for kernel in kernels
    ]
    readout = torch.nn.Linear(*problem.kernels[-1].shape, bias=False)
    _set_weights(problem, [*convolutions, readout])
    settings = {"spike_grad": surrogate.custom_surrogate(boxcar), "reset_mechanism": "subtract"}
    neurons = [snntorch.Leaky(problem.settings["leak"], **settings) for _ in kernels]
    pool = torch.nn.AvgPool2d(problem.settings["pool"])
    module = torch.nn.ModuleList([*convolutions, readout])

    def outputs(events: Any) -> Any:
        states = [neuron.reset_mem() for neuron in neurons]
        logits = []
        for spikes in events:
            for number, (convolution, neuron) in enumerate(zip(convolutions, neurons, strict=True)):
                spikes, states[number] = neuron(convolution(spikes), states[number])
            logits.append(readout(pool(spikes).flatten(1)))
        return torch.stack(logits)

    return TorchEngine(problem, module, outputs, f"snntorch {version('snntorch')}, torch {torch.__version__}")
