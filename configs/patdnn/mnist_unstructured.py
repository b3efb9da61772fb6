"""LeNet-5 (431,080 parameters) on MNIST, 71 times fewer weights without structure: the ADMM baseline of the field.

Anchor: 430,500 -> 6,050 weights (71x) at 99.2%, keeping 20, 8, 0.9 and 7% of the four layers (`kaiqzhan/admm-pruning`).
Command: python scripts/compress.py configs/patdnn/mnist_unstructured.py
Time and score: `python scripts/tables.py` (table mnist).
"""

from modicum.constraints import TopK
from modicum.systems.compression_config import Keep, Recipe, Schedule
from modicum.systems.dense import lenet_on_mnist


def config() -> Recipe:
    """The experiment."""
    return Recipe(
        dense=lenet_on_mnist(),
        rules=(
            ("Conv_0/kernel", Keep(TopK, 0.20)),
            ("Conv_1/kernel", Keep(TopK, 0.08)),
            ("Dense_0/kernel", Keep(TopK, 0.009)),
            ("Dense_1/kernel", Keep(TopK, 0.07)),
        ),
        schedule=Schedule(outer=30, inner=200, retrain=8000, rho=0.3, growth=1.25, retrain_learning_rate=4e-3),
    )
