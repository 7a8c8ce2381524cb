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


class Convolutions(nn.Module):
    """All that a program may hold of them: of one pixel, strided, grouped, without bias, used twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(1, 8, 3, stride=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pointwise = nn.Conv2d(8, 16, 1)
        self.bare = nn.Conv2d(16, 16, 1, bias=False)
        self.grouped = nn.Conv2d(16, 16, 1, groups=2)
        self.strided = nn.Conv2d(16, 8, 1, stride=2)
        self.kept = nn.Conv2d(8, 8, 1)
        self.last = nn.Linear(8, 7)

    def forward(self, crops: Tensor) -> Tensor:
        x = crops.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0
        for layer in (self.stem, self.depthwise, self.pointwise, self.bare, self.grouped, self.strided):
            x = nn.functional.relu6(layer(x))
        kept = self.kept(x)
        x = nn.functional.relu(kept) + kept
        return torch.softmax(self.last(x.mean(dim=(2, 3))), dim=1)


def export(module: nn.Module) -> bytes:
    """A net that takes crops of `TINY_SHAPE` as a `.pt2`."""
    buffer = io.BytesIO()
    dynamic = ({0: torch.export.Dim("n", min=1, max=MAX_BATCH_FACES)},)
    with quiet_exporter():
        example = torch.zeros((2, *TINY_SHAPE), dtype=torch.uint8)
        torch.export.save(torch.export.export(module.eval(), (example,), dynamic_shapes=dynamic), buffer)
    return buffer.getvalue()
