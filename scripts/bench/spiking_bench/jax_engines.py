"""Spyx, by its public interface, and ours."""

from collections.abc import Callable
from typing import Any

import numpy as np

from spiking_bench.problem import Problem


class JaxEngine:
    """A loss of parameters, compiled with its gradient and update.

    Args:
        problem: the folder.
        params: a pytree of parameters.
        outputs: `(params, events)` -> logits `(t, b, classes)`.
        version: of the library.
    """

    def __init__(self, problem: Problem, params: Any, outputs: Callable[[Any, Any], Any], version: str) -> None:
        import jax
        import optax

        self.version, self._jax, self._params = f"{version}, jax {jax.__version__}", jax, params
        self._arguments = jax.device_put((problem.events, problem.labels))
        optimizer = optax.sgd(problem.settings["learning_rate"])
        self._state = optimizer.init(params)

        def loss(params: Any, events: Any, labels: Any) -> Any:
            logits = outputs(params, events).mean(0)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        def step(params: Any, state: Any, events: Any, labels: Any) -> Any:
            value, gradient = jax.value_and_grad(loss)(params, events, labels)
            updates, state = optimizer.update(gradient, state)
            return optax.apply_updates(params, updates), state, value

        self._loss = loss
        self._step = jax.jit(step).lower(params, self._state, *self._arguments).compile()

    def run(self) -> np.ndarray:
        """A training step; returns its loss."""
        self._params, self._state, loss = self._step(self._params, self._state, *self._arguments)
        return np.asarray(loss).reshape(1)

    def facts(self) -> dict[str, Any]:
        """Memory by XLA's plan, and what the step found."""
        jax, leaves = self._jax, self._jax.tree.leaves(self._params)
        gradient = jax.jit(jax.grad(self._loss)).lower(self._params, *self._arguments).compile()
        found = gradient(self._params, *self._arguments)
        norm = sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(found)) ** 0.5
        return {
            "loss": float(self.run()[0]),
            "gradient_norm": norm,
            "parameters": sum(leaf.size for leaf in leaves),
            "xla_temp_bytes": gradient.memory_analysis().temp_size_in_bytes,
        }


def spyx(problem: Problem, trained_leak: bool = False) -> JaxEngine:
    """Spyx; its neurons fire one step later. Their leak is a parameter, held fixed unless `trained_leak`."""
    from importlib.metadata import version

    import spyx.axn
    import spyx.nn
    from flax import nnx

    rngs = nnx.Rngs(0)
    layers: list[Any] = []
    for kernel in problem.kernels[:-1]:
        convolution = nnx.Conv(*kernel.shape[2:], kernel.shape[:2], use_bias=False, rngs=rngs)
        convolution.kernel[...] = kernel
        boxcar = spyx.axn.boxcar(width=1, height=1)
        layers += [convolution, spyx.nn.LIF(problem.shape, problem.settings["leak"], activation=boxcar, rngs=rngs)]
    readout = nnx.Linear(*problem.kernels[-1].shape, use_bias=False, rngs=rngs)
    readout.kernel[...] = problem.kernels[-1]
    window = (problem.settings["pool"],) * 2
    layers += [lambda spikes: nnx.avg_pool(spikes, window, strides=window), spyx.nn.Flatten(), readout]
    model = spyx.nn.Sequential(*layers)

    def trained(path: Any, value: Any) -> bool:
        return isinstance(value, nnx.Param) and (trained_leak or path[-1] != "beta")

    graph, params, rest = nnx.split(model, trained, ...)

    def outputs(params: Any, events: Any) -> Any:
        return spyx.nn.run(nnx.merge(graph, params, rest), events)[0]

    return JaxEngine(problem, params, outputs, f"spyx {version('spyx')}")


def modicum(problem: Problem, scheme: str) -> JaxEngine:
    """Ours, by the name of a scheme of `network.SCHEMES`."""
    import modicum
    from modicum import spiking
    from spiking_bench import network

    chosen, depth = network.SCHEMES[scheme], len(problem.kernels) - 2
    layers = network.network(chosen.neuron, depth, problem.shape[-1])
    params = [
        {"synapse": {"kernel": kernel}, "neuron": layer.neuron.init_params()}
        for layer, kernel in zip(layers, problem.kernels, strict=True)
    ]

    def outputs(params: Any, events: Any) -> Any:
        return spiking.multi_step(layers, params, events, residuals=chosen.residuals, order=chosen.order)[0]

    return JaxEngine(problem, params, outputs, f"modicum {modicum.__version__}")
