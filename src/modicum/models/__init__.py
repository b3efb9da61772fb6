"""Networks: flax.linen modules whose parameters are plain dicts."""

from modicum.models.convolutional import LeNet5, SmallConvNet, caffe_lenet
from modicum.models.recurrent import GRUClassifier

__all__ = ["GRUClassifier", "LeNet5", "SmallConvNet", "caffe_lenet"]
