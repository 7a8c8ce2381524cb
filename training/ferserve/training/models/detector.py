"""A small face detector without anchors: YuNet's interface (Wu, Peng and Yu 2023), a net of our own.

A dense stem of two convolutions down to stride 4 (with few channels it is faster in ONNX Runtime than depthwise ones at
full size), separable units with one norm each, a pyramid of three levels added from the coarsest down, and one head a
level whose single convolution gives all fifteen numbers of a cell: sixteen channels are one vector register.

Shapes: N pictures, H and W pixels (multiples of 32), A cells, K = 15 numbers a cell (see `detector.geometry`).
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ferserve.training.detector.geometry import NUMBERS

STEM: Final = (16, 32)
STAGES: Final = ((64, 64, 64), (128, 128, 64), (128, 128, 64))
"""Output channels of the separable units at strides 8, 16 and 32; the first unit of a stage halves the size."""
WIDTH: Final = 64
"""Channels of the pyramid."""
INPUT_SCALE: Final = 1 / 64
"""Pixels 0 to 255 are brought to about one before the stem; at export the factor goes into its weights."""
PRIOR: Final = 0.01
"""Score of every cell at the start (Lin et al. 2017, Focal Loss)."""


class DenseUnit(nn.Module):
    """3x3 convolution of stride 2, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / 2, W / 2)."""
        return F.relu(self.norm(self.conv(x_NCHW)))


class SeparableUnit(nn.Module):
    """3x3 depthwise convolution, 1x1 convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False)
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        return F.relu(self.norm(self.conv(self.depthwise(x_NCHW))))


class FaceNet(nn.Module):
    """BGR pictures, 0 to 255, to maps; random start weights.

    Args:
        stages, width: see `STAGES` and `WIDTH`; each stage must end in `width` channels.
    """

    def __init__(self, *, stages: Sequence[Sequence[int]] = STAGES, width: int = WIDTH) -> None:
        super().__init__()
        self.input_scale = INPUT_SCALE
        self.stem = nn.Sequential(*(DenseUnit(inputs, outputs) for inputs, outputs in pairwise((3, *STEM))))
        channels = [STEM[-1], *(stage[-1] for stage in stages)]
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    SeparableUnit(inputs, outputs, stride=1 if index else 2)
                    for index, (inputs, outputs) in enumerate(pairwise((start, *stage)))
                )
            )
            for start, stage in zip(channels[:-1], stages, strict=True)
        )
        self.laterals = nn.ModuleList(SeparableUnit(width, width) for _ in stages)
        self.trunks = nn.ModuleList(SeparableUnit(width, width) for _ in stages)
        self.heads = nn.ModuleList(nn.Conv2d(width, NUMBERS, 1) for _ in stages)
        for head in self.heads:
            assert isinstance(head, nn.Conv2d)
            assert head.bias is not None
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)
            nn.init.constant_(head.bias[:1], -math.log((1 - PRIOR) / PRIOR))

    def fold(self) -> None:
        """Move norms and the input's scale into the convolutions; the same in eval mode, and cannot train on."""
        for layer in self.modules():
            if isinstance(layer, (DenseUnit, SeparableUnit)) and isinstance(layer.norm, nn.BatchNorm2d):
                layer.conv = fuse_conv_bn_eval(layer.conv, layer.norm)
                layer.norm = nn.Identity()
        first = self.stem[0]
        assert isinstance(first, DenseUnit)
        with torch.no_grad():
            first.conv.weight.mul_(self.input_scale)
        self.input_scale = 1.0

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to the maps of strides 8, 16 and 32, each (N, A, K), cells row by row, the score as a logit."""
        if self.input_scale != 1.0:
            x_NCHW = x_NCHW * self.input_scale
        x_NCHW = self.stem(x_NCHW)
        features = []
        for stage in self.stages:
            x_NCHW = stage(x_NCHW)
            features.append(x_NCHW)
        maps: list[Tensor] = []
        above: Tensor | None = None
        for index in reversed(range(len(features))):
            level = features[index] if above is None else features[index] + F.interpolate(above, scale_factor=2.0)
            above = self.laterals[index](level)
            cells_NKHW = self.heads[index](self.trunks[index](above))
            maps.insert(0, cells_NKHW.permute(0, 2, 3, 1).flatten(1, 2))
        return maps
