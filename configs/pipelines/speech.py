"""Spoken digits: a GRU pruned by blocks of columns and rows, as native code and on crossbars, side by side.

Anchor: RTMobile's log on TIMIT at 10 times fewer weights; see configs/rtmobile/spoken_digit.py.
Command: modicum pipeline pipelines/speech (small: features=32 outer=2 epochs=1)
Time and score: `modicum tables` (pipelines).
"""

import dataclasses
from pathlib import Path

from modicum import analog, train
from modicum.systems.pipelines import OnDevices
from modicum.systems.simulation_config import Simulation


def config(
    rate: float = 10.0, features: int = 512, outer: int = 10, epochs: int = 0, chips: int = 2, images: int = 50
) -> OnDevices:
    """The pipeline.

    Args:
        rate: how many times fewer weights the matrices keep.
        features: units of each of the two layers.
        outer: dual updates; retraining has 120 steps for each.
        epochs: of the training before, 0 for the recipe's own.
        chips: that are measured.
        images: held-out recordings a chip reads.
    """
    recipe = train.read_config(Path(__file__).parents[1] / "rtmobile" / "spoken_digit.py")(rate=rate, features=features)
    schedule = dataclasses.replace(recipe.schedule, outer=outer, retrain=120 * outer)
    dense = dataclasses.replace(recipe.dense, epochs=epochs, steps=None) if epochs else recipe.dense
    network = dataclasses.replace(recipe, schedule=schedule, dense=dense)
    crossbars = Simulation(
        network=network,
        spec=analog.CrossbarSpec(fragment=8, weight_bits=8, sigma=0.05, input_format="signed"),
        quantile=0.999,
        chips=chips,
        images=images,
        batch=min(25, images),
        calibration_examples=100,
    )
    return OnDevices(network=network, devices=(("crossbars", crossbars),), native=True)
