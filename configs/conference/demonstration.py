"""The moving astronaut at 64 pixels, a small model for a demonstration of two minutes.

Command: python scripts/call.py demo
Time: about two minutes on two cores.
Score: the page that it ends with.
"""

from modicum.conference import FaceSpec
from modicum.systems.face_codec import FaceTraining


def config(steps: int = 350) -> FaceTraining:
    """The training."""
    spec = FaceSpec(size=64, latents=10, width=8, blocks=2)
    return FaceTraining(spec=spec, steps=steps, learning_rate=2e-3, sources=8)
