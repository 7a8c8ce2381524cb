"""S4's MobileNet V1 (Miao et al. 2019, "A Deep Learning System for Recognizing Facial Expression in Real-Time").

Howard et al. 2017, Table 1: a 3x3 convolution and thirteen depthwise-separable blocks, each convolution followed by
batch norm and a ReLU; average pooling; Miao et al. add dropout 0.5 and seven classes.

Deviations from the paper, all forced or chosen for the face-trained start (see `pretrained`):
- ReLU6 and TensorFlow's asymmetric SAME padding, as the imported weights were trained with them.
- One grey input channel: the imported stem's three are summed, which is exact for grey pictures.
- Crops of 48 px are enlarged before the stem (`input_size_px` of the recipe); the paper feeds 48 px as they are.

Shapes: N faces, C channels, H and W pixels, D = 1024 features, K = 7 classes.
"""

from itertools import pairwise
from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ferserve.faces.labels import NUM_EXPRESSIONS
from ferserve.training.models.net import ExpressionNet

STEM_WIDTH: Final = 32
BLOCKS: Final = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip
"""(output channels, stride of the depthwise convolution), Howard et al. 2017, Table 1."""
FEATURES: Final = 1024


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding of one axis: (before, after), the odd pixel after.

    Args:
        size: length of the axis before padding.
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class ConvNormAct(nn.Module):
    """Convolution with SAME padding, batch norm, ReLU6."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, ceil(H / stride), ceil(W / stride))."""
        top, bottom = same_padding(x_NCHW.shape[2], self.kernel, self.stride)
        left, right = same_padding(x_NCHW.shape[3], self.kernel, self.stride)
        if top == bottom and left == right:
            # The convolution's own padding spares a copy of the feature map.
            x_NCHW = F.conv2d(x_NCHW, self.conv.weight, self.conv.bias, self.stride, (top, left), 1, self.conv.groups)
        else:
            x_NCHW = self.conv(F.pad(x_NCHW, (left, right, top, bottom)))
        return F.relu6(self.norm(x_NCHW))


class MobileNetV1(ExpressionNet):
    """Grey faces in [-1, 1] to features and logits.

    Args:
        dropout: on the pooled features while training; the paper's 0.5.
    """

    groups = (("stem",), *((f"blocks.{number}",) for number in range(len(BLOCKS))))
    num_features = FEATURES

    def __init__(self, *, in_channels: int = 1, num_classes: int = NUM_EXPRESSIONS, dropout: float = 0.5) -> None:
        super().__init__()
        self.stem = ConvNormAct(in_channels, STEM_WIDTH, kernel=3, stride=2)
        widths = (STEM_WIDTH, *(width for width, _ in BLOCKS))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                ConvNormAct(inputs, inputs, kernel=3, stride=stride, groups=inputs),
                ConvNormAct(inputs, outputs, kernel=1),
            )
            for (inputs, outputs), (_, stride) in zip(pairwise(widths), BLOCKS, strict=True)
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(FEATURES, num_classes)

    def fold_norms(self) -> None:
        """Move every batch norm into its convolution; the net computes the same in eval mode and cannot train on."""
        for layer in self.modules():
            if isinstance(layer, ConvNormAct) and isinstance(layer.norm, nn.BatchNorm2d):
                layer.conv = fuse_conv_bn_eval(layer.conv, layer.norm)
                layer.norm = nn.Identity()

    def features(self, x_NCHW: Tensor) -> Tensor:
        """Average-pooled features of the last block: (N, C, H, W) to (N, D)."""
        x_NCHW = self.stem(x_NCHW)
        for block in self.blocks:
            x_NCHW = block(x_NCHW)
        return x_NCHW.mean(dim=(2, 3))

    def forward(self, x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) in [-1, 1] to logits (N, K) and features (N, D)."""
        feat_ND = self.features(x_NCHW)
        return self.classifier(self.dropout(feat_ND)), feat_ND
