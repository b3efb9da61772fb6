"""Parameters to and from other houses: safetensors files, torch's state dicts, ONNX files.

`save` and `load` keep any tree of arrays, bit for bit, in a file that every framework reads. `from_torch` and
`from_onnx` turn what others trained into variables of the networks of `modicum.models`. Spiking networks go by NIR
(`spiking.to_nir`), whole programs by StableHLO (`mobile.compile`) or as LiteRT files (`to_litert`).
"""

from modicum.interchange.files import load, metadata, save
from modicum.interchange.litert import litert_outputs, to_litert
from modicum.interchange.onnx_files import from_onnx
from modicum.interchange.torch_states import from_torch

__all__ = ["from_onnx", "from_torch", "litert_outputs", "load", "metadata", "save", "to_litert"]
