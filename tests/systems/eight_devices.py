"""Every trainer on one device and on eight virtual ones; run by test_parallel.py in a process that has eight.

Prints a JSON object: by trainer, how far the two results lie apart, as share of the largest number in them.
"""

import json
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from modicum import admm, analog, models, train
from modicum.conference import FaceSpec, demonstration
from modicum.constraints import TopK
from modicum.core import parallel
from modicum.systems import face_codec, federation, simulation
from modicum.systems.federation_config import FederatedConfig
from modicum.systems.simulation_config import ChipTraining, Simulation
from modicum.train import DataConfig, OptimizerConfig
from modicum.train.loop import resume

KEY = jax.random.key(0)
MESH = parallel.data_mesh()


def apart(one, eight):
    """Largest difference of two trees, as share of the largest number."""
    pairs = list(zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True))
    assert all(len(leaf.sharding.device_set) == 1 for _, leaf in pairs if isinstance(leaf, jax.Array))
    return float(max(np.abs(a - b).max() for a, b in pairs) / max(np.abs(a).max() for a, _ in pairs))


def whole_numbers(mesh):
    """A linear model on small whole numbers, whose sums have no rounding: to be equal bit for bit."""
    inputs = jax.random.randint(KEY, (64, 5), -3, 4).astype(jnp.float32)
    batches = train.batches((inputs, inputs.sum(1)), KEY, 16)
    step_fn = train.make_train_step(lambda w, batch: ((batch[0] @ w - batch[1]) ** 2).mean(), optax.sgd(2.0**-6))
    return train.fit(train.init_state(jnp.zeros(5), optax.sgd(2.0**-6)), step_fn, batches, 2, mesh=mesh).params


def network(mesh, folder=None, steps=3):
    """A net with batch statistics, augmented images, momentum; three steps."""
    data = train.load("digits", "train")
    model = models.ResNet(blocks=(1,), widths=(4,))
    optimizer = optax.sgd(0.1, momentum=0.9)
    params = jax.jit(model.init)(KEY, data.inputs[:2])
    step_fn = train.make_train_step(train.classification_loss(models.apply_training(model)), optimizer, has_aux=True)
    batches = train.batches(data.arrays, KEY, 32, augment=True)
    start = train.init_state(params, optimizer)
    made = train.fit(start, step_fn, batches, steps, folder=folder, mesh=mesh)
    return made if folder is None else (made, resume(start, folder))


def resumed():
    """Two steps on eight devices; the checkpoint is what they ended with, and one device makes the third step."""
    with tempfile.TemporaryDirectory() as folder:
        made, read = network(MESH, folder, steps=2)
        assert jax.tree.all(jax.tree.map(np.array_equal, made, read))
        return apart(network(None).params, network(None, folder)[0].params)


def compression(mesh, method):
    """Least squares with a few weights; batches that the caller stacked."""
    inputs = jax.random.normal(KEY, (4, 16, 6))
    labels = inputs @ jnp.array([3.0, -2.0, 0.1, 0.0, 0.2, 1.5])
    config = admm.CompressConfig(outer=3, inner=4, retrain=6)

    def loss_fn(w, batch):
        return ((batch[0] @ w - batch[1]) ** 2).mean()

    result = method(loss_fn, jnp.ones(6), (inputs, labels), TopK(3), config, mesh=mesh)
    assert result.report.violation == 0
    return result.params, result.projected


def federated(mesh):
    config = FederatedConfig(
        data=DataConfig(name="digits"),
        model=models.SmallConvNet(widths=(2, 4)),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.05),
        clients=8,
        rounds=1,
        local_steps=2,
        batch=8,
        path="plain",
    )
    return federation.federate(config, mesh=mesh).state.params


def through_chips(mesh):
    model = models.SmallConvNet(widths=(2,))
    training = train.load("digits", "train")
    variables = jax.jit(model.init)(KEY, training.inputs[:2])
    spec = analog.CrossbarSpec(sigma=0.1, input_bits=4, weight_bits=4)
    settings = Simulation(
        network=train.Experiment(data=DataConfig(name="digits"), model=model),
        spec=spec,
        training=ChipTraining(steps=2, batch=16),
        batch=50,
        calibration_examples=50,
    )
    with tempfile.TemporaryDirectory() as folder:
        chosen = simulation.specified(settings)
        return simulation.fitted(settings, chosen, variables, training, Path(folder), mesh=mesh)


def face():
    """The batches of a face's training split evenly; the rest of it is `train.fit`."""
    settings = face_codec.FaceTraining(spec=FaceSpec(size=64), sources=2)
    batch = parallel.shard(face_codec.face_batches([demonstration.clip(64, 1.0)], settings), MESH)(0)
    return sorted({leaf.sharding.shard_shape(leaf.shape)[0] for leaf in batch})


def refused(mesh):
    try:
        train.fit(train.init_state(jnp.zeros(()), optax.sgd(1.0)), None, lambda step: jnp.ones(12), 1, mesh=mesh)
    except ValueError as error:
        return str(error)
    return "nothing"


if __name__ == "__main__":
    assert len(jax.devices()) == 8
    arms = {arm.__name__: lambda mesh, arm=arm: compression(mesh, arm) for arm in (admm.compress, admm.gradual)}
    trainers = {
        "whole numbers": whole_numbers,
        "network": lambda mesh: network(mesh).params,
        **arms,
        "federated": federated,
        "through chips": through_chips,
    }
    found = {name: apart(trainer(None), trainer(MESH)) for name, trainer in trainers.items()}
    print(json.dumps({**found, "resumed": resumed(), "refused": refused(MESH), "face": face()}))
