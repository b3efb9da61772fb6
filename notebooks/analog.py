# %% [markdown]
# # Your model on a crossbar in ten lines
#
# In Colab: upload this notebook, put a checkout of Modicum into `/content/modicum`, and run on a CPU; the first cell
# installs it. Anywhere else it finds what is installed.
#
# A resistive crossbar multiplies a vector by a matrix where the matrix lies, in analog currents; converters at its edge
# cost most of the energy and add the errors. This notebook puts a small network for scikit-learn's digits onto
# simulated chips: read by read, with gradients, and with what the run would cost.

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
import numpy as np
import optax

from modicum import analog, train

training, held_out = train.load("digits", "train"), train.load("digits", "test")
images, labels = (jnp.asarray(array[:200]) for array in held_out.arrays)


# %% [markdown]
# ## A network is a function of parameters and data
#
# Any JAX function will do: plain as here, flax, equinox.


# %%
def network(params, x):
    hidden = jax.nn.relu(x.reshape(len(x), -1) @ params["first"])
    return hidden @ params["second"]


def fit(apply_fn, params, steps, learning_rate=5e-3):
    """Adam on random batches; `apply_fn` takes a key, which a chip needs and a plain network ignores."""
    optimizer = optax.adam(learning_rate)
    inputs, targets = (jnp.asarray(array) for array in training.arrays)

    @jax.jit
    def step(carry, key):
        params, state = carry
        chosen = jax.random.randint(key, (64,), 0, len(targets))

        def loss(params):
            logits = apply_fn(key, params, inputs[chosen])
            return optax.softmax_cross_entropy_with_integer_labels(logits, targets[chosen]).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    carry = (params, optimizer.init(params))
    for key in jax.random.split(jax.random.key(1), steps):
        carry = step(carry, key)
    return carry[0]


first, second = jax.random.split(jax.random.key(0))
params = {"first": jax.random.normal(first, (64, 48)) / 8, "second": jax.random.normal(second, (48, 10)) / 7}
params = fit(lambda _, params, x: network(params, x), params, 300)


def accuracy(logits):
    return float((logits.argmax(-1) == labels).mean())


print(f"software: {accuracy(network(params, images)):.3f}")

# %% [markdown]
# ## The ten lines
#
# A device, scales that suit the data, and `simulate`: the same function with a key in front, which says which chip.
# Conductances here are off by a tenth; the converters have 4 bits and read fragments of 8 rows.

# %%
rough = analog.crossbar(fragment=8, weight_bits=4, input_bits=4, adc_bits=4, sigma=0.1)
device = analog.scaled(network, rough, params, images, quantile=0.99)
chip = jax.jit(analog.simulate(network, device))
chips = [accuracy(chip(jax.random.key(seed), params, images)) for seed in range(10)]
print(f"10 chips: {np.mean(chips):.3f}, the worst {min(chips):.3f}")

# %% [markdown]
# ## What it costs
#
# `measured` gives outputs and a report of the same run: leading zeros of this chip's own activations are skipped, as
# FORMS does, and every conversion is counted.

# %%
logits, report = analog.measured(network, device)(jax.random.key(0), params, images)
print(f"accuracy of this very run: {accuracy(logits):.3f}")
print(report)

# %% [markdown]
# ## How rough may a chip be?

# %%
sigmas = (0.2, 0.4)
spread = []
for sigma in sigmas:
    worse = analog.scaled(network, analog.crossbar(rough.spec, sigma=sigma), params, images, quantile=0.99)
    on_chip = jax.jit(analog.simulate(network, worse))
    spread.append([accuracy(on_chip(jax.random.key(seed), params, images)) for seed in range(10)])

plt.boxplot(spread, tick_labels=[str(sigma) for sigma in sigmas])
plt.xlabel("variation of the conductances (sigma)")
plt.ylabel("accuracy of 10 chips")
plt.show()

# %% [markdown]
# ## Train through the chip
#
# Gradients pass straight through; a new chip at every step makes weights that suit any chip.

# %%
roughest = jax.jit(analog.simulate(network, worse))
hardened = fit(roughest, params, 150, learning_rate=2e-3)
before = [accuracy(roughest(jax.random.key(seed), params, images)) for seed in range(10)]
after = [accuracy(roughest(jax.random.key(seed), hardened, images)) for seed in range(10)]
print(f"sigma {sigmas[-1]}: {np.mean(before):.3f} before, {np.mean(after):.3f} after training on chips")

# %% [markdown]
# ## Many reads of one chip
#
# A programmed chip can be compiled: the cheapest path that gives the same numbers, bit for bit, as converting every
# read. It says which path, and why.

# %%
vectors = images.reshape(len(images), -1)
for spec in (rough.spec, analog.CrossbarSpec(weight_bits=4, input_bits=4, adc_bits=4)):
    programmed = analog.program(jax.random.key(0), params["first"], spec)
    compiled = analog.compile_chip(programmed, spec)
    same = jnp.array_equal(
        analog.read_compiled(jax.random.key(1), compiled, vectors),
        analog.read(jax.random.key(1), programmed, vectors, spec),
    )
    print(f"{compiled.path}, as {compiled.why}; the same numbers: {bool(same)}")
