"""The moving astronaut at 64 pixels, trained for as little as a demonstration allows.

Command: python scripts/call.py demo
Time: some minutes on two cores, most of them training and compiling.
Score: the page that it ends with.
"""

from modicum.conference import FaceSpec
from modicum.systems.face_codec import FaceTraining


def config(steps: int = 150) -> FaceTraining:
    """The training."""
    spec = FaceSpec(size=64, latents=10, width=16, blocks=2)
    return FaceTraining(spec=spec, steps=steps, learning_rate=1.5e-3, sources=8)
