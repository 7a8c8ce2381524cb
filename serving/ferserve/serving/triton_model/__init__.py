"""The Triton model repository of an archive: `repository` writes it, `model` is the file in it that Triton runs."""

from typing import Literal

GraphPrecision = Literal["fp32", "int8"]
"""What an archive's ONNX graphs compute in."""
TritonBackend = Literal["python", "onnxruntime"]
Device = Literal["cpu", "gpu"]
