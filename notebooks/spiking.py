# %% [markdown]
# # Training spiking networks in almost no memory
#
# In Colab: upload this notebook, put a checkout of Modicum into `/content/modicum`, and run on a CPU; the first cell
# installs it. Anywhere else it finds what is installed.
#
# A spiking network is a recurrent network: to train it by backpropagation through time, one keeps what every neuron
# did at every step. Memory grows with the number of steps, and that is what users of spiking networks run out of.
#
# This notebook shows three ways out, on scikit-learn's digits:
#
# 1. **packed**: two bits a neuron and step are enough for the exact gradient of a leaky integrate-and-fire neuron;
# 2. **reversible**: a neuron that forgets nothing can be run backward; nothing is kept but its last potential;
# 3. **coupled blocks**: the same in depth.
#
# Each is a switch, not another network: values and gradients stay what they are.

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("modicum") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "/content/modicum"], check=True)

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

from modicum import spiking, train
from modicum.spiking import activity, pictures

# %% [markdown]
# ## A network is a chain of layers
#
# A layer is a synapse (what turns spikes into currents) and a neuron (what turns currents into spikes). `Carry` is
# integrate-and-fire on a circle: the potential is a 16-bit number, a spike is the carry of an addition.
# `grid_bits=12` rounds the weights to multiples of 2^-12, so that sums of spikes times weights are exact, in any
# order: whatever is computed again later comes out the same, bit for bit.


# %%
def network(neuron):
    settings = {"grid_bits": 12, "standardize": True, "gain": 1.4, "bias": True}
    return (
        spiking.Layer(spiking.Convolution(features=16, **settings), neuron),
        spiking.Layer(spiking.Convolution(features=32, pool=2, **settings), neuron),
        spiking.Layer(spiking.Dense(features=10, pool=2)),
    )


layers = network(spiking.Carry())
params = spiking.init(jax.random.key(0), layers, (8, 8, 1))
jax.tree.map(jnp.shape, params)

# %% [markdown]
# ## One switch
#
# `residuals` says how the backward pass gets at the past. The image is the same at all steps (`steps=`: direct coding).


# %%
def loss_fn(params, batch, residuals="packed", steps=8):
    images, labels = batch
    logits, _ = spiking.multi_step(layers, params, images, residuals=residuals, steps=steps)
    logits = logits.mean(0)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, {"accuracy": (logits.argmax(-1) == labels).mean()}


digits, held_out = train.load("digits", "train"), train.load("digits", "test")
batch = digits.inputs[:32], digits.labels[:32]
gradients = {
    mode: jax.jit(jax.grad(loss_fn, has_aux=True), static_argnums=2)(params, batch, mode)[0]
    for mode in ("autodiff", "packed", "reversible")
}
for mode, gradient in gradients.items():
    same = jax.tree.map(lambda a, b: bool((a == b).all()), gradient, gradients["autodiff"])
    print(f"{mode:12} same bits as autodiff: {all(jax.tree.leaves(same))}")

# %% [markdown]
# ## What it costs
#
# XLA's own account of temporary memory, for the gradient of this network on 32 images.

# %%
steps = (4, 16, 64, 256)


def gradient(mode, steps):
    return lambda params, batch: jax.grad(loss_fn, has_aux=True)(params, batch, mode, steps)[0]


peaks = {
    mode: [spiking.peak_bytes(gradient(mode, t), params, batch) for t in steps]
    for mode in ("autodiff", "packed", "reversible")
}
figure, axes = plt.subplots(figsize=(5, 3.2))
for mode, peak in peaks.items():
    axes.loglog(steps, [value / 1e6 for value in peak], marker="o", label=mode)
axes.set(xlabel="time steps", ylabel="temporary memory of the gradient, MB")
axes.legend()
figure.tight_layout()

# %% [markdown]
# `memory_plan` picks the fastest mode that fits a budget:

# %%
plan = spiking.memory_plan(layers, params, batch[0], budget_bytes=peaks["reversible"][-1] * 1.1, steps=256)
print(plan.residuals, plan.order, f"{plan.peak_bytes / 1e6:.1f} MB")

# %% [markdown]
# ## Training
#
# The gradient is an ordinary JAX gradient, so everything of JAX and optax works. `scripts/train.py
# configs/spiking/mnist.py` does the same for MNIST, with checkpoints.

# %%
optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, 300))
step = train.make_train_step(loss_fn, optimizer, has_aux=True)
batches = train.batches(digits.arrays, jax.random.key(1), 64)
state = train.fit(train.init_state(params, optimizer), step, batches, 300)
_, test = loss_fn(state.params, (held_out.inputs, held_out.labels))
print(f"held out: {100 * float(test['accuracy']):.1f}%")

# %% [markdown]
# ## Looking inside
#
# Spikes of the second layer for one digit, and the potential of its busiest neuron.

# %%
seen = activity.record_activity(layers, state.params, jnp.asarray(held_out.inputs[:1]), steps=32)
spikes = seen.spikes[1][:, 0].reshape(32, -1)
busiest = int(spikes.sum(0).argmax())
potentials = seen.states[1].membrane_potential[:, 0].reshape(32, -1)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
pictures.raster(left, spikes, most=120)
pictures.membrane_trace(right, potentials[:, busiest], spikes[:, busiest])
figure.tight_layout()

# %% [markdown]
# Spikes turn multiplications into additions. Whether that saves energy depends on how many there are: here each neuron
# fires at every third step, and eight steps of additions cost more than one pass of a network without spikes.

# %%
for row in activity.activity_report(layers, state.params, jnp.asarray(held_out.inputs[:100]), steps=8):
    print(
        f"layer {row.layer}: {row.neurons} neurons, {row.spike_rate:.2f} spikes a step, "
        f"{1e9 * row.joules:.0f} nJ against {1e9 * row.dense_joules:.0f} nJ of a dense layer"
    )

# %% [markdown]
# ## In depth
#
# Coupled blocks `a <- a + f(b)`, `b <- b + g(a)` are undone by subtraction. `ReversibleSpikingResNet` and
# `SpikingTransformer` are made of them: their memory does not grow with the number of blocks.


# %%
def depth_peak(blocks, backward):
    model = spiking.ReversibleSpikingResNet(widths=(8,), blocks=(blocks,), steps=4, backward=backward)
    images = jnp.zeros((8, 16, 16, 1))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return spiking.peak_bytes(jax.grad(lambda v, x: model.apply(v, x).sum()), variables, images)


for blocks in (2, 16):
    print(blocks, {mode: f"{depth_peak(blocks, mode) / 1e6:.1f} MB" for mode in ("autodiff", "streamlined")})
