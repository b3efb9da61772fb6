# %% [markdown]
# # From pruned weights to a program for a phone
#
# In Colab: upload this notebook, put a checkout of Modicum into `/content/modicum`, and run on a CPU; the first cell
# installs it with a C compiler. Elsewhere `pip install -e '.[native]'` brings the compiler, and the cell does nothing.
#
# Zeros that a set has put where hardware likes them are worth nothing until a program skips them. `mobile.compile`
# writes that program: C in which the network's shapes and zeros are constants. On scikit-learn's digits this notebook
#
# 1. prunes a network, compiles it and calls it under `jit`;
# 2. reads the report, and times it beside XLA;
# 3. saves a bundle, and runs that without Python;
# 4. compiles the same for a phone, and looks at the portable module.

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("modicum") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "/content/modicum[native]"], check=True)

# %%
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

from modicum import admm, constraints, mobile, train
from modicum.models import SmallConvNet

folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Prune
#
# A few hundred steps of training, then an eighth of the weights of the inner convolution: 28% of each filter's kernels,
# four positions in each. `group=16` lets sixteen filters share both: that is what fills the vectors of a processor. The
# page on sets says more; `one_shot` is its control arm, which will do for an easy task.

# %%
digits, held_out = train.load("digits", "train"), train.load("digits", "test")
model = SmallConvNet(widths=(32, 64))
score = train.classification_loss(model.apply)
optimizer = optax.adam(2e-3)
steps = 200  # 10 in tests
dense = train.fit(
    train.init_state(jax.jit(model.init)(jax.random.key(0), digits.inputs[:1]), optimizer),
    train.make_train_step(score, optimizer, has_aux=True),
    train.batches(digits.arrays, jax.random.key(1), 32),
    steps,
).params
library = constraints.natural_library(dense["params"]["Conv_1"]["kernel"], 8)
shared = constraints.nest(constraints.Kernels(9, group=16), constraints.Patterns(library, group=16))
result = admm.one_shot(
    lambda params, batch: score(params, batch)[0],
    dense,
    train.batches(digits.arrays, jax.random.key(2), 32),
    constraints.by_path({"Conv_1/kernel": shared}),
    admm.CompressConfig(outer=0, retrain=steps),
)


def accuracy(apply_fn, params):
    return train.evaluate(apply_fn, params, *held_out.arrays)["accuracy"]


print(f"dense {100 * accuracy(model.apply, dense):.1f}%, pruned {100 * accuracy(model.apply, result.params):.1f}%")
print(result.report)

# %% [markdown]
# ## Compile
#
# The result is a function of the image alone; inside `jit` it is an XLA custom call. Any JAX function will do for
# `model.apply`: what has no kernel is left to XLA, and the report says so.

# %%
image = held_out.inputs[:1]
compiled = mobile.compile(model.apply, result.params, image, constraints=result.constraints, batch="any")
inside = jax.jit(lambda x: jax.nn.softmax(compiled(x)))
expected = model.apply(result.params, image)
print("largest difference of a logit:", float(np.abs(compiled(image) - expected).max()))
print("probability of", int(held_out.labels[0]), "is", float(inside(image)[0, held_out.labels[0]]))

# %% [markdown]
# ## The report
#
# Above, what each weight takes in the portable module; below, the kernels of the native program, timed one by one on
# this image: multiply-accumulates that are left (ten outputs are computed as sixteen), and how fast they go.

# %%
print(compiled.report(image))

# %% [markdown]
# ## Beside XLA
#
# The least of many calls on 100 images. Digits are tiny, so that for one of them calling from Python would be most of
# it; the README's tables have networks of a phone's size, eleven engines, and how they were measured.


# %%
def least_microseconds(function, x, repeats=100):
    jax.block_until_ready(function(x))
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(function(x))
        times.append(time.perf_counter() - started)
    return 1e6 * min(times)


