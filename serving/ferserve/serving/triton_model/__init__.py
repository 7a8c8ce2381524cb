"""The Triton model repository of an archive: `repository` writes it, `model` is the file in it that Triton runs."""

from typing import Literal

TritonBackend = Literal["python", "onnxruntime"]
Device = Literal["cpu", "gpu"]
