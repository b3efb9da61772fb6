"""Modicum: neural networks that must make do with little.

`from modicum import core, constraints, admm, spiking, analog, federated, mobile, models, train`: each is a package of
its own, imported when asked for.
"""

__version__ = "0.1.0"
