"""Spoken digits, GRU 2 x 512 over 39-dim MFCC: RTMobile's block-based structured pruning at 10 to 103 times.

Both matrices of each layer, read as outputs x inputs, are cut into 24 strips and 4 column blocks. Step one keeps
columns inside each block, up to 32 times fewer, step two rows of the whole matrix. The first layer's input matrix, 2.5%
of all weights, is pruned a third as much, or 9.75 times (one column of each block) where that is more.

Anchor: the authors' logs on TIMIT, GRU 2 x 1024 (phone error rate, %): 18.8 at 10x, 19.6 at 29x, 21.5 at 80x, 23.2 at
103x: +0, +0.8, +2.7, +4.4 points over 10x. TIMIT is not free; ours is the Free Spoken Digit Dataset, takes 0-4 held out
(`speaker=theo` holds out a speaker instead).
Command: python scripts/compress.py configs/rtmobile/spoken_digit.py rate=29
Time and score: `python scripts/tables.py` (table spoken_digit).
"""

from modicum.constraints import BlockColumnRow
from modicum.systems.compression_config import Recipe, Schedule
from modicum.systems.dense import gru_on_spoken_digits

_STRIPS, _BLOCKS, _MOST_COLUMN_RATE = 24, 4, 32.0
_INPUTS = 39


def bsp(inputs: int, outputs: int, rate: float, sweeps: int) -> BlockColumnRow:
    """The set that keeps at most `1 / rate` of a matrix: columns first, up to 32 times, then rows."""
    width = -(-inputs // _BLOCKS)
    columns = max(1, int(width / min(rate, _MOST_COLUMN_RATE)))
    rows = min(outputs, int(outputs * inputs / (_BLOCKS * columns) / rate))
    return BlockColumnRow(columns, rows, strips=_STRIPS, blocks=_BLOCKS, sweeps=sweeps)


def config(rate: float = 10.0, features: int = 512, speaker: str | None = None, sweeps: int = 6) -> Recipe:
    """The experiment.

    Args:
        rate: how many times fewer weights the matrices keep, at least 1.
        features: units of each of the two layers.
        speaker: whom to hold out, None for takes 0-4 of all.
        sweeps: alternating sweeps of the projection; 0 is the paper's two steps.
    """
    width = 3 * features
    first, others = _INPUTS * width, 3 * features * width
    first_rate = min(rate, max(_INPUTS / _BLOCKS, rate / 3))
    others_rate = others / ((first + others) / rate - first / first_rate)
    rules = (
        ("GRULayer_0/input_kernel", bsp(_INPUTS, width, first_rate, sweeps)),
        ("GRULayer_.*kernel", bsp(features, width, others_rate, sweeps)),
    )
    return Recipe(
        dense=gru_on_spoken_digits(features, speaker),
        rules=rules,
        schedule=Schedule(
            outer=10, inner=40, retrain=1200, rho=8.0, growth=1.4, retrain_learning_rate=2e-3, clip=1.0, batch=16
        ),
    )