images = jax.device_put(held_out.inputs[:100])
kernels = [kernel.seconds for kernel in compiled.report(image).kernels if kernel.seconds]
times = {
    "XLA, zeros as numbers": least_microseconds(jax.jit(lambda x: model.apply(result.params, x)), images) / 100,
    "our kernels, as a call under jit": least_microseconds(jax.jit(compiled), images) / 100,
    "our kernels, timed one by one": 1e6 * sum(kernels),
}
figure, axes = plt.subplots(figsize=(7, 1.8), layout="constrained")
bars = axes.barh(list(times), list(times.values()), color=("tab:gray", "tab:red", "tab:red"))
axes.bar_label(bars, fmt="%.1f", padding=3)
axes.set(xlabel="microseconds an image", xlim=(0, 1.15 * max(times.values())))
axes.invert_yaxis()
plt.show()

# %% [markdown]
# `tuning_seconds=` times kernels to find the fastest of a family, `threads=` uses more cores.
#
# ## A bundle
#
# `save` writes everything that is needed elsewhere, with checksums; `load` refuses a file that has changed. `verify`
# runs the portable module, also by IREE where the extra `iree` is installed.

# %%
bundle = compiled.save(folder / "bundle")
for path in sorted(bundle.iterdir()):
    print(f"{path.stat().st_size:9,}  {path.name}")
again = mobile.load(bundle)
print("loaded, the same numbers:", bool((again(image) == compiled(image)).all()))
engines = ("jax", "iree") if importlib.util.find_spec("iree") else ("jax",)
print(mobile.verify(bundle, image, expected, engines=engines))

# %%
damaged = bytearray((bundle / "weights.bin").read_bytes())
damaged[100] ^= 1
(bundle / "weights.bin").write_bytes(damaged)
try:
    mobile.load(bundle)
except ValueError as refused:
    print("refused:", str(refused).replace(str(folder), ""))
bundle = compiled.save(bundle)  # an older bundle is replaced

# %% [markdown]
# ## Without Python
#
# `README.txt` of the bundle says how to compile `example.c`, which reads images of float32 and writes logits. Here by
# the compiler that was found for this machine.

# %%
from modicum.mobile import native

command = [*native.compiler(native.host()), "-O2", "example.c", "libmodel.a", "-pthread", "-o", str(folder / "example")]
subprocess.run(command, cwd=bundle, check=True)
held_out.inputs[:500].astype(np.float32).tofile(folder / "images.f32")
subprocess.run([folder / "example", bundle / "weights.bin", "images.f32", "logits.f32"], cwd=folder, check=True)
logits = np.fromfile(folder / "logits.f32", np.float32).reshape(-1, 10)
print(f"{len(logits)} images in C: {100 * (logits.argmax(-1) == held_out.labels[:500]).mean():.1f}% right")

# %% [markdown]
# ## For a phone
#
# Another target, the same files: the compiler that `pip` brought has the headers and the C library of 64-bit Arm with
# it. `aarch64-android` gives an object for an app's build. (The first time takes a while: that C library is compiled.)

# %%
phone = mobile.compile(model.apply, result.params, image, constraints=result.constraints, target="aarch64-linux").save(
    folder / "phone"
)
names = {62: "x86-64", 183: "64-bit Arm"}  # by the number that an ELF file has at byte 18
for made in (bundle, phone):
    print(f"{made.name}: {names.get((made / 'libmodel.so').read_bytes()[18], 'another')}")
print((phone / "README.txt").read_text())

# %% [markdown]
# ## For anything that reads StableHLO
#
# `model.mlir` in either bundle: no custom calls; weights lie packed in it and are unpacked on the way. Small, not fast.

# %%
text = compiled.stablehlo()
print(text.splitlines()[0])
print(dict(Counter(re.findall(r"stablehlo\.(\w+)", text)).most_common(12)))
print(f"{len(text.splitlines())} lines, {(bundle / 'model.mlir').stat().st_size:,} bytes as a file")

# %% [markdown]
# `modicum export pattern/digits` is all of this as a command: compress, compile, save, read back, check on the held-out
# examples; `--target aarch64-linux` for a phone.
