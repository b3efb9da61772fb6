"""A face at 64 pixels, learned from the first part of a call (398,509 parameters).

Paper: FAIVConf (arXiv 2207.04090), reconstructed; its tables could not be read.
Command: python scripts/call.py train VIDEO --model face.npz --config configs/conference/personalized.py
Time: `python scripts/tables.py` (video).
Score: likewise.
"""

from modicum.conference import FaceSpec
from modicum.systems.face_codec import FaceTraining


def config(size: int = 64, steps: int = 1000) -> FaceTraining:
    """The training; larger pictures want more steps, and a GPU."""
    return FaceTraining(spec=FaceSpec(size=size), steps=steps)
