"""The static numbers of a face codec."""

from dataclasses import dataclass

from modicum.core import check

SIZES = (64, 128, 256)


@dataclass(frozen=True, kw_only=True)
class FaceSpec:
    """The shape of the model, known at both ends of a call.

    Attributes:
        size: side of the square picture in pixels, 64, 128 or 256.
        latents: numbers of a motion vector, from 4 to 64.
        width: channels at full resolution, at least 4; deeper levels have two and three times as many.
        blocks: residual blocks at the lowest resolution, at least 1.

    Raises:
        ValueError: if a number is out of range.
    """

    size: int = 64
    latents: int = 20
    width: int = 16
    blocks: int = 3

    def __post_init__(self):
        check.one_of(SIZES, size=self.size)
        check.integer(4, 64, latents=self.latents)
        check.integer(4, width=self.width)
        check.integer(1, blocks=self.blocks)

    @property
    def levels(self) -> int:
        """Halvings between the picture and the lowest resolution: 16 x 16, or 32 x 32 for 256 pixels."""
        return {64: 2, 128: 3, 256: 3}[self.size]

    @property
    def bottom(self) -> int:
        """Side of the lowest resolution, where flow and occlusion are estimated."""
        return self.size >> self.levels

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels by level, from full resolution down."""
        return tuple(self.width * min(level + 1, 3) for level in range(self.levels + 1))
