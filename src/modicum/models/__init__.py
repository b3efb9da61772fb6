"""Networks: flax.linen modules whose parameters are plain dicts."""

from modicum.models.convolutional import LeNet5, SmallConvNet, caffe_lenet
from modicum.models.deep import VGG16, MobileNetV2, ResNet, resnet20, resnet50, small_resnet
from modicum.models.language import LSTMLanguageModel, LSTMLayer
from modicum.models.normalized import apply_training, calibrate
from modicum.models.recurrent import GRUClassifier, GRULayer, rtmobile_gru

__all__ = [
    "VGG16",
    "GRUClassifier",
    "GRULayer",
    "LSTMLanguageModel",
    "LSTMLayer",
    "LeNet5",
    "MobileNetV2",
    "ResNet",
    "SmallConvNet",
    "apply_training",
    "caffe_lenet",
    "calibrate",
    "resnet20",
    "resnet50",
    "rtmobile_gru",
    "small_resnet",
]
