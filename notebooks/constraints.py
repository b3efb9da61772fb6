# %% [markdown]
# # Weights that hardware likes
#
# In Colab: upload this notebook, put a checkout of Modicum into `/content/modicum`, and run on a CPU; the first cell
# installs it. Anywhere else it finds what is installed.
#
# A chip or a kernel that is fast on pruned weights is fast on *some* pruned weights: kernels of few shapes, blocks, one
# sign to a fragment, few bits. Such a choice is a **set**; compressing is training that ends inside it. On
# scikit-learn's digits this notebook shows
#
# 1. sets, their projections, and how several become one;
# 2. `admm.compress` beside its control `one_shot`, with as many steps;
# 3. what was chosen, and what it takes in bytes;
# 4. blocks for matrices, shared magnitudes, and a set of your own.

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("modicum") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "/content/modicum"], check=True)

# %%
import dataclasses
import math
from collections import Counter

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from modicum import admm, constraints, train
from modicum.constraints import base, packing
from modicum.core import Packed
from modicum.models import SmallConvNet
from modicum.systems.drawing import draw_kernels, draw_matrix

# %% [markdown]
# ## A trained network
#
# Everything below starts from these weights. Any function `(params, x)` would do in place of the flax module.

# %%
digits, held_out = train.load("digits", "train"), train.load("digits", "test")
model = SmallConvNet(widths=(16, 32))
score = train.classification_loss(model.apply)
optimizer = optax.adam(3e-3)
steps = 300  # 10 in tests
dense = train.fit(
    train.init_state(jax.jit(model.init)(jax.random.key(0), digits.inputs[:1]), optimizer),
    train.make_train_step(score, optimizer, has_aux=True),
    train.batches(digits.arrays, jax.random.key(1), 64),
    steps,
).params


def accuracy(params):
    return train.evaluate(model.apply, params, *held_out.arrays)["accuracy"]


print(f"dense: {100 * accuracy(dense):.1f}% of {len(held_out.labels)} right")

# %% [markdown]
# ## A set and its projection
#
# `project` gives the nearest point of the set, `violation` how far a weight is from it: exactly 0 says that it is a
# member. Here each 3x3 kernel keeps 4 positions, in one of 8 patterns; the library is what the trained kernels show
# most often by themselves.

# %%
kernel = dense["params"]["Conv_1"]["kernel"]  # (3, 3, inputs, outputs)
library = constraints.natural_library(kernel, 8)
patterns = constraints.Patterns(library)
nearest = patterns.project(kernel)
print("violation before and after:", float(patterns.violation(kernel)), float(patterns.violation(nearest)))

# %% [markdown]
# Nearest can be checked by trying: every pattern on every kernel, the one that keeps most energy.

# %%
energies = np.asarray(kernel, np.float64).reshape(9, -1) ** 2
kept = np.stack([energies[list(positions)].sum(0) for positions in library]).max(0)
print("energy kept: ", float((np.asarray(nearest, np.float64) ** 2).sum()))
print("best by hand:", float(kept.sum()))

# %% [markdown]
# ## Several sets at once
#
# Half of each filter's kernels, a pattern in each of those, 4 bits to a weight. Where groups lie inside each other,
# `nest` finds the nearest point of the **intersection**; one set after the other ends further away. `Polarized(9)`
# would join in the same way: one sign to every 9 weights that a crossbar reads together.

# %%
members = constraints.Kernels(8), constraints.Patterns(library), constraints.Levels(4)
together = constraints.nest(*members).fit(kernel)  # fit freezes what is read off the weights: the scale of the levels
one_by_one = kernel
for member in members:
    one_by_one = member.fit(one_by_one).project(one_by_one)


def distance(weight):
    return float(jnp.linalg.norm(weight - kernel) / jnp.linalg.norm(kernel))


print(f"together:           {distance(together.project(kernel)):.4f} of the weight's length away")
print(f"one after another:  {distance(one_by_one):.4f}")
print(together.exact, "- exact: proven to be the nearest point, for this scale")

# %% [markdown]
# Sets whose groups cross are refused, in a sentence that says why; `constraints.split` takes these, by a search.

# %%
try:
    constraints.nest(constraints.TopK(100), constraints.Kernels(8))
except ValueError as refused:
    print("refused:", refused)

# %% [markdown]
# ## Compress
#
# `by_path` says which weight takes which set. `admm.compress` pulls the weights towards their sets while they train,
# projects, and retrains inside the sets; `one_shot` projects at once, and retrains with **as many steps in all**. What
# is gained over it is what ADMM is worth.

# %%
sets = constraints.by_path({"Conv_1/kernel": constraints.nest(*members)})
outer = 12  # 1 in tests
retrain = 200  # 10 in tests
schedule = admm.CompressConfig(outer=outer, inner=25, retrain=retrain)
batches = train.batches(digits.arrays, jax.random.key(2), 64)


def loss_fn(params, batch):
    return score(params, batch)[0]


results = {
    "ADMM": admm.compress(loss_fn, dense, batches, sets, schedule),
    "one-shot": admm.one_shot(loss_fn, dense, batches, sets, schedule),
}
for name, result in results.items():
    print(
        f"{name:9} {result.report.steps} steps: {100 * accuracy(result.projected):.1f}% after the projection, "
        f"{100 * accuracy(result.params):.1f}% retrained, violation {result.report.violation:g}"
    )

# %% [markdown]
# One seed of a small network says little about which is better: the README's tables have more. What ADMM always gives
# is a projection that hurts less.
#
# `stop=`, `refit=` and `folder=` (checkpoints, from which the same call goes on) are settings of the same functions;
# `modicum compress pattern/digits --arms admm,one_shot,gradual` is all of this as a command.

