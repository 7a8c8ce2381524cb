"""Programs for torch, as archives hold them, of nets that learnt nothing."""

import io
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ferserve.faces.archive import MAX_BATCH_FACES
from ferserve.training.export import quiet_exporter

TINY_SHAPE = (24, 24, 1)
"""Of the crops, as tiny archives take them."""


class Linear(nn.Module):
    """What the ONNX graph of a tiny archive computes."""

    def __init__(self, weights: NDArray[Any]) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.from_numpy(np.ascontiguousarray(weights)))

    def forward(self, crops: Tensor) -> Tensor:
        return torch.softmax(crops.to(torch.float32).flatten(1) @ self.weights, dim=1)


def export(module: nn.Module) -> bytes:
    """A net that takes crops of `TINY_SHAPE` as a `.pt2`."""
    buffer = io.BytesIO()
    dynamic = ({0: torch.export.Dim("n", min=1, max=MAX_BATCH_FACES)},)
    with quiet_exporter():
        example = torch.zeros((2, *TINY_SHAPE), dtype=torch.uint8)
        torch.export.save(torch.export.export(module.eval(), (example,), dynamic_shapes=dynamic), buffer)
    return buffer.getvalue()
