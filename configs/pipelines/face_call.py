"""A face model for calls whose generator is pruned to shared patterns by ADMM, compiled, and used on held-out frames.

Anchor: none; FAIVConf runs a dense generator.
Command: modicum pipeline pipelines/face_call (without any data: clip="" steps=300)
Time and score: `modicum tables` (pipelines).
"""

from modicum.conference import FaceSpec
from modicum.systems.compression_config import Schedule
from modicum.systems.face_codec import FaceTraining
from modicum.systems.pipelines import OnCall


def config(
    clip: str = "LIA_obama.mov",
    steps: int = 2000,
    outer: int = 8,
    width: int = 32,
    seconds: float = 8.0,
    frames: int = 200,
) -> OnCall:
    """The pipeline.

    Args:
        clip: a file of `$MODICUM_DATA/clips`, or "" for the moving astronaut.
        steps: of training; retraining has a quarter as many.
        outer: dual updates, with 25 steps before each.
        width: channels of the model's first layer.
        seconds: of the astronaut.
        frames: held-out frames at most.
    """
    return OnCall(
        training=FaceTraining(spec=FaceSpec(size=64, width=width), steps=steps, augment=0.05),
        schedule=Schedule(
            outer=outer, inner=25, retrain=steps // 4, rho=1.0, learning_rate=3e-4, retrain_learning_rate=5e-4
        ),
        clip=clip,
        seconds=seconds,
        frames=frames,
    )