# %%
compressed = results["ADMM"]
print(compressed.report)

# %% [markdown]
# ## What was chosen

# %%
before = np.asarray(kernel)
after = np.asarray(compressed.params["params"]["Conv_1"]["kernel"])
shapes = Counter(map(tuple, (after != 0).reshape(9, -1).T.astype(int).tolist()))
del shapes[(0,) * 9]
common = shapes.most_common(10)
figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), width_ratios=(1, 1, 1.3), layout="constrained")
draw_kernels(axes[0], before, "dense")
draw_kernels(axes[1], after, "patterns, 4 bits")
axes[2].bar(range(len(common)), [count for _, count in common], color="#4c72b0")
axes[2].set(xticks=[], ylabel="kernels", ylim=(0, 1.3 * common[0][1]), title="where the non-zero weights lie")
for place, (shape, count) in enumerate(common):
    inset = axes[2].inset_axes((place - 0.4, 1.03 * count, 0.8, 0.16 * common[0][1]), transform=axes[2].transData)
    inset.imshow(np.reshape(shape, (3, 3)), cmap="Greys", vmin=0, vmax=1)
    inset.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## What it takes in bytes
#
# Every byte is counted: values, what says where they belong, and what is kept once (scale, library). Decoding gives the
# same bits; it runs inside the modules that `mobile.compile` exports.

# %%
for path, packed in compressed.packed.items():
    payload, index, metadata = packed.nbytes
    size = 4 * math.prod(packed.shape)
    print(
        f"{path}: {size:,} bytes -> values {payload}, places {index}, once {metadata}: {size / sum(packed.nbytes):.1f}x"
    )
chosen = compressed.constraints["params"]["Conv_1"]["kernel"]
unpacked = chosen.decode(compressed.packed["params/Conv_1/kernel"])
print("the same bits:", np.array_equal(np.asarray(unpacked).view(np.uint32), after.view(np.uint32)))

# %% [markdown]
# ## Matrices in blocks, and shared magnitudes
#
# Recurrent and dense layers have no kernels. RTMobile's pruning keeps few columns in each block of a strip and few rows
# in all, so that what is left of a strip is one small dense matrix. Micro-structured unification keeps every weight,
# and gives each of most small blocks one absolute value. The matrix below is that of a GRU's size, random.

# %%
matrix = jax.random.normal(jax.random.key(3), (64, 96))  # (inputs, outputs)
blocks = constraints.BlockColumnRow(4, 48, strips=6, blocks=4)
published = dataclasses.replace(blocks, sweeps=0)
unified = constraints.Unified((4, 4), fraction=0.75)
points = {
    name: chosen.project(matrix)
    for name, chosen in {"blocks": blocks, "blocks, as published": published, "unified": unified}.items()
}
for name, point in points.items():
    away = float(jnp.linalg.norm(point - matrix) / jnp.linalg.norm(matrix))
    print(f"{name:21} {int((point != 0).sum()):5,} of {matrix.size:,} kept, {away:.3f} of the length away")
sizes = {name: chosen.encode(matrix).nbytes.total for name, chosen in (("blocks", blocks), ("unified", unified))}
print(f"{4 * matrix.size:,} bytes as floats; packed {sizes}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
draw_matrix(axes[0], np.asarray(points["blocks"]), "columns of blocks, and rows")
draw_matrix(axes[1], np.asarray(points["unified"])[:24, :24], "a corner of the unified matrix")
plt.show()

# %% [markdown]
# ## A set of your own
#
# A set is a frozen dataclass with seven methods (CONTRIBUTING has this skeleton, and what its tests ask for). Then it
# works wherever the others do: in ADMM, in bundles, on chips.


# %%
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Binary:
    """Weights of one magnitude, `+scale` or `-scale`."""

    scale: float

    exact = True  # project is proven to be the nearest point

    def fit(self, w):  # noqa: ARG002 - freezes what is read off the weights: here, nothing
        return self

    def project(self, w):
        return jnp.where(w >= 0, self.scale, -self.scale).astype(w.dtype)

    def violation(self, w):
        return base.relative_distance(w, self.project(w))

    def gain(self, w):
        return base.kept_energy(w, self.project(w))

    def chart(self, w):  # (theta, build): retraining never leaves the set; this one leaves nothing free
        kept = self.project(w)
        return kept.astype(jnp.float32), jax.tree_util.Partial(lambda kept, _: kept, kept)

    def encode(self, w):
        signs, scale = packing.pack_bits(w >= 0, 1), jnp.float32(self.scale)
        held = {"payload": {"signs": signs}, "metadata": {"scale": scale}}
        return Packed(**held, layout="binary", shape=w.shape, dtype=str(w.dtype))

    def decode(self, packed):
        signs = packing.unpack_bits(packed.payload["signs"], 1, math.prod(packed.shape)).reshape(packed.shape)
        scale = packed.metadata["scale"]
        return jnp.where(signs == 1, scale, -scale).astype(packed.dtype)


scale = float(jnp.abs(kernel).mean())
binary = constraints.by_path({"Conv_1/kernel": Binary(scale)})
short = admm.CompressConfig(outer=outer, inner=25, retrain=0)
result = admm.compress(loss_fn, dense, batches, binary, short)
print(f"one bit a weight: {100 * accuracy(result.projected):.1f}% -> {100 * accuracy(result.params):.1f}%")
print(result.report)

# %% [markdown]
# ## Further
#
# - `docs/choose.md`: which set for which hardware.
# - The page on `mobile` compiles such a network for a phone, the page on chips puts it onto a crossbar.
