"""Where the numbers of an activation lie in memory."""

from dataclasses import dataclass


def whole(size: int, unit: int) -> int:
    """The least multiple of `unit` that is not under `size`."""
    return -(-size // unit) * unit


@dataclass(frozen=True)
class Planes:
    """One image in blocks of channels: `[channels / lanes][height + 2 halo][width + 2 halo][lanes]`, in floats.

    A vector is an image of one pixel, a sequence one of a single row whose lanes are all its channels.

    Attributes:
        channels: channels that mean something; the rest of the last block holds zeros.
        height: rows.
        width: pixels in a row.
        lanes: channels that lie together.
        halo: rows and columns of zeros on each side, so that no kernel asks where the image ends.
        skew: floats between two planes, so that their distance is no multiple of a page: the same place of many
            channels would share few sets of the first-level cache.
    """

    channels: int
    height: int
    width: int
    lanes: int
    halo: int = 0
    skew: int = 0

    @classmethod
    def of(cls, channels: int, height: int, width: int, lanes: int, halo: int = 0) -> "Planes":
        """The layout with a skew where the distance of two planes asks for one."""
        plain = cls(channels, height, width, lanes, halo)
        crowded = plain.blocks > 1 and plain.plane > 64 and plain.plane % 512 < 64
        return cls(channels, height, width, lanes, halo, 64 if crowded else 0)

    @property
    def row(self) -> int:
        """Floats from a row to the next."""
        return (self.width + 2 * self.halo) * self.lanes

    @property
    def plane(self) -> int:
        """Floats from a block of channels to the next."""
        return whole((self.height + 2 * self.halo) * self.row, self.lanes if self.blocks == 1 else 1) + self.skew

    @property
    def blocks(self) -> int:
        """Blocks of channels."""
        return -(-self.channels // self.lanes)

    @property
    def floats(self) -> int:
        """Floats in all."""
        return self.blocks * self.plane

    def at(self, channel: int, y: int = 0, x: int = 0) -> int:
        """Where a number lies; rows and columns from `-halo` on."""
        inside = (y + self.halo) * self.row + (x + self.halo) * self.lanes
        return channel // self.lanes * self.plane + inside + channel % self.lanes
