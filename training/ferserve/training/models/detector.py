"""YuNet, a face detector without anchors (Wu, Peng and Yu 2023, YuNet: A Tiny Millisecond-level Face Detector).

A stem of stride 2, separable units (a 1x1 convolution, then a 3x3 depthwise one) with halvings between them, a pyramid
of three levels added from the coarsest down, and a head a level.

Deviations from the paper's file, which change no answer (see `detector.start`):

- The paper has four heads a level, for cls, obj, box and landmarks; here they are one of sixteen channels, which is one
  vector register wide and saves nine pairs of convolutions.
- There are no norms: the published file has them folded into its convolutions, and training goes on from there.

Shapes: N pictures, H and W pixels (multiples of 32), A cells, M = 16 numbers of the net a cell: logits of cls and obj,
box, landmarks; K = 15 as in `detector.geometry`, with one score.
"""

import math
from itertools import pairwise
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ferserve.training.detector.geometry import NUMBERS

STEM: Final = 16
BODY: Final = ((16,), (16, 32, 32, 64), (64, 64), (64, 64), (64, 64))
"""Output channels of the separable units at strides 2, 4, 8, 16 and 32; the last three feed the pyramid."""
LEVELS: Final = 3
WIDTH: Final = 64
"""Channels of the pyramid."""
SCORES: Final = 2
"""Logits of the head that make the score: cls and obj."""
INPUT_SCALE: Final = 1 / 64
"""Pixels 0 to 255 are brought to about one before the stem, so that its weights are of the others' size and one rate
fits all; at export the factor goes into the weights."""
MAX_LOG_P: Final = -1e-6
"""A probability of one has no logit."""
PRIOR: Final = 0.01
"""Score of every cell at a random start (Lin et al. 2017, Focal Loss)."""


class SeparableUnit(nn.Module):
    """1x1 convolution, 3x3 depthwise convolution; a ReLU at the end unless it is a head."""

    def __init__(self, inputs: int, outputs: int, *, relu: bool = True) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(inputs, outputs, 1)
        self.depthwise = nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs)
        self.relu = relu

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        x_NCHW = self.depthwise(self.pointwise(x_NCHW))
        return F.relu(x_NCHW) if self.relu else x_NCHW


class YuNet(nn.Module):
    """BGR pictures, 0 to 255, to maps; random start weights."""

    def __init__(self) -> None:
        super().__init__()
        self.input_scale = INPUT_SCALE
        self.stem = nn.Conv2d(3, STEM, 3, stride=2, padding=1)
        starts = (STEM, *(stage[-1] for stage in BODY))
        self.body = nn.ModuleList(
            nn.Sequential(*(SeparableUnit(inputs, outputs) for inputs, outputs in pairwise((start, *stage))))
            for start, stage in zip(starts[:-1], BODY, strict=True)
        )
        self.laterals = nn.ModuleList(SeparableUnit(WIDTH, WIDTH) for _ in range(LEVELS))
        self.heads = nn.ModuleList(SeparableUnit(WIDTH, SCORES + NUMBERS - 1, relu=False) for _ in range(LEVELS))
        for head in self.heads:
            assert isinstance(head, SeparableUnit)
            assert head.depthwise.bias is not None
            nn.init.constant_(head.depthwise.bias[:SCORES], -math.log((1 - PRIOR) / PRIOR))

    def fold(self) -> None:
        """Move the input's scale into the stem: the same answers, one multiplication of the whole picture less."""
        with torch.no_grad():
            self.stem.weight.mul_(self.input_scale)
        self.input_scale = 1.0

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to the maps of strides 8, 16 and 32, each (N, A, M), cells row by row."""
        if self.input_scale != 1.0:
            x_NCHW = x_NCHW * self.input_scale
        x_NCHW = F.relu(self.stem(x_NCHW))
        features = []
        for index, stage in enumerate(self.body):
            x_NCHW = stage(F.max_pool2d(x_NCHW, 2) if index else x_NCHW)
            features.append(x_NCHW)
        maps: list[Tensor] = []
        above: Tensor | None = None
        levels = zip(features[-LEVELS:], self.laterals, self.heads, strict=True)
        for feature, lateral, head in reversed(list(levels)):
            level = feature if above is None else feature + F.interpolate(above, scale_factor=2.0)
            above = lateral(level)
            maps.insert(0, head(above).permute(0, 2, 3, 1).flatten(1, 2))
        return maps


def with_one_score(maps_NAM: Tensor) -> Tensor:
    """Maps (N, A, K) whose score is the logit of the geometric mean of the two probabilities, float32."""
    maps_NAM = maps_NAM.float()
    log_p = F.logsigmoid(maps_NAM[..., :SCORES]).mean(dim=-1, keepdim=True).clamp(max=MAX_LOG_P)
    return torch.cat((log_p - torch.log(-torch.expm1(log_p)), maps_NAM[..., SCORES:]), dim=-1)
