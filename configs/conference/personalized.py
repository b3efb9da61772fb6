"""A face at 64 pixels, learned from the first part of a call (398,509 parameters).

Paper: FAIVConf (arXiv 2207.04090), reconstructed; its tables could not be read.
Command: python scripts/call.py train VIDEO --model face.npz --config configs/conference/personalized.py
Time: `python scripts/tables.py` (video).
Score: likewise.
"""

from modicum.conference import FaceSpec
from modicum.systems.face_codec import FaceTraining


def config(size: int = 64, steps: int = 4000, augment: float = 0.05) -> FaceTraining:
    """The training; larger pictures take longer a step, and want a GPU.

    Args:
        size: side of the pictures.
        steps: optimizer steps.
        augment: how far frames are moved and enlarged, see `FaceTraining`.
    """
    return FaceTraining(spec=FaceSpec(size=size), steps=steps, augment=augment)
