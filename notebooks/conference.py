# %% [markdown]
# # A video call by face motion
#
# In Colab: upload this notebook, put a checkout of Modicum into `/content/modicum`, and run; the first cell installs it
# with FFmpeg's codecs. Elsewhere `pip install -e '.[conference]'` brings these, and the cell does nothing.
#
# Both ends of a call hold one model of a face. A frame then takes a short motion vector, and now and then a picture;
# the receiver bends that picture and draws the frame. On a public-domain picture of an astronaut, moved by known warps,
# this notebook
#
# 1. learns a face from the first seconds of a call;
# 2. runs both ends, step by step, and counts every byte;
# 3. loses and damages packets;
# 4. puts H.264 and H.265 beside it.

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("modicum") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "/content/modicum[conference]"], check=True)

# %%
import matplotlib.pyplot as plt
import numpy as np

from modicum import conference
from modicum.conference import clips, demonstration, quality
from modicum.systems import face_calls, face_codec, face_page

# %% [markdown]
# ## A call
#
# Sixteen seconds at 64 x 64 pixels. The model learns from the first three quarters; the last quarter is the call that
# is measured. A video of your own, cut to a head: `clips.read("me.mp4", 64)`.

# %%
first, rest = clips.split(demonstration.clip(64, 16.0))
figure, axes = plt.subplots(1, 6, figsize=(9, 1.7), layout="constrained")
for panel, frame in zip(axes, first[::40], strict=False):
    panel.imshow(frame)
    panel.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## Learn the face
#
# A motion encoder, a dense flow and a generator, trained together; the loss also pays for the bits that the motion will
# take. A minute or two on two cores, much of it compiling: enough to see what the method does, far from what it can do
# (the README's figures are of 4,000 steps of a larger model).

# %%
steps = 150  # 2 in tests
training = face_codec.FaceTraining(
    spec=conference.FaceSpec(size=64, latents=8, width=8, blocks=1), steps=steps, learning_rate=3e-3, sources=6
)
params = face_codec.train_face([first], training)
face = conference.make_codec(training.spec, params, first)  # the model, and what is usual of its motion vectors

# %% [markdown]
# ## Both ends, step by step
#
# `(state, frame) -> (state, packet)` and `(state, packet) -> (state, frames)`: no sockets, no clocks, nothing hidden.
# Packets hold ten frames (`group=`), so that nine times out of ten there is none.

# %%
spec = conference.CallSpec()
sender, receiver = conference.sender_init(face, spec), conference.receiver_init(face, spec)
packets, shown = [], []
for frame in rest:
    before = sender
    sender, packet = conference.sender_step(sender, frame)
    if packet:
        packets.append(packet)
        receiver, frames = conference.receiver_step(receiver, packet)
        shown.extend(frames)
print(len(rest), "frames,", len(packets), "packets of", [len(packet) for packet in packets], "bytes")
print("the same state and frame give the same packet:", conference.sender_step(before, frame)[1] == packets[-1])

# %% [markdown]
# The first packet has the picture in it, an HEVC still; the others have little but motion. `call` runs a whole clip
# through both ends and says where the bytes went.

# %%
call = face_calls.call(face, rest, spec)
seconds = len(rest) / spec.fps
print(f"{call.kbps:.2f} kilobits a second over {seconds:g} seconds; bytes: {face_calls.byte_shares(call.sizes)}")
print({name: round(value, 3) for name, value in quality.measure(rest, call.frames).items()})

# %% [markdown]
# ## A wire that loses and damages
#
# A packet whose checksum is wrong does not exist for the receiver; frames that are missing are filled in, and a packet
# that stands for itself (`alone_every=`) comes soon. The first one, with the picture, arrives here; where it may not,
# `source_kbps=` lets further pictures follow.

# %%
wire = face_calls.WireSpec(loss=0.2, damaged=0.1, twice=0.1, swapped=0.1, seed=5)
rough = face_calls.call(face, rest, spec, wire)
count = min(len(rest), len(rough.frames))
print(f"{rough.receiver.damaged} packets refused, {rough.receiver.missing} frames filled in")
print({name: round(value, 3) for name, value in quality.measure(rest[:count], rough.frames[:count]).items()})

# %% [markdown]
# ## More bits
#
# A target turns the residual layer on: what the drawn picture lacks is sent as far as there is room. Over a call the
# rate hits its target; a picture is never cut for it.

# %%
finer = face_calls.call(face, rest, conference.CallSpec(target_kbps=8.0))
print(f"{finer.kbps:.2f} kilobits a second:", face_calls.byte_shares(finer.sizes))
print({name: round(value, 3) for name, value in quality.measure(rest, finer.frames).items()})

# %% [markdown]
# ## Beside conventional video
#
# H.264 and H.265 at low delay and slow presets, at the least rate that is not below ours. At this size neither goes as
# low: the lowest quality that they have still takes more bits.

# %%
pictures = [
    face_page.Shown("original", rest, None, {}),
    face_page.Shown("motion alone", call.frames, call.kbps, quality.measure(rest, call.frames)),
    face_page.Shown("with a residual", finer.frames, finer.kbps, quality.measure(rest, finer.frames)),
    *(face_page.nearest_conventional(rest, codec, call.kbps, spec.fps) for codec in ("H.264", "H.265")),
]
figure, axes = plt.subplots(1, len(pictures), figsize=(11, 2.9), layout="constrained")
for panel, picture in zip(np.atleast_1d(axes), pictures, strict=True):
    panel.imshow(picture.frames[len(rest) // 2], interpolation="nearest")
    rate = "" if picture.kbps is None else f"\n{picture.kbps:.1f} kbps, {picture.measures['psnr']:.1f} dB"
    panel.set(title=picture.name + rate, xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## Further
#
# - `modicum call demo` is the same with a larger model, and ends with a page of clips; `modicum call train me.mp4`,
#   `encode`, `decode`, `play` (two processes over UDP) are for videos of your own.
# - `CallSpec(swap=True)` keeps the still background of the source, `blur=` blurs faces before they are sent,
#   `source_kbps=` sends further pictures when the head turns away.
# - The packet format stands in the docstring of `modicum.conference`. Packets are neither encrypted nor authenticated.
